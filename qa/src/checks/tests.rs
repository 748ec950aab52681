//! Golden cases: for each check, what it must catch and what it must leave alone.

use super::*;

const HEADER: &str = "Case: Monga v. Glover Landing\nCourt: United States Court of Appeals for the \
    First Circuit\nDate: 1993-03-01\nCitation: No. 92-1478 (1st Cir. 1993)";
const CHUNK: &str = "Per Curiam. The plaintiffs/appellants, Dharam and Shantee Monga, are attorneys \
    representing themselves pro se. They are appealing an order of the district court awarding the \
    defendants/appellees attorneys' fees and costs in the amount of $301,709.56. The fee award \
    arose from a multiple count complaint filed by the Mongas, in 1988, against the condominium \
    trust that manages the condominium complex where the Mongas are owner/occupants. When their \
    case was called for trial in February 1992, the district court denied their second request for \
    a continuance. The document was filed under 42 U.S.C. 1988. In this case the plaintiff did not \
    state a claim, and the record does not contain the contract. See Foley v. Lowell, 948 F.2d 10. We \
    affirm.";

fn question(text: &str, header: &str) -> Option<Reason> {
    let pair = Pair {
        question: text,
        header,
        chunk: CHUNK,
        ..Pair::default()
    };
    judge_question(&Checks::default(), &pair, &DocumentState::new())
}

fn answer(text: &str) -> Option<Reason> {
    let pair = Pair {
        question: "Why?",
        answer: text,
        header: HEADER,
        chunk: CHUNK,
        ..Pair::default()
    };
    judge_answer(&Checks::default(), &pair, &Source::new(HEADER, CHUNK)).reason
}

#[test]
fn questions_about_a_named_case() {
    let name = "Monga v. Glover Landing";
    for (text, want) in [
        (format!("What did the court hold in {name}?"), None),
        (format!("Which court decided {name}?"), None),
        (
            format!("In {name}, what fee award did the district court order?"),
            None,
        ),
        (
            "What did the Mongas appeal in Monga v. Glover Landing Trust?".into(),
            None,
        ),
        (
            "What did the Mongas appeal in Monga v. Glover?".into(),
            None,
        ),
        (
            format!("What document was filed under 42 U.S.C. 1988 in {name}?"),
            None,
        ),
        (
            format!("Why was the document filed under 42 U.S.C. 1988 in {name}?"),
            None,
        ),
        (
            format!("What does the text of the complaint allege in {name}?"),
            None,
        ),
        (format!("What did the opinion in {name} affirm?"), None),
        (format!("In the case of {name}, what was affirmed?"), None),
        ("What is the citation of Foley v. Lowell?".into(), None),
        (
            "What is the citation of Foley v. Lovell?".into(),
            Some(Reason::UnnamedDocument),
        ),
        (
            "What did the court affirm?".into(),
            Some(Reason::UnnamedDocument),
        ),
        (
            "What did Glover v. Monga decide?".into(),
            Some(Reason::UnnamedDocument),
        ),
        (
            "What did the court hold in Monga v. Monga?".into(),
            Some(Reason::UnnamedDocument),
        ),
        (
            "What did the court hold in Monga v. Glover Lanning?".into(),
            Some(Reason::Ungrounded),
        ),
        (
            format!("What does the document say about {name}?"),
            Some(Reason::LeansOnDocument),
        ),
        (
            format!("According to the text, what did {name} decide?"),
            Some(Reason::LeansOnDocument),
        ),
        (
            format!("What fee is mentioned above in {name}?"),
            Some(Reason::LeansOnDocument),
        ),
        (
            "What did the court decide in this case?".into(),
            Some(Reason::LeansOnDocument),
        ),
        (
            "According to the opinion, who won?".into(),
            Some(Reason::LeansOnDocument),
        ),
        (
            "What was the outcome of the case?".into(),
            Some(Reason::LeansOnDocument),
        ),
        (
            "What is the passage about?".into(),
            Some(Reason::LeansOnDocument),
        ),
        (
            "What does the provided excerpt describe?".into(),
            Some(Reason::LeansOnDocument),
        ),
        (
            format!("The court held in {name}"),
            Some(Reason::NotAQuestion),
        ),
        ("Monga?".into(), Some(Reason::NotAQuestion)),
        ("".into(), Some(Reason::NoQuestion)),
        (
            format!("Sure, what did the court hold in {name}?"),
            Some(Reason::Boilerplate),
        ),
        (
            format!("What did the {} in {name}?", "court hold in and ".repeat(6)),
            Some(Reason::Degenerate),
        ),
    ] {
        assert_eq!(question(&text, HEADER), want, "{text}");
    }
}

