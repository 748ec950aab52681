//! Every sink, killed with SIGKILL at random moments and run again: no row is lost, none doubled.
//!
//! The writer is this test binary, started again with [`CHILD`] set. Three kills per sink, or as
//! many as CASEBOOK_CRASH_KILLS says; with --nocapture each prints a line of a table.

use std::hash::{BuildHasher, RandomState};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::error::Result;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::files::place::Place;

const CHILD: &str = "CASEBOOK_CRASH_CHILD";
const KEY: &str = "'write.key' 'qa_id'";
const RECORDED: &str = "'write.app_id' 'job', 'write.version' '1'";
/// One row in so many is rejected.
const REJECTED: usize = 10;

/// A table to write, and how much goes into it: enough for several files, statements or pieces.
struct Target {
    format: &'static str,
    location: String,
    /// Of CREATE EXTERNAL TABLE, without those that say how to write.
    options: String,
    once: &'static str,
    rows: usize,
    /// Length of a text, in 32 characters.
    repeats: usize,
    /// PARTITIONED BY, with which a kill may leave a part that the next INSERT completes.
    folders: &'static str,
}

impl Target {
    fn create(&self, name: &str, location: &str, more: &str) -> String {
        let mut options = vec![];
        options.extend((!self.options.is_empty()).then_some(self.options.as_str()));
        options.extend((!more.is_empty()).then_some(more));
        let options = match options.is_empty() {
            true => String::new(),
            false => format!("OPTIONS ({})", options.join(", ")),
        };
        format!(
            "CREATE EXTERNAL TABLE {name} STORED AS {} {} LOCATION '{location}' {options}",
            self.format, self.folders
        )
    }

    /// What the writer runs.
    fn statements(&self) -> [String; 2] {
        let once = self.once;
        let write = format!("'table.create' 'pairs', 'write.rejects' 'separate', {once}");
        let insert = format!(
            "INSERT INTO t (qa_id, answer, status) SELECT 'k' || value, repeat(md5(CAST(value AS VARCHAR)), {}), \
             CASE WHEN value % {REJECTED} = 0 THEN 'rejected' ELSE 'ok' END \
             FROM generate_series(1, {})",
            self.repeats, self.rows
        );
        [self.create("t", &self.location, &write), insert]
    }

