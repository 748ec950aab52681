//! Casebook in the session of another program: what stays the host's, and rows that come from
//! programs instead of SQL.

use std::path::Path;
use std::sync::Arc;

use casebook::{
    Casebook, ErrorKind, FileReaders, InstallOptions, SessionOptions, install, install_with,
    new_session, new_session_with,
};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProviderFactory;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;

use crate::{number, run};

fn factory(ctx: &SessionContext, name: &str) -> Option<Arc<dyn TableProviderFactory>> {
    ctx.state().table_factories().get(name).cloned()
}

/// What the session reads CSV with.
fn reader(ctx: &SessionContext) -> String {
    let factory = ctx.state().get_file_format_factory("csv").unwrap();
    format!("{factory:?}")
}

#[tokio::test]
async fn a_host_keeps_its_own_readers_unless_it_gives_them_up() {
    let casebook = Arc::new(Casebook::default());
    let names = ["CSV", "PARQUET", "JSON"];
    let host = || {
        let ctx = SessionContext::new();
        // As a host of deltalake does.
        let own = factory(&ctx, "ARROW").unwrap();
        ctx.state_ref()
            .write()
            .table_factories_mut()
            .insert("DELTATABLE".into(), own);
        ctx
    };
    let same = |ctx: &SessionContext, before: &[Option<Arc<dyn TableProviderFactory>>]| {
        let now = ["CSV", "PARQUET", "JSON", "DELTATABLE"].map(|name| factory(ctx, name));
        now.iter()
            .zip(before)
            .map(|(a, b)| Arc::ptr_eq(a.as_ref().unwrap(), b.as_ref().unwrap()))
            .collect::<Vec<bool>>()
    };
    for (files, kept, prefixed) in [
        (None, true, false),
        (Some(FileReaders::Leave), true, false),
        (Some(FileReaders::Prefixed), true, true),
        (Some(FileReaders::Replace), false, false),
    ] {
        let ctx = host();
        let before = ["CSV", "PARQUET", "JSON", "DELTATABLE"].map(|name| factory(&ctx, name));
        let csv = reader(&ctx);
        match files {
            None => install(&ctx, &casebook).unwrap(),
            Some(files) => install_with(&ctx, &casebook, InstallOptions { files }).unwrap(),
        }
        assert_eq!(same(&ctx, &before), [kept; 4], "{files:?}");
        assert_eq!(reader(&ctx) == csv, kept, "{files:?}");
        for name in names {
            let other = factory(&ctx, &format!("CASEBOOK_{name}"));
            assert_eq!(other.is_some(), prefixed, "{files:?} {name}");
        }
        for name in ["DELTA", "SNOWFLAKE", "LORA", "CHAT_JSONL"] {
            assert!(factory(&ctx, name).is_some(), "{files:?} {name}");
        }
        run(&ctx, "SELECT 1").await.unwrap();
    }
    // Prefixed, our reader takes what DataFusion's refuses: options of ours.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.csv");
    std::fs::write(&path, crate::CASES).unwrap();
    let ctx = host();
    let files = FileReaders::Prefixed;
    install_with(&ctx, &casebook, InstallOptions { files }).unwrap();
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE cases STORED AS CASEBOOK_CSV LOCATION '{}' OPTIONS \
             ('csv.invalid_utf8' 'replace')",
            path.display()
        ),
    )
    .await
    .unwrap();
    assert_eq!(number(&ctx, "SELECT count(*) FROM cases").await, 3);
}

fn pairs() -> RecordBatch {
    let column = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
    RecordBatch::try_from_iter([
        ("question", column(vec!["Who won?", "Who lost?"])),
        ("answer", column(vec!["Roe", "Acme"])),
    ])
    .unwrap()
}