#[test]
fn questions_without_a_header() {
    for (text, want) in [
        ("Who are Dharam and Shantee Monga?", None),
        (
            "What happens in the case of a second request for a continuance?",
            None,
        ),
        (
            "What is the main idea of the document?",
            Some(Reason::LeansOnDocument),
        ),
        (
            "What does the author argue about fees?",
            Some(Reason::LeansOnDocument),
        ),
        (
            "How many counts does this section list?",
            Some(Reason::LeansOnDocument),
        ),
        (
            "In this case, what did the plaintiff fail to state?",
            Some(Reason::LeansOnDocument),
        ),
        (
            "What effect does the passage of time have on a fee award?",
            None,
        ),
    ] {
        assert_eq!(question(text, ""), want, "{text}");
    }
}

#[test]
fn answers() {
    for (text, want) in [
        ("The document was filed under 42 U.S.C. 1988.", None),
        ("In this case the plaintiff did not state a claim.", None),
        ("The record does not contain the contract.", None),
        (
            "Based on the record, the district court denied the continuance.",
            None,
        ),
        (
            "The plaintiffs are attorneys representing themselves pro se.",
            None,
        ),
        (
            "According to the district court, the Mongas filed a complaint in 1988.",
            None,
        ),
        ("$301,709.56", None),
        (
            "The Mongas sued the condominium trust that manages the complex.",
            None,
        ),
        (
            "Based solely on the reference material above, the fee was $301,709.56.",
            Some(Reason::Boilerplate),
        ),
        (
            "Based on the provided text, the Mongas filed it.",
            Some(Reason::Boilerplate),
        ),
        (
            "According to the document, the fee award was affirmed.",
            Some(Reason::Boilerplate),
        ),
        (
            "The text states that the fee award was affirmed.",
            Some(Reason::Boilerplate),
        ),
        (
            "Of course, the plaintiffs are attorneys representing themselves.",
            None,
        ),
        (
            "Of course! The fee award was affirmed.",
            Some(Reason::Boilerplate),
        ),
        (
            "Sure! The fee award was affirmed.",
            Some(Reason::Boilerplate),
        ),
        ("The answer is $301,709.56.", Some(Reason::Boilerplate)),
        ("Not in document.", Some(Reason::NotInDocument)),
        ("NOT_IN_DOCUMENT", Some(Reason::NotInDocument)),
        (
            "The opinion does not mention the contract.",
            Some(Reason::NotInDocument),
        ),
        (
            "This is not stated in the provided text.",
            Some(Reason::NotInDocument),
        ),
        (
            "I am not aware of a case named Monga v. Glover Landing.",
            Some(Reason::NotInDocument),
        ),
        ("I don't know.", Some(Reason::NotInDocument)),
        ("The fee award was $301,709.65.", Some(Reason::Ungrounded)),
        (
            "The order was appealed by Shantee Mongolia.",
            Some(Reason::Ungrounded),
        ),
        ("Lobsters enjoy swimming.", Some(Reason::Ungrounded)),
        (
            "the fee the fee the fee the fee the fee the fee the fee",
            Some(Reason::Degenerate),
        ),
        ("fee fee fee fee fee fee", Some(Reason::Degenerate)),
        (
            "........................................................a",
            Some(Reason::Degenerate),
        ),
        ("  ", Some(Reason::NoAnswer)),
        ("...", Some(Reason::NoAnswer)),
    ] {
        assert_eq!(answer(text), want, "{text}");
    }
}

