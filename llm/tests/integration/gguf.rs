//! GGUF files: one with every part, and what is said about those that cannot be used.

use std::path::Path;

use candle_core::{DType, Device};
use casebook_llm::engine::{DeviceChoice, Engine, EngineOptions};
use casebook_llm::model::{Decoder, Matrix, ModelSource};
use casebook_llm::{Error, ErrorKind};
use serde_json::Value;

use crate::tiny_random;

/// A value of the metadata.
#[derive(Clone)]
enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i32>),
    Floats(Vec<f32>),
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        let mut list = |out: &mut Vec<u8>, kind: u32, count: usize| {
            out.extend(9u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(n) => {
                out.extend(4u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Self::F32(n) => {
                out.extend(6u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Self::Bool(flag) => {
                out.extend(7u32.to_le_bytes());
                out.push(u8::from(*flag));
            }
            Self::Text(value) => {
                out.extend(8u32.to_le_bytes());
                text(out, value);
            }
            Self::Texts(values) => {
                list(out, 8, values.len());
                values.iter().for_each(|value| text(out, value));
            }
            Self::Ints(values) => {
                list(out, 5, values.len());
                values.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Self::Floats(values) => {
                list(out, 6, values.len());
                values.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

/// A tensor as the file has it: its name, its shape with the row's length first, its type, bytes.
type Stored = (String, Vec<u64>, u32, Vec<u8>);

struct File {
    meta: Vec<(String, Meta)>,
    tensors: Vec<Stored>,
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            text(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0;
        for (name, shape, kind, bytes) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += bytes.len().next_multiple_of(32);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }

    fn set(&mut self, key: &str, value: Meta) {
        self.meta.retain(|(name, _)| name != key);
        self.meta.push((key.to_string(), value));
    }

    fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.0 == name)
            .unwrap()
    }

    fn remove(&mut self, key: &str) {
        self.meta.retain(|(name, _)| name != key);
    }
}

/// The model of `tiny_random` as llama.cpp would write it: rows of queries and keys turned.
fn file() -> File {
    let mut config = tiny_random::config();
    config["vocab_size"] = 259.into();
    file_of(&config, |values| {
        (0, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    })
}

/// The same of another shape, its matrices packed as `pack` says: type and bytes.
fn file_of(config: &Value, pack: impl Fn(&[f32]) -> (u32, Vec<u8>)) -> File {
    let tensors = tiny_random::tensors(config, 1);
    let stored = |name: &str| -> String {
        let name = name.replace("model.layers.", "blk.");
        let pairs = [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
        ];
        pairs.iter().fold(name, |name, (a, b)| name.replace(a, b))
    };
    let mut names: Vec<&String> = tensors.keys().collect();
    names.sort();
    let tensors = names.into_iter().map(|name| {
        let tensor = &tensors[name];
        let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let shape: Vec<u64> = tensor.dims().iter().rev().map(|n| *n as u64).collect();
        if name.contains("q_proj") || name.contains("k_proj") {
            let width = shape[0] as usize;
            let rows: Vec<Vec<f32>> = values.chunks(width).map(<[f32]>::to_vec).collect();
            let turned = (0..rows.len()).map(|i| {
                let (head, place) = (i / 8, i % 8);
                rows[head * 8 + place / 2 + 4 * (place % 2)].clone()
            });
            values = turned.collect::<Vec<_>>().concat();
        }
        let (kind, bytes) = match shape.len() {
            1 => (0, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            _ => pack(&values),
        };
        (stored(name), shape, kind, bytes)
    });
    let tokenizer = tiny_random::byte_tokenizer();
    let vocabulary: &serde_json::Map<String, Value> =
        tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(&String, u64)> = vocabulary
        .iter()
        .map(|(token, id)| (token, id.as_u64().unwrap()))
        .collect();
    tokens.sort_by_key(|(_, id)| *id);
    let kinds = (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 });
    let size = |key: &str| Meta::U32(config[key].as_u64().unwrap() as u32);
    let meta = vec![
        ("general.architecture", Meta::Text("llama".into())),
        ("llama.context_length", size("max_position_embeddings")),
        ("llama.embedding_length", size("hidden_size")),
        ("llama.block_count", size("num_hidden_layers")),
        ("llama.feed_forward_length", size("intermediate_size")),
        ("llama.attention.head_count", size("num_attention_heads")),
        ("llama.attention.head_count_kv", size("num_key_value_heads")),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("tokenizer.ggml.model", Meta::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Meta::Text("gpt-2".into())),
        (
            "tokenizer.ggml.tokens",
            Meta::Texts(tokens.iter().map(|(token, _)| (*token).clone()).collect()),
        ),
        ("tokenizer.ggml.token_type", Meta::Ints(kinds.collect())),
        ("tokenizer.ggml.merges", Meta::Texts(vec![])),
        ("tokenizer.ggml.bos_token_id", Meta::U32(0)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
        (
            "tokenizer.chat_template",
            Meta::Text(tiny_random::TEMPLATE.into()),
        ),
    ];
    File {
        meta: meta
            .into_iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect(),
        tensors: tensors.collect(),
    }
}

fn load(path: &Path) -> Result<Engine, Error> {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    Engine::load(&ModelSource::Directory(path.to_path_buf()), options)
}

#[test]
fn one_file_is_a_whole_model() {
    let mut config = tiny_random::config();
    config["vocab_size"] = 259.into();
    let reference = tiny_random::directory(&config);
    let prompt = [vec![5, 90, 200, 41, 8, 9, 7, 255]];
    let score = |path: &Path| {
        let source = ModelSource::Directory(path.to_path_buf());
        let decoder = Decoder::load(&source, &Device::Cpu, DType::F32).unwrap();
        decoder.score(&prompt).unwrap().remove(0)
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, file().bytes()).unwrap();
    let gap = tiny_random::relative_gap(&score(&path), &score(reference.path()));
    assert!(gap < 1e-6, "{gap}");
    // Its directory means it, too.
    let gap = tiny_random::relative_gap(&score(directory.path()), &score(&path));
    assert_eq!(gap, 0.0);

    let engine = load(&path).unwrap();
    let chat = tiny_random::chat_directory();
    let other = load(chat.path()).unwrap();
    let parts = |engine: &Engine| {
        let prompt = engine
            .prompter()
            .document(Some("System."), "A document, 7 lines.");
        (prompt.unwrap(), engine.prompter().reply("Yes.").unwrap())
    };
    let ((found, reply), (wanted, wanted_reply)) = (parts(&engine), parts(&other));
    assert_eq!(
        (found.head, found.document, reply),
        (wanted.head, wanted.document, wanted_reply)
    );
    assert_eq!(engine.info().context_tokens, 256);
    assert_eq!(engine.info().name, "tiny.gguf");

    // What the model's authors wrote beside it says more.
    std::fs::write(
        directory.path().join("chat_template.jinja"),
        "{{ bos_token }}!",
    )
    .unwrap();
    let beside = load(directory.path()).unwrap();
    assert_ne!(beside.info().digest, engine.info().digest);
}

#[test]
fn matrices_stay_quantised() {
    // Q8_0 rows of 48 numbers do not exist; of 32 they do: a model as wide as a block.
    let mut config = tiny_random::config();
    config["hidden_size"] = 32.into();
    config["intermediate_size"] = 64.into();
    config["num_attention_heads"] = 4.into();
    config["vocab_size"] = 259.into();
    let block = |block: &[f32]| {
        let most = block.iter().fold(0f32, |a, b| a.max(b.abs()));
        let scale = half::f16::from_f32(most / 127.0);
        let numbers = block
            .iter()
            .map(|v| (v / scale.to_f32()).round() as i8 as u8);
        [scale.to_le_bytes().to_vec(), numbers.collect()].concat()
    };
    let file = file_of(&config, |values| {
        (8, values.chunks(32).flat_map(block).collect())
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let source = ModelSource::Directory(path);
    let decoder = Decoder::load(&source, &Device::Cpu, DType::F32).unwrap();
    assert!(matches!(decoder.embed.matrix, Matrix::Quant(_)));
    for (name, linear) in decoder.layers[0].linears() {
        assert!(matches!(linear.matrix, Matrix::Quant(_)), "{name}");
    }
    // 34 bytes for 32 numbers.
    let parameters = decoder.parameters().unwrap();
    let norms = 32 * 7;
    assert_eq!(
        decoder.weight_bytes(),
        (parameters - norms) / 32 * 34 + norms * 4
    );
    // The same numbers unpacked give the same logits.
    let mut dense = decoder.clone();
    for layer in &mut dense.layers {
        for module in [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ] {
            let linear = layer.linear_mut(module).unwrap();
            linear.matrix = Matrix::Dense(linear.matrix.to_tensor().unwrap());
        }
    }
    dense.head = Matrix::Dense(dense.head.to_tensor().unwrap());
    dense.embed.matrix = Matrix::Dense(dense.embed.matrix.to_tensor().unwrap());
    let prompt = [vec![5, 90, 200, 41]];
    let score = |decoder: &Decoder| decoder.score(&prompt).unwrap().remove(0);
    let gap = tiny_random::relative_gap(&score(&decoder), &score(&dense));
    assert!(gap < 1e-5, "{gap}");
}

/// Damages the file and loads it.
fn check(damage: impl Fn(&mut File), kind: ErrorKind, words: &[&str]) {
    let mut damaged = file();
    damage(&mut damaged);
    check_bytes(&damaged.bytes(), kind, words);
}

fn check_bytes(bytes: &[u8], kind: ErrorKind, words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(
            error.message.contains(word),
            "\"{word}\" is not in: {error}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let unsupported = ErrorKind::Unsupported;
    check(
        |file| file.tensor("blk.0.attn_v.weight").2 = 23,
        unsupported,
        &["blk.0.attn_v.weight", "IQ4_XS", "Q4_K", "llama-quantize"],
    );
    check(
        |file| file.set("general.architecture", Meta::Text("mamba".into())),
        unsupported,
        &["mamba", "llama", "gemma3"],
    );
    check(
        |file| file.set("tokenizer.ggml.pre", Meta::Text("default".into())),
        unsupported,
        &["\"default\"", "tokenizer.json beside"],
    );
    check(
        |file| file.set("tokenizer.ggml.model", Meta::Text("bert".into())),
        unsupported,
        &["bert", "gpt2 and llama"],
    );
    check(
        |file| file.set("split.count", Meta::U32(3)),
        unsupported,
        &["llama-gguf-split --merge"],
    );
    check(
        |file| file.set("llama.rope.scaling.type", Meta::Text("longrope".into())),
        unsupported,
        &["longrope"],
    );
    let corrupt = ErrorKind::Corrupt;
    check(
        |file| {
            file.tensors
                .retain(|tensor| tensor.0 != "blk.0.attn_v.weight")
        },
        corrupt,
        &["blk.0.attn_v.weight", "is missing"],
    );
    check(
        |file| file.remove("llama.block_count"),
        corrupt,
        &["llama.block_count"],
    );
    check(
        |file| file.set("llama.block_count", Meta::Bool(true)),
        corrupt,
        &["llama.block_count is not a whole number"],
    );
    check(
        |file| file.set("llama.embedding_length", Meta::U32(60)),
        corrupt,
        &["[259, 48]", "60"],
    );
    check(
        |file| file.set("tokenizer.ggml.token_type", Meta::Ints(vec![1])),
        corrupt,
        &["token_type"],
    );
    check(
        |file| {
            file.set("tokenizer.ggml.model", Meta::Text("llama".into()));
            file.set("tokenizer.ggml.scores", Meta::Floats(vec![0.0]));
        },
        corrupt,
        &["scores"],
    );
    let bytes = file().bytes();
    let mut version = bytes.clone();
    version[4] = 9;
    check_bytes(&version, unsupported, &["version 9"]);
    check_bytes(b"GGML----", ErrorKind::InvalidInput, &["no GGUF file"]);
    let mut many = bytes.clone();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    check_bytes(&many, corrupt, &["18446744073709551615"]);
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::write(directory.path().join(name), &bytes).unwrap();
    }
    let error = load(directory.path()).unwrap_err();
    assert!(error.message.contains("name one of them"), "{error}");
}

#[test]
fn a_cut_or_changed_file_is_an_error_and_no_panic() {
    let bytes = file().bytes();
    let header = bytes.len() - file().tensors.iter().map(|t| t.3.len()).sum::<usize>();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    for end in (0..header).step_by(97).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..end]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.message.contains("tiny.gguf"), "{end}: {error}");
    }
    let mut state = 7u64;
    for _ in 0..300 {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let mut changed = bytes.clone();
        let at = (state >> 33) as usize % header;
        changed[at] ^= 1 << (state % 8);
        std::fs::write(&path, &changed).unwrap();
        let _ = load(&path); // right or refused
    }
}
