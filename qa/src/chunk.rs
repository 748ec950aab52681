//! How is a document cut into chunks that fit the prompt?
//!
//! Chunks end at paragraphs, else sentences, else lines, else words. They are made one at a time:
//! the work for one chunk depends on the budget, never on the length of the text. What a token is
//! comes from the caller, so that this crate knows no tokenizer.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::normalize::normalize;
use crate::sentence::{Edge, Piece, Pieces};

/// Counts tokens the way the model at hand does.
pub trait TokenCounter {
    /// Tokens of `text` alone, without special tokens.
    fn count(&self, text: &str) -> usize;
}

impl<F: Fn(&str) -> usize> TokenCounter for F {
    fn count(&self, text: &str) -> usize {
        self(text)
    }
}

/// How to cut. A profile checks the numbers; here a budget of 0 counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Most tokens of a chunk, as it appears in the prompt.
    pub max_tokens: usize,
    /// A chunk repeats at most this many tokens of whole sentences from the end of the one before.
    pub overlap_tokens: usize,
    /// Count the normalised text (what prompts show) instead of the text as it is.
    pub normalize: bool,
}

/// One chunk: a byte range of the original text, without outer whitespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// 0-based within the document.
    pub no: i32,
    /// First byte in the original text.
    pub start: usize,
    /// Byte after the last one.
    pub end: usize,
}

impl Chunk {
    /// The chunk as prompts show it.
    pub fn rendered<'a>(&self, text: &'a str) -> Cow<'a, str> {
        normalize(text.get(self.start..self.end).unwrap_or_default())
    }
}

/// The chunks of `text`, in order, lazily.
///
/// Every byte that is not whitespace is in a chunk; every range lies on character boundaries; no
/// chunk has more than `max_tokens` (unless a single character has). A rest under a fifth of the
/// budget is avoided by cutting the chunk before it earlier.
///
/// ```
/// use casebook_qa::chunk::{ChunkOptions, chunks};
/// let words = |text: &str| text.split_whitespace().count();
/// let options = ChunkOptions { max_tokens: 4, overlap_tokens: 0, normalize: true };
/// let text = "We affirm it. The fee award stands. So ordered.";
/// let cut: Vec<&str> = chunks(text, &words, &options).map(|c| &text[c.start..c.end]).collect();
/// assert_eq!(cut, ["We affirm it.", "The fee award stands.", "So ordered."]);
/// ```
pub fn chunks<'a>(
    text: &'a str,
    counter: &'a dyn TokenCounter,
    options: &ChunkOptions,
) -> impl Iterator<Item = Chunk> + use<'a> {
    Chunks {
        text,
        counter,
        options: ChunkOptions {
            max_tokens: options.max_tokens.max(1),
            ..*options
        },
        pieces: Pieces::new(text),
        split: VecDeque::new(),
        window: VecDeque::new(),
        repeated: 0,
        after: Edge::Paragraph,
        no: 0,
    }
}

/// A share of the budget below which a rest is not worth a chunk of its own.
const SMALL_REST: f64 = 0.2;
/// A paragraph edge is preferred to a later sentence edge from this fill on.
const PARAGRAPH_FILL: f64 = 0.6;
/// Any better edge is preferred to a later worse one from this fill on.
const EDGE_FILL: f64 = 0.25;

#[derive(Debug, Clone, Copy)]
struct Counted {
    start: usize,
    end: usize,
    edge: Edge,
    /// The edge before it.
    before: Edge,
    tokens: usize,
}

