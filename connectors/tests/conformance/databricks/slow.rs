//! A statement that takes its rows slowly, as one that generates does: links expire meanwhile, and
//! then the result itself.

use futures::StreamExt;

use super::*;

/// A view of 2500 rows in 25 chunks, with options of its own, and a stream of its rows that has
/// given the first batch.
async fn begun(
    more: &[(&str, &str)],
) -> (Arc<Fake>, datafusion::execution::SendableRecordBatchStream) {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(2500));
    fake.set(|inner| inner.rows_per_chunk = 100);
    let ctx = session();
    let mut options = vec![("databricks.read", "warehouse")];
    options.extend(more);
    create(&ctx, &fake, "cases", &options).await.unwrap();
    let frame = ctx.sql("SELECT * FROM cases").await.unwrap();
    let mut rows = frame.execute_stream().await.unwrap();
    let first = rows.next().await.unwrap().unwrap();
    assert_eq!(first, cases(2500).slice(0, 100));
    (fake, rows)
}

/// The rest of the rows is what it should be.
async fn whole(rows: datafusion::execution::SendableRecordBatchStream) {
    let schema = rows.schema();
    let rest: Vec<RecordBatch> = rows.map(Result::unwrap).collect().await;
    let rest = datafusion::arrow::compute::concat_batches(&schema, &rest).unwrap();
    assert_eq!(rest, cases(2500).slice(100, 2400));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_expire_meanwhile_are_renewed() {
    // Rows wait at the source, with the file that nobody needs yet and without one.
    for max_bytes in ["0", "1000000"] {
        let (fake, mut rows) = begun(&[("spool.max_bytes", max_bytes)]).await;
        let mut read = vec![];
        for batch in 0..10 {
            // A chunk may be refused twice, and its third link is good.
            if batch == 0 || batch == 5 {
                fake.expire_links();
            }
            read.push(rows.next().await.unwrap().unwrap());
        }
        let read = datafusion::arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
        assert_eq!(read, cases(2500).slice(100, 1000));
        // No more was asked for than is wanted, and what is downloaded ahead.
        let downloaded = fake.get(|inner| inner.downloaded.len());
        assert!(downloaded <= 11 + 8, "{downloaded}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_given_up_meanwhile_is_on_the_disk() {
    let (fake, rows) = begun(&[("spool.after_secs", "0")]).await;
    fake.until(|inner| inner.downloaded.len() == 25).await;
    // All has been asked for, and the last of it is on its way.
    fake.set(|inner| inner.given_up = true);
    whole(rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_a_result_that_is_given_up_is_an_error() {
    let (fake, mut rows) = begun(&[("spool.max_bytes", "0")]).await;
    fake.set(|inner| inner.given_up = true);
    let error = loop {
        match rows.next().await.expect("the result ended short") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_has(
        &message(&error),
        &[
            "main.legal.cases",
            "spool.after_secs",
            "given the result up",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_small_is_nothing_to_a_limit() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(2500));
    fake.set(|inner| inner.rows_per_chunk = 100);
    let ctx = session();
    let options = [
        ("databricks.read", "warehouse"),
        ("spool.after_secs", "0"),
        ("spool.max_bytes", "20000"),
    ];
    create(&ctx, &fake, "cases", &options).await.unwrap();
    // The filter stays here, and so does the LIMIT.
    let some = query(&ctx, "SELECT id FROM cases WHERE id % 2 = 0 LIMIT 60").await;
    let rows: usize = some.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 60);
}
