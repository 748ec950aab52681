//! What does the model read?
//!
//! Document first: header and chunk form a prefix that is byte-identical for every question and
//! answer of the chunk, the persona's task follows. The system text and the chat template are put
//! around both by the engine: `user message = document + task`, and every task starts with an
//! empty line, so that the two can be tokenised apart.

pub use crate::header::{TitleField, header};

use crate::normalize::normalize;
use crate::profile::{FewShot, Profile, QuestionMode};

/// Header and chunk as the model reads them: the prefix shared by all prompts of the chunk.
///
/// `chunk` is the text of the range as it is; it is normalised here. The profile has no say yet,
/// which is what keeps the prefix the same for both personas.
pub fn document(header: &str, chunk: &str, _profile: &Profile) -> String {
    let chunk = normalize(chunk);
    if header.is_empty() {
        chunk.into_owned()
    } else {
        format!("{header}\n\n{chunk}")
    }
}

/// A document that carries its header, as prompts show it: lines of the form `Label: value` up to
/// the first empty line stay lines, the rest is normalised. What [`document`] made is kept as it is.
///
/// ```
/// let text = "Case: A v. B\nCourt: X\n\nWe  affirm\nthe order.";
/// assert_eq!(casebook_qa::prompt::shown(text), "Case: A v. B\nCourt: X\n\nWe affirm the order.");
/// assert_eq!(casebook_qa::prompt::shown("We\naffirm.\n\nNo costs."), "We affirm.\n\nNo costs.");
/// ```
pub fn shown(document: &str) -> String {
    let plain = document.replace("\r\n", "\n");
    if let Some((header, text)) = plain.trim_start().split_once("\n\n") {
        let labelled = |line: &str| {
            line.split_once(": ")
                .is_some_and(|(label, _)| label.split(' ').count() <= 3)
        };
        let as_read = |line: &str| line.contains(": ") && line.trim() == line;
        if header.lines().all(as_read) && has_plain_layout(text) && plain == document {
            return document.to_owned();
        }
        if header.lines().all(labelled) {
            let lines: Vec<String> = header
                .lines()
                .map(|line| normalize(line).into_owned())
                .collect();
            return format!("{}\n\n{}", lines.join("\n"), normalize(text));
        }
    }
    normalize(document).into_owned()
}

/// True if normalising would change nothing but escapes, which are undone once only.
fn has_plain_layout(text: &str) -> bool {
    let unescaped = text.replace('&', "+");
    !text.is_empty() && normalize(&unescaped) == unescaped
}

/// The asker's task, starting with an empty line. `question_no` is 1-based; list mode asks for
/// all `of` questions at once.
pub fn ask_task(profile: &Profile, question_no: usize, of: usize) -> String {
    let mut task = String::from("\n\n");
    if !profile.few_shot.is_empty() {
        task.push_str("Questions of the kind that is wanted, about other documents:\n");
        for FewShot { question, .. } in &profile.few_shot {
            task.push_str("- ");
            task.push_str(question.trim());
            task.push('\n');
        }
        task.push('\n');
    }
    let of = of.to_string();
    match profile.question_mode {
        QuestionMode::List => task.push_str(&fill(&profile.ask_list, &[("of", &of)])),
        QuestionMode::Branch => {
            let turn = question_no.saturating_sub(1);
            let focus = match profile.focus.len() {
                0 => "",
                several => profile.focus[turn % several].as_str(),
            };
            let no = question_no.to_string();
            let values = [("focus", focus), ("question_no", &no), ("of", &of)];
            task.push_str(&fill(&profile.ask, &values));
        }
    }
    task
}

/// The answerer's task for one question, starting with an empty line.
pub fn answer_task(profile: &Profile, question: &str) -> String {
    let mut task = String::from("\n\n");
    if !profile.few_shot.is_empty() {
        task.push_str("Answers of the kind that is wanted, about other documents:\n");
        for FewShot { question, answer } in &profile.few_shot {
            task.push_str(&format!(
                "Question: {}\nAnswer: {}\n",
                question.trim(),
                answer.trim()
            ));
        }
        task.push('\n');
    }
    task.push_str(&fill(&profile.answer, &[("question", question.trim())]));
    task
}

