//! Functions of Spark that the library does not have as Spark means them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, StringViewArray,
};
use datafusion::arrow::compute::is_not_null;
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SimpleScalarUDF,
    TypeSignature, Volatility, create_udf,
};

/// Of a moment of `now`, in microseconds since 1970, which is the same for all rows.
pub(super) fn all(now: i64) -> Vec<ScalarUDF> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let moment = ScalarValue::TimestampMicrosecond(Some(now), Some("UTC".into()));
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let today = ScalarValue::Date32(i32::try_from(now.div_euclid(DAY)).ok());
    vec![
        constant("spark_now", utc, moment),
        constant("spark_today", DataType::Date32, today),
        create_udf(
            "spark_date_add",
            vec![DataType::Date32, DataType::Int64],
            DataType::Date32,
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| {
                let columns = arrays(args)?;
                let days = columns[1].as_primitive::<Int64Type>();
                pairs::<Date32Type, Date32Type>(&columns[0], days, |day, more| {
                    i64::from(day).checked_add(more)?.try_into().ok()
                })
            }),
        ),
        create_udf(
            "spark_date_diff",
            vec![DataType::Date32, DataType::Date32],
            DataType::Int64,
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| {
                let columns = arrays(args)?;
                let from = columns[1].as_primitive::<Date32Type>().unary(i64::from);
                pairs::<Date32Type, Int64Type>(&columns[0], &from, |to, from| {
                    Some(i64::from(to) - from)
                })
            }),
        ),
        create_udf(
            "spark_isnan",
            vec![DataType::Float64],
            DataType::Boolean,
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| {
                let columns = arrays(args)?;
                let values = columns[0].as_primitive::<Float64Type>().iter();
                let made = values.map(|value| Some(value.is_some_and(f64::is_nan)));
                Ok(ColumnarValue::Array(Arc::new(
                    made.collect::<BooleanArray>(),
                )))
            }),
        ),
        create_udf(
            "spark_right",
            vec![DataType::Utf8View, DataType::Int64],
            DataType::Utf8View,
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| {
                let columns = arrays(args)?;
                let counts = columns[1].as_primitive::<Int64Type>().iter();
                let made = columns[0].as_string_view().iter().zip(counts);
                let made = made.map(|(text, count)| match (text?, count?) {
                    (text, count @ 1..) => substring(text, -count, i64::MAX),
                    _ => Some(""),
                });
                Ok(ColumnarValue::Array(Arc::new(
                    made.collect::<StringViewArray>(),
                )))
            }),
        ),
        Coalesce(Signature::user_defined(Volatility::Immutable)).into(),
        SimpleScalarUDF::new_with_signature(
            "spark_substring",
            Signature::one_of(
                vec![
                    TypeSignature::Exact(vec![DataType::Utf8View, DataType::Int64]),
                    TypeSignature::Exact(vec![
                        DataType::Utf8View,
                        DataType::Int64,
                        DataType::Int64,
                    ]),
                ],
                Volatility::Immutable,
            ),
            DataType::Utf8View,
            Arc::new(|args: &[ColumnarValue]| substrings(args)),
        )
        .into(),
    ]
}

/// `/`, whose quotient by zero is null in Spark (or, in its ANSI mode, an error).
pub(super) fn divide() -> ScalarUDF {
    create_udf(
        "spark_divide",
        vec![DataType::Float64, DataType::Float64],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| {
            let columns = arrays(args)?;
            let below = columns[1].as_primitive::<Float64Type>().iter();
            let pairs = columns[0].as_primitive::<Float64Type>().iter().zip(below);
            let made = pairs.map(|(above, below)| {
                let below = below.filter(|below| *below != 0.0)?;
                Some(above? / below)
            });
            Ok(ColumnarValue::Array(Arc::new(
                made.collect::<Float64Array>(),
            )))
        }),
    )
}

