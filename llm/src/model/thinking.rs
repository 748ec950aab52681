//! What of a reply is thinking, and what is the answer.
//!
//! Models that think put it between two marks before their answer. It is for nobody to read: it is
//! cut from the reply, wherever it comes from, and a reply that ends while it thinks has no answer.

/// The marks around thinking, as published models write them (Qwen 3 and the DeepSeek R1 distills;
/// Magistral).
pub(super) const MARKS: [(&str, &str); 2] = [("<think>", "</think>"), ("[THINK]", "[/THINK]")];

/// A reply without its thinking.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What is left.
    pub(crate) text: String,
    /// It thought, and then there was no answer: it was cut before one.
    pub(crate) unfinished: bool,
}

/// True if `prompt` ends within thinking: the reply begins with it, without an opening mark.
pub(super) fn opened_by(prompt: &str) -> bool {
    let prompt = prompt.trim_end();
    MARKS.iter().any(|(open, _)| prompt.ends_with(open))
}

/// Cuts all thinking; `opened` says that the prompt had opened it. A closing mark without an
/// opening one closes what the reply began with.
pub(crate) fn answer(reply: &str, opened: bool) -> Answer {
    let mut text = String::new();
    let mut thinking = opened;
    let mut found = opened;
    let mut rest = reply;
    while let Some((at, mark, opens)) = next_mark(rest) {
        match (opens, thinking) {
            (true, false) => text.push_str(&rest[..at]),
            (false, false) => text.clear(),
            _ => {}
        }
        (thinking, found) = (opens, true);
        rest = &rest[at + mark.len()..];
    }
    if !thinking {
        text.push_str(rest);
    }
    if !found {
        return Answer {
            text,
            unfinished: false,
        };
    }
    let text = text.trim_start().to_string();
    let unfinished = thinking || text.is_empty();
    Answer { text, unfinished }
}

/// True if `reply` so far ends within thinking.
pub(crate) fn is_thinking(reply: &str, opened: bool) -> bool {
    let last = |opens: bool| {
        let marks = MARKS
            .iter()
            .map(|(open, close)| if opens { open } else { close });
        marks.filter_map(|mark| reply.rfind(mark)).max()
    };
    match (last(true), last(false)) {
        (Some(open), Some(close)) => open > close,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => opened,
    }
}

fn next_mark(text: &str) -> Option<(usize, &'static str, bool)> {
    let marks = MARKS
        .iter()
        .flat_map(|(open, close)| [(*open, true), (*close, false)]);
    let found = marks.filter_map(|(mark, opens)| Some((text.find(mark)?, mark, opens)));
    found.min_by_key(|(at, _, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &str, opened: bool, text: &str, unfinished: bool) {
        let text = text.to_string();
        assert_eq!(
            answer(reply, opened),
            Answer { text, unfinished },
            "{reply}"
        );
    }

    #[test]
    fn thinking_is_cut() {
        check("In 1998.", false, "In 1998.", false);
        check(" In 1998. ", false, " In 1998. ", false);
        check(
            "<think>\nIt was 2004?\n</think>\n\nIn 1998.",
            false,
            "In 1998.",
            false,
        );
        check("\n<think></think>In 1998.", false, "In 1998.", false);
        check(
            "It was 2004?\n</think>\n\nIn 1998.",
            true,
            "In 1998.",
            false,
        );
        check(
            "It was 2004?\n</think>\n\nIn 1998.",
            false,
            "In 1998.",
            false,
        );
        check("[THINK]Hm.[/THINK]In 1998.", false, "In 1998.", false);
        check(
            "<think>a</think>In <think>b</think>1998.",
            false,
            "In 1998.",
            false,
        );
        check("<think>a<think>b</think>In 1998.", false, "In 1998.", false);
    }

    #[test]
    fn thinking_alone_is_no_answer() {
        check("", false, "", false);
        check("<think>\nThe plant", false, "", true);
        check("The plant", true, "", true);
        check("<think>\nThe plant</think>\n", false, "", true);
        check("In 1998. <think>Or", false, "In 1998. ", true);
        check("", true, "", true);
    }

    #[test]
    fn where_a_reply_is() {
        assert!(opened_by("<|im_start|>assistant\n<think>\n"));
        assert!(!opened_by("<think>\n\n</think>\n\n"));
        for (reply, opened, thinks) in [
            ("a", false, false),
            ("a", true, true),
            ("<think>a", false, true),
            ("a</think>b", true, false),
            ("<think>a</think>b<think>", false, true),
        ] {
            assert_eq!(is_thinking(reply, opened), thinks, "{reply}");
        }
    }
}
