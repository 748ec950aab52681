//! Which questions are asked: five sets out of up to four tables.

use std::path::Path;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::TableReference;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;

use super::Comparison;
use crate::error::{Error, ErrorKind, Result};

/// Questions per set unless said otherwise.
const MAX_QUESTIONS: usize = 500;

/// What a set measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SetKind {
    /// Questions as they were trained.
    Seen,
    /// The same facts, asked in words that were never trained.
    Paraphrase,
    /// Facts of the trained documents that were not trained.
    OtherFacts,
    /// Documents that were not trained, open book.
    HeldOut,
    /// What should not have changed.
    Control,
}

impl SetKind {
    /// For a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Seen => "seen questions",
            Self::Paraphrase => "other wording",
            Self::OtherFacts => "other facts",
            Self::HeldOut => "held out, open book",
            Self::Control => "control",
        }
    }

    /// In a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Seen => "Questions as they were trained: was the fact learned?",
            Self::Paraphrase => {
                "The same facts in words that were never trained: was the fact learned, or the \
                 sentence?"
            }
            Self::OtherFacts => {
                "Facts of the trained documents that were not trained: what cannot be known \
                 without being told."
            }
            Self::HeldOut => "Other documents, with the document in the prompt: can it still read?",
            Self::Control => "Unrelated questions: what did tuning make it forget?",
        }
    }
}

/// One question with the right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What is asked.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// Shown in the prompt, if any.
    pub document: Option<String>,
}

/// The questions of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationSet {
    /// What it measures.
    pub kind: SetKind,
    /// Its questions, in the order of the table.
    pub items: Vec<Item>,
    /// Rows that are not asked, because they lack the question, the answer or, where it is needed, the
    /// document.
    pub incomplete: usize,
    /// The table has more rows than are asked.
    pub has_more: bool,
}

/// Reads the tables of `comparison`.
pub(super) async fn read(
    ctx: &SessionContext,
    comparison: &Comparison,
) -> Result<Vec<EvaluationSet>> {
    let limit = comparison.max_questions.unwrap_or(MAX_QUESTIONS);
    let mut sets = vec![];
    for (kind, name) in sources(comparison) {
        let frame = frame(ctx, name).await?;
        let schema = frame.schema().inner().clone();
        // One more, which tells that there are more.
        let batches: Vec<RecordBatch> = frame
            .limit(0, Some(limit.saturating_add(1)))?
            .execute_stream()
            .await?
            .try_collect()
            .await?;
        let table = Table {
            name,
            schema: &schema,
            batches: &batches,
            limit,
        };
        sets.push(table.set(kind, "question")?);
        if kind == SetKind::Seen && schema.column_with_name("paraphrase").is_some() {
            sets.push(table.set(SetKind::Paraphrase, "paraphrase")?);
        }
    }
    let incomplete: usize = sets.iter().map(|set| set.incomplete).sum();
    match sets.iter().all(|set| set.items.is_empty()) {
        true if incomplete > 0 => Err(Error::invalid(format!(
            "compare: there are no questions: all {incomplete} rows lack the question, the answer or \
             the document that they are about"
        ))),
        true => Err(no_questions()),
        false => Ok(sets),
    }
}

/// Refuses tables that are not there or lack a column; no row is read. Without a table there are
/// questions only if some are `held_out`.
pub(super) async fn check(
    ctx: &SessionContext,
    comparison: &Comparison,
    held_out: bool,
) -> Result<()> {
    let mut is_any = held_out;
    for (kind, name) in sources(comparison) {
        let frame = frame(ctx, name).await?;
        let table = Table {
            name,
            schema: frame.schema().inner(),
            batches: &[],
            limit: 0,
        };
        table.set(kind, "question")?;
        is_any = true;
    }
    match is_any {
        true => Ok(()),
        false => Err(no_questions()),
    }
}

fn no_questions() -> Error {
    Error::invalid(
        "compare: there are no questions; name a table or file with probes, other_facts, held_out \
         or control",
    )
}

/// The tables that are named, by what they measure.
fn sources(comparison: &Comparison) -> impl Iterator<Item = (SetKind, &str)> {
    let named = [
        (SetKind::Seen, &comparison.probes),
        (SetKind::OtherFacts, &comparison.other_facts),
        (SetKind::HeldOut, &comparison.held_out),
        (SetKind::Control, &comparison.control),
    ];
    named
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name.as_deref()?)))
}

/// The table called `name`, else the file.
async fn frame(ctx: &SessionContext, name: &str) -> Result<DataFrame> {
    // Exactly this name, which may hold capitals and dots, else the one that SQL reads in it.
    for table in [TableReference::bare(name), TableReference::from(name)] {
        if ctx.table_exist(table.clone()).unwrap_or(false) {
            return Ok(ctx.table(table).await?);
        }
    }
    let ending = Path::new(name).extension().and_then(|e| e.to_str());
    let format = match ending.map(str::to_lowercase).as_deref() {
        Some(e) if ["csv", "parquet", "json"].contains(&e) => e.to_uppercase(),
        Some("jsonl" | "ndjson") => "JSON".to_owned(),
        _ => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "compare: '{name}' is neither a table nor a CSV, Parquet or JSON file; write \
                     it as [tables] in casebook.toml or as a path"
                ),
            ));
        }
    };
    let table = format!("compare {name}").replace('"', "");
    let location = name.replace('\'', "''");
    let sql = format!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS \"{table}\" STORED AS {format} LOCATION '{location}'"
    );
    ctx.sql(&sql).await?;
    Ok(ctx.table(TableReference::bare(table)).await?)
}

