//! The table in which the rows of one INSERT wait until all of them are there, and the statements
//! that bring them into the target in one step.
//!
//! With a key, that step adds only rows whose key the target does not have yet: an INSERT that was
//! killed anywhere can be run again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use uuid::Uuid;

use super::columns::Columns;
use super::ddl::column_list;
use super::dialect::{Adding, SqlDialect, StagingTable};
use super::exchange::{Described, Staged, Statement};

/// What the names of staging tables begin with.
pub(crate) const NAME: &str = "casebook_staging_";
/// Characters that tell the run in them.
pub(crate) const RUN_CHARS: usize = 16;
/// The column that numbers the rows, where requests may arrive twice.
pub(crate) const NUMBER: &str = "casebook_row";

/// The staging table of one INSERT.
#[derive(Debug)]
pub(crate) struct Staging {
    dialect: &'static SqlDialect,
    /// The parts of the target's name.
    pub(crate) target: Vec<String>,
    /// As SQL.
    name: String,
    /// The parts of its name, where it lies beside the target.
    beside: Vec<String>,
    columns: Columns,
    /// The columns as they are staged.
    staged: SchemaRef,
    numbered: bool,
    made: AtomicBool,
    /// The last sign of life, as SQL.
    sign: Mutex<Option<String>>,
}

/// A table whose name says when its run was alive.
pub(crate) struct Sign {
    pub(crate) create: Statement,
    /// As SQL.
    pub(crate) name: String,
}

/// The name of column `i` of a staging table: no quotes, no case.
pub(crate) fn column(i: usize) -> String {
    format!("C{}", i + 1)
}

impl Staging {
    /// For rows of `columns`, those of the target; the run `began` so many seconds after 1970.
    pub(crate) fn new(described: &Described, columns: &Columns, began: u64) -> Self {
        let dialect = described.dialect;
        // Half of it, so that a sign of life has 55 characters: some systems cut names at 63.
        let unique = &Uuid::new_v4().simple().to_string()[..RUN_CHARS];
        let mut beside = described.name.clone();
        beside.pop();
        beside.push(format!("{NAME}{began}_{unique}"));
        let name = match dialect.staging {
            // The session's own: needs no quotes.
            StagingTable::Temporary => format!("{NAME}{unique}").to_uppercase(),
            StagingTable::SelectInto => format!("#{NAME}{unique}"),
            StagingTable::Private => "ORA$PTT_CASEBOOK".to_owned(),
            StagingTable::Permanent => dialect.table(&beside),
        };
        let fields = columns.schema().fields().iter().enumerate();
        let mut staged: Vec<Field> = fields
            .map(|(i, field)| Field::new(column(i), field.data_type().clone(), true))
            .collect();
        if described.resends {
            staged.push(Field::new(NUMBER, DataType::Int64, false));
        }
        Self {
            dialect,
            target: described.name.clone(),
            name,
            columns: columns.clone(),
            staged: Arc::new(Schema::new(staged)),
            numbered: described.resends,
            made: AtomicBool::new(false),
            sign: Mutex::default(),
            beside,
        }
    }

    /// The table as SQL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The columns of the target.
    pub(crate) fn target_columns(&self) -> &Columns {
        &self.columns
    }

    /// The columns of the rows to stage: those of the target under other names and, where requests
    /// may arrive twice, [`NUMBER`].
    pub(crate) fn columns(&self) -> &SchemaRef {
        &self.staged
    }

