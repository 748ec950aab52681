//! Does the document support what was written?
//!
//! Lexical: the share of an answer's numbers, names and content words found in header and chunk.
//! A number or a name that is found nowhere halves the score, which puts it below the default
//! threshold however many other words match.

use std::collections::HashSet;

use super::words::{Kind, Token, is_generic_name, is_stopword, stem, tokens};

const NUMBER_WEIGHT: f32 = 4.0;
const NAME_WEIGHT: f32 = 3.0;
/// What is left of the score when a number or name is found nowhere.
const INVENTED: f32 = 0.5;

/// Share (0 to 1) of the answer's numbers (weight 4), names (3) and content words (1) found in
/// `document`, halved if a number or name occurs neither there nor in the question. Words of the
/// question that the document lacks count neither way. 1 for an answer without any such word.
///
/// ```
/// use casebook_qa::checks::grounding;
/// let document = "We affirm the award of $301,709.56 to the trust.";
/// assert!(grounding("The court affirmed the award of $301,709.56.", "", document) > 0.7);
/// assert!(grounding("The court affirmed the award of $310,709.56.", "", document) < 0.5);
/// ```
pub fn grounding(answer: &str, question: &str, document: &str) -> f32 {
    Source::new("", document).grounding(answer, question)
}

/// The words of a document, ready to be looked up.
#[derive(Debug)]
pub(super) struct Source {
    header: String,
    chunk: String,
    keys: HashSet<String>,
    stems: HashSet<String>,
    /// First letters of capitalised words, run by run, for "INS".
    initials: String,
}

impl Source {
    pub(super) fn new(header: &str, chunk: &str) -> Self {
        let mut source = Self {
            header: header.to_owned(),
            chunk: chunk.to_owned(),
            keys: HashSet::new(),
            stems: HashSet::new(),
            initials: String::new(),
        };
        for text in [header, chunk] {
            source.add(&tokens(&crate::normalize::normalize(text)));
        }
        source
    }

    pub(super) fn is_of(&self, header: &str, chunk: &str) -> bool {
        self.header == header && self.chunk == chunk
    }

    fn add(&mut self, tokens: &[Token]) {
        self.initials.push('.');
        for (at, token) in tokens.iter().enumerate() {
            match token.text.chars().next() {
                Some(first) if first.is_uppercase() => self.initials.push(first),
                _ if is_stopword(&token.key) => {}
                _ => self.initials.push('.'),
            }
            self.keys.insert(token.key.clone());
            self.stems.insert(stem(&token.key));
            for part in token.key.split('\'') {
                self.keys.insert(part.to_owned());
            }
            let same_number = NUMBER_WORDS.iter().find_map(|(word, digits)| {
                let (word, digits) = (*word, *digits);
                if token.key == word {
                    Some(digits)
                } else {
                    (token.key == digits).then_some(word)
                }
            });
            self.keys.extend(same_number.map(str::to_owned));
            // an ISO date, 1993-03-01, also names its month
            if let [year, month, day] = &tokens[at..tokens.len().min(at + 3)] {
                let lengths = [year, month, day].map(|t| (t.kind, t.text.len()));
                if lengths == [(Kind::Number, 4), (Kind::Number, 2), (Kind::Number, 2)] {
                    let no = month.key.parse::<usize>().unwrap_or(0);
                    self.keys
                        .extend(MONTHS.get(no.wrapping_sub(1)).map(|m| (*m).to_owned()));
                }
            }
        }
    }

    fn has(&self, token: &Token) -> bool {
        if self.keys.contains(&token.key) {
            return true;
        }
        if token.kind == Kind::Number {
            return false;
        }
        let letters = token.text.chars().count();
        let acronym = (2..=6).contains(&letters) && token.text.chars().all(char::is_uppercase);
        self.stems.contains(&stem(&token.key)) || (acronym && self.initials.contains(&token.text))
    }

    pub(super) fn grounding(&self, answer: &str, question: &str) -> f32 {
        let asked = tokens(question);
        let asked: HashSet<&str> = asked.iter().map(|token| token.key.as_str()).collect();
        let (mut found, mut all, mut invented) = (0.0, 0.0, false);
        for token in &tokens(answer) {
            let weight = match token.kind {
                Kind::Number => NUMBER_WEIGHT,
                Kind::Name if !is_generic_name(&token.key) => NAME_WEIGHT,
                _ if is_stopword(&token.key) || token.key.chars().count() == 1 => continue,
                _ => 1.0,
            };
            let has = self.has(token);
            if !has && asked.contains(token.key.as_str()) {
                continue;
            }
            all += weight;
            if has {
                found += weight;
            } else if weight > 1.0 {
                invented = true;
            }
        }
        let share = if all == 0.0 { 1.0 } else { found / all };
        if invented { share * INVENTED } else { share }
    }

