//! What is said about a model directory that cannot be used: every message names the file or
//! tensor and the next move.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use casebook_llm::ErrorKind;
use casebook_llm::engine::{DeviceChoice, Engine, EngineOptions};
use casebook_llm::model::{Decoder, Matrix, ModelSource, attach_adapter};
use serde_json::{Value, json};

use crate::tiny_random;

/// Damages a good model and loads it with everything that belongs to it.
fn check(damage: impl Fn(&Path), kind: ErrorKind, words: &[&str]) {
    let directory = tiny_random::chat_directory();
    damage(directory.path());
    let source = ModelSource::Directory(directory.path().to_path_buf());
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    let error = Engine::load(&source, options).unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(
            error.message.contains(word),
            "\"{word}\" is not in: {error}"
        );
    }
}

fn remove(file: &'static str) -> impl Fn(&Path) {
    move |directory| std::fs::remove_file(directory.join(file)).unwrap()
}

fn overwrite(file: &'static str, content: &'static [u8]) -> impl Fn(&Path) {
    move |directory| std::fs::write(directory.join(file), content).unwrap()
}

fn set(key: &'static str, value: Value) -> impl Fn(&Path) {
    move |directory| {
        let path = directory.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value.clone();
        std::fs::write(path, config.to_string()).unwrap();
    }
}

fn change_tensors(
    change: impl Fn(&mut std::collections::HashMap<String, Tensor>),
) -> impl Fn(&Path) {
    move |directory| {
        let path = directory.join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, path).unwrap();
    }
}

const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn missing_files() {
    check(
        remove("config.json"),
        ErrorKind::NotFound,
        &["config.json", "tokenizer.json", "needs"],
    );
    check(
        remove("tokenizer.json"),
        ErrorKind::NotFound,
        &["tokenizer.json", "it has config.json"],
    );
    check(
        remove("model.safetensors"),
        ErrorKind::NotFound,
        &["model.safetensors", "does not exist"],
    );
    let pickled = |directory: &Path| {
        remove("model.safetensors")(directory);
        overwrite("pytorch_model.bin", b"x")(directory);
    };
    check(
        pickled,
        ErrorKind::Unsupported,
        &[".bin", "safe_serialization=True"],
    );
    let absent = ModelSource::Directory("/no/such/model".into());
    let error = absent.open().unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("/no/such/model"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ModelSource::Directory(file.path().to_path_buf())
        .open()
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
}

#[test]
fn damaged_files() {
    let corrupt = ErrorKind::Corrupt;
    check(
        overwrite("config.json", b"{"),
        corrupt,
        &["config.json is not valid JSON"],
    );
    check(
        overwrite("tokenizer.json", b"{}"),
        corrupt,
        &["tokenizer.json is not a tokenizer"],
    );
    check(
        overwrite("tokenizer.json", b"x"),
        corrupt,
        &["tokenizer.json is not valid JSON"],
    );
    check(
        overwrite("model.safetensors", b""),
        corrupt,
        &["model.safetensors is empty"],
    );
    check(
        overwrite("model.safetensors", &[9; 80]),
        corrupt,
        &["model.safetensors"],
    );
    check(
        overwrite(
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
        ),
        corrupt,
        &["git lfs pull"],
    );
    check(
        overwrite("generation_config.json", b"["),
        corrupt,
        &["generation_config.json"],
    );
    check(
        overwrite("chat_template.jinja", b"{% if %}"),
        corrupt,
        &["does not compile"],
    );
    let truncate = |directory: &Path| {
        let path = directory.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
    };
    check(
        truncate,
        corrupt,
        &["model.safetensors is truncated", "fetch it again"],
    );
}

#[test]
fn tensors_that_do_not_fit() {
    let missing = change_tensors(|tensors| drop(tensors.remove(QUERY)));
    check(
        missing,
        ErrorKind::Corrupt,
        &[QUERY, "is missing", "model.safetensors"],
    );
    let reshaped = change_tensors(|tensors| {
        let other = Tensor::zeros((48, 24), DType::F32, &Device::Cpu).unwrap();
        tensors.insert(QUERY.to_string(), other);
    });
    check(
        reshaped,
        ErrorKind::Corrupt,
        &[QUERY, "[48, 24]", "[48, 48]"],
    );
    let integer = change_tensors(|tensors| {
        let other = Tensor::zeros((48, 48), DType::U8, &Device::Cpu).unwrap();
        tensors.insert(QUERY.to_string(), other);
    });
    check(integer, ErrorKind::Unsupported, &[QUERY, "U8", "BF16"]);
    check(
        set("vocab_size", json!(260)),
        ErrorKind::Corrupt,
        &["embed_tokens", "[260, 48]"],
    );
    check(
        set("model_type", json!("mamba")),
        ErrorKind::Unsupported,
        &["mamba", "llama, mistral"],
    );
}

#[test]
fn shards_are_read_and_checked() {
    let directory = tiny_random::chat_directory();
    let path = directory.path();
    let load = || {
        Decoder::load(
            &ModelSource::Directory(path.into()),
            &Device::Cpu,
            DType::F32,
        )
    };
    let prompt = [vec![5, 6, 7, 8]];
    let wanted = load().unwrap().score(&prompt).unwrap().remove(0);

    let tensors =
        candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut map = serde_json::Map::new();
    for (shard, odd) in [("a.safetensors", true), ("b.safetensors", false)] {
        let part: std::collections::HashMap<_, _> = tensors
            .clone()
            .into_iter()
            .filter(|(name, _)| (name.len() % 2 == 1) == odd)
            .collect();
        map.extend(part.keys().map(|name| (name.clone(), json!(shard))));
        candle_core::safetensors::save(&part, path.join(shard)).unwrap();
    }
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    let index = path.join("model.safetensors.index.json");
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let found = load().unwrap().score(&prompt).unwrap().remove(0);
    assert_eq!(tiny_random::relative_gap(&found, &wanted), 0.0);

    std::fs::remove_file(path.join("b.safetensors")).unwrap();
    let error = load().unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("b.safetensors"), "{error}");
    std::fs::write(&index, r#"{"weight_map": {"x": "../x.safetensors"}}"#).unwrap();
    assert_eq!(load().unwrap_err().kind, ErrorKind::Corrupt);
    std::fs::write(&index, "{}").unwrap();
    assert!(load().unwrap_err().message.contains("weight_map"));
}

#[test]
fn without_a_hub_a_repository_is_refused() {
    if cfg!(feature = "hub") {
        return; // would ask the network
    }
    let source = ModelSource::Hub {
        repo: "owner/model".into(),
        revision: None,
    };
    let error = source.open().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("owner/model"), "{error}");
}

