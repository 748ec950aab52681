//! One binary of integration tests; a module per topic.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout // a test that is skipped says so
)]

#[path = "integration/bad_input.rs"]
mod bad_input;
#[path = "integration/checked.rs"]
mod checked;
#[path = "integration/documents.rs"]
mod documents;
#[path = "integration/effects.rs"]
mod effects;
#[path = "integration/endpoint.rs"]
mod endpoint;
#[path = "integration/from_0_1.rs"]
mod from_0_1;
#[path = "integration/fuzzed.rs"]
mod fuzzed;
#[path = "integration/hidden.rs"]
mod hidden;
#[path = "integration/host.rs"]
mod host;
#[path = "integration/imports.rs"]
mod imports;
#[path = "integration/inputs.rs"]
mod inputs;
#[path = "integration/job.rs"]
mod job;
#[path = "integration/mutations.rs"]
mod mutations;
#[path = "integration/names.rs"]
mod names;
#[path = "integration/opening.rs"]
mod opening;
#[path = "integration/output.rs"]
mod output;
#[path = "integration/pipeline.rs"]
mod pipeline;
#[path = "integration/program.rs"]
mod program;
#[path = "integration/project.rs"]
mod project;
#[path = "integration/reference.rs"]
mod reference;
#[path = "integration/remote.rs"]
mod remote;
#[path = "integration/secrets.rs"]
mod secrets;
#[path = "integration/stopping.rs"]
mod stopping;
#[path = "integration/structure.rs"]
mod structure;

use std::sync::Arc;

use casebook::{Casebook, new_session};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

/// Three short opinions with two facts each.
const CASES: &str = "id,name,court,decision_date,citation,text\n\
    a,Roe v. Acme,First Circuit,1993-03-01,1 F.3d 7,\"On May 3, 1992, Roe filed a complaint \
    against Acme for breach of contract. The district court granted summary judgment to Acme. We \
    affirm the judgment of the district court.\"\n\
    b,Doe v. Baker,Second Circuit,1994-04-02,2 F.3d 8,\"Doe was convicted of mail fraud and was \
    sentenced to 37 months in prison. He appeals from the sentence. We vacate the sentence and \
    remand the case.\"\n\
    c,Poe v. Clark,First Circuit,1995-05-03,3 F.3d 9,\"\"\n";

/// A session with the table `cases` in a scratch directory.
async fn session() -> (SessionContext, Arc<Casebook>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cases.csv"), CASES).unwrap();
    let casebook = Arc::new(Casebook::default());
    let ctx = new_session(&casebook).unwrap();
    let path = dir.path().join("cases.csv");
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION '{}'",
            path.display()
        ),
    )
    .await
    .unwrap();
    (ctx, casebook, dir)
}

/// Runs one statement and returns its rows as a table.
async fn run(ctx: &SessionContext, sql: &str) -> casebook::Result<String> {
    let batches = ctx.sql(sql).await?.collect().await?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

/// The error of one statement.
async fn error(ctx: &SessionContext, sql: &str) -> casebook::Error {
    match run(ctx, sql).await {
        Ok(rows) => panic!("{sql} succeeded:\n{rows}"),
        Err(error) => error,
    }
}

/// The only number in the only row of a query.
async fn number(ctx: &SessionContext, sql: &str) -> i64 {
    let rows = run(ctx, sql).await.unwrap();
    let line = rows.lines().nth(3).unwrap();
    line.trim_matches(['|', ' ']).trim().parse().unwrap()
}
