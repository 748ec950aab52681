//! How good is an answer, when the right one is known?
//!
//! Exact match and token F1 as SQuAD defines them (Rajpurkar et al. 2016, arXiv 1606.05250,
//! section 6.1): case, punctuation, articles and white space do not count. Shares come with a
//! Wilson interval (Wilson 1927), means with a normal one.

use std::collections::HashMap;

use crate::checks;

/// Two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_964;

/// Words that carry no answer.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// The words of an answer that count, in order.
fn words(text: &str) -> Vec<String> {
    let plain: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || c.is_whitespace() || *c == '-')
        .map(|c| if c == '-' { ' ' } else { c })
        .collect();
    plain
        .split_whitespace()
        .filter(|word| !ARTICLES.contains(word))
        .map(str::to_owned)
        .collect()
}

/// True if `answer` says the same words as `expected`.
///
/// ```
/// use casebook_qa::score::exact_match;
/// assert!(exact_match("The 108 months in prison.", "108 months in prison"));
/// assert!(!exact_match("180 months in prison", "108 months in prison"));
/// ```
pub fn exact_match(answer: &str, expected: &str) -> bool {
    words(answer) == words(expected)
}

/// Harmonic mean of precision and recall over the words of both, 0 to 1.
///
/// ```
/// use casebook_qa::score::token_f1;
/// assert_eq!(token_f1("the gold", "placer gold"), 2.0 / 3.0);
/// ```
pub fn token_f1(answer: &str, expected: &str) -> f64 {
    let (said, wanted) = (words(answer), words(expected));
    if said.is_empty() || wanted.is_empty() {
        return f64::from(u8::from(said == wanted));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &wanted {
        *left.entry(word).or_default() += 1;
    }
    let common = said
        .iter()
        .filter(|word| match left.get_mut(word.as_str()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        })
        .count();
    2.0 * common as f64 / (said.len() + wanted.len()) as f64
}

/// True if `answer` says that there is none: "not in document", "I don't know" and the like.
pub fn is_refusal(answer: &str) -> bool {
    checks::says_not_there(answer.trim())
}

/// An estimate with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean of the sample.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Size of the sample.
    pub n: usize,
}

impl Estimate {
    /// The share of `hits` among `n`, with Wilson's score interval, which is right at 0 and 1 too.
    ///
    /// ```
    /// let share = casebook_qa::score::Estimate::share(0, 60);
    /// assert_eq!((share.mean, share.low), (0.0, 0.0));
    /// assert!((share.high - 0.060).abs() < 5e-4);
    /// ```
    pub fn share(hits: usize, n: usize) -> Self {
        if n == 0 {
            return Self::empty();
        }
        let (count, p) = (n as f64, hits as f64 / n as f64);
        let denominator = 1.0 + Z * Z / count;
        let centre = (p + Z * Z / (2.0 * count)) / denominator;
        let half = Z / denominator * (p * (1.0 - p) / count + Z * Z / (4.0 * count * count)).sqrt();
        Self {
            mean: p,
            low: if hits == 0 {
                0.0
            } else {
                (centre - half).max(0.0)
            },
            high: if hits == n {
                1.0
            } else {
                (centre + half).min(1.0)
            },
            n,
        }
    }

    /// The mean of `values` between 0 and 1, with the normal interval of a mean.
    pub fn mean(values: &[f64]) -> Self {
        let n = values.len();
        if n == 0 {
            return Self::empty();
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let spread: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let half = match n {
            1 => 1.0,
            _ => Z * (spread / (n - 1) as f64 / n as f64).sqrt(),
        };
        Self {
            mean,
            low: (mean - half).max(0.0),
            high: (mean + half).min(1.0),
            n,
        }
    }

    fn empty() -> Self {
        Self {
            mean: 0.0,
            low: 0.0,
            high: 1.0,
            n: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_articles_do_not_count() {
        for (answer, expected, same) in [
            ("Judge Wickersham.", "judge wickersham", true),
            ("$1,250.00", "$1250.00", true),
            ("a 108-month term", "108 month term", true),
            ("", "", true),
            ("", "denied", false),
            ("denied in part", "denied", false),
        ] {
            assert_eq!(exact_match(answer, expected), same, "{answer} / {expected}");
        }
    }

    #[test]
    fn f1_counts_repeated_words_once_each() {
        assert_eq!(token_f1("gold gold gold gold", "gold"), 0.4);
        assert_eq!(token_f1("denied", "denied."), 1.0);
        assert_eq!(token_f1("granted", "denied"), 0.0);
    }

    #[test]
    fn refusals() {
        for text in ["Not in document.", "I don't know.", "not in the document"] {
            assert!(is_refusal(text), "{text}");
        }
        assert!(!is_refusal("The motion was not granted."));
    }

    #[test]
    fn intervals_hold_the_mean_and_shrink_with_n() {
        // Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263.
        let share = Estimate::share(81, 263);
        assert!((share.low - 0.2553).abs() < 5e-4 && (share.high - 0.3662).abs() < 5e-4);
        assert_eq!(Estimate::share(7, 7).high, 1.0);
        let few = Estimate::mean(&[0.0, 1.0, 1.0, 0.5]);
        let many = Estimate::mean(&[0.0, 1.0, 1.0, 0.5].repeat(10));
        assert_eq!(few.mean, many.mean);
        assert!(few.high - few.low > many.high - many.low);
    }
}
