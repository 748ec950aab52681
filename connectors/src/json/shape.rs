//! Columns from objects: what their values have in common, without losing a digit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use serde::Deserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::beginning;
use crate::text::numbers;

/// Levels of objects and arrays inside each other that are read as columns.
const MAX_DEPTH: usize = 64;
/// Keys of one object that are read as columns; a file that has more uses values as keys.
const MAX_KEYS: usize = 10_000;

/// What the values of a key have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Nothing but nulls so far.
    Null,
    Bool,
    /// Integers of 64 bits; `wide` if one of them is not a floating number without loss.
    Int {
        wide: bool,
    },
    Float,
    /// Text, or scalars that only text can hold as they stand.
    Text,
    List(Box<Shape>),
    Object(Keys),
}

/// The keys of an object, each with its place: in the order of their first appearance.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Keys(HashMap<String, (usize, Shape)>);

/// Why there is no column for a key.
#[derive(Debug)]
pub(super) struct NoShape {
    /// The keys that lead there, the innermost first.
    path: Vec<String>,
    what: String,
}

/// What to do about a key that can be no column.
const DECLARE: &str = "declare the columns to read, without this one";
/// Keys of a path that an error shows at either end.
const KEYS_SHOWN: usize = 3;

impl fmt::Display for NoShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        match keys.len() {
            0 => {}
            n if n <= 2 * KEYS_SHOWN => write!(f, "key \"{}\": ", keys.join("."))?,
            n => write!(
                f,
                "key \"{}...{}\": ",
                keys[..KEYS_SHOWN].join("."),
                keys[n - KEYS_SHOWN..].join(".")
            )?,
        }
        f.write_str(&self.what)
    }
}

impl Shape {
    /// The shape of an object with no keys.
    pub(super) fn empty() -> Self {
        Self::Object(Keys::default())
    }

    /// The shape of one value, which is JSON by itself.
    pub(super) fn of(raw: &[u8]) -> Result<Self, NoShape> {
        let raw: &RawValue = serde_json::from_slice(raw).map_err(broken)?;
        Self::of_value(raw.get(), 0)
    }

    fn of_value(raw: &str, depth: usize) -> Result<Self, NoShape> {
        if depth > MAX_DEPTH {
            return Err(NoShape::new(format!(
                "objects and arrays are more than {MAX_DEPTH} levels deep; {DECLARE}"
            )));
        }
        Ok(match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Bool,
            Some(b'"') => {
                // Escapes that are no character are found now.
                serde_json::from_str::<Cow<'_, str>>(raw).map_err(broken)?;
                Self::Text
            }
            Some(b'[') => {
                let mut inner = Self::Null;
                for value in parts(raw, Parts::default())?.values {
                    inner = inner.and(Self::of_value(value.1.get(), depth + 1)?)?;
                }
                Self::List(Box::new(inner))
            }
            Some(b'{') => {
                let mut keys = Keys::default();
                for (key, value) in parts(raw, Parts::default())?.values {
                    if keys.0.contains_key(&key) {
                        return Err(NoShape::new(twice(&key)));
                    }
                    let shape = Self::of_value(value.get(), depth + 1);
                    let shape = shape.map_err(|e| e.within(&key))?;
                    keys.add(key, shape)?;
                }
                Self::Object(keys)
            }
            _ => number(raw),
        })
    }

    /// What both have in common.
    pub(super) fn and(self, other: Self) -> Result<Self, NoShape> {
        use Shape::{Bool, Float, Int, List, Null, Object, Text};
        Ok(match (self, other) {
            (Null, other) | (other, Null) => other,
            (List(a), List(b)) => List(Box::new(a.and(*b)?)),
            (Object(mut keys), Object(more)) => {
                for (key, shape) in more.in_order() {
                    keys.add(key, shape)?;
                }
                Object(keys)
            }
            (Int { wide: a }, Int { wide: b }) => Int { wide: a || b },
            (Int { wide: false }, Float) | (Float, Int { wide: false }) | (Float, Float) => Float,
            (Bool, Bool) => Bool,
            (a, b) if a.is_scalar() && b.is_scalar() => Text,
            (a, b) => {
                return Err(NoShape::new(format!(
                    "{} in one record and {} in another are no column; {DECLARE}",
                    a.name(),
                    b.name()
                )));
            }
        })
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Object(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
            _ => "a single value",
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int { .. } => DataType::Int64,
            Self::Float => DataType::Float64,
            // Whatever single value comes later is a text, too.
            Self::Null | Self::Text => DataType::Utf8,
            Self::List(inner) => {
                DataType::List(Arc::new(Field::new_list_field(inner.data_type(), true)))
            }
            Self::Object(keys) => DataType::Struct(keys.fields()),
        }
    }

    /// The columns of objects of this shape.
    pub(super) fn schema(&self) -> Schema {
        match self {
            Self::Object(keys) => Schema::new(keys.fields()),
            _ => Schema::empty(),
        }
    }
}

