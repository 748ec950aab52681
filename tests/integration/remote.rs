//! Models behind an endpoint: what is asked, what is asked again, what is counted and what is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casebook::compare::{Comparison, compare};
use casebook::{Casebook, ErrorKind, ModelSpec, RemoteSpec, new_session};
use casebook_connectors::Secret;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::endpoint::{Act, Endpoint};
use crate::{CASES, run};

/// What the tests ask: checks that the words of the fake would not pass are off.
const CALL: &str = "docs_to_qa('cases', profile => 'legal', model => 'far', \
                    questions_per_chunk => 2, \"checks.ungrounded\" => false, \
                    \"checks.near_duplicate\" => 1)";
const KEY: &str = "sk-hidden-4711-abcdef";

struct Setup {
    ctx: SessionContext,
    casebook: Arc<Casebook>,
    endpoint: Endpoint,
    dir: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A session whose model `far` is the endpoint's, changed by `change`.
    async fn with(change: impl FnOnce(&mut RemoteSpec)) -> Self {
        let endpoint = Endpoint::start().await;
        let mut spec = RemoteSpec::new(&endpoint.source(), "small").unwrap();
        spec.api_key = Some(Secret::new(KEY));
        change(&mut spec);
        let casebook = Arc::new(Casebook::default());
        casebook.models.insert("far", ModelSpec::remote(spec));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.csv");
        std::fs::write(&path, CASES).unwrap();
        let ctx = new_session(&casebook).unwrap();
        let create = format!(
            "CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION '{}'",
            path.display()
        );
        run(&ctx, &create).await.unwrap();
        Self {
            ctx,
            casebook,
            endpoint,
            dir,
        }
    }

    async fn rows(&self, columns: &str) -> String {
        let sql = format!("SELECT {columns} FROM {CALL} ORDER BY qa_id");
        run(&self.ctx, &sql).await.unwrap()
    }

