//! Where may a text be cut?
//!
//! Walks a text once and yields pieces (usually sentences) with the strength of the edge that
//! follows each. Written for opinions: "v.", "No.", "F.2d" and initials end no sentence, and in
//! double-spaced pages an empty line in the middle of a sentence is not taken for a paragraph.

/// No piece is longer than this, so that the work per piece is bounded whatever the text is.
const MAX_PIECE_BYTES: usize = 4096;

/// How good a place to cut is, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge {
    /// Between words, or inside one that is too long.
    Word,
    /// An empty line after text that does not end a sentence: headings, captions.
    Line,
    /// After a sentence.
    Sentence,
    /// After a sentence that an empty line follows; the end of the text.
    Paragraph,
}

/// A byte range without outer whitespace, and the edge after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) edge: Edge,
}

/// Iterator over the pieces of a text.
pub(crate) struct Pieces<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    fn piece(&mut self, start: usize, end: usize, edge: Edge) -> Option<Piece> {
        self.position = end;
        Some(Piece { start, end, edge })
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let text = self.text;
        let start = self.position + leading_space(&text[self.position..]);
        let mut at = start;
        let mut last_word_end = None;
        while let Some(c) = text[at..].chars().next() {
            if c.is_whitespace() {
                let space = leading_space(&text[at..]);
                let after = at + space;
                let Some(next) = text[after..].chars().next() else {
                    return self.piece(start, at, Edge::Paragraph);
                };
                if newlines(&text[at..after]) >= 2 && !next.is_lowercase() {
                    return self.piece(start, at, Edge::Line);
                }
                if after - start > MAX_PIECE_BYTES {
                    return self.piece(start, at, Edge::Word);
                }
                last_word_end = Some(at);
                at = after;
                continue;
            }
            if let Some(end) = sentence_end(text, start, at, c) {
                let space = leading_space(&text[end..]);
                let last = end + space == text.len();
                let edge = if last || newlines(&text[end..end + space]) >= 2 {
                    Edge::Paragraph
                } else {
                    Edge::Sentence
                };
                return self.piece(start, end, edge);
            }
            if at - start >= MAX_PIECE_BYTES {
                return self.piece(start, last_word_end.unwrap_or(at), Edge::Word);
            }
            at += c.len_utf8();
        }
        if at > start {
            self.piece(start, at, Edge::Paragraph)
        } else {
            None
        }
    }
}

fn leading_space(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn newlines(space: &str) -> usize {
    space.bytes().filter(|b| matches!(b, b'\n' | 0x0c)).count()
}

/// The end of the sentence whose closing mark `c` stands at `at`, if it is one.
fn sentence_end(text: &str, start: usize, at: usize, c: char) -> Option<usize> {
    let mut end = at + c.len_utf8();
    if matches!(c, '\u{3002}' | '\u{ff01}' | '\u{ff1f}') {
        return Some(end);
    }
    if !matches!(c, '.' | '?' | '!') {
        return None;
    }
    let closing = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '\u{201d}' | '\u{2019}' | '*');
    end += text[end..]
        .chars()
        .take_while(|c| closing(*c))
        .map(char::len_utf8)
        .sum::<usize>();
    let before = text[start..at]
        .rsplit(char::is_whitespace)
        .next()
        .unwrap_or_default();
    let word = before.trim_start_matches(['(', '[', '"', '\'', '\u{201c}', '\u{2018}']);
    let plain_word =
        word.chars().count() >= 3 && word.chars().all(char::is_lowercase) && !is_abbreviation(word);
    if plain_word || before.ends_with([')', '"', '\u{201d}']) {
        // a footnote mark: "the complaint.3 The court"
        let mark = text[end..].bytes().take_while(u8::is_ascii_digit).count();
        if mark <= 2 && text[end + mark..].starts_with(char::is_whitespace) {
            end += mark;
        }
    }
    let after = &text[end..];
    let Some(next) = after.trim_start().chars().next() else {
        return Some(end);
    };
    if !after.starts_with(char::is_whitespace) || next.is_lowercase() {
        return None;
    }
    if c != '.' {
        return Some(end);
    }
    let opens_sentence = before.len() == at - start;
    let is_item_number = opens_sentence && word.len() <= 4 && is_numeral(word);
    if word.is_empty() || is_item_number || is_abbreviation(word) {
        return None;
    }
    (!next.is_numeric() || plain_word).then_some(end)
}

fn is_numeral(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_digit()) || word.chars().all(|c| "IVXLC".contains(c))
}

/// Whether `word` (without its last period) is usually followed by one that ends no sentence:
/// initials, words with inner periods, clipped words ("Ass'n") and the list below.
pub(crate) fn is_abbreviation(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    let letters = word.chars().count();
    if letters == 1 {
        return word.chars().all(char::is_alphabetic);
    }
    if word.contains('.') {
        return word.split('.').all(|part| part.chars().count() <= 3);
    }
    let clipped = word.contains(['\'', '\u{2019}']) && !word.ends_with('s');
    (clipped && word.starts_with(char::is_uppercase)) || ABBREVIATIONS.contains(&word)
}

