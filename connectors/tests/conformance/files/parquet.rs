//! Parquet as others write it, and as a bad disk or a bad will leaves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
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

/// A Parquet file of columns that may have any names.
fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let fields = columns.iter();
    let fields = fields.map(|(name, values)| Field::new(*name, values.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let values = columns.into_iter().map(|(_, values)| values);
    let batch = RecordBatch::try_new(Arc::clone(&schema), values.collect()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// What goes wrong with the table `t` of `columns` at `location`, by the first of `statements` that fails.
async fn refused(columns: &str, location: &Path, statements: &[&str]) -> String {
    let ctx = session();
    let create = format!(
        "CREATE EXTERNAL TABLE t {columns} STORED AS PARQUET LOCATION '{}'",
        location.display()
    );
    for sql in [create.as_str()].iter().chain(statements) {
        if let Err(error) = rows(&ctx, sql).await {
            return error;
        }
    }
    panic!("{location:?} is read");
}

const STATEMENTS: &[&str] = &["SELECT * FROM t"];

#[tokio::test]
async fn two_columns_of_one_name_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (one, two) = (ints(&[1, 2]), ints(&[3, 4]));
    parquet(
        &at("dup.parquet"),
        vec![("id", one.clone()), ("x", one.clone()), ("x", two.clone())],
    );
    let field = |name| Arc::new(Field::new(name, DataType::Int64, true));
    let both = StructArray::new(
        vec![field("k"), field("k")].into(),
        vec![one.clone(), two.clone()],
        None,
    );
    parquet(
        &at("nested.parquet"),
        vec![("id", one.clone()), ("s", Arc::new(both))],
    );
    std::fs::create_dir(at("folder")).unwrap();
    parquet(
        &at("folder/a.parquet"),
        vec![("id", one.clone()), ("x", one.clone())],
    );
    std::fs::copy(at("dup.parquet"), at("folder/dup.parquet")).unwrap();
    for (location, column, name) in [
        ("dup.parquet", "called x,", "dup.parquet"),
        ("nested.parquet", "called s.k,", "nested.parquet"),
        ("folder", "called x,", "dup.parquet"),
    ] {
        for columns in ["", "(id BIGINT)", "(x BIGINT)"] {
            for statement in [
                "SELECT * FROM t",
                "SELECT min(id) FROM t WHERE id > 0",
                "SELECT count(*) FROM t",
            ] {
                if columns == "(x BIGINT)" && statement.contains("id") {
                    continue;
                }
                let error = refused(columns, &at(location), &[statement]).await;
                assert!(error.contains(column) && error.contains(name), "{error}");
            }
        }
    }
    // A file that joins later, and without statistics, which are read while a statement is planned.
    std::fs::remove_file(at("folder/dup.parquet")).unwrap();
    for collect in [true, false] {
        let ctx = session();
        let set = format!("SET datafusion.execution.collect_statistics = {collect}");
        rows(&ctx, &set).await.unwrap();
        open(&ctx, "PARQUET", &at("folder"), "").await.unwrap();
        assert_eq!(rows(&ctx, "SELECT id FROM t").await.unwrap().len(), 2);
        std::fs::copy(at("dup.parquet"), at("folder/later.parquet")).unwrap();
        let error = rows(&ctx, "SELECT id FROM t").await.unwrap_err();
        assert!(
            error.contains("called x,") && error.contains("later.parquet"),
            "{error}"
        );
        std::fs::remove_file(at("folder/later.parquet")).unwrap();
    }
}

#[tokio::test]
async fn names_that_differ_by_case_are_told_apart_or_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (one, two) = (ints(&[1]), ints(&[2]));
    parquet(
        &at("both.parquet"),
        vec![("id", one.clone()), ("ID", two.clone())],
    );
    let ctx = session();
    open(&ctx, "PARQUET", &at("both.parquet"), "")
        .await
        .unwrap();
    let found = rows(&ctx, "SELECT id, \"ID\" FROM t").await.unwrap();
    assert_eq!(found, ["1 | 2"]);
    std::fs::create_dir(at("folder")).unwrap();
    parquet(&at("folder/a.parquet"), vec![("id", one.clone())]);
    parquet(&at("folder/b.parquet"), vec![("ID", two.clone())]);
    let error = refused("", &at("folder"), STATEMENTS).await;
    for part in ["ID", "id", "a.parquet", "b.parquet"] {
        assert!(error.contains(part), "{error}");
    }
    let error = refused("(id BIGINT)", &at("folder"), STATEMENTS).await;
    assert!(
        error.contains("b.parquet") && error.contains("\"ID\""),
        "{error}"
    );
    let error = refused("(id BIGINT)", &at("folder/b.parquet"), STATEMENTS).await;
    assert!(
        error.contains("b.parquet") && error.contains("\"ID\""),
        "{error}"
    );
    let ctx = session();
    let create = format!(
        "CREATE EXTERNAL TABLE t (\"ID\" BIGINT) STORED AS PARQUET LOCATION '{}'",
        at("folder/b.parquet").display()
    );
    rows(&ctx, &create).await.unwrap();
    assert_eq!(rows(&ctx, "SELECT * FROM t").await.unwrap(), ["2"]);
}

#[tokio::test]
async fn files_of_other_types_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    parquet(&scratch.path().join("a.parquet"), vec![("id", ints(&[1]))]);
    parquet(&scratch.path().join("b.parquet"), vec![("id", text)]);
    let error = refused("", scratch.path(), STATEMENTS).await;
    for part in ["column id", "a.parquet", "b.parquet", "Int64", "declare"] {
        assert!(error.contains(part), "{error}");
    }
    let ctx = session();
    let create = format!(
        "CREATE EXTERNAL TABLE t (id VARCHAR) STORED AS PARQUET LOCATION '{}'",
        scratch.path().display()
    );
    rows(&ctx, &create).await.unwrap();
    let found = rows(&ctx, "SELECT id FROM t ORDER BY id").await.unwrap();
    assert_eq!(found, ["1", "x"]);
}

