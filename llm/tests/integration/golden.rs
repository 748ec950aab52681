//! Do our logits and training steps equal those that transformers and PEFT wrote to `tests/golden`?

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use casebook_llm::engine::DeviceChoice;
use casebook_llm::lora::LoraSettings;
use casebook_llm::lora::repeat::{Sequence, repeat};
use casebook_llm::model::{Decoder, ModelSource, attach_adapter};

use crate::tiny_random::relative_gap;

const LIMIT: f32 = 1e-4;
const TRAINING_LIMIT: f64 = 1e-3;

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

/// Logits, and twenty steps of training from the adapter that is there.
fn check_family(name: &str) {
    let name = format!("families/{name}");
    let (golden, prompts) = golden(&name);
    let source = ModelSource::Directory(place(&name));
    let mut decoder = Decoder::load(&source, &device(), DType::F32).unwrap();
    for (i, found) in decoder.score(&prompts).unwrap().iter().enumerate() {
        let found = found.to_device(&Device::Cpu).unwrap();
        let gap = relative_gap(&found, &golden[&format!("logits.{i}")]);
        assert!(gap <= LIMIT, "{name} logits.{i}: {gap}");
    }
    attach_adapter(&mut decoder, &place(&name).join("adapter")).unwrap();
    let batch = prompts[1..].iter().map(|ids| Sequence {
        ids: ids.clone(),
        answer_at: ids.len() / 3,
    });
    let settings = LoraSettings {
        learning_rate: 1e-3,
        weight_decay: 0.01,
        max_grad_norm: 0.0,
        ..LoraSettings::default()
    };
    let batch: Vec<Sequence> = batch.collect();
    let (losses, norms) = (&golden["losses"], &golden["norms"]);
    let (losses, norms): (Vec<f32>, Vec<f32>) =
        (losses.to_vec1().unwrap(), norms.to_vec1().unwrap());
    let steps = repeat(&mut decoder, &batch, &settings, losses.len()).unwrap();
    for (i, step) in steps.iter().enumerate() {
        for (what, found, wanted) in [
            ("loss", step.loss, losses[i]),
            ("norm", step.grad_norm, norms[i]),
        ] {
            let wanted = f64::from(wanted);
            let gap = (found - wanted).abs() / wanted;
            assert!(
                gap <= TRAINING_LIMIT,
                "{name} step {i}: {what} {found}, not {wanted}"
            );
        }
    }
    assert!(losses.last() < losses.first());
}

#[test]
fn families() {
    let folder = place("families");
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        check_family(&name);
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
