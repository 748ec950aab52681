//! Small models with random weights, written as directories.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

/// A config.json of about 60,000 weights.
pub fn config() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96,
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 256, "hidden_act": "silu",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2
    })
}

/// The tensors a configuration asks for, random.
pub fn tensors(config: &Value) -> HashMap<String, Tensor> {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inner, vocab) =
        (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let (width, kv) = (
        size("num_attention_heads") * size("head_dim"),
        size("num_key_value_heads") * size("head_dim"),
    );
    let random = |shape: &[usize]| {
        let spread = 1.5 / (*shape.last().unwrap() as f32).sqrt();
        Tensor::randn(0f32, spread, shape, &Device::Cpu).unwrap()
    };
    let norm = || Tensor::rand(0.5f32, 1.5, hidden, &Device::Cpu).unwrap();
    let mut tensors = HashMap::new();
    tensors.insert("model.embed_tokens.weight".to_string(), random(&[vocab, hidden]));
    tensors.insert("model.norm.weight".to_string(), norm());
    if config["tie_word_embeddings"] != Value::Bool(true) {
        tensors.insert("lm_head.weight".to_string(), random(&[vocab, hidden]));
    }
    for i in 0..size("num_hidden_layers") {
        let mut add = |name: &str, tensor: Tensor| {
            tensors.insert(format!("model.layers.{i}.{name}.weight"), tensor);
        };
        add("input_layernorm", norm());
        add("post_attention_layernorm", norm());
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
pub fn write(directory: &Path, config: &Value, tensors: &HashMap<String, Tensor>) {
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, directory.join("model.safetensors")).unwrap();
}

/// A new directory with a random model.
pub fn directory(config: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), config, &tensors(config));
    directory
}

/// The largest difference relative to the largest value.
pub fn relative_gap(found: &Tensor, wanted: &Tensor) -> f32 {
    let largest = |t: Tensor| -> f32 {
        t.to_dtype(DType::F32).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    };
    let (found, wanted) =
        (found.to_dtype(DType::F32).unwrap(), wanted.to_dtype(DType::F32).unwrap());
    largest((found - &wanted).unwrap()) / largest(wanted)
}
