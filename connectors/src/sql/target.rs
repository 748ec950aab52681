//! The table behind a SqlTable as it is now: found, not there yet, or lacking declared columns, and
//! what an INSERT does about the last two before it asks for the first row.
//!
//! CREATE EXTERNAL TABLE changes nothing: a table with `table.create` that is missing reads as no
//! rows of its declared columns. So a right that is missing costs no model's work, and a statement
//! that only reads leaves no trace.

use std::sync::{Arc, PoisonError, RwLock};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Column, Columns};
use super::ddl;
use super::exchange::{Described, Statement};
use super::spool::SpoolLimits;
use super::system::SqlSystem;
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::write::WriteOptions;

/// What CREATE EXTERNAL TABLE says of a table.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The schema of `table.create`.
    pub(crate) contract: Option<SchemaRef>,
    /// The list of columns; may be empty.
    pub(crate) listed: Arc<Schema>,
    /// What INSERT obeys.
    pub(crate) write: WriteOptions,
    /// Where rows wait for a slow statement.
    pub(crate) spool: SpoolLimits,
}

impl Default for Asked {
    /// The table as it is.
    fn default() -> Self {
        Self {
            contract: None,
            listed: Arc::new(Schema::empty()),
            write: WriteOptions::default(),
            spool: SpoolLimits::NONE,
        }
    }
}

impl Asked {
    /// The declared columns; none if the table is taken as it is.
    fn declared(&self) -> Option<&Schema> {
        match &self.contract {
            Some(contract) => Some(contract),
            None => (!self.listed.fields().is_empty()).then_some(&*self.listed),
        }
    }
}

/// The table at one moment.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) described: Described,
    /// What it is here.
    pub(crate) columns: Columns,
    /// Declared columns that it does not have; all of them, if it is not there.
    lacking: Vec<Field>,
}

impl Opened {
    /// True if the table is there.
    pub(crate) fn is_there(&self) -> bool {
        self.described.columns.is_ok()
    }

    /// What is selected from: columns that the table does not have yet are null.
    pub(crate) fn from(&self) -> String {
        let Described { dialect, from, .. } = &self.described;
        if self.lacking.is_empty() {
            return from.clone().unwrap_or_else(|| self.described.table());
        }
        let nulls: Vec<String> = self
            .lacking
            .iter()
            .map(|field| {
                let sql_type = (dialect.column_type)(field.data_type(), false);
                let null = match (declared::plain_type(field.data_type()), sql_type) {
                    // Some systems have a cast to their long texts, some have none.
                    (DataType::Utf8, _) | (_, None) => "NULL".to_owned(),
                    (_, Some(sql_type)) => format!("CAST(NULL AS {sql_type})"),
                };
                format!("{null} AS {}", dialect.quoted(field.name()))
            })
            .collect();
        let nulls = nulls.join(", ");
        match from {
            Some(from) => format!("(SELECT *, {nulls} FROM {from}) q"),
            // Oracle has no other columns beside a bare asterisk.
            None => format!("(SELECT o.*, {nulls} FROM {} o) q", self.described.table()),
        }
    }
}

/// A table, and what is known of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) system: Arc<dyn SqlSystem>,
    pub(crate) asked: Asked,
    opened: RwLock<Arc<Opened>>,
}

impl Target {
    /// Looks at the table that `system` reaches.
    ///
    /// # Errors
    /// A table that is missing, or has other columns than declared, where INSERT may not mend that.
    pub(crate) async fn open(system: Arc<dyn SqlSystem>, asked: Asked) -> Result<Self> {
        let opened = opened(system.describe().await?, &asked)?;
        asked.write.check_key(opened.columns.schema())?;
        Ok(Self {
            system,
            asked,
            opened: RwLock::new(Arc::new(opened)),
        })
    }

    /// What is known of the table.
    pub(crate) fn opened(&self) -> Arc<Opened> {
        let opened = self.opened.read();
        Arc::clone(&opened.unwrap_or_else(PoisonError::into_inner))
    }

    /// The table for a statement that reads: one that was not there is looked for again.
    pub(crate) async fn look(&self) -> Result<Arc<Opened>> {
        let known = self.opened();
        match known.is_there() && known.lacking.is_empty() {
            true => Ok(known),
            false => self.look_again().await,
        }
    }

    /// The table for an INSERT in `session`: created, or given the columns that it lacks.
    pub(crate) async fn prepare(&self, session: &dyn SqlSystem) -> Result<Arc<Opened>> {
        let known = self.look().await?;
        let statements = self.missing(&known)?;
        if statements.is_empty() {
            return Ok(known);
        }
        let doing = match known.is_there() {
            true => format!("adding columns to {}", known.described.shown()),
            false => format!("creating {}", known.described.shown()),
        };
        let made = session.publish(&doing, &statements).await;
        let now = self.look_again().await;
        match (made, now) {
            // Another writer may have done the same meanwhile.
            (_, Ok(now)) if now.is_there() && now.lacking.is_empty() => Ok(now),
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(now)) => Err(Error::new(
                ErrorKind::Internal,
                format!("{doing}: {} is not as it was made", now.described.shown()),
            )),
        }
    }

    async fn look_again(&self) -> Result<Arc<Opened>> {
        let now = Arc::new(opened(self.system.describe().await?, &self.asked)?);
        let mut known = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::clone(&now);
        Ok(now)
    }

    /// The statements that make what is missing.
    fn missing(&self, opened: &Opened) -> Result<Vec<Statement>> {
        let Described {
            dialect,
            stored_name,
            ..
        } = &opened.described;
        let table = opened.described.table();
        let statements = match opened.is_there() {
            true => ddl::add_columns(dialect, &table, &opened.lacking)?,
            false => {
                let key = self.asked.write.key.as_deref().map(stored_name);
                let schema = Schema::new(opened.lacking.clone());
                vec![ddl::create_table(dialect, &table, &schema, key.as_deref())?]
            }
        };
        Ok(statements.into_iter().map(Statement::new).collect())
    }
}

/// What was `described`, against what was `asked` for.
fn opened(described: Described, asked: &Asked) -> Result<Opened> {
    let shown = described.shown();
    let Some(wanted) = asked.declared() else {
        return Ok(Opened {
            columns: described.found()?.clone(),
            described,
            lacking: vec![],
        });
    };
    let may_create = asked.contract.is_some();
    let found = match &described.columns {
        Ok(found) => found.clone(),
        Err(missing) if may_create && missing.kind() == ErrorKind::NotFound => Columns::new(vec![]),
        Err(_) => described.found()?.clone(),
    };
    let is_there = described.columns.is_ok();
    if is_there && may_create {
        declared::check_columns(wanted, found.schema(), &shown, asked.write.evolve)?;
    }
    // A key is never null where we make it.
    let key = asked.write.key.as_deref().filter(|_| !is_there);
    let has = |name: &str| found.schema().column_with_name(name).is_some();
    let mut lacking = vec![];
    let mut columns: Vec<Column> = found.iter().cloned().collect();
    for field in wanted.fields() {
        let mended = !is_there || asked.write.evolve;
        if has(field.name()) || !mended {
            continue;
        }
        let stored = (described.stored_name)(field.name());
        let nullable = key != Some(field.name().as_str());
        let shown = field.as_ref().clone().with_nullable(nullable);
        let own = shown.clone().with_name(stored);
        lacking.push(own.clone());
        columns.push(Column {
            own: Arc::new(own),
            field: Arc::new(shown),
            comparable: false,
        });
    }
    Ok(Opened {
        columns: Columns::new(columns).declared_as(wanted, &shown)?,
        described,
        lacking,
    })
}
