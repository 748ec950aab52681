//! Reads a table over ODBC and says how fast and in how much memory: the bench of benches/odbc.
//!
//! ```text
//! CASEBOOK_ODBC=... cargo run --release -p casebook-connectors --features odbc \
//!     --example odbc_read -- schema.table
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

#[tokio::main]
async fn main() {
    let location = std::env::args()
        .nth(1)
        .expect("the table, as in schema.table");
    let connection = std::env::var("CASEBOOK_ODBC").expect("CASEBOOK_ODBC: the connection string");
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_batch_size(1024));
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS ODBC LOCATION '{location}' OPTIONS \
         ('odbc.connection_string' '{connection}')"
    );
    ctx.sql(&create).await.unwrap();
    let began = Instant::now();
    let frame = ctx.sql("SELECT * FROM t").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.unwrap();
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap_or("?")
        .trim();
    println!("casebook: {rows} rows, {bytes} bytes of batches, {seconds:.2} s, peak {peak}");
}
