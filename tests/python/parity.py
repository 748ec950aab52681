"""Do the program's logits and training steps equal those of Hugging Face transformers and PEFT?

    parity.py make-models OUT                    random models in the supported shapes
    parity.py prompts --vocab N OUT              random prompts of different lengths
    parity.py compare --model DIR [--adapter DIR] --prompts FILE --logits FILE
    parity.py golden OUT [--tiny DIR]            the small files `cargo test` compares with
    parity.py all [--tiny DIR] [--adapter DIR]   models, prompts, logits, training and comparison

`all` prints the table of llm/README.md at its end. `compare` expects the output of `cargo run -p casebook-llm --example logits`: tensors logits.0,
logits.1, ... of [tokens, vocab], all prompts in one batch. It fails unless max|a-b| / max|b| is
at most 1e-4 for every prompt, in f32. Training takes 20 steps of AdamW from the same adapter on
the same three sequences; loss and gradient norm of every step must agree to 1e-3. Everything is
seeded: the same versions (requirements.txt) write the same files.
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
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

LIMIT = 1e-4
TRAINING_LIMIT = 1e-3
TRAINING_STEPS = 20
LEARNING_RATE = 2e-4  # the program's default; at 1e-3 rounding grows tenfold each step in some shapes
GOLDEN_RATE = 1e-3
ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "llm/tiny/model"
EXAMPLE = ["cargo", "run", "-q", "-p", "casebook-llm", "--example"]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED_LINEARS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
GOLDEN_LENGTHS = (1, 7, 19)  # three prompts of different lengths, batched together on our side
FAMILY_LENGTHS = (1, 8, 45)  # longer than every window


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


def families(hidden, vocab, layers, positions):
    """name -> configuration: every family in shapes that use all it has."""
    common = dict(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=hidden * 3 // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.15,
    )
    rope = lambda theta=10000.0, kind="default", **more: {
        "rope_type": kind,
        "rope_theta": theta,
        **more,
    }
    yarn = rope(1e6, "yarn", factor=4.0, original_max_position_embeddings=positions // 4)
    kind = lambda model_type, **more: AutoConfig.for_model(model_type, **{**common, **more})
    pairs = hidden // 4 // 2
    long_rope = rope(
        kind="longrope",
        short_factor=[1.0 + 0.1 * i for i in range(pairs)],
        long_factor=[2.0 + 0.3 * i for i in range(pairs)],
        original_max_position_embeddings=positions // 2,
    )
    part_rope = rope(
        kind="longrope",
        partial_rotary_factor=0.75,
        short_factor=[1.0] * (pairs * 3 // 4),
        long_factor=[4.0 + i for i in range(pairs * 3 // 4)],
        original_max_position_embeddings=positions // 2,
    )
    gemma = dict(head_dim=hidden // 2, query_pre_attn_scalar=hidden // 3)
    two_ropes = {
        "sliding_attention": rope(10000.0),
        "full_attention": rope(1e6, "linear", factor=8.0),
    }
    linear = rope(kind="linear", factor=2.5)
    return {
        "llama-biases": kind(
            "llama", attention_bias=True, mlp_bias=True, rope_parameters=linear, head_dim=hidden // 4
        ),
        "mistral-window": kind("mistral", sliding_window=positions // 7, rope_parameters=rope(1e4)),
        "mistral-yarn": kind(
            "mistral", sliding_window=None, head_dim=hidden // 2, rope_parameters=yarn
        ),
        "qwen2": kind("qwen2", rope_parameters=rope(1e6), tie_word_embeddings=True),
        "qwen2-window": kind(
            "qwen2",
            rope_parameters=yarn,
            use_sliding_window=True,
            sliding_window=9,
            max_window_layers=1,
        ),
        "qwen3": kind("qwen3", head_dim=hidden // 2, rope_parameters=rope(1e6)),
        "gemma2": kind("gemma2", sliding_window=9, rope_parameters=rope(), **gemma),
        "gemma3": kind(
            "gemma3_text",
            sliding_window=9,
            sliding_window_pattern=2,
            rope_parameters=two_ropes,
            **gemma,
        ),
        "phi3": kind("phi3", sliding_window=40, rope_parameters=long_rope,
                     original_max_position_embeddings=positions // 2),
        "phi4-mini": kind("phi3", rope_parameters=part_rope, tie_word_embeddings=True,
                          original_max_position_embeddings=positions // 2),
        "olmo2": kind("olmo2", rope_parameters=rope(5e5)),
        "granite": kind(
            "granite",
            rope_parameters=rope(),
            embedding_multiplier=6.0,
            attention_multiplier=0.2,
            residual_multiplier=0.3,
            logits_scaling=4.0,
            tie_word_embeddings=True,
        ),
    }


def all_models(hidden, vocab, layers, positions):
    """name -> (maker of a model, configuration)."""
    make = AutoModelForCausalLM.from_config
    models = {name: pair for name, pair in shapes(hidden, vocab, layers, positions).items()}
    for name, config in families(hidden, vocab, layers, positions).items():
        models[name] = (make, config)
    return models


def linears(config):
    return FUSED_LINEARS if config.model_type == "phi3" else LINEARS


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
    modules = linears(model.config)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM")
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
    # eager: the only one of transformers' implementations that computes all of Gemma 2
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
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
    for seed, (name, (model_class, config)) in enumerate(all_models(64, 256, 3, 512).items()):
        model = random_model(model_class, config, seed)
        sharded = {"max_shard_size": "100KB"} if name == "llama2" else {}
        model.save_pretrained(out / name, **sharded)
        random_adapter(model, seed + 100, out / f"{name}-adapter")
        print(out / name)


def write_prompts(vocab, count, seed, out):
    out.write_text(json.dumps({"prompts": random_prompts(vocab, count, seed)}))


def compare(model, adapter, prompts, logits):
    """Prints the worst gap and returns it."""
    model = load(model, adapter)
    prompts = json.loads(prompts.read_text())["prompts"]
    found = load_file(logits)
    if sorted(found) != sorted(f"logits.{i}" for i in range(len(prompts))):
        print(f"{logits}: {len(found)} tensors for {len(prompts)} prompts")
        return float("inf")
    gaps = []
    for i, prompt in enumerate(prompts):
        wanted, ours = logits_of(model, prompt), found[f"logits.{i}"]
        if ours.shape != wanted.shape:
            print(f"prompt {i}: shape {list(ours.shape)}, expected {list(wanted.shape)}")
            return float("inf")
        gap = ((ours - wanted).abs().max() / wanted.abs().max()).item()
        gaps.append((gap if gap == gap else float("inf"), i, len(prompt)))
    gap, i, length = max(gaps)
    print(f"{len(prompts)} prompts, worst max|a-b|/max|b| = {gap:.2e} (prompt {i}, {length} tokens)")
    return gap


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

    for seed, (name, config) in enumerate(families(32, 64, 2, 256).items()):
        folder = out / "families" / name
        shutil.rmtree(folder, ignore_errors=True)
        model = random_model(AutoModelForCausalLM.from_config, config, seed)
        model.to(torch.bfloat16).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model, tensors = load(folder), {}
        torch.manual_seed(seed + 200)
        prompts = [torch.randint(3, 64, (length,)).tolist() for length in FAMILY_LENGTHS]
        for i, prompt in enumerate(prompts):
            tensors[f"tokens.{i}"] = torch.tensor(prompt)
            tensors[f"logits.{i}"] = logits_of(model, prompt)
        random_adapter(model, seed + 100, folder / "adapter")
        work = {
            "steps": TRAINING_STEPS,
            "learning_rate": GOLDEN_RATE,
            "weight_decay": 0.01,
            "sequences": [{"ids": ids, "answer_at": len(ids) // 3} for ids in prompts[1:]],
        }
        losses, norms = peft_steps(folder, folder / "adapter", work)
        tensors["losses"], tensors["norms"] = torch.tensor(losses), torch.tensor(norms)
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


def batch(vocab, seed):
    """Three sequences and from where on their tokens are to be predicted. None has the padding
    token, whose embedding is zero: a norm of nothing makes any two trainers part."""
    torch.manual_seed(seed)
    return [
        {"ids": torch.randint(3, vocab, (length,)).tolist(), "answer_at": answer_at}
        for length, answer_at in ((37, 12), (5, 1), (90, 80))
    ]


def peft_steps(model, adapter, work):
    """Losses and gradient norms of PEFT, sequence by sequence without padding."""
    model = PeftModel.from_pretrained(load(model), adapter, is_trainable=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(
        trained, lr=work["learning_rate"], weight_decay=work["weight_decay"], eps=1e-8
    )
    supervised = sum(len(s["ids"]) - max(s["answer_at"], 1) for s in work["sequences"])
    losses, norms = [], []
    for _ in range(work["steps"]):
        adam.zero_grad()
        total = 0.0
        for sequence in work["sequences"]:
            ids = torch.tensor([sequence["ids"]])
            first = max(sequence["answer_at"], 1)
            logits = model(ids).logits[0, first - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, first:], reduction="sum")
            (loss / supervised).backward()
            total += loss.item() / supervised
        losses.append(total)
        norms.append(torch.sqrt(sum(p.grad.double().pow(2).sum() for p in trained)).item())
        adam.step()
    return losses, norms


def compare_steps(model, adapter, work, found):
    """The worst relative gap of the losses, and of the first gradient norm: those of later steps are of
    weights that rounding has led apart, and say more about that than about a step."""
    losses, norms = peft_steps(model, adapter, work)
    assert len(losses) == len(found["losses"]) and len(norms) == len(found["norms"])
    assert losses[0] != losses[-1], "nothing was learned"
    pairs = [*zip(found["losses"], losses), (found["norms"][0], norms[0])]
    print("(later norms: %.1e) " % max(abs(a - b) / abs(b) for a, b in zip(found["norms"], norms)), end="")
    return max(abs(a - b) / abs(b) for a, b in pairs)


def run(words):
    subprocess.run([str(word) for word in words], cwd=ROOT, check=True)


def run_all(tiny, adapter, programs):
    """Every shape with and without an adapter, and the bundled model, against the program."""
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make_models(folder)
        cases = [("bundled model", tiny, adapter, False)]
        for name in all_models(64, 256, 3, 512):
            cases.append((name, folder / name, folder / f"{name}-adapter", True))
        for number, (name, model, adapter, trains) in enumerate(cases):
            prompts, logits = folder / f"{number}.json", folder / f"{number}.safetensors"
            vocab = json.loads((model / "config.json").read_text())["vocab_size"]
            write_prompts(vocab, 20, number, prompts)
            row = [name]
            for pairs in (None, adapter):
                if pairs is None and len(row) > 1:  # the bundled model without an adapter
                    row.append(None)
                    continue
                words = [*programs["logits"], "--model", model, "--prompts", prompts]
                run([*words, "--out", logits, *(["--adapter", pairs] if pairs else [])])
                print(f"{name}{' + adapter' if pairs else ''}: ", end="", flush=True)
                gap = compare(model, pairs, prompts, logits)
                row.append(gap)
                fine &= gap <= LIMIT
            if trains:
                work = {
                    "steps": TRAINING_STEPS,
                    "learning_rate": LEARNING_RATE,
                    "weight_decay": 0.01,
                    "sequences": batch(vocab, number),
                }
                task, out = folder / f"{number}.batch.json", folder / f"{number}.steps.json"
                task.write_text(json.dumps(work))
                words = [*programs["steps"], "--model", model, "--adapter", adapter]
                run([*words, "--batch", task, "--out", out])
                gap = compare_steps(model, adapter, work, json.loads(out.read_text()))
                print(f"{name}: {TRAINING_STEPS} steps, worst gap {gap:.2e}")
                fine &= gap <= TRAINING_LIMIT
                row.append(gap)
            rows.append(row)
    print("\n| model | logits | with an adapter | 20 training steps |\n|---|---|---|---|")
    for row in rows:
        cells = [f"{gap:.0e}" if gap is not None else "" for gap in (row[1:] + [None] * 3)[:3]]
        print(f"| {row[0]} | {' | '.join(cells)} |")
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
    command.add_argument("--programs", type=path, help="folder of built examples, not cargo run")
    args = parser.parse_args()
    match args.command:
        case "make-models":
            make_models(args.out)
        case "prompts":
            write_prompts(args.vocab, args.count, args.seed, args.out)
        case "compare":
            gap = compare(args.model, args.adapter, args.prompts, args.logits)
            sys.exit(0 if gap <= LIMIT else 1)
        case "golden":
            golden(args.out, args.tiny)
        case "all":
            names = ("logits", "steps")
            built = lambda name: [args.programs / name] if args.programs else [*EXAMPLE, name, "--"]
            programs = {name: built(name) for name in names}
            sys.exit(0 if run_all(args.tiny, args.adapter, programs) else 1)


if __name__ == "__main__":
    main()
