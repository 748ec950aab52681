//! `casebook init`: a configuration file to start from.

use std::path::PathBuf;

use casebook::{Error, Result};
use clap::Args;

use super::output;

/// Arguments of `casebook init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Where to write it
    #[arg(default_value = "casebook.toml")]
    path: PathBuf,
}

const TEMPLATE: &str = r#"# Casebook's configuration. Unknown keys are errors. ${env:NAME} and ${file:path} work in values.

[models.default]
source = "builtin:tiny"        # or a directory with config.json and *.safetensors, a GGUF file, or a hub id
device = "auto"                # cpu, cuda:0

# [models.far]                 # a model behind an endpoint: vLLM, llama.cpp, OpenAI, ...
# source = "openai:https://host/v1"
# model = "Qwen/Qwen3-8B"
# api_key = "${env:FAR_KEY}"

# [session]
# allow_remote = false         # no document leaves for such a model
# memory_limit = "4G"          # of sorting, joining, grouping; default: half of what there is

# [tables.cases]
# format = "csv"               # parquet, json, delta
# location = "cases.csv"       # paths are relative to this file; s3://, az://, gs:// work too
# id = "id"
# title = ["name", "court"]    # shown above the text, so that questions can name the document

# [profiles.legal]             # changes single keys of the built-in profile
# questions_per_chunk = 2
"#;

impl Init {
    pub(super) fn run(&self) -> Result<()> {
        if self.path.exists() {
            return Err(Error::invalid(format!(
                "{} exists; remove it or name another file",
                self.path.display()
            )));
        }
        casebook_llm::output::write(&self.path, TEMPLATE.as_bytes())?;
        output::line(&format!("wrote {}", self.path.display()))
    }
}