#[test]
fn truncation_comes_before_the_rest_and_can_be_switched_off() {
    let pair = Pair {
        question: "What did the court hold in Monga v. Glover Landing?",
        answer: "The court affirmed the fee award of",
        answer_truncated: true,
        header: HEADER,
        chunk: CHUNK,
        ..Pair::default()
    };
    let mut checks = Checks::default();
    let verdict = judge(&checks, &pair, &mut DocumentState::new());
    assert_eq!(
        (verdict.status, verdict.reason),
        (Status::Rejected, Some(Reason::Truncated))
    );
    assert!(verdict.grounding.is_some_and(|share| share > 0.5));
    checks.truncated = false;
    assert!(judge(&checks, &pair, &mut DocumentState::new()).is_ok());
    let pair = Pair {
        question_truncated: true,
        ..pair
    };
    assert!(judge(&checks, &pair, &mut DocumentState::new()).is_ok());
}

#[test]
fn each_check_can_be_switched_off() {
    let off = Checks {
        truncated: false,
        not_a_question: false,
        leans_on_document: false,
        unnamed_document: false,
        boilerplate: false,
        duplicate: false,
        ungrounded: false,
        not_in_document: false,
        degenerate: false,
        ..Checks::default()
    };
    let mut state = DocumentState::new();
    for (question, answer) in [
        ("this document", "Sure! Not in document."),
        ("this document", "Zed 7"),
    ] {
        let pair = Pair {
            question,
            answer,
            header: HEADER,
            chunk: CHUNK,
            ..Pair::default()
        };
        assert!(judge(&off, &pair, &mut state).is_ok());
    }
}

#[test]
fn duplicates_are_per_document_and_outlive_the_chunk() {
    let checks = Checks::default();
    let mut state = DocumentState::new();
    let pair = Pair {
        question: "Which court decided Monga v. Glover Landing?",
        header: HEADER,
        chunk: CHUNK,
        ..Pair::default()
    };
    assert_eq!(judge_question(&checks, &pair, &state), None);
    assert_eq!(
        judge_question(&checks, &pair, &state),
        None,
        "looking remembers nothing"
    );
    assert_eq!(
        judge(&checks, &pair, &mut state).reason,
        Some(Reason::NoAnswer)
    );
    let later = Pair {
        chunk: "Another chunk.",
        ..pair
    };
    assert_eq!(
        judge_question(&checks, &later, &state),
        Some(Reason::Duplicate)
    );
    assert_eq!(judge_question(&checks, &later, &DocumentState::new()), None);
    let mut resumed = DocumentState::new();
    resumed.remember(pair.question, HEADER);
    assert_eq!(
        judge(&checks, &pair, &mut resumed).reason,
        Some(Reason::Duplicate)
    );
}

#[test]
fn reasons_are_snake_case_and_known() {
    for reason in Reason::ALL {
        assert!(
            reason
                .as_str()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_')
        );
    }
    assert_eq!(Reason::ALL.len(), 15);
    assert_eq!(Verdict::of(Reason::EmptyText).status.as_str(), "failed");
}

proptest::proptest! {
    #[test]
    fn nothing_panics(question in "\\PC{0,60}", answer in "\\PC{0,60}", chunk in "\\PC{0,80}") {
        let pair = Pair { question: &question, answer: &answer, header: "Case: A v. B", chunk: &chunk, ..Pair::default() };
        let verdict = judge(&Checks::default(), &pair, &mut DocumentState::new());
        proptest::prop_assert_eq!(verdict.is_ok(), verdict.reason.is_none());
        let answered = judge_answer(&Checks::default(), &pair, &Source::new("", &chunk));
        proptest::prop_assert!(answered.grounding.is_none_or(|share| (0.0..=1.0).contains(&share)));
    }
}
