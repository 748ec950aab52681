//! Rows on their way into a table, in the table's types: a value that they do not hold exactly is
//! an error that names its column, its row and itself. No sink writes NULL or a rounded value for it.
//!
//! Every sink casts through [`CheckedCast`]; what is exact, `exact` says. The planner of an INSERT
//! casts too, without a word: `inserted` takes its casts off.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options, take};
use datafusion::arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::exact;

/// Characters of a value that an error shows.
const SHOWN_CHARS: usize = 80;
/// Arrow's own default is NULL for what does not fit.
const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// Casts the batches of one INSERT, by position, into the columns of a table.
#[derive(Debug)]
pub(crate) struct CheckedCast {
    schema: SchemaRef,
    /// The target, such as `the Delta table at 'x'`.
    into: String,
    rows_before: usize,
}

impl CheckedCast {
    /// Into columns of `schema` of the target called `into`. A sink that names rows without a
    /// value itself gives a [`relaxed`] schema.
    pub(crate) fn new(schema: SchemaRef, into: impl Into<String>) -> Self {
        Self {
            schema,
            into: into.into(),
            rows_before: 0,
        }
    }

    /// With `rows` that came before the first batch.
    pub(crate) fn after(self, rows: usize) -> Self {
        Self {
            rows_before: rows,
            ..self
        }
    }

    /// The columns of the batches that [`Self::cast`] gives.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// `batch` in the table's columns.
    ///
    /// # Errors
    /// The first value that does not fit its column.
    pub(crate) fn cast(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().zip(batch.columns());
        let columns = fields
            .map(|(field, column)| self.column(field, column))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let cast = RecordBatch::try_new_with_options(self.schema(), columns, &options);
        let cast =
            cast.map_err(|e| Error::while_doing(format!("converting rows for {}", self.into), e))?;
        self.rows_before += batch.num_rows();
        Ok(cast)
    }

    fn column(&self, field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
        let cast = self.value(field, column)?;
        let nulls = match field.is_nullable() {
            true => None,
            false => cast.logical_nulls(),
        };
        let null = nulls.and_then(|nulls| nulls.iter().position(|is_valid| !is_valid));
        match null {
            None => Ok(cast),
            Some(row) => Err(Error::invalid(format!(
                "row {} of the INSERT has no {}, which is NOT NULL in {}; nothing was written: give \
                 a value, or filter such rows out",
                self.rows_before + row + 1,
                field.name(),
                self.into
            ))),
        }
    }

    fn value(&self, field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
        let failed = match fitted(column, field.data_type()) {
            Ok(cast) => return Ok(cast),
            Err(error) => error,
        };
        // Only now is it worth the time to look for the row.
        let bad = first_bad(column, field.data_type());
        let Some((row, value, error)) = bad else {
            // What does not fit is a value of a list's neighbour.
            let all = UInt64Array::from_iter_values(0..column.len() as u64);
            let own = take(column, &all, None).and_then(|own| fitted(&own, field.data_type()));
            return own.map_err(|_| {
                Error::invalid(format!(
                    "column {} ({}) of {}: {}",
                    field.name(),
                    field.data_type(),
                    self.into,
                    cut(&failed.to_string())
                ))
            });
        };
        Err(Error::invalid(format!(
            "row {} of the INSERT has {} in column {}, which is {} in {} ({}); nothing was \
             written: {}",
            self.rows_before + row + 1,
            shown(&value),
            field.name(),
            field.data_type(),
            self.into,
            cut(&why(&error)),
            advice(column.data_type(), field.data_type())
        )))
    }
}

/// What to do about a value of `from` that does not become `to`.
fn advice(from: &DataType, to: &DataType) -> &'static str {
    use DataType::{Date32, Date64, Timestamp};
    match (from, to) {
        (
            Date32
            | Date64
            | Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _),
            Timestamp(TimeUnit::Nanosecond, _),
        ) => {
            "TIMESTAMP holds the years 1678 to 2262; declare the column as TIMESTAMP(6), which holds \
             all of them"
        }
        (Timestamp(TimeUnit::Nanosecond, _), Timestamp(TimeUnit::Microsecond, _)) => {
            "cut it in the SELECT, with date_trunc('microsecond', ...), or filter such rows out"
        }
        (
            Timestamp(TimeUnit::Nanosecond | TimeUnit::Microsecond, _),
            Timestamp(TimeUnit::Millisecond, _),
        ) => "cut it in the SELECT, with date_trunc('millisecond', ...), or filter such rows out",
        (Timestamp(unit, _), Timestamp(TimeUnit::Second, _)) if *unit != TimeUnit::Second => {
            "cut it in the SELECT, with date_trunc('second', ...), or filter such rows out"
        }
        (from, to) if !from.is_nested() && !to.is_nested() => {
            "correct the value, filter such rows out, or say in the SELECT what becomes of it, with \
             ROUND or CAST"
        }
        _ => "correct the value, filter such rows out, or cast the column in the SELECT",
    }
}

