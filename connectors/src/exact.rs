//! Whether a type holds a value exactly. What an INSERT may change without being asked is layout
//! and width, never the value.
//!
//! A number is what its digits show: 0.1 is the same in REAL, DOUBLE, DECIMAL and as a text. A
//! moment is exact if nothing of it is cut off. What only an explicit CAST decides: a truth value
//! or a moment as a number, a moment of another zone in a column without one, a list as a text.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Fields, Int64Type, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// NULL for what does not fit.
const LENIENT: CastOptions<'static> = CastOptions {
    safe: true,
    format_options: FormatOptions::new(),
};

/// What a value is, whatever its width and layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Truth,
    Number,
    Text,
    Bytes,
    Moment,
    TimeOfDay,
    Span,
    Nested,
}

fn kind(data_type: &DataType) -> Kind {
    use DataType::*;
    match data_type {
        Null => Kind::Nothing,
        Boolean => Kind::Truth,
        Utf8 | LargeUtf8 | Utf8View => Kind::Text,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Kind::Bytes,
        Date32 | Date64 | Timestamp(_, _) => Kind::Moment,
        Time32(_) | Time64(_) => Kind::TimeOfDay,
        Duration(_) | Interval(_) => Kind::Span,
        Dictionary(_, value) => kind(value),
        RunEndEncoded(_, value) => kind(value.data_type()),
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Nested,
    }
}

/// True if values of `from` may become values of `to` unasked; each of them must be looked at
/// ([`changed`]).
pub(crate) fn takes(to: &DataType, from: &DataType) -> bool {
    if from == to || *from == DataType::Null {
        return true;
    }
    let kinds = match (kind(from), kind(to)) {
        (Kind::Nested, Kind::Nested) => match places(from, to) {
            None => false,
            Some(places) => {
                let (inner, outer) = (inner(from), inner(to));
                let mut pairs = places.into_iter().zip(&outer);
                pairs.all(|(at, to)| inner.get(at).is_some_and(|from| takes(to, from)))
            }
        },
        (Kind::Nested, _) | (_, Kind::Nested) => false,
        (Kind::Moment, Kind::Moment) => match (zone(from), zone(to)) {
            (Some(zone), None) => is_utc(zone),
            _ => true,
        },
        (from, to) => from == to || from == Kind::Text || to == Kind::Text,
    };
    kinds && can_cast_types(from, to)
}

/// True if a cast `from` one type `to` another keeps the order of values and each of them, or fails
/// by itself: the library may do it, and look through it at statistics.
pub(crate) fn widens(to: &DataType, from: &DataType) -> bool {
    use DataType::*;
    let zones = |from, to| match (zone(from), zone(to)) {
        (from, to) if from == to => true,
        (from, to) => from.is_none_or(is_utc) && to.is_none_or(is_utc),
    };
    match (from, to) {
        (from, to) if from == to => true,
        (Dictionary(_, from), to) => widens(to, from),
        (from, Dictionary(_, to)) => widens(to, from),
        (from, to) if from.is_integer() && to.is_integer() => true,
        (from, Decimal128(_, 0..) | Decimal256(_, 0..)) if from.is_integer() => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Decimal32(_, s) | Decimal64(_, s) | Decimal128(_, s) | Decimal256(_, s), to) => match to {
            Decimal32(_, to) | Decimal64(_, to) | Decimal128(_, to) | Decimal256(_, to) => to >= s,
            _ => false,
        },
        (Timestamp(fine, _), Timestamp(finer, _)) => {
            decimals(*finer) >= decimals(*fine) && zones(from, to)
        }
        (Time32(fine) | Time64(fine), Time32(finer) | Time64(finer)) => {
            decimals(*finer) >= decimals(*fine)
        }
        (_, FixedSizeBinary(_)) => false,
        (Struct(own), Struct(wanted)) => wanted.iter().all(|wanted| {
            let own = own.iter().find(|own| own.name() == wanted.name());
            own.is_none_or(|own| widens(wanted.data_type(), own.data_type()))
        }),
        (from, to) => match (kind(from), kind(to)) {
            (Kind::Text, Kind::Text) | (Kind::Bytes, Kind::Bytes) => true,
            (Kind::Nested, Kind::Nested) => {
                let (from, to) = (inner(from), inner(to));
                from.len() == to.len() && from.iter().zip(&to).all(|(from, to)| widens(to, from))
            }
            _ => false,
        },
    }
}

