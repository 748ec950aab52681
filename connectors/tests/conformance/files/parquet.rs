//! Parquet as others write it, and as a bad disk or a bad will leaves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use datafusion::parquet::file::properties::{WriterProperties, WriterVersion};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn session() -> SessionContext {
    let ctx = SessionContext::new();
    register(&ctx, &ConnectorOptions::default()).unwrap();
    ctx
}

async fn rows(ctx: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let frame = ctx.sql(sql).await.map_err(|e| e.to_string())?;
    let batches = frame.collect().await.map_err(|e| e.to_string())?;
    let options = FormatOptions::default().with_null("null");
    let mut out = vec![];
    for batch in batches {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            out.push(cells.join(" | "));
        }
    }
    Ok(out)
}

async fn open(
    ctx: &SessionContext,
    format: &str,
    location: &Path,
    options: &str,
) -> Result<(), String> {
    let options = match options {
        "" => String::new(),
        options => format!(" OPTIONS ({options})"),
    };
    let location = location.display();
    let sql = format!("CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{location}'{options}");
    rows(ctx, &sql).await.map(drop)
}

/// INT96, which Spark writes, from the first year to the last.
#[tokio::test]
async fn old_timestamps_are_real_dates() {
    for (format, location, zone) in [
        ("PARQUET", "parquet/int96.parquet", ""),
        ("DELTA", "delta/int96", "Z"),
    ] {
        let ctx = session();
        open(&ctx, format, &data(location), "").await.unwrap();
        let found = rows(&ctx, "SELECT id, decided FROM t ORDER BY id")
            .await
            .unwrap();
        let times = [
            "0001-01-01T00:00:00",
            "1607-05-14T01:02:03.456789",
            "null",
            "1969-12-31T23:59:59.999999",
            "2262-04-12T00:00:00",
            "9999-12-31T23:59:59.999999",
        ];
        let expected = times.iter().enumerate().map(|(id, time)| match *time {
            "null" => format!("{id} | null"),
            time => format!("{id} | {time}{zone}"),
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{format}");
        // SQL's own literals are nanoseconds, so that years beyond them have to be said otherwise.
        let at = |time: &str| format!("arrow_cast('{time}', 'Timestamp(Microsecond, None)')");
        for (condition, ids) in [
            (format!("decided < {}", at("1600-01-01T00:00:00")), "0"),
            (format!("decided = {}", at(times[1])), "1"),
            (format!("decided >= {}", at(times[5])), "5"),
            (
                format!("decided IN ({}, {})", at(times[0]), at(times[4])),
                "0 4",
            ),
            ("decided < TIMESTAMP '1700-01-01T00:00:00Z'".into(), "0 1"),
            ("decided > '2200-01-01T00:00:00Z'".into(), "4 5"),
            ("decided IS NULL".into(), "2"),
            (
                "decided BETWEEN TIMESTAMP '1969-12-31T00:00:00Z' AND \
                 TIMESTAMP '2262-04-11T00:00:00Z'"
                    .into(),
                "3",
            ),
            ("date_part('year', decided) = 1607".to_owned(), "1"),
        ] {
            for pushed in ["true", "false"] {
                let set = format!("SET datafusion.execution.parquet.pushdown_filters = {pushed}");
                rows(&ctx, &set).await.unwrap();
                let sql = format!("SELECT id FROM t WHERE {condition} ORDER BY id");
                let found = rows(&ctx, &sql).await.unwrap().join(" ");
                assert_eq!(found, ids, "{format}: {condition}, pushed down: {pushed}");
            }
        }
        let sql = "SELECT min(decided), max(decided), count(decided) FROM t";
        let found = rows(&ctx, sql).await.unwrap();
        let expected = format!("{}{zone} | {}{zone} | 5", times[0], times[5]);
        assert_eq!(found, [expected], "{format}");
    }
}

#[tokio::test]
async fn what_a_user_says_about_old_timestamps_goes_first() {
    let kind = "SELECT arrow_typeof(decided) FROM t LIMIT 1";
    let set = "SET datafusion.execution.parquet.coerce_int96 = 'ms'";
    for (format, location) in [
        ("PARQUET", "parquet/int96.parquet"),
        ("DELTA", "delta/int96"),
    ] {
        let ctx = session();
        rows(&ctx, set).await.unwrap();
        open(&ctx, format, &data(location), "").await.unwrap();
        let found = rows(&ctx, "SELECT decided FROM t WHERE id = 1")
            .await
            .unwrap();
        assert!(found[0].starts_with("1607-05-14T01:02:03.456"), "{found:?}");
        assert!(!found[0].contains("456789"), "{found:?}");
    }
    for (option, expected) in [
        ("'format.coerce_int96' 'ms'", "Timestamp(ms)"),
        ("", "Timestamp(µs)"),
    ] {
        let ctx = session();
        open(&ctx, "PARQUET", &data("parquet/int96.parquet"), option)
            .await
            .unwrap();
        assert_eq!(rows(&ctx, kind).await.unwrap(), [expected]);
    }
}

#[tokio::test]
async fn damaged_files_are_errors_that_name_them() {
    for entry in std::fs::read_dir(data("parquet/damaged")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Alone, and as one of several files.
        for folder in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let location = match folder {
                false => path.clone(),
                true => {
                    for copy in ["a.parquet", "b.parquet"] {
                        let from = path.with_file_name("../checksums.parquet");
                        std::fs::copy(from, scratch.path().join(copy)).unwrap();
                    }
                    std::fs::copy(&path, scratch.path().join(&name)).unwrap();
                    scratch.path().to_owned()
                }
            };
            let ctx = session();
            let mut said = String::new();
            if let Err(error) = open(&ctx, "PARQUET", &location, "").await {
                said = error;
            }
            if said.is_empty() {
                said = rows(&ctx, "SELECT * FROM t").await.unwrap_err();
            }
            let named = said.contains(&name) || (folder && said.contains("schema"));
            assert!(named, "{name}: {said}");
            assert!(!said.contains("Join Error"), "{said}");
        }
    }
}

#[tokio::test]
async fn other_failures_of_a_file_name_it_too() {
    let scratch = tempfile::tempdir().unwrap();
    let truncated = scratch.path().join("cut.parquet");
    let whole = std::fs::read(data("parquet/checksums.parquet")).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() - 100]).unwrap();
    let error = open(&session(), "PARQUET", &truncated, "")
        .await
        .unwrap_err();
    assert!(error.contains(&truncated.display().to_string()), "{error}");
    // A file that changes after the table was opened.
    let ctx = session();
    let file = scratch.path().join("later.parquet");
    std::fs::write(&file, &whole).unwrap();
    open(&ctx, "PARQUET", &file, "").await.unwrap();
    std::fs::write(&file, "PAR1 this is not Parquet at all PAR1").unwrap();
    let error = rows(&ctx, "SELECT * FROM t").await.unwrap_err();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

