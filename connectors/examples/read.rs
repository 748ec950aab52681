//! Reads a table as a stream of batches and says how fast and in how much memory: what the
//! comparisons of benches/ run.
//!
//! ```text
//! cargo run --release -p casebook-connectors --example read -- CSV cases.csv
//! cargo run --release -p casebook-connectors --example read -- DELTA s3://bucket/cases aws.region=eu-west-1
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let format = arguments.next().expect("a format, as in STORED AS");
    let location = arguments.next().expect("a location");
    let options = arguments.map(|option| {
        let (key, value) = option.split_once('=').expect("options as KEY=VALUE");
        format!("'{key}' '{}'", value.replace('\'', "''"))
    });
    let options = match options.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => none,
        some => format!("OPTIONS ({some})"),
    };
    // The batch size that the casebook program sets: documents are long.
    let config = SessionConfig::new().with_batch_size(256);
    let ctx = SessionContext::new_with_config(config);
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let create =
        format!("CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{location}' {options}");
    ctx.sql(&create).await.unwrap();
    let began = Instant::now();
    let frame = ctx.sql("SELECT * FROM t").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = peak.unwrap_or("0").trim().trim_end_matches(" kB");
    println!("{rows} {seconds} {kilobytes}");
}
