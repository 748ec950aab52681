//! Columns of texts as the types that a table declares, and back.
//!
//! What it does not do: quotes and nulls, which are the file's.

use std::fmt::Write;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeZone};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::exact;
use crate::text::numbers::{Floating, floating};

/// How dates and times are written and read; none: as the library does, in RFC 3339.
#[derive(Debug, Clone, Default)]
pub(super) struct Formats {
    pub(super) date: Option<String>,
    pub(super) datetime: Option<String>,
    pub(super) timestamp: Option<String>,
    pub(super) timestamp_tz: Option<String>,
    pub(super) time: Option<String>,
}

impl Formats {
    fn of(&self, data_type: &DataType) -> Option<&str> {
        match data_type {
            DataType::Date32 => self.date.as_deref(),
            DataType::Date64 => self.datetime.as_deref(),
            DataType::Timestamp(_, None) => self.timestamp.as_deref(),
            DataType::Timestamp(_, Some(_)) => self.timestamp_tz.as_deref(),
            DataType::Time32(_) | DataType::Time64(_) => self.time.as_deref(),
            _ => None,
        }
    }
}

/// True for types whose texts are written as they are.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Fails for a type whose values would be read back as something else.
pub(super) fn check_writable(name: &str, data_type: &DataType) -> Result<()> {
    let plain = match data_type {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let writable = is_text(plain)
        || plain.is_numeric() && *plain != DataType::Float16
        || matches!(plain, DataType::Null | DataType::Boolean)
        || plain.is_temporal() && !matches!(plain, DataType::Interval(_) | DataType::Duration(_));
    let advice = match plain {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            "select encode(COLUMN, 'base64')"
        }
        other if other.is_nested() => "select its parts, or write it STORED AS JSON or PARQUET",
        _ => "cast it to VARCHAR",
    };
    match writable {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "column {name} has type {data_type}, which CSV cannot hold so that it is read back \
             equal; {advice}"
        ))),
    }
}

/// Parses a declared type; the library's error names the first bad value.
pub(super) fn parse(
    text: &ArrayRef,
    to: &DataType,
    formats: &Formats,
) -> std::result::Result<ArrayRef, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let Some(format) = formats.of(to) else {
        return cast_with_options(text, to, &strict);
    };
    let mut plain = StringViewBuilder::with_capacity(text.len());
    for value in text.as_string_view() {
        match value {
            None => plain.append_null(),
            Some(value) => plain.append_value(standard(value, to, format)?),
        }
    }
    let plain: ArrayRef = Arc::new(plain.finish());
    cast_with_options(&plain, to, &strict)
}

/// The first row whose value is not what its text says: rounded, cut or infinite. Floating numbers are
/// near what is written, but a whole number has all its digits. What a format of the user's leaves out
/// is left out.
pub(super) fn changed(
    text: &ArrayRef,
    parsed: &ArrayRef,
    formats: &Formats,
) -> std::result::Result<Option<usize>, ArrowError> {
    let to = parsed.data_type();
    if to.is_integer() || formats.of(to).is_some() {
        return Ok(None);
    }
    if !to.is_floating() {
        return exact::changed(text, parsed);
    }
    let lost = |text: &str| matches!(floating(to, text), Floating::Digits | Floating::TooLarge);
    let mut texts = text.as_string_view().iter();
    Ok(texts.position(|text| text.is_some_and(lost)))
}

/// `value`, written in `format`, as the library reads it.
fn standard(value: &str, to: &DataType, format: &str) -> std::result::Result<String, ArrowError> {
    let moment = || {
        // A format without a time of day means midnight.
        NaiveDateTime::parse_from_str(value, format).or_else(|error| {
            let date = NaiveDate::parse_from_str(value, format).map_err(|_| error)?;
            Ok(date.and_time(NaiveTime::MIN))
        })
    };
    let parsed = match to {
        DataType::Date32 => NaiveDate::parse_from_str(value, format).map(|d| d.to_string()),
        DataType::Time32(_) | DataType::Time64(_) => {
            NaiveTime::parse_from_str(value, format).map(|t| t.format("%H:%M:%S%.9f").to_string())
        }
        DataType::Timestamp(_, Some(zone)) => {
            let zoned = DateTime::parse_from_str(value, format);
            let local = |error| {
                let zone: Tz = zone.parse().map_err(|_| error)?;
                let moment = zone.from_local_datetime(&moment()?);
                moment.single().map(|m| m.fixed_offset()).ok_or(error)
            };
            zoned
                .or_else(local)
                .map(|m: DateTime<FixedOffset>| m.to_rfc3339_opts(SecondsFormat::Nanos, false))
        }
        _ => moment().map(|m| m.format("%Y-%m-%dT%H:%M:%S%.9f").to_string()),
    };
    parsed.map_err(|e| {
        ArrowError::ParseError(format!("'{value}' is no {to} in the format {format}: {e}"))
    })
}