struct Chunks<'a> {
    text: &'a str,
    counter: &'a dyn TokenCounter,
    options: ChunkOptions,
    pieces: Pieces<'a>,
    /// Parts of a sentence that is longer than the budget.
    split: VecDeque<(Piece, usize)>,
    /// Pieces of the chunk being made and a little beyond.
    window: VecDeque<Counted>,
    /// How many pieces at the front of the window the last chunk had already.
    repeated: usize,
    after: Edge,
    no: i32,
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let exhausted = self.fill();
        if self.window.len() <= self.repeated {
            return None;
        }
        let fit = self.fitting();
        let cut = if exhausted && fit == self.window.len() {
            fit
        } else {
            self.cut(fit, exhausted)
        };
        let chunk = Chunk {
            no: self.no,
            start: self.window[0].start,
            end: self.window[cut - 1].end,
        };
        self.no = self.no.saturating_add(1);
        let keep_from = self.overlap_start(cut);
        self.window.drain(..keep_from);
        self.repeated = cut - keep_from;
        Some(chunk)
    }
}

impl Chunks<'_> {
    fn tokens(&self, start: usize, end: usize) -> usize {
        let part = &self.text[start..end];
        if self.options.normalize {
            self.counter.count(&normalize(part))
        } else {
            self.counter.count(part)
        }
    }

    /// Reads pieces until the window holds a budget and a small rest; true at the end of the text.
    fn fill(&mut self) -> bool {
        let enough = self.options.max_tokens + self.share(SMALL_REST);
        let mut total: usize = self.window.iter().map(|piece| piece.tokens).sum();
        while total <= enough {
            let Some((piece, tokens)) = self.pull() else {
                return true;
            };
            let Piece { start, end, edge } = piece;
            self.window.push_back(Counted {
                start,
                end,
                edge,
                before: self.after,
                tokens,
            });
            self.after = edge;
            total += tokens;
        }
        false
    }

    fn pull(&mut self) -> Option<(Piece, usize)> {
        if let Some(part) = self.split.pop_front() {
            return Some(part);
        }
        let piece = self.pieces.next()?;
        let tokens = self.tokens(piece.start, piece.end);
        if tokens <= self.options.max_tokens {
            return Some((piece, tokens));
        }
        self.split_at_words(piece);
        self.split.pop_front()
    }

    /// Queues the parts of a piece that is longer than the budget.
    fn split_at_words(&mut self, piece: Piece) {
        let target = (self.options.max_tokens / 8).max(1);
        let mut parts: Vec<(Piece, usize)> = Vec::new();
        let mut group: Vec<(usize, usize, usize)> = Vec::new();
        let base = piece.start;
        let words = self.text[piece.start..piece.end]
            .split_whitespace()
            .map(|word| {
                let start = base + (word.as_ptr() as usize - self.text[base..].as_ptr() as usize);
                (start, start + word.len())
            });
        for (start, end) in words {
            let tokens = self.tokens(start, end);
            let held: usize = group.iter().map(|word| word.2).sum();
            if held + tokens > target {
                self.flush(&mut group, &mut parts);
            }
            if tokens > self.options.max_tokens {
                self.split_word(start, end, &mut parts);
            } else {
                group.push((start, end, tokens));
            }
        }
        self.flush(&mut group, &mut parts);
        if let Some((last, _)) = parts.last_mut() {
            last.edge = piece.edge;
        }
        self.split.extend(parts);
    }

    fn flush(&self, group: &mut Vec<(usize, usize, usize)>, parts: &mut Vec<(Piece, usize)>) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return;
        };
        let (start, end, edge) = (first.0, last.1, Edge::Word);
        let tokens = self.tokens(start, end);
        if tokens <= self.options.max_tokens {
            parts.push((Piece { start, end, edge }, tokens));
        } else {
            parts.extend(
                group
                    .iter()
                    .map(|&(start, end, tokens)| (Piece { start, end, edge }, tokens)),
            );
        }
        group.clear();
    }

    /// Halves a word until each part fits or is one character.
    fn split_word(&self, start: usize, end: usize, parts: &mut Vec<(Piece, usize)>) {
        let tokens = self.tokens(start, end);
        let mut middle = start + (end - start) / 2;
        while !self.text.is_char_boundary(middle) {
            middle -= 1;
        }
        if middle == start {
            middle += self.text[start..end]
                .chars()
                .next()
                .map_or(0, char::len_utf8);
        }
        if tokens <= self.options.max_tokens || middle >= end {
            parts.push((
                Piece {
                    start,
                    end,
                    edge: Edge::Word,
                },
                tokens,
            ));
        } else {
            self.split_word(start, middle, parts);
            self.split_word(middle, end, parts);
        }
    }

    /// How many pieces of the window fit the budget together; always one new piece at least, for
    /// which repeated ones are given up.
    fn fitting(&mut self) -> usize {
        loop {
            let mut total = 0;
            let mut fit = self
                .window
                .iter()
                .take_while(|piece| {
                    total += piece.tokens;
                    total <= self.options.max_tokens
                })
                .count();
            while fit > self.repeated.max(1)
                && self.tokens(self.window[0].start, self.window[fit - 1].end)
                    > self.options.max_tokens
            {
                fit -= 1;
            }
            let alone = self.repeated == 0;
            if fit > self.repeated || alone {
                return fit.max(1);
            }
            self.window.pop_front();
            self.repeated -= 1;
        }
    }

    /// The best place to end the chunk among the pieces that fit.
    fn cut(&self, fit: usize, exhausted: bool) -> usize {
        let first = self.repeated + 1;
        let filled: Vec<usize> = self
            .window
            .iter()
            .scan(0, |total, piece| {
                *total += piece.tokens;
                Some(*total)
            })
            .collect();
        let all = filled.last().copied().unwrap_or(0);
        let rest_is_small =
            |cut: usize| exhausted && all - filled[cut - 1] < self.share(SMALL_REST);
        let last = (first..=fit)
            .rev()
            .find(|cut| !rest_is_small(*cut))
            .unwrap_or(fit);
        let best = |edge: Edge, fill: f64| {
            (first..=last)
                .rev()
                .take_while(|cut| filled[cut - 1] >= self.share(fill))
                .find(|cut| self.window[cut - 1].edge >= edge)
        };
        best(Edge::Paragraph, PARAGRAPH_FILL)
            .or_else(|| best(Edge::Sentence, EDGE_FILL))
            .or_else(|| best(Edge::Line, EDGE_FILL))
            .unwrap_or(last)
    }

    /// The first piece of the chunk that the next one repeats; `cut` when none.
    fn overlap_start(&self, cut: usize) -> usize {
        let (mut tokens, mut from) = (0, cut);
        for index in (1..cut).rev() {
            tokens += self.window[index].tokens;
            let range = (self.window[index].start, self.window[cut - 1].end);
            if tokens > self.options.overlap_tokens {
                break;
            }
            if self.window[index].before >= Edge::Sentence
                && self.tokens(range.0, range.1) <= self.options.overlap_tokens
            {
                from = index;
            }
        }
        from
    }

    fn share(&self, share: f64) -> usize {
        (self.options.max_tokens as f64 * share) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    /// Something like a byte-level BPE: every started run of four bytes of a word is a token, and
    /// so is an empty line.
    fn quads(text: &str) -> usize {
        text.matches("\n\n").count()
            + text
                .split_whitespace()
                .map(|word| word.len().div_ceil(4))
                .sum::<usize>()
    }

    fn cut(text: &str, max_tokens: usize, overlap_tokens: usize) -> Vec<&str> {
        let options = ChunkOptions {
            max_tokens,
            overlap_tokens,
            normalize: true,
        };
        chunks(text, &words, &options)
            .map(|c| &text[c.start..c.end])
            .collect()
    }

    #[test]
    fn paragraphs_before_sentences_before_words() {
        assert_eq!(cut("", 5, 0), [""; 0]);
        assert_eq!(cut(" \n\n ", 5, 0), [""; 0]);
        assert_eq!(cut("One two three.", 5, 0), ["One two three."]);
        assert_eq!(
            cut(
                "One two. Three four.\n\nFive six. Seven eight. Nine ten eleven.",
                6,
                0
            ),
            [
                "One two. Three four.",
                "Five six. Seven eight.",
                "Nine ten eleven."
            ]
        );
        assert_eq!(
            cut("one two three four five six seven eight nine ten", 4, 0),
            ["one two three four", "five six seven eight", "nine ten"]
        );
    }

    #[test]
    fn overlap_is_whole_sentences() {
        assert_eq!(
            cut("Aa bb cc. Dd ee. Ff gg hh. Ii jj. Kk ll mm. Nn oo.", 8, 3),
            [
                "Aa bb cc. Dd ee. Ff gg hh.",
                "Ff gg hh. Ii jj. Kk ll mm.",
                "Kk ll mm. Nn oo."
            ]
        );
    }

    #[test]
    fn long_words_are_cut_at_characters() {
        let text = "\u{e9}".repeat(100);
        let options = ChunkOptions {
            max_tokens: 8,
            overlap_tokens: 2,
            normalize: true,
        };
        let cut: Vec<Chunk> = chunks(&text, &quads, &options).collect();
        assert!(cut.iter().all(|c| quads(&text[c.start..c.end]) <= 8));
        assert_eq!(
            cut.iter().map(|c| c.end - c.start).sum::<usize>(),
            text.len()
        );
    }

    #[test]
    fn a_small_rest_is_avoided() {
        let text = "A b c d e. F g h i j. K l m n o. P q r s t. U v.";
        let cut = cut(text, 20, 0);
        assert!(words(cut[cut.len() - 1]) >= 4, "{cut:?}");
    }

    #[test]
    fn work_per_chunk_is_bounded() {
        let text = "The court held that the award stands, as it must. ".repeat(100_000);
        let counted = std::cell::Cell::new(0usize);
        let counter = |part: &str| {
            counted.set(counted.get() + part.len());
            quads(part)
        };
        let options = ChunkOptions {
            max_tokens: 400,
            overlap_tokens: 40,
            normalize: true,
        };
        let first: Vec<Chunk> = chunks(&text, &counter, &options).take(3).collect();
        assert_eq!(first.len(), 3);
        assert!(
            counted.get() < 40_000,
            "{} bytes counted for three chunks",
            counted.get()
        );
    }

    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            8 => "[a-z]{1,9}".prop_map(|w| w + " "),
            3 => "[A-Z][a-z]{1,7}\\. ",
            1 => Just("v. ".to_owned()),
            1 => Just("\n\n  ".to_owned()),
            1 => Just(" \u{c}\n".to_owned()),
            1 => Just("&amp; ".to_owned()),
            1 => "[\u{e9}\u{4e00}\u{3002}\u{1f600}x]{1,40}",
            1 => "[?!.\"') ]{1,4}",
        ];
        proptest::collection::vec(part, 0..120).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn chunks_keep_their_promises(
            text in text(), max_tokens in 4usize..60, overlap in 0usize..20, normal: bool,
        ) {
            let options = ChunkOptions { max_tokens, overlap_tokens: overlap, normalize: normal };
            let mut covered = 0;
            let mut last_start = None;
            for (no, chunk) in chunks(&text, &quads, &options).enumerate() {
                prop_assert_eq!(chunk.no as usize, no);
                let part = text.get(chunk.start..chunk.end);
                prop_assert!(part.is_some(), "not on character boundaries");
                let part = part.unwrap();
                prop_assert_eq!(part.trim(), part);
                prop_assert!(!part.is_empty());
                let shown = if normal { normalize(part).into_owned() } else { part.to_owned() };
                prop_assert!(quads(&shown) <= max_tokens, "{} tokens", quads(&shown));
                prop_assert!(chunk.end > covered, "no progress");
                if let Some(last) = last_start {
                    prop_assert!(chunk.start > last, "order");
                }
                if chunk.start >= covered {
                    prop_assert!(text[covered..chunk.start].trim().is_empty(), "a gap");
                } else {
                    let again = &text[chunk.start..covered];
                    let again = if normal { normalize(again).into_owned() } else { again.into() };
                    prop_assert!(quads(&again) <= overlap);
                }
                covered = chunk.end;
                last_start = Some(chunk.start);
            }
            prop_assert!(text[covered..].trim().is_empty(), "the end is missing");
        }
    }
}
