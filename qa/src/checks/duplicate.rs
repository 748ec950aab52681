//! Has this question been asked about the document before?
//!
//! Exact: the same words. Near: word 3-grams, with the case name taken as one word, since every
//! question about a case shares it.

use std::collections::HashSet;

use super::words::tokens;

/// The questions of one document.
#[derive(Debug, Default)]
pub(super) struct Seen {
    exact: HashSet<Vec<String>>,
    shingles: Vec<HashSet<[String; 3]>>,
}

impl Seen {
    pub(super) fn insert(&mut self, question: &str, case: Option<&str>) {
        let words = words(question, case);
        self.shingles.push(shingles(&words));
        self.exact.insert(words);
    }

    /// Whether an equal question, or one with a Jaccard overlap of `near` or more, was inserted.
    pub(super) fn contains(&self, question: &str, case: Option<&str>, near: f64) -> bool {
        let words = words(question, case);
        if self.exact.contains(&words) {
            return true;
        }
        let new = shingles(&words);
        near < 1.0 && !new.is_empty() && self.shingles.iter().any(|old| jaccard(old, &new) >= near)
    }
}

fn words(question: &str, case: Option<&str>) -> Vec<String> {
    let words: Vec<String> = tokens(question)
        .into_iter()
        .map(|token| token.key)
        .collect();
    let name: Vec<String> = case
        .map(tokens)
        .unwrap_or_default()
        .into_iter()
        .map(|token| token.key)
        .collect();
    let mut out = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        if !name.is_empty() && words[at..].starts_with(&name) {
            out.push("\u{0}case".to_owned());
            at += name.len();
        } else {
            out.push(words[at].clone());
            at += 1;
        }
    }
    out
}

fn shingles(words: &[String]) -> HashSet<[String; 3]> {
    words
        .windows(3)
        .map(|w| [w[0].clone(), w[1].clone(), w[2].clone()])
        .collect()
}

fn jaccard(a: &HashSet<[String; 3]>, b: &HashSet<[String; 3]>) -> f64 {
    let common = a.intersection(b).count();
    let union = a.len() + b.len() - common;
    if union == 0 {
        0.0
    } else {
        common as f64 / union as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_and_near() {
        let name = "Monga v. Glover Landing Condominium Trust of Massachusetts";
        let case = Some(name);
        let mut seen = Seen::default();
        seen.insert(&format!("What did the court hold in {name}?"), case);
        seen.insert(
            "Why was the order awarding fees and costs to the defendants affirmed?",
            case,
        );
        let near = |question: &str| seen.contains(question, case, 0.7);
        assert!(near(&format!("what did the court hold in {name}")));
        assert!(near(
            "Why was the order awarding fees and costs to the defendants then affirmed?"
        ));
        assert!(!near(&format!("What did the court reject in {name}?")));
        assert!(!near(&format!("Which court decided {name}?")));
        assert!(!near(&format!("When was {name} decided?")));
        let exact = |question: &str| seen.contains(question, case, 1.0);
        assert!(!exact(
            "Why was the order awarding fees and costs to the defendants then affirmed?"
        ));
    }
}
