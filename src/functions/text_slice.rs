//! `text_slice(text, start, end)`: the bytes `start..end` of a text, as chunk ranges count them.
//!
//! SQL's own `substr` counts characters, and `chunk_start` / `chunk_end` are bytes.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::context::Casebook;
use crate::error::Error;

/// Adds the function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, _: &Arc<Casebook>) -> crate::Result<()> {
    ctx.register_udf(ScalarUDF::from(TextSlice::new()));
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextSlice {
    signature: Signature,
}

impl TextSlice {
    fn new() -> Self {
        let types = vec![DataType::Utf8View, DataType::Int64, DataType::Int64];
        Self {
            signature: Signature::exact(types, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for TextSlice {
    fn name(&self) -> &str {
        "text_slice"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = arrays[0].as_string_view();
        let (start, end) = (
            arrays[1].as_primitive::<Int64Type>(),
            arrays[2].as_primitive::<Int64Type>(),
        );
        let mut out = StringViewBuilder::with_capacity(text.len());
        for row in 0..text.len() {
            if text.is_null(row) || start.is_null(row) || end.is_null(row) {
                out.append_null();
            } else {
                out.append_value(slice(text.value(row), start.value(row), end.value(row))?);
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
    }
}

fn slice(text: &str, start: i64, end: i64) -> Result<&str> {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range
        .and_then(|(start, end)| text.get(start..end))
        .ok_or_else(|| {
            Error::invalid(format!(
            "text_slice: bytes {start}..{end} are not a part of this text of {} bytes, or cut a \
             character; the text may have changed since the range was made",
            text.len()
        ))
        .into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_bytes_and_never_cut_a_character() {
        let text = "§ 1983 applies";
        assert_eq!(slice(text, 0, 2).unwrap(), "§");
        assert_eq!(slice(text, 3, 7).unwrap(), "1983");
        assert_eq!(slice(text, 15, 15).unwrap(), "");
        for (start, end) in [(0, 1), (-1, 2), (4, 3), (0, 16)] {
            assert!(slice(text, start, end).is_err(), "{start}..{end}");
        }
    }
}
