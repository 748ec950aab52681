//! The columns of the tables Casebook writes and reads: declared here, never inferred.
//!
//! [`QA_COLUMNS`] is the one list of what a question/answer row holds: the rows of `docs_to_qa`,
//! tables made with `table.create` and the split into accepted and rejected rows follow from it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use casebook_qa::checks::{Reason, Status};

/// Name under which `'table.create' 'qa_pairs'` finds [`qa_pairs`].
pub const QA_PAIRS: &str = "qa_pairs";
/// Name under which `table.create` finds [`qa_pairs_with_document`].
pub const QA_PAIRS_WITH_DOCUMENT: &str = "qa_pairs_with_document";
/// The column that tells accepted rows from others, and what it says of them.
pub const ACCEPTED: (&str, &str) = ("status", "ok");
/// The optional column of [`qa_pairs_with_document`].
pub const DOCUMENT: &str = "document";

/// One row, without what all rows of a document or a query share.
#[derive(Debug, Clone)]
pub(crate) struct QaRow {
    pub(crate) qa_id: String,
    /// (number, start, end); absent when the document has no chunk.
    pub(crate) chunk: Option<(i32, usize, usize)>,
    pub(crate) question_no: Option<i32>,
    pub(crate) question: Option<String>,
    pub(crate) answer: Option<String>,
    pub(crate) status: Status,
    pub(crate) reason: Option<Reason>,
    pub(crate) grounding: Option<f32>,
    pub(crate) prompt_tokens: Option<i32>,
    pub(crate) output_tokens: Option<i32>,
    /// Header and chunk as the model read them, where they are asked for.
    pub(crate) document: Option<Arc<str>>,
    /// What the engine said if it failed; no column has it.
    pub(crate) failure: Option<String>,
}

impl QaRow {
    /// An accepted row with nothing but its id.
    pub(crate) fn new(qa_id: String) -> Self {
        Self {
            qa_id,
            chunk: None,
            question_no: None,
            question: None,
            answer: None,
            status: Status::Ok,
            reason: None,
            grounding: None,
            prompt_tokens: None,
            output_tokens: None,
            document: None,
            failure: None,
        }
    }

    /// The same row, rejected for `reason`.
    pub(crate) fn rejected(mut self, reason: Reason) -> Self {
        (self.status, self.reason) = (Status::Rejected, Some(reason));
        self
    }
}

/// What rows share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QaLabels<'a> {
    pub(crate) doc_id: &'a str,
    pub(crate) profile: &'a str,
    pub(crate) model: &'a str,
}

/// A column: its field and how it is filled.
pub(crate) struct QaColumn {
    pub(crate) name: &'static str,
    nullable: bool,
    values: Values,
}

/// Where the values of a column come from, which gives it its type.
enum Values {
    Text(fn(&QaRow) -> Option<&str>),
    Label(for<'a> fn(&QaLabels<'a>) -> &'a str),
    Int32(fn(&QaRow) -> Option<i32>),
    Offset(fn((i32, usize, usize)) -> usize),
    Share(fn(&QaRow) -> Option<f32>),
}

const fn required(name: &'static str, values: Values) -> QaColumn {
    QaColumn {
        name,
        nullable: false,
        values,
    }
}

const fn optional(name: &'static str, values: Values) -> QaColumn {
    QaColumn {
        name,
        nullable: true,
        values,
    }
}

/// The columns of every question/answer row, in order.
static QA_COLUMNS: &[QaColumn] = &[
    required("qa_id", Values::Text(|r| Some(&r.qa_id))),
    required("doc_id", Values::Label(|l| l.doc_id)),
    optional("chunk_no", Values::Int32(|r| r.chunk.map(|c| c.0))),
    optional("chunk_start", Values::Offset(|c| c.1)),
    optional("chunk_end", Values::Offset(|c| c.2)),
    optional("question_no", Values::Int32(|r| r.question_no)),
    optional("question", Values::Text(|r| r.question.as_deref())),
    optional("answer", Values::Text(|r| r.answer.as_deref())),
    required(ACCEPTED.0, Values::Text(|r| Some(r.status.as_str()))),
    optional("reason", Values::Text(|r| r.reason.map(|r| r.as_str()))),
    optional("grounding", Values::Share(|r| r.grounding)),
    optional("prompt_tokens", Values::Int32(|r| r.prompt_tokens)),
    optional("output_tokens", Values::Int32(|r| r.output_tokens)),
    required("profile", Values::Label(|l| l.profile)),
    required("model", Values::Label(|l| l.model)),
];

/// What follows them with `keep_document => true`.
static DOCUMENT_COLUMN: QaColumn = optional(DOCUMENT, Values::Text(|r| r.document.as_deref()));

/// The columns of a call, with or without the document.
pub(crate) fn qa_columns(with_document: bool) -> impl Iterator<Item = &'static QaColumn> {
    let document = with_document.then_some(&DOCUMENT_COLUMN);
    QA_COLUMNS.iter().chain(document)
}

