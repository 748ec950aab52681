//! A writer that is killed with SIGKILL at random moments and run again.
//!
//! The writer is this test binary, started again with [`TABLE`] and [`OPTIONS`] set.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::{create, rows, run, session};

const TABLE: &str = "CASEBOOK_CRASH_TABLE";
const OPTIONS: &str = "CASEBOOK_CRASH_OPTIONS";
const TEST: &str = "delta::crash::a_killed_writer_run_again_loses_and_doubles_nothing";

/// Several files' worth of rows, a tenth of them rejected.
const INSERT: &str = "INSERT INTO t SELECT value::varchar, repeat(md5(value::varchar), 200), \
                      CASE WHEN value % 10 = 0 THEN 'rejected' ELSE 'ok' END \
                      FROM generate_series(1, 30000)";

/// What the tables hold when everything is there.
const WHOLE: [&str; 2] = ["27000 | 27000 | 172800000", "3000 | 3000 | 19200000"];

fn start(table: &Path, options: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST])
        .env(TABLE, table)
        .env(OPTIONS, options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Rows, distinct keys and characters of the table at `location`; "none" if it is not there.
async fn held(location: &Path) -> String {
    if !location
        .join("_delta_log/00000000000000000000.json")
        .exists()
    {
        return "none".into();
    }
    let ctx = session();
    run(&ctx, &create("t", location, "")).await;
    let sql = "SELECT count(*), count(DISTINCT qa_id), coalesce(sum(length(answer)), 0) FROM t";
    rows(&ctx, sql).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_run_again_loses_and_doubles_nothing() {
    if let (Ok(table), Ok(options)) = (std::env::var(TABLE), std::env::var(OPTIONS)) {
        let ctx = session();
        run(&ctx, &create("t", Path::new(&table), &options)).await;
        run(&ctx, INSERT).await;
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let options =
        |once: &str| format!("'table.create' 'pairs', 'write.rejects' 'separate', {once}");
    let key = options("'write.key' 'qa_id'");
    let recorded = options("'write.app_id' 'job', 'write.version' '1'");
    let place = |name: &str| {
        let rejects = scratch.path().join(format!("{name}_rejects"));
        (scratch.path().join(name), rejects)
    };

    let (main, rejects) = place("whole");
    let started = Instant::now();
    assert!(start(&main, &key).wait().unwrap().success());
    let whole = started.elapsed();
    assert_eq!([held(&main).await, held(&rejects).await], WHOLE);

    let kills = std::env::var("CASEBOOK_CRASH_KILLS").map_or(3, |n| n.parse().unwrap());
    for kill in 0..kills {
        let options = [&key, &recorded][kill % 2];
        let (main, rejects) = place(&format!("killed{kill}"));
        let mut writer = start(&main, options);
        // The moment is what is random here.
        let moment = whole.mul_f64(RandomState::new().hash_one(kill) as f64 / u64::MAX as f64);
        tokio::time::sleep(moment).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let (after, after_rejects) = (held(&main).await, held(&rejects).await);
        println!("killed after {moment:?} of {whole:?}: {after}; rejects {after_rejects}");
        let seen = |held: &str, whole: &str| ["none", "0 | 0 | 0", whole].contains(&held);
        assert!(seen(&after, WHOLE[0]), "half a commit is visible: {after}");
        assert!(seen(&after_rejects, WHOLE[1]), "{after_rejects}");
        assert!(start(&main, options).wait().unwrap().success());
        assert_eq!([held(&main).await, held(&rejects).await], WHOLE);
    }
}