/// Where in `from` that is which each type within `to` is made of: fields of a struct by their names, if
/// they have the same, else by position; none where a name would land in another field.
fn places(from: &DataType, to: &DataType) -> Option<Vec<usize>> {
    let count = inner(from).len();
    if count != inner(to).len() {
        return None;
    }
    let (DataType::Struct(from), DataType::Struct(to)) = (from, to) else {
        return Some((0..count).collect());
    };
    let named = |fields: &Fields, name: &str| fields.iter().position(|f| f.name() == name);
    let by_name: Option<Vec<usize>> = to.iter().map(|field| named(from, field.name())).collect();
    by_name.or_else(|| {
        let mut places = from.iter().map(|field| named(to, field.name())).enumerate();
        let stays = places.all(|(at, place)| place.is_none_or(|place| place == at));
        stays.then(|| (0..count).collect())
    })
}

/// The types within a list, a map or a struct.
fn inner(data_type: &DataType) -> Vec<DataType> {
    use DataType::*;
    match data_type {
        List(field)
        | LargeList(field)
        | ListView(field)
        | LargeListView(field)
        | FixedSizeList(field, _)
        | Map(field, _) => vec![field.data_type().clone()],
        Struct(fields) => fields.iter().map(|f| f.data_type().clone()).collect(),
        _ => vec![],
    }
}

fn zone(moment: &DataType) -> Option<&str> {
    match moment {
        DataType::Timestamp(_, zone) => zone.as_deref(),
        _ => None,
    }
}

/// True if `zone` is a name of UTC.
pub(crate) fn is_utc(zone: &str) -> bool {
    let zone = zone.to_ascii_uppercase();
    let numbers = zone.trim_matches(['+', '-', ':', '0']).is_empty();
    numbers || ["Z", "UTC", "ETC/UTC", "GMT"].contains(&&*zone)
}

/// The first row of `given` that `cast`, which was made of it and of a type that takes it, does not
/// hold exactly.
pub(crate) fn changed(given: &ArrayRef, cast: &ArrayRef) -> Result<Option<usize>, ArrowError> {
    let given = &unpacked(given)?;
    let (from, to) = (given.data_type(), cast.data_type());
    if from == to {
        return Ok(None);
    }
    match (kind(from), kind(to)) {
        (Kind::Number, Kind::Number) if from.is_integer() && to.is_integer() => Ok(None),
        (Kind::Number, Kind::Number) => {
            let (before, after) = (shown(given)?, shown(cast)?);
            let differ = not_coming_back(given, cast)?.into_iter();
            first(differ, |row| {
                let before = before.value(row).try_to_string()?;
                Ok(!same_number(&before, &after.value(row).try_to_string()?))
            })
        }
        (Kind::Text, Kind::Number) => {
            let texts = texts(given)?;
            let (texts, after) = (texts.as_string_view(), shown(cast)?);
            first(values(given), |row| {
                let after = after.value(row).try_to_string()?;
                Ok(!same_number(texts.value(row), &after))
            })
        }
        (Kind::Text, Kind::Moment | Kind::TimeOfDay) => {
            let texts = texts(given)?;
            let texts = texts.as_string_view();
            first(values(given), |row| Ok(is_cut(texts.value(row), to)))
        }
        (Kind::Moment, Kind::Moment) => cut_moment(given, to),
        (Kind::TimeOfDay, Kind::TimeOfDay)
        | (Kind::Span, Kind::Span)
        | (Kind::Bytes, Kind::Bytes) => Ok(not_coming_back(given, cast)?.first().copied()),
        (Kind::Nested, Kind::Nested) => {
            let own = children(given);
            let places = places(from, to).unwrap_or_default().into_iter();
            let given = places.filter_map(|at| own.get(at).cloned());
            for (given, cast) in given.zip(children(cast)) {
                if given.len() != cast.len() {
                    let message = "its lists are laid out in another way; cast it".to_owned();
                    return Err(ArrowError::CastError(message));
                }
                if let Some(at) = changed(&given, &cast)? {
                    return Ok(Some(at));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// True if a value of `to` holds all of what `text` says, or `text` is none.
pub(crate) fn holds(to: &DataType, text: &str) -> Result<bool, ArrowError> {
    let given: ArrayRef = std::sync::Arc::new(StringViewArray::from(vec![text]));
    let cast = cast_with_options(&given, to, &LENIENT)?;
    Ok(cast.is_null(0) || changed(&given, &cast)?.is_none())
}

/// True if a DOUBLE holds all digits of `number`, as SQL writes it.
pub fn double_holds(number: &str) -> bool {
    holds(&DataType::Float64, number).unwrap_or(false)
}

/// The values of dictionaries and runs.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, value) => cast(array, value),
        DataType::RunEndEncoded(_, value) => cast(array, value.data_type()),
        _ => Ok(ArrayRef::clone(array)),
    }
}

fn texts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(array, &DataType::Utf8View)
}

fn shown(array: &ArrayRef) -> Result<ArrayFormatter<'_>, ArrowError> {
    const PLAIN: FormatOptions<'static> = FormatOptions::new();
    ArrayFormatter::try_new(array, &PLAIN)
}

/// The rows that have a value.
fn values(array: &ArrayRef) -> impl Iterator<Item = usize> + use<> {
    let nulls = array.logical_nulls();
    (0..array.len()).filter(move |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row)))
}

