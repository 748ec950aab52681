//! Do our logits equal those of other implementations?

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::llama as reference;
use casebook_llm::model::{Decoder, ModelSource, StepSegment};
use serde_json::{Value, json};

use crate::tiny_random;

fn load(directory: &tempfile::TempDir, dtype: DType) -> Decoder {
    let source = ModelSource::Directory(directory.path().to_path_buf());
    Decoder::load(&source, &Device::Cpu, dtype).unwrap()
}

fn prompts() -> Vec<Vec<u32>> {
    [1usize, 17, 64, 130, 3]
        .iter()
        .map(|len| {
            (0..*len as u32)
                .map(|i| (i * i * 7 + i * 3 + *len as u32) % 96)
                .collect()
        })
        .collect()
}

/// The logits of every position by candle-transformers.
fn candle(directory: &tempfile::TempDir, config: &Value, prompt: &[u32]) -> Tensor {
    let file = directory.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let vars = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let parsed: reference::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
    let parsed = parsed.into_config(false);
    let model = reference::Llama::load(vars, &parsed).unwrap();
    // candle returns the last position only, so each prefix is a run of its own
    let rows = (1..=prompt.len()).map(|n| {
        let mut cache = reference::Cache::new(false, DType::F32, &parsed, &Device::Cpu).unwrap();
        let input = Tensor::new(&prompt[..n], &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        model.forward(&input, 0, &mut cache).unwrap()
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap()
}

fn check_against_candle(changes: Value) {
    let mut config = tiny_random::config();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let directory = tiny_random::directory(&config);
    let found = load(&directory, DType::F32).score(&prompts()).unwrap();
    for (prompt, found) in prompts().iter().zip(&found) {
        let gap = tiny_random::relative_gap(found, &candle(&directory, &config, prompt));
        assert!(gap <= 1e-4, "{} tokens: {gap}", prompt.len());
    }
}

#[test]
fn equals_candle_transformers() {
    check_against_candle(json!({}));
}

#[test]
fn equals_candle_transformers_with_tied_embedding() {
    check_against_candle(json!({"tie_word_embeddings": true, "num_key_value_heads": 6}));
}

#[test]
fn equals_candle_transformers_with_llama3_rope() {
    check_against_candle(json!({"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}));
}

#[test]
fn half_precision_stays_close() {
    let directory = tiny_random::directory(&tiny_random::config());
    let wanted = load(&directory, DType::F32).score(&prompts()).unwrap();
    for (dtype, limit) in [(DType::BF16, 0.15), (DType::F16, 0.01)] {
        for (found, wanted) in load(&directory, dtype)
            .score(&prompts())
            .unwrap()
            .iter()
            .zip(&wanted)
        {
            let gap = tiny_random::relative_gap(found, wanted);
            assert!(gap <= limit, "{dtype:?}: {gap}");
        }
    }
}

#[test]
fn pieces_over_shared_blocks_equal_the_whole() {
    let directory = tiny_random::directory(&tiny_random::config());
    let decoder = load(&directory, DType::F32);
    let prompt: Vec<u32> = (0..90).map(|i| (i * 31 + 5) % 96).collect();
    let wanted = decoder
        .score(std::slice::from_ref(&prompt))
        .unwrap()
        .remove(0);

    // a prefix of 50 tokens in two steps; then in one step two branches, each with 30 tokens
    // more, next to 10 decoded tokens one by one
    let prefix = decoder.block(50).unwrap();
    for (filled, end) in [(0, 20), (20, 50)] {
        let tokens = &prompt[filled..end];
        let segment = StepSegment {
            tokens,
            position: filled,
            past: vec![],
            block: &prefix,
            filled,
        };
        decoder.forward(&[segment]).unwrap();
    }
    let branches = [decoder.block(64).unwrap(), decoder.block(64).unwrap()];
    let step = |from: usize, to: usize| {
        let segments: Vec<StepSegment<'_>> = branches
            .iter()
            .map(|block| StepSegment {
                tokens: &prompt[from..to],
                position: from,
                past: vec![(&prefix, 50)],
                block,
                filled: from - 50,
            })
            .collect();
        decoder
            .logits(&decoder.forward(&segments).unwrap())
            .unwrap()
    };
    let long = step(50, 80);
    for (rows, branch) in [(0..30, 0), (30..60, 1)] {
        let found = long.narrow(0, rows.start, rows.len()).unwrap();
        let gap = tiny_random::relative_gap(&found, &wanted.narrow(0, 50, 30).unwrap());
        assert!(gap <= 1e-4, "branch {branch}: {gap}");
    }
    for at in 80..90 {
        let found = step(at, at + 1);
        let wanted = wanted.narrow(0, at, 1).unwrap();
        for branch in 0..2 {
            let gap = tiny_random::relative_gap(&found.narrow(0, branch, 1).unwrap(), &wanted);
            assert!(gap <= 1e-4, "branch {branch}, position {at}: {gap}");
        }
    }
}
