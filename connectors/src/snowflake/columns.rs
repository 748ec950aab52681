//! The columns of a table: Snowflake's declaration, our names and Arrow types for them, and which
//! of them mean the same in a comparison there as here.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column as ColumnName;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;

use super::messages::RowType;
use super::types::{arrow_type, comparable};
use crate::declared;
use crate::error::{Error, Result};

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// As stored in Snowflake.
    pub(super) stored: String,
    /// Our name and type.
    pub(super) field: Arc<Field>,
    /// True if comparisons may be left to Snowflake.
    pub(super) comparable: bool,
}

/// The columns of one table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    columns: Vec<Column>,
    schema: SchemaRef,
    remote: SchemaRef,
}

impl Columns {
    /// The columns of `rowtype`; names that are all upper case become lower case if `fold`.
    pub(super) fn from_rowtype(rowtype: &[RowType], fold: bool) -> Self {
        let shown = |row: &RowType| match fold && folds(&row.name) {
            true => row.name.to_lowercase(),
            false => row.name.clone(),
        };
        let columns = rowtype.iter().map(|row| {
            let name = shown(row);
            let taken = rowtype.iter().filter(|other| shown(other) == name).count() > 1;
            let name = if taken { row.name.clone() } else { name };
            let nullable = row.nullable.unwrap_or(true);
            Column {
                stored: row.name.clone(),
                field: Arc::new(Field::new(name, arrow_type(row), nullable)),
                comparable: comparable(row),
            }
        });
        Self::new(columns.collect())
    }

    fn new(columns: Vec<Column>) -> Self {
        let fields: Vec<_> = columns.iter().map(|c| Arc::clone(&c.field)).collect();
        let remote: Vec<_> = columns
            .iter()
            .map(|c| {
                // A type that is never compared there.
                let data_type = match c.comparable {
                    true => c.field.data_type().clone(),
                    false => DataType::Binary,
                };
                Field::new(&c.stored, data_type, true)
            })
            .collect();
        Self {
            columns,
            schema: Arc::new(Schema::new(fields)),
            remote: Arc::new(Schema::new(remote)),
        }
    }

    /// Only the columns that `declared` names, in its order and with its types, which must be of
    /// the same class.
    ///
    /// # Errors
    /// A column that the table does not have, or a type of another class.
    pub(super) fn declared_as(&self, declared: &Schema, table: &str) -> Result<Self> {
        let mut columns = vec![];
        for field in declared.fields() {
            let names: Vec<&str> = self
                .schema
                .fields()
                .iter()
                .map(|f| f.name().as_str())
                .collect();
            let found = self.columns.iter();
            let found = found.clone().find(|c| c.field.name() == field.name());
            let Some(column) = found else {
                return Err(Error::unknown(
                    &format!("column of {table}"),
                    field.name(),
                    &names,
                ));
            };
            let (wanted, stored) = (field.data_type(), column.field.data_type());
            if !declared::same_class(wanted, stored) {
                return Err(Error::invalid(format!(
                    "column {} of {table} is {stored}, and cannot be declared as {wanted}; leave \
                     its type out or cast in the query",
                    field.name()
                )));
            }
            let wanted = match wanted {
                DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
                other => other.clone(),
            };
            let nullable = column.field.is_nullable();
            columns.push(Column {
                field: Arc::new(Field::new(field.name(), wanted, nullable)),
                ..column.clone()
            });
        }
        Ok(Self::new(columns))
    }

    /// Our names and types.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Snowflake's names, for statements; types as far as comparisons go.
    pub(super) fn remote(&self) -> &SchemaRef {
        &self.remote
    }

    /// `filter` in Snowflake's names.
    pub(super) fn renamed(&self, filter: &Expr) -> Result<Expr> {
        let renamed = filter.clone().transform(|expr| {
            Ok(match &expr {
                Expr::Column(column) => match self.schema.column_with_name(&column.name) {
                    Some((i, _)) => {
                        let name = ColumnName::new_unqualified(&self.columns[i].stored);
                        Transformed::yes(Expr::Column(name))
                    }
                    None => Transformed::no(expr),
                },
                _ => Transformed::no(expr),
            })
        });
        let renamed = renamed.map_err(|e| Error::while_doing("writing a filter", e))?;
        Ok(renamed.data)
    }
}