fn first(
    mut rows: impl Iterator<Item = usize>,
    wrong: impl Fn(usize) -> Result<bool, ArrowError>,
) -> Result<Option<usize>, ArrowError> {
    rows.find_map(|row| match wrong(row) {
        Ok(false) => None,
        Ok(true) => Some(Ok(row)),
        Err(error) => Some(Err(error)),
    })
    .transpose()
}

/// The rows that are not the same when they are cast back.
fn not_coming_back(given: &ArrayRef, cast: &ArrayRef) -> Result<Vec<usize>, ArrowError> {
    let back = cast_with_options(cast, given.data_type(), &LENIENT)?;
    let same = not_distinct(given, &back)?;
    let rows = same.values().iter().enumerate();
    Ok(rows.filter(|(_, same)| !same).map(|(row, _)| row).collect())
}

/// True if two texts show one number, however it is written.
pub(crate) fn same_number(a: &str, b: &str) -> bool {
    match (digits(a), digits(b)) {
        (Some(a), Some(b)) => a == b,
        // Infinity and what is no number: whoever made one of the other has read it.
        (None, None) => true,
        _ => false,
    }
}

/// Sign, digits without zeros at their ends, and the power of ten of the last one; zero has none.
fn digits(text: &str) -> Option<(bool, String, i64)> {
    let text = text.trim();
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = all.trim_end_matches('0');
    let power = power
        .checked_sub(fraction.len() as i64)?
        .checked_add((all.len() - kept.len()) as i64)?;
    let kept = kept.trim_start_matches('0');
    Some(match kept.is_empty() {
        true => (false, String::new(), 0),
        false => (negative, kept.to_owned(), power),
    })
}

/// True if `to`, a moment or a time of day, does not hold all of what `text` says.
fn is_cut(text: &str, to: &DataType) -> bool {
    let text = text.trim();
    let time = match kind(to) {
        Kind::TimeOfDay => text,
        _ => text
            .split_once(['T', 't', ' '])
            .map_or("", |(_, time)| time),
    };
    let end = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (clock, zone_shown) = time.split_at(end.unwrap_or(time.len()));
    // The clock of another zone is not that of a column without one.
    let is_moment = kind(to) == Kind::Moment;
    if is_moment
        && zone(to).is_none()
        && !zone_shown.trim().is_empty()
        && !is_utc(zone_shown.trim())
    {
        return true;
    }
    let kept = match to {
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) => {
            let fraction = clock.split_once('.').map_or("", |(_, fraction)| fraction);
            fraction.get(decimals(*unit)..).unwrap_or("")
        }
        DataType::Date64 => "",
        _ => clock,
    };
    kept.contains(|c: char| ('1'..='9').contains(&c))
}

