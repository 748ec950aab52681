//! Trains an adapter on one batch again and again, for comparison with another trainer.
//!
//! `cargo run -p casebook-llm --example steps -- --model DIR --adapter DIR --batch batch.json
//! --out losses.json`, where batch.json is `{"steps": 20, "learning_rate": 0.005, "weight_decay":
//! 0.01, "sequences": [{"ids": [1, 2, 3], "answer_at": 1}]}`. The output is `{"losses": [...],
//! "norms": [...]}`, a number per step. Gradients are not clipped.

use std::collections::HashMap;
use std::path::PathBuf;

use casebook_llm::lora::LoraSettings;
use casebook_llm::lora::repeat::{Sequence, repeat};
use casebook_llm::model::{Decoder, ModelSource, attach_adapter};
use casebook_llm::{DType, Device};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut options: HashMap<String, String> = HashMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let name = word
            .strip_prefix("--")
            .ok_or(format!("{word}: expected --NAME VALUE"))?;
        let value = words.next().ok_or(format!("--{name} needs a value"))?;
        options.insert(name.to_string(), value);
    }
    let mut take = |name: &str| options.remove(name).ok_or(format!("--{name} is missing"));
    let (model, adapter) = (take("model")?, take("adapter")?);
    let (batch, out) = (take("batch")?, take("out")?);

    let batch: Value = serde_json::from_slice(&std::fs::read(batch)?)?;
    let number = |key: &str| batch[key].as_f64().ok_or(format!("{key} is missing"));
    let settings = LoraSettings {
        learning_rate: number("learning_rate")?,
        weight_decay: number("weight_decay")?,
        max_grad_norm: 0.0,
        ..LoraSettings::default()
    };
    let steps = number("steps")? as usize;
    let mut sequences = vec![];
    for sequence in batch["sequences"].as_array().into_iter().flatten() {
        sequences.push(Sequence {
            ids: serde_json::from_value(sequence["ids"].clone())?,
            answer_at: serde_json::from_value(sequence["answer_at"].clone())?,
        });
    }
    let source = ModelSource::Directory(PathBuf::from(model));
    let mut decoder = Decoder::load(&source, &Device::Cpu, DType::F32)?;
    attach_adapter(&mut decoder, &PathBuf::from(adapter))?;
    let done = repeat(&mut decoder, &sequences, &settings, steps)?;
    let losses: Vec<f64> = done.iter().map(|step| step.loss).collect();
    let norms: Vec<f64> = done.iter().map(|step| step.grad_norm).collect();
    std::fs::write(out, json!({"losses": losses, "norms": norms}).to_string())?;
    Ok(())
}
