//! Every option of a LORA table and every key of a profile has an effect: with another value, training
//! leaves something else behind, or rows are other ones, or it is refused. That a run stores its options
//! does not count. Of a profile the digest counts, which is part of `qa_id`: what each check does is
//! tested in the qa crate.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use casebook::config::Config;
use casebook::new_session;
use casebook_llm::lora::SETTINGS;
use casebook_qa::profile::{KEYS, Profile};

use crate::run;

/// Examples, some with a document, of different lengths.
const EXAMPLES: &str = "INSERT INTO tuned (question, answer, document) VALUES \
    ('How long was the sentence of Doe in Doe v. Baker?', '37 months', NULL), \
    ('Who filed a complaint against Acme?', 'Roe', 'Case: Roe v. Acme. Roe filed a complaint.'), \
    ('When was the complaint in Roe v. Acme filed?', 'On May 3, 1992', NULL), \
    ('What did the court of appeals affirm?', 'The judgment of the district court', \
     'Case: Roe v. Acme. We affirm the judgment of the district court.'), \
    ('What was Doe convicted of?', 'Mail fraud', NULL), \
    ('Which court sat?', 'The First Circuit', NULL)";

/// With these every other setting makes a difference.
const BASE: &[(&str, &str)] = &[
    ("rank", "2"),
    ("alpha", "4"),
    ("epochs", "2"),
    ("batch_tokens", "64"),
    ("learning_rate", "0.01"),
    ("warmup_share", "0.3"),
    ("max_grad_norm", "0.01"),
    ("weight_decay", "0.1"),
    ("with_document_share", "1"),
    ("question_noise", "0.2"),
    ("question_shuffle", "0.2"),
    ("checkpoint_steps", "0"),
];

/// Another value of each option.
const OTHERS: &[(&str, &str)] = &[
    ("model", "other"),
    ("profile", "own"),
    ("mode", "new"),
    ("rank", "3"),
    ("alpha", "8"),
    ("use_rslora", "true"),
    ("target_modules", "q_proj,v_proj"),
    ("epochs", "1"),
    ("max_steps", "2"),
    ("learning_rate", "0.02"),
    ("warmup_share", "0.9"),
    ("schedule", "constant"),
    ("min_learning_rate_share", "0.9"),
    ("batch_tokens", "128"),
    ("accumulation_steps", "2"),
    ("max_example_tokens", "40"),
    ("max_grad_norm", "0"),
    ("weight_decay", "1"),
    ("beta1", "0.5"),
    ("beta2", "0.5"),
    ("seed", "8"),
    ("with_document_share", "0"),
    ("question_noise", "0.9"),
    ("question_shuffle", "1"),
    ("checkpoint_steps", "1"),
];

/// The files of a training run by name: what is in them, but for times and for the settings as typed.
fn left(directory: &Path, below: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            left(directory, &path, out);
            continue;
        }
        let name = path.strip_prefix(directory).unwrap().display().to_string();
        let content = match name.as_str() {
            "run/settings.json" | "run/report.json" | "run/lock" => continue,
            "run/train_log.jsonl" => {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(|line| {
                    let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
                    record["tokens_per_second"].take();
                    record.to_string()
                });
                lines.collect::<Vec<_>>().join("\n").into_bytes()
            }
            _ => std::fs::read(&path).unwrap(),
        };
        out.insert(name, content);
    }
}

