//! `casebook check` for a Snowflake table: options, reach, sign in, read, write.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::name::{TableName, quoted};
use super::read::Reader;
use super::session::{Session, WhenLost};
use super::settings::Settings;
use super::statement::Statement;
use super::system::SnowflakeSystem;
use crate::check::{CheckRequest, Steps};
use crate::connector::Connector;
use crate::error::Result;
use crate::http::{self, Retry};
use crate::options::TableOptions;
use crate::sql::dialect::SNOWFLAKE;
use crate::sql::system::SqlSystem;

/// Checks the table that `request` names; None as soon as a step failed.
pub(crate) async fn check(
    connector: &'static Connector,
    request: &CheckRequest,
    steps: &mut Steps,
) -> Option<()> {
    let (name, settings, creates) =
        steps.note("options", resolve(connector, request), |(_, s, _)| {
            let user = s.user.as_deref().unwrap_or("the token's user");
            format!("account {} as {user}", s.account)
        })?;
    let host = settings.base.host_str().unwrap_or_default().to_owned();
    let session = steps.note("reach", reach(settings).await, |_| host)?;
    steps.note("sign in", session.start().await, |()| "accepted".into())?;
    let parts = steps.note(
        "read",
        read(&session, &name, creates).await,
        |(_, found)| found.clone(),
    )?;
    if request.write {
        let written = write_scratch(&session, &parts.0).await;
        steps.note("write", written, |name| format!("{name}, removed again"))?;
    }
    Some(())
}

fn resolve(
    connector: &'static Connector,
    request: &CheckRequest,
) -> Result<(TableName, Settings, bool)> {
    let options = TableOptions::parse(connector, &request.location, &request.options)?;
    let settings = Settings::resolve(&options)?;
    let name = TableName::parse(&request.location, &settings)?;
    Ok((name, settings, options.get("table.create").is_some()))
}

/// Any answer of the host will do.
async fn reach(settings: Settings) -> Result<Arc<Session>> {
    let session = Session::new(settings, WhenLost::Fail)?;
    let url = session.settings.base.clone();
    let what = format!("reaching {}", url.host_str().unwrap_or_default());
    let once = Retry {
        attempts: 1,
        ..Retry::default()
    };
    let asked = http::answer(&what, &once, || session.http.get(url.clone()));
    asked.await.map(|()| session)
}

/// The first row of the table; it may be missing if it would be created.
async fn read(
    session: &Arc<Session>,
    name: &TableName,
    creates: bool,
) -> Result<(Vec<String>, String)> {
    let system = SnowflakeSystem::new(Arc::clone(session), name.clone());
    let described = system.describe().await?;
    let parts = described.name.clone();
    if creates && described.columns.is_err() {
        let found = format!("{} will be created", quoted(&parts));
        return Ok((parts, found));
    }
    let columns = described.found()?;
    let table = quoted(&parts);
    let doing = format!("reading {table}");
    let sql = format!("SELECT * FROM {table} LIMIT 1");
    let data = Statement::new(&doing, &sql).run(session).await?;
    let mut rows = Reader::open(session, data, columns.schema(), 1, &doing)?;
    let row = match rows.next().await? {
        Some(_) => "a row of it",
        None => "no rows yet",
    };
    let fields = columns.schema().fields().len();
    Ok((parts, format!("{table}, {fields} columns, {row}")))
}

/// Writes one row into a temporary table beside the table and removes it again.
async fn write_scratch(session: &Arc<Session>, parts: &[String]) -> Result<String> {
    let name = format!("CASEBOOK_CHECK_{}", Uuid::new_v4().simple());
    let scratch = SNOWFLAKE.quoted(&name);
    let doing = format!("writing to the scratch table {scratch}");
    let value = json!({"1": {"type": "TEXT", "value": ["casebook check"]}});
    for sql in [
        format!("USE SCHEMA {}", quoted(&parts[..2])),
        format!("CREATE TEMPORARY TABLE {scratch} (\"T\" VARCHAR)"),
        format!("INSERT INTO {scratch} (\"T\") VALUES (?)"),
        format!("DROP TABLE {scratch}"),
    ] {
        let mut statement = Statement::new(&doing, &sql);
        statement.bindings = sql.contains('?').then_some(&value);
        statement.run(session).await?;
    }
    Ok(name)
}
