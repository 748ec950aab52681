//! A writer that is killed at any moment and run again leaves what an undisturbed one leaves.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Source, one, session};

/// Says to [`child_writer`] where to write; unset in an ordinary run.
const CHILD: &str = "CASEBOOK_TEST_ODBC_CHILD";
const KILLS: u64 = 3;
const ROWS: usize = 20_000;

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn child_writer() {
    let Ok(target) = std::env::var(CHILD) else {
        return;
    };
    let (connection, location) = target.split_once('\n').unwrap();
    let ctx = session();
    let options = [("table.create", "qa_pairs"), ("write.key", "qa_id")];
    super::create(&ctx, "qa", location, connection, &options)
        .await
        .unwrap();
    eprintln!("writing");
    insert(&ctx).await;
}

async fn insert(ctx: &datafusion::prelude::SessionContext) {
    let sql = format!(
        "INSERT INTO qa SELECT 'k' || value, value, value * 3, repeat('answer ', 30) || value, \
         value / 8.0 FROM generate_series(1, {ROWS})"
    );
    ctx.sql(&sql).await.unwrap().collect().await.unwrap();
}

/// A writer that has begun.
fn start(source: &Source, table: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "odbc::killed::child_writer", "--nocapture"])
        .env(
            CHILD,
            format!("{}\n{}", source.connection, source.table(table)),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in lines {
        if line.unwrap().contains("writing") {
            break;
        }
    }
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_run_again_it_is_complete() {
    for source in Source::all("killed") {
        let began = Instant::now();
        let mut undisturbed = start(&source, "whole");
        assert!(undisturbed.wait().unwrap().success());
        let whole = began.elapsed();
        for kill in 0..KILLS {
            let mut child = start(&source, "qa");
            // Early, in the middle, near the end: any moment will do.
            std::thread::sleep(
                whole.mul_f64((kill as f64 + 0.5) / KILLS as f64) / 2 + Duration::from_millis(kill),
            );
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let ctx = session();
        let options = [("table.create", "qa_pairs"), ("write.key", "qa_id")];
        source
            .create_with(&ctx, "qa", "qa", &options)
            .await
            .unwrap();
        source
            .create_with(&ctx, "whole", "whole", &options)
            .await
            .unwrap();
        insert(&ctx).await;
        assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, ROWS.to_string());
        for (a, b) in [("qa", "whole"), ("whole", "qa")] {
            let differ =
                format!("SELECT count(*) FROM (SELECT * FROM {a} EXCEPT SELECT * FROM {b})");
            assert_eq!(one(&ctx, &differ).await, "0");
        }
    }
}