fn sound() -> &'static [Vec<u8>] {
    static FILES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
        let ids = 0..200i64;
        let lists = ids.clone().map(|i| Some(vec![Some(i), None, Some(i + 1)]));
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "id",
                Arc::new(StringArray::from_iter_values(
                    ids.clone().map(|i| format!("d{i}")),
                )),
            ),
            (
                "n",
                Arc::new(Int64Array::from_iter(
                    ids.clone().map(|i| (i % 7 != 0).then_some(i)),
                )),
            ),
            (
                "f",
                Arc::new(Float64Array::from_iter_values(
                    ids.clone().map(|i| i as f64 / 3.0),
                )),
            ),
            (
                "l",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut out = vec![];
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::GZIP(GzipLevel::default()),
            Compression::LZ4_RAW,
        ] {
            for (version, dictionary) in [
                (WriterVersion::PARQUET_1_0, true),
                (WriterVersion::PARQUET_2_0, true),
                (WriterVersion::PARQUET_2_0, false),
            ] {
                let properties = WriterProperties::builder()
                    .set_compression(compression)
                    .set_writer_version(version)
                    .set_dictionary_enabled(dictionary)
                    .set_max_row_group_row_count(Some(70))
                    .build();
                let mut file = vec![];
                let writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties));
                let mut writer = writer.unwrap();
                writer.write(&batch).unwrap();
                writer.close().unwrap();
                out.push(file);
            }
        }
        out
    });
    &FILES
}

/// What happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    Bits(Vec<(prop::sample::Index, u8)>),
    Footer(Vec<(prop::sample::Index, u8)>),
    Cut(prop::sample::Index),
    FooterLength(u32),
    /// A number of the headers or the footer becomes a huge one.
    Huge(prop::sample::Index, bool),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    let bytes = || prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    prop_oneof![
        bytes().prop_map(Damage::Bits),
        bytes().prop_map(Damage::Footer),
        index().prop_map(Damage::Cut),
        prop_oneof![
            Just(0),
            Just(1),
            Just(u32::MAX),
            Just(1 << 31),
            any::<u32>()
        ]
        .prop_map(Damage::FooterLength),
        (index(), any::<bool>()).prop_map(|(at, footer)| Damage::Huge(at, footer)),
    ]
}

fn apply(file: &mut Vec<u8>, damage: &Damage) {
    let end = file.len() - 8;
    let length: [u8; 4] = file[end..end + 4].try_into().unwrap();
    let footer = end - u32::from_le_bytes(length) as usize;
    match damage {
        Damage::Bits(bits) => {
            for (at, bit) in bits {
                let at = at.index(file.len());
                file[at] ^= 1 << (bit % 8);
            }
        }
        Damage::Footer(bytes) => {
            for (at, byte) in bytes {
                file[footer + at.index(end - footer)] = *byte;
            }
        }
        Damage::Cut(at) => file.truncate(at.index(file.len())),
        Damage::FooterLength(length) => {
            file[end..end + 4].copy_from_slice(&length.to_le_bytes());
        }
        Damage::Huge(at, in_footer) => {
            let within = if *in_footer {
                footer..end - 5
            } else {
                4..footer - 5
            };
            let at = within.start + at.index(within.len());
            file[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// A panic that is not caught would fail the test.
    #[test]
    fn damage_is_an_error_that_names_the_file_or_does_no_harm(
        which in any::<prop::sample::Index>(),
        damage in damage(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.parquet");
        let mut file = sound()[which.index(sound().len())].clone();
        apply(&mut file, &damage);
        std::fs::write(&path, file).unwrap();
        runtime.block_on(async {
            let ctx = session();
            let mut said = vec![];
            said.extend(open(&ctx, "PARQUET", &path, "").await.err());
            if said.is_empty() {
                for sql in ["SELECT * FROM t", "SELECT count(*), max(n) FROM t WHERE n > 10"] {
                    said.extend(rows(&ctx, sql).await.err());
                }
            }
            for error in said {
                prop_assert!(error.contains("x.parquet"), "{error}");
            }
            Ok(())
        })?;
    }
}
