//! Do our logits equal those that transformers and PEFT wrote to `tests/golden`?

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use casebook_llm::engine::DeviceChoice;
use casebook_llm::model::{Decoder, ModelSource, attach_adapter};

use crate::tiny_random::relative_gap;

const LIMIT: f32 = 1e-4;

/// The device under test: the CPU, unless CASEBOOK_TEST_DEVICE names another.
fn device() -> Device {
    let named = std::env::var("CASEBOOK_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let choice: DeviceChoice = named.parse().unwrap();
    choice.open().unwrap()
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn golden(name: &str) -> (HashMap<String, Tensor>, Vec<Vec<u32>>) {
    let file = place(name).join("golden.safetensors");
    let golden = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let prompts = (0..)
        .map_while(|i| golden.get(&format!("tokens.{i}")))
        .map(|ids| ids.to_dtype(DType::U32).unwrap().to_vec1().unwrap())
        .collect::<Vec<_>>();
    assert!(!prompts.is_empty());
    (golden, prompts)
}

fn check(name: &str) {
    let (golden, prompts) = golden(name);
    let source = ModelSource::Directory(place(name));
    let mut decoder = Decoder::load(&source, &device(), DType::F32).unwrap();
    let compare = |decoder: &Decoder, key: &str| {
        for (i, found) in decoder.score(&prompts).unwrap().iter().enumerate() {
            let found = found.to_device(&Device::Cpu).unwrap();
            let gap = relative_gap(&found, &golden[&format!("{key}.{i}")]);
            assert!(gap <= LIMIT, "{name} {key}.{i}: {gap}");
        }
    };
    compare(&decoder, "logits");
    let adapter = place(name).join("adapter");
    if adapter.exists() {
        assert!(attach_adapter(&mut decoder, &adapter).unwrap() > 0);
        compare(&decoder, "adapter_logits");
    }
}

#[test]
fn llama2() {
    check("llama2");
}

#[test]
fn llama3_with_tied_embedding() {
    check("llama3-tied");
}

#[test]
fn llama3_with_an_adapter() {
    check("llama3-untied");
}

#[test]
fn mistral() {
    check("mistral");
}

#[test]
fn bundled_model() {
    let (golden, prompts) = golden("tiny");
    let source = ModelSource::Embedded {
        name: "builtin:tiny",
        files: casebook_tiny::FILES,
    };
    let decoder = Decoder::load(&source, &device(), DType::F32).unwrap();
    for (i, found) in decoder.score(&prompts).unwrap().iter().enumerate() {
        let found = found.to_device(&Device::Cpu).unwrap();
        let last = found.narrow(0, prompts[i].len() - 1, 1).unwrap();
        let gap = relative_gap(&last, &golden[&format!("last_logits.{i}")]);
        assert!(gap <= LIMIT, "last_logits.{i}: {gap}");
    }
}
