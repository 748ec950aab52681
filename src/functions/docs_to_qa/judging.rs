//! What the model made of a chunk to rows: checked, with the id that everything about them gives.

use std::sync::Arc;

use casebook_qa::checks::{self, DocumentState, Reason, Status};
use casebook_qa::identity::{QaKey, qa_id};

use super::asking::ChunkWork;
use super::document::Document;
use super::query::Query;
use crate::generator::Tokens;
use crate::schema::QaRow;

/// Turns a chunk's pairs into rows, in question order.
pub(super) fn judge(
    query: &Query,
    document: &Document,
    work: ChunkWork,
    state: &mut DocumentState,
) -> Vec<QaRow> {
    if work.pairs.is_empty() {
        return vec![
            query
                .row(document, Some(&work), None)
                .rejected(Reason::NoQuestion),
        ];
    }
    let rows = work.pairs.iter().enumerate().map(|(i, pair)| {
        let mut row = query.row(document, Some(&work), Some(i as i32 + 1));
        row.question.clone_from(&pair.question);
        row.answer.clone_from(&pair.answer);
        let count = |tokens: Tokens| tokens.sum().and_then(|sum| i32::try_from(sum).ok());
        row.prompt_tokens = count(pair.prompt_tokens);
        row.output_tokens = count(pair.output_tokens);
        if let Some(reason) = pair.failed {
            row.status = match reason {
                Reason::EngineError => Status::Failed,
                _ => Status::Rejected,
            };
            row.reason = Some(reason);
            row.failure.clone_from(&pair.failure);
            return row;
        }
        let verdict = checks::judge(
            &query.profile.checks,
            &pair.as_pair(&document.header, &work.text),
            state,
        );
        row.status = verdict.status;
        row.reason = verdict.reason;
        row.grounding = verdict.grounding;
        row
    });
    rows.collect()
}

impl Query {
    pub(super) fn row(
        &self,
        document: &Document,
        work: Option<&ChunkWork>,
        number: Option<i32>,
    ) -> QaRow {
        let (start, end) = work
            .map(|w| (w.chunk.start, w.chunk.end))
            .unwrap_or_default();
        let key = QaKey {
            doc_id: &document.id,
            prefix: work.map(|w| &*w.rendered).unwrap_or_default(),
            chunk_start: start,
            chunk_end: end,
            profile_hash: &self.profile_hash,
            model_digest: self.generator.digest(),
            seed: self.profile.seed,
            question_no: number.unwrap_or(0),
        };
        let read = work.filter(|_| self.spec.keep_document);
        QaRow {
            chunk: work.map(|w| (w.chunk.no, start, end)),
            question_no: number,
            document: read.map(|w| Arc::clone(&w.rendered)),
            ..QaRow::new(qa_id(&key))
        }
    }
}
