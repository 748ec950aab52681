//! Numbers in SQL that a DOUBLE does not hold are DECIMAL, digit by digit.
//!
//! DataFusion makes a DOUBLE of every number with a point and of every one beyond 64 bits, before anybody
//! else sees it. Its own switch (`parse_float_as_decimal`) makes a DECIMAL of all of them: then 1.0 / 3 is
//! 0.33333, a median loses its last digit, and 1e300 is an error. So only those change whose digits
//! would be lost.

use std::ops::ControlFlow;

use casebook_connectors::double_holds;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, VisitorMut,
};

use crate::error::{Error, Result};

/// Digits of the widest DECIMAL.
const MAX_DIGITS: i64 = 76;

/// Makes a DECIMAL of each number in `statement` that a DOUBLE does not hold. For hosts that plan
/// statements themselves; `casebook sql` does it.
///
/// # Errors
/// A number that no type holds.
pub fn exact_literals(statement: &mut Statement) -> Result<()> {
    let flow = match statement {
        Statement::Statement(statement) => statement.visit(&mut Numbers),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(&mut Numbers),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(explain) => return exact_literals(&mut explain.statement),
        _ => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Numbers;

impl VisitorMut for Numbers {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Value(value) = expr else {
            return ControlFlow::Continue(());
        };
        let Value::Number(written, _) = &value.value else {
            return ControlFlow::Continue(());
        };
        let digits = written.replace('_', "");
        // An exponent asks for a DOUBLE.
        let asked = digits.contains(['e', 'E']) && digits.parse().is_ok_and(f64::is_finite);
        if asked || digits.parse::<u64>().is_ok() || double_holds(&digits) {
            return ControlFlow::Continue(());
        }
        let Some((precision, scale)) = size(&digits) else {
            return ControlFlow::Break(Error::invalid(format!(
                "the number {written} has more digits than any type of numbers ({MAX_DIGITS}); \
                 write it as a text"
            )));
        };
        let text = Value::SingleQuotedString(digits);
        *expr = Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(Expr::Value(text.into())),
            data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale)),
            array: false,
            format: None,
        };
        ControlFlow::Continue(())
    }
}

/// The digits of a DECIMAL that holds `number`, and those of them after the point.
fn size(number: &str) -> Option<(u64, i64)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let scale = i64::try_from(fraction.len()).ok()?;
    let all = scale.checked_add(i64::try_from(whole.trim_start_matches('0').len()).ok()?)?;
    match digits(whole) && digits(fraction) && (1..=MAX_DIGITS).contains(&all) {
        true => Some((u64::try_from(all).ok()?, scale)),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;
    use datafusion::sql::parser::DFParser;

    use super::*;

    async fn shown(sql: &str) -> Result<String> {
        let mut statement = DFParser::parse_sql(sql)?.pop_front().unwrap();
        exact_literals(&mut statement)?;
        let ctx = SessionContext::new();
        let plan = ctx.state().statement_to_plan(statement).await?;
        let batches = ctx.execute_logical_plan(plan).await?.collect().await?;
        let shown = datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap();
        let shown = shown.to_string();
        let line = shown.lines().nth(3).unwrap();
        Ok(line.trim_matches(['|', ' ']).to_owned())
    }

    #[tokio::test]
    async fn digits_are_kept_and_other_numbers_stay_what_they_are() {
        for (sql, expected) in [
            (
                "SELECT 12345678901234567890.123456789",
                "12345678901234567890.123456789",
            ),
            ("SELECT -9007199254740993.0", "-9007199254740993.0"),
            (
                "SELECT CAST(9007199254740993.0 AS BIGINT)",
                "9007199254740993",
            ),
            (
                "SELECT CAST(123456789012345678901234567890 AS VARCHAR)",
                "123456789012345678901234567890",
            ),
            ("SELECT arrow_typeof(1.2345678901234567890123e3)", "Float64"),
            (
                "SELECT 0.1000000000000000000001",
                "0.1000000000000000000001",
            ),
            ("SELECT 9007199254740993.0 = 9007199254740993", "true"),
            ("SELECT arrow_typeof(1.5)", "Float64"),
            ("SELECT arrow_typeof(0.1)", "Float64"),
            ("SELECT arrow_typeof(1e300)", "Float64"),
            ("SELECT arrow_typeof(18446744073709551615)", "UInt64"),
            ("SELECT arrow_typeof(9007199254740993)", "Int64"),
            ("SELECT 1.0 / 3", "0.3333333333333333"),
        ] {
            assert_eq!(shown(sql).await.unwrap(), expected, "{sql}");
        }
        let long = format!("SELECT {}", "1234567890".repeat(8));
        for sql in ["SELECT 1e400", long.as_str()] {
            let error = shown(sql).await.unwrap_err().to_string();
            assert!(error.contains("more digits than any type"), "{error}");
        }
    }
}
