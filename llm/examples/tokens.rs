//! Writes the token ids of each line of a text, for comparison with another tokenizer.
//!
//! `cargo run -p casebook-llm --example tokens -- --model DIR-OR-GGUF --lines FILE --out FILE`. The
//! output is a list of lists of ids; no token is added, and control tokens in a line are letters.

use std::collections::HashMap;
use std::path::PathBuf;

use casebook_llm::ModelSource;
use casebook_llm::model::{DecoderConfig, TextTokenizer};

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
    let (model, lines, out) = (take("model")?, take("lines")?, take("out")?);
    let files = ModelSource::Directory(PathBuf::from(model)).open()?;
    let config = DecoderConfig::parse(&files.name, &files.require("config.json")?)?;
    let tokenizer = TextTokenizer::load(&files, &config)?;
    let mut all = vec![];
    for line in std::fs::read_to_string(lines)?.split('\n') {
        all.push(tokenizer.encode_text(line)?);
    }
    std::fs::write(out, serde_json::to_string(&all)?)?;
    Ok(())
}
