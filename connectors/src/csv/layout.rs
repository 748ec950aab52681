//! How the files of one table are written: the options, checked against each other.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CsvQuoteStyle;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use object_store::path::Path;

use super::dialect::{BlankLines, Dialect};
use super::encoding::Encoding;
use super::nulls::Nulls;
use super::options::OwnOptions;
use super::typed::Formats;
use crate::csv_limits::CsvLimits;
use crate::error::{Error, Result};

/// How files are written, and how much is read of them at a time.
#[derive(Debug, Clone)]
pub(super) struct CsvLayout {
    pub(super) dialect: Dialect,
    /// The delimiter was not named: a tab in files called `.tsv`.
    delimiter_by_name: bool,
    /// None: as the session says.
    pub(super) header: Option<bool>,
    pub(super) limits: CsvLimits,
    pub(super) encoding: Encoding,
    pub(super) compression: FileCompressionType,
    pub(super) nulls: Arc<Nulls>,
    pub(super) formats: Arc<Formats>,
    /// Records may be short, and files may lack columns.
    pub(super) truncated: bool,
    pub(super) escape_formulas: bool,
    /// The columns are declared: a file may have others beside them.
    pub(super) declared: bool,
    /// A file may have fewer columns than the table: it was written before it had them.
    pub(super) may_lack: bool,
    pub(super) writing: Writing,
}

/// What is known of a table's columns beside its files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// The statement names them: a file may have others.
    pub(crate) declared: bool,
    /// A file may lack some.
    pub(crate) may_lack: bool,
}

/// What matters for files that are written alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    pub(super) quote_style: CsvQuoteStyle,
    /// A quote inside quotes is doubled, not escaped.
    pub(super) doubles: bool,
    pub(super) compression_level: Option<u32>,
}

impl CsvLayout {
    /// The layout that options ask for; `delimiter_said` unless theirs is the default.
    pub(super) fn new(
        options: &CsvOptions,
        own: &OwnOptions,
        delimiter_said: bool,
    ) -> Result<Self> {
        let (value, pattern) = (&options.null_value, &options.null_regex);
        let escape = options.escape.filter(|escape| *escape != options.quote);
        let nulls = Nulls::new(value.as_deref(), pattern.as_deref(), escape)?;
        let layout = Self::unchecked(options, own, delimiter_said, nulls);
        layout.check(options)?;
        Ok(layout)
    }

    /// The layout of files that no option but ours say anything of.
    pub(super) fn standard(own: OwnOptions) -> Self {
        Self::unchecked(&CsvOptions::default(), &own, false, Nulls::default())
    }

    fn unchecked(
        options: &CsvOptions,
        own: &OwnOptions,
        delimiter_said: bool,
        nulls: Nulls,
    ) -> Self {
        // Both ways to write it mean that quotes are doubled.
        let escape = options.escape.filter(|escape| *escape != options.quote);
        let dialect = Dialect {
            delimiter: options.delimiter,
            quote: options.quote,
            escape,
            terminator: options.terminator,
            comment: options.comment,
            double_quote: options.double_quote.unwrap_or(true) || options.escape != escape,
            newlines: options.newlines_in_values.unwrap_or(true),
            leading: options.ignore_leading_whitespace,
            trailing: options.ignore_trailing_whitespace,
        };
        Self {
            dialect,
            delimiter_by_name: !delimiter_said,
            header: options.has_header,
            limits: own.limits.clone(),
            encoding: own.encoding,
            compression: options.compression.into(),
            nulls: Arc::new(nulls),
            formats: Arc::new(Formats {
                date: options.date_format.clone(),
                datetime: options.datetime_format.clone(),
                timestamp: options.timestamp_format.clone(),
                timestamp_tz: options.timestamp_tz_format.clone(),
                time: options.time_format.clone(),
            }),
            truncated: options.truncated_rows.unwrap_or(false),
            escape_formulas: own.escape_formulas,
            declared: false,
            may_lack: false,
            writing: Writing {
                quote_style: options.quote_style,
                doubles: escape.is_none() || options.double_quote == Some(true),
                compression_level: options.compression_level,
            },
        }
    }

    /// True if a column that a file's header does not have is null there.
    pub(super) fn may_lack_columns(&self) -> bool {
        self.truncated || self.may_lack
    }

    /// The layout of the file at `location`, whose name may say more.
    pub(super) fn of_file(&self, location: &Path) -> Self {
        self.of_name(location.filename().unwrap_or_default())
    }

    /// The layout of a file called `name`, or with this ending.
    pub(super) fn of_name(&self, name: &str) -> Self {
        let mut out = self.clone();
        let name = name.to_ascii_lowercase();
        let (plain, ending) = name.rsplit_once('.').unwrap_or(("", &name));
        let ending = match ending {
            "gz" | "zst" | "bz2" | "xz" => plain.rsplit('.').next().unwrap_or_default(),
            plain => plain,
        };
        if self.delimiter_by_name && ending == "tsv" {
            out.dialect.delimiter = b'\t';
        }
        out
    }