/// `schema` with names as Snowflake would make them of unquoted ones.
pub(super) fn unfolded(schema: &Schema, fold: bool) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let upper = field.name().to_uppercase();
        match fold && folds(&upper) && *field.name() == upper.to_lowercase() {
            true => field.as_ref().clone().with_name(upper),
            false => field.as_ref().clone(),
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// True for names that need no quotes.
fn folds(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_uppercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '$'))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::sql::dialect::SNOWFLAKE;
    use crate::sql::pushdown::{Select, classify};

    fn row(name: &str, kind: &str, precision: i64, scale: i64) -> RowType {
        RowType {
            name: name.into(),
            kind: kind.into(),
            precision: Some(precision),
            scale: Some(scale),
            nullable: Some(true),
            collation: None,
        }
    }

    fn columns() -> Columns {
        let rows = [
            row("ID", "fixed", 38, 0),
            row("N", "FIXED", 9, 0),
            row("Mixed", "text", 0, 0),
            row("V", "variant", 0, 0),
            row("TS", "timestamp_ntz", 0, 9),
            row("TZ", "timestamp_tz", 0, 3),
            row("X", "text", 0, 0),
            row("x", "text", 0, 0),
        ];
        Columns::from_rowtype(&rows, true)
    }

    #[test]
    fn types_and_names() {
        let shown: Vec<String> = columns()
            .schema()
            .fields()
            .iter()
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect();
        assert_eq!(
            shown,
            [
                "id Decimal128(38, 0)",
                "n Int64",
                "Mixed Utf8View",
                "v Utf8View",
                "ts Timestamp(ns)",
                "tz Timestamp(µs, \"UTC\")",
                "X Utf8View",
                "x Utf8View"
            ]
        );
        let made = unfolded(
            &Schema::new(vec![
                Field::new("qa_id", DataType::Utf8View, true),
                Field::new("Kept", DataType::Utf8View, true),
            ]),
            true,
        );
        assert_eq!(
            (made.field(0).name(), made.field(1).name()),
            (&"QA_ID".into(), &"Kept".into())
        );
    }

    #[test]
    fn filters_speak_snowflakes_names_and_leave_json_alone() {
        let columns = columns();
        let filters = [
            columns.renamed(&col("id").gt(lit(3i64))).unwrap(),
            columns.renamed(&col("v").eq(lit("a"))).unwrap(),
        ];
        let judged = classify(&SNOWFLAKE, columns.remote(), &[&filters[0], &filters[1]]);
        use datafusion::logical_expr::TableProviderFilterPushDown as Pushdown;
        assert_eq!(judged, [Pushdown::Exact, Pushdown::Unsupported]);
        let select = Select {
            dialect: &SNOWFLAKE,
            from: "t",
            schema: columns.remote(),
            projection: Some(&vec![0, 3]),
            filters: &filters[..1],
            limit: Some(2),
        };
        let sql = select.sql().unwrap();
        assert_eq!(
            sql,
            "SELECT \"ID\", \"V\" FROM t WHERE (\"ID\" > 3) LIMIT 2"
        );
    }

    #[test]
    fn a_column_list_chooses_and_types() {
        let columns = columns();
        let declared = |name: &str, data_type| Schema::new(vec![Field::new(name, data_type, true)]);
        let as_int = columns
            .declared_as(&declared("id", DataType::Int64), "t")
            .unwrap();
        assert_eq!(as_int.schema().field(0).data_type(), &DataType::Int64);
        assert_eq!(as_int.remote().field(0).name(), "ID");
        let wrong = columns.declared_as(&declared("id", DataType::Utf8), "t");
        assert!(
            wrong
                .unwrap_err()
                .to_string()
                .contains("cannot be declared")
        );
        let unknown = columns.declared_as(&declared("idd", DataType::Int64), "t");
        assert!(
            unknown
                .unwrap_err()
                .to_string()
                .contains("Did you mean 'id'?")
        );
    }
}
