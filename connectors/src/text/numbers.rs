//! Numbers that are written as texts: what a type of floating numbers keeps of them.
//!
//! What it does not do: decimals, dates and times ([`crate::exact`]).

use datafusion::arrow::datatypes::DataType;

use crate::exact;

/// Integers up to here are DOUBLE without loss, and so the other way round.
pub(crate) const EXACT: u64 = 1 << 53;
/// As many digits as every REAL has.
const REAL_DIGITS: usize = 6;

/// What becomes of a text in a column of floating numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floating {
    /// The number, or one as near as any number with a fraction.
    Held,
    /// A whole number that has not all its digits.
    Digits,
    /// No number of the type is as large.
    TooLarge,
    /// It is no number.
    None,
}

/// What a column of type `kind` holds of `text`. Floating numbers are near what is written, but a
/// whole number has all its digits, and infinite is only what says so.
pub(crate) fn floating(kind: &DataType, text: &str) -> Floating {
    let text = text.trim();
    match kind {
        DataType::Float32 => text.parse().map_or(Floating::None, |number: f32| {
            read(text, number.into(), || number.to_string())
        }),
        _ => text.parse().map_or(Floating::None, |number: f64| {
            read(text, number, || number.to_string())
        }),
    }
}

/// `number` was read from `text`, and is `shown` so in its own type.
fn read(text: &str, number: f64, shown: impl Fn() -> String) -> Floating {
    if number.is_infinite() {
        return match text.contains(|c: char| c.is_ascii_digit()) {
            true => Floating::TooLarge,
            false => Floating::Held,
        };
    }
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.trim_start_matches(['-', '+']);
    let is_whole = digits.bytes().all(|b| b.is_ascii_digit()) && rest.bytes().all(|b| b == b'0');
    let is_held = !is_whole
        || digits.len() <= REAL_DIGITS
        || exact::same_number(text, &shown())
        || exact::same_number(text, &format!("{number:.0}"));
    match is_held {
        true => Floating::Held,
        false => Floating::Digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_keep_their_digits_and_none_becomes_infinite() {
        let (real, double) = (DataType::Float32, DataType::Float64);
        for (kind, text, expected) in [
            (&real, "16777216", Floating::Held),
            (&real, "16777217", Floating::Digits),
            (&real, "-00016777216.00", Floating::Held),
            (&real, "123456789", Floating::Digits),
            (&real, "830168100.0", Floating::Held),
            (&real, "0.123456789", Floating::Held),
            (&real, "1e39", Floating::TooLarge),
            (&double, "1e39", Floating::Held),
            (&double, "16777217", Floating::Held),
            (&double, "9007199254740992", Floating::Held),
            (&double, "9007199254740993", Floating::Digits),
            (&double, "9007199254740993.0", Floating::Digits),
            (&double, "1e400", Floating::TooLarge),
            (&double, "inf", Floating::Held),
            (&double, " 7 ", Floating::Held),
            (&double, "x", Floating::None),
        ] {
            assert_eq!(floating(kind, text), expected, "{text} as {kind}");
        }
    }
}