    /// The names of [`Self::columns`], with commas.
    pub(crate) fn names(&self) -> String {
        let names = self.staged.fields().iter().map(|f| f.name().as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// The statement that makes the table, with the types of the target's columns and none of its
    /// constraints and defaults.
    pub(crate) fn create(&self) -> String {
        self.made.store(true, Ordering::Relaxed);
        let Self { dialect, name, .. } = self;
        let from = dialect.table(&self.target);
        let own = self.columns.iter().enumerate();
        let mut columns: Vec<String> = own
            .map(|(i, c)| format!("{} AS {}", dialect.quoted(c.own.name()), column(i)))
            .collect();
        if self.numbered {
            columns.push(format!("CAST(NULL AS BIGINT) AS {NUMBER}"));
        }
        let columns = columns.join(", ");
        let rows = format!("SELECT {columns} FROM {from} WHERE 1 = 0");
        match dialect.staging {
            StagingTable::Temporary => format!("CREATE TEMPORARY TABLE {name} AS {rows}"),
            StagingTable::SelectInto => {
                format!("SELECT {columns} INTO {name} FROM {from} WHERE 1 = 0")
            }
            StagingTable::Private => format!(
                "CREATE PRIVATE TEMPORARY TABLE {name} ON COMMIT PRESERVE DEFINITION AS {rows}"
            ),
            StagingTable::Permanent if dialect.if_not_exists => {
                format!("CREATE TABLE IF NOT EXISTS {name} AS {rows}")
            }
            StagingTable::Permanent => format!("CREATE TABLE {name} AS {rows}"),
        }
    }

    /// True if the end of the session does not remove it.
    pub(crate) fn stays(&self) -> bool {
        self.dialect.staging == StagingTable::Permanent
    }

    /// Removes the table and its sign of life, if it was made and the end of the session does not
    /// remove it.
    pub(crate) fn remove(&self) -> Vec<Statement> {
        if !self.stays() || !self.made.load(Ordering::Relaxed) {
            return vec![];
        }
        let sign = self.sign.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = std::iter::once(&self.name).chain(sign.as_ref());
        tables
            .map(|table| drop_table(self.dialect, table))
            .collect()
    }

    /// A sign of life, `now` in seconds since 1970; none while there is no table.
    pub(crate) fn next_sign(&self, now: u64) -> Option<Sign> {
        let made = self.made.load(Ordering::Relaxed);
        let sql_type = (self.dialect.column_type)(&DataType::Int16, false).filter(|_| made)?;
        let mut beside = self.beside.clone();
        beside.last_mut()?.push_str(&format!("_{now}"));
        let name = self.dialect.table(&beside);
        let create = Statement::new(format!("CREATE TABLE {name} (n {sql_type})"));
        Some(Sign { create, name })
    }

    /// Notes that the sign of life `name` is there; what removes the one before.
    pub(crate) fn signed(&self, name: String) -> Option<Statement> {
        let mut sign = self.sign.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sign.replace(name)?;
        Some(drop_table(self.dialect, &before))
    }

    /// Notes that it was removed.
    pub(crate) fn is_gone(&self) {
        self.made.store(false, Ordering::Relaxed);
    }

    /// What brings the rows into the target; `key` is the position of the column in write.key.
    pub(crate) fn publish(
        &self,
        staged: &Staged,
        key: Option<usize>,
        overwrite: bool,
    ) -> Vec<Statement> {
        let dialect = self.dialect;
        let target = dialect.table(&self.target);
        let names = column_list(dialect, self.columns.remote());
        let columns: Vec<String> = (0..self.columns.iter().len()).map(column).collect();
        let list = columns.join(", ");
        let (from, texts) = match &staged.instead {
            Some((query, texts)) => (query.as_str(), texts.clone()),
            None => (self.name.as_str(), vec![]),
        };
        let all = format!("SELECT {list} FROM {from}");
        let each_once = match self.numbered {
            false => all.clone(),
            true => format!(
                "{all} QUALIFY row_number() OVER (PARTITION BY {NUMBER} ORDER BY {NUMBER}) = 1"
            ),
        };
        let key = key.map(|i| {
            (
                dialect.quoted(self.columns.remote().field(i).name()),
                column(i),
            )
        });
        let once = key.is_none() && !overwrite;
        let last = match (overwrite, dialect.overwrite, key) {
            (true, Some(words), _) => format!("{words} {target} ({names}) {each_once}"),
            (true, None, _) | (false, _, None) => {
                format!("INSERT INTO {target} ({names}) {each_once}")
            }
            (false, _, Some((key, staged_key))) => match dialect.adding {
                Adding::Merge => {
                    let values: Vec<String> = columns.iter().map(|c| format!("s.{c}")).collect();
                    format!(
                        "MERGE INTO {target} t USING ({each_once}) s ON t.{key} = s.{staged_key} \
                         WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({})",
                        values.join(", ")
                    )
                }
                Adding::Missing => format!(
                    "INSERT INTO {target} ({names}) {all} s WHERE NOT EXISTS (SELECT 1 FROM \
                     {target} t WHERE t.{key} = s.{staged_key})"
                ),
            },
        };
        let last = Statement {
            sql: last,
            texts,
            once,
        };
        match overwrite && dialect.overwrite.is_none() {
            true => vec![Statement::new(format!("DELETE FROM {target}")), last],
            false => vec![last],
        }
    }
}

/// Removes the table `name` beside the one that was `described`.
pub(crate) fn drop_beside(described: &Described, name: &str) -> Statement {
    let mut beside = described.name.clone();
    beside.pop();
    beside.push(name.to_owned());
    drop_table(described.dialect, &described.dialect.table(&beside))
}

fn drop_table(dialect: &SqlDialect, table: &str) -> Statement {
    let if_exists = match dialect.if_not_exists {
        true => "IF EXISTS ",
        false => "",
    };
    Statement::new(format!("DROP TABLE {if_exists}{table}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::sql::columns::Column;
    use crate::sql::dialect::{DATABRICKS, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER, STANDARD};

    fn staging(dialect: &'static SqlDialect, resends: bool) -> Staging {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8View, true));
        let columns = Columns::new(vec![
            Column {
                own: field("QA_ID"),
                field: field("qa_id"),
                comparable: true,
            },
            Column {
                own: field("answer"),
                field: field("answer"),
                comparable: true,
            },
        ]);
        let described = Described {
            way: "",
            detail: String::new(),
            dialect,
            name: vec!["s".into(), "qa".into()],
            from: None,
            columns: Err(Arc::new(Error::new(ErrorKind::NotFound, ""))),
            stored_name: str::to_owned,
            resends,
        };
        Staging::new(&described, &columns, 7)
    }

    fn published(staging: &Staging, key: Option<usize>, overwrite: bool) -> Vec<String> {
        let staged = Staged {
            rows: 1,
            instead: None,
        };
        let statements = staging.publish(&staged, key, overwrite);
        let shown = statements
            .into_iter()
            .map(|s| s.sql.replace(staging.name(), "STAGED"));
        shown.collect()
    }

    #[test]
    fn each_system_stages_in_its_own_words() {
        let created = |dialect| {
            let staging = staging(dialect, false);
            assert!(staging.remove().is_empty());
            let create = staging.create().replace(staging.name(), "STAGED");
            let removed = staging.remove();
            let removed = removed
                .first()
                .map(|s| s.sql.replace(staging.name(), "STAGED"));
            (create, removed)
        };
        let rows = "SELECT \"QA_ID\" AS C1, \"answer\" AS C2 FROM \"s\".\"qa\" WHERE 1 = 0";
        for (dialect, create) in [
            (&POSTGRESQL, "CREATE TEMPORARY TABLE STAGED AS "),
            (&SNOWFLAKE, "CREATE TEMPORARY TABLE STAGED AS "),
            (
                &ORACLE,
                "CREATE PRIVATE TEMPORARY TABLE STAGED ON COMMIT PRESERVE DEFINITION AS ",
            ),
        ] {
            assert_eq!(created(dialect), (format!("{create}{rows}"), None));
        }
        let into = created(&SQL_SERVER).0;
        assert!(into.contains("AS C2 INTO STAGED FROM"), "{into}");
        let drop = |dialect| created(dialect).1.unwrap();
        assert_eq!(drop(&DATABRICKS), "DROP TABLE IF EXISTS STAGED");
        assert_eq!(drop(&STANDARD), "DROP TABLE STAGED");
        let beside = staging(&DATABRICKS, true);
        assert!(beside.name().starts_with("`s`.`casebook_staging_7_"));
        assert!(beside.next_sign(8).is_none());
        assert!(
            beside
                .create()
                .contains(", CAST(NULL AS BIGINT) AS casebook_row FROM")
        );
        assert_eq!(beside.names(), "C1, C2, casebook_row");
        let sign = beside.next_sign(8).unwrap();
        let (create, name) = (sign.create.sql, sign.name);
        assert!(name.ends_with("_8`") && create.contains(&name), "{create}");
        assert!(beside.signed(name.clone()).is_none());
        assert!(beside.signed("later".into()).unwrap().sql.contains(&name));
        assert_eq!(beside.remove()[1].sql, "DROP TABLE IF EXISTS later");
    }

    #[test]
    fn a_key_is_added_once() {
        assert_eq!(
            published(&staging(&POSTGRESQL, false), Some(0), false),
            [
                "INSERT INTO \"s\".\"qa\" (\"QA_ID\", \"answer\") SELECT C1, C2 FROM STAGED s WHERE \
                 NOT EXISTS (SELECT 1 FROM \"s\".\"qa\" t WHERE t.\"QA_ID\" = s.C1)"
            ]
        );
        assert_eq!(
            published(&staging(&SNOWFLAKE, false), Some(0), false),
            [
                "MERGE INTO \"s\".\"qa\" t USING (SELECT C1, C2 FROM STAGED) s ON t.\"QA_ID\" = \
                 s.C1 WHEN NOT MATCHED THEN INSERT (\"QA_ID\", \"answer\") VALUES (s.C1, s.C2)"
            ]
        );
        let numbered = published(&staging(&DATABRICKS, true), Some(0), false);
        assert!(
            numbered[0].contains("PARTITION BY casebook_row ORDER BY casebook_row) = 1"),
            "{numbered:?}"
        );
    }

    #[test]
    fn overwriting_is_one_step() {
        let replaced = published(&staging(&SNOWFLAKE, false), None, true);
        assert_eq!(
            replaced,
            [
                "INSERT OVERWRITE INTO \"s\".\"qa\" (\"QA_ID\", \"answer\") SELECT C1, C2 FROM \
                 STAGED"
            ]
        );
        // A row that was sent twice is there once.
        let replaced = published(&staging(&DATABRICKS, true), None, true);
        assert!(
            replaced[0].starts_with("INSERT OVERWRITE `s`.`qa`"),
            "{replaced:?}"
        );
        assert!(
            replaced[0].contains("PARTITION BY casebook_row"),
            "{replaced:?}"
        );
        let steps = published(&staging(&POSTGRESQL, false), Some(0), true);
        assert_eq!(
            steps,
            [
                "DELETE FROM \"s\".\"qa\"",
                "INSERT INTO \"s\".\"qa\" (\"QA_ID\", \"answer\") SELECT C1, C2 FROM STAGED"
            ]
        );
    }
}
