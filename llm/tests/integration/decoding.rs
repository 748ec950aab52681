//! Is the text of a growing reply that of the reference decoder?

use std::path::Path;

use casebook_llm::model::{DecoderConfig, ModelSource, Prompter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::tiny_random;

/// SentencePiece's layout: words with U+2581 for blanks, bytes as `<0xXX>`, a blank before every
/// text. Ids: `<unk>`, `<s>`, `</s>`, 256 bytes, words.
const WORDS: [&str; 12] = [
    "\u{2581}",
    "a",
    "b",
    "\u{2581}a",
    "\u{2581}the",
    "\u{fffd}",
    ".",
    "\u{2581}\u{2581}",
    "e",
    "é",
    "T",
    "h",
];

fn sentencepiece(dropout: Value) -> Value {
    let mut vocab = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.into(), json!(vocab.len()));
    }
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for word in WORDS {
        vocab.insert(word.into(), json!(vocab.len()));
    }
    let control = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [control(0, "<unk>"), control(1, "<s>"), control(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": dropout, "unk_token": "<unk>",
                  "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                  "byte_fallback": true, "vocab": vocab, "merges": [["\u{2581}", "a"]]}
    })
}

fn prompter(directory: &Path, tokenizer: &Value) -> Prompter {
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let files = ModelSource::Directory(directory.into()).open().unwrap();
    let mut config = DecoderConfig::parse("m", &files.require("config.json").unwrap()).unwrap();
    config.vocab_size = 1000;
    Prompter::load(&files, &config).unwrap()
}

/// What the library makes of all ids at once, and what came piece by piece.
fn both(prompter: &Prompter, reference: &Tokenizer, ids: &[u32]) -> (String, String) {
    let mut stream = prompter.tokenizer().stream();
    let mut pieces: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push_str(&stream.finish().unwrap());
    (reference.decode(ids, true).unwrap(), pieces)
}

fn loaded(tokenizer: &Value) -> (tempfile::TempDir, Prompter, Tokenizer) {
    let directory = tiny_random::chat_directory();
    let prompter = prompter(directory.path(), tokenizer);
    let reference: Tokenizer = tokenizer.to_string().parse().unwrap();
    (directory, prompter, reference)
}

