//! The name of a table: `table`, `schema.table` or `database.schema.table`.
//!
//! A part in double quotes is meant exactly. Other parts are looked for as they are written and,
//! if nothing is found, in upper case, which is what Snowflake makes of unquoted names.

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::sql::dialect::SNOWFLAKE;

/// A name of three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    text: String,
    quoted: bool,
}

impl TableName {
    /// # Errors
    /// A name that is not of this form, or a missing database.
    pub(super) fn parse(location: &str, settings: &Settings) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!(
                "'{location}' {what}; LOCATION is a Snowflake table, as 'database.schema.table', \
                 with double quotes around a part that has dots or that is meant exactly"
            ))
        };
        let mut parts = split(location).ok_or_else(|| wrong("is not a table's name"))?;
        if parts.len() > 3 {
            return Err(wrong("has more than three parts"));
        }
        let given = |option: Option<&str>| option.and_then(split).filter(|p| p.len() == 1);
        if parts.len() == 1 {
            let schema = given(settings.schema.as_deref().or(Some("PUBLIC")));
            let schema = schema.ok_or_else(|| wrong("needs snowflake.schema to be one name"))?;
            parts.splice(0..0, schema);
        }
        if parts.len() == 2 {
            let database = given(settings.database.as_deref());
            let database = database.ok_or_else(|| {
                wrong("names no database, and the option snowflake.database is not one name")
            })?;
            parts.splice(0..0, database);
        }
        Ok(Self(parts))
    }

    /// The names to look for, in order.
    pub(super) fn candidates(&self) -> Vec<Vec<String>> {
        let exact: Vec<String> = self.0.iter().map(|p| p.text.clone()).collect();
        let upper = self.folded();
        match exact == upper {
            true => vec![exact],
            false => vec![exact, upper],
        }
    }

    /// The name as Snowflake understands it, under which a missing table is created.
    pub(super) fn folded(&self) -> Vec<String> {
        let parts = self.0.iter();
        parts
            .map(|p| match p.quoted {
                true => p.text.clone(),
                false => p.text.to_uppercase(),
            })
            .collect()
    }
}

/// `parts` as they are written in SQL.
pub(super) fn quoted(parts: &[String]) -> String {
    SNOWFLAKE.table(parts)
}

/// The parts between dots; None if one is empty or a quote is not closed.
fn split(name: &str) -> Option<Vec<Part>> {
    let mut parts = vec![];
    let mut rest = name.trim();
    loop {
        let part = match rest.strip_prefix('"') {
            Some(inner) => {
                let (text, after) = unquote(inner)?;
                rest = after;
                Part { text, quoted: true }
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let text = rest[..end].to_owned();
                rest = &rest[end..];
                let quoted = false;
                Part { text, quoted }
            }
        };
        if part.text.is_empty() || (!part.quoted && part.text.contains('"')) {
            return None;
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// The text up to the closing quote, doubled quotes made single, and what follows.
fn unquote(inner: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = inner;
    loop {
        let end = rest.find('"')?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Some((text, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snowflake::tests::settings;

    fn candidates(location: &str) -> Result<Vec<String>> {
        let name = TableName::parse(location, &settings("http://127.0.0.1:9"))?;
        Ok(name.candidates().iter().map(|c| quoted(c)).collect())
    }

    #[test]
    fn names_are_looked_for_as_written_then_in_upper_case() {
        let check = |location: &str, expected: &[&str]| {
            assert_eq!(candidates(location).unwrap(), expected);
        };
        check(
            "db.public.cases",
            &[r#""db"."public"."cases""#, r#""DB"."PUBLIC"."CASES""#],
        );
        check("DB.PUBLIC.CASES", &[r#""DB"."PUBLIC"."CASES""#]);
        check("\"a.b\".S.\"x\"\"y\"", &[r#""a.b"."S"."x""y""#]);
        check(
            "cases",
            &[r#""DB1"."PUBLIC"."cases""#, r#""DB1"."PUBLIC"."CASES""#],
        );
    }

    #[test]
    fn other_forms_are_errors() {
        for wrong in ["", "a.", "a..b", "a.b.c.d", "\"a", "a\"b", "\"a\"b"] {
            let error = candidates(wrong).unwrap_err().to_string();
            assert!(error.contains("database.schema.table"), "{error}");
        }
    }
}