impl NoShape {
    fn new(what: String) -> Self {
        Self { path: vec![], what }
    }

    fn within(mut self, key: &str) -> Self {
        self.path.push(short(key).into_owned());
        self
    }
}

/// Characters of a key or value that an error shows.
const SHOWN: usize = 60;

/// The beginning of a key or value: it can be megabytes.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    beginning(text, SHOWN)
}

/// What to say of a key that an object has twice: which one is meant is anybody's guess.
pub(super) fn twice(key: &str) -> String {
    format!("the key \"{}\" is there twice; leave one out", short(key))
}

fn broken(e: serde_json::Error) -> NoShape {
    NoShape::new(format!("not valid JSON: {e}"))
}

impl Keys {
    /// What `key` has in common with what is known of it.
    fn add(&mut self, key: String, shape: Shape) -> Result<(), NoShape> {
        let place = self.0.len();
        match self.0.entry(key) {
            Entry::Occupied(mut known) => {
                let before = std::mem::replace(&mut known.get_mut().1, Shape::Null);
                known.get_mut().1 = before.and(shape).map_err(|e| e.within(known.key()))?;
            }
            Entry::Vacant(_) if place == MAX_KEYS => {
                return Err(NoShape::new(format!(
                    "objects have more than {MAX_KEYS} keys, which are rather values than names of \
                     columns; {DECLARE}"
                )));
            }
            Entry::Vacant(new) => drop(new.insert((place, shape))),
        }
        Ok(())
    }

    fn in_order(self) -> impl Iterator<Item = (String, Shape)> {
        let mut keys: Vec<_> = self.0.into_iter().collect();
        keys.sort_unstable_by_key(|(_, (place, _))| *place);
        keys.into_iter().map(|(key, (_, shape))| (key, shape))
    }

    fn fields(&self) -> Fields {
        let mut keys: Vec<_> = self.0.iter().collect();
        keys.sort_unstable_by_key(|(_, (place, _))| *place);
        let fields = keys.into_iter();
        fields
            .map(|(key, (_, shape))| Field::new(key, shape.data_type(), true))
            .collect()
    }
}

fn number(raw: &str) -> Shape {
    match is_integer(raw) {
        false => Shape::Float,
        true => match raw.parse::<i64>() {
            Ok(n) => Shape::Int {
                wide: n.unsigned_abs() > numbers::EXACT,
            },
            Err(_) => Shape::Text,
        },
    }
}

/// True for a number without fraction and exponent.
fn is_integer(raw: &str) -> bool {
    !raw.contains(['.', 'e', 'E'])
}

#[derive(Default)]
struct Parts<'a> {
    /// Keys are empty in arrays.
    values: Vec<(String, &'a RawValue)>,
}

fn parts<'a>(raw: &'a str, into: Parts<'a>) -> Result<Parts<'a>, NoShape> {
    serde_json::Deserializer::from_str(raw)
        .deserialize_any(into)
        .map_err(broken)
}

