//! Tables that Casebook makes in SQL systems, and how rows get into them once only.
//!
//! A write goes into a staging table first; then one statement adds those rows whose key the
//! target does not have yet. Run again after a crash, it finds them there.

use datafusion::arrow::datatypes::{DataType, Schema};

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
        let Some(sql_type) = (dialect.column_type)(field.data_type(), is_key) else {
            return Err(Error::invalid(format!(
                "column {} has type {}, for which Casebook knows no type of {}; cast it first",
                field.name(),
                field.data_type(),
                dialect.name
            )));
        };
        let constraint = match is_key {
            true if dialect.enforces_keys => " NOT NULL PRIMARY KEY",
            true => " NOT NULL",
            false => "",
        };
        columns.push(format!("{name} {sql_type}{constraint}"));
    }
    Ok(format!("CREATE TABLE {table} ({})", columns.join(", ")))
}

/// Adds the rows of `staging` whose `key` is not in `target`.
pub(crate) fn insert_missing(
    dialect: &SqlDialect,
    target: &str,
    staging: &str,
    schema: &Schema,
    key: &str,
) -> String {
    let names = column_list(dialect, schema);
    let key = dialect.quoted(key);
    format!(
        "INSERT INTO {target} ({names}) SELECT {names} FROM {staging} s WHERE NOT EXISTS \
         (SELECT 1 FROM {target} t WHERE t.{key} = s.{key})"
    )
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

/// Column types of most systems: `text`, then those for 16, 32 and 64 bit integers, floats.
pub(crate) fn common_type(data_type: &DataType, text: &'static str) -> Option<&'static str> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT",
        DataType::Int32 | DataType::UInt16 => "INTEGER",
        DataType::Int64 | DataType::UInt32 => "BIGINT",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Date32 => "DATE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;
    use crate::sql::dialect::{MYSQL, POSTGRESQL, SNOWFLAKE};

    #[test]
    fn statements() {
        let schema = Schema::new(vec![
            Field::new("qa_id", DataType::Utf8View, true),
            Field::new("chunk_no", DataType::Int32, true),
        ]);
        let made = create_table(&POSTGRESQL, "\"qa\"", &schema, Some("qa_id")).unwrap();
        assert_eq!(
            made,
            "CREATE TABLE \"qa\" (\"qa_id\" TEXT NOT NULL PRIMARY KEY, \"chunk_no\" INTEGER)"
        );
        let made = create_table(&SNOWFLAKE, "qa", &schema, Some("qa_id")).unwrap();
        assert!(made.contains("\"qa_id\" VARCHAR NOT NULL,"), "{made}");
        let made = create_table(&MYSQL, "qa", &schema, Some("qa_id")).unwrap();
        assert!(
            made.contains("`qa_id` VARCHAR(255) NOT NULL PRIMARY KEY"),
            "{made}"
        );
        let merged = insert_missing(&POSTGRESQL, "qa", "s1", &schema, "qa_id");
        assert!(merged.contains("NOT EXISTS (SELECT 1 FROM qa t WHERE t.\"qa_id\" = s.\"qa_id\")"));
    }
}
