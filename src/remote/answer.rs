//! A server's answer to a call, read leniently: servers agree on little beside where the text stands.

use casebook_llm::Finish;
use serde_json::Value;

use super::usage::Usage;

/// A reply as it was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
    /// The model that says to have answered.
    pub(super) model: Option<String>,
}

/// Why an answer holds no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoReply {
    /// It is none: a page for people, half a text.
    Garbage(&'static str),
    /// An error with the status of a success; the status that it means, if it says one.
    Error { status: Option<u16>, said: String },
    /// The server keeps what the model wrote to itself.
    Withheld(String),
}

/// The reply in `body`.
pub(super) fn read(body: &[u8]) -> Result<Answer, NoReply> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|_| NoReply::Garbage("the answer is not JSON, or cut short"))?;
    let choice = &answer["choices"][0];
    if !choice.is_object() {
        return Err(match &answer["error"] {
            Value::Null => NoReply::Garbage("the answer holds no choice"),
            error => NoReply::Error {
                status: status(error),
                said: said(error),
            },
        });
    }
    let message = &choice["message"];
    let text = [&message["content"], &choice["text"], &message["refusal"]]
        .into_iter()
        .map(text)
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    let finish = choice["finish_reason"].as_str().unwrap_or_default();
    let mut finish = match finish.to_lowercase().as_str() {
        "length" | "max_tokens" | "max_output_tokens" | "model_length" => Finish::Length,
        withheld @ ("content_filter" | "safety" | "recitation" | "blocklist"
        | "prohibited_content") => return Err(NoReply::Withheld(withheld.to_owned())),
        // Stop, and whatever else a server calls it.
        _ => Finish::Stop,
    };
    let thoughts = ["reasoning_content", "reasoning"].map(|key| self::text(&message[key]));
    let is_thinking = thoughts.iter().any(|t| !t.is_empty());
    let text = match without_thoughts(&text) {
        Some(text) if !text.is_empty() || !is_thinking => text.to_owned(),
        // It ran out of room before it began.
        _ => {
            finish = Finish::Length;
            String::new()
        }
    };
    Ok(Answer {
        usage: Usage::read(&answer, text.is_empty()),
        text,
        finish,
        model: answer["model"]
            .as_str()
            .filter(|model| !model.is_empty())
            .map(str::to_owned),
    })
}

/// The text of a content: a text, or parts with texts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| match part {
                Value::String(text) => Some(text.as_str()),
                part => part["text"].as_str(),
            });
            texts.collect()
        }
        _ => String::new(),
    }
}

/// `text` behind a block of thoughts; none if it is nothing else.
fn without_thoughts(text: &str) -> Option<&str> {
    match text.trim_start().strip_prefix("<think>") {
        None => Some(text),
        Some(thoughts) => thoughts
            .split_once("</think>")
            .map(|(_, reply)| reply.trim_start()),
    }
}

/// What an error says.
pub(super) fn said(error: &Value) -> String {
    let message = error["message"].as_str().or_else(|| error.as_str());
    match message {
        Some(message) => message.to_owned(),
        None => error.to_string(),
    }
}

/// The status that an error means.
fn status(error: &Value) -> Option<u16> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|n| u16::try_from(n).ok()),
    };
    [&error["code"], &error["status"]]
        .into_iter()
        .filter_map(number)
        .find(|status| (400..600).contains(status))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(message: &Value, finish: &Value) -> Result<Answer, NoReply> {
        let body = json!({"choices": [{"message": message, "finish_reason": finish}]});
        read(body.to_string().as_bytes())
    }

    #[test]
    fn any_form_of_a_text_is_read() {
        for (message, wanted) in [
            (json!({"content": "a"}), "a"),
            (json!({"content": " a\n"}), " a\n"),
            (
                json!({"content": ["a", {"type": "text", "text": "b"}, {"type": "image"}]}),
                "ab",
            ),
            (
                json!({"content": null, "refusal": "I may not."}),
                "I may not.",
            ),
            (json!({"content": null}), ""),
            (json!({"content": 7}), ""),
            (
                json!({"content": "<think>\nno\n</think>\n\na <think>"}),
                "a <think>",
            ),
            (
                json!({"content": "a", "reasoning_content": "thoughts"}),
                "a",
            ),
        ] {
            let found = answer(&message, &json!("stop")).unwrap();
            assert_eq!(
                (found.text.as_str(), found.finish),
                (wanted, Finish::Stop),
                "{message}"
            );
        }
        let body = json!({"model": "m-2026", "choices": [{"text": "old", "finish_reason": "stop"}],
                          "usage": {"prompt_tokens": 4, "completion_tokens": 1}});
        let found = read(body.to_string().as_bytes()).unwrap();
        assert_eq!(
            (found.text.as_str(), found.model.as_deref()),
            ("old", Some("m-2026"))
        );
        assert_eq!((found.usage.prompt, found.usage.output), (Some(4), Some(1)));
    }

    #[test]
    fn only_thoughts_are_a_reply_that_was_cut() {
        for message in [
            json!({"content": "<think>for ever"}),
            json!({"content": "", "reasoning_content": "for ever"}),
            json!({"content": null, "reasoning": "for ever"}),
            json!({"content": "<think>x</think>", "reasoning": "for ever"}),
        ] {
            let found = answer(&message, &json!("stop")).unwrap();
            assert_eq!(
                (found.text.as_str(), found.finish),
                ("", Finish::Length),
                "{message}"
            );
        }
    }

    #[test]
    fn a_reason_to_end_that_nobody_knows_is_an_end() {
        let finish = |finish: Value| answer(&json!({"content": "a"}), &finish).map(|a| a.finish);
        for cut in ["length", "max_tokens", "MAX_TOKENS", "model_length"] {
            assert_eq!(finish(json!(cut)), Ok(Finish::Length), "{cut}");
        }
        for end in [
            json!("stop"),
            json!("eos_token"),
            json!("whatever"),
            json!(null),
            json!(7),
        ] {
            assert_eq!(finish(end), Ok(Finish::Stop));
        }
        let withheld = finish(json!("content_filter")).unwrap_err();
        assert_eq!(withheld, NoReply::Withheld("content_filter".into()));
    }

    #[test]
    fn what_is_no_reply_says_what_it_is() {
        for garbage in [
            "",
            "<html>",
            "{\"choices\": [{\"mess",
            "[]",
            "7",
            "{}",
            "{\"choices\": []}",
        ] {
            assert!(
                matches!(read(garbage.as_bytes()), Err(NoReply::Garbage(_))),
                "{garbage}"
            );
        }
        for (error, status, said) in [
            (json!({"message": "busy", "code": 429}), Some(429), "busy"),
            (json!({"message": "no", "code": "502"}), Some(502), "no"),
            (
                json!({"message": "x", "code": "insufficient_quota"}),
                None,
                "x",
            ),
            (json!("text"), None, "text"),
            (json!({"status": 503}), Some(503), "{\"status\":503}"),
            (json!({"code": 7}), None, "{\"code\":7}"),
        ] {
            let found = read(json!({"error": error}).to_string().as_bytes());
            let said = said.to_owned();
            assert_eq!(found, Err(NoReply::Error { status, said }), "{error}");
        }
    }
}
