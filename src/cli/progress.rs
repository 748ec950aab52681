//! How far a running statement is: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casebook::{Casebook, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Between two looks at the counters on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// Shows progress until it is dropped.
pub(super) struct Shown(tokio::task::JoinHandle<()>, ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.abort();
        self.1.finish_and_clear();
    }
}

/// Begins to show what `casebook` counts.
pub(super) fn show(casebook: &Arc<Casebook>) -> Shown {
    let progress = Arc::clone(&casebook.progress);
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let begun = Begun::new(&progress);
        let mut last = String::new();
        loop {
            tokio::time::sleep(if terminal { TICK } else { LINE }).await;
            let Some(line) = begun.line(&progress) else {
                continue;
            };
            if terminal {
                shown.set_message(line);
                shown.tick();
            } else if line != last {
                eprintln!("{line}");
                last = line;
            }
        }
    });
    Shown(task, bar)
}

/// The counters when the statement began.
struct Begun {
    at: Instant,
    documents: u64,
    pairs: u64,
    rejected: u64,
    tokens: u64,
    steps: u64,
    trained: u64,
}

impl Begun {
    fn new(p: &Progress) -> Self {
        Self {
            at: Instant::now(),
            documents: p.documents.get(),
            pairs: p.pairs.get(),
            rejected: p.rejected.get(),
            tokens: p.prefill_tokens.get() + p.decode_tokens.get(),
            steps: p.train_steps.get(),
            trained: p.train_tokens.get(),
        }
    }

    /// What has happened since; none if nothing has.
    fn line(&self, p: &Progress) -> Option<String> {
        let seconds = self.at.elapsed().as_secs_f64();
        let (step, steps) = (p.train_steps.get(), p.train_steps_total.get());
        if steps > 0 && step != self.steps {
            let speed = (p.train_tokens.get() - self.trained) as f64 / seconds;
            let left = (steps.saturating_sub(step)) as f64 * seconds / step.max(1) as f64;
            return Some(format!(
                "training: step {step} of {steps}, loss {:.3}, {speed:.0} tokens/s, {left:.0} s left",
                p.train_loss_millionths.get() as f64 / 1e6
            ));
        }
        let tokens = p.prefill_tokens.get() + p.decode_tokens.get() - self.tokens;
        (tokens > 0).then(|| {
            format!(
                "generating: {} documents, {} pairs, {} rejected, {:.0} tokens/s",
                p.documents.get() - self.documents,
                p.pairs.get() - self.pairs,
                p.rejected.get() - self.rejected,
                tokens as f64 / seconds
            )
        })
    }
}
