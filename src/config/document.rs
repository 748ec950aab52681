//! casebook.toml as a tree that knows its lines, and the sections of it that are read key by key.
//!
//! Errors name the line, the section and the key, never a value: any value can be a password that
//! stands in the wrong place. That is why the file is read here and not by serde, whose messages
//! quote values. What the keys mean is in [`super::raw`].

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::shown::{self, nearest};

/// Keys of a table, each with its value.
pub(super) type Keys = BTreeMap<String, Node>;

/// A value and the line of its key, from 1. Without Debug: texts can be secrets.
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a key holds.
pub(super) enum Value {
    Flag(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Keys),
    Time,
}

impl Value {
    /// In words, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table of keys",
            Self::Time => "a time",
        }
    }
}

/// What is wrong, and where.
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { line, what }
    }
}

/// Parses a file. Nesting is bounded by the library (80).
///
/// # Errors
/// What TOML does not allow, with its place; the line itself is not quoted.
pub(super) fn parse(text: &str) -> Result<Keys, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let parsed = DeTable::parse(text).map_err(|e| {
        let (line, column) = lines.place(text, e.span().map_or(text.len(), |s| s.start));
        let hint = match e.message().contains("string") || e.message().contains("quote") {
            true => "; is a quote missing there or on the line before?",
            false => "",
        };
        let what = format!("(column {column}) is not TOML: {}{hint}", e.message());
        match e.message().contains("duplicate key") {
            true => twice(text, e.span(), &lines).unwrap_or(Fault::new(line, what)),
            false => Fault::new(line, what),
        }
    })?;
    keys(parsed.into_inner(), &lines)
}

/// That the key at `span` is there before, and where. None if that cannot be found out because
/// something else is wrong, too.
fn twice(text: &str, span: Option<Range<usize>>, lines: &Lines) -> Option<Fault> {
    /// A key that nobody writes; where it ends up, the other one is.
    const ELSE: &str = "casebook_key_that_is_there_twice";
    let span = span?;
    let (before, behind) = (text.get(..span.start)?, text.get(span.end..)?);
    let apart = format!("{before}{ELSE}{behind}");
    let parsed = DeTable::parse(&apart).ok()?.into_inner();
    let name = text.get(span.clone())?.trim().trim_matches(['"', '\'']);
    let first = beside(&parsed, ELSE, name)?;
    let what = format!(
        "the key {} is there twice, first in line {}; keep one",
        shown::key(name),
        lines.of(first)
    );
    Some(Fault::new(lines.of(span.start), what))
}

/// Where the key `name` is in the table that has the key `other`.
fn beside(table: &DeTable<'_>, other: &str, name: &str) -> Option<usize> {
    if table.iter().any(|(key, _)| key.get_ref() == other) {
        let found = table.iter().find(|(key, _)| key.get_ref() == name);
        return found.map(|(key, _)| key.span().start);
    }
    let within = |value: &DeValue<'_>| -> Option<usize> {
        match value {
            DeValue::Table(inner) => beside(inner, other, name),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(inner) => beside(inner, other, name),
                _ => None,
            }),
            _ => None,
        }
    };
    table.iter().find_map(|(_, value)| within(value.get_ref()))
}

fn keys(table: DeTable<'_>, lines: &Lines) -> Result<Keys, Fault> {
    let mut out = Keys::new();
    for (key, value) in table {
        let line = lines.of(key.span().start);
        let node = node(value.into_inner(), line, lines)?;
        out.insert(key.into_inner().into_owned(), node);
    }
    Ok(out)
}

fn node(value: DeValue<'_>, line: usize, lines: &Lines) -> Result<Node, Fault> {
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Time,
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            let far = || Fault::new(line, "holds a whole number beyond 64 bits");
            Value::Integer(parsed.map_err(|_| far())?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>();
            let wrong = || Fault::new(line, "holds a number that cannot be read");
            Value::Float(parsed.map_err(|_| wrong())?)
        }
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| {
                let line = lines.of(item.span().start);
                node(item.into_inner(), line, lines)
            });
            Value::List(items.collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => Value::Table(keys(inner, lines)?),
    };
    Ok(Node { line, value })
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self([0].into_iter().chain(ends).collect())
    }

    /// Line of a byte, from 1.
    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }

    /// Line and column of a byte, both from 1. Reads the line: for errors.
    fn place(&self, text: &str, at: usize) -> (usize, usize) {
        let line = self.of(at);
        let start = self.0[line - 1];
        let before = text.get(start..at.min(text.len())).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// A section whose keys are known, such as `[tables.cases]`.
pub(super) struct Section<'a> {
    /// With its brackets, or dotted below one.
    name: String,
    line: usize,
    keys: &'a Keys,
}

