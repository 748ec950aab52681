//! What the encoder writes is what the decoder reads, in every dialect that can be asked for.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int64Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CsvQuoteStyle;
use proptest::prelude::*;

use super::batches::Target;
use super::columns::Wanted;
use super::encoder::CsvEncoder;
use super::layout::CsvLayout;
use super::options::OwnOptions;
use super::source::{Input, decode};
use crate::text::Blocks;

type Texts = Vec<Option<String>>;

/// A column of numbers and the columns of texts.
#[derive(Debug, Clone)]
struct Rows {
    numbers: Option<Vec<Option<i64>>>,
    texts: Vec<Texts>,
}

fn batch(rows: &Rows) -> RecordBatch {
    let mut fields = vec![];
    let mut columns: Vec<datafusion::arrow::array::ArrayRef> = vec![];
    for (i, texts) in rows.texts.iter().enumerate() {
        fields.push(Field::new(format!("c{i}"), DataType::Utf8View, true));
        columns.push(Arc::new(StringViewArray::from_iter(texts)));
    }
    if let Some(numbers) = &rows.numbers {
        fields.push(Field::new("n", DataType::Int64, true));
        columns.push(Arc::new(Int64Array::from(numbers.clone())));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn rows(batches: &[RecordBatch], like: &Rows) -> Rows {
    let mut out = Rows {
        numbers: like.numbers.is_some().then(Vec::new),
        texts: vec![vec![]; like.texts.len()],
    };
    for batch in batches {
        for (i, texts) in out.texts.iter_mut().enumerate() {
            let column = batch.column(i).as_string_view();
            texts.extend(column.iter().map(|text| text.map(str::to_owned)));
        }
        if let Some(numbers) = &mut out.numbers {
            numbers.extend(batch.column(like.texts.len()).as_primitive::<Int64Type>());
        }
    }
    out
}

/// What is read of `text` by `layout`.
fn read(
    text: Vec<u8>,
    layout: &CsvLayout,
    schema: &Arc<Schema>,
) -> Result<Vec<RecordBatch>, String> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let target = Target {
        schema: Arc::clone(schema),
        wanted: Wanted {
            table: Arc::clone(schema),
            projection: all.into(),
            folders: Arc::new([]),
            declared: false,
            truncated: false,
        },
        batch_rows: 2,
    };
    let blocks = Blocks::of(&text);
    let mut batches = vec![];
    let emit = |batch| {
        batches.push(batch);
        true
    };
    decode(Input::File(Box::new(blocks)), layout, target, emit, || {
        false
    })
    .map_err(|e| e.to_string())?;
    Ok(batches)
}

/// The rows as they come back, or why they are not written.
fn round(given: &Rows, options: &CsvOptions, own: &OwnOptions) -> Result<Rows, String> {
    let layout = CsvLayout::new(options, own, true).map_err(|e| e.to_string())?;
    let batch = batch(given);
    let encoder = CsvEncoder::new(layout.clone());
    let mut text = vec![];
    // In two batches, as a stream comes.
    let half = batch.num_rows() / 2;
    for (i, part) in [
        batch.slice(0, half),
        batch.slice(half, batch.num_rows() - half),
    ]
    .iter()
    .enumerate()
    {
        text.extend(encoder.encode(part, i == 0).map_err(|e| e.to_string())?);
    }
    let shown = String::from_utf8_lossy(&text).into_owned();
    let batches = read(text, &layout, &batch.schema());
    Ok(rows(
        &batches.unwrap_or_else(|e| panic!("{e}: {shown:?}")),
        given,
    ))
}

fn nasty() -> impl Strategy<Value = Option<String>> {
    let pieces = prop::sample::select(vec![
        "\"", "'", "\\", ",", ";", "\t", "|", "\n", "\r", "\r\n", "#", "N", "NULL", "N/A", "\\N",
        "a", "7", "-", "=", "@", " ", "é", "漢", "\u{feff}", "\u{a0}", "PAR1", "%PDF", "'=",
    ]);
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(String::new())),
        6 => prop::collection::vec(pieces, 1..5).prop_map(|p| Some(p.concat())),
    ]
}

