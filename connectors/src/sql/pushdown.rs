//! What a statement asks of a table, as SQL of the system that holds it: projection, the filters
//! that mean exactly the same there, and LIMIT. The rest is evaluated here.
//!
//! A filter is sent only when every part of it is on a short list; the list errs on the side of
//! reading more rows, never other rows. Expressions are written by DataFusion's SQL unparser.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown as Pushdown,
};
use datafusion::sql::unparser::Unparser;

use crate::error::{Error, Result};
use crate::sql::dialect::{LimitForm, SqlDialect, TextEquality};

/// Literals longer than this are not sent: servers limit the length of a statement.
const MAX_LITERAL_BYTES: usize = 16 << 10;
/// Elements of an IN list that are sent.
const MAX_LIST: usize = 500;

/// How much of each filter the system can take over, for `supports_filters_pushdown`.
pub(crate) fn classify(
    dialect: &SqlDialect,
    schema: &SchemaRef,
    filters: &[&Expr],
) -> Vec<Pushdown> {
    filters
        .iter()
        .map(|filter| Rules { dialect, schema }.judge(filter))
        .collect()
}

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
        .map(|i| dialect.quoted(self.schema.field(i).name()))
        .collect();
        let columns = match names.is_empty() {
            true => format!("1 AS {}", dialect.quoted("one")),
            false => names.join(", "),
        };
        let rules = Rules {
            dialect,
            schema: self.schema,
        };
        let sent = self
            .filters
            .iter()
            .filter(|f| rules.judge(f) != Pushdown::Unsupported);
        let condition = match conjunction(sent.map(bare)) {
            None => String::new(),
            Some(condition) => format!(" WHERE {}", expression(dialect, &bind(condition)?)?),
        };
        let all_exact = self
            .filters
            .iter()
            .all(|f| rules.judge(f) == Pushdown::Exact);
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

struct Rules<'a> {
    dialect: &'a SqlDialect,
    schema: &'a SchemaRef,
}

impl Rules<'_> {
    fn judge(&self, expr: &Expr) -> Pushdown {
        match expr {
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.null_test(inner),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                // A superset of either side makes a superset of both.
                Operator::And | Operator::Or => weaker(self.judge(left), self.judge(right)),
                op => self.comparison(left, *op, right),
            },
            // The complement of a superset is not a superset.
            Expr::Not(inner) => match self.judge(inner) {
                Pushdown::Exact => Pushdown::Exact,
                _ => Pushdown::Unsupported,
            },
            Expr::InList(list) => self.in_list(list),
            Expr::Between(between) if !between.negated => weaker(
                self.comparison(&between.expr, Operator::GtEq, &between.low),
                self.comparison(&between.expr, Operator::LtEq, &between.high),
            ),
            Expr::Like(like) => self.like(like),
            _ => Pushdown::Unsupported,
        }
    }

    fn column(&self, expr: &Expr) -> Option<&DataType> {
        let Expr::Column(Column { name, .. }) = expr else {
            return None;
        };
        let (_, field) = self.schema.column_with_name(name)?;
        Some(field.data_type())
    }

    fn null_test(&self, inner: &Expr) -> Pushdown {
        match self.column(inner) {
            // Oracle's '' is null there and arrives as null here.
            Some(_) => Pushdown::Exact,
            None => Pushdown::Unsupported,
        }
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr) -> Pushdown {
        let (column, value) = match (self.column(left), self.column(right)) {
            (Some(column), None) => (column, right),
            (None, Some(column)) => (column, left),
            _ => return Pushdown::Unsupported,
        };
        let Expr::Literal(value, _) = value else {
            return Pushdown::Unsupported;
        };
        let equality = matches!(op, Operator::Eq | Operator::NotEq);
        let order = matches!(
            op,
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
        );
        if !(equality || order) || value.is_null() {
            return Pushdown::Unsupported;
        }
        match class(column) {
            Class::Text if order && !self.dialect.text_order => Pushdown::Unsupported,
            Class::Text => self.text(value, op != Operator::NotEq && !order),
            Class::Number | Class::Date => self.plain(column, value),
            Class::Other => Pushdown::Unsupported,
        }
    }

    /// Equality with a text; `positive` if it is `=` and not `<>`.
    fn text(&self, value: &ScalarValue, positive: bool) -> Pushdown {
        let Some(Some(text)) = value.try_as_str() else {
            return Pushdown::Unsupported;
        };
        let writable = text.len() <= MAX_LITERAL_BYTES
            && !text.contains('\0')
            && !text.contains(self.dialect.not_in_texts);
        match self.dialect.text_equality {
            _ if !writable => Pushdown::Unsupported,
            TextEquality::Exact => Pushdown::Exact,
            TextEquality::Superset if positive => Pushdown::Inexact,
            TextEquality::Superset | TextEquality::Unlike => Pushdown::Unsupported,
        }
    }

    /// A number or date of the column's own class.
    fn plain(&self, column: &DataType, value: &ScalarValue) -> Pushdown {
        let same = class(column) == class(&value.data_type());
        let date = class(column) == Class::Date;
        match same && (!date || self.dialect.dates) {
            true => Pushdown::Exact,
            false => Pushdown::Unsupported,
        }
    }

    fn in_list(&self, list: &InList) -> Pushdown {
        if list.list.is_empty() || list.list.len() > MAX_LIST {
            return Pushdown::Unsupported;
        }
        let op = match list.negated {
            true => Operator::NotEq,
            false => Operator::Eq,
        };
        let items = list
            .list
            .iter()
            .map(|item| self.comparison(&list.expr, op, item));
        items.fold(Pushdown::Exact, weaker)
    }

    fn like(&self, like: &Like) -> Pushdown {
        let Expr::Literal(pattern, _) = like.pattern.as_ref() else {
            return Pushdown::Unsupported;
        };
        let simple = !like.case_insensitive
            && like.escape_char.is_none()
            && self.dialect.text_order
            && self.column(&like.expr).map(class) == Some(Class::Text)
            && pattern
                .try_as_str()
                .flatten()
                .is_some_and(|p| !p.contains('\\'));
        match simple {
            true => self.text(pattern, true),
            false => Pushdown::Unsupported,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Text,
    Number,
    Date,
    Other,
}

/// Floats are left out: systems differ in NaN and in how a literal is rounded.
fn class(data_type: &DataType) -> Class {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Decimal128(..) => Class::Number,
        t if t.is_integer() => Class::Number,
        DataType::Date32 => Class::Date,
        _ => Class::Other,
    }
}