/// The values of a column as texts.
///
/// # Errors
/// A value that would be read back as another one, where `checked`.
pub(super) fn texts(
    name: &str,
    column: &ArrayRef,
    formats: &Formats,
    checked: bool,
) -> Result<StringViewArray> {
    let failed = |e: ArrowError| Error::while_doing(format!("writing column {name} as text"), e);
    if is_text(column.data_type()) {
        let text = cast_with_options(column, &DataType::Utf8View, &CastOptions::default());
        return Ok(text.map_err(failed)?.as_string_view().clone());
    }
    let options = FormatOptions::default()
        .with_display_error(false)
        .with_date_format(formats.date.as_deref())
        .with_datetime_format(formats.datetime.as_deref())
        .with_timestamp_format(formats.timestamp.as_deref())
        .with_timestamp_tz_format(formats.timestamp_tz.as_deref())
        .with_time_format(formats.time.as_deref());
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    let mut out = StringViewBuilder::with_capacity(column.len());
    let mut text = String::new();
    let nulls = column.logical_nulls();
    for row in 0..column.len() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.append_null();
            continue;
        }
        text.clear();
        write!(text, "{}", formatter.value(row)).map_err(|e| {
            Error::invalid(format!(
                "column {name}: a value of type {} that cannot be written: {e}",
                column.data_type()
            ))
        })?;
        out.append_value(&text);
    }
    let out = out.finish();
    if checked && may_lose(column.data_type()) {
        check_same(name, column, &out, formats)?;
    }
    Ok(out)
}

/// True for types whose texts may say less than the value, or cannot be read.
fn may_lose(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => may_lose(values),
        DataType::Null | DataType::Boolean | DataType::Float32 | DataType::Float64 => false,
        other => !other.is_integer(),
    }
}

