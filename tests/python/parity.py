"""Do the program's logits equal those of Hugging Face transformers and PEFT?

    parity.py make-models OUT                    random models in the supported shapes
    parity.py prompts --vocab N OUT              random prompts of different lengths
    parity.py compare --model DIR [--adapter DIR] --prompts FILE --logits FILE
    parity.py golden OUT [--tiny DIR]            the small files `cargo test` compares with
    parity.py all [--tiny DIR] [--adapter DIR]   models, prompts, logits and comparison in one go

`compare` expects the output of `cargo run -p casebook-llm --example logits`: tensors logits.0,
logits.1, ... of [tokens, vocab], all prompts in one batch. It fails unless max|a-b| / max|b| is
at most 1e-4 for every prompt, in f32. Everything is seeded: the same versions (requirements.txt)
write the same files.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

LIMIT = 1e-4
ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "llm/tiny/model"
PROGRAM = ["cargo", "run", "-q", "-p", "casebook-llm", "--example", "logits", "--"]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GOLDEN_LENGTHS = (1, 7, 19)  # three prompts of different lengths, batched together on our side


def shapes(hidden, vocab, layers, positions):
    """name -> (model class, configuration); head sizes scale with `hidden`."""
    common = dict(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=hidden * 3 // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.15,
    )
    llama3_rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": positions // 8,
    }
    plain_rope = {"rope_type": "default", "rope_theta": 10000.0}
    llama3 = dict(common, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=llama3_rope)
    llama2 = dict(common, num_key_value_heads=4, rms_norm_eps=1e-6, rope_parameters=plain_rope)
    mistral = dict(
        common,
        num_key_value_heads=2,
        head_dim=hidden // 2,  # four heads of it are twice as wide as the model
        sliding_window=None,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    return {
        "llama3-tied": (LlamaForCausalLM, LlamaConfig(**llama3, tie_word_embeddings=True)),
        "llama3-untied": (LlamaForCausalLM, LlamaConfig(**llama3, tie_word_embeddings=False)),
        "llama2": (LlamaForCausalLM, LlamaConfig(**llama2, tie_word_embeddings=False)),
        "mistral": (MistralForCausalLM, MistralConfig(**mistral, tie_word_embeddings=False)),
    }


def random_model(model_class, config, seed):
    """A model whose every weight matters: norms are not all one."""
    torch.manual_seed(seed)
    model = model_class(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model


def random_adapter(model, seed, out):
    """Writes a PEFT adapter with non-zero A and B on all linear maps."""
    torch.manual_seed(seed)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.2)
    tuned.save_pretrained(out)
    settings_file = out / "adapter_config.json"
    content = json.loads(settings_file.read_text())
    content["base_model_name_or_path"] = None
    content["target_modules"].sort()
    settings_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink(missing_ok=True)


def load(directory, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def random_prompts(vocab, count, seed):
    """`count` prompts of different lengths, 1 to 5 * count tokens."""
    torch.manual_seed(seed)
    lengths = 1 + torch.randperm(5 * count)[:count]
    return [torch.randint(0, vocab, (length,)).tolist() for length in lengths.tolist()]


def logits_of(model, prompt):
    """[tokens, vocab]; prompts go through one at a time, so padding plays no part."""
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0].float()


def make_models(out):
    for seed, (name, (model_class, config)) in enumerate(shapes(64, 256, 3, 512).items()):
        model = random_model(model_class, config, seed)
        sharded = {"max_shard_size": "100KB"} if name == "llama2" else {}
        model.save_pretrained(out / name, **sharded)
        random_adapter(model, seed + 100, out / f"{name}-adapter")
        print(out / name)


def write_prompts(vocab, count, seed, out):
    out.write_text(json.dumps({"prompts": random_prompts(vocab, count, seed)}))


def compare(model, adapter, prompts, logits):
    """Prints the worst gap and returns whether all are within the limit."""
    model = load(model, adapter)
    prompts = json.loads(prompts.read_text())["prompts"]
    found = load_file(logits)
    if sorted(found) != sorted(f"logits.{i}" for i in range(len(prompts))):
        print(f"{logits}: {len(found)} tensors for {len(prompts)} prompts")
        return False
    gaps = []
    for i, prompt in enumerate(prompts):
        wanted, ours = logits_of(model, prompt), found[f"logits.{i}"]
        if ours.shape != wanted.shape:
            print(f"prompt {i}: shape {list(ours.shape)}, expected {list(wanted.shape)}")
            return False
        gap = ((ours - wanted).abs().max() / wanted.abs().max()).item()
        gaps.append((gap if gap == gap else float("inf"), i, len(prompt)))
    gap, i, length = max(gaps)
    print(f"{len(prompts)} prompts, worst max|a-b|/max|b| = {gap:.2e} (prompt {i}, {length} tokens)")
    return gap <= LIMIT


def golden(out, tiny):
    """One folder a model: config.json, model.safetensors (bf16), golden.safetensors (f32)."""
    for seed, (name, (model_class, config)) in enumerate(shapes(32, 64, 2, 256).items()):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        random_model(model_class, config, seed).to(torch.bfloat16).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = load(folder)
        torch.manual_seed(seed + 200)
        prompts = [torch.randint(0, 64, (length,)).tolist() for length in GOLDEN_LENGTHS]
        tensors = {}
        for i, prompt in enumerate(prompts):
            tensors[f"tokens.{i}"] = torch.tensor(prompt)
            tensors[f"logits.{i}"] = logits_of(model, prompt)
        if name == "llama3-untied":
            random_adapter(model, seed + 100, folder / "adapter")
            tuned = load(folder, folder / "adapter")
            for i, prompt in enumerate(prompts):
                tensors[f"adapter_logits.{i}"] = logits_of(tuned, prompt)
        save_file(tensors, folder / "golden.safetensors")
        print(folder)

    folder = out / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    model, tensors = load(tiny), {}
    torch.manual_seed(7)
    for i, length in enumerate((11, 13)):
        prompt = torch.randint(0, model.config.vocab_size, (length,)).tolist()
        tensors[f"tokens.{i}"] = torch.tensor(prompt)
        tensors[f"last_logits.{i}"] = logits_of(model, prompt)[-1:].contiguous()
    save_file(tensors, folder / "golden.safetensors")
    print(folder)
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)


def run_all(tiny, adapter, program):
    """Every shape with and without an adapter, and the bundled model, against the program."""
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make_models(folder)
        cases = [(tiny, None), (tiny, adapter)] if adapter else [(tiny, None)]
        for name in shapes(64, 256, 3, 512):
            cases += [(folder / name, None), (folder / name, folder / f"{name}-adapter")]
        for number, (model, adapter) in enumerate(cases):
            prompts, logits = folder / f"{number}.json", folder / f"{number}.safetensors"
            vocab = json.loads((model / "config.json").read_text())["vocab_size"]
            write_prompts(vocab, 20, number, prompts)
            words = [*program, "--model", model, "--prompts", prompts, "--out", logits]
            words += ["--adapter", adapter] if adapter else []
            subprocess.run([str(word) for word in words], cwd=ROOT, check=True)
            print(f"{model.name}{' + adapter' if adapter else ''}: ", end="", flush=True)
            fine &= compare(model, adapter, prompts, logits)
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    path = pathlib.Path
    command = commands.add_parser("make-models")
    command.add_argument("out", type=path)
    command = commands.add_parser("prompts")
    command.add_argument("--vocab", type=int, required=True)
    command.add_argument("--count", type=int, default=20)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("out", type=path)
    command = commands.add_parser("compare")
    command.add_argument("--model", type=path, required=True)
    command.add_argument("--adapter", type=path)
    command.add_argument("--prompts", type=path, required=True)
    command.add_argument("--logits", type=path, required=True)
    command = commands.add_parser("golden")
    command.add_argument("out", type=path)
    command.add_argument("--tiny", type=path, default=TINY)
    command = commands.add_parser("all")
    command.add_argument("--tiny", type=path, default=TINY)
    command.add_argument("--adapter", type=path)
    command.add_argument("--program", help="a built logits example, instead of cargo run")
    args = parser.parse_args()
    match args.command:
        case "make-models":
            make_models(args.out)
        case "prompts":
            write_prompts(args.vocab, args.count, args.seed, args.out)
        case "compare":
            fine = compare(args.model, args.adapter, args.prompts, args.logits)
            sys.exit(0 if fine else 1)
        case "golden":
            golden(args.out, args.tiny)
        case "all":
            program = [args.program] if args.program else PROGRAM
            sys.exit(0 if run_all(args.tiny, args.adapter, program) else 1)


if __name__ == "__main__":
    main()
