//! When does a reply end, and what of it is the answer? The models here say one fixed reply.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use casebook_llm::engine::{DeviceChoice, Engine, EngineOptions, Finish, Request};
use casebook_llm::model::{ChatOptions, ModelSource};
use serde_json::{Value, json};

use crate::tiny_random;

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|turn|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{{ START }}{% endif %}";

/// A model that replies with these pieces, one token each, and then with the token `end`. It never
/// looks at its prompt but for the last token.
fn saying(pieces: &[&str], end: &str, start: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut tokenizer = tiny_random::byte_tokenizer();
    let letters: Vec<String> = (0..256u32)
        .map(|byte| {
            let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
            let letter = vocab.iter().find(|(_, id)| **id == json!(byte + 3));
            letter.unwrap().0.clone()
        })
        .collect();
    let spelled = |text: &str| -> String {
        text.bytes()
            .map(|b| letters[usize::from(b)].clone())
            .collect()
    };
    let mut chain = vec![];
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for (i, piece) in pieces.iter().enumerate() {
        // the same piece twice would be the same token: each gets an id of its own
        let id = 259 + i;
        assert!(
            vocab.insert(spelled(piece), json!(id)).is_none(),
            "{piece} is a token already"
        );
        chain.push(id);
    }
    let mut next = 259 + pieces.len();
    let mut ids = HashMap::from([("</s>", 1), ("<|end|>", 2)]);
    for control in ["<|system|>", "<|user|>", "<|assistant|>", "<|turn|>"] {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.push(
            json!({"id": next, "content": control, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}),
        );
        ids.insert(control, next);
        next += 1;
    }
    // the prompt's last token: of `start`, or the mark of the assistant
    let last = match start.bytes().last() {
        Some(byte) => usize::from(byte) + 3,
        None => ids["<|assistant|>"],
    };
    chain.insert(0, last);
    chain.push(ids[end]);
    let (vocab, hidden) = (next, next.next_multiple_of(64));
    let mut head = vec![0f32; vocab * hidden];
    for pair in chain.windows(2) {
        head[pair[1] * hidden + pair[0]] = 10.0;
    }
    // a turn that nothing ends goes on as a conversation would
    head[ids["<|user|>"] * hidden + ids[end]] = 10.0;
    let mut embedding = vec![0f32; vocab * hidden];
    for id in 0..vocab {
        embedding[id * hidden + id] = 1.0;
    }
    let cpu = Device::Cpu;
    let ones = || Tensor::ones(hidden, candle_core::DType::F32, &cpu).unwrap();
    let zeros = |a: usize, b: usize| Tensor::zeros((a, b), candle_core::DType::F32, &cpu).unwrap();
    let mut tensors = HashMap::new();
    let mut add = |name: &str, tensor: Tensor| tensors.insert(format!("{name}.weight"), tensor);
    add(
        "model.embed_tokens",
        Tensor::from_vec(embedding, (vocab, hidden), &cpu).unwrap(),
    );
    add(
        "lm_head",
        Tensor::from_vec(head, (vocab, hidden), &cpu).unwrap(),
    );
    add("model.norm", ones());
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        add(&format!("model.layers.0.{norm}"), ones());
    }
    for matrix in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        add(
            &format!("model.layers.0.self_attn.{matrix}"),
            zeros(hidden, hidden),
        );
    }
    for (matrix, a, b) in [
        ("gate_proj", 64, hidden),
        ("up_proj", 64, hidden),
        ("down_proj", hidden, 64),
    ] {
        add(&format!("model.layers.0.mlp.{matrix}"), zeros(a, b));
    }
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": hidden / 32, "head_dim": 32,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 1024, "eos_token_id": 1
    });
    tiny_random::write(directory.path(), &config, &tensors);
    let write = |name: &str, value: &Value| {
        std::fs::write(directory.path().join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer);
    let template = TEMPLATE.replace("{{ START }}", &start.replace('\n', "{{ '\\n' }}"));
    write(
        "tokenizer_config.json",
        &json!({"eos_token": "</s>", "chat_template": template}),
    );
    directory
}

