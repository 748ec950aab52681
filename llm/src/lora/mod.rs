//! Which parts make up LoRA training: layers, packing, optimiser, checkpoints, PEFT files.
