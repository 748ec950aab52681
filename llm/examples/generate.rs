//! Asks a model about a document, many branches at once, and prints replies and rates.
//!
//! `cargo run -p casebook-llm --example generate -- --model DIR --document FILE [--task TEXT]
//! [--system TEXT] [--documents 4] [--branches 8] [--tokens 100] [--rows 32] [--device auto]
//! [--dtype float32] [--temperature 0.8]`. The document is used `--documents` times, each as a
//! prefix of its own, with `--branches` replies each.
#![allow(clippy::print_stdout)] // an example prints

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use casebook_llm::engine::{Engine, EngineOptions, Request, Sampling, parse_dtype};
use casebook_llm::model::ModelSource;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut options: HashMap<String, String> = HashMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let name = word
            .strip_prefix("--")
            .ok_or(format!("{word}: expected --NAME VALUE"))?;
        options.insert(
            name.to_string(),
            words.next().ok_or(format!("--{name} needs a value"))?,
        );
    }
    let take = |name: &str, default: &str| {
        options
            .get(name)
            .cloned()
            .unwrap_or_else(|| default.to_string())
    };
    let model = options.get("model").ok_or("--model DIR is missing")?;
    let document =
        std::fs::read_to_string(options.get("document").ok_or("--document is missing")?)?;
    let dtype = options
        .get("dtype")
        .map(|text| parse_dtype(text))
        .transpose()?;
    let engine_options = EngineOptions {
        device: take("device", "auto").parse()?,
        dtype,
        max_rows: Some(take("rows", "32").parse()?),
        ..Default::default()
    };
    let source = ModelSource::Directory(PathBuf::from(model));
    let engine =
        tokio::task::spawn_blocking(move || Engine::load(&source, engine_options)).await??;
    println!("{:#?}", engine.info());

    let session = engine.session();
    let start = Instant::now();
    let sampling = Sampling {
        temperature: take("temperature", "0.8").parse()?,
        ..Default::default()
    };
    let (task, system) = (
        take("task", "Ask a question about it."),
        options.get("system").cloned(),
    );
    let branches: u64 = take("branches", "8").parse()?;
    let max_new_tokens = take("tokens", "100").parse()?;
    let mut replies = tokio::task::JoinSet::new();
    for _ in 0..take("documents", "4").parse::<usize>()? {
        let prefix = session.prefix(system.as_deref(), &document)?;
        for seed in 0..branches {
            let (prefix, task) = (prefix.clone(), task.clone());
            let request = Request {
                sampling,
                seed,
                max_new_tokens,
                stop: Vec::new(),
            };
            replies.spawn(async move { prefix.generate(&task, request).await });
        }
    }
    let mut last = None;
    while let Some(reply) = replies.join_next().await {
        last = Some(reply??);
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(reply) = last {
        println!("{}\n", reply.text);
    }
    let counters = session.counters();
    println!("{counters:#?}");
    println!(
        "{seconds:.2} s, {:.0} prefilled and {:.0} decoded tokens per second",
        counters.prefill_tokens as f64 / seconds,
        counters.decode_tokens as f64 / seconds
    );
    Ok(())
}
