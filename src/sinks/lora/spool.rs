//! Examples on their way to training: one JSON object per line in the run directory, so that
//! several epochs need no more memory than one batch of rows.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use casebook_llm::lora::run::{EXAMPLES, RUN};
use casebook_llm::lora::{Example, RunDirectory};
use casebook_llm::output;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};

use crate::error::{Error, ErrorKind, Result};

/// Writes the staged examples of a run, which training takes over; they are removed when it does
/// not.
pub(super) struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    /// Examples written.
    pub(super) count: u64,
}

/// Staged examples, until training has taken them over or this is dropped.
pub(super) struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // Taken over, they are not there any more.
        fs::remove_file(&self.0).ok();
    }
}

impl Spool {
    /// Begins the examples of the run in `directory`.
    pub(super) fn create(directory: &RunDirectory) -> Result<(Self, Staged)> {
        let path = directory.staged_examples();
        let file = output::create(&path)?;
        let spool = Self {
            path: path.clone(),
            file: BufWriter::new(file),
            count: 0,
        };
        Ok((spool, Staged(path)))
    }

    /// Adds the rows of `batch`: doc_id, question, answer, document. A row without question or
    /// answer is an error: it would otherwise be lost without a word.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let column = |i: usize| batch.column(i).as_string_view();
        let cell = |i: usize, row: usize| {
            let column = column(i);
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        for row in 0..batch.num_rows() {
            let text = |i: usize, name: &str| {
                cell(i, row).filter(|t| !t.trim().is_empty()).ok_or_else(|| {
                    Error::invalid(format!(
                        "example {} has no {name}; add WHERE question IS NOT NULL AND answer IS \
                         NOT NULL, or WHERE status = 'ok'",
                        self.count + 1
                    ))
                })
            };
            let example = Example {
                doc_id: cell(0, row),
                question: text(1, "question")?,
                answer: text(2, "answer")?,
                document: cell(3, row).map(|d| casebook_qa::prompt::shown(&d)),
            };
            serde_json::to_writer(&mut self.file, &example)
                .map_err(|e| failed(&self.path, e.into()))?;
            self.file
                .write_all(b"\n")
                .map_err(|e| failed(&self.path, e))?;
            self.count += 1;
        }
        Ok(())
    }

    /// Makes the examples durable; how many there are.
    pub(super) fn finish(mut self) -> Result<u64> {
        let done = self.file.flush();
        done.and_then(|()| self.file.get_ref().sync_all())
            .map_err(|e| failed(&self.path, e))?;
        Ok(self.count)
    }
}

/// The examples of a run; none if there is no run yet.
pub(super) fn read(directory: &Path) -> Result<Vec<Example>> {
    let path = directory.join(RUN).join(EXAMPLES);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(failed(&path, e)),
    };
    BufReader::new(file)
        .lines()
        .map(|line| {
            let line = line.map_err(|e| failed(&path, e))?;
            serde_json::from_str(&line).map_err(|e| {
                Error::new(ErrorKind::Corrupt, format!("{}: {e}", path.display())).with_source(e)
            })
        })
        .collect()
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let (kind, advice) = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
            ErrorKind::Exhausted,
            "; free space or choose another location, then run it again",
        ),
        Io::NotADirectory | Io::AlreadyExists => (
            ErrorKind::InvalidInput,
            "; a part of the path is a file: choose another location",
        ),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            (ErrorKind::Denied, "; choose a location you may write to")
        }
        _ => (ErrorKind::Unavailable, ""),
    };
    let message = format!("training examples in {}: {error}{advice}", path.display());
    Error::new(kind, message).with_source(error)
}
