//! What fuzzing calls, one function per kind of input: any bytes are read or refused, without a
//! panic. `fuzz/` runs them by the hour; here they run on mutations of small valid inputs.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use casebook::config::Config;
use casebook::functions::docs_to_qa::arguments::QaArguments;
use casebook::{Casebook, new_session};
use datafusion::sql::sqlparser::ast::{Expr, FunctionArguments};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::StreamExt;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// casebook.toml, and everything that its jobs, tables and profiles come to.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let environment = |name: &str| (name.len() == 1).then(|| name.repeat(3));
    let Ok(config) = Config::parse(Path::new("casebook.toml"), &text, &environment) else {
        return;
    };
    let _ = format!("{config:?} {:?}", config.casebook());
    for name in config.table_names() {
        let _ = config.check_request(name);
    }
    for name in config.job_names() {
        let _ = config.job(name);
    }
}

/// The arguments of a call of docs_to_qa.
pub(crate) fn arguments(data: &[u8]) {
    let sql = format!("docs_to_qa({})", String::from_utf8_lossy(data));
    let Ok(mut parser) = Parser::new(&GenericDialect {}).try_with_sql(&sql) else {
        return;
    };
    if let Ok(Expr::Function(function)) = parser.parse_expr()
        && let FunctionArguments::List(list) = function.args
    {
        let _ = QaArguments::from_sql(list.args);
    }
}

/// A CSV file.
pub(crate) fn csv(data: &[u8]) {
    table("CSV", "t.csv", data);
}

/// A JSON file.
pub(crate) fn json(data: &[u8]) {
    table("JSON", "t.json", data);
}

/// A Parquet file.
#[allow(dead_code)] // for fuzz/: the connectors' own tests mutate these
pub(crate) fn parquet(data: &[u8]) {
    table("PARQUET", "t.parquet", data);
}

/// The first commit of a Delta table.
#[allow(dead_code)] // for fuzz/: the connectors' own tests mutate these
pub(crate) fn delta(data: &[u8]) {
    table("DELTA", "_delta_log/00000000000000000000.json", data);
}

/// Reads a table whose directory holds `data` in the file `name`.
fn table(format: &str, name: &str, data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, data).unwrap();
    let place = match format {
        "DELTA" => dir.path(),
        _ => path.as_path(),
    };
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{}'",
        place.display()
    );
    RUNTIME.block_on(async {
        let ctx = new_session(&Arc::new(Casebook::default())).unwrap();
        let Ok(created) = ctx.sql(&create).await else {
            return;
        };
        if created.collect().await.is_err() {
            return;
        }
        let Ok(frame) = ctx.sql("SELECT * FROM t").await else {
            return;
        };
        if let Ok(mut rows) = frame.execute_stream().await {
            while let Some(Ok(_)) = rows.next().await {}
        }
    });
}
