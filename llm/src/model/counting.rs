//! How many tokens a text has, by a tokenizer.json alone: for a model that runs elsewhere.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::{Error, Result};

/// Largest tokenizer.json that is read: those of today have up to 35 MB.
const MOST_BYTES: u64 = 256 << 20;

/// Counts tokens.
#[derive(Debug, Clone)]
pub struct TextCounter(Tokenizer);

impl TextCounter {
    /// Reads the file `path`, or tokenizer.json in the directory `path`. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self> {
        let file = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_path_buf(),
        };
        let failed = |e| Error::io(format!("reading the tokenizer {}", file.display()), e);
        let found = std::fs::metadata(&file).map_err(failed)?;
        if !found.is_file() || found.len() > MOST_BYTES {
            return Err(Error::invalid_input(format!(
                "the tokenizer {} is no file, or larger than {MOST_BYTES} bytes; name a \
                 tokenizer.json",
                file.display()
            )));
        }
        let bytes = std::fs::read(&file).map_err(failed)?;
        let damaged = |e: tokenizers::Error| {
            Error::corrupt(format!(
                "{} is not a tokenizer ({e}); fetch the file again",
                file.display()
            ))
            .with_source(e)
        };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(damaged)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(damaged)?;
        Ok(Self(tokenizer))
    }

    /// How many tokens `text` has.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn count(&self, text: &str) -> Result<usize> {
        let encoding = self
            .0
            .encode_fast(text, false)
            .map_err(|e| Error::internal("the tokenizer cannot encode a text").with_source(e))?;
        Ok(encoding.get_ids().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_its_directory_counts_as_the_model_does() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny/model");
        let text = "We affirm the judgment of the district court.";
        let by_directory = TextCounter::open(&dir).unwrap().count(text).unwrap();
        let file = TextCounter::open(&dir.join("tokenizer.json")).unwrap();
        assert_eq!(file.count(text).unwrap(), by_directory);
        assert!((8..20).contains(&by_directory), "{by_directory}");
        assert_eq!(file.count("").unwrap(), 0);
        let error = |path: &str| TextCounter::open(&dir.join(path)).unwrap_err().to_string();
        assert!(error("nowhere.json").contains("nowhere.json"));
        assert!(error("config.json").contains("is not a tokenizer"));
    }
}
