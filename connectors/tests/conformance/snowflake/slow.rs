//! A statement that takes its rows slowly, as one that generates does: links expire meanwhile, and
//! then the result itself.

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::faults::{PART, ids, rows, table};
use crate::fake::snowflake::{Fake, Faults, PASSWORD};

/// Thirty parts, and a stream of their rows that has given the first batch.
async fn begun(more: &str) -> (Fake, SendableRecordBatchStream) {
    let fake = Fake::start(rows(30), Faults::default()).await;
    let ctx = table(&fake.url, PASSWORD, more).await.unwrap();
    let frame = ctx.sql("SELECT id FROM t").await.unwrap();
    let mut rows = frame.execute_stream().await.unwrap();
    let first = rows.next().await.unwrap().unwrap();
    assert_eq!(ids(&[first]), (0..PART).collect::<Vec<_>>());
    (fake, rows)
}

async fn whole(rows: SendableRecordBatchStream) {
    let rest: Vec<_> = rows.map(Result::unwrap).collect().await;
    assert_eq!(ids(&rest), (PART..30 * PART).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_expire_meanwhile_are_renewed() {
    for more in ["", ", 'spool.max_bytes' '0'"] {
        let (fake, mut rows) = begun(more).await;
        let mut read = vec![];
        for batch in 0..10 {
            // A chunk may be refused twice, and its third link is good.
            if batch == 0 || batch == 5 {
                fake.expire_links();
            }
            read.push(rows.next().await.unwrap().unwrap());
        }
        assert_eq!(ids(&read), (PART..11 * PART).collect::<Vec<_>>());
        assert!(fake.count("result") > 0);
        assert!(fake.count("begun") <= 11 + 8, "{:?}", fake.events());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_given_up_meanwhile_is_on_the_disk() {
    let (fake, rows) = begun(", 'spool.after_secs' '0'").await;
    for chunk in 0..29 {
        fake.wait_for(&format!("ended {chunk}")).await;
    }
    fake.give_up_results();
    whole(rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_a_result_that_is_given_up_is_an_error() {
    let (fake, mut rows) = begun(", 'spool.max_bytes' '0'").await;
    fake.give_up_results();
    let error = loop {
        match rows.next().await.expect("the result ended short") {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    for part in [
        "db.s.cases",
        "spool.after_secs",
        "Result for query has expired",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