/// An error of the library without its words for the kind of it.
fn why(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(message) => message.clone(),
        other => other.to_string(),
    }
}

/// The first value of `column` that does not become `target`: its row, itself and why not.
fn first_bad(column: &ArrayRef, target: &DataType) -> Option<(usize, ArrayRef, ArrowError)> {
    first_refused(column, |one| fitted(one, target))
}

/// The same for any way to cast.
fn first_refused(
    column: &ArrayRef,
    cast: impl Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Option<(usize, ArrayRef, ArrowError)> {
    // A slice of a list holds on to the values of its neighbours, so each row is taken out.
    let rows = (0..column.len() as u64).map(|row| {
        let one = UInt64Array::from(vec![row]);
        take(column, &one, None).unwrap_or_else(|_| column.slice(row as usize, 1))
    });
    rows.enumerate().find_map(|(row, one)| {
        let error = cast(&one).err()?;
        Some((row, one, error))
    })
}

/// `column`, called `name`, as `to`; `before` rows came before it. For columns on their way out of
/// a system, or into its own words.
///
/// # Errors
/// The first value that `to` cannot hold.
pub(crate) fn strictly(
    doing: &str,
    name: &str,
    column: &ArrayRef,
    to: &DataType,
    before: u64,
) -> Result<ArrayRef> {
    let failed = match converted(column, to) {
        Ok(cast) => return Ok(cast),
        Err(error) => error,
    };
    let why = match first_refused(column, |one| converted(one, to)) {
        None => format!("it is {}: {failed}", column.data_type()),
        Some((row, value, _)) => format!("row {} has {}", before + row as u64 + 1, shown(&value)),
    };
    Err(Error::invalid(format!(
        "{doing}: column {name} does not become {to}: {}; correct the value, or cast the column",
        cut(&why)
    ))
    .with_source(failed))
}

/// `column`, called `name`, of a file in the type of its table.
///
/// # Errors
/// The first value that the table's type does not hold exactly.
pub(crate) fn as_declared(name: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let failed = match fitted(column, to) {
        Ok(cast) => return Ok(cast),
        Err(error) => error,
    };
    let from = column.data_type();
    let bad = first_refused(column, |one| fitted(one, to));
    let value = bad.map_or_else(
        || format!("column {name} is {from} there"),
        |(_, value, _)| format!("column {name} has {}, {from},", shown(&value)),
    );
    Err(Error::invalid(format!(
        "{value} and is declared as {to} ({}); declare it as a type that holds it, and cast it in the \
         query",
        cut(&why(&failed))
    )))
}

/// `column` as `target`, which holds each of its values exactly.
fn fitted(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = column.data_type();
    if !exact::takes(target, from) {
        let message = format!("no {from} becomes {target} unless it is cast");
        return Err(ArrowError::CastError(message));
    }
    let cast = converted(column, target)?;
    match exact::changed(column, &cast)? {
        None => Ok(cast),
        Some(row) if cast.data_type().is_nested() || row >= cast.len() => Err(
            ArrowError::CastError("a value within it would change".into()),
        ),
        Some(row) => Err(ArrowError::CastError(format!(
            "it would become {}",
            shown(&cast.slice(row, 1))
        ))),
    }
}

/// `column` as `target`; digits that it has no room for are cut.
fn converted(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    let cast = cast_with_options(column, target, &STRICT)?;
    let nulls = |array: &ArrayRef| array.logical_null_count();
    if nulls(&cast) > nulls(column) {
        return Err(ArrowError::CastError("it has no such value".into()));
    }
    // A number beyond the range of REAL becomes infinite, which is no error to Arrow.
    if let (DataType::Float64, DataType::Float32) = (column.data_type(), target) {
        let pairs = column.as_primitive::<Float64Type>().iter();
        let mut pairs = pairs.zip(cast.as_primitive::<Float32Type>().iter());
        if pairs.any(|pair| matches!(pair, (Some(a), Some(b)) if a.is_finite() && b.is_infinite()))
        {
            return Err(ArrowError::CastError("it is out of range".into()));
        }
    }
    Ok(cast)
}

/// The only value of `one`, cut short.
fn shown(one: &ArrayRef) -> String {
    let options = FormatOptions::new();
    let value = ArrayFormatter::try_new(one, &options);
    let value = value.and_then(|values| values.value(0).try_to_string());
    let Ok(value) = value else {
        return "a value".into();
    };
    format!("'{}'", cut(&value))
}

/// The beginning of `text`, which may hold a value.
pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// `schema` with columns that may be null.
pub(crate) fn relaxed(schema: &Schema) -> Schema {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    Schema::new(fields.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        Float64Array, Int64Array, ListArray, StringArray, TimestampSecondArray,
    };
    use datafusion::arrow::datatypes::{Int64Type, TimeUnit};

    fn cast(column: ArrayRef, target: DataType) -> Result<RecordBatch> {
        let from = Schema::new(vec![Field::new("x", column.data_type().clone(), true)]);
        let into = Arc::new(Schema::new(vec![Field::new("n", target, true)]));
        let batch = RecordBatch::try_new(Arc::new(from), vec![column]).unwrap();
        let mut checked = CheckedCast::new(into, "the table 't'");
        checked.cast(&batch.slice(0, 1))?; // rows are counted over batches
        checked.cast(&batch.slice(1, batch.num_rows() - 1))
    }

    fn refused(column: ArrayRef, target: DataType, row: usize, value: &str) {
        let error = cast(column, target).unwrap_err().to_string();
        assert!(error.contains(&format!("row {row} ")), "{error}");
        for part in ["column n", value, "the table 't'"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_never_null() {
        let texts = || {
            Arc::new(StringArray::from(vec![
                Some("1"),
                None,
                Some("2"),
                Some("abc"),
            ]))
        };
        refused(texts(), DataType::Int32, 4, "'abc'");
        refused(texts(), DataType::Float64, 4, "'abc'");
        refused(texts(), DataType::Date32, 1, "'1'");
        let numbers = || {
            Arc::new(Int64Array::from(vec![
                Some(1),
                None,
                Some(1 << 40),
                Some(2),
            ]))
        };
        refused(numbers(), DataType::Int32, 3, "'1099511627776'");
        refused(numbers(), DataType::UInt8, 3, "'1099511627776'");
        refused(numbers(), DataType::Decimal128(5, 2), 3, "'1099511627776'");
        let floats = || Arc::new(Float64Array::from(vec![1.0, f64::INFINITY, 1e300]));
        refused(floats(), DataType::Int32, 2, "'inf'");
        let floats = || Arc::new(Float64Array::from(vec![1.0, f64::INFINITY, 1e300]));
        refused(floats(), DataType::Float32, 3, "'1e300'");
        let years = Arc::new(TimestampSecondArray::from(vec![0, 253_402_300_799]));
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        refused(years, nanoseconds, 2, "9999-12-31");
        let lists = [Some(vec![Some(1)]), Some(vec![Some(1), Some(1 << 40)])];
        let lists = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let small = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
        refused(lists, small, 2, "1099511627776");
    }

    #[test]
    fn what_fits_arrives_and_null_stays_null() {
        let texts = Arc::new(StringArray::from(vec![Some("1"), None, Some("-7")]));
        let batch = cast(texts, DataType::Int32).unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.column(0).null_count(), 1);
        assert_eq!(batch.schema().field(0).name(), "n");
        let years = Arc::new(TimestampSecondArray::from(vec![0, 253_402_300_799]));
        cast(years, DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
        let texts = Arc::new(StringArray::from(vec!["a", "b"]));
        cast(texts, DataType::Utf8View).unwrap();
    }

    #[test]
    fn a_column_on_its_way_out_names_its_row() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), None, Some("7x")]));
        let error = strictly("reading t", "n", &texts, &DataType::Int32, 10).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("column n") && error.contains("row 13 has '7x'"),
            "{error}"
        );
        let fine = strictly("", "n", &texts.slice(0, 2), &DataType::Int32, 0).unwrap();
        assert_eq!(fine.null_count(), 1);
    }

    #[test]
    fn a_long_value_is_cut_short() {
        let texts = Arc::new(StringArray::from(vec!["1".to_owned(), "x".repeat(1 << 20)]));
        let error = cast(texts, DataType::Int32).unwrap_err().to_string();
        assert!(error.len() < 1000 + SHOWN_CHARS, "{} bytes", error.len());
    }
}
