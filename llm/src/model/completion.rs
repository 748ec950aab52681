//! The frame of a model without a chat template: one that was never taught to converse, and goes on
//! with a text.
//!
//! It is shown how the text goes on: a document, a task, a reply, for each kind of task that there
//! is. Then it stops where an example would, and not at the token limit.

use super::frame::{ReplyFrame, Slot, Strip, Stripped};

/// Texts that end a reply: what the frame itself would write next.
pub(super) const STOPS: [&str; 4] = ["\n\n", "\nText:", "\nTask:", "\nQuestion:"];

/// Two documents of a kind that no user has, with one task each of those that profiles set.
const EXAMPLES: &str = "Text:
The Harlow Bridge was opened on 4 May 1931 by Ada Thorne, who had designed it. It cost 212,000 \
crowns and was closed to lorries in 1968.

Task: Write one question that the text answers. It names what it asks about.

Reply: Who designed the Harlow Bridge, which was opened in 1931?

Text:
The Harlow Bridge was opened on 4 May 1931 by Ada Thorne, who had designed it. It cost 212,000 \
crowns and was closed to lorries in 1968.

Task: Answer this question from the text: How much did the Harlow Bridge cost?

Reply: The Harlow Bridge cost 212,000 crowns.

Text:
Order No. 17 of the Port of Venn takes effect on 1 March. Ships of more than 90 metres need a \
pilot; the fee is 40 crowns an hour.

Task: Write 2 questions that the text answers, as a numbered list.

Reply: 1. When does Order No. 17 of the Port of Venn take effect?
2. Which ships need a pilot under Order No. 17 of the Port of Venn?

Text:
Order No. 17 of the Port of Venn takes effect on 1 March. Ships of more than 90 metres need a \
pilot; the fee is 40 crowns an hour.

Task: Answer this question from the text: What is the fee of a pilot under Order No. 17?

Reply: The fee of a pilot is 40 crowns an hour.

";

const SPACE: Stripped = Stripped {
    start: Strip::Space,
    end: Strip::Space,
};

/// The slots of a prompt with a document and a task (two parts), or of a question alone (one).
pub(super) fn frame(with_system: bool, parts: usize) -> Vec<Slot> {
    let text = |text: &str| Slot::Template(text.to_string());
    let mut slots = vec![];
    if with_system {
        slots.push(Slot::System(SPACE));
    }
    let gap = if with_system { "\n\n" } else { "" };
    if parts == 1 {
        slots.push(text(&format!("{gap}Question: ")));
        slots.push(Slot::Part(0, SPACE));
        slots.push(text("\nReply:"));
        return slots;
    }
    slots.push(text(&format!("{gap}{EXAMPLES}Text:\n")));
    slots.push(Slot::Part(0, SPACE));
    slots.push(text("\n\nTask: "));
    slots.push(Slot::Part(1, SPACE));
    slots.push(text("\n\nReply:"));
    slots
}

/// What stands around a reply. The token that ends it comes after it.
pub(super) fn reply() -> ReplyFrame {
    ReplyFrame {
        prompt_end: "\nReply:".to_string(),
        before: " ".to_string(),
        stripped: SPACE,
        after: String::new(),
    }
}
