//! What does a profile say, and is it sensible?
//!
//! A profile is a named pair of personas with everything that shapes the pairs: prompts, chunk
//! size, sampling, checks. Where its values come from is in `layers`; how prompts are put together
//! is in [`crate::prompt`].

mod layers;
mod limits;

use serde::{Deserialize, Serialize};

use crate::checks::Checks;
use crate::error::{Error, Result};

pub use layers::KEYS;
pub use limits::expected;

/// The profiles that ship with the program: name and file.
pub static PROFILES: &[(&str, &str)] = &[
    ("legal", include_str!("../profiles/legal.toml")),
    ("general", include_str!("../profiles/general.toml")),
];

/// A named pair of personas and all that shapes their questions and answers.
///
/// ```
/// use casebook_qa::profile::Profile;
/// let mut profile = Profile::resolve("legal", &[
///     ("casebook.toml [profiles.legal]", "questions_per_chunk = 2\n[checks]\nmin_grounding = 0.7"),
/// ])?;
/// profile.set("seed", "7")?;
/// assert_eq!((profile.questions_per_chunk, profile.seed), (2, 7));
/// assert!(profile.set("question_per_chunk", "2").unwrap_err().message.contains("questions_per_chunk"));
/// # Ok::<(), casebook_qa::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name it was resolved by; not part of the file.
    #[serde(skip)]
    pub name: String,
    /// One line for lists of profiles.
    #[serde(default)]
    pub description: String,
    /// The system text, the same for questions and answers, so that both share the prefix.
    pub system: String,
    /// The asker's task in branch mode. May hold `{focus}`, `{question_no}` (1-based) and `{of}`.
    pub ask: String,
    /// The asker's task in list mode. May hold `{of}`.
    #[serde(default)]
    pub ask_list: String,
    /// What `{focus}` stands for, one per question number, starting over when used up.
    #[serde(default)]
    pub focus: Vec<String>,
    /// The answerer's task. Must hold `{question}`.
    pub answer: String,
    /// How questions are asked for.
    pub question_mode: QuestionMode,
    /// Questions asked per chunk.
    pub questions_per_chunk: usize,
    /// Accepted pairs after which a document is done; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pairs_per_document: Option<usize>,
    /// Most tokens of a chunk, without header and prompts.
    pub max_chunk_tokens: usize,
    /// Most tokens a chunk repeats from the one before, in whole sentences.
    pub overlap_tokens: usize,
    /// Most tokens generated for a question (list mode: for each of the list).
    pub max_question_tokens: usize,
    /// Most tokens generated for an answer.
    pub max_answer_tokens: usize,
    /// Texts that end a question or an answer, beside those of the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// How questions are sampled; each branch has its own seed.
    pub question_sampling: Sampling,
    /// How answers are sampled; greedy unless changed.
    pub answer_sampling: Sampling,
    /// Same seed, same input: same pairs.
    pub seed: u64,
    /// Examples shown in the task part of the prompts.
    #[serde(default)]
    pub few_shot: Vec<FewShot>,
    /// Which checks run, and their thresholds.
    pub checks: Checks,
}

/// How questions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionMode {
    /// One question per prompt, each sampled with its own seed.
    Branch,
    /// One prompt that asks for a numbered list.
    List,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// 0: always the most likely token.
    pub temperature: f64,
    /// Only the `top_k` most likely tokens; 0: off.
    #[serde(default)]
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1: off.
    #[serde(default = "one")]
    pub top_p: f64,
    /// Only tokens at least this likely relative to the likeliest; 0: off.
    #[serde(default)]
    pub min_p: f64,
}

fn one() -> f64 {
    1.0
}

/// An example pair for the prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// A question as the asker should write it.
    pub question: String,
    /// Its answer as the answerer should write it.
    pub answer: String,
}

impl Profile {
    /// The profile as a file; what [`Profile::resolve`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// 12 hexadecimal digits over everything that changes prompts, sampling or checks. Name,
    /// description, seed, chunk size and quotas are left out: `qa_id` holds the seed and the
    /// chunk itself, and asking for more questions must not rename those already there.
    pub fn prompt_hash(&self) -> String {
        let counted = self.question_mode == QuestionMode::List || self.ask.contains("{of}");
        let same = Self {
            name: String::new(),
            description: String::new(),
            seed: 0,
            questions_per_chunk: if counted { self.questions_per_chunk } else { 0 },
            max_pairs_per_document: None,
            max_chunk_tokens: 0,
            overlap_tokens: 0,
            ..self.clone()
        };
        blake3::hash(same.to_toml().as_bytes()).to_hex().as_str()[..12].to_owned()
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// `InvalidInput` that names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let say = |what: String| Err(Error::invalid(format!("profile '{}': {what}", self.name)));
        limits::check(self).or_else(say)?;
        if self.overlap_tokens >= self.max_chunk_tokens {
            return say(format!(
                "overlap_tokens ({}) must be less than max_chunk_tokens ({})",
                self.overlap_tokens, self.max_chunk_tokens
            ));
        }
        self.validate_templates()
            .or_else(|error| say(error.message))
    }

