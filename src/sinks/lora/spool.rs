//! Examples on their way to training: one JSON object per line in the run directory, so that
//! several epochs need no more memory than one batch of rows.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use casebook_llm::lora::Example;
use casebook_llm::lora::run::{EXAMPLES, RUN};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};

use crate::error::{Error, ErrorKind, Result};

/// Writes examples under a temporary name; [`Spool::commit`] puts them in place.
pub(super) struct Spool {
    temporary: PathBuf,
    target: PathBuf,
    file: BufWriter<File>,
    /// Examples written.
    pub(super) count: u64,
    committed: bool,
}

impl Spool {
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let run = directory.join(RUN);
        fs::create_dir_all(&run).map_err(|e| failed(&run, e))?;
        let temporary = run.join(format!(".{EXAMPLES}.tmp"));
        let file = File::create(&temporary).map_err(|e| failed(&temporary, e))?;
        let target = run.join(EXAMPLES);
        Ok(Self {
            temporary,
            target,
            file: BufWriter::new(file),
            count: 0,
            committed: false,
        })
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
                .map_err(|e| failed(&self.temporary, e.into()))?;
            self.file
                .write_all(b"\n")
                .map_err(|e| failed(&self.temporary, e))?;
            self.count += 1;
        }
        Ok(())
    }

    /// Makes the examples those of the run.
    pub(super) fn commit(mut self) -> Result<u64> {
        self.file.flush().map_err(|e| failed(&self.temporary, e))?;
        self.file
            .get_ref()
            .sync_all()
            .map_err(|e| failed(&self.temporary, e))?;
        fs::rename(&self.temporary, &self.target).map_err(|e| failed(&self.target, e))?;
        self.committed = true;
        Ok(self.count)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.committed {
            fs::remove_file(&self.temporary).ok();
        }
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
