//! `STORED AS CHAT_JSONL`: question/answer rows as chat messages, the form other trainers read.
//!
//! ```json
//! {"messages":[{"role":"user","content":"..."},{"role":"assistant","content":"..."}]}
//! ```
//!
//! LOCATION is one local file. INSERT writes it whole under a temporary name, which a second INSERT
//! finds locked, and renames it; a file that exists is replaced by INSERT OVERWRITE only.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::output::{self, Staged};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::TryStreamExt;
use serde_json::json;

use super::Sink;
use crate::error::{Error, ErrorKind};

/// Registration.
pub(crate) const SINK: Sink = Sink {
    name: "CHAT_JSONL",
    factory: |_| Arc::new(ChatJsonlFactory),
    check,
};

/// It has no options.
fn check(name: &str, options: &HashMap<String, String>) -> crate::Result<()> {
    match options.keys().min() {
        None => Ok(()),
        Some(key) => {
            let key = key.strip_prefix("format.").unwrap_or(key);
            let what = format!("option of CHAT_JSONL table {name}:");
            Err(Error::unknown(&what, key, &[]))
        }
    }
}

#[derive(Debug)]
struct ChatJsonlFactory;

#[async_trait]
impl TableProviderFactory for ChatJsonlFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        check(&cmd.name.to_string(), &cmd.options)?;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid("a CHAT_JSONL table needs exactly one LOCATION").into());
        };
        let schema = Schema::new(vec![
            Field::new("question", DataType::Utf8View, true),
            Field::new("answer", DataType::Utf8View, true),
        ]);
        let path = PathBuf::from(location.trim_start_matches("file://"));
        Ok(Arc::new(ChatJsonl {
            path,
            schema: Arc::new(schema),
            overwrite: false,
        }))
    }
}

#[derive(Debug, Clone)]
struct ChatJsonl {
    path: PathBuf,
    schema: SchemaRef,
    overwrite: bool,
}

impl ChatJsonl {
    fn check_is_new(&self) -> Result<()> {
        match self.path.exists() {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "{} exists; use INSERT OVERWRITE to replace it, or another LOCATION",
                self.path.display()
            ))
            .into()),
        }
    }
}

#[async_trait]
impl TableProvider for ChatJsonl {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "a CHAT_JSONL table is a target only; read the file with STORED AS JSON",
        )
        .into())
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = casebook_connectors::fitted(input, &self.schema)?;
        output::check_file(&self.path).map_err(Error::from)?;
        if insert_op == InsertOp::Append {
            self.check_is_new()?;
        }
        let sink = Self {
            overwrite: insert_op != InsertOp::Append,
            ..self.clone()
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

impl DisplayAs for ChatJsonl {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatJsonlSink: file={}", self.path.display())
    }
}

#[async_trait]
impl DataSink for ChatJsonl {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> Result<u64> {
        // Locked first: a file that another run is about to finish is there when that is known.
        let mut staged = Staged::begin(&self.path).map_err(Error::from)?;
        if !self.overwrite {
            self.check_is_new()?;
        }
        let count = write(&self.path, staged.file(), data).await?;
        staged.commit().map_err(Error::from)?;
        Ok(count)
    }
}

/// Writes the rows to `file`, which becomes `path`.
async fn write(path: &Path, file: &mut File, mut data: SendableRecordBatchStream) -> Result<u64> {
    let mut file = BufWriter::new(file);
    let mut count = 0;
    while let Some(batch) = data.try_next().await? {
        let (questions, answers) = (
            batch.column(0).as_string_view(),
            batch.column(1).as_string_view(),
        );
        for row in 0..batch.num_rows() {
            count += 1;
            if questions.is_null(row) || answers.is_null(row) {
                return Err(Error::invalid(format!(
                    "row {count} has no question or answer; add WHERE status = 'ok'"
                ))
                .into());
            }
            let line = json!({"messages": [
                {"role": "user", "content": questions.value(row)},
                {"role": "assistant", "content": answers.value(row)},
            ]});
            writeln!(file, "{line}").map_err(|e| failed(path, e))?;
        }
    }
    file.flush().map_err(|e| failed(path, e))?;
    Ok(count)
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge => ErrorKind::Exhausted,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("writing {}: {error}", path.display())).with_source(error)
}
