//! The columns of the tables Casebook writes and reads: declared here, never inferred.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Name under which `'table.create' 'qa_pairs'` finds [`qa_pairs`].
pub const QA_PAIRS: &str = "qa_pairs";

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
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("qa_id", DataType::Utf8View, false),
            Field::new("doc_id", DataType::Utf8View, false),
            Field::new("chunk_no", DataType::Int32, true),
            Field::new("chunk_start", DataType::Int64, true),
            Field::new("chunk_end", DataType::Int64, true),
            Field::new("question_no", DataType::Int32, true),
            Field::new("question", DataType::Utf8View, true),
            Field::new("answer", DataType::Utf8View, true),
            Field::new("status", DataType::Utf8View, false),
            Field::new("reason", DataType::Utf8View, true),
            Field::new("grounding", DataType::Float32, true),
            Field::new("prompt_tokens", DataType::Int32, true),
            Field::new("output_tokens", DataType::Int32, true),
            Field::new("profile", DataType::Utf8View, false),
            Field::new("model", DataType::Utf8View, false),
        ]))
    });
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
