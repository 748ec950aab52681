//! How many rows may fail because the engine did: a model that is broken must not end well.
//!
//! Only failures of the engine count. What a working model writes, nothing at all included, is its
//! own matter and stands in the rows.

use casebook_qa::checks::Reason;

use crate::error::{Error, ErrorKind, Result};
use crate::schema::QaRow;

/// Before so many rows are there, their share says too little to stop in the middle.
const EARLIEST: u64 = 20;

/// Counts rows against the share of them that may fail.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    rows: u64,
    failed: u64,
    /// What the engine said first.
    first: Option<String>,
}

impl Budget {
    pub(super) fn new(share: f64) -> Self {
        Self {
            share,
            rows: 0,
            failed: 0,
            first: None,
        }
    }

    pub(super) fn count(&mut self, row: &QaRow) {
        self.rows += 1;
        if row.reason == Some(Reason::EngineError) {
            self.failed += 1;
            if self.first.is_none() {
                self.first.clone_from(&row.failure);
            }
        }
    }

    /// While rows are still to come.
    pub(super) fn check(&self) -> Result<()> {
        match self.rows < EARLIEST {
            true => Ok(()),
            false => self.check_all(),
        }
    }

    /// When these are all.
    pub(super) fn check_all(&self) -> Result<()> {
        let allowed = self.share * self.rows as f64;
        if self.failed as f64 <= allowed {
            return Ok(());
        }
        let first = self.first.as_deref().unwrap_or("(no message)");
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "docs_to_qa: the model failed for {} of {} rows, more than the error budget of \
                 {:.0} %; the first time it said: {first}. Mend that, or raise \
                 casebook.qa.error_budget to get the rows, with reason engine_error",
                self.failed,
                self.rows,
                self.share * 100.0
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use casebook_qa::checks::Status;

    use super::*;

    fn row(reason: Option<Reason>) -> QaRow {
        QaRow {
            status: match reason {
                None => Status::Ok,
                Some(_) => Status::Failed,
            },
            reason,
            failure: reason.map(|r| format!("said {}", r.as_str())),
            ..QaRow::new("q".into())
        }
    }

    fn budget(share: f64, failed: usize, empty: usize, ok: usize) -> Budget {
        let mut budget = Budget::new(share);
        let engine = std::iter::repeat_n(Some(Reason::EngineError), failed);
        let empty = std::iter::repeat_n(Some(Reason::NoQuestion), empty);
        for reason in engine.chain(empty).chain(std::iter::repeat_n(None, ok)) {
            budget.count(&row(reason));
        }
        budget
    }

    #[test]
    fn engine_errors_alone_count_and_few_rows_are_judged_at_the_end() {
        // (share, failed, empty replies, ok) -> (refused on the way, refused at the end)
        for (case, early, late) in [
            ((0.1, 10, 0, 0), false, true),
            ((0.1, 1, 0, 0), false, true),
            ((0.1, 1, 0, 9), false, false),
            ((0.1, 2, 0, 9), false, true),
            ((0.1, 2, 0, 18), false, false),
            ((0.1, 3, 0, 17), true, true),
            ((0.1, 0, 40, 0), false, false),
            ((0.0, 1, 0, 30), true, true),
            ((1.0, 30, 0, 0), false, false),
            ((0.1, 0, 0, 0), false, false),
        ] {
            let (share, failed, empty, ok) = case;
            let budget = budget(share, failed, empty, ok);
            assert_eq!(budget.check().is_err(), early, "{case:?}");
            assert_eq!(budget.check_all().is_err(), late, "{case:?}");
        }
        let message = budget(0.1, 3, 0, 0).check_all().unwrap_err().to_string();
        assert!(message.contains("3 of 3 rows") && message.contains("said engine_error"));
    }
}