fn weaker(a: Pushdown, b: Pushdown) -> Pushdown {
    match (a, b) {
        (Pushdown::Exact, Pushdown::Exact) => Pushdown::Exact,
        (Pushdown::Unsupported, _) | (_, Pushdown::Unsupported) => Pushdown::Unsupported,
        _ => Pushdown::Inexact,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::sql::dialect::{
        DATABRICKS, MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER, SQLITE,
    };

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("Na\"me", DataType::Utf8View, true),
            Field::new("day", DataType::Date32, true),
            Field::new("score", DataType::Float64, true),
        ]))
    }

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

    fn judged(dialect: &SqlDialect, filter: &Expr) -> Pushdown {
        classify(dialect, &schema(), &[filter]).remove(0)
    }

    fn name() -> Expr {
        Expr::Column(Column::new(Some("t"), "Na\"me"))
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
    fn only_what_means_the_same_is_sent() {
        let check = |dialect: &SqlDialect, filter: Expr, expected: Pushdown| {
            assert_eq!(
                judged(dialect, &filter),
                expected,
                "{} {filter}",
                dialect.name
            );
        };
        check(&POSTGRESQL, name().eq(lit("a")), Pushdown::Exact);
        check(&POSTGRESQL, name().lt(lit("a")), Pushdown::Unsupported);
        check(&SNOWFLAKE, name().lt(lit("a")), Pushdown::Exact);
        check(&SNOWFLAKE, name().eq(lit("a\\b")), Pushdown::Unsupported);
        check(&DATABRICKS, name().eq(lit("O'Neil")), Pushdown::Unsupported);
        check(&MYSQL, name().eq(lit("a")), Pushdown::Inexact);
        check(&MYSQL, name().not_eq(lit("a")), Pushdown::Unsupported);
        check(
            &MYSQL,
            Expr::Not(Box::new(name().eq(lit("a")))),
            Pushdown::Unsupported,
        );
        check(&ORACLE, name().eq(lit("a")), Pushdown::Unsupported);
        check(&ORACLE, col("id").eq(lit(1i64)), Pushdown::Exact);
        check(&SNOWFLAKE, name().like(lit("a%")), Pushdown::Exact);
        check(&SQLITE, name().like(lit("a%")), Pushdown::Unsupported);
        check(
            &POSTGRESQL,
            col("score").gt(lit(1.5)),
            Pushdown::Unsupported,
        );
        check(
            &POSTGRESQL,
            name().in_list(vec![lit("a"), lit("b")], true),
            Pushdown::Exact,
        );
        check(
            &POSTGRESQL,
            col("id").is_null().or(name().eq(lit("a"))),
            Pushdown::Exact,
        );
        let day = lit(ScalarValue::Date32(Some(20_000)));
        check(&POSTGRESQL, col("day").gt_eq(day.clone()), Pushdown::Exact);
        check(&SQLITE, col("day").gt_eq(day), Pushdown::Unsupported);
        check(
            &POSTGRESQL,
            (col("id") + lit(1i64)).eq(lit(2i64)),
            Pushdown::Unsupported,
        );
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
