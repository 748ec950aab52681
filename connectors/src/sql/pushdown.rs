//! Which filters a SQL system takes over: those that mean exactly the same there, or find more and
//! are evaluated here again. The rest stays here.
//!
//! A filter is sent only when every part of it is on a short list; the list errs on the side of
//! reading more rows, never other rows.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
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
    use crate::sql::dialect::{DATABRICKS, MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQLITE};

    fn schema() -> SchemaRef {
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

    fn name() -> Expr {
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
}