/// Digits of a second's fraction.
fn decimals(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The first row that has more than `to` holds: a fraction of a second, a time of day.
fn cut_moment(given: &ArrayRef, to: &DataType) -> Result<Option<usize>, ArrowError> {
    let per_second = |moment: &DataType| match moment {
        DataType::Timestamp(unit, _) => Some(10_i64.pow(decimals(*unit) as u32)),
        DataType::Date64 => Some(1000),
        _ => None,
    };
    const SECONDS_IN_DAY: i64 = 24 * 60 * 60;
    let Some(fine) = per_second(given.data_type()) else {
        return Ok(None);
    };
    let unit = match per_second(to) {
        Some(coarse) => fine / coarse,
        None => fine * SECONDS_IN_DAY,
    };
    if unit <= 1 {
        return Ok(None);
    }
    let numbers = cast(given, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    first(values(given), |row| Ok(numbers.value(row) % unit != 0))
}

/// What is within a list, a map or a struct, in the order of its type's fields.
fn children(array: &ArrayRef) -> Vec<ArrayRef> {
    use DataType::*;
    match array.data_type() {
        List(_) => vec![ArrayRef::clone(array.as_list::<i32>().values())],
        LargeList(_) => vec![ArrayRef::clone(array.as_list::<i64>().values())],
        ListView(_) => vec![ArrayRef::clone(array.as_list_view::<i32>().values())],
        LargeListView(_) => vec![ArrayRef::clone(array.as_list_view::<i64>().values())],
        FixedSizeList(_, _) => vec![ArrayRef::clone(array.as_fixed_size_list().values())],
        Map(_, _) => vec![std::sync::Arc::new(array.as_map().entries().clone())],
        Struct(_) => array.as_struct().columns().to_vec(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_struct_is_taken_by_the_names_of_its_fields() {
        use DataType::*;
        let of = |fields: &[(&str, DataType)]| {
            let fields = fields
                .iter()
                .map(|(name, t)| Field::new(*name, t.clone(), true));
            Struct(fields.collect())
        };
        let wanted = of(&[("a", Int64), ("b", Utf8)]);
        for given in [
            of(&[("b", Utf8), ("a", Int64)]),
            of(&[("a", Int32), ("b", Utf8View)]),
            of(&[("c0", Int64), ("c1", Utf8)]),
            of(&[("a", Int64), ("c1", Utf8)]),
        ] {
            assert!(takes(&wanted, &given), "{given}");
        }
        for given in [
            of(&[("b", Int64), ("a", Boolean)]),
            of(&[("b", Int64), ("c", Utf8)]), // b would land in a
            of(&[("a", Int64)]),
            of(&[("a", Int64), ("b", Utf8), ("c", Utf8)]),
        ] {
            assert!(!takes(&wanted, &given), "{given}");
        }
    }

    #[test]
    fn what_widens_never_rounds_or_turns_the_order() {
        use DataType::*;
        let moment = |unit, zone: Option<&str>| Timestamp(unit, zone.map(Into::into));
        let list = |of| List(std::sync::Arc::new(Field::new_list_field(of, true)));
        let of = |name: &str, of| Struct(vec![Field::new(name, of, true)].into());
        for (from, to) in [
            (Int32, Int64),
            (Int64, Int32), // what does not fit is an error of the cast
            (UInt8, Decimal128(10, 2)),
            (Float32, Float64),
            (Decimal128(5, 2), Decimal128(10, 4)),
            (Decimal128(38, 2), Decimal128(5, 2)),
            (
                moment(TimeUnit::Microsecond, None),
                moment(TimeUnit::Nanosecond, None),
            ),
            (
                moment(TimeUnit::Second, Some("UTC")),
                moment(TimeUnit::Second, None),
            ),
            (Utf8, Utf8View),
            (FixedSizeBinary(16), BinaryView),
            (list(Int8), list(Int64)),
            (of("a", Int8), of("a", Int64)),
            (of("b", Float64), of("a", Int64)), // a column that the file lacks
            (Dictionary(Box::new(Int8), Box::new(Utf8)), Utf8View),
        ] {
            assert!(widens(&to, &from), "{from} to {to}");
        }
        for (from, to) in [
            (Float64, Float32),
            (Float64, Int64),
            (Int64, Float64),
            (Decimal128(10, 4), Decimal128(10, 2)),
            (Decimal128(10, 4), Int64),
            (Int64, Utf8),
            (Utf8, Int64),
            (Int64, Boolean),
            (moment(TimeUnit::Microsecond, None), Date32),
            (
                moment(TimeUnit::Nanosecond, None),
                moment(TimeUnit::Microsecond, None),
            ),
            (
                moment(TimeUnit::Second, Some("+02:00")),
                moment(TimeUnit::Second, None),
            ),
            (moment(TimeUnit::Second, None), Time32(TimeUnit::Second)),
            (Binary, FixedSizeBinary(16)),
            (list(Float64), list(Int64)),
            (of("a", Float64), of("a", Int64)),
        ] {
            assert!(!widens(&to, &from), "{from} to {to}");
        }
    }

    #[test]
    fn a_number_is_what_its_digits_show() {
        for (a, b) in [
            ("1.50", "1.5"),
            ("+7", "7.0"),
            ("1e3", "1000"),
            ("-0.0", "0"),
            ("000120", "1.2E2"),
            ("NaN", "NaN"),
            (" 12 ", "12"),
        ] {
            assert!(same_number(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("9007199254740993", "9007199254740992.0"),
            ("1.5", "-1.5"),
            ("1e400", "inf"),
            ("10", "1"),
            ("0.1", "1"),
        ] {
            assert!(!same_number(a, b), "{a} {b}");
        }
    }
}
