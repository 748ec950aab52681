//! Whether a planned condition means what it means in Spark, for the types that it has.
//!
//! The two convert values in other ways where they are not of one kind (Spark compares '10' and 9 as
//! numbers, the library as texts), divide in other ways, and write numbers and times otherwise. What
//! is not known to be the same is refused.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};

use super::spark_functions;

/// As Spark means it.
///
/// # Errors
/// The part that may mean something else.
pub(super) fn as_spark(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let checked = expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Divide,
            right,
        }) => {
            for side in [&left, &right] {
                let kind = side.get_type(schema)?;
                if !(kind.is_integer() || kind.is_floating() || kind == DataType::Null) {
                    return Err(refused("divides what is no whole or floating number"));
                }
            }
            let sides = [*left, *right].map(|side| cast(side, DataType::Float64));
            let divided = spark_functions::divide().call(sides.to_vec());
            Ok(Transformed::yes(divided))
        }
        other => {
            check(&other, schema)?;
            let other = as_doubles(other, schema)?;
            Ok(Transformed::yes(other))
        }
    });
    checked.data()
}

/// A floating number and a decimal are compared, and calculated with, as DOUBLE; the library takes
/// decimals for that.
fn as_doubles(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let wide = |expr: Box<Expr>| Box::new(cast(*expr, DataType::Float64));
    let is = |expr: &Expr, of: fn(&DataType) -> bool| expr.get_type(schema).map(|kind| of(&kind));
    let mixed = |sides: &[&Expr]| -> Result<bool> {
        let any = |of: fn(&DataType) -> bool| -> Result<bool> {
            Ok(sides
                .iter()
                .map(|side| is(side, of))
                .collect::<Result<Vec<_>>>()?
                .contains(&true))
        };
        Ok(any(DataType::is_floating)? && any(DataType::is_decimal)?)
    };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if mixed(&[&left, &right])? => {
            Expr::BinaryExpr(BinaryExpr::new(wide(left), op, wide(right)))
        }
        Expr::Between(mut between) if mixed(&[&between.expr, &between.low, &between.high])? => {
            between.expr = wide(between.expr);
            between.low = wide(between.low);
            between.high = wide(between.high);
            Expr::Between(between)
        }
        Expr::InList(mut list) => {
            let sides: Vec<&Expr> = list.list.iter().chain([&*list.expr]).collect();
            if mixed(&sides)? {
                list.expr = wide(list.expr);
                let values = list.list.into_iter();
                list.list = values.map(|value| cast(value, DataType::Float64)).collect();
            }
            Expr::InList(list)
        }
        other => other,
    })
}

fn refused(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!(
        "it {what}, which is not known to give the same here as in Spark"
    ))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Truth,
    Number,
    Text,
    Moment,
    Other,
}

fn kind(expr: &Expr, schema: &DFSchema) -> Result<Kind> {
    use DataType::*;
    Ok(match expr.get_type(schema)? {
        Null => Kind::Nothing,
        Boolean => Kind::Truth,
        Utf8 | LargeUtf8 | Utf8View => Kind::Text,
        Date32 | Date64 | Timestamp(_, _) => Kind::Moment,
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Other,
    })
}

fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => Ok(()),
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Modulo => {
                let texts = [left, right].map(|side| kind(side, schema));
                match texts.into_iter().any(|side| matches!(side, Ok(Kind::Text))) {
                    true => Err(refused("calculates with a text")),
                    false => Ok(()),
                }
            }
            Operator::StringConcat => match (kind(left, schema)?, kind(right, schema)?) {
                (Kind::Text | Kind::Nothing, Kind::Text | Kind::Nothing) => Ok(()),
                _ => Err(refused("puts together what is no text")),
            },
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => compared(left, right, schema),
            op => Err(refused(&format!("has the operator {op}"))),
        },
        Expr::InList(list) => {
            let mut values = list.list.iter();
            values.try_for_each(|value| compared(&list.expr, value, schema))
        }
        Expr::Between(between) => {
            compared(&between.expr, &between.low, schema)?;
            compared(&between.expr, &between.high, schema)
        }
        Expr::Like(like) => match kind(&like.expr, schema)? {
            Kind::Text | Kind::Nothing => Ok(()),
            _ => Err(refused("looks for a text in what is none")),
        },
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let text = DataType::is_string(field.data_type());
            match text && (from.is_floating() || matches!(from, DataType::Timestamp(_, _))) {
                true => Err(refused("makes a text of a floating number or a time")),
                false => Ok(()),
            }
        }
        Expr::ScalarFunction(call) => {
            let wanted = match call.name() {
                "character_length" | "spark_substring" | "regexp_like" | "upper" | "lower"
                | "starts_with" | "ends_with" | "contains" | "strpos" | "spark_right" => {
                    Some((0, Kind::Text))
                }
                "date_part" | "date_trunc" => Some((1, Kind::Moment)),
                _ => None,
            };
            if let Some((at, wanted)) = wanted
                && let Some(given) = call.args.get(at)
                && ![&wanted, &Kind::Nothing].contains(&&kind(given, schema)?)
            {
                return Err(refused(&format!("calls {} of another type", call.name())));
            }
            let texts = ["concat_ws", "btrim", "ltrim", "rtrim"].contains(&call.name());
            let other = |arg: &Expr| {
                kind(arg, schema).map(|kind| ![Kind::Text, Kind::Nothing].contains(&kind))
            };
            match texts
                && call
                    .args
                    .iter()
                    .map(other)
                    .collect::<Result<Vec<_>>>()?
                    .contains(&true)
            {
                true => Err(refused(&format!(
                    "calls {} of what is no text",
                    call.name()
                ))),
                false => Ok(()),
            }
        }
        Expr::TryCast(_) => Err(refused("has a TRY_CAST")),
        _ => Ok(()),
    }
}

/// An error unless the two are compared as what they both are.
fn compared(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    let kinds = (kind(left, schema)?, kind(right, schema)?);
    let is_literal = |side: &Expr| matches!(side, Expr::Literal(_, _));
    match &kinds {
        (left, right) if left == right => Ok(()),
        (Kind::Nothing, _) | (_, Kind::Nothing) => Ok(()),
        (Kind::Moment, Kind::Text) if is_literal(right) => Ok(()),
        (Kind::Text, Kind::Moment) if is_literal(left) => Ok(()),
        _ => Err(refused("compares values of two kinds")),
    }
}