async fn write(ctx: &SessionContext, rows: RecordBatch, table: &str) -> casebook::Result<u64> {
    let frame = ctx.read_batch(rows)?;
    let counts = frame
        .write_table(table, DataFrameWriteOptions::new())
        .await?;
    Ok(counts.iter().map(|batch| batch.num_rows() as u64).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_program_are_laid_out_as_the_table_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = new_session(&Arc::new(Casebook::default())).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for format in ["CSV", "PARQUET", "JSON"] {
        let create = format!(
            "CREATE EXTERNAL TABLE t_{format} (question VARCHAR, answer VARCHAR) STORED AS {format} \
             LOCATION '{}/'",
            at(format)
        );
        std::fs::create_dir_all(dir.path().join(format)).unwrap();
        run(&ctx, &create).await.unwrap();
        let table = format!("t_{format}").to_lowercase();
        write(&ctx, pairs(), &table).await.unwrap();
        let rows = run(&ctx, &format!("SELECT * FROM {table}")).await.unwrap();
        assert!(rows.contains("| Who lost? | Acme"), "{format}: {rows}");
    }
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE chat STORED AS CHAT_JSONL LOCATION '{}';",
            at("chat.jsonl")
        ),
    )
    .await
    .unwrap();
    write(&ctx, pairs(), "chat").await.unwrap();
    let text = std::fs::read_to_string(at("chat.jsonl")).unwrap();
    assert!(
        text.contains("Who lost?") && text.lines().count() == 2,
        "{text}"
    );

    let delta = format!(
        "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION '{}' OPTIONS ('table.create' 'qa_pairs', \
         'write.key' 'qa_id')",
        at("delta")
    );
    run(&ctx, &delta).await.unwrap();
    let schema = ctx.table("qa").await.unwrap().schema().inner().clone();
    let columns = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => format!("arrow_cast('x', 'Utf8') AS {}", field.name()),
        other => format!("arrow_cast(1, '{other}') AS {}", field.name()),
    });
    let row = format!("SELECT {}", columns.collect::<Vec<_>>().join(", "));
    for _ in 0..2 {
        let frame = ctx.sql(&row).await.unwrap();
        let options = DataFrameWriteOptions::new();
        frame.write_table("qa", options).await.unwrap();
    }
    assert_eq!(
        number(&ctx, "SELECT count(*) FROM qa WHERE doc_id = 'x'").await,
        1
    );

    // Another number of columns is refused everywhere; another type where no sink looks at values.
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let questions = Arc::clone(pairs().column(0));
    let typed = [("question", questions.clone()), ("answer", numbers.clone())];
    let three = [
        ("question", questions.clone()),
        ("answer", questions),
        ("more", numbers),
    ];
    let typed = RecordBatch::try_from_iter(typed).unwrap();
    let three = RecordBatch::try_from_iter(three).unwrap();
    for (rows, part, tables) in [
        (&typed, "cast it", &["chat"][..]),
        (&three, "3 columns", &["chat", "t_parquet"]),
    ] {
        for table in tables {
            let error = write(&ctx, rows.clone(), table).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{table}: {error}");
            assert!(error.to_string().contains(part), "{table}: {error}");
        }
    }
    write(&ctx, typed, "t_parquet").await.unwrap();
    let texts = "SELECT count(*) FROM t_parquet WHERE answer IN ('1', '2')";
    assert_eq!(number(&ctx, texts).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_program_train() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = new_session(&Arc::new(Casebook::default())).unwrap();
    let adapter = dir.path().join("adapter");
    run(
        &ctx,
        &format!(
            "CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION '{}' OPTIONS ('lora.epochs' '1', \
             'lora.rank' '2')",
            adapter.display()
        ),
    )
    .await
    .unwrap();
    let column = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("doc_id", column(None), true),
        ("question", column(Some("Who won?")), true),
        ("answer", column(Some("Roe")), true),
        ("document", column(None), true),
    ])
    .unwrap();
    write(&ctx, rows, "tuned").await.unwrap();
    assert!(adapter.join("adapter_config.json").exists());
}

/// The count of spills in the plan of `sql`.
async fn spills(ctx: &SessionContext, sql: &str) -> usize {
    let plan = run(ctx, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
    let counts = plan.split("spill_count=").skip(1);
    counts
        .map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().unwrap()
        })
        .sum()
}

/// The one column of `sql`.
async fn sorted(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let column = batches.iter().map(|batch| Arc::clone(batch.column(0)));
    column
        .flat_map(|column| {
            let text = datafusion::arrow::compute::cast(&column, &DataType::Utf8).unwrap();
            let text = text.as_string::<i32>().clone();
            (0..text.len()).map(move |i| text.value(i).to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sort_larger_than_its_memory_spills_and_is_the_same() {
    let sort =
        "SELECT md5(arrow_cast(value, 'Utf8')) AS h FROM generate_series(1, 600000) ORDER BY h";
    let casebook = Arc::new(Casebook::default());
    let bounded = SessionOptions {
        memory_bytes: Some(24 << 20),
    };
    let small = new_session_with(&casebook, bounded).unwrap();
    let large = new_session(&casebook).unwrap();
    assert_eq!(spills(&large, sort).await, 0);
    assert!(spills(&small, sort).await > 0);
    assert!(sorted(&small, sort).await == sorted(&large, sort).await);
    // It can be changed while the session runs.
    run(&small, "SET datafusion.runtime.memory_limit = '2G'")
        .await
        .unwrap();
    assert_eq!(spills(&small, sort).await, 0);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn one_writer_of_a_chat_file_and_no_link_or_device() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = new_session(&Arc::new(Casebook::default())).unwrap();
    let create = |name: &str, path: &Path| {
        format!(
            "CREATE EXTERNAL TABLE {name} STORED AS CHAT_JSONL LOCATION '{}'",
            path.display()
        )
    };
    let target = dir.path().join("chat.jsonl");
    run(&ctx, &create("chat", &target)).await.unwrap();
    let insert = |table: &str| format!("INSERT OVERWRITE {table} VALUES ('Who won?', 'Roe')");
    let held = casebook_llm::output::Staged::begin(&target).unwrap();
    let error = run(&ctx, &insert("chat")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another run"), "{error}");
    drop(held);
    run(&ctx, &insert("chat")).await.unwrap();

    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, dir.path().join("link.jsonl")).unwrap();
    run(&ctx, &create("link", &dir.path().join("link.jsonl")))
        .await
        .unwrap();
    run(&ctx, &create("device", Path::new("/dev/null")))
        .await
        .unwrap();
    for (table, part) in [("link", "symbolic link"), ("device", "device")] {
        let error = run(&ctx, &insert(table)).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}