/// Writes an adapter over two modules and returns its config.
fn write_adapter(directory: &Path, rank: usize) -> Value {
    let mut tensors = std::collections::HashMap::new();
    for (module, out) in [("self_attn.q_proj", 48), ("self_attn.v_proj", 16)] {
        for layer in 0..3 {
            let name = format!("base_model.model.model.layers.{layer}.{module}.lora_");
            let random = |shape| Tensor::randn(0f32, 0.2, shape, &Device::Cpu).unwrap();
            tensors.insert(format!("{name}A.weight"), random((rank, 48)));
            tensors.insert(format!("{name}B.weight"), random((out, rank)));
        }
    }
    candle_core::safetensors::save(&tensors, directory.join("adapter_model.safetensors")).unwrap();
    let config = json!({"peft_type": "LORA", "r": rank, "lora_alpha": 16, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "modules_to_save": null, "use_dora": false});
    std::fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    config
}

#[test]
fn adapters_are_attached_or_refused() {
    let directory = tiny_random::directory(&tiny_random::config());
    let source = ModelSource::Directory(directory.path().into());
    let mut decoder = Decoder::load(&source, &Device::Cpu, DType::F32).unwrap();
    let adapter = tempfile::tempdir().unwrap();
    let config = write_adapter(adapter.path(), 4);
    assert_eq!(attach_adapter(&mut decoder, adapter.path()).unwrap(), 6);

    // merged into the weights it gives the same logits
    let prompt = [vec![3, 1, 4, 1, 5]];
    let found = decoder.score(&prompt).unwrap().remove(0);
    for layer in &mut decoder.layers {
        for module in ["q_proj", "v_proj"] {
            let linear = layer.linear_mut(module).unwrap();
            let pair = linear.lora.take().unwrap();
            assert_eq!(pair.scale, 4.0);
            let delta = (pair.b.matmul(&pair.a).unwrap() * pair.scale).unwrap();
            let merged = (linear.matrix.to_tensor().unwrap() + delta).unwrap();
            linear.matrix = Matrix::Dense(merged);
        }
    }
    let merged = decoder.score(&prompt).unwrap().remove(0);
    assert!(tiny_random::relative_gap(&found, &merged) < 1e-4);

    let mut refuse = |key: &str, value: Value, kind: ErrorKind, word: &str| {
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(
            adapter.path().join("adapter_config.json"),
            config.to_string(),
        )
        .unwrap();
        let error = attach_adapter(&mut decoder, adapter.path()).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(word), "{error}");
    };
    refuse("use_dora", json!(true), ErrorKind::Unsupported, "use_dora");
    refuse("bias", json!("all"), ErrorKind::Unsupported, "bias \"all\"");
    refuse(
        "modules_to_save",
        json!(["lm_head"]),
        ErrorKind::Unsupported,
        "modules_to_save",
    );
    refuse("peft_type", json!("IA3"), ErrorKind::Unsupported, "IA3");
    refuse(
        "r",
        json!(8),
        ErrorKind::Corrupt,
        "lora_A.weight has shape [4, 48]",
    );
    refuse(
        "rank_pattern",
        json!({".*q_proj": 2}),
        ErrorKind::Unsupported,
        ".*q_proj",
    );

    let mut patterned = config.clone();
    patterned["alpha_pattern"] = json!({"q_proj": 8});
    patterned["use_rslora"] = json!(true);
    std::fs::write(
        adapter.path().join("adapter_config.json"),
        patterned.to_string(),
    )
    .unwrap();
    attach_adapter(&mut decoder, adapter.path()).unwrap();
    for (module, scale) in [("q_proj", 4.0), ("v_proj", 8.0)] {
        let linear = decoder.layers[0].linear(module).unwrap();
        assert_eq!(linear.lora.as_ref().unwrap().scale, scale);
    }

    decoder.layers.pop();
    let error = attach_adapter(&mut decoder, adapter.path()).unwrap_err();
    assert!(error.message.contains("layers.2"), "{error}");
    let error = attach_adapter(&mut decoder, Path::new("/no/such/adapter")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}
