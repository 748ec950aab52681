//! One document to rows: chunk, ask, answer, judge.
//!
//! Chunks are generated side by side but judged in order, so that what counts as a duplicate does
//! not depend on timing. Every question asked, and every chunk or document that yields none,
//! leaves a row.

use std::sync::Arc;

use casebook_qa::checks::{DocumentState, Reason, Status};
use casebook_qa::identity::branch_seed;
use casebook_qa::quota::spread;
use datafusion::error::Result;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::asking::chunk_pairs;
use super::chunking::split;
use super::document::Document;
use super::judging::judge;
use super::query::Query;
use crate::schema::QaRow;

/// Generates the rows of `document` and sends them chunk by chunk. `first` is false if another
/// document with the same text, and no id either, came before.
pub(super) async fn document(
    query: Arc<Query>,
    document: Arc<Document>,
    first: bool,
    rows: mpsc::Sender<Vec<QaRow>>,
) -> Result<()> {
    let refuse = |reason| vec![query.row(&document, None, None).rejected(reason)];
    if document.text.trim().is_empty() {
        rows.send(refuse(Reason::EmptyText)).await.ok();
        return Ok(());
    }
    if !first {
        rows.send(refuse(Reason::DuplicateDocument)).await.ok();
        return Ok(());
    }
    let Some(options) = query.chunk_options(&document) else {
        rows.send(refuse(Reason::TooLong)).await.ok();
        return Ok(());
    };
    let ranges = split(Arc::clone(&query), Arc::clone(&document), options).await?;
    if ranges.is_empty() {
        rows.send(refuse(Reason::EmptyText)).await.ok();
        return Ok(());
    }
    let profile = &query.profile;
    let mut order = spread(
        ranges.len(),
        profile.questions_per_chunk,
        profile.max_pairs_per_document,
        branch_seed(profile.seed, &document.id, 0, 0),
    )
    .map(|i| ranges[i]);
    let mut state = DocumentState::default();
    let mut remaining = profile.max_pairs_per_document.unwrap_or(usize::MAX);
    let mut asked_ahead = 0;
    let mut generating = FuturesOrdered::new();
    loop {
        // Never ask for more than the quota still allows: a pair too many would be paid for and
        // then dropped.
        while generating.len() < query.chunks_ahead && asked_ahead < remaining {
            let Some(chunk) = order.next() else { break };
            let questions = profile.questions_per_chunk.min(remaining - asked_ahead);
            asked_ahead += questions;
            let (query, document) = (&query, &document);
            generating.push_back(async move {
                (
                    questions,
                    chunk_pairs(query, document, chunk, questions).await,
                )
            });
        }
        let Some((questions, work)) = generating.next().await else {
            return Ok(());
        };
        asked_ahead -= questions;
        let work = work?;
        let judged = judge(&query, &document, work, &mut state);
        remaining -= judged
            .iter()
            .filter(|row| row.status == Status::Ok)
            .count()
            .min(remaining);
        if rows.send(judged).await.is_err() {
            return Ok(());
        }
    }
}
