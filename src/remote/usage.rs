//! What a server says that a reply took. Anything that cannot be right was not said.

use serde_json::Value;

use crate::generator::{Counters, Tokens};

/// More tokens than any prompt or reply has.
const MOST: u64 = i32::MAX as u64;

/// Tokens of one reply, as far as they were said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the whole prompt.
    pub(super) prompt: Option<u64>,
    /// Those of them that the server had read before.
    pub(super) cached: Option<u64>,
    /// Of the reply, thoughts included.
    pub(super) output: Option<u64>,
}

impl Usage {
    /// What `answer` says; its text is empty if `is_empty`.
    pub(super) fn read(answer: &Value, is_empty: bool) -> Self {
        let usage = &answer["usage"];
        let prompt = count(&usage["prompt_tokens"]).filter(|n| *n > 0);
        // OpenAI and vLLM; DeepSeek; llama.cpp.
        let cached = count(&usage["prompt_tokens_details"]["cached_tokens"])
            .or_else(|| count(&usage["prompt_cache_hit_tokens"]))
            .or_else(|| count(&answer["timings"]["cache_n"]));
        let output = count(&usage["completion_tokens"]);
        Self {
            prompt,
            cached: cached.filter(|cached| prompt.is_some_and(|prompt| *cached <= prompt)),
            output: output.filter(|n| *n > 0 || is_empty),
        }
    }

    /// As the counters of a query have it. No server says where a prompt's parts end.
    pub(super) fn counters(self) -> Counters {
        let prefilled = self.prompt.zip(self.cached).map(|(all, old)| all - old);
        Counters {
            system_tokens: Tokens::new(None),
            chunk_tokens: Tokens::new(None),
            suffix_tokens: Tokens::new(None),
            prefill_tokens: Tokens::new(prefilled),
            shared_prefix_tokens: Tokens::new(self.cached),
            prompt_tokens: Tokens::new(self.prompt),
            decode_tokens: Tokens::new(self.output),
            requests: 1,
            kept_replies: 0,
        }
    }
}

/// A count, also if it is written as 12.0.
fn count(value: &Value) -> Option<u64> {
    let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
    let count = value.as_u64().or_else(|| value.as_f64().and_then(whole))?;
    (count <= MOST).then_some(count)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(answer: &Value, prompt: Option<u64>, cached: Option<u64>, output: Option<u64>) {
        let wanted = Usage {
            prompt,
            cached,
            output,
        };
        assert_eq!(Usage::read(answer, false), wanted, "{answer}");
    }

    #[test]
    fn what_is_not_said_or_cannot_be_right_is_unknown() {
        let usage = |usage: Value| json!({ "usage": usage });
        check(&json!({}), None, None, None);
        check(&usage(Value::Null), None, None, None);
        check(&usage(json!("12")), None, None, None);
        check(
            &usage(json!({"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 99})),
            Some(12),
            None,
            Some(3),
        );
        check(
            &usage(json!({"prompt_tokens": 12.0, "completion_tokens": 3.5})),
            Some(12),
            None,
            None,
        );
        check(
            &usage(json!({"prompt_tokens": -1, "completion_tokens": "3"})),
            None,
            None,
            None,
        );
        check(
            &usage(json!({"prompt_tokens": 0, "completion_tokens": 0})),
            None,
            None,
            None,
        );
        check(
            &usage(json!({"prompt_tokens": 1e18, "completion_tokens": 2147483648u64})),
            None,
            None,
            None,
        );
        let details = |cached: Value| json!({"prompt_tokens": 12, "completion_tokens": 1, "prompt_tokens_details": cached});
        check(
            &usage(details(json!({"cached_tokens": 8}))),
            Some(12),
            Some(8),
            Some(1),
        );
        check(
            &usage(details(json!({"cached_tokens": 13}))),
            Some(12),
            None,
            Some(1),
        );
        check(&usage(details(Value::Null)), Some(12), None, Some(1));
        check(
            &usage(json!({"prompt_tokens": 12, "prompt_cache_hit_tokens": 0})),
            Some(12),
            Some(0),
            None,
        );
        check(
            &json!({"usage": {"prompt_tokens": 12}, "timings": {"cache_n": 11}}),
            Some(12),
            Some(11),
            None,
        );
        let empty = usage(json!({"prompt_tokens": 5, "completion_tokens": 0}));
        assert_eq!(Usage::read(&empty, true).output, Some(0));
    }

    #[test]
    fn counters_know_what_follows_and_no_more() {
        let usage = Usage {
            prompt: Some(12),
            cached: Some(8),
            output: None,
        };
        let sums: Vec<_> = usage.counters().tokens().map(Tokens::sum).collect();
        assert_eq!(sums, [None, None, None, Some(4), Some(8), Some(12), None]);
        let unknown = Usage {
            cached: None,
            ..usage
        };
        assert_eq!(unknown.counters().prefill_tokens.sum(), None);
    }
}
