//! How far a running statement is: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casebook::{Casebook, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::output;

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
        output::make_way_for(None);
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
    // A hidden bar needs no room, and whoever waits in a write would keep others from saying a word.
    output::make_way_for(terminal.then(|| bar.clone()));
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
                output::note(&line);
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
    replies: u64,
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
            tokens: tokens(p),
            replies: replies(p),
            steps: p.train_steps.get(),
            trained: p.train_tokens.get(),
            compared: p.compared.get(),
        }
    }

    /// How long `left` more will take if the time since then was that of `done`; nothing is said
    /// before there is something to go by.
    fn left(&self, done: u64, left: u64) -> String {
        match done {
            0 => String::new(),
            _ => format!(", {:.0} s left", left as f64 * self.seconds() / done as f64),
        }
    }

    fn seconds(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }
}

/// Tokens that models read and wrote.
fn tokens(p: &Progress) -> u64 {
    let counters = p.generated.get();
    counters.prefill_tokens.said() + counters.decode_tokens.said()
}

fn replies(p: &Progress) -> u64 {
    let counters = p.generated.get();
    counters.requests + counters.kept_replies
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
            let left = from.left(asked - from.compared.min(asked), questions - asked);
            return Some(format!("comparing: {asked} of {questions} answers{left}"));
        }
        let (step, steps) = (p.train_steps.get(), p.train_steps_total.get());
        if step < steps && step != self.statement.steps {
            let from = self.training.get_or_insert_with(|| Mark::new(p));
            let done = step.saturating_sub(from.steps);
            let speed = match p.train_tokens.get() - from.trained {
                0 => String::new(),
                tokens => format!(", {:.0} tokens/s", tokens as f64 / from.seconds()),
            };
            return Some(format!(
                "training: step {step} of {steps}, loss {:.3}{speed}{}",
                p.train_loss_millionths.get() as f64 / 1e6,
                from.left(done, steps - step)
            ));
        }
        self.training = None;
        let from = &self.statement;
        let (tokens, replies) = (tokens(p) - from.tokens, replies(p) - from.replies);
        let documents = p.documents.get() - from.documents;
        (replies > 0 && step == from.steps).then(|| {
            let (of, left) = match p.documents_total.get() {
                total if total >= documents && total > 0 => (
                    format!(" of {total}"),
                    from.left(documents, total - documents),
                ),
                _ => Default::default(),
            };
            let speed = match tokens {
                // Kept by an earlier run, or of a server that does not say.
                0 => format!("{replies} replies"),
                _ => format!("{:.0} tokens/s", tokens as f64 / from.seconds()),
            };
            format!(
                "generating: {documents}{of} documents, {} pairs, {} rejected, {speed}{left}",
                p.pairs.get() - from.pairs,
                p.rejected.get() - from.rejected,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use casebook::{Counters, Tokens};

    use super::*;

    #[test]
    fn nothing_is_said_before_there_is_something_to_go_by() {
        let p = Progress::default();
        let mut begun = Begun::new(&p);
        assert_eq!(begun.line(&p), None);
        p.documents_total.set(3);
        let reply = Counters {
            requests: 1,
            prefill_tokens: Tokens::new(None),
            decode_tokens: Tokens::new(None),
            ..Counters::default()
        };
        p.generated.add(&reply);
        let line = begun.line(&p).unwrap();
        assert!(line.ends_with(" 0 rejected, 1 replies"), "{line}");
        let prefill_tokens = Tokens::new(Some(900_000_000));
        p.generated.add(&Counters {
            prefill_tokens,
            ..reply
        });
        let line = begun.line(&p).unwrap();
        assert!(line.starts_with("generating: 0 of 3 documents"), "{line}");
        assert!(
            !line.contains("left") && !line.contains(" 0 tokens/s"),
            "{line}"
        );
        p.documents.add(1);
        assert!(begun.line(&p).unwrap().contains(" s left"));

        p.train_steps_total.set(50);
        p.train_steps.set(1);
        p.train_tokens.add(700);
        p.train_loss_millionths.set(2_500_000);
        let line = begun.line(&p).unwrap();
        assert_eq!(line, "training: step 1 of 50, loss 2.500");
        p.train_steps.set(2);
        p.train_tokens.add(900_000_000);
        let line = begun.line(&p).unwrap();
        assert!(
            line.contains(" tokens/s, ") && line.ends_with(" s left"),
            "{line}"
        );

        p.compared_total.set(8);
        p.compared.set(1);
        assert_eq!(begun.line(&p).unwrap(), "comparing: 1 of 8 answers");
        p.compared.set(2);
        assert!(begun.line(&p).unwrap().contains(" s left"));
    }
}