    async fn error(&self, sql: &str) -> casebook::Error {
        crate::error(&self.ctx, sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_from_an_endpoint_and_the_document_comes_first() {
    let setup = Setup::with(|spec| {
        spec.headers = vec![("x-team".into(), Secret::new("legal"))];
        spec.query = vec![("api-version".into(), Secret::new("2026-01-01"))];
        spec.body.insert("reasoning_effort".into(), json!("low"));
    })
    .await;
    let rows = setup.rows("doc_id, question, answer, status, prompt_tokens > 0 AS counted, model");
    let rows = rows.await;
    assert_eq!(rows.matches("| ok ").count(), 4, "{rows}");
    assert!(rows.contains("sentenced to 37 months"), "{rows}");
    assert_eq!(rows.matches("| true ").count(), 4, "{rows}");
    let label = rows.split("| small@").nth(1).unwrap();
    assert_eq!(rows.matches("| small@").count(), 5, "{rows}");
    assert!(!label.starts_with(' '), "{rows}");
    let calls = setup.endpoint.calls();
    // Two questions and two answers for each of the two documents with a text.
    assert_eq!(calls.len(), 8);
    let prefix = "Case: Roe v. Acme\nCourt: First Circuit";
    let of_roe: Vec<_> = calls
        .iter()
        .filter(|c| c.user().starts_with(prefix))
        .collect();
    assert_eq!(of_roe.len(), 4);
    let text = "We affirm the judgment of the district court.";
    let document = &of_roe[0].user()[..of_roe[0].user().find(text).unwrap() + text.len()];
    for call in &of_roe {
        assert!(
            call.user().starts_with(&format!("{document}\n\n")),
            "{}",
            call.user()
        );
        assert_eq!(call.body["messages"][0], of_roe[0].body["messages"][0]);
        assert_eq!(call.body["messages"][0]["role"], "system");
    }
    for call in setup.endpoint.all_calls() {
        assert_eq!(call.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(call.headers["x-team"], "legal");
        assert_eq!(call.uri.query(), Some("api-version=2026-01-01"));
        assert_eq!(call.body["reasoning_effort"], "low");
        assert_eq!(call.body["model"], "small");
    }
    // One more to learn which model answers, in this session and not in each statement.
    setup.rows("qa_id").await;
    assert_eq!(setup.endpoint.all_calls().len(), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_asked_again_and_the_rows_are_the_same() {
    let setup = Setup::new().await;
    let wanted = setup.rows("qa_id, question, answer, status, reason").await;
    let fails = |act: Act| {
        move |n: usize, _: &Value| match n % 4 == 1 {
            true => act.clone(),
            false => Act::Answer,
        }
    };
    let busy = |status: u16| {
        Act::Status(
            status,
            vec![("retry-after", "1".into())],
            "{\"error\": \"busy\"}".into(),
        )
    };
    let status = |status: u16| Act::Status(status, vec![], "oops".into());
    for act in [
        busy(429),
        busy(503),
        status(408),
        status(500),
        status(502),
        status(529),
        Act::Body("<html>maintenance</html>".into()),
        Act::Body("{\"choices\": []}".into()),
        Act::Body("{\"error\": {\"message\": \"upstream\", \"code\": 502}}".into()),
        Act::Body(String::new()),
        Act::Cut(0),
        Act::Cut(40),
    ] {
        setup.endpoint.forget();
        setup.endpoint.script(fails(act.clone()));
        let rows = setup.rows("qa_id, question, answer, status, reason").await;
        assert_eq!(rows, wanted, "{act:?}");
        assert!(setup.endpoint.calls().len() > 8, "{act:?}");
        assert!(
            setup.endpoint.answered().values().all(|n| *n == 1),
            "{act:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_asked_for_is_kept_by_all_calls() {
    let setup = Setup::new().await;
    setup.rows("qa_id").await;
    setup.endpoint.forget();
    setup.endpoint.script(|n, _| match n {
        0 => Act::Status(429, vec![("retry-after", "2".into())], String::new()),
        _ => Act::Answer,
    });
    let begun = Instant::now();
    setup.rows("qa_id").await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(setup.endpoint.calls().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_asked_once_and_shows_no_key() {
    for (status, kind, part) in [
        (401, ErrorKind::Denied, "check api_key"),
        (403, ErrorKind::Denied, "check api_key"),
        (404, ErrorKind::NotFound, "check source"),
        (400, ErrorKind::Unsupported, "left out with omit"),
        (402, ErrorKind::Exhausted, "quota"),
        (307, ErrorKind::Unsupported, "http://elsewhere.example"),
    ] {
        let setup = Setup::with(|spec| spec.revision = Some("r1".into())).await;
        let said = format!(
            "{{\"error\": {{\"message\": \"{KEY} has no quota for billing; key={KEY}, bearer \
             {part}\"}}}}",
            part = &KEY[..14]
        );
        setup.endpoint.script(move |_, _| {
            let to = format!("http://elsewhere.example/v1?key={KEY}");
            Act::Status(status, vec![("location", to)], said.clone())
        });
        let error = setup.error("SELECT ask('far', 'Who?')").await;
        assert_eq!(error.kind(), kind, "{error}");
        let error = error.to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.contains("model small at 127.0.0.1:"), "{error}");
        assert_eq!(setup.endpoint.all_calls().len(), 1, "{status}");
        // All rows fail: the statement does.
        let budget = setup.error(&format!("SELECT * FROM {CALL}")).await;
        assert_eq!(budget.kind(), ErrorKind::Unavailable);
        for text in [error, budget.to_string(), format!("{budget:?}")] {
            assert!(
                !text.contains("hidden-4711") && !text.contains(&KEY[..14]),
                "{text}"
            );
        }
    }
    // Where the revision is asked for, that is what fails.
    let setup = Setup::new().await;
    setup.endpoint.script(|_, _| Act::Answer);
    let wrong = RemoteSpec::new(&format!("{}/nowhere", setup.endpoint.source()), "small").unwrap();
    let casebook = Arc::new(Casebook::default());
    casebook.models.insert("far", ModelSpec::remote(wrong));
    let ctx = new_session(&casebook).unwrap();
    let error = crate::error(&ctx, "SELECT ask('far', 'Who?')").await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline() {
    let setup = Setup::with(|spec| {
        spec.revision = Some("r1".into());
        spec.request_timeout = Duration::from_secs(1);
        spec.timeout = Duration::from_secs(3);
    })
    .await;
    setup.endpoint.script(|_, _| Act::Silence);
    let begun = Instant::now();
    let error = setup.error("SELECT ask('far', 'Who?')").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no reply within 3 s"), "{error}");
    // Bounds for a slow machine, not for the deadline.
    assert!((Duration::from_secs(2)..Duration::from_secs(60)).contains(&begun.elapsed()));
    assert!(setup.endpoint.calls().len() >= 2);
    // A failure that is of the call itself is not tried until then.
    setup.endpoint.forget();
    setup
        .endpoint
        .script(|_, _| Act::Status(500, vec![], "bad template".into()));
    let error = setup.error("SELECT ask('far', 'Who?')").await;
    assert!(error.to_string().contains("bad template"), "{error}");
    assert!((2..=4).contains(&setup.endpoint.calls().len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_a_row_and_not_a_failure() {
    let setup = Setup::new().await;
    setup.endpoint.script(|_, body| {
        let text = body["messages"].to_string();
        match text.contains("Doe v. Baker") {
            true => Act::Status(
                400,
                vec![],
                "{\"error\": {\"code\": \"context_length_exceeded\"}}".into(),
            ),
            false => Act::Answer,
        }
    });
    let rows = setup.rows("doc_id, status, reason").await;
    assert_eq!(
        rows.matches("| b      | rejected | too_long").count(),
        2,
        "{rows}"
    );
    assert_eq!(rows.matches("| a      | ok").count(), 2, "{rows}");
    // What the server says it reads is known beforehand, and nothing is sent.
    let small = Setup::with(|spec| spec.max_context = Some(256)).await;
    let rows = small.rows("doc_id, reason").await;
    assert_eq!(rows.matches("too_long").count(), 2, "{rows}");
    assert_eq!(small.endpoint.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_are_there_at_once_and_fewer_where_a_server_refuses() {
    // Four, before anything is known of a server.
    let setup = Setup::new().await;
    let documents: String = (0..24)
        .map(|i| {
            format!("d{i},Roe v. Acme {i},\"On May 3, 1992, Roe {i} sued Acme. We affirm.\"\n")
        })
        .collect();
    let path = setup.dir.path().join("many.csv");
    std::fs::write(&path, format!("id,name,text\n{documents}")).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE many STORED AS CSV LOCATION '{}'",
        path.display()
    );
    run(&setup.ctx, &create).await.unwrap();
    let many = format!("SELECT count(*) FROM {}", CALL.replace("'cases'", "'many'"));
    setup.endpoint.script(|n, _| match n < 4 {
        true => Act::Together(4),
        false => Act::Answer,
    });
    let rows = run(&setup.ctx, &many).await.unwrap();
    assert!(rows.contains("| 48 "), "{rows}");
    assert!(setup.endpoint.most_at_once() >= 4);

    let setup = Setup::with(|spec| spec.max_concurrency = 2).await;
    setup.rows("qa_id").await;
    assert!(setup.endpoint.most_at_once() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_as_another_model_is_not_believed() {
    let setup = Setup::new().await;
    setup.endpoint.script(|n, _| match n < 2 {
        true => Act::Answer,
        false => Act::As("small-2027"),
    });
    let error = setup.error(&format!("SELECT * FROM {CALL}")).await;
    let text = error.to_string();
    assert!(
        text.contains("small-2026") && text.contains("small-2027") && text.contains("revision"),
        "{text}"
    );
    // Where the user says which state it is, that is what it is.
    let setup = Setup::with(|spec| spec.revision = Some("r1".into())).await;
    setup.endpoint.script(|n, _| match n % 2 {
        0 => Act::Answer,
        _ => Act::As("small-2027"),
    });
    let rows = setup.rows("status").await;
    assert_eq!(rows.matches("| ok").count(), 4, "{rows}");
    assert_eq!(
        setup.endpoint.all_calls().len(),
        8,
        "nobody asks which model it is"
    );
}

/// The values of `names` in the plan of `sql`.
async fn analyzed(ctx: &SessionContext, sql: &str, names: &[&str]) -> Vec<String> {
    let plan = run(ctx, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
    let value = |name: &&str| {
        let at = plan
            .find(&format!(" {name}="))
            .unwrap_or_else(|| panic!("{name}: {plan}"));
        let value = plan[at..].split('=').nth(1).unwrap();
        value.split([',', ']']).next().unwrap().to_owned()
    };
    names.iter().map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_have_the_same_names_and_are_null_where_a_server_says_nothing() {
    let names = [casebook::Counters::NAMES, &["requests", "kept_replies"]].concat();
    let setup = Setup::new().await;
    let sql = format!("SELECT * FROM {CALL}");
    // An honest server that does not say what it had read before.
    let words = |calls: Vec<crate::endpoint::Call>| {
        let count = |text: &Value| text.as_str().unwrap().split_whitespace().count();
        let messages = |c: &crate::endpoint::Call| c.body["messages"].as_array().unwrap().clone();
        let all = calls.iter().flat_map(messages);
        all.map(|m| count(&m["content"])).sum::<usize>()
    };
    let found = analyzed(&setup.ctx, &sql, &names).await;
    assert_eq!(found[..5], ["NULL"; 5]);
    let shown = datafusion::common::human_readable_count(words(setup.endpoint.calls()));
    assert_eq!(found[5], shown);
    assert_ne!(found[6], "NULL");
    assert_eq!(found[7..], ["8", "0"]);
    // One that says all that it can.
    setup.endpoint.script(|_, _| {
        Act::Usage(json!({
            "prompt_tokens": 20,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 16},
        }))
    });
    let found = analyzed(&setup.ctx, &sql, &names).await;
    let wanted = ["NULL", "NULL", "NULL", "32", "128", "160", "24", "8", "0"];
    assert_eq!(found, wanted);
    // One wrong word of it, and the sum is not known.
    for wrong in [
        json!(null),
        json!({"prompt_tokens": -20, "completion_tokens": "3"}),
        json!({"prompt_tokens": 1e300, "completion_tokens": 0}),
    ] {
        setup.endpoint.forget();
        setup.endpoint.script(move |n, _| match n {
            3 => Act::Usage(wrong.clone()),
            _ => Act::Answer,
        });
        let found = analyzed(&setup.ctx, &sql, &names).await;
        assert_eq!(found[5..7], ["NULL"; 2]);
    }
    // And a model in this process.
    let local = sql.replace("'far'", "'builtin:tiny'");
    let found = analyzed(&setup.ctx, &local, &names).await;
    assert!(found.iter().all(|value| value != "NULL"), "{found:?}");
    // A row knows no more than its replies did.
    setup.endpoint.forget();
    let rows = setup
        .rows("prompt_tokens IS NULL AS unsaid, output_tokens IS NULL")
        .await;
    assert!(rows.contains("| true "), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_kept_are_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replies.jsonl");
    let columns = "qa_id, question, answer, status, prompt_tokens, output_tokens";
    let setup = Setup::with(|spec| spec.replies = Some(path.clone())).await;
    let first = setup.rows(columns).await;
    assert_eq!(setup.endpoint.calls().len(), 8);
    let sql = format!("SELECT * FROM {CALL}");
    let names = ["requests", "kept_replies", "prompt_tokens"];
    let again = analyzed(&setup.ctx, &sql, &names).await;
    assert_eq!(again, ["0", "8", "0"]);
    assert_eq!(setup.rows(columns).await, first);
    assert_eq!(setup.endpoint.calls().len(), 8);
    // Another seed is another question; the greedy answers to the same questions are kept.
    let other = CALL.replace("'cases'", "'cases', seed => 7");
    run(&setup.ctx, &format!("SELECT * FROM {other}"))
        .await
        .unwrap();
    assert!(setup.endpoint.calls().len() > 8);
    // The prompt, which holds the document, is not in the file.
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("Circuit") && text.contains("37 months"),
        "{text}"
    );
    // Another process does not write into it meanwhile.
    let other = Setup::with(|spec| spec.replies = Some(path.clone())).await;
    let error = other.error(&format!("SELECT * FROM {CALL}")).await;
    assert!(error.to_string().contains("another run"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ask_and_compare_speak_to_endpoints_and_training_does_not() {
    let setup = Setup::new().await;
    let answer = run(&setup.ctx, "SELECT ask('far', 'Who? Question: ') AS a")
        .await
        .unwrap();
    assert!(answer.contains("The judgment was affirmed."), "{answer}");
    let chunks = "SELECT c['chunk_no'] FROM (SELECT unnest(chunk_text(text, 20, 2, 'far')) AS c \
                  FROM cases)";
    assert!(run(&setup.ctx, chunks).await.unwrap().contains("| 2 "));
    let probes = setup.dir.path().join("probes.csv");
    let held_out =
        "document,question,answer\nCase: Doe v. Baker,Who? Question: ,Doe was convicted\n";
    std::fs::write(
        &probes,
        "question,answer\nWho? Question: ,The judgment was affirmed.\n",
    )
    .unwrap();
    std::fs::write(setup.dir.path().join("held_out.csv"), held_out).unwrap();
    let comparison = Comparison {
        tuned: "far".into(),
        base: Some("builtin:tiny".into()),
        probes: Some(probes.display().to_string()),
        held_out: Some(setup.dir.path().join("held_out.csv").display().to_string()),
        ..Comparison::default()
    };
    setup.endpoint.forget();
    let report = compare(&setup.ctx, &setup.casebook, &comparison)
        .await
        .unwrap();
    assert!(
        report.tuned.starts_with("small at 127.0.0.1:"),
        "{}",
        report.tuned
    );
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!(
        shown["sets"][0]["tuned"]["exact_match"]["mean"], 1.0,
        "{shown}"
    );
    assert_eq!(
        shown["sets"][0]["base"]["exact_match"]["mean"], 0.0,
        "{shown}"
    );
    let calls = setup.endpoint.calls();
    assert_eq!(calls.len(), 2);
    assert!(
        calls
            .iter()
            .any(|c| c.user().starts_with("Case: Doe v. Baker\n\n"))
    );
    let alone = Comparison {
        base: None,
        ..comparison
    };
    let error = compare(&setup.ctx, &setup.casebook, &alone)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("name one with base"), "{error}");
    let lora = "CREATE EXTERNAL TABLE t STORED AS LORA LOCATION 'x' OPTIONS ('lora.model' 'far')";
    let error = setup.error(lora).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("behind 127.0.0.1:"), "{error}");
    let error = setup
        .error("SELECT ask('openai:https://h/v1', 'Who?')")
        .await;
    assert!(error.to_string().contains("[models]"), "{error}");
}

/// What a model that thinks says.
#[tokio::test(flavor = "multi_thread")]
async fn thoughts_are_no_answer() {
    let setup = Setup::new().await;
    let said = |content: &str, reason: &str| {
        let choice = json!({"message": {"content": content}, "finish_reason": reason});
        Act::Body(json!({ "choices": [choice] }).to_string())
    };
    let thought = said("<think>Let me see.</think>\n\nNobody.", "stop");
    setup.endpoint.script(move |_, _| thought.clone());
    let answer = run(&setup.ctx, "SELECT ask('far', 'Who?') AS a")
        .await
        .unwrap();
    assert!(answer.contains("| Nobody. |"), "{answer}");
    let endless = said("<think>Let me see. Or not.", "whatever");
    setup.endpoint.script(move |_, _| endless.clone());
    let rows = setup.rows("doc_id, question, status, reason").await;
    assert!(!rows.contains("Let me see"), "{rows}");
    assert!(
        rows.contains("truncated") || rows.contains("no_question"),
        "{rows}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_may_have_a_newer_name() {
    let setup = Setup::new().await;
    setup
        .endpoint
        .script(|_, body| match body["max_tokens"].is_null() {
            true => Act::Answer,
            false => Act::Status(
                400,
                vec![],
                "{\"error\": {\"message\": \"Use 'max_completion_tokens' instead.\"}}".into(),
            ),
        });
    let rows = setup.rows("status").await;
    assert_eq!(rows.matches("| ok").count(), 4, "{rows}");
    let calls = setup.endpoint.calls();
    assert!(
        calls
            .iter()
            .any(|c| c.body["max_completion_tokens"].is_number())
    );
}

/// The program, with a casebook.toml whose model is the endpoint's.
mod program {
    use std::process::Stdio;

    use super::*;
    use crate::project::{program, result, said};

    const CONFIG: &str = r#"
[models.default]
source = "SOURCE"
model = "small"
api_key = "${env:FAR_KEY}"
headers = { x-run = "${env:RUN:-any}" }
[tables.cases]
format = "csv"
location = "cases.csv"
[tables.qa]
format = "delta"
location = "out/qa"
options = { "table.create" = "qa_pairs", "write.key" = "qa_id" }
[jobs.far]
source = "cases"
target = "qa"
profile = "legal"
arguments = { questions_per_chunk = 2, "checks.ungrounded" = false, "checks.near_duplicate" = 1 }
output = "out"
"#;

    fn project(source: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let config = CONFIG.replace("SOURCE", source);
        std::fs::write(dir.path().join("casebook.toml"), config).unwrap();
        std::fs::write(dir.path().join("cases.csv"), CASES).unwrap();
        dir
    }

    fn edit(dir: &Path, from: &str, to: &str) {
        let path = dir.join("casebook.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Runs it off the threads on which the endpoint answers.
    async fn casebook(dir: &Path, args: &[&str], code: i32) -> String {
        casebook_with(dir, args, code, &[]).await
    }

    async fn casebook_with(
        dir: &Path,
        args: &[&str],
        code: i32,
        environment: &[(&str, &str)],
    ) -> String {
        let mut command = program(dir, args);
        command
            .env("FAR_KEY", KEY)
            .envs(environment.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let text = said(&output.await.unwrap(), code);
        assert!(!text.contains(KEY), "{text}");
        text
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_documents_go_is_said_and_can_be_forbidden() {
        let endpoint = Endpoint::start().await;
        let dir = project(&endpoint.source());
        let host = endpoint
            .url
            .trim_start_matches("http://")
            .trim_end_matches("/v1");
        let leave = format!("documents leave for {host}, for the model small");
        let plan = casebook(dir.path(), &["run", "far", "--dry-run"], 0).await;
        assert!(plan.contains(&format!("-- {leave}")), "{plan}");
        assert_eq!(endpoint.all_calls().len(), 0, "a dry run asks nobody");
        let checked = casebook(dir.path(), &["check"], 0).await;
        assert!(checked.contains(&leave), "{checked}");
        assert_eq!(endpoint.calls().len(), 0, "no document leaves for a check");
        let done = casebook(dir.path(), &["run", "far"], 0).await;
        let note = format!(
            "note: documents and questions for the model small leave this process \
                            for {host}"
        );
        assert!(done.contains(&note), "{done}");
        let first = result(dir.path());
        let generated = &first["generated"];
        assert_eq!(generated["pairs"], 4, "{first}");
        assert_eq!(
            (&generated["requests"], &generated["kept_replies"]),
            (&json!(8), &json!(0))
        );
        let names: Vec<&String> = generated["tokens"].as_object().unwrap().keys().collect();
        let mut wanted = casebook::Counters::NAMES.to_vec();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        assert!(generated["tokens"]["prompt_tokens"].as_u64().unwrap() > 100);
        assert!(generated["tokens"]["chunk_tokens"].is_null());
        // Again: nothing is asked, and nothing is new.
        endpoint.forget();
        casebook(dir.path(), &["run", "far"], 0).await;
        let second = result(dir.path());
        assert_eq!(endpoint.calls().len(), 0);
        assert_eq!(second["generated"]["new_rows"], 0);
        assert_eq!(second["generated"]["kept_replies"], 8);
        assert_eq!(second["generated"]["tokens"]["prompt_tokens"], 0);

        endpoint.forget();
        edit(
            dir.path(),
            "[models.default]",
            "[session]\nallow_remote = false\n[models.default]",
        );
        for args in [
            &["run", "far"][..],
            &["run", "far", "--dry-run"],
            &["ask", "Who?"],
        ] {
            let refused = casebook(dir.path(), args, 1).await;
            assert!(
                refused.contains("allow_remote") && refused.contains(host),
                "{refused}"
            );
        }
        let checked = casebook(dir.path(), &["check"], 1).await;
        assert!(checked.contains("allow_remote"), "{checked}");
        let local = ["sql", "SELECT 1", "-q"];
        casebook(dir.path(), &local, 0).await;
        assert_eq!(endpoint.all_calls().len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_counts_the_same_for_a_model_in_this_process() {
        let dir = project("x");
        let far = "source = \"x\"\nmodel = \"small\"\napi_key = \"${env:FAR_KEY}\"\nheaders = { x-run = \
                   \"${env:RUN:-any}\" }";
        edit(dir.path(), far, "source = \"builtin:tiny\"");
        casebook(dir.path(), &["run", "far"], 0).await;
        let generated = result(dir.path())["generated"].clone();
        let tokens = generated["tokens"].as_object().unwrap();
        assert_eq!(tokens.len(), casebook::Counters::NAMES.len());
        let count = |name: &str| tokens[name].as_u64().unwrap();
        assert_eq!(
            count("prefill_tokens"),
            count("system_tokens") + count("chunk_tokens") + count("suffix_tokens")
        );
        assert_eq!(
            count("prompt_tokens"),
            count("prefill_tokens") + count("shared_prefix_tokens")
        );
        assert!(generated["requests"].as_u64().unwrap() >= 4);
        assert_eq!(generated["kept_replies"], 0);
        assert!(!dir.path().join("out/replies.jsonl").exists());
    }

    /// Killed as hard as it goes, after any number of replies.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_job_asks_for_nothing_twice() {
        let endpoint = Endpoint::start().await;
        let dir = project(&endpoint.source());
        let kept = || {
            let text = std::fs::read_to_string(dir.path().join("out/replies.jsonl"));
            text.unwrap_or_default().lines().count()
        };
        let mut before = 0;
        for replies in [1, 3, 6] {
            // What the runs before left behind is not answered any more.
            let name = format!("after {replies}");
            endpoint.answer_only(&name, replies - before);
            let mut child = program(dir.path(), &["run", "far", "-q"])
                .env("FAR_KEY", KEY)
                .env("RUN", &name)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            while kept() < replies {
                assert!(child.try_wait().unwrap().is_none(), "it has ended");
                assert!(
                    begun.elapsed() < Duration::from_secs(120),
                    "{} replies",
                    kept()
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            before = replies;
        }
        endpoint.answer_only("any", usize::MAX);
        let killed = result(dir.path());
        assert_eq!(killed["status"], "running");
        casebook(dir.path(), &["run", "far"], 0).await;
        let done = result(dir.path());
        assert_eq!(done["generated"]["new_rows"], 5, "{done}");
        assert_eq!(done["generated"]["kept_replies"], 6, "{done}");
        let answered = endpoint.answered();
        assert_eq!(answered.len(), 8);
        assert!(answered.values().all(|n| *n == 1), "{answered:?}");
    }

    /// A proxy that answers in place of any server, and what it was asked.
    async fn proxy() -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(std::sync::Mutex::new(vec![]));
        let noted = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    noted.lock().unwrap().push(head.clone());
                    let body = "{\"choices\": [{\"message\": {\"content\": \"by proxy\"}}]}";
                    let answer = match head.starts_with("CONNECT") {
                        true => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
                        false => format!(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        ),
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    // The rest of the request, so that it is not refused while it is sent.
                    let mut rest = [0; 4096];
                    while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
                });
            }
        });
        (url, heard)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn proxies_are_those_of_the_model_or_of_the_environment() {
        let (at, heard) = proxy().await;
        let take = || std::mem::take(&mut *heard.lock().unwrap());
        let dir = project("openai:http://model.example/v1");
        edit(
            dir.path(),
            "model = \"small\"",
            "model = \"small\"\nallow_http = true\ntimeout_secs = 3",
        );
        let ask = ["ask", "-q", "Who?"];
        let run = async |code: i32, more: &[(&'static str, String)]| {
            let all: Vec<(&str, &str)> = more.iter().map(|(k, v)| (*k, v.as_str())).collect();
            casebook_with(dir.path(), &ask, code, &all).await
        };
        // The environment's.
        let environment = ("http_proxy", format!("http://u:hidden-password@{at}"));
        let answer = run(0, std::slice::from_ref(&environment)).await;
        assert!(answer.contains("by proxy"), "{answer}");
        let asked = take();
        assert!(
            asked
                .iter()
                .any(|head| head.starts_with("POST http://model.example/v1/chat")),
            "{asked:?}"
        );
        assert!(
            asked[0]
                .to_lowercase()
                .contains("proxy-authorization: basic "),
            "{asked:?}"
        );
        // But for hosts that are excepted.
        let except = ("no_proxy", ".example".to_owned());
        let failed = run(1, &[environment.clone(), except.clone()]).await;
        assert!(!failed.contains("hidden-password"), "{failed}");
        assert!(take().is_empty());
        // One of the model's own, whatever the environment excepts; or none.
        let key = "allow_http = true";
        let own = format!("{key}\nproxy = \"http://u:hidden-password@{at}\"");
        edit(dir.path(), key, &own);
        let answer = run(0, &[except]).await;
        assert!(
            answer.contains("by proxy") && !take().is_empty(),
            "{answer}"
        );
        edit(dir.path(), &own, &format!("{key}\nproxy = \"none\""));
        run(1, std::slice::from_ref(&environment)).await;
        assert!(take().is_empty());
        // A tunnel for https, which this proxy does not make.
        edit(
            dir.path(),
            "proxy = \"none\"",
            &format!("proxy = \"http://u:hidden-password@{at}\""),
        );
        edit(dir.path(), "openai:http:", "openai:https:");
        let failed = run(1, &[]).await;
        assert!(!failed.contains("hidden-password"), "{failed}");
        let asked = take();
        assert!(
            asked
                .iter()
                .all(|head| head.starts_with("CONNECT model.example:443")),
            "{asked:?}"
        );
        assert!(!asked.is_empty());
    }
}
