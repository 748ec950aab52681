//! What the tests of CSV as statements see it share: a session, a question, rows as text.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::{ConnectorOptions, register};

/// A session with our CSV.
pub(super) fn session() -> SessionContext {
    // Without one, TIMESTAMP WITH TIME ZONE has none.
    let config = SessionConfig::new().set_str("datafusion.execution.time_zone", "+00:00");
    let ctx = SessionContext::new_with_config(config);
    register(&ctx, &ConnectorOptions::default()).unwrap();
    ctx
}

/// The rows of the last statement of `sql`: cells between `|`, rows between `/`, null as `~`.
pub(super) async fn ask(ctx: &SessionContext, sql: &str) -> Result<String, String> {
    Ok(shown(&batches(ctx, sql).await?))
}

pub(super) async fn batches(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = ctx.sql(sql).await.map_err(|e| e.to_string())?;
    frame.collect().await.map_err(|e| e.to_string())
}

pub(super) fn shown(batches: &[RecordBatch]) -> String {
    let options = FormatOptions::default().with_null("~");
    let mut rows = vec![];
    for batch in batches {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows.join("/")
}

/// OPTIONS of a statement.
pub(super) fn options(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("'{key}' '{}'", value.replace('\'', "''")))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("OPTIONS ({})", pairs.join(", ")),
    }
}
