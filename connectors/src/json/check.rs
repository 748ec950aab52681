//! Each object against all columns of the table, whichever of them a query wants: a key that no
//! column has, a key that is there twice, a value that the type of its column would change.

use std::cell::RefCell;
use std::fmt;

use datafusion::arrow::datatypes::{DataType, Fields};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::records::Position;
use super::shape::{short, twice};
use crate::error::{Error, ErrorKind, Result, beginning};
use crate::exact;
use crate::text::numbers::{self, Floating};

/// What the objects of a table may hold.
#[derive(Debug)]
pub(super) struct Checker {
    /// All columns of the files.
    pub(super) fields: Fields,
    /// Keys that folders give, so that those of the files do not count.
    pub(super) partitions: Vec<String>,
    pub(super) ignore_unknown: bool,
}

/// What is wrong, and the keys that lead to it.
struct Problem {
    path: Vec<String>,
    what: String,
}

type Found = RefCell<Option<Problem>>;

impl Checker {
    /// An error that names the key, the record and the next move.
    pub(super) fn check(&self, record: &[u8], at: Position) -> Result<()> {
        let found = Found::default();
        let top = Value {
            kind: &DataType::Struct(self.fields.clone()),
            checker: self,
            is_top: true,
            found: &found,
        };
        let mut json = serde_json::Deserializer::from_slice(record);
        let error = match top.deserialize(&mut json).and_then(|()| json.end()) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Some(Problem { mut path, what }) = found.into_inner() else {
            // The library may quote what it could not read.
            let error = error.to_string();
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{at} is not valid JSON: {}", beginning(&error, 200)),
            ));
        };
        path.reverse();
        let path: Vec<_> = path.iter().map(|key| short(key).into_owned()).collect();
        let key = match path.is_empty() {
            true => String::new(),
            false => format!(", key \"{}\"", path.join(".")),
        };
        let what = what.replace("{record}", &at.record.to_string());
        Err(Error::invalid(format!("{at}{key}: {what}")))
    }
}

#[derive(Clone, Copy)]
struct Value<'a> {
    kind: &'a DataType,
    checker: &'a Checker,
    is_top: bool,
    found: &'a Found,
}

impl<'a> Value<'a> {
    fn of(self, kind: &'a DataType) -> Self {
        Self {
            kind,
            is_top: false,
            ..self
        }
    }

    fn fail<E: serde::de::Error>(&self, what: String) -> E {
        let path = vec![];
        *self.found.borrow_mut() = Some(Problem { path, what });
        E::custom("")
    }

    /// The value is of another kind than the column.
    fn mismatch<E: serde::de::Error>(&self, value: impl fmt::Display) -> E {
        let declare = match value.to_string().as_str() {
            "an object" | "an array" => "declare the column as it is in all records",
            _ => "declare the column as VARCHAR",
        };
        let name = sql_name(self.kind);
        self.fail(format!(
            "the value is {value}, and the column is {name}; {declare}, or, if the columns are \
             read from the files, set format.schema_infer_max_rec to at least {{record}}"
        ))
    }

    /// A decimal, a date or a time, as it is written: nothing of it may be rounded or cut.
    fn exact<E: serde::de::Error>(&self, raw: &str) -> std::result::Result<(), E> {
        match raw.as_bytes().first() {
            Some(b'n') => Ok(()),
            Some(b'{') => Err(self.mismatch("an object")),
            Some(b'[') => Err(self.mismatch("an array")),
            Some(b't' | b'f') => Err(self.mismatch(raw)),
            // The library would take it for so many days, or whatever the unit is, since 1970.
            Some(b'-' | b'0'..=b'9') if self.kind.is_temporal() => Err(self.mismatch(short(raw))),
            _ => match exact::holds(self.kind, raw.trim_matches('"')) {
                Ok(false) => Err(self.fail(format!(
                    "{} is more than {} holds; declare a type that does, or VARCHAR",
                    short(raw),
                    sql_name(self.kind)
                ))),
                // What is no such value is the library's to say.
                _ => Ok(()),
            },
        }
    }

    /// Whatever is no object and no array is a text as it is written.
    fn text<E: serde::de::Error>(&self, raw: &str) -> std::result::Result<(), E> {
        match raw.as_bytes().first() {
            Some(b'{') => Err(self.mismatch("an object")),
            Some(b'[') => Err(self.mismatch("an array")),
            // Half a character is no text, which is not looked at in a value that is passed over.
            Some(b'"') if memchr::memmem::find(raw.as_bytes(), b"\\u").is_some() => {
                let whole: std::result::Result<String, _> = serde_json::from_str(raw);
                whole.map(|_| ()).map_err(E::custom)
            }
            _ => Ok(()),
        }
    }

