//! How large may the numbers of a profile be?
//!
//! Each limit is far beyond what helps, and low enough that nothing is allocated, multiplied or
//! waited for without end.

use super::Profile;

/// Highest sampling temperature.
pub(super) const HOTTEST: f64 = 100.0;

/// The first number beyond its limit, with the reason of the limit.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    const TOKENS: &str = "no model has a longer context";
    let few_shot = profile.few_shot.len();
    let numbers = [
        (
            "questions_per_chunk",
            profile.questions_per_chunk,
            1000,
            "each is a branch in memory, and a chunk has no more to ask about",
        ),
        (
            "max_pairs_per_document",
            profile.max_pairs_per_document.unwrap_or(0),
            1_000_000,
            "they are kept in memory to find duplicates",
        ),
        (
            "max_chunk_tokens",
            profile.max_chunk_tokens,
            1 << 20,
            TOKENS,
        ),
        (
            "max_question_tokens",
            profile.max_question_tokens,
            1 << 16,
            TOKENS,
        ),
        (
            "max_answer_tokens",
            profile.max_answer_tokens,
            1 << 16,
            TOKENS,
        ),
        (
            "question_sampling.top_k",
            profile.question_sampling.top_k,
            1 << 24,
            "no vocabulary is larger",
        ),
        (
            "answer_sampling.top_k",
            profile.answer_sampling.top_k,
            1 << 24,
            "no vocabulary is larger",
        ),
        (
            "the number of few_shot",
            few_shot,
            100,
            "every prompt holds them",
        ),
        (
            "the number of focus",
            profile.focus.len(),
            1000,
            "there is one per question at most",
        ),
        (
            "checks.max_repeats",
            profile.checks.max_repeats as usize,
            1_000_000,
            "no answer has more words",
        ),
    ];
    match numbers.iter().find(|(_, value, most, _)| value > most) {
        Some((key, value, most, why)) => {
            Err(format!("{key} is {value}; the most is {most}: {why}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_limit_with_a_reason() {
        let profile = Profile::resolve("legal", &[]).unwrap();
        for (key, most) in [
            ("questions_per_chunk", 1000_u64),
            ("max_pairs_per_document", 1_000_000),
            ("max_chunk_tokens", 1 << 20),
            ("max_question_tokens", 1 << 16),
            ("max_answer_tokens", 1 << 16),
            ("question_sampling.top_k", 1 << 24),
            ("answer_sampling.top_k", 1 << 24),
            ("checks.max_repeats", 1_000_000),
            ("question_sampling.temperature", 100),
            ("answer_sampling.temperature", 100),
        ] {
            profile.clone().set(key, &most.to_string()).unwrap();
            for beyond in [most + 1, 1_000_000_000, i64::MAX as u64] {
                let error = profile.clone().set(key, &beyond.to_string()).unwrap_err();
                let (message, number) = (error.message, most.to_string());
                assert!(
                    message.contains(key)
                        && (message.contains(&number) || key.ends_with("repeats")),
                    "{message}"
                );
            }
        }
        for key in ["question_sampling.temperature", "checks.min_grounding"] {
            for value in ["nan", "-nan", "inf", "-inf", "-0.1"] {
                let error = profile.clone().set(key, value).unwrap_err();
                assert!(error.message.contains(key), "{}", error.message);
            }
        }
        let mut many = profile.clone();
        many.focus = vec!["x".into(); 1001];
        assert!(many.validate().unwrap_err().message.contains("1000"));
    }
}
