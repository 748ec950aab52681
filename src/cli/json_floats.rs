//! Floating numbers in JSON, which has no NaN and no infinities: they are printed as the texts "NaN",
//! "Infinity" and "-Infinity", which a column of floating numbers reads back as what they were. The
//! library would print null.

use std::sync::LazyLock;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{
    Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder,
};

/// The library's own way.
static PLAIN: LazyLock<EncoderOptions> = LazyLock::new(EncoderOptions::default);

/// Encodes columns of floating numbers, also those within others.
#[derive(Debug)]
pub(super) struct JsonFloats;

impl EncoderFactory for JsonFloats {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let is_float = matches!(
            array.data_type(),
            DataType::Float16 | DataType::Float32 | DataType::Float64
        );
        if !is_float {
            return Ok(None);
        }
        // What is finite is written as the library does, in the digits of its own type.
        let finite = make_encoder(field, array, &PLAIN)?;
        let encoder = Floats {
            values: cast(array, &DataType::Float64)?,
            finite,
        };
        Ok(Some(NullableEncoder::new(
            Box::new(encoder),
            array.nulls().cloned(),
        )))
    }
}

struct Floats<'a> {
    /// As 64 bits, which hold every value of the narrower types.
    values: ArrayRef,
    finite: NullableEncoder<'a>,
}

impl Encoder for Floats<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text: &[u8] = match self.values.as_primitive::<Float64Type>().value(row) {
            value if value.is_nan() => b"\"NaN\"",
            f64::INFINITY => b"\"Infinity\"",
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => return self.finite.encode(row, out),
        };
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::RecordBatch;
    use datafusion::arrow::json::WriterBuilder;
    use datafusion::arrow::json::writer::LineDelimited;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn lines(sql: &str) -> String {
        let rows = SessionContext::new().sql(sql).await.unwrap();
        let batches: Vec<RecordBatch> = rows.collect().await.unwrap();
        let builder = WriterBuilder::new().with_encoder_factory(Arc::new(JsonFloats));
        let mut writer = builder.build::<_, LineDelimited>(vec![]);
        for batch in &batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(writer.into_inner()).unwrap()
    }

    #[tokio::test]
    async fn what_json_lacks_is_a_text_and_the_rest_as_it_was() {
        let values =
            "(1, 0.1), (2, 'NaN'), (3, NULL), (4, '-inf'), (5, 'inf'), (6, 1e300), (7, -0.0)";
        for (kind, first, large) in [
            ("DOUBLE", "0.1", "1.0e300"),
            ("REAL", "0.1", "\"Infinity\""),
        ] {
            let values = values.replace("1e300", &format!("'{}'", large.trim_matches('"')));
            let found = lines(&format!(
                "SELECT CAST(column2 AS {kind}) AS x FROM (SELECT column1, CAST(column2 AS VARCHAR) \
                 AS column2 FROM (VALUES {values})) ORDER BY column1"
            ))
            .await;
            let expected = format!(
                "{{\"x\":{first}}}\n{{\"x\":\"NaN\"}}\n{{}}\n{{\"x\":\"-Infinity\"}}\n\
                 {{\"x\":\"Infinity\"}}\n{{\"x\":{large}}}\n{{\"x\":-0.0}}\n"
            );
            assert_eq!(found, expected, "{kind}");
        }
        let nested = lines(
            "SELECT make_array(1.5, CAST('NaN' AS DOUBLE), NULL) AS l, \
             named_struct('f', CAST('inf' AS REAL), 's', 'NaN') AS s, \
             arrow_cast(1.5, 'Float16') AS h, arrow_cast(CAST('NaN' AS DOUBLE), 'Float16') AS n",
        );
        assert_eq!(
            nested.await,
            "{\"l\":[1.5,\"NaN\",null],\"s\":{\"f\":\"Infinity\",\"s\":\"NaN\"},\"h\":1.5,\
             \"n\":\"NaN\"}\n"
        );
    }
}
