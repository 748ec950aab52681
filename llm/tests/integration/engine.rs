//! Does the engine share, batch, stop, cancel and refuse as it says?

use candle_core::Device;
use casebook_llm::ErrorKind;
use casebook_llm::engine::{
    Counters, DeviceChoice, Engine, EngineOptions, Finish, Request, Sampling,
};
use casebook_llm::model::{Decoder, ModelSource};
use tokio::task::JoinSet;

use crate::tiny_random;

const SYSTEM: Option<&str> = Some("You read closely.");

fn source(directory: &tempfile::TempDir) -> ModelSource {
    ModelSource::Directory(directory.path().to_path_buf())
}

fn engine_with(directory: &tempfile::TempDir, change: fn(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    change(&mut options);
    Engine::load(&source(directory), options).unwrap()
}

fn engine() -> (tempfile::TempDir, Engine) {
    let directory = tiny_random::chat_directory();
    let engine = engine_with(&directory, |_| {});
    (directory, engine)
}

fn request(max_new_tokens: usize) -> Request {
    Request {
        max_new_tokens,
        ..Default::default()
    }
}

fn document(i: usize) -> String {
    format!(
        "Case {i}. The court held {} for the plaintiff, {} dollars.\n",
        i * 7,
        i * 1913
    )
    .repeat(1 + i % 4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_prefix_is_prefilled_once() {
    let (_directory, engine) = engine();
    let session = engine.session();
    let (mut tokens, mut suffixes, mut head) = (0, 0, 0);
    let mut tasks = JoinSet::new();
    for i in 0..5 {
        let prefix = session.prefix(SYSTEM, &document(i)).unwrap();
        tokens += prefix.document_tokens();
        head = prefix.tokens() - prefix.document_tokens();
        for branch in 0..4 {
            let prefix = prefix.clone();
            let task = format!("Question {branch}?");
            let tail = format!("{task}<|end|>\n[assistant]\n");
            suffixes += engine.tokenizer().encode_template(&tail).unwrap().len();
            tasks.spawn(async move { prefix.generate(&task, request(9)).await.unwrap() });
        }
    }
    let completions = tasks.join_all().await;
    let counters = session.counters();
    assert_eq!(counters.system_tokens, head as u64);
    assert_eq!(counters.chunk_tokens, tokens as u64);
    assert_eq!(counters.suffix_tokens, suffixes as u64);
    assert_eq!(counters.prefill_tokens, (head + tokens + suffixes) as u64);
    assert_eq!(
        counters.prompt_tokens,
        (20 * head + 4 * tokens + suffixes) as u64
    );
    assert_eq!(
        counters.shared_prefix_tokens,
        counters.prompt_tokens - counters.prefill_tokens
    );
    assert_eq!(counters.branches, 20);
    let prompts: usize = completions.iter().map(|c| c.prompt_tokens).sum();
    assert_eq!(counters.prompt_tokens, prompts as u64);
    let replies: usize = completions.iter().map(|c| c.output_tokens).sum();
    let ended = completions.iter().filter(|c| c.output_tokens < 9).count();
    assert_eq!(counters.decode_tokens, (replies + ended) as u64);

    // another session counts for itself
    assert_eq!(engine.session().counters(), Counters::default());
}

#[tokio::test]
async fn greedy_equals_the_plain_loop() {
    let (directory, engine) = engine();
    let decoder =
        Decoder::load(&source(&directory), &Device::Cpu, casebook_llm::DType::F32).unwrap();
    let prefix = engine.session().prefix(SYSTEM, &document(3)).unwrap();
    let found = prefix
        .generate("What was held?", request(40))
        .await
        .unwrap();

    let prompt = format!(
        "<s>[system]\nYou read closely.<|end|>\n[user]\n{}What was held?<|end|>\n[assistant]\n",
        document(3)
    );
    let mut ids = engine.tokenizer().encode_template(&prompt).unwrap();
    let start = ids.len();
    assert_eq!(found.prompt_tokens, start);
    while ids.len() < start + 40 {
        let logits = decoder.score(std::slice::from_ref(&ids)).unwrap().remove(0);
        let last = logits.get(ids.len() - 1).unwrap();
        let next = last.argmax(0).unwrap().to_scalar::<u32>().unwrap();
        if engine.tokenizer().eos().contains(&next) {
            break;
        }
        ids.push(next);
    }
    let wanted = engine.tokenizer().decode(&ids[start..]).unwrap();
    assert_eq!(found.output_tokens, ids.len() - start);
    assert_eq!(
        found.text,
        wanted.trim_end_matches(char::REPLACEMENT_CHARACTER)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn company_does_not_change_a_reply() {
    let (_directory, engine) = engine();
    for temperature in [0.0, 0.8] {
        let sampling = Sampling {
            temperature,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
        };
        let ask = move |seed| Request {
            sampling,
            seed,
            max_new_tokens: 60,
            stop: vec![],
        };
        let session = engine.session();
        let alone = session.prefix(SYSTEM, &document(2)).unwrap();
        let alone = alone.generate("Who won?", ask(5)).await.unwrap();
        let mut tasks = JoinSet::new();
        for i in 0..20 {
            let prefix = session.prefix(SYSTEM, &document(i)).unwrap();
            tasks.spawn(async move {
                (
                    i,
                    prefix
                        .generate("Who won?", ask(if i == 2 { 5 } else { 99 }))
                        .await
                        .unwrap(),
                )
            });
        }
        let together = tasks.join_all().await;
        let among = together.into_iter().find(|(i, _)| *i == 2).unwrap().1;
        assert_eq!(among, alone, "temperature {temperature}");
    }
}

#[tokio::test]
async fn stop_texts_end_replies_anywhere() {
    let (_directory, engine) = engine();
    let prefix = engine.session().prefix(None, &document(1)).unwrap();
    let mut free = None;
    for seed in 0..20 {
        let sampling = Sampling {
            temperature: 1.0,
            ..Default::default()
        };
        let request = Request {
            sampling,
            seed,
            ..request(80)
        };
        let reply = prefix.generate("Go on.", request.clone()).await.unwrap();
        if reply.text.chars().count() > 12 {
            free = Some((reply, request));
            break;
        }
    }
    let (free, request) = free.expect("the random model says too little");
    let letters: Vec<(usize, char)> = free.text.char_indices().collect();
    assert!(
        letters.len() > 12,
        "the random model said too little: {:?}",
        free.text
    );
    let stop: String = letters[8..11].iter().map(|(_, letter)| letter).collect();
    let first = free.text.find(&stop).unwrap();
    let request = Request {
        stop: vec!["not there".into(), stop],
        ..request
    };
    let stopped = prefix.generate("Go on.", request).await.unwrap();
    assert_eq!(stopped.text, free.text[..first]);
    assert_eq!(stopped.finish, Finish::Stop);
    assert!(stopped.output_tokens < free.output_tokens);
}

/// Waits until the engine keeps nothing; fails if that never comes.
async fn wait_until_empty(engine: &Engine) {
    let start = std::time::Instant::now();
    while engine.cached_tokens() > 0 {
        assert!(
            start.elapsed().as_secs() < 60,
            "{} tokens are kept",
            engine.cached_tokens()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_future_frees_its_cache() {
    let (_directory, engine) = engine();
    let session = engine.session();
    let prefix = session.prefix(SYSTEM, &document(3)).unwrap();
    let shared = prefix.tokens();
    prefix.generate("First.", request(3)).await.unwrap();
    let long = tokio::spawn({
        let prefix = prefix.clone();
        async move { prefix.generate("Long.", request(700)).await }
    });
    while engine.cached_tokens() <= shared {
        tokio::task::yield_now().await;
    }
    long.abort();
    assert!(long.await.is_err());
    drop(prefix);
    drop(session);
    wait_until_empty(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tight_cache_finishes_everything() {
    let directory = tiny_random::chat_directory();
    let engine = engine_with(&directory, |options| {
        options.max_cached_tokens = Some(420);
        options.max_rows = Some(3);
        options.max_step_tokens = Some(16);
    });
    let session = engine.session();
    let mut tasks = JoinSet::new();
    for i in 0..12 {
        let prefix = session.prefix(SYSTEM, &document(i)).unwrap();
        tasks.spawn(async move {
            // the second pass needs the prefix after others wanted its room
            let first = prefix.generate("Ask.", request(5)).await.unwrap();
            let second = prefix.generate("Answer.", request(8)).await.unwrap();
            (first.output_tokens, second.output_tokens)
        });
    }
    assert_eq!(tasks.join_all().await.len(), 12);
    let counters = session.counters();
    assert_eq!(
        counters.prefill_tokens,
        counters.system_tokens + counters.chunk_tokens + counters.suffix_tokens
    );
    assert_eq!(counters.branches, 24);
}

#[tokio::test]
async fn what_cannot_fit_is_an_error() {
    let directory = tiny_random::chat_directory();
    let engine = engine_with(&directory, |options| options.max_cached_tokens = Some(100));
    let session = engine.session();
    let prefix = session.prefix(SYSTEM, &document(3)).unwrap();
    let error = prefix.generate("Ask.", request(5)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert!(
        error.message.contains("max_cached_tokens is 100"),
        "{error}"
    );
    // and the engine goes on
    session.chat(None, "Hi", &request(2)).await.unwrap();

    let error = session.prefix(SYSTEM, &"word ".repeat(300)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert!(error.message.contains("too_long"), "{error}");
    let error = session
        .chat(None, &"word ".repeat(300), &request(2))
        .await
        .unwrap_err();
    assert!(error.message.contains("too_long"), "{error}");
    let bad = Request {
        max_new_tokens: 0,
        ..Default::default()
    };
    assert_eq!(
        session.chat(None, "Hi", &bad).await.unwrap_err().kind,
        ErrorKind::InvalidInput
    );
}

#[tokio::test]
async fn a_reply_ends_where_the_context_ends() {
    let (_directory, engine) = engine();
    let prefix = engine.session().prefix(None, &"a".repeat(930)).unwrap();
    for seed in 0..20 {
        let sampling = Sampling {
            temperature: 1.0,
            ..Default::default()
        };
        let request = Request {
            sampling,
            seed,
            max_new_tokens: 5000,
            stop: vec![],
        };
        let reply = prefix.generate("b", request).await.unwrap();
        let all = reply.prompt_tokens + reply.output_tokens;
        assert!(
            all == 1024 || (reply.finish == Finish::Stop && all < 1024),
            "{all} tokens"
        );
    }
}

#[tokio::test]
async fn chat_is_the_users_message_alone() {
    let (_directory, engine) = engine();
    let session = engine.session();
    let reply = session.chat(None, "Who won?", &request(4)).await.unwrap();
    let wanted = engine
        .tokenizer()
        .encode_template("<s>[user]\nWho won?<|end|>\n[assistant]\n");
    assert_eq!(reply.prompt_tokens, wanted.unwrap().len());
    assert_eq!(session.counters().suffix_tokens, reply.prompt_tokens as u64);
}

#[test]
fn info_says_what_was_loaded() {
    let directory = tiny_random::chat_directory();
    std::fs::write(
        directory.path().join("casebook-profile.toml"),
        "name = \"x\"",
    )
    .unwrap();
    let engine = engine_with(&directory, |_| {});
    let info = engine.info();
    assert_eq!(info.context_tokens, 1024);
    assert_eq!(
        (info.dtype.as_str(), info.device.as_str()),
        ("float32", "cpu")
    );
    assert_eq!(info.weight_bytes, 4 * info.parameters);
    assert_eq!(info.profile_overlay.as_deref(), Some("name = \"x\""));
    assert_eq!(info.digest.len(), 32);
    let other = tiny_random::chat_directory();
    let config = std::fs::read(other.path().join("config.json")).unwrap();
    let config = serde_json::from_slice(&config).unwrap();
    tiny_random::write(other.path(), &config, &tiny_random::tensors(&config, 2));
    assert_ne!(engine_with(&other, |_| {}).info().digest, info.digest);
    assert_eq!(engine_with(&directory, |_| {}).info().digest, info.digest);
}