fn some_rows() -> impl Strategy<Value = Rows> {
    let numbers = prop_oneof![Just(None), Just(Some(7)), any::<i64>().prop_map(Some)];
    (1usize..4, 0usize..6, any::<bool>()).prop_flat_map(move |(columns, count, numbered)| {
        let texts = prop::collection::vec(prop::collection::vec(nasty(), count), columns);
        let numbers = prop::collection::vec(numbers.clone(), count);
        (texts, numbers).prop_map(move |(texts, numbers)| Rows {
            texts,
            numbers: numbered.then_some(numbers),
        })
    })
}

fn flag() -> impl Strategy<Value = Option<bool>> {
    prop::sample::select(vec![None, None, Some(true), Some(false)])
}

fn byte(of: &'static [u8]) -> impl Strategy<Value = Option<u8>> {
    prop_oneof![2 => Just(None), 1 => prop::sample::select(of).prop_map(Some)]
}

fn some_options() -> impl Strategy<Value = CsvOptions> {
    let characters = (
        byte(b";\t| \"x"),
        byte(b"'|7"),
        byte(b"\\'\"^"),
        byte(b";\n\r|\x01"),
        byte(b"#a=;"),
    );
    let flags = (flag(), flag(), flag(), flag(), flag());
    let styles = vec![
        CsvQuoteStyle::Necessary,
        CsvQuoteStyle::Always,
        CsvQuoteStyle::NonNumeric,
        CsvQuoteStyle::Never,
    ];
    let nulls = vec![
        None,
        None,
        Some("NULL"),
        Some("N/A"),
        Some("7"),
        Some("-"),
        Some(""),
    ];
    let patterns = vec![None, None, None, Some("N/?A|NULL"), Some(""), Some("-+")];
    let rest = (
        prop::sample::select(styles),
        prop::sample::select(nulls),
        prop::sample::select(patterns),
    );
    (characters, flags, rest).prop_map(|(characters, flags, (style, null, pattern))| {
        let (delimiter, quote, escape, terminator, comment) = characters;
        let (header, double, newlines, leading, trailing) = flags;
        CsvOptions {
            has_header: header,
            delimiter: delimiter.unwrap_or(b','),
            quote: quote.unwrap_or(b'"'),
            escape,
            terminator,
            comment,
            double_quote: double,
            newlines_in_values: newlines,
            ignore_leading_whitespace: leading,
            ignore_trailing_whitespace: trailing,
            quote_style: style,
            null_value: null.map(str::to_owned),
            null_regex: pattern.map(str::to_owned),
            ..CsvOptions::default()
        }
    })
}

/// The texts without the blanks that the options say not to write.
fn without_blanks(rows: &Rows, options: &CsvOptions) -> Vec<Texts> {
    let trimmed = |text: &String| {
        let mut text = text.as_str();
        if options.ignore_leading_whitespace == Some(true) {
            text = text.trim_start_matches([' ', '\t']);
        }
        if options.ignore_trailing_whitespace == Some(true) {
            text = text.trim_end_matches([' ', '\t']);
        }
        text.to_owned()
    };
    let column = |texts: &Texts| texts.iter().map(|t| t.as_ref().map(trimmed)).collect();
    rows.texts.iter().map(column).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_dialect_is_read_as_it_was_written(
        given in some_rows(),
        options in some_options(),
        escape_formulas in any::<bool>(),
    ) {
        let own = OwnOptions { escape_formulas, ..OwnOptions::default() };
        match round(&given, &options, &own) {
            Ok(read) => {
                prop_assert_eq!(read.texts, without_blanks(&given, &options));
                prop_assert_eq!(read.numbers, given.numbers);
            }
            Err(error) => {
                // What may be refused: two options at odds, or a value that cannot be written.
                let all = options.quote_style != CsvQuoteStyle::Never
                    && options.newlines_in_values != Some(false)
                    && options.null_regex.is_none()
                    && options.double_quote != Some(false);
                let odd = error.starts_with("option");
                prop_assert!(odd || !all, "{}", error);
            }
        }
    }

    #[test]
    fn nothing_is_refused_by_default(given in some_rows()) {
        let read = round(&given, &CsvOptions::default(), &OwnOptions::default()).unwrap();
        prop_assert_eq!(read.texts, given.texts);
    }
}
