//! What is asked of a table, as SQL of the system that holds it: projection, the filters that it
//! takes over ([`crate::sql::pushdown`]), and LIMIT. Expressions are written by DataFusion's SQL
//! unparser.

use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown as Pushdown};
use datafusion::sql::unparser::Unparser;

use crate::error::{Error, Result};
use crate::sql::columns::READ_BY;
use crate::sql::dialect::{LimitForm, SqlDialect};
use crate::sql::pushdown::classify;

/// One SELECT on one table.
#[derive(Debug)]
pub(crate) struct Select<'a> {
    /// The system that will run it.
    pub(crate) dialect: &'static SqlDialect,
    /// The table as the system writes it: [`SqlDialect::table`], or `(query) alias`.
    pub(crate) from: &'a str,
    /// The table's whole schema.
    pub(crate) schema: &'a SchemaRef,
    /// Wanted columns; none: a row is a literal 1, so that rows can be counted.
    pub(crate) projection: Option<&'a Vec<usize>>,
    /// Filters that [`classify`] did not call unsupported; others are left out.
    pub(crate) filters: &'a [Expr],
    /// Rows wanted. Given by DataFusion only if it leaves no filter to itself.
    pub(crate) limit: Option<usize>,
}

impl Select<'_> {
    /// The statement.
    ///
    /// # Errors
    /// An expression that the unparser cannot write, which is a defect: [`classify`] let it pass.
    pub(crate) fn sql(&self) -> Result<String> {
        self.write(Ok)
    }

    /// The statement with named parameters `:p1`, `:p2`... in place of its texts, and the texts.
    pub(crate) fn bound(&self) -> Result<(String, Vec<(String, String)>)> {
        let mut texts = vec![];
        let sql = self.write(|condition| {
            let named = condition.transform(|expr| {
                let text = match &expr {
                    Expr::Literal(value, _) => value.try_as_str().flatten(),
                    _ => None,
                };
                let Some(text) = text else {
                    return Ok(Transformed::no(expr));
                };
                let name = format!("p{}", texts.len() + 1);
                let placeholder = Placeholder::new_with_field(format!(":{name}"), None);
                texts.push((name, text.to_owned()));
                Ok(Transformed::yes(Expr::Placeholder(placeholder)))
            });
            let named = named.map_err(|e| Error::while_doing("naming the texts of a filter", e))?;
            Ok(named.data)
        })?;
        Ok((sql, texts))
    }

    /// The statement, its condition passed through `bind`.
    fn write(&self, bind: impl FnOnce(Expr) -> Result<Expr>) -> Result<String> {
        let dialect = self.dialect;
        let names: Vec<String> = match self.projection {
            None => (0..self.schema.fields().len()).collect(),
            Some(columns) => columns.clone(),
        }
        .into_iter()
        .map(|i| selected(dialect, self.schema.field(i)))
        .collect();
        let columns = match names.is_empty() {
            true => format!("1 AS {}", dialect.quoted("one")),
            false => names.join(", "),
        };
        let filters: Vec<&Expr> = self.filters.iter().collect();
        let judged = classify(dialect, self.schema, &filters);
        let sent = filters.into_iter().zip(&judged);
        let sent = sent.filter(|(_, judged)| **judged != Pushdown::Unsupported);
        let sent = sent.map(|(filter, _)| bare(filter));
        let condition = match conjunction(sent) {
            None => String::new(),
            Some(condition) => format!(" WHERE {}", expression(dialect, &bind(condition)?)?),
        };
        let all_exact = judged.iter().all(|judged| *judged == Pushdown::Exact);
        let limit = self.limit.filter(|_| all_exact);
        let (top, tail) = match (limit, dialect.limit) {
            (None, _) | (_, LimitForm::Unknown) => (String::new(), String::new()),
            (Some(n), LimitForm::Limit) => (String::new(), format!(" LIMIT {n}")),
            (Some(n), LimitForm::Top) => (format!("TOP {n} "), String::new()),
            (Some(n), LimitForm::FetchFirst) => {
                (String::new(), format!(" FETCH FIRST {n} ROWS ONLY"))
            }
        };
        Ok(format!(
            "SELECT {top}{columns} FROM {}{condition}{tail}",
            self.from
        ))
    }
}

/// A column as it is selected; conditions are about the one that is stored.
fn selected(dialect: &SqlDialect, field: &Field) -> String {
    let name = dialect.quoted(field.name());
    match field.metadata().get(READ_BY) {
        None => name,
        Some(by) => format!("{by} AS {name}"),
    }
}

