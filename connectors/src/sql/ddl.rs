//! Tables that Casebook makes in SQL systems.

use datafusion::arrow::datatypes::{Field, Schema};

use crate::error::{Error, Result};
use crate::sql::dialect::SqlDialect;

/// `CREATE TABLE` for `schema`; every column may be null but `key`, which is the primary key where
/// the system enforces one.
///
/// # Errors
/// A column whose type the system cannot hold.
pub(crate) fn create_table(
    dialect: &SqlDialect,
    table: &str,
    schema: &Schema,
    key: Option<&str>,
) -> Result<String> {
    let mut columns = vec![];
    for field in schema.fields() {
        let is_key = Some(field.name().as_str()) == key;
        let name = dialect.quoted(field.name());
        let sql_type = sql_type(dialect, field, is_key)?;
        let constraint = match is_key {
            true if dialect.enforces_keys => " NOT NULL PRIMARY KEY",
            true => " NOT NULL",
            false => "",
        };
        columns.push(format!("{name} {sql_type}{constraint}"));
    }
    let create = match dialect.if_not_exists {
        true => "CREATE TABLE IF NOT EXISTS",
        false => "CREATE TABLE",
    };
    Ok(format!("{create} {table} ({})", columns.join(", ")))
}

/// Gives `table` the columns `fields`, one statement each.
///
/// # Errors
/// A column whose type the system cannot hold.
pub(crate) fn add_columns(
    dialect: &SqlDialect,
    table: &str,
    fields: &[Field],
) -> Result<Vec<String>> {
    let added = fields.iter().map(|field| {
        let (name, sql_type) = (
            dialect.quoted(field.name()),
            sql_type(dialect, field, false)?,
        );
        let add = dialect.add_column;
        Ok(format!("ALTER TABLE {table} {add} {name} {sql_type}"))
    });
    added.collect()
}

fn sql_type(dialect: &SqlDialect, field: &Field, is_key: bool) -> Result<&'static str> {
    (dialect.column_type)(field.data_type(), is_key).ok_or_else(|| {
        Error::invalid(format!(
            "column {} has type {}, for which Casebook knows no type of {}; cast it first",
            field.name(),
            field.data_type(),
            dialect.name
        ))
    })
}

/// The columns of `schema`, quoted, with commas.
pub(crate) fn column_list(dialect: &SqlDialect, schema: &Schema) -> String {
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| dialect.quoted(f.name()))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;

    use super::*;
    use crate::sql::dialect::{MYSQL, POSTGRESQL, SNOWFLAKE, SQL_SERVER};

    #[test]
    fn statements() {
        let schema = Schema::new(vec![
            Field::new("qa_id", DataType::Utf8View, true),
            Field::new("chunk_no", DataType::Int32, true),
        ]);
        let made = create_table(&POSTGRESQL, "\"qa\"", &schema, Some("qa_id")).unwrap();
        assert_eq!(
            made,
            "CREATE TABLE IF NOT EXISTS \"qa\" (\"qa_id\" TEXT NOT NULL PRIMARY KEY, \"chunk_no\" \
             INTEGER)"
        );
        let made = create_table(&SNOWFLAKE, "qa", &schema, Some("qa_id")).unwrap();
        assert!(made.contains("\"qa_id\" VARCHAR NOT NULL,"), "{made}");
        let made = create_table(&MYSQL, "qa", &schema, Some("qa_id")).unwrap();
        assert!(
            made.contains("`qa_id` VARCHAR(255) NOT NULL PRIMARY KEY"),
            "{made}"
        );
        let added = |dialect| add_columns(dialect, "qa", &[schema.field(1).clone()]).unwrap();
        assert_eq!(
            added(&MYSQL),
            ["ALTER TABLE qa ADD COLUMN `chunk_no` INTEGER"]
        );
        assert_eq!(
            added(&SQL_SERVER),
            ["ALTER TABLE qa ADD \"chunk_no\" INTEGER"]
        );
    }
}
