//! What all documents of one query share: engine, profile, names, bounds.

use std::sync::Arc;

use casebook_llm::{Engine, Session};
use casebook_qa::profile::Profile;
use datafusion::error::Result;

use super::rows::Labels;
use super::spec::QaSpec;

/// What all documents of one query share.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) spec: Arc<QaSpec>,
    pub(super) profile: Profile,
    pub(super) profile_hash: String,
    pub(super) engine: Engine,
    pub(super) session: Session,
    pub(super) labels: Labels,
    /// Chunks of one document in generation at once.
    pub(super) chunks_ahead: usize,
}

impl Query {
    pub(super) fn new(spec: Arc<QaSpec>, engine: Engine, fetch: Option<usize>) -> Result<Self> {
        let profile = spec.profile_for(&engine)?;
        let profile_hash = profile.prompt_hash();
        let info = engine.info();
        let labels = Labels {
            profile: format!("{}@{profile_hash}", profile.name),
            model: format!(
                "{}@{}",
                info.name,
                info.digest.get(..12).unwrap_or(&info.digest)
            ),
        };
        let wanted = fetch.map(|n| n.div_ceil(profile.questions_per_chunk.max(1)));
        let chunks_ahead = spec
            .look_ahead_chunks
            .min(wanted.unwrap_or(usize::MAX))
            .max(1);
        let session = engine.session();
        Ok(Self {
            spec,
            profile,
            profile_hash,
            engine,
            session,
            labels,
            chunks_ahead,
        })
    }

    /// Documents in generation at once: fewer when a LIMIT will be met by fewer.
    pub(super) fn documents_ahead(&self, fetch: Option<usize>) -> usize {
        let ahead = self.spec.look_ahead_documents;
        match (fetch, self.profile.max_pairs_per_document) {
            (Some(n), Some(quota)) => ahead.min(n.div_ceil(quota.max(1))),
            // Without a quota one document yields rows for all of its chunks.
            (Some(_), None) => 1,
            (None, _) => ahead,
        }
    }
}
