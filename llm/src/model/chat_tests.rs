//! Are prompts those of transformers? The golden file is made by tests/python/templates.py.

use serde_json::Value;

use super::chat::{ChatOptions, ChatTemplate};
use super::frame::{Piece, fill};

#[test]
fn the_identity_changes_with_what_was_chosen_alone() {
    let none = ChatOptions::default();
    assert_eq!(none.identity("abc"), "abc");
    let date = |text| Some(ChatOptions::date(text).unwrap());
    let same = ChatOptions {
        prompt_date: date("2024-07-26"),
        ..none.clone()
    };
    assert_eq!(same.identity("abc"), "abc");
    let others = [
        ChatOptions {
            prompt_date: date("2026-11-28"),
            ..none.clone()
        },
        ChatOptions {
            enable_thinking: true,
            ..none.clone()
        },
        ChatOptions {
            stop: vec!["a".into(), "b".into()],
            ..none.clone()
        },
        ChatOptions {
            stop: vec!["ab".into()],
            ..none.clone()
        },
    ];
    let mut found: Vec<String> = others.iter().map(|o| o.identity("abc")).collect();
    found.extend(others.iter().map(|o| o.identity("abd")));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 8);
    assert!(found.iter().all(|id| id.len() == 32));
    for wrong in ["today", "2024-13-01", "26 Jul 2024", ""] {
        assert!(
            ChatOptions::date(wrong)
                .unwrap_err()
                .message
                .contains("2024-07-26")
        );
    }
}

#[test]
fn templates_strip_what_they_strip() {
    for (expression, text, expected) in [
        ("m.content", " \n a \n ", " \n a \n "),
        ("m.content | trim", " \n a \n ", "a"),
        ("m.content.strip()", "\u{1f} \n a \u{a0}", "a"),
        ("m.content.strip('\\n')", "\n a \n", " a "),
        ("m.content.rstrip()", " a \n", " a"),
        ("m.content.lstrip('\\n')", "\n\na \n", "a \n"),
    ] {
        for around in ["", "\\n", "\\n\\n", " \\n "] {
            let source = format!(
                "{{% for m in messages %}}<{{{{ '{around}' + {expression} + '{around}' }}}}>{{% endfor %}}"
            );
            strips(&source, text, expected, &around.replace("\\n", "\n"));
        }
    }
}

fn strips(source: &str, content: &str, expected: &str, around: &str) {
    let template = ChatTemplate::new("t", source, &Value::Null, &ChatOptions::default()).unwrap();
    let found = text(&fill(&template.frame(false, 1).unwrap(), None, &[content]));
    assert_eq!(
        found,
        ["<", around, expected, around, ">"].concat(),
        "{source}"
    );
}

fn text(pieces: &[Piece]) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Template(text) | Piece::Text(text) => text.clone(),
    };
    pieces.iter().map(text).collect()
}

#[test]
fn prompts_are_those_of_transformers() {
    let golden: Value =
        serde_json::from_str(include_str!("../../tests/golden/templates.json")).unwrap();
    let of = |key: &str| golden[key].as_str().unwrap();
    let (system, user, answer) = (of("system"), of("user"), of("answer"));
    let templates = golden["templates"].as_object().unwrap();
    assert!(templates.len() >= 40);
    let mut wrong = vec![];
    for (name, template) in templates {
        for (mode, expected) in template["expected"].as_object().unwrap() {
            let options = ChatOptions {
                enable_thinking: mode == "thinking",
                ..ChatOptions::default()
            };
            let source = template["source"].as_str().unwrap();
            let template = ChatTemplate::new(name, source, &golden["tokens"], &options).unwrap();
            let mut check = |what: &str, found: &str, expected: &Value| {
                if Some(found) != expected.as_str() {
                    wrong.push(format!("{name} {mode} {what}:\n  {found:?}\n  {expected}"));
                }
            };
            let one = |system: Option<&str>| {
                text(&fill(
                    &template.frame(system.is_some(), 1).unwrap(),
                    system,
                    &[user],
                ))
            };
            let question = one(None);
            check("question", &question, &expected["question"]);
            check("with system", &one(Some(system)), &expected["with_system"]);
            for (at, _) in user
                .char_indices()
                .filter(|(at, _)| (2..user.len() - 2).contains(at))
            {
                let parts = [&user[..at], &user[at..]];
                let frame = template.frame(true, 2).unwrap();
                let found = text(&fill(&frame, Some(system), &parts));
                check("in two parts", &found, &expected["with_system"]);
            }
            let conversation = expected["conversation"].as_str().unwrap();
            let reply = match template.reply() {
                Ok(reply) => reply,
                Err(_) => {
                    assert!(!conversation.contains(answer.trim()), "{name}");
                    continue;
                }
            };
            let own = reply.stripped.apply(answer);
            assert!(question.ends_with(&reply.prompt_end), "{name}");
            let end = [own, &reply.after].concat();
            let start = conversation.strip_suffix(&end).unwrap_or_default();
            if start.starts_with(&question) {
                let found = [&question, &reply.before, own, &reply.after].concat();
                check("conversation", &found, &expected["conversation"]);
            } else {
                assert!(
                    conversation.ends_with(&end),
                    "{name}: {conversation:?} {end:?}"
                );
                let closes = ["think-prompt", "r1"].contains(&name.as_str());
                assert_eq!(!reply.before.is_empty(), closes, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unusable_replies_are_refused() {
    let source = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new("t", source, &Value::Null, &ChatOptions::default()).unwrap();
    let error = template.reply().unwrap_err();
    assert!(
        error.message.contains("leaves out the assistant's reply"),
        "{error}"
    );
}