async fn reply(
    directory: &tempfile::TempDir,
    stop: &[&str],
    chat: ChatOptions,
    most: usize,
) -> (String, Finish) {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        chat,
        ..EngineOptions::default()
    };
    let source = ModelSource::Directory(directory.path().into());
    let engine = Engine::load(&source, options).unwrap();
    let request = Request {
        max_new_tokens: most,
        stop: stop.iter().map(|stop| (*stop).to_string()).collect(),
        ..Request::default()
    };
    let reply = engine.session().chat(None, "Q?", &request).await.unwrap();
    (reply.text, reply.finish)
}

async fn check(pieces: &[&str], start: &str, stop: &[&str], expected: &str, finish: Finish) {
    let directory = saying(pieces, "</s>", start);
    let found = reply(&directory, stop, ChatOptions::default(), 64).await;
    assert_eq!(found, (expected.to_string(), finish), "{pieces:?}");
}

#[tokio::test]
async fn a_listed_token_and_the_template_s_own_end_replies() {
    for end in ["</s>", "<|turn|>"] {
        let directory = saying(&["In", " 19", "98."], end, "");
        let found = reply(&directory, &[], ChatOptions::default(), 64).await;
        assert_eq!(found, ("In 1998.".to_string(), Finish::Stop), "{end}");
    }
    // what neither lists nor template name does not
    let directory = saying(&["In", " 19", "98."], "<|end|>", "");
    let found = reply(&directory, &[], ChatOptions::default(), 8).await;
    assert_eq!(found.1, Finish::Length);
}

#[tokio::test]
async fn stop_texts_of_model_and_request_end_replies() {
    let pieces = ["One. ", "Tw", "o.\n#", "## Us", "er: Th", "ree."];
    check(&pieces, "", &["### User:"], "One. Two.\n", Finish::Stop).await;
    check(&pieces, "", &["Th", "o.\n"], "One. Tw", Finish::Stop).await;
    let directory = saying(&pieces, "</s>", "");
    let chat = ChatOptions {
        stop: vec!["er:".into()],
        ..ChatOptions::default()
    };
    let found = reply(&directory, &[], chat.clone(), 64).await;
    assert_eq!(found, ("One. Two.\n### Us".to_string(), Finish::Stop));
    let found = reply(&directory, &["Two"], chat, 64).await;
    assert_eq!(found, ("One. ".to_string(), Finish::Stop));
}

#[tokio::test]
async fn thinking_is_no_part_of_a_reply() {
    let block = [
        "<think>",
        "\nIn 2004? ",
        "No.\n",
        "</think>",
        "\n\nIn",
        " 1998.",
    ];
    check(&block, "", &[], "In 1998.", Finish::Stop).await;
    check(&block[1..], "<think>\n", &[], "In 1998.", Finish::Stop).await;
    // a model that was not told to think closes what it never opened
    check(&block[1..], "", &[], "In 1998.", Finish::Stop).await;
    // stop texts are for answers
    check(&block, "", &["No.", "199"], "In ", Finish::Stop).await;
    check(&block[1..], "<think>\n", &["No."], "In 1998.", Finish::Stop).await;
    // thinking without an answer is cut short, however it ended
    check(&block[..3], "", &[], "", Finish::Length).await;
    check(&block[1..3], "<think>\n", &[], "", Finish::Length).await;
    check(&block[..4], "", &[], "", Finish::Length).await;
    let directory = saying(&block, "</s>", "");
    let found = reply(&directory, &[], ChatOptions::default(), 3).await;
    assert_eq!(found, (String::new(), Finish::Length));
}

#[tokio::test]
async fn what_was_chosen_is_part_of_the_identity() {
    let directory = saying(&["In"], "</s>", "");
    let digest = |chat: ChatOptions| {
        let options = EngineOptions {
            device: DeviceChoice::Cpu,
            chat,
            ..EngineOptions::default()
        };
        let source = ModelSource::Directory(directory.path().into());
        Engine::load(&source, options)
            .unwrap()
            .info()
            .digest
            .clone()
    };
    let plain = digest(ChatOptions::default());
    let source = ModelSource::Directory(directory.path().into());
    assert_eq!(plain, source.open().unwrap().digest().unwrap());
    let thinking = ChatOptions {
        enable_thinking: true,
        ..ChatOptions::default()
    };
    assert_ne!(digest(thinking), plain);
}