    fn validate_templates(&self) -> Result<()> {
        let task = match self.question_mode {
            QuestionMode::Branch => ("ask", &self.ask),
            QuestionMode::List => ("ask_list", &self.ask_list),
        };
        for (key, text) in [("answer", &self.answer), task] {
            if text.trim().is_empty() {
                return Err(Error::invalid(format!(
                    "{key} is empty; write the task of the persona, or leave the key out"
                )));
            }
        }
        if !self.answer.contains("{question}") {
            return Err(Error::invalid(
                "answer does not contain {question}; add it where the question belongs",
            ));
        }
        for (key, text, valid) in [
            ("system", &self.system, &[][..]),
            ("ask", &self.ask, &["focus", "question_no", "of"]),
            ("ask_list", &self.ask_list, &["of"]),
            ("answer", &self.answer, &["question"]),
        ] {
            if let Some(name) = placeholders(text).find(|name| !valid.contains(name)) {
                let valid = match valid {
                    [] => "it takes none".to_owned(),
                    names => format!("it takes {{{}}}", names.join("}, {")),
                };
                return Err(Error::invalid(format!(
                    "{key} has unknown placeholder {{{name}}}; {valid}"
                )));
            }
        }
        if self.ask.contains("{focus}") && self.focus.is_empty() {
            return Err(Error::invalid(
                "ask uses {focus}, but focus is empty; list at least one",
            ));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::invalid("stop has an empty text; leave it out"));
        }
        if self
            .few_shot
            .iter()
            .any(|e| e.question.trim().is_empty() || e.answer.trim().is_empty())
        {
            return Err(Error::invalid(
                "few_shot has an example with an empty question or answer",
            ));
        }
        Ok(())
    }
}

/// Names in braces: lower-case letters and underscores only; other braces are text.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (plain && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(change: impl FnOnce(&mut Profile)) -> String {
        let mut profile = Profile::resolve("legal", &[]).unwrap();
        change(&mut profile);
        profile.validate().unwrap_err().message
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(complaint(|p| p.questions_per_chunk = 0).contains("questions_per_chunk is 0"));
        assert!(complaint(|p| p.overlap_tokens = 1200).contains("overlap_tokens (1200)"));
        assert!(complaint(|p| p.max_chunk_tokens = 5).contains("max_chunk_tokens is 5"));
        assert!(
            complaint(|p| p.question_sampling.temperature = -1.0)
                .contains("question_sampling.temperature is -1")
        );
        assert!(complaint(|p| p.answer_sampling.top_p = 0.0).contains("answer_sampling.top_p"));
        assert!(complaint(|p| p.answer = "Answer it.".into()).contains("{question}"));
        assert!(complaint(|p| p.ask = "About {topic}?".into()).contains("{topic}"));
        assert!(complaint(|p| p.ask = " ".into()).contains("ask is empty"));
        assert!(complaint(|p| p.checks.min_grounding = 7.0).contains("checks.min_grounding is 7"));
        assert!(
            complaint(|p| p.max_pairs_per_document = Some(0)).contains("max_pairs_per_document")
        );
        assert!(complaint(|p| p.focus.clear()).contains("focus is empty"));
        assert!(complaint(|p| p.stop.push("".into())).contains("stop has an empty text"));
        for (name, _) in PROFILES {
            Profile::resolve(name, &[]).unwrap().validate().unwrap();
        }
    }

    #[test]
    fn the_hash_follows_what_matters() {
        let base = Profile::resolve("legal", &[]).unwrap();
        let hash = |change: fn(&mut Profile)| {
            let mut profile = base.clone();
            change(&mut profile);
            profile.prompt_hash()
        };
        assert_eq!(base.prompt_hash().len(), 12);
        assert_eq!(hash(|_| {}), base.prompt_hash());
        assert_eq!(hash(|p| p.seed = 9), base.prompt_hash());
        assert_eq!(hash(|p| p.questions_per_chunk = 2), base.prompt_hash());
        assert_ne!(hash(|p| p.answer.push('!')), base.prompt_hash());
        assert_ne!(hash(|p| p.checks.min_grounding = 0.6), base.prompt_hash());
        assert_ne!(hash(|p| p.stop.push("\n".into())), base.prompt_hash());
        assert!(!base.to_toml().contains("stop")); // ids of profiles without it stay
        assert_ne!(
            hash(|p| p.question_sampling.temperature = 0.7),
            base.prompt_hash()
        );
        let few = FewShot {
            question: "Q?".into(),
            answer: "A.".into(),
        };
        let mut shown = base.clone();
        shown.few_shot.push(few);
        assert_ne!(shown.prompt_hash(), base.prompt_hash());
    }

    #[test]
    fn toml_round_trip() {
        let mut profile = Profile::resolve("legal", &[]).unwrap();
        profile.max_pairs_per_document = Some(12);
        profile.stop = vec!["\n\n".into(), "### ".into()];
        profile.few_shot.push(FewShot {
            question: "Q \"x\"?".into(),
            answer: "A\nb".into(),
        });
        let again = Profile::resolve("legal", &[("file", &profile.to_toml())]).unwrap();
        assert_eq!(again, profile);
    }
}
