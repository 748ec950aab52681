//! The name of a table: `table`, `schema.table` or `catalog.schema.table`, as the system stores it.

use crate::error::{Error, Result};

/// The parts of `schema.table` and its like; a part in double quotes may contain dots.
pub(super) fn table_name(location: &str) -> Result<Vec<String>> {
    let broken = || {
        Error::invalid(format!(
            "location '{location}' of an ODBC table is not 'table', 'schema.table' or \
             'catalog.schema.table'; put a part that contains dots or quotes in double quotes"
        ))
    };
    let mut parts = vec![String::new()];
    let mut chars = location.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut().ok_or_else(broken)?;
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' if inside => {
                inside = false;
                if !matches!(chars.peek(), None | Some('.')) {
                    return Err(broken());
                }
            }
            '"' if part.is_empty() => inside = true,
            '"' => return Err(broken()),
            '.' if !inside => parts.push(String::new()),
            other => part.push(other),
        }
    }
    match inside || parts.len() > 3 || parts.iter().any(String::is_empty) {
        true => Err(broken()),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let check = |location: &str, parts: &[&str]| {
            assert_eq!(table_name(location).unwrap(), parts, "{location}");
        };
        check("t", &["t"]);
        check("Db.s.t", &["Db", "s", "t"]);
        check("\"a.b\".\"q\"\"x\"", &["a.b", "q\"x"]);
        check("sch ema.ta-ble", &["sch ema", "ta-ble"]);
        for location in ["", "a..b", "a.b.c.d", "\"a", "a\"b", "\"a\"b"] {
            assert!(table_name(location).is_err(), "{location}");
        }
    }
}
