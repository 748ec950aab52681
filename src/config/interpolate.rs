//! `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` inside string values; `$${` is `${`.

use std::path::Path;

use toml::{Table, Value};

/// Fills in every string of `table`. The error names the key.
pub(super) fn fill(
    table: &mut Table,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for (key, value) in table.iter_mut() {
        fill_value(key, value, folder, environment)?;
    }
    Ok(())
}

fn fill_value(
    key: &str,
    value: &mut Value,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    match value {
        Value::String(text) => {
            *text = fill_text(text, folder, environment).map_err(|e| format!("{key}: {e}"))?;
        }
        Value::Array(items) => {
            for item in items {
                fill_value(key, item, folder, environment)?;
            }
        }
        Value::Table(inner) => {
            for (name, item) in inner.iter_mut() {
                fill_value(&format!("{key}.{name}"), item, folder, environment)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Fills in one value. `${file:path}` is relative to `folder`.
///
/// # Errors
/// What cannot be looked up, and what to do about it.
pub fn fill_text(
    text: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let end = rest[at..]
            .find('}')
            .ok_or("a ${ is not closed by }; write $${ for a plain ${")?;
        out.push_str(&look_up(&rest[at + 2..at + end], folder, environment)?);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(
    reference: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        let text = std::fs::read_to_string(folder.join(path))
            .map_err(|e| format!("${{file:{path}}}: {e}"))?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    let Some(name) = reference.strip_prefix("env:") else {
        return Err(format!(
            "${{{reference}}} is neither ${{env:NAME}} nor ${{file:path}}"
        ));
    };
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (name, None),
    };
    environment(name).or(default).ok_or_else(|| {
        format!(
            "the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_and_cannot_inject() {
        let environment = |name: &str| (name == "A").then(|| "x\"\n[models]".to_owned());
        let fill = |text: &str| fill_text(text, Path::new(""), &environment);
        assert_eq!(fill("a ${env:A} b").unwrap(), "a x\"\n[models] b");
        assert_eq!(fill("${env:B:-c}").unwrap(), "c");
        assert_eq!(fill("$${env:A}").unwrap(), "${env:A}");
        assert!(fill("${env:B}").unwrap_err().contains('B'));
        assert!(fill("${env:A").is_err());
        assert!(fill("${other}").is_err());
    }
}
