//! Writes the logits of given prompts, for comparison with another implementation.
//!
//! `cargo run -p casebook-llm --example logits -- --model DIR [--adapter DIR] [--dtype float32]
//! --prompts prompts.json --out logits.safetensors`, where prompts.json is
//! `{"prompts": [[1, 2, 3], [4, 5]]}`. The output holds `logits.0`, `logits.1`, ...:
//! `[tokens, vocab]` f32 each. All prompts go through the network in one packed batch.

use std::collections::HashMap;
use std::path::PathBuf;

use casebook_llm::model::{Decoder, ModelSource, attach_adapter};
use casebook_llm::{DType, Device};

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
    let mut take = |name: &str| options.remove(name);
    let model = take("model").ok_or("--model DIR is missing")?;
    let adapter = take("adapter");
    let prompts = take("prompts").ok_or("--prompts FILE is missing")?;
    let out = take("out").ok_or("--out FILE is missing")?;
    let dtype = match take("dtype").as_deref() {
        None | Some("float32") => DType::F32,
        Some("bfloat16") => DType::BF16,
        Some("float16") => DType::F16,
        Some(other) => return Err(format!("--dtype {other}: float32, bfloat16, float16").into()),
    };
    if let Some(unknown) = options.keys().next() {
        return Err(format!("--{unknown}: model, adapter, dtype, prompts, out").into());
    }

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(prompts)?)?;
    let prompts: Vec<Vec<u32>> = serde_json::from_value(json["prompts"].clone())?;
    let mut decoder = Decoder::load(
        &ModelSource::Directory(PathBuf::from(model)),
        &Device::Cpu,
        dtype,
    )?;
    if let Some(adapter) = adapter {
        attach_adapter(&mut decoder, &PathBuf::from(adapter))?;
    }
    let logits = decoder.score(&prompts)?;
    let named: HashMap<String, _> = logits
        .into_iter()
        .enumerate()
        .map(|(i, rows)| (format!("logits.{i}"), rows))
        .collect();
    candle_core::safetensors::save(&named, out)?;
    Ok(())
}