    /// Whether every name and number of a question occurs in the document: a small model garbles
    /// long names.
    pub(super) fn supports_question(&self, question: &str) -> bool {
        let tokens = tokens(question);
        let capitals = tokens
            .iter()
            .filter(|t| t.text.starts_with(char::is_uppercase))
            .count();
        let headline = tokens.len() > 4 && capitals * 5 >= tokens.len() * 4;
        tokens.iter().all(|token| match token.kind {
            Kind::Number => self.has(token),
            Kind::Name => headline || is_generic_name(&token.key) || self.has(token),
            Kind::Word => true,
        })
    }
}

const NUMBER_WORDS: &[(&str, &str)] = &[
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("first", "1"),
    ("second", "2"),
    ("third", "3"),
    ("fourth", "4"),
    ("fifth", "5"),
    ("sixth", "6"),
    ("seventh", "7"),
    ("eighth", "8"),
    ("ninth", "9"),
    ("tenth", "10"),
    ("eleventh", "11"),
];

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Case: Monga v. Glover Landing\nCourt: United States Court of Appeals for \
        the First Circuit\nDate: 1993-03-01\nCitation: No. 92-1478 (1st Cir. 1993)";
    const CHUNK: &str = "Dharam and Shantee Monga are appealing an order of the district court \
        awarding the defendants attorneys' fees and costs in the amount of $301,709.56. The fee \
        award arose from a complaint filed in 1988. Pro-se petitioner appealed to the Immigration \
        and Naturalization Service. We affirm the two orders.";

    fn score(answer: &str) -> f32 {
        let question = "What did the court decide in Monga v. Glover Landing?";
        Source::new(HEADER, CHUNK).grounding(answer, question)
    }

    #[test]
    fn supported_answers_pass() {
        for answer in [
            "Monga v. Glover Landing was decided by the United States Court of Appeals for the First Circuit.",
            "Monga v. Glover Landing is cited as No. 92-1478 (1st Cir. 1993).",
            "Monga v. Glover Landing was decided on 1993-03-01.",
            "It was decided on March 1, 1993.",
            "The First Circuit affirmed an award of $301,709.56 in attorneys' fees.",
            "Shantee Monga appealed the district court's order awarding fees.",
            "The INS was the respondent before the court on appeal, and 2 orders were affirmed.",
            "Yes.",
        ] {
            assert!(score(answer) >= 0.5, "{} {answer}", score(answer));
        }
    }

    #[test]
    fn one_invented_number_or_name_is_enough() {
        for answer in [
            "Monga v. Glover Landing was decided by the United States Court of Appeals for the Ninth Circuit.",
            "The court affirmed an award of $301,790.56 in attorneys' fees and costs to the defendants.",
            "Monga v. Glover Landing was decided on 1993-04-01.",
            "The order awarding attorneys' fees and costs was appealed by Shantee Mongolia.",
            "The complaint was filed in 1989.",
            "They enjoy seafood while traveling abroad.",
        ] {
            assert!(score(answer) < 0.5, "{} {answer}", score(answer));
        }
    }

    #[test]
    fn garbled_names_in_questions() {
        let source = Source::new(HEADER, CHUNK);
        for question in [
            "What did the court hold in Monga v. Glover Landing?",
            "Which Court decided Monga v. Glover Landing?",
            "What did Dharam Monga's appeal challenge in Monga v. Glover Landing?",
            "What amount of attorneys' fees, $301,709.56 or less, was awarded?",
            "What Was The Holding In Monga v. Glover Landing?",
        ] {
            assert!(source.supports_question(question), "{question}");
        }
        for question in [
            "What did the court hold in Monga v. Glover Lanning?",
            "What did the court hold in Mongo v. Glover Landing?",
            "Mongra v. Glover Landing was decided by which court?",
            "What happened on March 5, 1993 in Monga v. Glover Landing?",
        ] {
            assert!(!source.supports_question(question), "{question}");
        }
    }
}
