//! Training examples and how they become tokens with a mask.
//!
//! Completion-only: the loss counts the answer and the token that ends it. Closed book, an
//! example is the user's question alone; with its document, it has the form of generation.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::model::{ChatOptions, Prompter};
use crate::{Error, Result};

/// One row of a LORA table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The document it is about, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc_id: Option<String>,
    /// What the user asks.
    pub question: String,
    /// What the model should answer.
    pub answer: String,
    /// The text that holds the answer, as a prompt shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// The form of examples with a document; that of the profile that generated them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptForm {
    /// System text.
    pub system: Option<String>,
    /// Task after the document; `{question}` is the question.
    pub answer: String,
    /// What was chosen about the prompts of the base.
    pub chat: ChatOptions,
}

/// An example as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// Index of the first token of the answer.
    pub(super) answer_at: usize,
    /// Range of the question's tokens, where noise may apply.
    pub(super) question: std::ops::Range<usize>,
}

/// Reads examples line by line.
pub(super) fn read(path: &Path) -> Result<Vec<Example>> {
    let file = std::fs::File::open(path)
        .map_err(|e| Error::io(format!("reading examples from {}", path.display()), e))?;
    let mut out = vec![];
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        if line.trim().is_empty() {
            continue;
        }
        out.push(serde_json::from_str(&line).map_err(|e| {
            Error::corrupt(format!("{} line {}: {e}", path.display(), i + 1)).with_source(e)
        })?);
    }
    Ok(out)
}

/// The question alone, then the answer.
pub(super) fn closed_book(prompter: &Prompter, example: &Example) -> Result<Tokens> {
    let mut ids = prompter.question(None, &example.question)?;
    let asked = prompter.tokenizer().encode_text(&example.question)?;
    let at = ids
        .windows(asked.len().max(1))
        .position(|window| window == asked);
    let question = at.map_or(0..0, |at| at..at + asked.len());
    let answer_at = ids.len();
    ids.extend(prompter.reply(&example.answer)?);
    Ok(Tokens {
        ids,
        answer_at,
        question,
    })
}

/// Document and task as in generation, then the answer; none without a document.
pub(super) fn open_book(
    prompter: &Prompter,
    form: &PromptForm,
    example: &Example,
) -> Result<Option<Tokens>> {
    let Some(document) = &example.document else {
        return Ok(None);
    };
    let prompt = prompter.document(form.system.as_deref(), document)?;
    let task = format!(
        "\n\n{}",
        form.answer.replace("{question}", &example.question)
    );
    let mut ids = prompt.head.clone();
    ids.extend(&prompt.document);
    ids.extend(prompter.tail(&prompt, &task)?);
    let answer_at = ids.len();
    ids.extend(prompter.reply(&example.answer)?);
    Ok(Some(Tokens {
        ids,
        answer_at,
        question: 0..0,
    }))
}

/// The question with two to four blocks of its words in another order: the same words, another
/// sentence. What is learned from it depends on what the question names and not on how it is put
/// (permuted training sentences: Guo et al. 2024, arXiv 2403.00758).
pub(super) fn reordered(question: &str, random: &mut Random) -> String {
    let words: Vec<&str> = question.trim_end_matches(['?', ' ']).split(' ').collect();
    let mut cuts: Vec<usize> = (0..3)
        .map(|_| (random.next() % words.len() as u64) as usize)
        .chain([0, words.len()])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut blocks: Vec<&[&str]> = cuts.windows(2).map(|cut| &words[cut[0]..cut[1]]).collect();
    random.shuffle(&mut blocks);
    format!("{}?", blocks.concat().join(" "))
}

impl Tokens {
    /// The example with each token of the question left out with probability `share`.
    pub(super) fn with_noise(&self, share: f64, random: &mut Random) -> Self {
        if share == 0.0 || self.question.is_empty() {
            return self.clone();
        }
        let mut out = Self {
            ids: vec![],
            answer_at: self.answer_at,
            question: 0..0,
        };
        for (i, id) in self.ids.iter().enumerate() {
            if self.question.contains(&i) && random.unit() < share {
                out.answer_at -= 1;
            } else {
                out.ids.push(*id);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordered_questions_have_the_same_words() {
        let question = "Which judge wrote the opinion in RUSSELL et al. v. DUFRESNE?";
        let sorted = |text: &str| {
            let mut words: Vec<String> = text
                .trim_end_matches('?')
                .split(' ')
                .map(String::from)
                .collect();
            words.sort();
            words
        };
        let mut random = Random::new(7, &[1]);
        let all: Vec<String> = (0..20).map(|_| reordered(question, &mut random)).collect();
        assert!(
            all.iter()
                .all(|q| sorted(q) == sorted(question) && q.ends_with('?'))
        );
        assert!(all.iter().any(|q| q != question));
        assert_eq!(reordered("Why?", &mut random), "Why?");
        assert_eq!(reordered("", &mut random), "?");
    }
}
