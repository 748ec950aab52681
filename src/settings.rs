//! Session settings: `SET casebook.qa.questions_per_chunk = 3`.
//!
//! One extension with nested groups. Absence means: what the profile says.

use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;

extensions_options! {
    /// Casebook's settings, prefix `casebook`.
    pub struct CasebookConfig {
        /// Generation of question/answer pairs
        pub qa: QaConfig, default = QaConfig::default()
    }
}

impl ConfigExtension for CasebookConfig {
    const PREFIX: &'static str = "casebook";
}

extensions_options! {
    /// `casebook.qa.*`: defaults of `docs_to_qa`; its named arguments win.
    pub struct QaConfig {
        /// Name of a [models] entry, builtin:tiny, a model directory or a hub id
        pub model: String, default = "default".to_string()
        /// Name of a profile (see `casebook profiles`)
        pub profile: String, default = "general".to_string()
        /// Questions asked about each chunk; unset: the profile decides
        pub questions_per_chunk: Option<usize>, default = None
        /// Accepted pairs after which a document is done; unset: the profile decides
        pub max_pairs_per_document: Option<usize>, default = None
        /// Seed of every sampled question; unset: the profile decides
        pub seed: Option<usize>, default = None
        /// Documents in generation at the same time: bounds memory and work lost to a LIMIT
        pub look_ahead_documents: usize, default = 12
        /// Chunks of one document in generation at the same time
        pub look_ahead_chunks: usize, default = 4
        /// Share of rows that may fail in the engine before the statement stops, 0 to 1
        pub error_budget: f64, default = 0.1
    }
}

impl QaConfig {
    /// The profile overrides that were set, as (key, value).
    pub fn overrides(&self) -> Vec<(String, String)> {
        [
            ("questions_per_chunk", self.questions_per_chunk),
            ("max_pairs_per_document", self.max_pairs_per_document),
            ("seed", self.seed),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_string())))
        .collect()
    }
}