    fn is_text(&self) -> bool {
        matches!(
            self.kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    }

    fn integer<E: serde::de::Error>(&self, value: i128) -> std::result::Result<(), E> {
        match self.kind {
            DataType::Boolean | DataType::Struct(_) => Err(self.mismatch(value)),
            kind if kind.is_nested() => Err(self.mismatch(value)),
            kind => match range(kind) {
                Some((least, most)) if !(least..=most).contains(&value) => {
                    Err(self.mismatch(value))
                }
                _ => Ok(()),
            },
        }
    }
}

fn range(kind: &DataType) -> Option<(i128, i128)> {
    Some(match kind {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn sql_name(kind: &DataType) -> String {
    match kind {
        DataType::Int64 => "BIGINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Struct(_) => "an object".into(),
        kind if kind.is_list() => "an array".into(),
        other => other.to_string(),
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        if self.is_text() {
            // Most of what is read is long texts, of which the kind alone counts here.
            let raw: &RawValue = serde::Deserialize::deserialize(json)?;
            return self.text(raw.get());
        }
        if self.kind.is_decimal() || self.kind.is_temporal() {
            let raw: &RawValue = serde::Deserialize::deserialize(json)?;
            return self.exact(raw.get());
        }
        if !self.kind.is_floating() {
            return json.deserialize_any(self);
        }
        // The number that the library makes of it does not tell how it is written.
        let raw: &RawValue = serde::Deserialize::deserialize(json)?;
        let raw = raw.get();
        match raw.as_bytes().first() {
            Some(b'n') => Ok(()),
            Some(b'"') => {
                let text = raw.trim_matches('"');
                match numbers::floating(self.kind, text) {
                    Floating::Held => Ok(()),
                    _ => Err(self.mismatch(format!("the text \"{}\"", short(text)))),
                }
            }
            Some(b'-' | b'0'..=b'9') => match numbers::floating(self.kind, raw) {
                Floating::Held => Ok(()),
                Floating::Digits => Err(self.fail(format!(
                    "{} has more digits than a {} holds; declare the column as VARCHAR or \
                     DECIMAL(38, 0)",
                    short(raw),
                    sql_name(self.kind)
                ))),
                Floating::TooLarge | Floating::None => Err(self.mismatch(short(raw))),
            },
            Some(b'{') => Err(self.mismatch("an object")),
            Some(b'[') => Err(self.mismatch("an array")),
            _ => Err(self.mismatch(raw)),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> std::result::Result<(), E> {
        match self.is_text() || *self.kind == DataType::Boolean {
            true => Ok(()),
            false => Err(self.mismatch(value)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> std::result::Result<(), E> {
        self.integer(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> std::result::Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<(), E> {
        match range(self.kind) {
            None => self.integer(0),
            Some(_) if value.fract() == 0.0 && value.abs() < numbers::EXACT as f64 => {
                self.integer(value as i128)
            }
            Some(_) => Err(self.mismatch(value)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<(), E> {
        let fits = match self.kind {
            _ if self.is_text() => true,
            DataType::Boolean => false,
            kind if kind.is_nested() => false,
            kind => match range(kind) {
                Some((least, most)) => {
                    let number = text.parse::<i128>();
                    number.is_ok_and(|n| (least..=most).contains(&n))
                }
                None => true,
            },
        };
        match fits {
            true => Ok(()),
            false => Err(self.mismatch(format!("the text \"{}\"", short(text)))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let inner = match self.kind {
            DataType::List(inner)
            | DataType::LargeList(inner)
            | DataType::ListView(inner)
            | DataType::LargeListView(inner)
            | DataType::FixedSizeList(inner, _) => inner,
            _ => return Err(self.mismatch("an array")),
        };
        while seq.next_element_seed(self.of(inner.data_type()))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let fields = match self.kind {
            DataType::Struct(fields) => fields,
            DataType::Map(entry, _) => {
                let DataType::Struct(entry) = entry.data_type() else {
                    return Err(self.mismatch("an object"));
                };
                let [_, value] = &entry[..] else {
                    return Err(self.mismatch("an object"));
                };
                while map.next_key::<IgnoredAny>()?.is_some() {
                    map.next_value_seed(self.of(value.data_type()))?;
                }
                return Ok(());
            }
            _ => return Err(self.mismatch("an object")),
        };
        let mut seen = vec![0_u64; fields.len().div_ceil(64)];
        let mut next = 0;
        while let Some(key) = map.next_key_seed(Key { fields, next })? {
            let column = match key {
                Named::Column(column) => column,
                Named::Other(key) => {
                    self.check_unknown(&key)?;
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            next = column + 1;
            let field = &fields[column];
            let (word, bit) = (column / 64, 1 << (column % 64));
            if seen[word] & bit != 0 {
                return Err(self.fail(twice(field.name())));
            }
            seen[word] |= bit;
            if let Err(error) = map.next_value_seed(self.of(field.data_type())) {
                if let Some(problem) = &mut *self.found.borrow_mut() {
                    problem.path.push(field.name().clone());
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Value<'_> {
    fn check_unknown<E: serde::de::Error>(&self, key: &str) -> std::result::Result<(), E> {
        let is_partition = self.is_top && self.checker.partitions.iter().any(|p| p == key);
        if self.checker.ignore_unknown || is_partition {
            return Ok(());
        }
        Err(self.fail(format!(
            "there is no column for the key \"{}\", which the records that the columns were read \
             from do not have; set format.schema_infer_max_rec to at least {{record}}, declare the \
             columns, or set json.unknown_keys to ignore",
            short(key)
        )))
    }
}

/// Finds the column of a key; as a rule the one after that of the key before.
struct Key<'a> {
    fields: &'a Fields,
    next: usize,
}

enum Named {
    Column(usize),
    Other(String),
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Named, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Named, E> {
        if self.fields.get(self.next).is_some_and(|f| f.name() == key) {
            return Ok(Named::Column(self.next));
        }
        let found = self.fields.iter().position(|f| f.name() == key);
        Ok(found.map_or_else(|| Named::Other(key.to_owned()), Named::Column))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, TimeUnit};

    use super::*;

    const AT: Position = Position {
        record: 7,
        byte: 90,
    };

    fn checker() -> Checker {
        let inner = Fields::from(vec![Field::new("x", DataType::Int32, true)]);
        let entry = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Date32, true),
        ]);
        let entry = Field::new("entries", DataType::Struct(entry), false);
        let by = DataType::Map(Arc::new(entry), false);
        let kinds = [
            ("id", DataType::Int64),
            ("text", DataType::Utf8View),
            ("score", DataType::Float64),
            ("flag", DataType::Boolean),
            ("day", DataType::Date32),
            ("price", DataType::Decimal128(5, 2)),
            ("tags", DataType::new_list(DataType::Utf8, true)),
            ("more", DataType::Struct(inner)),
            ("part", DataType::Float32),
            ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("time", DataType::Time64(TimeUnit::Nanosecond)),
            ("days", DataType::new_list(DataType::Date32, true)),
            ("by", by),
        ];
        let fields = kinds.into_iter();
        Checker {
            fields: fields
                .map(|(name, kind)| Arc::new(Field::new(name, kind, true)))
                .collect(),
            partitions: vec!["year".into()],
            ignore_unknown: false,
        }
    }

    #[test]
    fn values_that_columns_hold_pass() {
        for record in [
            "{}",
            r#"{"id":9223372036854775807,"text":"a","score":1.5,"flag":true,"day":"2026-01-02"}"#,
            r#"{"id":"7","text":18446744073709551615,"score":3,"flag":null,"tags":["a",1,null]}"#,
            r#"{"more":{"x":1},"tags":[],"year":2026}"#,
            r#"{"id":1e3,"score":9007199254740992,"text":false}"#,
            r#"{"price":1.50,"day":"2026-01-02T00:00:00","score":3.14159265358979323846}"#,
            r#"{"text":1e400,"tags":["\ud83d\ude00 \u00e9"]}"#,
            r#"{"price":"7.250","day":null,"score":9007199254740992.0}"#,
            r#"{"part":16777216,"at":"2026-01-02T03:04:05.6","time":"03:04:05"}"#,
            r#"{"part":"3.4e38","at":null,"days":["2026-01-02",null],"by":{"a":"2026-01-02"}}"#,
            r#"{"part":0.1,"score":"NaN"}"#,
            r#"{"part":830168100,"score":1e39}"#,
        ] {
            checker().check(record.as_bytes(), AT).unwrap();
        }
    }

    #[test]
    fn what_would_be_lost_is_named() {
        for (record, part) in [
            (r#"{"court":"x"}"#, "no column for the key \"court\""),
            (
                r#"{"more":{"y":1}}"#,
                "key \"more\": there is no column for the key \"y\"",
            ),
            (
                r#"{"id":9223372036854775808}"#,
                "key \"id\": the value is 9223372036854775808",
            ),
            (
                r#"{"id":1.5}"#,
                "the value is 1.5, and the column is BIGINT",
            ),
            (r#"{"id":"A-7"}"#, "the text \"A-7\""),
            (r#"{"id":true}"#, "the value is true"),
            (r#"{"id":[1]}"#, "an array, and the column is BIGINT"),
            (
                r#"{"text":{"a":1}}"#,
                "an object, and the column is VARCHAR",
            ),
            (r#"{"score":9007199254740993}"#, "more digits than a DOUBLE"),
            (r#"{"score":123456789012345678901234567890}"#, "more digits"),
            (r#"{"score":9007199254740993.0}"#, "more digits"),
            (
                r#"{"price":1.005}"#,
                "1.005 is more than Decimal128(5, 2) holds",
            ),
            (r#"{"price":"1.005"}"#, "more than Decimal128(5, 2) holds"),
            (r#"{"price":[1]}"#, "an array, and the column is"),
            (r#"{"day":"2026-01-02T03:00:00"}"#, "more than Date32 holds"),
            (r#"{"day":true}"#, "the value is true"),
            (
                r#"{"day":20240101}"#,
                "the value is 20240101, and the column",
            ),
            (r#"{"day":0}"#, "the value is 0"),
            (r#"{"at":1704067200.5}"#, "the value is 1704067200.5"),
            (r#"{"at":-1}"#, "the value is -1"),
            (r#"{"time":120000}"#, "the value is 120000"),
            (
                r#"{"days":["2026-01-02",20240101]}"#,
                "key \"days\": the value is 20240101",
            ),
            (
                r#"{"by":{"a":20240101}}"#,
                "key \"by\": the value is 20240101",
            ),
            (
                r#"{"part":123456789}"#,
                "123456789 has more digits than a REAL holds",
            ),
            (r#"{"part":"16777217"}"#, "the text \"16777217\""),
            (
                r#"{"part":1e39}"#,
                "the value is 1e39, and the column is REAL",
            ),
            (r#"{"score":"1e400"}"#, "the text \"1e400\""),
            (r#"{"score":"x"}"#, "the text \"x\""),
            (r#"{"flag":1}"#, "the column is BOOLEAN"),
            (r#"{"flag":"true"}"#, "the column is BOOLEAN"),
            (r#"{"tags":"a"}"#, "the column is an array"),
            (r#"{"more":{"x":3000000000}}"#, "key \"more.x\""),
            (r#"{"id":1,"id":2}"#, "the key \"id\" is there twice"),
            (r#"{"id":1,}"#, "is not valid JSON"),
            (r#"{"text":"\ud83d x"}"#, "is not valid JSON"),
            (r#"{"text":"\uzzzz"}"#, "is not valid JSON"),
            (
                r#"{"tags":["a",["b"]]}"#,
                "an array, and the column is VARCHAR",
            ),
        ] {
            let error = checker()
                .check(record.as_bytes(), AT)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("record 7 (byte 90)"), "{error}");
            assert!(error.contains(part), "{record}: {error}");
        }
        let error = checker().check(b"{\"text\":\"caf\xe9\"}", AT).unwrap_err();
        assert!(error.to_string().contains("is not valid JSON"), "{error}");
        let long = format!("{{\"id\":\"{}\"}}", "x".repeat(1 << 20));
        let error = checker()
            .check(long.as_bytes(), AT)
            .unwrap_err()
            .to_string();
        assert!(error.len() < 500, "{}", error.len());
        let deep = format!("{{\"z\":{}", "[".repeat(100_000));
        assert!(checker().check(deep.as_bytes(), AT).is_err());
    }

    #[test]
    fn keys_without_columns_may_be_ignored() {
        let checker = Checker {
            ignore_unknown: true,
            ..checker()
        };
        checker.check(br#"{"court":{"a":[1]},"id":1}"#, AT).unwrap();
        assert!(checker.check(br#"{"court":1,"id":"x"}"#, AT).is_err());
    }
}
