//! What all documents of one query share: model, profile, names, bounds.

use std::sync::Arc;

use casebook_qa::profile::Profile;
use datafusion::error::Result;

use super::rows::Labels;
use super::spec::QaSpec;
use crate::generator::{Generator, Session};

/// What all documents of one query share.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) spec: Arc<QaSpec>,
    pub(super) profile: Profile,
    pub(super) profile_hash: String,
    pub(super) generator: Generator,
    pub(super) session: Session,
    pub(super) labels: Labels,
    /// Chunks of one document in generation at once.
    pub(super) chunks_ahead: usize,
}

impl Query {
    pub(super) fn new(
        spec: Arc<QaSpec>,
        generator: Generator,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let profile = spec.profile_for(&generator)?;
        let profile_hash = profile.prompt_hash();
        let labels = Labels {
            profile: format!("{}@{profile_hash}", profile.name),
            model: generator.label(),
        };
        let wanted = fetch.map(|n| n.div_ceil(profile.questions_per_chunk.max(1)));
        let chunks_ahead = spec
            .look_ahead_chunks
            .min(wanted.unwrap_or(usize::MAX))
            .max(1);
        let session = generator.session();
        Ok(Self {
            spec,
            profile,
            profile_hash,
            generator,
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
