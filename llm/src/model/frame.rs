//! A prompt as a frame: what a template wrote, and where text from outside goes.

/// What a template strips from one side of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strip {
    /// Nothing.
    #[default]
    Nothing,
    /// Newlines.
    Newlines,
    /// All white space.
    Space,
}

/// What a template strips from a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stripped {
    /// At its start.
    pub start: Strip,
    /// At its end.
    pub end: Strip,
}

impl Stripped {
    /// `text` as the template would write it.
    pub fn apply<'a>(&self, text: &'a str) -> &'a str {
        // Python's white space; Rust's has no separators
        let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        let text = match self.start {
            Strip::Nothing => text,
            Strip::Newlines => text.trim_start_matches('\n'),
            Strip::Space => text.trim_start_matches(space),
        };
        match self.end {
            Strip::Nothing => text,
            Strip::Newlines => text.trim_end_matches('\n'),
            Strip::Space => text.trim_end_matches(space),
        }
    }
}

/// A prompt cut into what the template wrote and where text goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// Text of the template; control tokens in it count.
    Template(String),
    /// The system text goes here.
    System(Stripped),
    /// Part `i` of the user's message goes here.
    Part(usize, Stripped),
}

/// What stands around a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyFrame {
    /// The end of the prompt, after the user's message.
    pub prompt_end: String,
    /// What the template writes between the prompt and the reply.
    pub before: String,
    /// What the template strips from the reply.
    pub stripped: Stripped,
    /// What the template writes after the reply: usually the token that ends it.
    pub after: String,
}

/// A prompt with a document in three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptParts {
    /// Everything before the document: the same for all documents.
    pub head: Vec<Piece>,
    /// The document.
    pub document: String,
    /// The task, the template's end and the start of the reply.
    pub tail: Vec<Piece>,
}

/// Text with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// From the template; control tokens in it count.
    Template(String),
    /// From outside; control tokens in it are letters.
    Text(String),
}

/// Where in a frame the document, or the only part, goes.
pub(super) fn document_at(frame: &[Slot]) -> usize {
    let at = frame
        .iter()
        .position(|slot| matches!(slot, Slot::Part(0, _)));
    at.unwrap_or(0)
}

/// Puts text into slots.
pub(super) fn fill(slots: &[Slot], system: Option<&str>, parts: &[&str]) -> Vec<Piece> {
    let piece = |slot: &Slot| match slot {
        Slot::Template(text) => Piece::Template(text.clone()),
        Slot::System(stripped) => {
            Piece::Text(stripped.apply(system.unwrap_or_default()).to_string())
        }
        Slot::Part(i, stripped) => {
            let part = parts.get(*i).copied().unwrap_or_default();
            Piece::Text(stripped.apply(part).to_string())
        }
    };
    slots.iter().map(piece).collect()
}
