//! What may the numbers of a profile be?
//!
//! Each upper limit is far beyond what helps, and low enough that nothing is allocated, multiplied or
//! waited for without end.

use std::fmt;
use std::ops::Bound::{self, Excluded, Included};
use std::ops::RangeBounds;

use toml::{Table, Value};

use super::Profile;

/// What one number may be.
pub(super) struct Limits {
    key: &'static str,
    is_whole: bool,
    from: Bound<f64>,
    to: Bound<f64>,
    /// What the limit is for; empty where the name says it.
    why: &'static str,
}

const fn count(key: &'static str, least: u32, most: u32, why: &'static str) -> Limits {
    Limits {
        key,
        is_whole: true,
        from: Included(least as f64),
        to: Included(most as f64),
        why,
    }
}

const fn number(key: &'static str, from: Bound<f64>, to: Bound<f64>, why: &'static str) -> Limits {
    Limits {
        key,
        is_whole: false,
        from,
        to,
        why,
    }
}

const TOKENS: &str = "no model has a longer context";
const HOT: &str = "0 is greedy, and at the most every token is as likely as the next";
const ZERO: Bound<f64> = Included(0.0);
const ONE: Bound<f64> = Included(1.0);

const LIMITS: &[Limits] = &[
    count(
        "questions_per_chunk",
        1,
        1000,
        "each is a branch in memory, and a chunk has no more to ask about",
    ),
    count(
        "max_pairs_per_document",
        1,
        1_000_000,
        "they are kept in memory to find duplicates",
    ),
    count(
        "max_chunk_tokens",
        16,
        1 << 20,
        "fewer say nothing, and no model has a longer context",
    ),
    count("overlap_tokens", 0, 1 << 20, TOKENS),
    count("max_question_tokens", 1, 1 << 16, TOKENS),
    count("max_answer_tokens", 1, 1 << 16, TOKENS),
    count(
        "question_sampling.top_k",
        0,
        1 << 24,
        "no vocabulary is larger; 0 is off",
    ),
    count(
        "answer_sampling.top_k",
        0,
        1 << 24,
        "no vocabulary is larger; 0 is off",
    ),
    count(
        "checks.max_repeats",
        1,
        1_000_000,
        "no answer has more words",
    ),
    Limits {
        key: "seed",
        is_whole: true,
        from: ZERO,
        to: Included(i64::MAX as f64),
        why: "",
    },
    number("question_sampling.temperature", ZERO, Included(100.0), HOT),
    number("answer_sampling.temperature", ZERO, Included(100.0), HOT),
    number("question_sampling.top_p", Excluded(0.0), ONE, "1 is off"),
    number("answer_sampling.top_p", Excluded(0.0), ONE, "1 is off"),
    number("question_sampling.min_p", ZERO, Excluded(1.0), "0 is off"),
    number("answer_sampling.min_p", ZERO, Excluded(1.0), "0 is off"),
    number("checks.near_duplicate", ZERO, ONE, "it is a share"),
    number("checks.min_grounding", ZERO, ONE, "it is a share"),
];

/// Most examples and focuses.
const LISTS: &[(&str, usize, &str)] = &[
    ("few_shot", 100, "every prompt holds them"),
    ("focus", 1000, "there is one per question at most"),
];

/// What the number at `key` may be.
pub(super) fn of(key: &str) -> Option<&'static Limits> {
    LIMITS.iter().find(|limits| limits.key == key)
}

/// What the number at `key` may be, in words; none if no number is there.
pub fn expected(key: &str) -> Option<String> {
    of(key).map(ToString::to_string)
}

/// The first number beyond its limits, with what it may be.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    for (key, most, why) in LISTS {
        let found = match *key {
            "focus" => profile.focus.len(),
            _ => profile.few_shot.len(),
        };
        if found > *most {
            return Err(format!(
                "{key} has {found} entries; the most is {most}: {why}"
            ));
        }
    }
    let values: Table = toml::from_str(&profile.to_toml())
        .map_err(|_| format!("seed is {}; the most is {}", profile.seed, i64::MAX))?;
    for limits in LIMITS {
        let Some(value) = at(&values, limits.key) else {
            continue;
        };
        let number = match value {
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            _ => f64::NAN,
        };
        if !(limits.from, limits.to).contains(&number) {
            let why = match limits.why {
                "" => String::new(),
                why => format!(": {why}"),
            };
            let key = limits.key;
            return Err(format!("{key} is {value}; it must be {limits}{why}"));
        }
    }
    Ok(())
}

/// The value at a dotted key.
fn at<'a>(values: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((group, key)) => at(values.get(group)?.as_table()?, key),
        None => values.get(key),
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_whole {
            "a whole number"
        } else {
            "a number"
        })?;
        // Whole ones with all their digits.
        let said = |number: f64| match self.is_whole {
            true => (number as i64).to_string(),
            false => number.to_string(),
        };
        match self.from {
            Excluded(from) => write!(f, " above {}", said(from))?,
            Included(from) => write!(f, " from {}", said(from))?,
            Bound::Unbounded => {}
        }
        match self.to {
            Excluded(to) => write!(f, " to below {}", said(to)),
            Included(to) => write!(f, " to {}", said(to)),
            Bound::Unbounded => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::KEYS;

    #[test]
    fn every_number_has_its_limits_and_says_them() {
        let profile = Profile::resolve("legal", &[]).unwrap();
        let values: Table = toml::from_str(&profile.to_toml()).unwrap();
        for key in KEYS {
            let is_number = at(&values, key).is_some_and(|v| v.is_integer() || v.is_float());
            let Some(limits) = of(key) else {
                assert!(!is_number, "{key} has no limits");
                continue;
            };
            let own = at(&values, key).map_or("1".to_owned(), Value::to_string);
            profile.clone().set(key, &own).unwrap();
            for value in [
                "-2",
                "many",
                "hunter2",
                "nan",
                "-inf",
                "1e300",
                "99999999999999999999",
            ] {
                let message = profile.clone().set(key, value).unwrap_err().message;
                let said = limits.to_string();
                assert!(
                    message.contains(key) && message.contains(&said),
                    "{value}: {message}"
                );
                assert!(
                    !message.contains("usize") && !message.contains("u64"),
                    "{message}"
                );
            }
        }
        for (key, most) in [
            ("questions_per_chunk", 1000_u64),
            ("max_pairs_per_document", 1_000_000),
            ("max_question_tokens", 1 << 16),
            ("answer_sampling.top_k", 1 << 24),
            ("answer_sampling.temperature", 100),
        ] {
            profile.clone().set(key, &most.to_string()).unwrap();
            let message = profile
                .clone()
                .set(key, &(most + 1).to_string())
                .unwrap_err()
                .message;
            assert!(
                message.contains(&format!("{key} is {}", most + 1)),
                "{message}"
            );
        }
        let seed = profile.clone().set("seed", "-1").unwrap_err().message;
        assert!(seed.contains("from 0 to 9223372036854775807"), "{seed}");
        let mut many = profile.clone();
        many.focus = vec!["x".into(); 1001];
        assert!(many.validate().unwrap_err().message.contains("1000"));
        let mut far = profile;
        far.seed = u64::MAX;
        assert!(
            far.validate()
                .unwrap_err()
                .message
                .contains("seed is 18446744073709551615")
        );
    }
}