/// What training leaves behind with these options: its files, or why it is refused. It begins where
/// there is a finished run if `again`.
async fn trained(options: &[(&str, &str)], again: bool) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter");
    // The bundled model brings prompts of its own, over which those of the file go.
    let config = "[models.other]\nsource = \"nowhere\"\n[profiles.own]\nextends = \"general\"\n\
                  answer = \"Answer: {question}\"\n";
    let config = Config::parse(&dir.path().join("c.toml"), config, &|_| None).unwrap();
    let casebook = Arc::new(config.casebook().unwrap());
    let train = async |options: &[(&str, &str)]| {
        let ctx = new_session(&casebook).unwrap();
        let options: Vec<String> = options
            .iter()
            .map(|(key, value)| format!("'lora.{key}' '{value}'"))
            .collect();
        let create = format!(
            "CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION '{}' OPTIONS ({})",
            adapter.display(),
            options.join(", ")
        );
        run(&ctx, &create).await?;
        run(&ctx, EXAMPLES).await
    };
    if again {
        train(BASE).await.unwrap();
    }
    match train(options).await {
        Ok(_) => {
            let mut out = BTreeMap::new();
            left(&adapter, &adapter, &mut out);
            out
        }
        Err(error) => [("refused".to_owned(), error.to_string().into_bytes())].into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_training_has_an_effect() {
    let documented = casebook::sinks::lora::reference();
    let documented = documented.lines().skip(2).map(|line| {
        let key = line.split('`').nth(1).unwrap();
        key.strip_prefix("lora.").unwrap().to_owned()
    });
    let mut documented: Vec<String> = documented.collect();
    let mut tried: Vec<&str> = OTHERS.iter().map(|(key, _)| *key).collect();
    documented.sort();
    tried.sort_unstable();
    assert_eq!(documented, tried);
    assert!(SETTINGS.iter().all(|spec| tried.contains(&spec.key)));

    let base = trained(BASE, false).await;
    assert!(
        base.contains_key("adapter_model.safetensors"),
        "{:?}",
        base.keys()
    );
    assert!(
        trained(BASE, false).await == base,
        "training is not the same twice"
    );
    for (key, other) in OTHERS {
        let changed = BASE.iter().copied().filter(|(known, _)| known != key);
        let changed: Vec<(&str, &str)> = changed.chain([(*key, *other)]).collect();
        let is_mode = *key == "mode";
        let found = trained(&changed, is_mode).await;
        let expected_refusal = match *key {
            "model" => Some("nowhere"),
            "mode" => Some("does not touch"),
            _ => None,
        };
        match (found.get("refused"), expected_refusal) {
            (Some(error), Some(part)) => {
                let error = String::from_utf8_lossy(error);
                assert!(error.contains(part), "lora.{key}: {error}");
            }
            (None, None) => assert!(found != base, "lora.{key} = {other} changes nothing"),
            (error, _) => panic!(
                "lora.{key}: {:?}",
                error.map(|e| String::from_utf8_lossy(e))
            ),
        }
    }
}

/// Another value of each key of a profile than that of `general`.
const PROFILE: &[(&str, &str)] = &[
    ("stop", "['the']"),
    ("description", "'another'"),
    ("system", "'You read.'"),
    ("ask", "'Ask about it.'"),
    ("ask_list", "'Ask {of} questions.'"),
    ("focus", "['the sentence']"),
    ("answer", "'Answer: {question}'"),
    ("question_mode", "'list'"),
    ("questions_per_chunk", "2"),
    ("max_pairs_per_document", "1"),
    ("max_chunk_tokens", "30"),
    ("overlap_tokens", "25"),
    ("max_question_tokens", "3"),
    ("max_answer_tokens", "2"),
    ("question_sampling.temperature", "5"),
    ("question_sampling.top_k", "1"),
    ("question_sampling.top_p", "0.1"),
    ("question_sampling.min_p", "0.9"),
    ("answer_sampling.temperature", "5"),
    ("answer_sampling.top_k", "3"),
    ("answer_sampling.top_p", "0.1"),
    ("answer_sampling.min_p", "0.9"),
    ("seed", "9"),
    (
        "few_shot",
        "[{ question = 'Who sat?', answer = 'Judge Smith.' }]",
    ),
    ("checks.truncated", "false"),
    ("checks.not_a_question", "false"),
    ("checks.leans_on_document", "false"),
    ("checks.unnamed_document", "true"),
    ("checks.boilerplate", "false"),
    ("checks.duplicate", "false"),
    ("checks.near_duplicate", "0.1"),
    ("checks.ungrounded", "false"),
    ("checks.min_grounding", "1"),
    ("checks.not_in_document", "false"),
    ("checks.degenerate", "false"),
    ("checks.max_repeats", "2"),
];

/// Keys that say something only beside another one: what stands with them in both.
const BESIDE: &[(&str, &str)] = &[
    ("ask_list", "question_mode = 'list'"),
    ("max_pairs_per_document", "questions_per_chunk = 8"),
    ("max_chunk_tokens", "overlap_tokens = 0"),
    (
        "overlap_tokens",
        "max_chunk_tokens = 40\noverlap_tokens = 0",
    ),
    ("answer_sampling.top_k", "answer_sampling.temperature = 5"),
    ("answer_sampling.top_p", "answer_sampling.temperature = 5"),
    ("answer_sampling.min_p", "answer_sampling.temperature = 5"),
];

/// The rows of a document with these keys of its profile, and what `casebook profiles` shows.
async fn rows(keys: &str) -> String {
    let config = format!("[profiles.general]\n{keys}\n");
    let config = Config::parse(Path::new("c.toml"), &config, &|_| None).unwrap();
    let casebook = Arc::new(config.casebook().unwrap());
    let layers = casebook.profiles["general"].iter();
    let layers: Vec<(&str, &str)> = layers.map(|(o, text)| (&**o, &**text)).collect();
    let profile = Profile::resolve("general", &layers).unwrap();
    let ctx = new_session(&casebook).unwrap();
    let rows = "SELECT * FROM docs_to_qa((SELECT 'd' AS id, 'Case: Doe v. Baker. Doe was convicted of \
                mail fraud and was sentenced to 37 months in prison. He appeals from the sentence of \
                the district court. We vacate the sentence and remand the case to the court.' AS \
                text), profile => 'general')";
    format!(
        "{}\n{}",
        profile.description,
        run(&ctx, rows).await.unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_profile_has_an_effect() {
    let mut known = KEYS.to_vec();
    let mut tried: Vec<&str> = PROFILE.iter().map(|(key, _)| *key).collect();
    known.sort_unstable();
    tried.sort_unstable();
    assert_eq!(known, tried);
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    for (key, other) in PROFILE {
        let beside = BESIDE.iter().filter(|(known, _)| known == key);
        let beside: String = beside.map(|(_, text)| format!("{text}\n")).collect();
        if !before.contains_key(&beside) {
            let shown = rows(&beside).await;
            before.insert(beside.clone(), shown);
        }
        let own = format!("{key} = ");
        let kept = beside.lines().filter(|line| !line.starts_with(&own));
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        let after = rows(&format!("{kept}{own}{other}")).await;
        assert_ne!(before[&beside], after, "{key} = {other} changes nothing");
    }
}
