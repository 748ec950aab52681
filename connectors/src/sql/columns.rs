//! The columns of a table in a SQL system: as the system stores them, our names and types for them,
//! and which of them mean the same in a comparison there as here.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::Column as ColumnName;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;

use crate::declared;
use crate::error::{Error, Result};

/// In the metadata of a column's own field: the expression by which it is selected, where its name
/// would not bring what is stored.
pub(crate) const READ_BY: &str = "read_by";

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// The stored name and the Arrow type closest to the stored one; its metadata holds what else
    /// the system must know to read or write it.
    pub(crate) own: FieldRef,
    /// Our name, and the type that every batch has.
    pub(crate) field: FieldRef,
    /// True if comparisons may be left to the system.
    pub(crate) comparable: bool,
}

/// The columns of one table, or those of a query.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    schema: SchemaRef,
    remote: SchemaRef,
}

impl Columns {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        let fields: Vec<_> = columns.iter().map(|c| Arc::clone(&c.field)).collect();
        let remote: Vec<_> = columns
            .iter()
            .map(|c| {
                let data_type = match c.comparable {
                    true => c.field.data_type().clone(),
                    // About such a column nothing is sent but whether it is null.
                    false => DataType::Null,
                };
                let read_by = c.own.metadata().get_key_value(READ_BY);
                let read_by = read_by.map(|(key, by)| (key.clone(), by.clone()));
                Field::new(c.own.name(), data_type, true)
                    .with_metadata(read_by.into_iter().collect())
            })
            .collect();
        Self {
            columns,
            schema: Arc::new(Schema::new(fields)),
            remote: Arc::new(Schema::new(remote)),
        }
    }

    /// Each of them, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Column> + Clone {
        self.columns.iter()
    }

    /// Our names and types.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The system's names, and how they are read, for statements; types as far as comparisons go.
    pub(crate) fn remote(&self) -> &SchemaRef {
        &self.remote
    }

    /// Only those at `positions`, in that order.
    pub(crate) fn project(&self, positions: Option<&Vec<usize>>) -> Self {
        match positions {
            None => self.clone(),
            Some(at) => Self::new(at.iter().map(|i| self.columns[*i].clone()).collect()),
        }
    }

    /// Only the columns that `declared` names, in its order and with its types, which must be of
    /// the same class.
    ///
    /// # Errors
    /// A column that the table does not have, or a type of another class.
    pub(crate) fn declared_as(&self, declared: &Schema, table: &str) -> Result<Self> {
        let mut columns = vec![];
        for field in declared.fields() {
            let Some(column) = self.iter().find(|c| c.field.name() == field.name()) else {
                let fields = self.schema.fields().iter();
                let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
                let what = format!("column of {table}");
                return Err(Error::unknown(&what, field.name(), &names));
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

    /// `filter` in the system's names.
    pub(crate) fn renamed(&self, filter: &Expr) -> Result<Expr> {
        let renamed = filter.clone().transform(|expr| {
            Ok(match &expr {
                Expr::Column(column) => match self.schema.column_with_name(&column.name) {
                    Some((i, _)) => {
                        let name = ColumnName::new_unqualified(self.columns[i].own.name());
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

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::TableProviderFilterPushDown as Pushdown;
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::sql::dialect::SNOWFLAKE;
    use crate::sql::pushdown::classify;
    use crate::sql::select::Select;

    fn columns() -> Columns {
        let column = |own: &str, name: &str, data_type: DataType, comparable| Column {
            own: Arc::new(Field::new(own, data_type.clone(), true)),
            field: Arc::new(Field::new(name, data_type, true)),
            comparable,
        };
        Columns::new(vec![
            column("ID", "id", DataType::Decimal128(38, 0), true),
            column("V", "v", DataType::Utf8View, false),
        ])
    }

    #[test]
    fn filters_speak_the_systems_names_and_leave_json_alone() {
        let columns = columns();
        let filters = [
            columns.renamed(&col("id").gt(lit(3i64))).unwrap(),
            columns.renamed(&col("v").eq(lit("a"))).unwrap(),
        ];
        let judged = classify(&SNOWFLAKE, columns.remote(), &[&filters[0], &filters[1]]);
        assert_eq!(judged, [Pushdown::Exact, Pushdown::Unsupported]);
        let select = Select {
            dialect: &SNOWFLAKE,
            from: "t",
            schema: columns.remote(),
            projection: Some(&vec![0, 1]),
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
        let as_int = declared("id", DataType::Int64);
        let as_int = columns.declared_as(&as_int, "t").unwrap();
        assert_eq!(as_int.schema().field(0).data_type(), &DataType::Int64);
        assert_eq!(as_int.remote().field(0).name(), "ID");
        for (name, data_type, expected) in [
            ("id", DataType::Utf8, "cannot be declared"),
            ("idd", DataType::Int64, "Did you mean 'id'?"),
        ] {
            let wrong = columns.declared_as(&declared(name, data_type), "t");
            let error = wrong.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