/// The first value that is not null. The library's is evaluated only by its optimizer.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce(Signature);

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        "spark_coalesce"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let mut known = types.iter().filter(|kind| **kind != DataType::Null);
        let first = known.next().unwrap_or(&DataType::Null).clone();
        let common = known.try_fold(first, |common, next| {
            let text = [&common, next].map(DataType::is_string);
            // Of a number and a text, Spark makes texts in its own writing.
            let alike = text[0] == text[1];
            type_union_coercion(&common, next).filter(|_| alike)
        });
        let common = common.ok_or_else(|| {
            DataFusionError::Plan("coalesce of values that are not of one kind".to_owned())
        })?;
        Ok(vec![common; types.len()])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().unwrap_or(&DataType::Null).clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut columns = arrays(&args.args)?.into_iter().rev();
        let last = columns.next();
        let last = last.ok_or_else(|| DataFusionError::Plan("coalesce of nothing".to_owned()))?;
        let made = columns.try_fold(last, |rest, column| {
            zip(&is_not_null(&column)?, &column, &rest)
        })?;
        Ok(ColumnarValue::Array(made))
    }
}

fn constant(name: &str, kind: DataType, value: ScalarValue) -> ScalarUDF {
    let given = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
    let none = Signature::nullary(Volatility::Immutable);
    SimpleScalarUDF::new_with_signature(name, none, kind, given).into()
}

fn arrays(args: &[ColumnarValue]) -> Result<Vec<ArrayRef>> {
    ColumnarValue::values_to_arrays(args)
}

/// What `with` makes of both values, null of a null; an error where it makes nothing.
fn pairs<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
    first: &ArrayRef,
    second: &Int64Array,
    with: impl Fn(From::Native, i64) -> Option<To::Native>,
) -> Result<ColumnarValue> {
    let pairs = first.as_primitive::<From>().iter().zip(second);
    let made = pairs.map(|pair| match pair {
        (Some(first), Some(second)) => with(first, second)
            .map(Some)
            .ok_or_else(|| DataFusionError::Execution("a day beyond all calendars".to_owned())),
        _ => Ok(None),
    });
    let made = made.collect::<Result<PrimitiveArray<To>>>()?;
    Ok(ColumnarValue::Array(Arc::new(made)))
}

fn substrings(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = arrays(args)?;
    let lengths = columns
        .get(2)
        .map(|column| column.as_primitive::<Int64Type>());
    let texts = columns[0].as_string_view().iter();
    let starts = columns[1].as_primitive::<Int64Type>().iter();
    let made = texts.zip(starts).enumerate().map(|(row, (text, start))| {
        let length = match lengths {
            None => Some(i64::MAX),
            Some(lengths) => lengths.is_valid(row).then(|| lengths.value(row)),
        };
        substring(text?, start?, length?)
    });
    Ok(ColumnarValue::Array(Arc::new(
        made.collect::<StringViewArray>(),
    )))
}

/// `length` characters from the `start`th on: 0 is the first, too, and -1 the last.
fn substring(text: &str, start: i64, length: i64) -> Option<&str> {
    let count = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let from = match start {
        0 => 0,
        1.. => start - 1,
        _ => count().saturating_add(start),
    };
    // A start before the text takes of the length what is before it.
    let end = from.saturating_add(length);
    let at = |character: i64| {
        let character = usize::try_from(character.max(0)).unwrap_or(usize::MAX);
        text.char_indices()
            .nth(character)
            .map_or(text.len(), |(at, _)| at)
    };
    match end > from && end > 0 {
        true => text.get(at(from)..at(end)),
        false => Some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_counted_as_spark_counts() {
        for (text, start, length, expected) in [
            ("Spark SQL", 5, i64::MAX, "k SQL"), // these three are of Spark's documentation
            ("Spark SQL", -3, i64::MAX, "SQL"),
            ("Spark SQL", 5, 1, "k"),
            ("Spark", 0, 2, "Sp"),
            ("Spark", 1, 2, "Sp"),
            ("Spark", -2, 1, "r"),
            ("Spark", -7, 3, "S"),
            ("Spark", -7, 2, ""),
            ("Spark", 6, 3, ""),
            ("Spark", 2, 0, ""),
            ("Spark", 2, -1, ""),
            ("", 1, 1, ""),
            ("grün", 3, 1, "ü"),
            ("Spark", i64::MIN, i64::MAX, "Spar"),
            ("Spark", i64::MAX, i64::MAX, ""),
        ] {
            assert_eq!(
                substring(text, start, length),
                Some(expected),
                "{text} {start} {length}"
            );
        }
    }
}