impl QaColumn {
    pub(crate) fn field(&self) -> Field {
        let data_type = match self.values {
            Values::Text(_) | Values::Label(_) => DataType::Utf8View,
            Values::Int32(_) => DataType::Int32,
            Values::Offset(_) => DataType::Int64,
            Values::Share(_) => DataType::Float32,
        };
        Field::new(self.name, data_type, self.nullable)
    }

    /// The values of `rows`.
    pub(crate) fn array(&self, rows: &[QaRow], labels: &QaLabels<'_>) -> ArrayRef {
        match &self.values {
            Values::Text(get) => Arc::new(rows.iter().map(get).collect::<StringViewArray>()),
            Values::Label(get) => {
                let same = std::iter::repeat_n(get(labels), rows.len());
                Arc::new(StringViewArray::from_iter_values(same))
            }
            Values::Int32(get) => Arc::new(rows.iter().map(get).collect::<Int32Array>()),
            Values::Offset(get) => {
                let offset = |row: &QaRow| row.chunk.map(|chunk| get(chunk) as i64);
                Arc::new(rows.iter().map(offset).collect::<Int64Array>())
            }
            Values::Share(get) => Arc::new(rows.iter().map(get).collect::<Float32Array>()),
        }
    }
}

fn schema_of(with_document: bool) -> SchemaRef {
    let fields: Vec<Field> = qa_columns(with_document).map(QaColumn::field).collect();
    Arc::new(Schema::new(fields))
}

/// One row per question asked (or per chunk or document that yielded none).
///
/// | column | meaning |
/// |---|---|
/// | qa_id | hash of everything that determines the row; the key for idempotent writes |
/// | doc_id, chunk_no, chunk_start, chunk_end | where it comes from; byte range in the text |
/// | question_no | 1-based within the chunk |
/// | question, answer | null where not produced |
/// | status, reason | ok, rejected or failed; reason is null when ok |
/// | grounding | share of the answer's facts found in the chunk, 0 to 1 |
/// | prompt_tokens, output_tokens | whole prompt and reply of the row |
/// | profile, model | name and digest of the prompts and of the model |
pub fn qa_pairs() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(false));
    Arc::clone(&SCHEMA)
}

/// [`qa_pairs`] and `document`: header and chunk as the model read them, which training with
/// documents needs. The source may change or go; the pair and its document stay together.
pub fn qa_pairs_with_document() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(true));
    Arc::clone(&SCHEMA)
}

/// Training examples, as `INSERT INTO` a LORA table takes them. Only question and answer are
/// required; `document` is the text the question was asked about.
pub fn lora_examples() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("doc_id", DataType::Utf8View, true),
            Field::new("question", DataType::Utf8View, true),
            Field::new("answer", DataType::Utf8View, true),
            Field::new("document", DataType::Utf8View, true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// Rows of `train_log('tuned')`: one per optimiser step.
pub fn train_log() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("step", DataType::Int64, false),
            Field::new("epoch", DataType::Float64, false),
            Field::new("loss", DataType::Float64, false),
            Field::new("learning_rate", DataType::Float64, false),
            Field::new("grad_norm", DataType::Float64, false),
            Field::new("tokens", DataType::Int64, false),
            Field::new("supervised_tokens", DataType::Int64, false),
            Field::new("tokens_per_second", DataType::Float64, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_as_tables_have_it() {
        let schema = qa_pairs();
        let shown: Vec<String> = schema
            .fields()
            .iter()
            .map(|f| {
                format!(
                    "{} {}{}",
                    f.name(),
                    f.data_type(),
                    if f.is_nullable() { "" } else { "!" }
                )
            })
            .collect();
        let expected = "qa_id Utf8View!, doc_id Utf8View!, chunk_no Int32, chunk_start Int64, \
                        chunk_end Int64, question_no Int32, question Utf8View, answer Utf8View, \
                        status Utf8View!, reason Utf8View, grounding Float32, prompt_tokens Int32, \
                        output_tokens Int32, profile Utf8View!, model Utf8View!";
        assert_eq!(shown.join(", "), expected);
        let longer = qa_pairs_with_document();
        assert_eq!(longer.fields()[..15], schema.fields()[..]);
        assert_eq!(
            longer.field(15),
            &Field::new("document", DataType::Utf8View, true)
        );
        assert_eq!(Status::Ok.as_str(), ACCEPTED.1);
    }

    #[test]
    fn every_column_is_filled_with_its_type() {
        let rows = [
            QaRow {
                chunk: Some((2, 10, 30)),
                document: Some("Case: A\n\nB.".into()),
                ..QaRow::new("a".into())
            },
            QaRow::new("b".into()).rejected(Reason::EmptyText),
        ];
        let labels = QaLabels {
            doc_id: "d",
            profile: "p",
            model: "m",
        };
        for column in qa_columns(true) {
            let array = column.array(&rows, &labels);
            let field = column.field();
            assert_eq!((array.data_type(), array.len()), (field.data_type(), 2));
            assert!(
                field.is_nullable() || array.null_count() == 0,
                "{}",
                column.name
            );
        }
    }
}
