//! What the ending of a file's name says: its format, and how it is compressed.

use crate::error::{Error, Result};

/// File name endings of each format, the one that is written first.
const ENDINGS: &[(&str, &[&str])] = &[
    ("CSV", &[".csv", ".tsv"]),
    ("PARQUET", &[".parquet", ".parq"]),
    ("JSON", &[".json", ".jsonl", ".ndjson"]),
];
/// Endings that say how a file is compressed.
const COMPRESSIONS: &[(&str, &str)] = &[
    (".gz", "gzip"),
    (".zst", "zstd"),
    (".bz2", "bzip2"),
    (".xz", "xz"),
];

/// How the name of a file ends, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) plain: String,
    /// `.gz` or nothing.
    pub(super) packed: &'static str,
}

impl Ending {
    /// That of `name`: one of `format`'s, or only how it is compressed.
    pub(super) fn of(name: &str, format: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let packed = COMPRESSIONS.iter().find(|(end, _)| name.ends_with(end));
        let packed = packed.map_or("", |(end, _)| *end);
        let plain = name.strip_suffix(packed).unwrap_or(&name);
        let known = endings(format).iter().find(|e| plain.ends_with(**e));
        Self {
            plain: known.map_or(String::new(), |e| (*e).to_owned()),
            packed,
        }
    }

    /// What new files of `format` are called.
    pub(super) fn written(format: &str, compression: Option<&str>) -> Self {
        let packed = COMPRESSIONS
            .iter()
            .find(|(_, name)| compression.is_some_and(|c| c.eq_ignore_ascii_case(name)));
        Self {
            plain: endings(format)
                .first()
                .map_or(String::new(), |e| (*e).to_owned()),
            packed: packed.map_or("", |(end, _)| *end),
        }
    }

    /// What the library calls the compression.
    pub(super) fn compression(&self) -> Option<&'static str> {
        let found = COMPRESSIONS.iter().find(|(end, _)| *end == self.packed);
        found.map(|(_, name)| *name)
    }

    pub(super) fn text(&self) -> String {
        format!("{}{}", self.plain, self.packed)
    }
}

/// Those of `format`, the one that is written first.
pub(super) fn endings(format: &str) -> &'static [&'static str] {
    let found = ENDINGS.iter().find(|(name, _)| *name == format);
    found.map_or(&[], |(_, endings)| *endings)
}

/// The one ending of the files of a table. Files that are compressed in several ways, or CSV files
/// with several delimiters, are not one table.
pub(super) fn common_ending<'a>(
    names: impl Iterator<Item = &'a str>,
    format: &str,
    shown: &str,
) -> Result<Option<Ending>> {
    let mut first: Option<Ending> = None;
    for name in names {
        let ending = Ending::of(name, format);
        let Some(first) = &first else {
            first = Some(ending);
            continue;
        };
        // Whatever its name, a file is CSV if the pattern or the option says so; tabs are another kind.
        let is_tsv = |ending: &Ending| ending.plain == ".tsv";
        let same_kind = format != "CSV" || is_tsv(first) == is_tsv(&ending);
        if first.packed != ending.packed || !same_kind {
            return Err(Error::invalid(format!(
                "'{shown}' holds files of several kinds ({}, {}); name those you mean, such as \
                 '{}/*{}'",
                first.text(),
                ending.text(),
                shown.trim_end_matches('/'),
                first.text()
            )));
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_known_in_either_case() {
        for (name, plain, packed) in [
            ("A.CSV", ".csv", ""),
            ("a.Tsv.GZ", ".tsv", ".gz"),
            ("a.txt", "", ""),
            ("a.json.zst", "", ".zst"),
        ] {
            let found = Ending::of(name, "CSV");
            assert_eq!(
                (found.plain.as_str(), found.packed),
                (plain, packed),
                "{name}"
            );
        }
        assert_eq!(
            Ending::of("x/*.json.zst", "JSON").compression(),
            Some("zstd")
        );
    }
}