fn check_same(
    name: &str,
    column: &ArrayRef,
    text: &StringViewArray,
    formats: &Formats,
) -> Result<()> {
    let data_type = column.data_type();
    let text: ArrayRef = Arc::new(text.clone());
    let differs = |row: usize, why: &str| {
        let shown = text.as_string_view().value(row);
        Error::invalid(format!(
            "column {name}: a {data_type} is written as '{shown}', which {why}; give another \
             format, or cast the column to VARCHAR"
        ))
    };
    let read = parse(&text, data_type, formats).map_err(|e| {
        let bad = (0..text.len()).find(|row| {
            let one = text.slice(*row, 1);
            one.is_valid(0) && parse(&one, data_type, formats).is_err()
        });
        differs(bad.unwrap_or(0), "cannot be read again").with_source(e)
    })?;
    if &read == column {
        return Ok(());
    }
    let other = (0..text.len()).find(|row| read.slice(*row, 1) != column.slice(*row, 1));
    Err(differs(
        other.unwrap_or(0),
        "would be read as another value",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        BinaryArray, Date32Array, Decimal128Array, Float64Array, Int64Array, Time64NanosecondArray,
        TimestampMicrosecondArray,
    };

    fn round(column: ArrayRef, formats: &Formats) -> Result<Vec<String>> {
        let text = texts("c", &column, formats, true)?;
        let read: ArrayRef = Arc::new(text.clone());
        let read = parse(&read, column.data_type(), formats).unwrap();
        assert_eq!(&read, &column);
        Ok(text.iter().flatten().map(str::to_owned).collect())
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let none = Formats::default();
        let written = |column| round(column, &none).unwrap();
        assert_eq!(
            written(Arc::new(Date32Array::from(vec![Some(0), None]))),
            ["1970-01-01"]
        );
        assert_eq!(written(Arc::new(Int64Array::from(vec![-5]))), ["-5"]);
        written(Arc::new(Float64Array::from(vec![
            0.1,
            1e300,
            f64::INFINITY,
        ])));
        written(Arc::new(TimestampMicrosecondArray::from(vec![
            1, 1_000_000,
        ])));
        let zone = TimestampMicrosecondArray::from(vec![1]).with_timezone("+02:00");
        written(Arc::new(zone));
        written(Arc::new(Time64NanosecondArray::from(vec![
            1,
            86_399_999_999_999,
        ])));
        let decimal = Decimal128Array::from(vec![12345]).with_precision_and_scale(9, 3);
        assert_eq!(written(Arc::new(decimal.unwrap())), ["12.345"]);
    }

    #[test]
    fn formats_are_used_both_ways_and_must_not_lose_anything() {
        let formats = Formats {
            date: Some("%d.%m.%Y".into()),
            timestamp: Some("%d.%m.%Y %H:%M".into()),
            timestamp_tz: Some("%Y/%m/%d %H:%M:%S%.f %z".into()),
            time: Some("%H-%M-%S".into()),
            datetime: None,
        };
        let day: ArrayRef = Arc::new(Date32Array::from(vec![31]));
        assert_eq!(round(day, &formats).unwrap(), ["01.02.1970"]);
        let minute = TimestampMicrosecondArray::from(vec![60_000_000]);
        assert_eq!(
            round(Arc::new(minute), &formats).unwrap(),
            ["01.01.1970 00:01"]
        );
        let zoned = TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("+02:00");
        round(Arc::new(zoned), &formats).unwrap();
        let second = TimestampMicrosecondArray::from(vec![61_000_000]);
        let error = round(Arc::new(second), &formats).unwrap_err().to_string();
        assert!(error.contains("another value"), "{error}");
        let words: ArrayRef = Arc::new(StringViewArray::from(vec!["1970-02-01"]));
        let error = parse(&words, &DataType::Date32, &formats).unwrap_err();
        assert!(error.to_string().contains("%d.%m.%Y"), "{error}");
    }

    #[test]
    fn a_text_that_its_type_does_not_hold_is_found() {
        use datafusion::arrow::datatypes::TimeUnit::{Microsecond, Millisecond};
        let none = Formats::default();
        let days = Formats {
            date: Some("%Y-%m-%d %H".into()),
            ..Formats::default()
        };
        for (text, to, formats, wrong) in [
            ("1.005", DataType::Decimal128(5, 2), &none, true),
            ("1.50", DataType::Decimal128(5, 1), &none, false),
            ("9007199254740993", DataType::Float64, &none, true),
            ("1e400", DataType::Float64, &none, true),
            ("inf", DataType::Float64, &none, false),
            ("0.1", DataType::Float32, &none, false),
            ("0.123456789", DataType::Float32, &none, false),
            ("16777217", DataType::Float32, &none, true),
            ("830168100.0", DataType::Float32, &none, false),
            ("-00016777216.00", DataType::Float32, &none, false),
            ("3.14159265358979323846", DataType::Float64, &none, false),
            ("9007199254740993.0", DataType::Float64, &none, true),
            ("1e23", DataType::Float64, &none, false),
            ("0", DataType::Float64, &none, false),
            ("2024-01-01T23:00:00", DataType::Date32, &none, true),
            ("2024-01-01", DataType::Date32, &none, false),
            ("2024-01-01 23", DataType::Date32, &days, false),
            (
                "2024-01-01T00:00:00.1239",
                DataType::Timestamp(Millisecond, None),
                &none,
                true,
            ),
            (
                "2024-01-01T00:00:00.123",
                DataType::Timestamp(Millisecond, None),
                &none,
                false,
            ),
            (
                "2024-01-01T00:00:00+05:30",
                DataType::Timestamp(Microsecond, None),
                &none,
                true,
            ),
            (
                "2024-01-01T00:00:00Z",
                DataType::Timestamp(Microsecond, None),
                &none,
                false,
            ),
            ("7", DataType::Int32, &none, false),
        ] {
            let texts: ArrayRef = Arc::new(StringViewArray::from(vec![None, Some(text)]));
            let parsed = parse(&texts, &to, formats).unwrap();
            let found = changed(&texts, &parsed, formats).unwrap();
            assert_eq!(found, wrong.then_some(1), "{text} as {to}");
        }
    }

    #[test]
    fn types_that_would_change_are_refused() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"x"[..]]));
        let error = check_writable("b", bytes.data_type()).unwrap_err();
        assert!(error.to_string().contains("base64"), "{error}");
        assert!(check_writable("d", &DataType::Date64).is_ok());
        let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        assert!(check_writable("w", &words).is_ok());
    }
}