    /// What an empty line is in the files of a table with these columns.
    pub(super) fn blank_lines(&self, table: &Schema) -> BlankLines {
        match self.has_header() {
            true => BlankLines::AsFirst,
            false if table.fields().len() == 1 => BlankLines::Records,
            false => BlankLines::Skipped,
        }
    }

    /// True if files begin with the names of their columns.
    pub(super) fn has_header(&self) -> bool {
        self.header.unwrap_or(true)
    }

    /// The layout where the session says whether files have a header unless the table does.
    pub(super) fn with_default_header(&self, default: bool) -> Self {
        Self {
            header: Some(self.header.unwrap_or(default)),
            ..self.clone()
        }
    }

    fn check(&self, options: &CsvOptions) -> Result<()> {
        let dialect = &self.dialect;
        let named = [
            ("delimiter", Some(dialect.delimiter)),
            ("quote", Some(dialect.quote)),
            ("escape", dialect.escape),
            ("terminator", dialect.terminator),
            ("comment", dialect.comment),
        ];
        let given = named
            .iter()
            .filter_map(|(name, byte)| Some((name, (*byte)?)));
        let given: Vec<_> = given.collect();
        for (i, (name, byte)) in given.iter().enumerate() {
            if let Some((other, _)) = given[..i].iter().find(|(_, before)| before == byte) {
                return Err(Error::invalid(format!(
                    "options format.{other} and format.{name} are both {:?}; give each its own \
                     character",
                    char::from(*byte)
                )));
            }
            let ends = matches!(byte, b'\n' | b'\r') && **name != "terminator";
            if ends || !byte.is_ascii() {
                return Err(Error::invalid(format!(
                    "option format.{name} is {:?}; expected an ASCII character that ends no line",
                    char::from(*byte)
                )));
            }
        }
        self.check_null(options.null_value.as_deref().unwrap_or_default())?;
        self.check_level(options)
    }

    /// A null is written without quotes.
    fn check_null(&self, null: &str) -> Result<()> {
        let dialect = &self.dialect;
        let special = |byte: u8| {
            matches!(byte, b'\n' | b'\r')
                || [dialect.delimiter, dialect.quote].contains(&byte)
                || [dialect.terminator, dialect.comment].contains(&Some(byte))
        };
        let blank = null.trim() != null || null.starts_with('\u{feff}');
        match blank || null.bytes().any(special) {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "option format.null_value is '{null}', which cannot be told from a text: it holds \
                 a blank at its border, a line break, or a character that is a delimiter, quote, \
                 terminator or comment; give another one"
            ))),
        }
    }

    fn check_level(&self, options: &CsvOptions) -> Result<()> {
        let Some(level) = options.compression_level else {
            return Ok(());
        };
        let (name, valid) = match self.compression {
            FileCompressionType::UNCOMPRESSED => {
                return Err(Error::invalid(
                    "option format.compression_level has no effect without a compression; give \
                     format.compression as well, or leave it out",
                ));
            }
            FileCompressionType::ZSTD => ("zstd", 1..=22),
            FileCompressionType::BZIP2 => ("bzip2", 1..=9),
            FileCompressionType::XZ => ("xz", 0..=9),
            _ => ("gzip", 0..=9),
        };
        match valid.contains(&level) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "option format.compression_level is {level}; {name} takes {} to {}",
                valid.start(),
                valid.end()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(set: impl FnOnce(&mut CsvOptions)) -> Result<CsvLayout> {
        let mut options = CsvOptions::default();
        set(&mut options);
        CsvLayout::new(&options, &OwnOptions::default(), false)
    }

    #[test]
    fn names_say_which_delimiter() {
        let plain = layout(|_| {}).unwrap();
        for (name, delimiter) in [
            ("a/b.csv", b','),
            ("a/b.TSV", b'\t'),
            ("b.tsv.gz", b'\t'),
            ("x.tsv.csv", b','),
            ("x.tsv/b.csv", b','),
            ("my.tsv.old.csv", b','),
        ] {
            let found = plain.of_file(&Path::from(name)).dialect.delimiter;
            assert_eq!(found, delimiter, "{name}");
        }
        let said = CsvLayout::new(&CsvOptions::default(), &OwnOptions::default(), true).unwrap();
        assert_eq!(said.of_name("b.tsv").dialect.delimiter, b',');
    }

    #[test]
    fn what_cannot_work_together_is_refused() {
        type Set = fn(&mut CsvOptions);
        let error = |set: Set| layout(set).err().map(|e| e.to_string());
        let cases: [(Set, &str); 7] = [
            (|o| o.delimiter = b'"', "format.delimiter and format.quote"),
            (|o| o.comment = Some(b','), "format.comment"),
            (|o| o.quote = b'\n', "ends no line"),
            (|o| o.null_value = Some("a,b".into()), "null_value"),
            (|o| o.null_value = Some(" x".into()), "null_value"),
            (|o| o.compression_level = Some(3), "without a compression"),
            (|o| o.null_regex = Some("(".into()), "null_regex"),
        ];
        for (set, part) in cases {
            let error = error(set).unwrap();
            assert!(error.contains(part), "{part}: {error}");
        }
        let doubled = layout(|o| o.escape = Some(b'"')).unwrap();
        assert!(doubled.dialect.escape.is_none() && doubled.dialect.double_quote);
    }
}
