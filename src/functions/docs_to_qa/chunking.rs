//! The chunks of a document: as many tokens as context and profile leave room for.

use std::sync::Arc;

use casebook_qa::chunk::{Chunk, ChunkOptions, TokenCounter, chunks};
use casebook_qa::prompt;
use datafusion::error::{DataFusionError, Result};

use super::document::Document;
use super::query::Query;
use crate::generator::Generator;

/// Tokens kept free in the context beyond chunk, task and reply: template and rounding.
const CONTEXT_MARGIN: usize = 32;

/// The document's chunks, found off the async threads: tokenising a long text takes a while. Given up
/// when nobody waits for them any more.
pub(super) async fn split(
    query: Arc<Query>,
    document: Arc<Document>,
    options: ChunkOptions,
) -> Result<Vec<Chunk>> {
    let waiting = Arc::new(());
    let asked_for = Arc::downgrade(&waiting);
    let found = tokio::task::spawn_blocking(move || {
        let counter = Counter(&query.generator);
        chunks(&document.text, &counter, &options)
            .take_while(|_| asked_for.strong_count() > 0)
            .collect()
    })
    .await
    .map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)));
    drop(waiting);
    found
}

struct Counter<'a>(&'a Generator);

impl TokenCounter for Counter<'_> {
    fn count(&self, text: &str) -> usize {
        // A text that cannot be tokenised fits nowhere; its row says why when it is prefilled.
        self.0.count(text).unwrap_or(usize::MAX / 4)
    }
}

impl Query {
    /// The chunk budget for `document`; none if its header alone fills the context.
    pub(super) fn chunk_options(&self, document: &Document) -> Option<ChunkOptions> {
        let profile = &self.profile;
        let count = |text: &str| Counter(&self.generator).count(text);
        let replies = profile.max_question_tokens + 2 * profile.max_answer_tokens;
        let task = count(&prompt::answer_task(profile, "")).max(count(&prompt::ask_task(
            profile,
            1,
            profile.questions_per_chunk,
        )));
        let fixed =
            count(&profile.system) + count(&document.header) + task + replies + CONTEXT_MARGIN;
        let free = self.generator.context_tokens().checked_sub(fixed)?;
        let max_tokens = profile.max_chunk_tokens.min(free);
        (max_tokens >= profile.max_chunk_tokens.min(16)).then(|| ChunkOptions {
            max_tokens,
            overlap_tokens: profile.overlap_tokens.min(max_tokens / 2),
            normalize: true,
        })
    }
}
