//! How far a running statement is: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use casebook::{Casebook, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Between two looks at the counters on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// The bar that is on the terminal now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows progress until it is dropped.
pub(super) struct Shown(tokio::task::JoinHandle<()>, ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.abort();
        self.1.finish_and_clear();
        *BAR.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

/// Prints while the bar is out of the way.
pub(super) fn beside<T>(print: impl FnOnce() -> T) -> T {
    let bar = BAR.lock().unwrap_or_else(|e| e.into_inner()).clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
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
    *BAR.lock().unwrap_or_else(|e| e.into_inner()) = Some(bar.clone());
    let task = tokio::spawn(async move {
        let mut begun = Begun::new(&progress);
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

/// The counters when an activity began.
struct Begun {
    statement: Mark,
    /// When the current training run took its first step that was seen here.
    training: Option<Mark>,
    comparing: Option<Mark>,
}

/// A point in time with the counters then.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    documents: u64,
    pairs: u64,
    rejected: u64,
    tokens: u64,
    steps: u64,
    trained: u64,
    compared: u64,
}

impl Mark {
    fn new(p: &Progress) -> Self {
        Self {
            at: Instant::now(),
            documents: p.documents.get(),
            pairs: p.pairs.get(),
            rejected: p.rejected.get(),
            tokens: p.prefill_tokens.get() + p.decode_tokens.get(),
            steps: p.train_steps.get(),
            trained: p.train_tokens.get(),
            compared: p.compared.get(),
        }
    }

    /// Seconds since, and the seconds that `left` more will take if `done` took those.
    fn pace(&self, done: u64, left: u64) -> (f64, f64) {
        let seconds = self.at.elapsed().as_secs_f64();
        (seconds, left as f64 * seconds / done.max(1) as f64)
    }
}

impl Begun {
    fn new(p: &Progress) -> Self {
        Self {
            statement: Mark::new(p),
            training: None,
            comparing: None,
        }
    }

    /// What is going on; none if nothing has happened yet.
    fn line(&mut self, p: &Progress) -> Option<String> {
        let (asked, questions) = (p.compared.get(), p.compared_total.get());
        if asked > 0 && asked < questions {
            let from = self.comparing.get_or_insert_with(|| Mark::new(p));
            let (_, left) = from.pace(asked - from.compared.min(asked), questions - asked);
            return Some(format!(
                "comparing: {asked} of {questions} answers, {left:.0} s left"
            ));
        }
        let (step, steps) = (p.train_steps.get(), p.train_steps_total.get());
        if step < steps && step != self.statement.steps {
            let from = self.training.get_or_insert_with(|| Mark::new(p));
            let done = step.saturating_sub(from.steps);
            let (seconds, left) = from.pace(done, steps - step);
            let speed = (p.train_tokens.get() - from.trained) as f64 / seconds.max(1e-9);
            return Some(format!(
                "training: step {step} of {steps}, loss {:.3}, {speed:.0} tokens/s, {left:.0} s left",
                p.train_loss_millionths.get() as f64 / 1e6
            ));
        }
        self.training = None;
        let from = &self.statement;
        let tokens = p.prefill_tokens.get() + p.decode_tokens.get() - from.tokens;
        let documents = p.documents.get() - from.documents;
        (tokens > 0 && step == from.steps).then(|| {
            let (of, left) = match p.documents_total.get() {
                total if total >= documents && documents > 0 => {
                    let (_, left) = from.pace(documents, total - documents);
                    (format!(" of {total}"), format!(", {left:.0} s left"))
                }
                _ => Default::default(),
            };
            format!(
                "generating: {documents}{of} documents, {} pairs, {} rejected, {:.0} tokens/s{left}",
                p.pairs.get() - from.pairs,
                p.rejected.get() - from.rejected,
                tokens as f64 / from.at.elapsed().as_secs_f64()
            )
        })
    }
}
