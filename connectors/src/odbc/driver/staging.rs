//! Where rows wait on the server until all of them are there: a table of the session, which goes
//! when the session goes, in the words of each system.

use datafusion::arrow::datatypes::Schema;

use crate::sql::ddl::{column_list, insert_missing};
use crate::sql::dialect::{
    MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER, SQLITE, STANDARD, SqlDialect,
};

/// The statements of one INSERT.
#[derive(Debug, PartialEq)]
pub(super) struct Staging {
    /// Makes the staging table, with the types of the target's columns.
    pub(super) create: String,
    /// Puts a row into it.
    pub(super) insert: String,
    /// Empties the target, for INSERT OVERWRITE.
    pub(super) empty: String,
    /// Moves the rows into the target, in one statement.
    pub(super) publish: String,
    /// Removes the staging table where the end of the session does not.
    pub(super) drop: Option<String>,
    /// True if several statements can be made one transaction.
    pub(super) transactions: bool,
}

impl Staging {
    /// For the table of the parts `target`; `key` as in the option write.key; `unique` tells
    /// concurrent writers apart where the staging table is not the session's own.
    pub(super) fn new(
        dialect: &'static SqlDialect,
        target: &[String],
        schema: &Schema,
        key: Option<&str>,
        unique: &str,
    ) -> Self {
        let is = |other: &SqlDialect| std::ptr::eq(dialect, other);
        let from = dialect.table(target);
        let columns = column_list(dialect, schema);
        let select = format!("SELECT {columns} FROM {from} WHERE 1 = 0");
        let own = |name: &str| dialect.quoted(name);
        let (name, create, session_ends_it) = if is(&SQL_SERVER) {
            let name = own("#casebook_staging");
            let create = format!("SELECT {columns} INTO {name} FROM {from} WHERE 1 = 0");
            (name, create, true)
        } else if is(&ORACLE) {
            let name = own("ORA$PTT_CASEBOOK");
            let create = format!(
                "CREATE PRIVATE TEMPORARY TABLE {name} ON COMMIT PRESERVE DEFINITION AS {select}"
            );
            (name, create, true)
        } else if [&POSTGRESQL, &SQLITE, &MYSQL, &SNOWFLAKE]
            .into_iter()
            .any(is)
        {
            let name = own("casebook_staging");
            let create = format!("CREATE TEMPORARY TABLE {name} AS {select}");
            (name, create, true)
        } else {
            let mut beside = target.to_vec();
            if let Some(last) = beside.last_mut() {
                last.push_str("_casebook_staging_");
                last.push_str(unique);
            }
            let name = dialect.table(&beside);
            let create = format!("CREATE TABLE {name} AS {select}");
            (name, create, false)
        };
        let marks = vec!["?"; schema.fields().len()].join(", ");
        Self {
            insert: format!("INSERT INTO {name} ({columns}) VALUES ({marks})"),
            empty: format!("DELETE FROM {from}"),
            publish: match key {
                Some(key) => insert_missing(dialect, &from, &name, schema, key),
                None => format!("INSERT INTO {from} ({columns}) SELECT {columns} FROM {name}"),
            },
            drop: (!session_ends_it).then(|| format!("DROP TABLE {name}")),
            create,
            // A system that we know nothing about is asked; Databricks has none over ODBC.
            transactions: session_ends_it || is(&STANDARD),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::sql::dialect::DATABRICKS;

    #[test]
    fn each_system_gets_its_own_words() {
        let schema = Schema::new(vec![Field::new("qa_id", DataType::Utf8View, true)]);
        let target = ["s".to_owned(), "qa".to_owned()];
        let of = |dialect, key| Staging::new(dialect, &target, &schema, key, "7");
        let here = of(&POSTGRESQL, Some("qa_id"));
        assert_eq!(
            here.create,
            "CREATE TEMPORARY TABLE \"casebook_staging\" AS SELECT \"qa_id\" FROM \"s\".\"qa\" \
             WHERE 1 = 0"
        );
        assert!(
            here.publish.ends_with("WHERE t.\"qa_id\" = s.\"qa_id\")"),
            "{here:?}"
        );
        assert_eq!(here.drop, None);
        assert!(
            of(&SQL_SERVER, None)
                .create
                .contains("INTO \"#casebook_staging\" FROM")
        );
        assert!(of(&ORACLE, None).create.contains("ORA$PTT_"));
        let there = of(&DATABRICKS, None);
        assert_eq!(
            there.drop.as_deref(),
            Some("DROP TABLE `s`.`qa_casebook_staging_7`")
        );
        assert!(!there.transactions);
    }
}