impl<'a> Section<'a> {
    /// The section at `node`, all of whose keys are among `valid`.
    pub(super) fn new(name: String, node: &'a Node, valid: &[&str]) -> Result<Self, Fault> {
        let out = Self::open(name, node)?;
        for (key, node) in out.keys {
            if !valid.contains(&key.as_str()) {
                return Err(unknown_key(&out.name, key, node.line, valid));
            }
        }
        Ok(out)
    }

    /// The section at `node`, whose keys somebody else checks.
    pub(super) fn open(name: String, node: &'a Node) -> Result<Self, Fault> {
        let Value::Table(keys) = &node.value else {
            let what = format!("{name} is {}; expected a table of keys", node.value.kind());
            return Err(Fault::new(node.line, what));
        };
        Ok(Self {
            name,
            line: node.line,
            keys,
        })
    }

    pub(super) fn keys(&self) -> &'a Keys {
        self.keys
    }

    /// A fault at `key`.
    pub(super) fn wrong(&self, key: &str, what: &str) -> Fault {
        let line = self.keys.get(key).map_or(self.line, |node| node.line);
        Fault::new(line, format!("{} {}: {what}", self.name, shown::key(key)))
    }

    fn expected(&self, key: &str, node: &Node, expected: &str) -> Fault {
        self.wrong(
            key,
            &format!("is {}; expected {expected}", node.value.kind()),
        )
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Fault> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(node) => match &node.value {
                Value::Text(text) => Ok(Some(text.clone())),
                _ => Err(self.expected(key, node, "text in quotes")),
            },
        }
    }

    /// A text that must be there, and what it is for.
    pub(super) fn needed(&self, key: &str, meaning: &str) -> Result<String, Fault> {
        self.text(key)?.ok_or_else(|| {
            let what = format!("{} needs {key}, {meaning}", self.name);
            Fault::new(self.line, what)
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(node) => match &node.value {
                Value::Flag(flag) => Ok(Some(*flag)),
                _ => Err(self.expected(key, node, "true or false")),
            },
        }
    }

    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, Fault> {
        Ok(self.text(key)?.map(PathBuf::from))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, Fault> {
        const LIST: &str = "a list of texts, such as [\"name\", \"court\"]";
        let Some(node) = self.keys.get(key) else {
            return Ok(None);
        };
        let Value::List(items) = &node.value else {
            return Err(self.expected(key, node, LIST));
        };
        let texts = items.iter().map(|item| match &item.value {
            Value::Text(text) => Ok(text.clone()),
            other => {
                let what = format!("holds {}; expected {LIST}", other.kind());
                Err(self.wrong(key, &what))
            }
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// A share of something, within `range`.
    pub(super) fn share(
        &self,
        key: &str,
        range: impl std::ops::RangeBounds<f64>,
        expected: &str,
    ) -> Result<Option<f64>, Fault> {
        let Some(node) = self.keys.get(key) else {
            return Ok(None);
        };
        let number = match node.value {
            Value::Float(number) => number,
            Value::Integer(number) => number as f64,
            _ => return Err(self.expected(key, node, expected)),
        };
        match range.contains(&number) {
            true => Ok(Some(number)),
            false => Err(self.wrong(key, &format!("is {number}; expected {expected}"))),
        }
    }

    /// A count within `range`, whose end has the reason `why`.
    pub(super) fn count(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
        why: &str,
    ) -> Result<Option<usize>, Fault> {
        let Some(node) = self.keys.get(key) else {
            return Ok(None);
        };
        let expected = format!(
            "a whole number from {} to {} ({why})",
            range.start(),
            range.end()
        );
        let Value::Integer(number) = node.value else {
            return Err(self.expected(key, node, &expected));
        };
        match usize::try_from(number) {
            Ok(count) if range.contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(key, &format!("is {number}; expected {expected}"))),
        }
    }

    /// The section below this one at `key`.
    pub(super) fn below(&self, key: &str, valid: &[&str]) -> Result<Option<Section<'a>>, Fault> {
        let Some(node) = self.keys.get(key) else {
            return Ok(None);
        };
        Section::new(format!("{} {key}", self.name), node, valid).map(Some)
    }
}

/// An unknown key of a section.
pub(super) fn unknown_key(section: &str, key: &str, line: usize, valid: &[&str]) -> Fault {
    let hint = match nearest(key, valid) {
        Some(near) => format!(" Did you mean '{near}'?"),
        None => String::new(),
    };
    let section = match section.is_empty() {
        true => "the file".to_owned(),
        false => section.to_owned(),
    };
    let what = format!(
        "{section} has the unknown key {}.{hint} Valid: {}.",
        shown::key(key),
        valid.join(", ")
    );
    Fault::new(line, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, String) {
        match parse(text) {
            Err(fault) => (fault.line, fault.what),
            Ok(_) => (0, String::new()),
        }
    }

    #[test]
    fn syntax_errors_name_the_place_and_not_the_text() {
        for (text, line, column) in [
            ("a = 1\nb = \"hunter2\nc = 2\n", 2, 13),
            ("a = hunter2\n", 1, 5),
            ("[x\na = 'hunter2'", 1, 3),
            ("x = { a = 'hunter2'", 1, 20),
            ("é = 'hunter2' x", 1, 15),
            ("a = \"hunter\\q2\"", 1, 13),
            ("a = \"\"\"\nhunter2", 2, 8),
        ] {
            let (found, what) = fault(text);
            assert_eq!(found, line, "{text}: {what}");
            assert!(
                what.contains(&format!("(column {column})")),
                "{text}: {what}"
            );
            assert!(
                !what.contains("hunter") && what.contains("is not TOML"),
                "{what}"
            );
        }
        assert_eq!(fault("\u{feff}a = 1\r\nb = 2\r\n").0, 0);
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_with_both_lines() {
        for (text, line, key, first) in [
            ("a = 1\na = 'hunter2'\n", 2, "'a'", 1),
            (
                "[x]\nb = 1\na = 2\n[y]\na = 1\n\na = 'hunter2'\n",
                7,
                "'a'",
                5,
            ),
            ("[x]\n[y]\n\n[x]\na = 'hunter2'\n", 4, "'x'", 1),
            ("[t.x]\nk = 1\n[t.y]\n[t.x]\n", 4, "'x'", 1),
            ("x = { a = 'hunter2', b = 1, a = 'hunter2' }\n", 1, "'a'", 1),
            ("[x]\n\"a\" = 'hunter2'\na = 'hunter3'", 3, "'a'", 2),
            ("Hunter2 = 1\nHunter2 = 2", 2, "of 7 characters", 1),
            ("l = [{ a = 1 }, { b = 1,\na = 1, b = 2 }]", 2, "'b'", 1),
        ] {
            let (found, what) = fault(text);
            assert_eq!(found, line, "{text}: {what}");
            let expected = format!("the key {key} is there twice, first in line {first}; keep one");
            assert_eq!(what, expected, "{text}");
        }
        // Where more is wrong, the place alone is told.
        let (line, what) = fault("a = 1\na = 2\nb = 'hunter2\n");
        assert!(line > 1 && !what.contains("hunter"), "{what}");
    }

    #[test]
    fn numbers_are_held_to_64_bits() {
        assert_eq!(fault("a = 9223372036854775807").0, 0);
        assert!(fault("\na = 9223372036854775808").1.contains("64 bits"));
        assert_eq!(fault("a = 0x7F\nb = -1_000\nc = inf\nd = 1e5").0, 0);
        let Ok(keys) = parse("a = 0x7F\nb = -1_000\nc = 1_0.5\nd = +3") else {
            panic!();
        };
        assert!(matches!(keys["a"].value, Value::Integer(127)));
        assert!(matches!(keys["b"].value, Value::Integer(-1000)));
        assert!(matches!(keys["c"].value, Value::Float(f) if f == 10.5));
        assert!(matches!(keys["d"].value, Value::Integer(3)) && keys["d"].line == 4);
    }

    #[test]
    fn a_long_line_is_read_once() {
        // Were each of its keys looked for from its beginning, this would take hours.
        let keys: Vec<String> = (0..200_000).map(|i| format!("k{i} = {i}")).collect();
        let text = format!(
            "a = {{ {} }}\nb = [{}]\n",
            keys.join(", "),
            "1,".repeat(500_000)
        );
        assert_eq!(fault(&text).0, 0);
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = 200_000;
        for text in [
            format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
            format!("a = {}", "[".repeat(deep)),
            format!("a = {}1{}", "{ a = ".repeat(deep), "}".repeat(deep)),
            format!("a{} = 1", ".a".repeat(deep)),
            format!("[a{}]\n", ".a".repeat(deep)),
            format!("[[a{}]]\n", ".a".repeat(deep)),
        ] {
            assert!(fault(&text).1.contains("recur"), "{}", fault(&text).1);
        }
        assert_eq!(fault(&format!("a{} = 1", ".a".repeat(70))).0, 0);
        // Each header is within the limit, both together are not deeper than the first.
        assert_eq!(fault(&format!("[a{0}]\nb{0} = 1", ".a".repeat(60))).0, 0);
    }
}