/// The text of a cell that says something.
fn cell(column: &Option<StringViewArray>, row: usize) -> Option<&str> {
    let column = column.as_ref().filter(|c| c.is_valid(row))?;
    Some(column.value(row)).filter(|text| !text.trim().is_empty())
}

struct Table<'a> {
    name: &'a str,
    schema: &'a Schema,
    batches: &'a [RecordBatch],
    /// Rows that are looked at.
    limit: usize,
}

impl Table<'_> {
    /// The rows with a question and an answer and, where they are asked about one, a document; the
    /// others are counted.
    fn set(&self, kind: SetKind, question: &str) -> Result<EvaluationSet> {
        let question = self.column(question, true)?;
        let expected = self.column("answer", true)?;
        let about_document = kind == SetKind::HeldOut;
        let document = self.column("document", about_document)?;
        let (mut items, mut incomplete) = (vec![], 0);
        let mut left = self.limit;
        for batch in self.batches {
            let rows = batch.num_rows().min(left);
            left -= rows;
            let text = |column: Option<usize>| -> Result<Option<StringViewArray>> {
                column
                    .map(|i| {
                        Ok(cast(batch.column(i), &DataType::Utf8View)?
                            .as_string_view()
                            .clone())
                    })
                    .transpose()
                    .map_err(|e: datafusion::arrow::error::ArrowError| {
                        Error::invalid(format!("compare: table {}: {e}", self.name))
                    })
            };
            let (question, expected, document) =
                (text(question)?, text(expected)?, text(document)?);
            for row in 0..rows {
                let document = cell(&document, row);
                match (cell(&question, row), cell(&expected, row)) {
                    (Some(question), Some(expected)) if document.is_some() || !about_document => {
                        items.push(Item {
                            question: question.to_owned(),
                            expected: expected.to_owned(),
                            document: document.map(casebook_qa::prompt::shown),
                        });
                    }
                    _ => incomplete += 1,
                }
            }
        }
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        Ok(EvaluationSet {
            kind,
            items,
            incomplete,
            has_more: rows > self.limit,
        })
    }

    fn column(&self, name: &str, required: bool) -> Result<Option<usize>> {
        let found = self
            .schema
            .fields()
            .iter()
            .position(|field| field.name().eq_ignore_ascii_case(name));
        if found.is_none() && required {
            let columns: Vec<&str> = self
                .schema
                .fields()
                .iter()
                .map(|f| f.name().as_str())
                .collect();
            return Err(Error::invalid(format!(
                "compare: table {} has no column {name}; it has {}",
                self.name,
                columns.join(", ")
            )));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compare::SetReport;
    use crate::context::Casebook;

    #[tokio::test]
    async fn what_is_not_asked_is_counted() {
        let ctx = crate::new_session(&Arc::new(Casebook::default())).unwrap();
        let table = "CREATE TABLE t AS SELECT * FROM (VALUES \
            (1, 'a?', 'A', 'a!', 'd'), (2, NULL, 'B', 'b!', 'd'), (3, 'c?', NULL, 'c!', 'd'), \
            (4, 'e?', 'E', NULL, 'd'), (5, 'f?', 'F', ' ', NULL), (6, '', 'G', 'g!', 'd'), \
            (7, 'h?', 'H', 'h!', ' ')) AS v(n, question, answer, paraphrase, document)";
        ctx.sql(table).await.unwrap().collect().await.unwrap();
        let of = |max_questions: Option<usize>| Comparison {
            probes: Some("t".into()),
            held_out: Some("t".into()),
            control: Some("t".into()),
            max_questions,
            ..Comparison::default()
        };
        for (most, expected) in [
            (
                None,
                [(4, 3, false), (4, 3, false), (2, 5, false), (4, 3, false)],
            ),
            (
                Some(7),
                [(4, 3, false), (4, 3, false), (2, 5, false), (4, 3, false)],
            ),
            (
                Some(4),
                [(2, 2, true), (2, 2, true), (2, 2, true), (2, 2, true)],
            ),
            (
                Some(1),
                [(1, 0, true), (1, 0, true), (1, 0, true), (1, 0, true)],
            ),
        ] {
            let found = read(&ctx, &of(most)).await.unwrap();
            let counts = found
                .iter()
                .map(|s| (s.items.len(), s.incomplete, s.has_more));
            assert_eq!(counts.collect::<Vec<_>>(), expected, "{most:?}");
        }
        let sets = read(&ctx, &of(None)).await.unwrap();
        let shown = sets.into_iter().map(|set| {
            let answers = vec![crate::compare::reply::Reply::default(); set.items.len()];
            let report = SetReport::new(set, answers.clone(), answers);
            assert_eq!(serde_json::to_value(&report).unwrap()["has_more"], false);
            report.left_out().unwrap()
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "3 rows without question or answer",
                "3 rows without paraphrase or answer",
                "5 rows without document, question or answer",
                "3 rows without question or answer",
            ]
        );
        let none = "CREATE TABLE none AS SELECT '' AS question, 'A' AS answer";
        ctx.sql(none).await.unwrap().collect().await.unwrap();
        let comparison = Comparison {
            control: Some("none".into()),
            ..Comparison::default()
        };
        let error = read(&ctx, &comparison).await.unwrap_err().to_string();
        assert!(error.contains("all 1 rows lack"), "{error}");
    }
}