    fn start(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD, self.statements().join("\n"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Rows, distinct keys and characters of the table and of its rejects; "none" for one that is
    /// not there.
    async fn held(&self) -> [String; 2] {
        let end = self.location.trim_end_matches('/').len();
        let (name, slash) = self.location.split_at(end);
        let rejects = format!("{name}_rejects{slash}");
        [
            self.held_at(&self.location).await,
            self.held_at(&rejects).await,
        ]
    }

    async fn held_at(&self, location: &str) -> String {
        let ctx = session();
        if let Err(error) = run(&ctx, &self.create("t", location, "")).await {
            let error = error.to_string();
            let missing = ["no ", "not exist", "not found", "not there"];
            assert!(missing.iter().any(|m| error.contains(m)), "{error}");
            return "none".to_owned();
        }
        let sql = "SELECT count(*), count(DISTINCT qa_id), coalesce(sum(length(answer)), 0) FROM t";
        run(&ctx, sql).await.unwrap()
    }

    /// What the two tables hold when everything is there.
    fn whole(&self) -> [String; 2] {
        let rejected = self.rows / REJECTED;
        let shown = |rows: usize| format!("{rows} {rows} {}", rows * self.repeats * 32);
        [shown(self.rows - rejected), shown(rejected)]
    }
}

fn session() -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let fields = ["qa_id", "answer", "status"].map(|n| Field::new(n, DataType::Utf8View, true));
    let options = ConnectorOptions {
        table_schemas: vec![("pairs", Arc::new(Schema::new(fields.to_vec())))],
        accepted: Some(casebook_connectors::AcceptedRows {
            column: "status",
            value: "ok",
        }),
        ..ConnectorOptions::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

/// The first row of what `sql` finds.
async fn run(ctx: &SessionContext, sql: &str) -> Result<String> {
    let batches = ctx.sql(sql).await?.collect().await?;
    let Some(batch) = batches.first().filter(|b| b.num_rows() > 0) else {
        return Ok(String::new());
    };
    let cells = batch
        .columns()
        .iter()
        .map(|c| array_value_to_string(c, 0).unwrap());
    Ok(cells.collect::<Vec<_>>().join(" "))
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if let Ok(statements) = std::env::var(CHILD) {
        let ctx = session();
        for sql in statements.lines() {
            run(&ctx, sql).await.unwrap();
        }
    }
}

/// Kills writers of the tables that `target` makes of a number and compares with one that was not.
async fn crash(sink: &str, target: impl Fn(usize) -> Target) {
    let undisturbed = target(0);
    let started = Instant::now();
    assert!(undisturbed.start().wait().unwrap().success());
    let took = started.elapsed();
    let whole = undisturbed.whole();
    assert_eq!(undisturbed.held().await, whole, "{sink}");

    let kills = std::env::var("CASEBOOK_CRASH_KILLS").map_or(3, |n| n.parse().unwrap());
    for kill in 1..=kills {
        let target = target(kill);
        let mut writer = target.start();
        // The moment is what is random here.
        let share = RandomState::new().hash_one(kill) as f64 / u64::MAX as f64;
        tokio::time::sleep(took.mul_f64(share)).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let [main, rejects] = target.held().await;
        let in_folders = !target.folders.is_empty();
        let seen = |held: &str, whole: &str| in_folders || ["none", "0 0 0", whole].contains(&held);
        assert!(
            seen(&main, &whole[0]),
            "{sink}: half an INSERT is visible: {main}"
        );
        assert!(
            seen(&rejects, &whole[1]),
            "{sink}: half the rejects are visible: {rejects}"
        );
        if main == whole[0] {
            assert_eq!(
                rejects, whole[1],
                "{sink}: the target came before its rejects"
            );
        }
        assert!(target.start().wait().unwrap().success(), "{sink}");
        let after = target.held().await;
        println!(
            "| {sink} | {kill} | {:.2} of {:.2} s | {main} | {rejects} | {} | {} |",
            took.mul_f64(share).as_secs_f64(),
            took.as_secs_f64(),
            after[0],
            after[1]
        );
        assert_eq!(after, whole, "{sink}, killed after {share} of {took:?}");
    }
}

async fn crash_files(sink: &str, place: Option<Place>, format: &'static str, once: &'static str) {
    let Some(place) = place else { return };
    let repeats = if format == "DELTA" { 200 } else { 60 };
    crash(sink, |number| Target {
        format,
        location: format!("{}qa{number}/", place.base),
        options: place.options.trim_end_matches([',', ' ']).to_owned(),
        once,
        rows: 30_000,
        repeats,
        folders: "",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_in_folders_by_key() {
    let place = Place::local();
    crash("CSV in folders, key", |number| Target {
        format: "CSV",
        location: format!("{}qa{number}/", place.base),
        options: String::new(),
        once: KEY,
        rows: 500,
        repeats: 60,
        folders: "PARTITIONED BY (qa_id)",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_by_key() {
    crash_files("Delta, key", Some(Place::local()), "DELTA", KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_by_version() {
    crash_files("Delta, version", Some(Place::local()), "DELTA", RECORDED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_in_s3() {
    crash_files("Delta in S3, key", Place::s3(), "DELTA", KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_in_gcs() {
    crash_files("Delta in GCS, key", Some(Place::gcs()), "DELTA", KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_by_version() {
    crash_files(
        "Parquet, version",
        Some(Place::local()),
        "PARQUET",
        RECORDED,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_in_azure() {
    crash_files("Parquet in Azure, key", Place::azure(), "PARQUET", KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_by_key() {
    crash_files("CSV, key", Some(Place::local()), "CSV", KEY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_in_s3() {
    crash_files("JSON in S3, version", Place::s3(), "JSON", RECORDED).await;
}

#[cfg(feature = "snowflake")]
#[tokio::test(flavor = "multi_thread")]
async fn snowflake() {
    let Some(url) = crate::snowflake::service() else {
        return;
    };
    crate::snowflake::Admin::new(&url, "CRASH").await;
    let run = std::process::id();
    crash("Snowflake, key", |number| Target {
        format: "SNOWFLAKE",
        location: format!("CRASH.PUBLIC.PAIRS_{run}_{number}"),
        options: format!(
            "'snowflake.account' 'acct', 'snowflake.host' '{url}', 'snowflake.allow_http' 'true', 'snowflake.user' 'me', \
             'snowflake.password' 'hunter2'"
        ),
        once: KEY,
        rows: 900,
        repeats: 900,
        folders: "",
    })
    .await;
}

#[cfg(feature = "databricks")]
#[tokio::test(flavor = "multi_thread")]
async fn databricks() {
    use crate::fake::databricks::{Fake, TOKEN};
    let fake = Fake::start().await;
    crash("Databricks warehouse, key", |number| Target {
        format: "DATABRICKS",
        location: format!("main.legal.qa{number}"),
        options: format!(
            "'databricks.host' '{}', 'databricks.token' '{TOKEN}', \
             'databricks.warehouse_id' 'wh1'",
            fake.url
        ),
        once: KEY,
        rows: 60,
        repeats: 9000,
        folders: "",
    })
    .await;
}

#[cfg(feature = "odbc")]
async fn crash_odbc(sink: &str, source: Option<crate::odbc::Source>) {
    let Some(source) = source else { return };
    crash(sink, |number| Target {
        format: "ODBC",
        location: source.table(&format!("qa{number}")),
        options: format!("'odbc.connection_string' '{}'", source.connection),
        once: KEY,
        rows: 20_000,
        repeats: 8,
        folders: "",
    })
    .await;
}

#[cfg(feature = "odbc")]
#[tokio::test(flavor = "multi_thread")]
async fn postgresql() {
    crash_odbc("PostgreSQL, key", crate::odbc::Source::postgres("crash")).await;
}

#[cfg(feature = "odbc")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    crash_odbc("SQLite, key", crate::odbc::Source::sqlite()).await;
}