impl<'a> Visitor<'a> for Parts<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(entry) = map.next_entry()? {
            self.values.push(entry);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(value) = seq.next_element()? {
            self.values.push((String::new(), value));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(records: &[&str]) -> Result<Shape, NoShape> {
        let mut all = Shape::empty();
        for record in records {
            all = all.and(Shape::of(record.as_bytes())?)?;
        }
        Ok(all)
    }

    fn type_of(values: &[&str]) -> DataType {
        let records: Vec<String> = values.iter().map(|v| format!("{{\"a\":{v}}}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let schema = shape(&records).unwrap().schema();
        schema.field(0).data_type().clone()
    }

    #[test]
    fn digits_are_kept() {
        for (values, expected) in [
            (&["1", "2"][..], DataType::Int64),
            (&["1", "2.5"], DataType::Float64),
            (&["9007199254740993", "1"], DataType::Int64),
            (&["9007199254740993", "2.5"], DataType::Utf8),
            (&["18446744073709551615"], DataType::Utf8),
            (&["1", "123456789012345678901234567890"], DataType::Utf8),
            (&["7", "\"A-7\""], DataType::Utf8),
            (&["true", "1"], DataType::Utf8),
            (&["null"], DataType::Utf8),
            (&["null", "true"], DataType::Boolean),
            (&["1e3"], DataType::Float64),
        ] {
            assert_eq!(type_of(values), expected, "{values:?}");
        }
    }

    #[test]
    fn keys_of_all_records_are_columns() {
        let found = shape(&["{\"b\":1}", "{\"a\":{\"x\":[1,2]}}", "{\"a\":{\"y\":null}}"]).unwrap();
        let schema = found.schema();
        let names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
        assert_eq!(names, ["b", "a"]);
        let DataType::Struct(inner) = schema.field(1).data_type() else {
            panic!("{schema:?}");
        };
        assert_eq!(inner.len(), 2);
    }

    #[test]
    fn keys_are_columns_up_to_a_bound() {
        let object = |from: usize, to: usize| {
            let keys: Vec<String> = (from..to).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", keys.join(","))
        };
        // The second record has them in another order, and some of its own.
        let (first, second) = (object(0, MAX_KEYS - 5), object(5, MAX_KEYS));
        let schema = shape(&[&first, &second]).unwrap().schema();
        let names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
        let expected: Vec<String> = (0..MAX_KEYS).map(|n| format!("k{n}")).collect();
        assert!(names.into_iter().eq(&expected));
        let inner = format!("{{\"by\":{}}}", object(0, MAX_KEYS + 1));
        let more = object(MAX_KEYS - 5, 2 * MAX_KEYS - 5);
        let at_once = object(0, MAX_KEYS + 1);
        for (records, key) in [
            (&[at_once.as_str()][..], ""),
            (&[&inner], "key \"by\": "),
            (&[&first, &second, &more], ""),
        ] {
            let error = shape(records).unwrap_err().to_string();
            let expected = format!("{key}objects have more than 10000 keys");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_column_says_which_key() {
        for (records, part) in [
            (
                &["{\"a\":1}", "{\"a\":[1]}"][..],
                "key \"a\": a single value in one record and an array",
            ),
            (&["{\"a\":1,\"a\":2}"], "\"a\" is there twice"),
            (&["{\"a\":{\"b\":1,\"b\":2}}"], "\"b\" is there twice"),
            (&["{\"a\":\"\\ud83d x\"}"], "not valid JSON"),
            (&["{\"a\":01}"], "not valid JSON"),
        ] {
            let error = shape(records).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        let error = shape(&[&deep]).unwrap_err().to_string();
        assert!(
            error.contains("levels deep") || error.contains("recursion"),
            "{error}"
        );
        assert!(error.len() < 200, "{error}");
        let deep = format!("{}1{}", "{\"key\":".repeat(100), "}".repeat(100));
        let error = shape(&[&deep]).unwrap_err().to_string();
        assert!(error.contains("\"key.key.key...key.key.key\""), "{error}");
        let two = "{\"a\":{\"b\":{\"c\":1,\"c\":2}}}";
        let error = shape(&[two]).unwrap_err().to_string();
        assert_eq!(
            error,
            "key \"a.b\": the key \"c\" is there twice; leave one out"
        );
    }
}