#[test]
fn any_tokens_give_the_reference_decoder_s_text() {
    for (tokenizer, count) in [
        (sentencepiece(Value::Null), 259 + WORDS.len() as u32),
        (tiny_random::byte_tokenizer(), 259),
    ] {
        let (_directory, prompter, reference) = loaded(&tokenizer);
        // letters and their bytes are likelier than any id, so that characters become whole
        let letters: Vec<u32> = "né €🙂\n\u{fffd}"
            .bytes()
            .map(|byte| u32::from(byte) + 3)
            .collect();
        let one = prop_oneof![3 => prop::sample::select(letters), 1 => 0..count, 2 => 259..count.max(260)];
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner
            .run(&prop::collection::vec(one, 0..24), |ids| {
                let (whole, pieces) = both(&prompter, &reference, &ids);
                prop_assert_eq!(pieces, whole.clone());
                prop_assert_eq!(prompter.tokenizer().decode(&ids).unwrap(), whole);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn bytes_that_are_no_text_lose_nothing_after_them() {
    let (_directory, prompter, reference) = loaded(&sentencepiece(Value::Null));
    let byte = |byte: u32| byte + 3;
    let word = |word: &str| 259 + WORDS.iter().position(|w| *w == word).unwrap() as u32;
    for (ids, expected) in [
        (
            vec![
                word("\u{2581}the"),
                byte(0xe2),
                word("\u{2581}a"),
                word("."),
            ],
            "the\u{fffd} a.",
        ),
        (vec![byte(0x0a), byte(0xe2), word("a")], "\u{fffd}\u{fffd}a"),
        (vec![byte(0x0a), byte(0x41), word("a")], "\nAa"),
        (
            vec![word("\u{fffd}"), word("a"), word("\u{fffd}")],
            "\u{fffd}a\u{fffd}",
        ),
        (vec![word("a"), byte(0xe2), byte(0x82)], "a\u{fffd}\u{fffd}"),
        (vec![byte(0xe2), 2, byte(0x82), byte(0xac), word("b")], "€b"),
        (vec![word("\u{2581}\u{2581}"), word("a")], " a"),
    ] {
        let (whole, pieces) = both(&prompter, &reference, &ids);
        assert_eq!(whole, expected);
        assert_eq!(pieces, expected);
    }
}

/// A document is tokenised as it is within the whole prompt: no blank is put before its first word,
/// and what a tokenizer joins over a border is joined.
#[test]
fn prompts_in_parts_are_tokenised_as_a_whole() {
    let templates = [
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} [/{{ m.role }}]\n{% endfor %}[a]",
        "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}<s>a\n",
        "{% for m in messages %}{{ m.content | trim }}</s>{% endfor %}",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
    ];
    let metaspace = |scheme: &str| {
        let mut tokenizer = sentencepiece(Value::Null);
        tokenizer["normalizer"] = Value::Null;
        tokenizer["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}",
            "prepend_scheme": scheme, "split": false});
        tokenizer
    };
    let mut joining = tiny_random::byte_tokenizer();
    // ".\n\n" is one token, as for Llama 3, and so is "D." and a blank with what follows
    for (first, second) in [
        (".", "\u{10a}"),
        (".\u{10a}", "\u{10a}"),
        ("D", "."),
        ("\u{120}", "D"),
    ] {
        let vocab = joining["model"]["vocab"].as_object_mut().unwrap();
        vocab.insert(format!("{first}{second}"), json!(vocab.len()));
        joining["model"]["merges"]
            .as_array_mut()
            .unwrap()
            .push(json!([first, second]));
    }
    joining["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": false});
    for tokenizer in [
        sentencepiece(Value::Null),
        metaspace("first"),
        metaspace("always"),
        metaspace("never"),
        joining,
    ] {
        for template in templates {
            let directory = tiny_random::chat_directory();
            std::fs::write(directory.path().join("chat_template.jinja"), template).unwrap();
            let prompter = prompter(directory.path(), &tokenizer);
            let reference: Tokenizer = tokenizer.to_string().parse().unwrap();
            for document in ["D.", "the a.", " D", "\n\nD.", "a\n", "é€", "D"] {
                for task in ["\n\nthe a?", "\n\na. ", " a", "a"] {
                    let prompt = prompter.document(Some("the D."), document).unwrap();
                    let tail = prompter.tail(&prompt, task).unwrap();
                    let found = [&prompt.head[..], &prompt.document, &tail].concat();
                    let parts = prompter
                        .template()
                        .split(Some("the D."), document, task)
                        .unwrap();
                    let text = |pieces: &[casebook_llm::model::Piece]| -> String {
                        let text = |piece: &casebook_llm::model::Piece| match piece {
                            casebook_llm::model::Piece::Template(text)
                            | casebook_llm::model::Piece::Text(text) => text.clone(),
                        };
                        pieces.iter().map(text).collect()
                    };
                    let whole = [text(&parts.head), parts.document, text(&parts.tail)].concat();
                    let wanted = reference.encode_fast(whole.as_str(), false).unwrap();
                    // every task of ours begins with an empty line; another may be joined to what
                    // is shared, and is then tokenised by itself
                    if task.starts_with("\n\n") {
                        assert_eq!(found, wanted.get_ids(), "{template} {document:?} {task:?}");
                    } else {
                        let decode = |ids: &[u32]| reference.decode(ids, false).unwrap();
                        let plain = |text: String| text.replace(' ', "");
                        assert_eq!(plain(decode(&found)), plain(decode(wanted.get_ids())));
                    }
                }
            }
            // a reply continues its prompt
            let mut whole = prompter.question(None, "the a?").unwrap();
            whole.extend(prompter.reply("the D.").unwrap());
            let text = reference.decode(&whole, true).unwrap();
            assert!(!text.contains("  "), "{template}: {text:?}");
        }
    }
}

#[test]
fn merges_are_not_left_to_chance() {
    let (_directory, with, _) = loaded(&sentencepiece(json!(0.9)));
    let (_directory, without, _) = loaded(&sentencepiece(Value::Null));
    let text = " a a a a a a a a a a a a";
    let expected = without.tokenizer().encode_text(text).unwrap();
    for _ in 0..20 {
        assert_eq!(with.tokenizer().encode_text(text).unwrap(), expected);
    }
}

#[test]
fn what_a_vocabulary_lacks_is_unknown_and_not_left_out() {
    let mut tokenizer = sentencepiece(Value::Null);
    tokenizer["model"]["byte_fallback"] = json!(false);
    tokenizer["model"]["fuse_unk"] = json!(false);
    let (_directory, prompter, reference) = loaded(&tokenizer);
    let tokenizer = prompter.tokenizer();
    let ids = tokenizer.encode_text("a€a").unwrap();
    assert_eq!(ids, reference.encode_fast("a€a", false).unwrap().get_ids());
    assert!(ids.contains(&0));
    // and the letters of its name are letters
    let name = tokenizer.encode_text("<unk>").unwrap();
    assert!(name.len() > 1, "{name:?}");
}

/// A vocabulary can hold a control token as an ordinary piece: its letters stay letters.
#[test]
fn control_tokens_among_the_pieces_are_cut() {
    let mut tokenizer = sentencepiece(Value::Null);
    for piece in ["</", "</s"] {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocab.insert(piece.into(), json!(vocab.len()));
    }
    for letter in ["<", "/", "s", ">"] {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocab.insert(letter.into(), json!(vocab.len()));
    }
    let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
    merges.extend([json!(["<", "/"]), json!(["</", "s"]), json!(["</s", ">"])]);
    let (_directory, prompter, _) = loaded(&tokenizer);
    let tokenizer = prompter.tokenizer();
    let ids = tokenizer.encode_text("a</s>b").unwrap();
    assert!(!ids.contains(&2), "{ids:?}");
    let text = tokenizer.decode(&ids).unwrap().replace(' ', "");
    assert_eq!(text, "a</s>b");
}
