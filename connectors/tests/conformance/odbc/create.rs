//! Tables that are not there yet, or lack columns: reading changes nothing, INSERT makes what is
//! missing before it asks for the first row.

use super::{Source, one, session, shown};

const CREATE: (&str, &str) = ("table.create", "qa_pairs");
const EVOLVE: (&str, &str) = ("table.evolve", "add_columns");
const ROW: &str = "INSERT INTO qa VALUES ('a', 1, 2, 'x', 0.5)";

/// The error of a statement, when it is planned or when it runs.
async fn error(ctx: &datafusion::prelude::SessionContext, sql: &str) -> String {
    match ctx.sql(sql).await {
        Err(error) => error.to_string(),
        Ok(frame) => frame.collect().await.unwrap_err().to_string(),
    }
}

#[tokio::test]
async fn a_missing_table_has_no_rows_until_the_first_insert() {
    for source in Source::all("not_yet") {
        let ctx = session();
        let options = [CREATE, ("write.key", "qa_id")];
        source
            .create_with(&ctx, "qa", "qa", &options)
            .await
            .unwrap();
        // Another session knows the same table.
        let other = session();
        source
            .create_with(&other, "qa", "qa", &options)
            .await
            .unwrap();
        for ctx in [&ctx, &other] {
            assert_eq!(one(ctx, "SELECT count(*) FROM qa").await, "0");
            let filtered = "SELECT answer, chunk_no FROM qa WHERE chunk_no > 1 ORDER BY 1 LIMIT 3";
            assert_eq!(shown(ctx, filtered).await.lines().count(), 2);
        }
        let absent = source.create_with(&session(), "t", "qa", &[]).await;
        assert!(absent.is_err(), "reading made a table");
        assert_eq!(one(&ctx, ROW).await, "1");
        assert_eq!(
            one(&other, "SELECT answer FROM qa WHERE qa_id = 'a'").await,
            "x"
        );
        assert_eq!(one(&other, ROW).await, "0");
    }
}

#[tokio::test]
async fn a_missing_right_is_told_before_the_first_row_is_made() {
    let Some(source) = Source::postgres("no_right") else {
        return;
    };
    source.run("DROP ROLE IF EXISTS no_right_writer");
    source.run("CREATE ROLE no_right_writer LOGIN PASSWORD 'writer-password'");
    source.run("GRANT USAGE ON SCHEMA no_right TO no_right_writer");
    let (start, rest) = source.connection.split_once("Pwd=").unwrap();
    let own = format!(
        "{}Pwd=writer-password;{}",
        start.replace("Uid=casebook", "Uid=no_right_writer"),
        rest.split_once(';').unwrap().1
    );
    let ctx = session();
    super::create(&ctx, "qa", "no_right.qa", &own, &[CREATE])
        .await
        .unwrap();
    // It would be a division by zero if it ran.
    let insert = "INSERT INTO qa SELECT 'a', CAST(1 / (value - value) AS INT), 1 AS x, 'y', 1 AS z \
                  FROM generate_series(1, 3)";
    let refused = error(&ctx, insert).await;
    assert!(
        refused.contains("creating no_right.qa") && refused.contains("permission denied"),
        "{refused}"
    );
    source.run("DROP OWNED BY no_right_writer");
    source.run("DROP ROLE no_right_writer");
}

#[tokio::test]
async fn declared_columns_are_added_where_that_is_asked_for() {
    for source in Source::all("evolved") {
        let table = source.table("qa");
        // Another order, and two columns less.
        source.run(&format!(
            "CREATE TABLE {table} (answer text, qa_id text, chunk_no int)"
        ));
        source.run(&format!("INSERT INTO {table} VALUES ('old', 'o', 7)"));
        let ctx = session();
        let refused = source.create_with(&ctx, "qa", "qa", &[CREATE]).await;
        let refused = refused.unwrap_err().to_string();
        for part in [
            "chunk_start is missing",
            "grounding is missing",
            "table.evolve",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        let wrong = [CREATE, ("table.evolve", "yes")];
        let refused = source.create_with(&ctx, "qa", "qa", &wrong).await;
        assert!(refused.unwrap_err().to_string().contains("add_columns"));
        let options = [CREATE, EVOLVE];
        source
            .create_with(&ctx, "qa", "qa", &options)
            .await
            .unwrap();
        let all = "SELECT * FROM qa ORDER BY qa_id";
        let row = |cells: [&str; 5]| cells.map(str::to_owned);
        let read = async || {
            let shown = shown(&ctx, all).await;
            let lines = shown.lines().filter(|l| l.starts_with('|')).skip(1);
            let cells = |line: &str| -> Vec<String> {
                let line = line.trim_matches('|').split('|');
                line.map(|c| c.trim().to_owned()).collect()
            };
            lines.map(cells).collect::<Vec<_>>()
        };
        // Reading adds nothing.
        assert_eq!(read().await, [row(["o", "7", "", "old", ""])]);
        let columns = source.create_with(&session(), "t", "qa", &[]).await;
        columns.unwrap();
        assert_eq!(one(&ctx, ROW).await, "1");
        let both = [
            row(["a", "1", "2", "x", "0.5"]),
            row(["o", "7", "", "old", ""]),
        ];
        assert_eq!(read().await, both);
        assert_eq!(
            one(&ctx, "SELECT chunk_start FROM qa WHERE chunk_start = 2").await,
            "2"
        );
        // Now it is as declared, in another order.
        let again = session();
        source
            .create_with(&again, "qa", "qa", &[CREATE])
            .await
            .unwrap();
        assert_eq!(one(&again, ROW).await, "1");
        let refused = source.create_with(&session(), "t", "qa", &[EVOLVE]).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("needs table.create"), "{refused}");
    }
}
