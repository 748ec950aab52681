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
fn absurd_sizes_are_refused_before_they_are_allocated() {
    for (key, value) in [
        ("num_hidden_layers", json!(1u64 << 31)),
        ("vocab_size", json!(1u64 << 40)),
        ("hidden_size", json!(1u64 << 53)),
        ("intermediate_size", json!(u64::MAX)),
        ("max_position_embeddings", json!(1u64 << 31)),
    ] {
        check(
            set(key, value),
            ErrorKind::Corrupt,
            &["config.json is impossible", key],
        );
    }
}

/// Templates and tokenizers are code from outside.
#[test]
fn hostile_files_end() {
    let template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let endless = move |directory: &Path| {
        std::fs::write(directory.join("chat_template.jinja"), template).unwrap();
    };
    let directory = tiny_random::chat_directory();
    endless(directory.path());
    let source = ModelSource::Directory(directory.path().into());
    let options = || EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    let engine = Engine::load(&source, options()).unwrap();
    let error = engine.prompter().question(None, "Q").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("the chat template fails"), "{error}");

    let doubling = |key: &'static str, list: &'static str| {
        move |directory: &Path| {
            let mut tokenizer = tiny_random::byte_tokenizer();
            let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
            tokenizer[key] = json!({"type": "Sequence", list: vec![double; 40]});
            std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        }
    };
    for (key, list) in [("normalizer", "normalizers"), ("decoder", "decoders")] {
        check(
            doubling(key, list),
            ErrorKind::Unsupported,
            &["tokenizer.json", key],
        );
    }
    // a regular expression that tries everything gives up
    let slow = |directory: &Path| {
        let mut tokenizer = tiny_random::byte_tokenizer();
        tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(?=(a+)+b)a"}, "behavior": "Isolated", "invert": false},
            tokenizer["pre_tokenizer"]]});
        std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    };
    let directory = tiny_random::chat_directory();
    slow(directory.path());
    let source = ModelSource::Directory(directory.path().into());
    let engine = Engine::load(&source, options()).unwrap();
    drop(engine.tokenizer().count(&"a".repeat(4000)));
}

#[test]
fn tokens_that_the_model_has_no_row_for_are_named() {
    let directory = tiny_random::chat_directory();
    let mut tokenizer = tiny_random::byte_tokenizer();
    tokenizer["model"]["vocab"]["zz"] = json!(9000);
    tokenizer["model"]["merges"] = json!([["z", "z"]]);
    std::fs::write(
        directory.path().join("tokenizer.json"),
        tokenizer.to_string(),
    )
    .unwrap();
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    let source = ModelSource::Directory(directory.path().into());
    let engine = Engine::load(&source, options).unwrap();
    let error = engine.prompter().question(None, "a zz b").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("token 9000 (\"zz\")"), "{error}");
    engine.prompter().question(None, "a z b").unwrap();
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    for file in [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
    ] {
        for make in [pipe as fn(&Path), device] {
            check(
                |directory| {
                    std::fs::remove_file(directory.join(file)).ok();
                    make(&directory.join(file));
                },
                ErrorKind::InvalidInput,
                &[file, "no regular file"],
            );
        }
    }
    let sparse = |directory: &Path| {
        let file = std::fs::File::create(directory.join("tokenizer_config.json")).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    check(
        sparse,
        ErrorKind::InvalidInput,
        &["tokenizer_config.json", "1099511627776 bytes"],
    );
}

#[cfg(unix)]
fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo")
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

#[cfg(unix)]
fn device(path: &Path) {
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

#[test]
fn numbers_of_another_type_than_their_label_are_refused() {
    let path = |directory: &Path| directory.join("model.safetensors");
    let relabel = |from: &'static str, to: &'static str, kept: DType| {
        move |directory: &Path| {
            let tensors = candle_core::safetensors::load(path(directory), &Device::Cpu).unwrap();
            let tensors: std::collections::HashMap<String, Tensor> = tensors
                .into_iter()
                .map(|(name, tensor)| (name, tensor.to_dtype(kept).unwrap()))
                .collect();
            candle_core::safetensors::save(&tensors, path(directory)).unwrap();
            let bytes = std::fs::read(path(directory)).unwrap();
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
            let header = header.replace(&format!("\"{from}\""), &format!("\"{to}\""));
            let size = (header.len() as u64).to_le_bytes();
            let out = [&size, header.as_bytes(), &bytes[8 + length..]].concat();
            std::fs::write(path(directory), out).unwrap();
        }
    };
    check(
        relabel("BF16", "F16", DType::BF16),
        ErrorKind::Corrupt,
        &["model.safetensors", "labelled F16", "BF16"],
    );
    check(
        relabel("F16", "BF16", DType::F16),
        ErrorKind::Corrupt,
        &["model.safetensors", "labelled BF16", "F16"],
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

    // initialisations that changed the base's weights, and variants that compute something else
    for kind in [
        "pissa",
        "pissa_niter_4",
        "olora",
        "corda",
        "loftq",
        "lora_ga",
        "mica",
        "new",
    ] {
        refuse(
            "init_lora_weights",
            json!(kind),
            ErrorKind::Unsupported,
            kind,
        );
    }
    for (key, value) in [
        ("kasa_config", json!({"beta": 1.0})),
        ("velora_config", json!({"num_groups": 1})),
        ("monteclora_config", json!({"num_samples": 8})),
        ("use_bdlora", json!({"nblocks": 2})),
        ("use_qalora", json!(true)),
        ("arrow_config", json!({"k": 3})),
        ("alora_invocation_tokens", json!([1])),
        ("megatron_config", json!({"x": 1})),
        ("target_parameters", json!(["mlp.experts"])),
        ("layer_replication", json!([[0, 1]])),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("a_setting_of_2027", json!(1)),
    ] {
        refuse(key, value, ErrorKind::Unsupported, key);
    }
    refuse("lora_alpha", json!(1e300), ErrorKind::Corrupt, "no factor");
    refuse(
        "rank_pattern",
        json!({"q_proj": 0}),
        ErrorKind::Corrupt,
        "rank 0",
    );
    for (key, value) in [
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!(false)),
        ("loftq_config", json!({})),
        ("megatron_core", json!("megatron.core")),
        ("qalora_group_size", json!(16)),
        ("a_setting_of_2027", json!(null)),
        ("another", json!([])),
    ] {
        let mut config = config.clone();
        config[key] = value;
        let file = adapter.path().join("adapter_config.json");
        std::fs::write(file, config.to_string()).unwrap();
        assert_eq!(
            attach_adapter(&mut decoder, adapter.path()).unwrap(),
            6,
            "{key}"
        );
    }

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

    let weights = adapter.path().join("adapter_model.safetensors");
    let kept = std::fs::read(&weights).unwrap();
    let none = std::collections::HashMap::<String, Tensor>::new();
    candle_core::safetensors::save(&none, &weights).unwrap();
    let error = attach_adapter(&mut decoder, adapter.path()).unwrap_err();
    assert!(error.message.contains("has no tensors"), "{error}");
    std::fs::write(&weights, kept).unwrap();

    decoder.layers.pop();
    let error = attach_adapter(&mut decoder, adapter.path()).unwrap_err();
    assert!(error.message.contains("layers.2"), "{error}");
    let error = attach_adapter(&mut decoder, Path::new("/no/such/adapter")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}