/// Replaces `{name}` in one pass, so that braces inside a value stay text.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let found = values.iter().find_map(|(name, value)| {
            let after = rest
                .strip_prefix('{')?
                .strip_prefix(name)?
                .strip_prefix('}')?;
            Some((*value, after))
        });
        let (text, after) = found.unwrap_or_else(|| rest.split_at(1));
        out.push_str(text);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tiny() -> Profile {
        let card = "system = 'You are a paralegal who graduated from Harvard Law School.'\n\
                    ask = 'Ask a detailed question about this document.'\n\
                    answer = 'Answer this question about the document: {question}'";
        Profile::resolve("legal", &[("model casebook-tiny", card)]).unwrap()
    }

    #[test]
    fn the_form_the_tiny_model_was_trained_on() {
        let header = header(&[
            TitleField::new("name", "Monga v. Glover Landing"),
            TitleField::new(
                "COURT",
                "United States Court of Appeals for the First Circuit",
            ),
            TitleField::new("decision_date", "1993-03-01"),
            TitleField::new("citation", "No. 92-1478 (1st Cir. 1993)"),
            TitleField::new("judge", "  "),
        ]);
        let prefix = document(
            &header,
            "  The fee  award\nstands.\n \nSo &amp; on.",
            &tiny(),
        );
        assert_eq!(
            prefix,
            "Case: Monga v. Glover Landing\n\
             Court: United States Court of Appeals for the First Circuit\n\
             Date: 1993-03-01\n\
             Citation: No. 92-1478 (1st Cir. 1993)\n\
             \n\
             The fee award stands.\n\
             \n\
             So & on."
        );
        assert_eq!(
            ask_task(&tiny(), 1, 4),
            "\n\nAsk a detailed question about this document."
        );
        assert_eq!(
            answer_task(&tiny(), " Who {question} won?"),
            "\n\nAnswer this question about the document: Who {question} won?"
        );
        assert_eq!(document("", " a  b ", &tiny()), "a b");
    }

    proptest! {
        #[test]
        fn what_was_read_is_shown_as_it_is(
            values in proptest::collection::vec("[a-z&;:. \n]{0,20}", 1..4),
            chunk in "[ab&;:. \n\t\r]{0,60}",
            amp in "(&amp;){0,1}(amp;){0,2}",
        ) {
            let names = ["name", "a_name_of_many_words_in_a_row", "court"];
            let fields = names.iter().zip(&values);
            let fields: Vec<_> = fields.map(|(name, v)| TitleField::new(*name, v)).collect();
            let header = header(&fields);
            let text = format!("x{chunk}{amp}");
            let read = document(&header, &text, &tiny());
            // Without a header, the escape of an escape is undone a second time.
            if !header.is_empty() || !read.contains("&amp;") {
                prop_assert_eq!(shown(&read), read);
            }
        }
    }

    #[test]
    fn examples_follow_the_document() {
        let mut profile = tiny();
        profile.ask = "Question {question_no} of {of} about {focus}, {as is}.".into();
        profile.focus = vec!["dates".into(), "names".into()];
        profile.few_shot.push(FewShot {
            question: "Who won A v. B?".into(),
            answer: "A.".into(),
        });
        assert_eq!(
            ask_task(&profile, 3, 4),
            "\n\nQuestions of the kind that is wanted, about other documents:\n\
             - Who won A v. B?\n\nQuestion 3 of 4 about dates, {as is}."
        );
        assert_eq!(
            answer_task(&profile, "Why?"),
            "\n\nAnswers of the kind that is wanted, about other documents:\n\
             Question: Who won A v. B?\nAnswer: A.\n\n\
             Answer this question about the document: Why?"
        );
    }

    #[test]
    fn the_legal_prompts() {
        let legal = Profile::resolve("legal", &[]).unwrap();
        assert!(legal.system.starts_with(
            "You are a paralegal who graduated from Harvard Law School. You are given"
        ));
        let ask = ask_task(&legal, 2, 4);
        assert!(
            ask.starts_with("\n\nYou are the paralegal who writes the questions"),
            "{ask}"
        );
        assert!(
            ask.contains("about a fact of the dispute: what someone did, when, and to whom."),
            "{ask}"
        );
        let answer = answer_task(&legal, "Who won?");
        assert!(
            answer.ends_with("write exactly: Not in document.\n\nQuestion: Who won?"),
            "{answer}"
        );
        let mut list = legal;
        list.question_mode = QuestionMode::List;
        assert!(ask_task(&list, 1, 5).contains("Write 5 detailed, factual questions"));
    }
}
