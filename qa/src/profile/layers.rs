//! Where do the values of a profile come from?
//!
//! The file that ships with the program, then each overlay in order (what a model card asks for,
//! what casebook.toml says, what the statement says). Tables are merged, everything else replaced.

use toml::{Table, Value};

use super::{PROFILES, Profile, limits};
use crate::error::{Error, ErrorKind, Result, did_you_mean};

/// Every key of a profile, dotted, as files, `SET` and named arguments spell it.
pub const KEYS: &[&str] = &[
    "description",
    "system",
    "ask",
    "ask_list",
    "focus",
    "answer",
    "question_mode",
    "questions_per_chunk",
    "max_pairs_per_document",
    "max_chunk_tokens",
    "overlap_tokens",
    "max_question_tokens",
    "max_answer_tokens",
    "stop",
    "question_sampling.temperature",
    "question_sampling.top_k",
    "question_sampling.top_p",
    "question_sampling.min_p",
    "answer_sampling.temperature",
    "answer_sampling.top_k",
    "answer_sampling.top_p",
    "answer_sampling.min_p",
    "seed",
    "few_shot",
    "checks.truncated",
    "checks.not_a_question",
    "checks.leans_on_document",
    "checks.unnamed_document",
    "checks.boilerplate",
    "checks.duplicate",
    "checks.near_duplicate",
    "checks.ungrounded",
    "checks.min_grounding",
    "checks.not_in_document",
    "checks.degenerate",
    "checks.max_repeats",
];

const EXTENDS: &str = "extends";

impl Profile {
    /// The profile `name`: its built-in file (or the one an overlay `extends`) under `overlays`,
    /// which are pairs of origin (for messages) and TOML text.
    ///
    /// # Errors
    /// `NotFound` for a name that is neither built in nor extends a built-in one; `InvalidInput`
    /// that names the origin and the key for bad TOML, unknown keys, wrong types and nonsense.
    pub fn resolve(name: &str, overlays: &[(&str, &str)]) -> Result<Self> {
        let mut layers = Vec::with_capacity(overlays.len());
        let mut base: Option<(String, &str)> = None;
        for &(origin, text) in overlays {
            // The library quotes the line, and a line can hold what must not be printed.
            let mut table: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
                let before = text.get(..error.span().map_or(0, |span| span.start));
                let line = before.unwrap_or_default().matches('\n').count() + 1;
                Error::invalid(format!(
                    "reading profile '{name}' from {origin}, line {line}: {}",
                    error.message()
                ))
            })?;
            match table.remove(EXTENDS) {
                Some(Value::String(parent)) => base = Some((parent, origin)),
                Some(_) => {
                    return Err(Error::invalid(format!(
                        "profile '{name}' in {origin}: extends takes the name of a profile, one of {}",
                        names()
                    )));
                }
                None => {}
            }
            refuse_unknown_keys(name, origin, &table, "")?;
            layers.push((origin, table));
        }
        let parent = base.as_ref().map_or(name, |(parent, _)| parent.as_str());
        let Some((_, file)) = PROFILES.iter().find(|(known, _)| *known == parent) else {
            return Err(unknown_profile(name, base.as_ref()));
        };
        let mut values: Table = toml::from_str(file).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("built-in profile '{parent}': {error}"),
            )
        })?;
        let mut profile = read(name, &format!("built-in profile '{parent}'"), &values)?;
        for (origin, table) in layers {
            merge(&mut values, table);
            profile = read(name, origin, &values)?;
        }
        profile.validate()?;
        Ok(profile)
    }

    /// Sets one value by its dotted key, as typed: `questions_per_chunk`, `checks.min_grounding`.
    /// `max_pairs_per_document` takes `none` as well. Nothing changes on an error.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown key (with the valid ones), a wrong type or a bad value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if !KEYS.contains(&key) {
            return Err(unknown_key(&self.name, "the options", key));
        }
        let mut values: Table = toml::from_str(&self.to_toml()).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("profile '{}': {error}", self.name),
            )
        })?;
        let old = key
            .split('.')
            .try_fold(&values, |table, part| match table.get(part) {
                Some(Value::Table(inner)) => Ok(inner),
                other => Err(other),
            });
        let is_text = matches!(old, Err(Some(Value::String(_))));
        if key == "max_pairs_per_document" && value.trim().eq_ignore_ascii_case("none") {
            values.remove(key);
        } else {
            let value = match toml::from_str::<Table>(&format!("v = {value}")) {
                Ok(mut parsed) if !is_text && parsed.len() == 1 => parsed.remove("v"),
                _ => None,
            }
            .unwrap_or_else(|| Value::String(value.to_owned()));
            let change = key.rsplit('.').fold(value, |value, part| {
                let mut table = Table::new();
                table.insert(part.to_owned(), value);
                Value::Table(table)
            });
            if let Value::Table(change) = change {
                merge(&mut values, change);
            }
        }
        let changed = read(&self.name, key, &values).map_err(|error| match limits::of(key) {
            Some(limits) => Error::invalid(format!(
                "profile '{}': {key} is {}; it must be {limits}",
                self.name,
                said(value)
            )),
            None => error,
        })?;
        changed.validate()?;
        *self = changed;
        Ok(())
    }
}

