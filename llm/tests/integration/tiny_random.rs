//! Small models with random weights, written as directories.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

/// A config.json of about 60,000 weights.
pub(crate) fn config() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96,
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 256, "hidden_act": "silu",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2
    })
}

/// The tensors a configuration asks for; the same for the same seed.
pub(crate) fn tensors(config: &Value, seed: u64) -> HashMap<String, Tensor> {
    let mut state = seed;
    // Knuth's MMIX generator: candle's own cannot be seeded on the CPU
    let mut uniform = move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut numbers = |shape: &[usize], low: f32, high: f32| {
        let count = shape.iter().product();
        let numbers: Vec<f32> = (0..count).map(|_| low + (high - low) * uniform()).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    };
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inner, vocab) = (
        size("hidden_size"),
        size("intermediate_size"),
        size("vocab_size"),
    );
    let (width, kv) = (
        size("num_attention_heads") * size("head_dim"),
        size("num_key_value_heads") * size("head_dim"),
    );
    // uniform with the spread of a normal of 1.5 / sqrt(fan-in)
    let mut random = |shape: &[usize]| {
        let spread = 1.5 * 3f32.sqrt() / (*shape.last().unwrap() as f32).sqrt();
        numbers(shape, -spread, spread)
    };
    let norm = |salt: usize| {
        let weight = |j: usize| 0.5 + ((j * 37 + salt * 11) % 64) as f32 / 64.0;
        Tensor::from_vec((0..hidden).map(weight).collect(), hidden, &Device::Cpu).unwrap()
    };
    let mut tensors = HashMap::new();
    tensors.insert(
        "model.embed_tokens.weight".to_string(),
        random(&[vocab, hidden]),
    );
    tensors.insert("model.norm.weight".to_string(), norm(0));
    if config["tie_word_embeddings"] != Value::Bool(true) {
        tensors.insert("lm_head.weight".to_string(), random(&[vocab, hidden]));
    }
    for i in 0..size("num_hidden_layers") {
        let mut add = |name: &str, tensor: Tensor| {
            tensors.insert(format!("model.layers.{i}.{name}.weight"), tensor);
        };
        add("input_layernorm", norm(2 * i + 1));
        add("post_attention_layernorm", norm(2 * i + 2));
        add("self_attn.q_proj", random(&[width, hidden]));
        add("self_attn.k_proj", random(&[kv, hidden]));
        add("self_attn.v_proj", random(&[kv, hidden]));
        add("self_attn.o_proj", random(&[hidden, width]));
        add("mlp.gate_proj", random(&[inner, hidden]));
        add("mlp.up_proj", random(&[inner, hidden]));
        add("mlp.down_proj", random(&[hidden, inner]));
    }
    tensors
}

/// Writes config.json and model.safetensors.
pub(crate) fn write(directory: &Path, config: &Value, tensors: &HashMap<String, Tensor>) {
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, directory.join("model.safetensors")).unwrap();
}

/// A new directory with a random model.
pub(crate) fn directory(config: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), config, &tensors(config, 1));
    directory
}

/// The largest difference relative to the largest value.
pub(crate) fn relative_gap(found: &Tensor, wanted: &Tensor) -> f32 {
    let largest = |t: Tensor| -> f32 {
        t.to_dtype(DType::F32)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar()
            .unwrap()
    };
    let (found, wanted) = (
        found.to_dtype(DType::F32).unwrap(),
        wanted.to_dtype(DType::F32).unwrap(),
    );
    largest((found - &wanted).unwrap()) / largest(wanted)
}

/// A tokenizer of single bytes: ids 3..259, with `<s>`, `</s>`, `<|end|>` as 0, 1, 2.
pub(crate) fn byte_tokenizer() -> Value {
    // GPT-2's letters for bytes: printable ones are themselves, the others follow 255
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut other = 256;
    let mut vocab = serde_json::Map::new();
    for (id, control) in ["<s>", "</s>", "<|end|>"].into_iter().enumerate() {
        vocab.insert(control.to_string(), json!(id));
    }
    for byte in 0..256 {
        let letter = if printable(byte) { byte } else { other };
        other += u32::from(!printable(byte));
        vocab.insert(char::from_u32(letter).unwrap().to_string(), json!(byte + 3));
    }
    let control = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [control(0, "<s>"), control(1, "</s>"), control(2, "<|end|>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    })
}

/// A chat template in the style of recent models, for the byte tokenizer.
pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}";

/// A new directory with a random model that has a tokenizer and a chat template.
pub(crate) fn chat_directory() -> tempfile::TempDir {
    let mut config = config();
    config["vocab_size"] = json!(259);
    config["max_position_embeddings"] = json!(1024);
    config["bos_token_id"] = json!(0);
    config["eos_token_id"] = json!(2);
    let directory = directory(&config);
    let write = |name: &str, value: Value| {
        std::fs::write(directory.path().join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", byte_tokenizer());
    write(
        "tokenizer_config.json",
        json!({"bos_token": "<s>", "eos_token": {"content": "<|end|>"}, "chat_template": TEMPLATE}),
    );
    directory
}
