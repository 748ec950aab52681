//! `exact_match(answer, expected)`, `token_f1(answer, expected)` and `is_refusal(answer)`: how good
//! are answers, when the right ones are in a column? The rules are those of [`casebook_qa::score`].

use std::sync::Arc;

use casebook_qa::score;
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, StringViewArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::context::Casebook;

/// Adds the functions to `ctx`.
pub(crate) fn register(ctx: &SessionContext, _: &Arc<Casebook>) -> crate::Result<()> {
    for measure in [Measure::ExactMatch, Measure::TokenF1, Measure::IsRefusal] {
        ctx.register_udf(ScalarUDF::from(Score::new(measure)));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    ExactMatch,
    TokenF1,
    IsRefusal,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Score {
    measure: Measure,
    signature: Signature,
}

impl Score {
    fn new(measure: Measure) -> Self {
        let arguments = match measure {
            Measure::IsRefusal => 1,
            _ => 2,
        };
        let types = vec![DataType::Utf8View; arguments];
        Self {
            measure,
            signature: Signature::exact(types, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Score {
    fn name(&self) -> &str {
        match self.measure {
            Measure::ExactMatch => "exact_match",
            Measure::TokenF1 => "token_f1",
            Measure::IsRefusal => "is_refusal",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.measure {
            Measure::TokenF1 => DataType::Float64,
            _ => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let answers = arrays[0].as_string_view();
        let expected = arrays.get(1).map(|a| a.as_string_view());
        let out: ArrayRef = match (self.measure, expected) {
            (Measure::ExactMatch, Some(expected)) => Arc::new(
                pairs(answers, expected)
                    .map(|pair| pair.map(|(a, e)| score::exact_match(a, e)))
                    .collect::<BooleanArray>(),
            ),
            (Measure::TokenF1, Some(expected)) => Arc::new(
                pairs(answers, expected)
                    .map(|pair| pair.map(|(a, e)| score::token_f1(a, e)))
                    .collect::<Float64Array>(),
            ),
            _ => Arc::new(
                answers
                    .iter()
                    .map(|answer| answer.map(score::is_refusal))
                    .collect::<BooleanArray>(),
            ),
        };
        Ok(ColumnarValue::Array(out))
    }
}

/// Row by row; none where either is null.
fn pairs<'a>(
    answers: &'a StringViewArray,
    expected: &'a StringViewArray,
) -> impl Iterator<Item = Option<(&'a str, &'a str)>> {
    answers.iter().zip(expected.iter()).map(|(a, e)| a.zip(e))
}
