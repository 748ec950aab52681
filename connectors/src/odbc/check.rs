//! `casebook check` for ODBC: the options, the driver, the host, the login, the table, a scratch
//! table.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use uuid::Uuid;

use super::name::table_name;
use super::session::Session;
use super::settings::{Settings, off_thread};
use super::types;
use crate::check::{CheckRequest, Steps};
use crate::connector::Connector;
use crate::error::{Error, ErrorKind, Result};
use crate::options::TableOptions;
use crate::sql::ddl::create_table;
use crate::sql::dialect::SqlDialect;

/// Checks one table; None as soon as a step failed.
pub(crate) async fn check(
    connector: &'static Connector,
    request: &CheckRequest,
    steps: &mut Steps,
) -> Option<()> {
    let prepared = prepare(connector, request).await;
    let (settings, name) = steps.note("options", prepared, |_| "valid".into())?;
    let (mut noted, write) = (std::mem::take(steps), request.write);
    let blocking = off_thread(move || {
        run(&settings, name, write, &mut noted);
        Ok(noted)
    });
    match blocking.await {
        Ok(noted) => *steps = noted,
        Err(error) => return steps.note("driver", Err(error), |()| String::new()),
    }
    Some(())
}

async fn prepare(
    connector: &'static Connector,
    request: &CheckRequest,
) -> Result<(Settings, Vec<String>)> {
    let options = TableOptions::parse(connector, &request.location, &request.options)?;
    let name = table_name(&request.location)?;
    Ok((Settings::resolve(options).await?, name))
}

/// None as soon as a step failed.
fn run(settings: &Settings, name: Vec<String>, write: bool, steps: &mut Steps) -> Option<()> {
    let session = connect(settings, steps)?;
    let system = session.dialect();
    let dialect = steps.note("system", system, |d| format!("speaks {}", d.name))?;
    let table = dialect.table(&name);
    let columns = types::describe(&session, dialect, &name);
    steps.note("read", columns, |columns| {
        format!("{table} has {} columns", columns.iter().len())
    })?;
    if write {
        let written = write_scratch(&session, dialect, name);
        steps.note("write", written, |name| format!("{name}, removed again"))?;
    }
    Some(())
}

/// Connecting is one call, which says by its error how far it came.
fn connect<'s>(settings: &'s Settings, steps: &mut Steps) -> Option<Session<'s>> {
    let found = |_: &()| String::from("found");
    let reached = |_: &()| String::from("reached");
    match Session::open(settings) {
        Ok(session) => {
            steps.note("driver", Ok(()), found)?;
            steps.note("reach", Ok(()), reached)?;
            steps.note("sign in", Ok(session), |_| "accepted".into())
        }
        Err(error) => {
            let missing = error.to_string().contains("installed: ");
            if missing {
                return steps.note("driver", Err(error), |_: &Session<'_>| String::new());
            }
            steps.note("driver", Ok(()), found)?;
            if error.kind() != ErrorKind::Denied {
                return steps.note("reach", Err(error), |_: &Session<'_>| String::new());
            }
            steps.note("reach", Ok(()), reached)?;
            steps.note("sign in", Err(error), |_: &Session<'_>| String::new())
        }
    }
}

/// Makes a table beside the one that is checked, writes a row, removes it again.
fn write_scratch(
    session: &Session<'_>,
    dialect: &'static SqlDialect,
    mut name: Vec<String>,
) -> Result<String> {
    let last = name
        .last_mut()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a table without a name"))?;
    // Not the number of the process, which is the same in every container; some systems cut names
    // at 30.
    let unique = &Uuid::new_v4().simple().to_string()[..8];
    *last = format!("casebook_check_{unique}");
    let table = dialect.table(&name);
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
    let doing = format!("writing to the scratch table {table}");
    session.run(&doing, &create_table(dialect, &table, &schema, None)?)?;
    let column = dialect.quoted("n");
    let written = session.run(
        &doing,
        &format!("INSERT INTO {table} ({column}) VALUES (1)"),
    );
    let removed = session.run(&format!("removing {table}"), &format!("DROP TABLE {table}"));
    written?;
    removed?;
    Ok(table)
}
