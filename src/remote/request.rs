//! A call as the chat completions API takes it. The document comes first, so that a server that
//! keeps what it has read reads it once for all questions about it.

use casebook_llm::Request;
use serde::Serialize;
use serde_json::{Map, Value};

/// Parameters that [`super::RemoteSpec::omit`] can leave out.
pub(crate) const PARAMETERS: &[&str] = &["temperature", "top_p", "top_k", "min_p", "seed", "stop"];
/// Members of a call that are set here.
pub(crate) const RESERVED: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
];
/// Servers take seeds of 31 bits or more.
const SEED_BITS: u64 = (1 << 31) - 1;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Chat {
    pub(super) system: Option<String>,
    pub(super) user: String,
    pub(super) request: Request,
}

impl Chat {
    /// The seed as it is sent; a greedy reply needs none.
    pub(super) fn seed(&self) -> Option<u64> {
        let is_sampled = self.request.sampling.temperature > 0.0;
        is_sampled.then_some((self.request.seed ^ (self.request.seed >> 31)) & SEED_BITS)
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

/// What of a call its server decides.
pub(super) struct Form<'a> {
    pub(super) model: &'a str,
    /// Parameters that are left out.
    pub(super) omit: &'a [String],
    /// Members beside those that are set here.
    pub(super) more: &'a Map<String, Value>,
    /// The budget is called `max_completion_tokens`.
    pub(super) completion_tokens: bool,
}

impl Form<'_> {
    /// The body of `chat`.
    pub(super) fn body(&self, chat: &Chat) -> serde_json::Result<Vec<u8>> {
        let takes = |name: &str| self.omit.iter().all(|omitted| omitted != name);
        let system = chat.system.as_deref().map(|content| Message {
            role: "system",
            content,
        });
        let user = Message {
            role: "user",
            content: &chat.user,
        };
        let sampling = &chat.request.sampling;
        let budget = Some(chat.request.max_new_tokens);
        serde_json::to_vec(&Body {
            model: self.model,
            messages: system.into_iter().chain([user]).collect(),
            max_tokens: budget.filter(|_| !self.completion_tokens),
            max_completion_tokens: budget.filter(|_| self.completion_tokens),
            temperature: Some(sampling.temperature).filter(|_| takes("temperature")),
            // What keeps all tokens is not said: not every server knows every parameter.
            top_p: Some(sampling.top_p).filter(|p| *p < 1.0 && takes("top_p")),
            top_k: Some(sampling.top_k).filter(|k| *k > 0 && takes("top_k")),
            min_p: Some(sampling.min_p).filter(|p| *p > 0.0 && takes("min_p")),
            seed: chat.seed().filter(|_| takes("seed")),
            stop: match takes("stop") {
                true => &chat.request.stop,
                false => &[],
            },
            more: self.more,
        })
    }
}

#[cfg(test)]
mod tests {
    use casebook_llm::Sampling;
    use serde_json::json;

    use super::*;

    fn body(chat: &Chat, omit: &[&str], completion_tokens: bool) -> Value {
        let omit: Vec<String> = omit.iter().map(|o| (*o).to_owned()).collect();
        let Value::Object(more) = json!({"reasoning_effort": "low"}) else {
            panic!();
        };
        let form = Form {
            model: "m",
            omit: &omit,
            more: &more,
            completion_tokens,
        };
        serde_json::from_slice(&form.body(chat).unwrap()).unwrap()
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        let mut chat = Chat {
            system: None,
            user: "The document.\n\nThe task.".into(),
            request: Request {
                max_new_tokens: 7,
                seed: u64::MAX,
                ..Request::default()
            },
        };
        let greedy = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "The document.\n\nThe task."}],
            "max_tokens": 7,
            "temperature": 0.0,
            "reasoning_effort": "low",
        });
        assert_eq!(body(&chat, &[], false), greedy);
        chat.system = Some("You ask.".into());
        chat.request.sampling = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
        };
        chat.request.stop = vec!["###".into()];
        let sampled = body(&chat, &[], true);
        assert_eq!(sampled["messages"][0]["role"], "system");
        assert_eq!(sampled["messages"][1]["role"], "user");
        assert!(sampled["max_tokens"].is_null());
        assert_eq!(sampled["max_completion_tokens"], 7);
        // As they are typed, not as the nearest number of 64 bits.
        let text = serde_json::to_string(&sampled["temperature"]).unwrap();
        assert_eq!(text, "0.8");
        assert_eq!(sampled["top_k"], 40);
        assert!(sampled["seed"].as_u64().unwrap() <= SEED_BITS);
        assert_eq!(sampled["stop"], json!(["###"]));
        let bare = body(&chat, PARAMETERS, false);
        for parameter in PARAMETERS {
            assert!(bare[*parameter].is_null(), "{parameter}");
        }
        for reserved in PARAMETERS {
            assert!(RESERVED.contains(reserved), "{reserved}");
        }
    }

    #[test]
    fn seeds_that_differ_in_any_half_are_sent_as_others() {
        let seed = |seed: u64| {
            let mut chat = Chat {
                system: None,
                user: String::new(),
                request: Request {
                    seed,
                    ..Request::default()
                },
            };
            assert_eq!(chat.seed(), None);
            chat.request.sampling.temperature = 0.1;
            chat.seed().unwrap()
        };
        assert_ne!(seed(1), seed(2));
        assert_ne!(seed(1), seed(1 | 1 << 40));
    }
}