/// Case matters: "Me." is Maine, "me." ends a sentence.
const ABBREVIATIONS: &[&str] = &[
    "v", "vs", "No", "Nos", "no", "nos", "Inc", "Corp", "Co", "Cos", "Ltd", "Mr", "Mrs", "Ms",
    "Dr", "Jr", "Sr", "St", "Ste", "Fed", "Cir", "Supp", "App", "Ct", "Cl", "cl", "Art", "art",
    "Arts", "Rev", "Stat", "Gen", "Ann", "Id", "id", "Ibid", "ibid", "Cf", "cf", "al", "seq",
    "Sec", "sec", "Secs", "secs", "Para", "para", "pp", "Ch", "ch", "Dept", "Const", "const",
    "Evid", "Proc", "Crim", "Civ", "Bankr", "Cong", "Sess", "Rep", "Reg", "Regs", "Hon", "Prof",
    "Gov", "Sen", "Capt", "Sgt", "Lt", "Col", "Maj", "Det", "Atty", "Bros", "Mfg", "Univ", "Auth",
    "Am", "So", "Ry", "Ed", "ed", "Educ", "Elec", "Indus", "Ins", "Labs", "Mem", "Mun", "Natl",
    "Prods", "Pub", "Rels", "Serv", "Servs", "Sys", "Tel", "Transp", "Twp", "Util", "Utils", "Ave",
    "Blvd", "Rd", "approx", "ca", "cert", "rel", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug",
    "Sept", "Sep", "Oct", "Nov", "Dec", "Ala", "Ariz", "Ark", "Cal", "Colo", "Conn", "Del", "Fla",
    "Ga", "Ill", "Ind", "Kan", "Ky", "La", "Mass", "Md", "Me", "Mich", "Minn", "Miss", "Mo",
    "Mont", "Neb", "Nev", "Okla", "Or", "Ore", "Pa", "Tenn", "Tex", "Va", "Vt", "Wash", "Wis",
    "Wyo", "See", "Ex", "Exh", "Doc", "Tr", "Vol", "vol", "Int", "Comm", "Assn", "Exch", "Sup",
    "Super", "Dist", "Div", "Cty", "Rptr", "Op", "slip", "op", "Fn", "fn", "nn", "Admin", "Mgmt",
    "Hosp",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[&str]) {
        let got: Vec<&str> = Pieces::new(text).map(|p| &text[p.start..p.end]).collect();
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn sentences_of_opinions() {
        check("", &[]);
        check("  \n ", &[]);
        check(
            "We affirm. The rest follows.",
            &["We affirm.", "The rest follows."],
        );
        check(
            "In Brown v. Board, 347 U.S. 483 (1954), it held so. See Doe v. Roe, No. 92-1478, \
             23 F.2d 394. We agree.",
            &[
                "In Brown v. Board, 347 U.S. 483 (1954), it held so.",
                "See Doe v. Roe, No. 92-1478, 23 F.2d 394.",
                "We agree.",
            ],
        );
        check(
            "Philip C. Curtis and Jr. Ropes won. Mr. Monga (Mrs. Monga too) lost.",
            &[
                "Philip C. Curtis and Jr. Ropes won.",
                "Mr. Monga (Mrs. Monga too) lost.",
            ],
        );
        check(
            "He said \"never.\" The court agreed!  Why? It did.",
            &["He said \"never.\"", "The court agreed!", "Why?", "It did."],
        );
        check(
            "the complaint.3 The court",
            &["the complaint.3", "The court"],
        );
        check(
            "It was 1988. Then came 1989.",
            &["It was 1988.", "Then came 1989."],
        );
        check(
            "1. The Board erred. II. Background",
            &["1. The Board erred.", "II. Background"],
        );
        check(
            "The Ass'n. Board met. At 8 U.S.C. 1158 it",
            &["The Ass'n. Board met.", "At 8 U.S.C. 1158 it"],
        );
        check(
            "\u{4e00}\u{3002}\u{4e8c}\u{3002}",
            &["\u{4e00}\u{3002}", "\u{4e8c}\u{3002}"],
        );
    }

    #[test]
    fn double_spaced_pages_keep_their_sentences() {
        let text = "We dismissed  their\n\nappeal from that\n\norder. \n\n     The fee stands.";
        let pieces: Vec<Piece> = Pieces::new(text).collect();
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert_eq!(pieces[0].edge, Edge::Paragraph);
        let caption: Vec<Edge> = Pieces::new("FIRST CIRCUIT\n\nNo. 92-1478")
            .map(|p| p.edge)
            .collect();
        assert_eq!(caption, [Edge::Line, Edge::Paragraph]);
    }

    #[test]
    fn pieces_are_bounded() {
        for text in [
            "x".repeat(50_000),
            "word ".repeat(20_000),
            "\u{4e00}".repeat(20_000),
        ] {
            for piece in Pieces::new(&text) {
                assert!(piece.end - piece.start <= MAX_PIECE_BYTES + 4);
                assert!(text.is_char_boundary(piece.start) && text.is_char_boundary(piece.end));
            }
        }
    }
}
