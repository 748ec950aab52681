//! `casebook run`: the whole way on three short opinions, again, stopped and resumed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use casebook::config::Config;
use casebook::jobs::{Event, RunId, run as run_job};
use casebook::{Error, ErrorKind};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, Session, TableProvider, TableProviderFactory};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::CASES;
use crate::project::{JOB, program, project, result, said, steps};

fn run(dir: &Path, code: i32) -> String {
    said(&program(dir, &["run", "small"]).output().unwrap(), code)
}

#[test]
fn a_job_generates_trains_compares_and_doubles_nothing() {
    let dir = project(JOB);
    let plan = said(
        &program(dir.path(), &["run", "small", "--dry-run"])
            .output()
            .unwrap(),
        0,
    );
    assert!(
        plan.contains("INSERT INTO \"qa\"")
            && plan.contains("keep_document => true")
            && !plan.contains("JOIN"),
        "{plan}"
    );
    assert!(!dir.path().join("out").exists(), "a dry run made something");

    let text = run(dir.path(), 0);
    assert!(
        text.contains("3 documents") && text.contains("seen questions"),
        "{text}"
    );
    let first = result(dir.path());
    assert_eq!(first["status"], "ok");
    assert!(
        first["generated"]["pairs"].as_u64().unwrap() >= 2,
        "{first}"
    );
    assert!(first["trained"]["steps"].as_u64().unwrap() >= 3);
    assert_eq!(first["compared"]["sets"][0]["kind"], "seen");
    assert_eq!(first["compared"]["sets"][1]["kind"], "paraphrase");
    let page = std::fs::read_to_string(dir.path().join("out/compare.html")).unwrap();
    assert!(page.contains("37 months") && page.contains("<polyline"));
    let examples =
        std::fs::read_to_string(dir.path().join("out/adapter/run/examples.jsonl")).unwrap();
    assert!(examples.contains("\"document\":\""), "{examples}");

    let adapter = dir.path().join("out/adapter/adapter_model.safetensors");
    let written = std::fs::metadata(&adapter).unwrap().modified().unwrap();
    run(dir.path(), 0);
    let second = result(dir.path());
    assert_eq!(second["generated"]["new_rows"], 0);
    assert_eq!(
        second["generated"]["target_rows"],
        first["generated"]["target_rows"]
    );
    assert_eq!(second["trained"]["steps"], first["trained"]["steps"]);
    // The figures of the run that trained, not of the one that found it done.
    assert_eq!(second["trained"]["seconds"], first["trained"]["seconds"]);
    assert!(first["trained"]["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(first["trained"]["was_there"], false);
    assert_eq!(second["trained"]["was_there"], true);
    assert_ne!(second["run_id"], first["run_id"]);
    assert!(second["started"].as_str() <= second["ended"].as_str());
    assert!(first["ended"].as_str() <= second["started"].as_str());
    let again = std::fs::metadata(&adapter).unwrap().modified().unwrap();
    assert_eq!(written, again, "the same run was trained twice");
}

#[test]
fn a_source_that_changed_is_trained_with_what_each_pair_was_about() {
    let dir = project(JOB);
    run(dir.path(), 0);
    let examples = || {
        let path = dir.path().join("out/adapter/run/examples.jsonl");
        std::fs::read_to_string(path).unwrap()
    };
    let first = examples();
    let cut = CASES.replace(
        " He appeals from the sentence. We vacate the sentence and remand the case.",
        "",
    );
    let longer = CASES.replace(
        "\"Doe was",
        "\"This opinion was amended in 1996 by the panel. Doe was",
    );
    let twice = format!(
        "{CASES}{}",
        CASES.lines().nth(1).unwrap().replace("Acme", "Zenith")
    );
    for changed in [cut, longer, twice] {
        assert_ne!(changed, CASES);
        std::fs::write(dir.path().join("cases.csv"), changed).unwrap();
        run(dir.path(), 0);
        let pairs = result(dir.path())["generated"]["target_rows"]["ok"]
            .as_u64()
            .unwrap();
        let now = examples();
        // One of the examples is the probe.
        assert_eq!(now.lines().count() as u64, pairs + 1, "{now}");
        for line in first.lines() {
            assert!(now.contains(line), "{line}\n{now}");
        }
    }
}

#[test]
fn names_of_jobs_and_tables_may_be_any() {
    let config = JOB
        .replace("jobs.small", "jobs.\"Sm all.x\"")
        .replace("x\".train]\n", "x\".train]\nholdout_share = 0.4\n")
        .replace("tables.tuned", "tables.\"T.x\"")
        .replace("target = \"tuned\"", "target = \"T.x\"")
        .replace("tables.probes", "tables.\"P ro.bes\"")
        .replace("\"probes\"", "\"P ro.bes\"")
        .replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 1");
    let dir = project(&config);
    let mut run = program(dir.path(), &["run", "Sm all.x"]);
    let text = said(&run.output().unwrap(), 0);
    assert!(
        text.contains("seen questions") && text.contains("other facts"),
        "{text}"
    );
}

#[test]
fn jobs_that_cannot_work_are_refused_before_they_cost_anything() {
    for (from, to, code, part) in [
        (
            "source = \"cases\"",
            "source = \"casse\"",
            78,
            "Did you mean 'cases'",
        ),
        (
            "target = \"tuned\"",
            "target = \"qa\"",
            78,
            "format = \"lora\"",
        ),
        ("profile = \"legal\"", "profile = \"legl\"", 2, "legal"),
        (
            "also = \"probes\"",
            "als = \"probes\"",
            78,
            "unknown key 'als'",
        ),
        (
            "max_pairs_per_document",
            "max_pairs_per_doc",
            2,
            "max_pairs_per_document",
        ),
        ("output = \"out\"", "holdout_share = 1", 78, "unknown key"),
    ] {
        let dir = project(&JOB.replace(from, to));
        let text = run(dir.path(), code);
        assert!(text.contains(part), "{part}: {text}");
        assert!(
            !dir.path()
                .join("out/qa/_delta_log/00000000000000000001.json")
                .exists()
        );
    }
    // A directory with another run, which lora.mode = new must not touch.
    let dir = project(&JOB.replace("resume_or_overwrite", "new"));
    std::fs::create_dir_all(dir.path().join("out/adapter")).unwrap();
    std::fs::write(dir.path().join("out/adapter/adapter_config.json"), "{}").unwrap();
    let text = run(dir.path(), 2);
    assert!(text.contains("resume_or_overwrite"), "{text}");
    let nowhere = program(dir.path(), &["run", "smal"]).output().unwrap();
    assert!(said(&nowhere, 2).contains("Did you mean 'small'"));
}

/// Starts `casebook run small` and waits for `ready`; none if it was done before.
#[cfg(unix)]
fn start(dir: &Path, ready: impl Fn() -> bool) -> Option<Child> {
    use std::os::unix::process::CommandExt;
    let child = program(dir, &["run", "small", "-q"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child: Child = child.unwrap();
    let begun = Instant::now();
    while !ready() {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return None;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "never ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(child)
}

#[cfg(unix)]
fn send(signal: &str, to: &str) {
    let sent = Command::new("kill").args([signal, "--", to]).status();
    assert!(sent.unwrap().success());
}

/// Starts the job, presses Ctrl-C when `ready` and returns the exit code; none if it was done before.
#[cfg(unix)]
fn interrupt(dir: &Path, ready: impl Fn() -> bool) -> Option<i32> {
    let mut child = start(dir, ready)?;
    send("-INT", &child.id().to_string());
    let stopped = Instant::now();
    let status = child.wait().unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(15));
    Some(status.code().unwrap())
}

#[cfg(unix)]
#[test]
fn training_that_was_stopped_goes_on_where_it_was() {
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 60"));
    let adapter: PathBuf = dir.path().join("out/adapter");
    let Some(code) = interrupt(dir.path(), || steps(dir.path()).len() > 3) else {
        return; // a fast machine was done before the signal
    };
    assert_eq!(code, 130);
    assert_eq!(result(dir.path())["status"], "interrupted");
    assert!(!adapter.join("adapter_config.json").exists());
    let before = steps(dir.path());
    assert!(
        std::fs::read_dir(adapter.join("run/checkpoints"))
            .unwrap()
            .count()
            > 0
    );
    run(dir.path(), 0);
    let after = steps(dir.path());
    assert!(after.len() > before.len() && after.starts_with(&before));
    assert_eq!(after, (1..=after.len() as u64).collect::<Vec<_>>());
    assert!(adapter.join("adapter_config.json").exists());
}

/// Starts the job and kills it hard when `ready`; false if it was done before.
#[cfg(unix)]
fn kill(dir: &Path, ready: impl Fn() -> bool) -> bool {
    let mut child = program(dir, &["run", "small", "-q"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !ready() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

#[cfg(unix)]
#[test]
fn a_killed_job_is_finished_by_running_it_again() {
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 20"));
    kill(dir.path(), || steps(dir.path()).len() >= 2);
    run(dir.path(), 0);
    let result = result(dir.path());
    assert_eq!(
        result["generated"]["new_rows"], 0,
        "rows were committed before training"
    );
    let steps = steps(dir.path());
    assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>());
}

#[cfg(unix)]
#[test]
fn the_result_of_a_killed_run_is_not_that_of_the_one_before() {
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 1"));
    run(dir.path(), 0);
    let before = result(dir.path());
    assert_eq!(before["status"], "ok");
    let config = dir.path().join("casebook.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("\"lora.epochs\" = 1", "\"lora.epochs\" = 200"),
    )
    .unwrap();
    // At once, and in training.
    let begun = || result(dir.path())["run_id"] != before["run_id"];
    let training = || begun() && steps(dir.path()).len() > 2;
    for ready in [&begun as &dyn Fn() -> bool, &training] {
        std::fs::write(
            dir.path().join("out/result.json"),
            serde_json::to_vec(&before).unwrap(),
        )
        .unwrap();
        assert!(kill(dir.path(), ready));
        let killed = result(dir.path());
        assert_eq!(killed["status"], "running");
        assert_ne!(killed["run_id"], before["run_id"]);
        assert!(killed["ended"].is_null() && killed["compared"].is_null());
    }
    let generated = &result(dir.path())["generated"];
    assert_eq!(generated["new_rows"], 0, "{generated}");
    // A step that fails says so: that a record is broken shows when it is read.
    let broken = "question,paraphrase,answer\nWho?\n";
    std::fs::write(dir.path().join("probes.csv"), broken).unwrap();
    said(
        &program(dir.path(), &["run", "small", "-q"])
            .output()
            .unwrap(),
        2,
    );
    let failed = result(dir.path());
    assert_eq!(failed["status"], "failed");
    assert!(!failed["error"].as_str().unwrap().is_empty());
}

/// As `timeout` does it without --foreground: the program, then everything in its group.
#[cfg(unix)]
#[test]
fn signals_that_come_together_are_one() {
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 4000"));
    for signals in [["-TERM", "-TERM"], ["-INT", "-INT"], ["-HUP", "-TERM"]] {
        let begun = steps(dir.path()).len();
        let mut child = start(dir.path(), || steps(dir.path()).len() > begun + 2).unwrap();
        let pid = child.id().to_string();
        send(signals[0], &pid);
        send(signals[1], &format!("-{pid}"));
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signals:?}");
        let result = result(dir.path());
        assert_eq!(result["status"], "interrupted", "{signals:?}: {result}");
        assert!(!result["ended"].is_null());
    }
}

#[cfg(unix)]
#[test]
fn a_second_run_of_a_job_is_refused_and_a_killed_one_is_told() {
    let epochs = |n: usize| JOB.replace("\"lora.epochs\" = 3", &format!("\"lora.epochs\" = {n}"));
    let dir = project(&epochs(4000));
    let mut first = start(dir.path(), || steps(dir.path()).len() > 2).unwrap();
    let before = result(dir.path());
    assert_eq!(before["status"], "running");
    let text = run(dir.path(), 1);
    for part in ["job small", "result.json", "another run"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(result(dir.path()), before);
    // A plan needs no lock.
    let dry = program(dir.path(), &["run", "small", "--dry-run"]).output();
    said(&dry.unwrap(), 0);
    // The lock dies with its holder, which the file does not say.
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(result(dir.path()), before);
    std::fs::write(dir.path().join("casebook.toml"), epochs(1)).unwrap();
    let text = run(dir.path(), 0);
    let notes: Vec<&str> = text.lines().filter(|l| l.starts_with("note:")).collect();
    assert_eq!(notes.len(), 1, "{text}");
    let begun = before["started"].as_str().unwrap();
    assert!(
        notes[0].contains("killed") && notes[0].contains(begun),
        "{text}"
    );
    assert_eq!(result(dir.path())["status"], "ok");
    assert!(!run(dir.path(), 0).contains("killed"));
}

#[test]
fn a_target_that_would_double_its_rows_says_so() {
    let generate = JOB.split("[jobs.small.train]").next().unwrap();
    let run = |dir: &Path, args: &[&str]| {
        let args = [&["run", "small"], args].concat();
        let text = said(&program(dir, &args).output().unwrap(), 0);
        text.lines()
            .filter(|l| l.starts_with("warning:"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows = |dir: &Path| {
        result(dir)["generated"]["target_rows"]["ok"]
            .as_u64()
            .unwrap()
    };
    for (key, doubles) in [
        ("", true),
        (", \"write.key\" = \"qa_id\"", false),
        (
            ", \"write.app_id\" = \"nightly\", \"write.version\" = 7",
            false,
        ),
    ] {
        let dir = project(&generate.replace(", \"write.key\" = \"qa_id\"", key));
        let dir = dir.path();
        assert!(run(dir, &["--dry-run"]).is_empty());
        assert!(run(dir, &[]).is_empty(), "an empty target");
        let once = rows(dir);
        let warnings = run(dir, &[]);
        assert_eq!(warnings.len(), usize::from(doubles), "{key}: {warnings:?}");
        for warning in warnings {
            assert!(
                warning.contains("[tables.qa]")
                    && warning.contains("write.key")
                    && warning.contains("INSERT OVERWRITE"),
                "{warning}"
            );
        }
        assert_eq!(rows(dir), once * (1 + u64::from(doubles)), "{key}");
        assert!(run(dir, &["-q"]).is_empty());
    }
}

/// INSERT into the LORA directory `out/lora`: twelve facts of `who`.
#[cfg(unix)]
fn train(dir: &Path, who: &str, epochs: usize) -> Command {
    let rows: Vec<String> = (0..12)
        .map(|i| format!("('{who} Who number {i}?','Answer {who} {i}')"))
        .collect();
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS LORA LOCATION 'out/lora' OPTIONS ('lora.rank' '4',
         'lora.epochs' '{epochs}', 'lora.mode' 'resume_or_overwrite', 'lora.batch_tokens' '64');
         INSERT INTO t (question, answer) VALUES {}",
        rows.join(",")
    );
    program(dir, &["sql", "-q", &sql])
}

#[cfg(unix)]
#[test]
fn a_second_training_in_a_directory_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("out/lora/run");
    let examples = || std::fs::read_to_string(run.join("examples.jsonl")).unwrap_or_default();
    let mut first = train(dir.path(), "k1", 400)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !run.join("train_log.jsonl").exists() {
        assert!(first.try_wait().unwrap().is_none() && begun.elapsed().as_secs() < 60);
        std::thread::sleep(Duration::from_millis(20));
    }
    let settings = std::fs::read(run.join("settings.json")).unwrap();
    let second = said(&train(dir.path(), "k2", 1).output().unwrap(), 1);
    assert!(second.contains("being written by another run"), "{second}");
    assert!(examples().contains("k1 Who") && !examples().contains("k2 Who"));
    assert_eq!(std::fs::read(run.join("settings.json")).unwrap(), settings);
    // The lock ends with its holder, also when that is killed; then the other may train.
    first.kill().unwrap();
    first.wait().unwrap();
    said(&train(dir.path(), "k2", 1).output().unwrap(), 0);
    assert!(examples().contains("k2 Who") && !examples().contains("k1 Who"));
    assert!(dir.path().join("out/lora/adapter_config.json").exists());
}

#[test]
fn compare_reads_files_and_says_what_is_missing() {
    let dir = project(JOB);
    let compare = |args: &[&str], code: i32, part: &str| {
        let args: Vec<&str> = ["compare", "-q"].iter().chain(args).copied().collect();
        let text = said(&program(dir.path(), &args).output().unwrap(), code);
        assert!(text.contains(part), "{part}: {text}");
    };
    let tiny = ["builtin:tiny", "--base", "builtin:tiny"];
    let with = |more: &[&'static str]| tiny.iter().chain(more).copied().collect::<Vec<_>>();
    compare(&with(&["--probes", "probes.csv"]), 0, "other wording");
    compare(&with(&["--probes", "nowhere.csv"]), 2, "nowhere.csv");
    compare(&with(&["--probes", "probes"]), 0, "seen questions");
    compare(&with(&["--probes", "casse"]), 2, "neither a table nor");
    compare(
        &with(&["--held-out", "probes.csv"]),
        2,
        "no column document",
    );
    compare(&with(&[]), 2, "no questions");
    compare(&["builtin:tiny", "--probes", "probes"], 2, "no adapter");
    let html = ["--probes", "probes", "--html", "cases.csv/page.html"];
    compare(&with(&html), 2, "there is no directory cases.csv");
}

/// A warehouse that takes rows and gives none.
#[derive(Debug)]
struct Unreadable(MemTable);

#[async_trait::async_trait]
impl TableProvider for Unreadable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(Error::new(ErrorKind::Unavailable, "the warehouse sleeps").into())
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.0.insert_into(state, input, op).await
    }
}

#[derive(Debug)]
struct UnreadableFactory;

#[async_trait::async_trait]
impl TableProviderFactory for UnreadableFactory {
    async fn create(
        &self,
        _: &dyn Session,
        _: &CreateExternalTable,
    ) -> DataFusionResult<Arc<dyn TableProvider>> {
        let table = MemTable::try_new(casebook::schema::qa_pairs(), vec![vec![]])?;
        Ok(Arc::new(Unreadable(table)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_counted_has_its_rows_all_the_same() {
    let dir = project(
        r#"
[tables.cases]
format = "csv"
location = "cases.csv"
[tables.qa]
format = "snowflake"
location = "db.s.qa"
options = { "write.key" = "qa_id" }
[jobs.small]
source = "cases"
target = "qa"
arguments = { max_pairs_per_document = 2, "checks.ungrounded" = false }
output = "out"
"#,
    );
    let config = Config::load(&dir.path().join("casebook.toml"), &|_| None).unwrap();
    let casebook = Arc::new(config.casebook().unwrap());
    let ctx = casebook::new_session(&casebook).unwrap();
    ctx.state_ref()
        .write()
        .table_factories_mut()
        .insert("SNOWFLAKE".into(), Arc::new(UnreadableFactory));
    config.register_tables(&ctx).unwrap();
    let job = config.job("small").unwrap();
    let id = RunId {
        id: "r".into(),
        now: SystemTime::now,
    };
    let mut told = 0;
    let mut observer = |event: Event<'_>| {
        if let Event::Generated(generated) = event {
            assert!(generated.new_rows > 0 && generated.target_rows.is_empty());
            told += 1;
        }
    };
    let (outcome, _) = run_job(&ctx, &casebook, &job, &id, &mut observer)
        .await
        .unwrap();
    let generated = outcome.generated.unwrap();
    assert_eq!((generated.documents, told), (3, 1));
    let written = result(dir.path());
    assert_eq!(written["status"], "ok");
    assert_eq!(written["generated"]["new_rows"], generated.new_rows);
}