/// A wrong value as it may be shown: what is no number can be a secret in the wrong place.
fn said(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(_) => value.to_owned(),
        Err(_) => format!("a text of {} characters", value.chars().count()),
    }
}

fn read(name: &str, origin: &str, values: &Table) -> Result<Profile> {
    let mut profile: Profile = values
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| {
            let what = error.to_string();
            let what = what.replace(error.message(), &without_value(error.message()));
            let what = what.trim().replace('\n', " ");
            Error::invalid(format!("profile '{name}' in {origin}: {what}"))
        })?;
    name.clone_into(&mut profile.name);
    Ok(profile)
}

/// A message of serde without the value that it quotes, which can be a secret in the wrong place.
fn without_value(message: &str) -> String {
    let Some((head, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let kind = head.split(['`', '"']).next().unwrap_or_default();
    let words = EXPECTED.iter().find(|(rust, _)| *rust == expected);
    let expected = words.map_or(expected, |(_, words)| words);
    format!("{}, expected {expected}", kind.trim_end())
}

/// Types of the program, as a user knows them.
const EXPECTED: &[(&str, &str)] = &[
    ("usize", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("u32", "a whole number, 0 or more"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "text"),
    ("a sequence", "a list"),
    ("struct Sampling", "a table of keys"),
    ("struct Checks", "a table of keys"),
    ("struct FewShot", "a table with question and answer"),
];

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn refuse_unknown_keys(name: &str, origin: &str, table: &Table, path: &str) -> Result<()> {
    for (key, value) in table {
        let key = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let group = format!("{key}.");
        match value {
            _ if KEYS.contains(&key.as_str()) => {}
            Value::Table(inner) if KEYS.iter().any(|known| known.starts_with(&group)) => {
                refuse_unknown_keys(name, origin, inner, &key)?;
            }
            // a group with a plain value: the type error of `read` says it better
            _ if KEYS.iter().any(|known| known.starts_with(&group)) => {}
            _ => return Err(unknown_key(name, origin, &key)),
        }
    }
    Ok(())
}

fn unknown_key(name: &str, origin: &str, key: &str) -> Error {
    let valid = [&[EXTENDS], KEYS].concat();
    Error::invalid(format!(
        "profile '{name}' in {origin}: unknown key '{key}'.{} Valid: {}.",
        did_you_mean(key, valid.iter().copied()),
        valid.join(", ")
    ))
}

fn unknown_profile(name: &str, base: Option<&(String, &str)>) -> Error {
    let known = PROFILES.iter().map(|(known, _)| *known);
    let message = match base {
        Some((parent, origin)) => format!(
            "profile '{name}' in {origin} extends the unknown profile '{parent}'.{} Built in: {}.",
            did_you_mean(parent, known),
            names()
        ),
        None => format!(
            "unknown profile '{name}'.{} Built in: {}. A new one is written in casebook.toml as \
             [profiles.{name}] with extends = \"general\".",
            did_you_mean(name, known),
            names()
        ),
    };
    Error::new(ErrorKind::NotFound, message)
}

fn names() -> String {
    PROFILES
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{FewShot, QuestionMode};

    fn fails(name: &str, overlays: &[(&str, &str)]) -> Error {
        Profile::resolve(name, overlays).unwrap_err()
    }

    #[test]
    fn layers_merge_in_order() {
        let profile = Profile::resolve(
            "legal",
            &[
                (
                    "model tiny",
                    "system = 'S'\nseed = 3\n[question_sampling]\ntemperature = 0.5",
                ),
                (
                    "casebook.toml",
                    "seed = 4\nquestion_mode = 'list'\n[checks]\nduplicate = false",
                ),
            ],
        )
        .unwrap();
        assert_eq!((profile.system.as_str(), profile.seed), ("S", 4));
        assert_eq!(profile.question_mode, QuestionMode::List);
        assert_eq!(profile.question_sampling.temperature, 0.5);
        assert_eq!(profile.question_sampling.top_p, 0.95);
        assert!(!profile.checks.duplicate && profile.checks.boilerplate);
        let own = Profile::resolve("bills", &[("casebook.toml", "extends = 'general'")]).unwrap();
        assert_eq!(own.name, "bills");
        assert!(!own.checks.unnamed_document);
    }

    #[test]
    fn errors_name_origin_and_key() {
        let error = fails(
            "legal",
            &[("casebook.toml [profiles.legal]", "question_per_chunk = 2")],
        );
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        for part in [
            "casebook.toml [profiles.legal]",
            "'question_per_chunk'",
            "Did you mean 'questions_per_chunk'",
            "max_chunk_tokens",
        ] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        let error = fails(
            "legal",
            &[("a", "seed = 1"), ("b", "questions_per_chunk = 'two'")],
        );
        assert!(error.message.contains("in b: "), "{}", error.message);
        assert!(
            error.message.contains("questions_per_chunk"),
            "{}",
            error.message
        );
        assert!(
            fails("legal", &[("b", "checks = 3")])
                .message
                .contains("checks")
        );
        assert!(
            fails("legal", &[("b", "checks.leans = true")])
                .message
                .contains("'checks.leans'")
        );
        assert!(
            fails("legal", &[("b", "seed = ")])
                .message
                .contains("line 1")
        );
        for text in [
            "questions_per_chunk = 'hunter2'",
            "questions_per_chunk = 'hunter2, expected \"x\"'",
            "seed = 'a\\nhunter2'",
            "checks = 'hunter2'",
            "question_mode = 'hunter2'",
            "focus = [['hunter2']]",
            "[checks]\nduplicate = 'hunter2'",
            "system = 'hunter2",
        ] {
            let error = fails("legal", &[("b", text)]);
            let mut shown = error.message.clone();
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                shown.push_str(&cause.to_string());
                next = cause.source();
            }
            assert!(
                !shown.contains("hunter2") && shown.contains("in b") | shown.contains("from b"),
                "{shown}"
            );
        }
        let error = fails("legl", &[]);
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(
            error.message.contains("Did you mean 'legal'"),
            "{}",
            error.message
        );
        assert!(
            fails("x", &[("b", "extends = 'y'")])
                .message
                .contains("unknown profile 'y'")
        );
    }

    #[test]
    fn set_takes_values_as_typed() {
        let mut profile = Profile::resolve("general", &[]).unwrap();
        for (key, value) in [
            ("questions_per_chunk", "2"),
            ("seed", "7"),
            ("checks.min_grounding", "1"),
            ("checks.duplicate", "false"),
            ("question_mode", "list"),
            ("max_pairs_per_document", "9"),
            ("system", "42"),
            ("focus", "[\"one thing\"]"),
        ] {
            profile.set(key, value).unwrap();
        }
        assert_eq!((profile.questions_per_chunk, profile.seed), (2, 7));
        assert_eq!(profile.checks.min_grounding, 1.0);
        assert_eq!(profile.system, "42");
        assert_eq!(profile.focus, ["one thing"]);
        assert_eq!(profile.max_pairs_per_document, Some(9));
        profile.set("max_pairs_per_document", "none").unwrap();
        assert_eq!(profile.max_pairs_per_document, None);
        let before = profile.clone();
        let error = profile.set("checks.min_groundin", "1").unwrap_err().message;
        assert!(
            error.contains("Did you mean 'checks.min_grounding'"),
            "{error}"
        );
        assert!(
            profile
                .set("seed", "many")
                .unwrap_err()
                .message
                .contains("seed is a text of 4 characters; it must be a whole number")
        );
        assert!(profile.set("questions_per_chunk", "0").is_err());
        assert!(
            profile
                .set("question_mode", "tree")
                .unwrap_err()
                .message
                .contains("branch")
        );
        assert!(profile.set("checks", "1").is_err());
        assert_eq!(profile, before);
    }

    #[test]
    fn keys_are_those_of_the_struct() {
        let mut profile = Profile::resolve("legal", &[]).unwrap();
        profile.stop.push("s".into());
        profile.max_pairs_per_document = Some(1);
        profile.few_shot.push(FewShot {
            question: "q".into(),
            answer: "a".into(),
        });
        let table: Table = toml::from_str(&profile.to_toml()).unwrap();
        let mut found = Vec::new();
        for (key, value) in &table {
            match value {
                Value::Table(inner) => found.extend(inner.keys().map(|k| format!("{key}.{k}"))),
                _ => found.push(key.clone()),
            }
        }
        found.sort();
        let mut keys = KEYS.to_vec();
        keys.sort_unstable();
        assert_eq!(found, keys);
    }
}