/// `expr` in the system's words.
fn expression(dialect: &SqlDialect, expr: &Expr) -> Result<String> {
    let rules = (dialect.unparser)();
    let sql = Unparser::new(rules.as_ref())
        .expr_to_sql(expr)
        .map_err(|e| Error::while_doing(format!("writing a filter for {}", dialect.name), e))?;
    Ok(sql.to_string())
}

/// Columns without the name of the table they were planned with.
fn bare(expr: &Expr) -> Expr {
    datafusion::logical_expr::expr_rewriter::unnormalize_col(expr.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{DataType, Schema};
    use datafusion::common::ScalarValue;
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::sql::dialect::{DATABRICKS, MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER};
    use crate::sql::pushdown::tests::{name, schema};

    fn sql(dialect: &'static SqlDialect, filters: &[Expr], limit: Option<usize>) -> String {
        let schema = schema();
        let select = Select {
            dialect,
            from: &dialect.table(&["s", "t"]),
            schema: &schema,
            projection: Some(&vec![1, 0]),
            filters,
            limit,
        };
        select.sql().unwrap()
    }

    #[test]
    fn statements_are_written_in_each_systems_form() {
        let filter = [name().eq(lit("O'Neil")).and(col("id").gt(lit(3i64)))];
        assert_eq!(
            sql(&POSTGRESQL, &filter, Some(5)),
            "SELECT \"Na\"\"me\", \"id\" FROM \"s\".\"t\" WHERE ((\"Na\"\"me\" = 'O''Neil') AND \
             (\"id\" > 3)) LIMIT 5"
        );
        let plain = [name().eq(lit("O")).and(col("id").gt(lit(3i64)))];
        assert!(sql(&DATABRICKS, &plain, Some(5)).contains("WHERE ((`Na\"me` = 'O')"));
        assert!(sql(&SQL_SERVER, &[], Some(5)).starts_with("SELECT TOP 5 \"Na"));
        assert!(sql(&ORACLE, &[], Some(5)).ends_with("FETCH FIRST 5 ROWS ONLY"));
    }

    #[test]
    fn a_limit_is_sent_only_if_no_filter_stays_here() {
        let filter = [name().eq(lit("a"))];
        assert!(!sql(&MYSQL, &filter, Some(5)).contains("LIMIT"));
        assert!(sql(&MYSQL, &filter, None).contains("WHERE"));
    }

    #[test]
    fn texts_can_travel_beside_the_statement() {
        let schema = schema();
        let filter = [
            name().eq(lit("O'N\\eil")).or(name().like(lit("a%"))),
            col("id").gt(lit(3i64)),
        ];
        let select = Select {
            dialect: &crate::sql::dialect::DATABRICKS_BOUND,
            from: "t",
            schema: &schema,
            projection: Some(&vec![0]),
            filters: &filter,
            limit: Some(1),
        };
        let (sql, texts) = select.bound().unwrap();
        assert_eq!(
            sql,
            "SELECT `id` FROM t WHERE (((`Na\"me` = :p1) OR `Na\"me` LIKE :p2) AND (`id` > 3)) LIMIT 1"
        );
        assert_eq!(texts[0], ("p1".to_owned(), "O'N\\eil".to_owned()));
    }

    #[test]
    fn a_column_can_be_read_by_an_expression() {
        let by = [(READ_BY.to_owned(), "\"day\"::text".to_owned())];
        let day = Field::new("day", DataType::Date32, true).with_metadata(by.into());
        let schema: SchemaRef = Arc::new(Schema::new(vec![day]));
        let today = Expr::Literal(ScalarValue::Date32(Some(20_000)), None);
        let select = Select {
            dialect: &POSTGRESQL,
            from: "t",
            schema: &schema,
            projection: None,
            filters: &[col("day").gt_eq(today)],
            limit: None,
        };
        let sql = select.sql().unwrap();
        assert!(
            sql.starts_with("SELECT \"day\"::text AS \"day\" FROM t WHERE (\"day\" >= "),
            "{sql}"
        );
    }

    #[test]
    fn rows_can_be_counted_without_columns() {
        let schema = schema();
        let select = Select {
            dialect: &SNOWFLAKE,
            from: "t",
            schema: &schema,
            projection: Some(&vec![]),
            filters: &[],
            limit: None,
        };
        assert_eq!(select.sql().unwrap(), "SELECT 1 AS \"one\" FROM t");
    }
}