#[tokio::test]
async fn a_page_is_compared_with_its_checksum() {
    let whole = std::fs::read(data("parquet/checksums.parquet")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("flipped.parquet");
    let at = whole
        .windows(7)
        .position(|part| part == b"text 42")
        .unwrap();
    for flip in [false, true] {
        let mut bytes = whole.clone();
        bytes[at + 6] ^= u8::from(flip);
        std::fs::write(&path, bytes).unwrap();
        let ctx = session();
        open(&ctx, "PARQUET", &path, "").await.unwrap();
        let found = rows(&ctx, "SELECT text FROM t WHERE id = 42").await;
        match flip {
            false => assert_eq!(found.unwrap(), ["text 42"]),
            true => {
                let error = found.unwrap_err();
                assert!(error.contains("flipped.parquet"), "{error}");
                assert!(
                    error.contains("checksum") && error.contains("damaged"),
                    "{error}"
                );
            }
        }
        // A column that is not read is not compared.
        let found = rows(&ctx, "SELECT count(*), sum(id) FROM t WHERE id > -1").await;
        assert_eq!(found.unwrap(), ["100 | 4950"]);
    }
}

/// Planned, replaced, then run: never the footer of one file with the rows of another.
#[tokio::test]
async fn a_file_that_is_replaced_under_a_statement_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.parquet");
    for columns in ["", "(id BIGINT)"] {
        parquet(
            &path,
            vec![("id", ints(&[1, 2, 3])), ("x", ints(&[1, 2, 3]))],
        );
        let ctx = session();
        let create = format!(
            "CREATE EXTERNAL TABLE t {columns} STORED AS PARQUET LOCATION '{}'",
            path.display()
        );
        rows(&ctx, &create).await.unwrap();
        let frame = ctx.sql("SELECT id FROM t WHERE id > 0").await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let other = scratch.path().join("other");
        parquet(
            &other,
            vec![("id", ints(&[7, 8, 9])), ("x", ints(&[1, 2, 3]))],
        );
        std::fs::rename(&other, &path).unwrap();
        let error = datafusion::physical_plan::collect(plan, ctx.task_ctx()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("changed while it was read"), "{error}");
        assert!(error.contains("a.parquet"), "{error}");
        let found = rows(&ctx, "SELECT id FROM t WHERE id > 0").await.unwrap();
        assert_eq!(found, ["7", "8", "9"]);
    }
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
