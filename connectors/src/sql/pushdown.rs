//! Which filters a SQL system takes over: those that mean exactly the same there, or find more and
//! are evaluated here again. The rest stays here.
//!
//! A filter is sent only when every part of it is on a short list; the list errs on the side of
//! reading more rows, never other rows.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown as Pushdown,
};

use crate::sql::dialect::{SqlDialect, TextEquality};

/// Literals longer than this are not sent: servers limit the length of a statement.
const MAX_LITERAL_BYTES: usize = 16 << 10;
/// Elements of an IN list that are sent.
const MAX_LIST: usize = 500;
/// What all filters of a scan may add to its statement: Snowflake takes one of 1 MB.
const MAX_FILTER_BYTES: usize = 256 << 10;
/// What a value comes with: a column's name, an operator, brackets.
const AROUND_VALUE_BYTES: usize = 64;

/// How much of each of the `filters` of a scan the system is given, for
/// `supports_filters_pushdown`: one that does not fit beside those before it stays here.
pub(crate) fn offered(
    dialect: &SqlDialect,
    schema: &SchemaRef,
    filters: &[&Expr],
) -> Vec<Pushdown> {
    let (mut texts, mut bytes) = (dialect.max_texts, MAX_FILTER_BYTES);
    let judged = classify(dialect, schema, filters);
    let fitting = judged.into_iter().zip(filters).map(|(judged, filter)| {
        let (its_texts, its_bytes) = size(filter);
        if judged == Pushdown::Unsupported || its_texts > texts || its_bytes > bytes {
            return Pushdown::Unsupported;
        }
        (texts, bytes) = (texts - its_texts, bytes - its_bytes);
        judged
    });
    fitting.collect()
}

/// The texts in `filter`, and about how many bytes it has as SQL.
fn size(filter: &Expr) -> (usize, usize) {
    let (mut texts, mut bytes) = (0, 0);
    let counted = filter.apply(|expr| {
        if let Expr::Literal(value, _) = expr {
            let text = value.try_as_str().flatten();
            texts += usize::from(text.is_some());
            bytes += AROUND_VALUE_BYTES + text.map_or(0, str::len);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    // The closure never fails.
    drop(counted);
    (texts, bytes)
}

/// How much of each filter the system can take over, each by itself.
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
            && !text.contains(self.dialect.not_in_texts)
            && (text.is_ascii() || !self.dialect.ascii_texts);
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
pub(super) mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::sql::dialect::{
        DATABRICKS, MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER, SQLITE,
    };

    /// Columns of each class.
    pub(in crate::sql) fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("Na\"me", DataType::Utf8View, true),
            Field::new("day", DataType::Date32, true),
            Field::new("score", DataType::Float64, true),
        ]))
    }

    fn judged(dialect: &SqlDialect, filter: &Expr) -> Pushdown {
        classify(dialect, &schema(), &[filter]).remove(0)
    }

    /// The column of texts.
    pub(in crate::sql) fn name() -> Expr {
        Expr::Column(Column::new(Some("t"), "Na\"me"))
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
    fn a_text_that_would_be_read_in_a_code_page_stays_here() {
        for dialect in [&SQL_SERVER, &MYSQL, &DATABRICKS] {
            for text in ["東京", "é", "a\\\nb"] {
                let filter = name().eq(lit(text));
                assert_eq!(judged(dialect, &filter), Pushdown::Unsupported, "{text}");
                let either = name().eq(lit("a")).or(filter);
                assert_eq!(judged(dialect, &either), Pushdown::Unsupported, "{text}");
            }
            assert_ne!(
                judged(dialect, &name().eq(lit("Oslo"))),
                Pushdown::Unsupported
            );
        }
        for dialect in [&POSTGRESQL, &SNOWFLAKE] {
            assert_eq!(judged(dialect, &name().eq(lit("東京"))), Pushdown::Exact);
        }
    }

    #[cfg(feature = "databricks")]
    #[test]
    fn no_more_texts_are_sent_than_a_statement_takes() {
        use crate::sql::dialect::DATABRICKS_BOUND;

        let texts = |from: i32, count: i32| {
            let items = (from..from + count).map(|i| lit(i.to_string()));
            name().in_list(items.collect(), false)
        };
        let check = |dialect, filters: &[Expr], expected: &[Pushdown]| {
            let filters: Vec<&Expr> = filters.iter().collect();
            assert_eq!(offered(dialect, &schema(), &filters), expected);
        };
        let (sent, stays) = (Pushdown::Exact, Pushdown::Unsupported);
        check(&POSTGRESQL, &[texts(0, 300)], &[sent.clone()]);
        check(&DATABRICKS_BOUND, &[texts(0, 300)], &[stays.clone()]);
        // Over all filters; a number is no text, and what is small still goes.
        let filters = [
            texts(0, 100),
            texts(100, 100),
            col("id").eq(lit(1i64)),
            texts(200, 20),
            name().eq(lit("a")).or(name().eq(lit("b"))),
        ];
        let expected = [sent.clone(), stays, sent.clone(), sent.clone(), sent];
        check(&DATABRICKS_BOUND, &filters, &expected);
    }

    #[test]
    fn filters_do_not_make_a_statement_longer_than_a_server_takes() {
        let long = |i: usize| name().eq(lit(format!("{i}{}", "x".repeat(15_000))));
        let filters: Vec<Expr> = (0..100).map(long).collect();
        let filters: Vec<&Expr> = filters.iter().collect();
        let offered = offered(&SNOWFLAKE, &schema(), &filters);
        let sent = offered.iter().filter(|o| **o == Pushdown::Exact).count();
        assert_eq!(sent, MAX_FILTER_BYTES / 15_100);
        assert!(offered[..sent].iter().all(|o| *o == Pushdown::Exact));
    }
}
