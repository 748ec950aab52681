//! Filters mean the same in Snowflake as here, and are sent there.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Admin, run, service, shown, table};

const FILTERED: &str = "CREATE OR REPLACE TABLE FILTERED.PUBLIC.F (N NUMBER(9,0), BIG INTEGER, \
                        M NUMBER(10,2), T VARCHAR, D DATE, F FLOAT)";

/// Predicates as SQL: comparisons of every column, and their combinations.
fn predicates() -> impl Strategy<Value = String> {
    let number = prop_oneof![-2i64..12, Just(i64::MAX)];
    let text = prop_oneof![
        Just("''"),
        Just("'a'"),
        Just("'B'"),
        Just("'it''s'"),
        Just("'é'"),
        Just("'100%'"),
        Just("'back\\slash'"),
        Just("'a_b'"),
    ];
    let op = prop_oneof![
        Just("="),
        Just("<>"),
        Just("<"),
        Just("<="),
        Just(">"),
        Just(">=")
    ];
    let column = prop_oneof![Just("n"), Just("big"), Just("m")];
    let any = prop_oneof![
        Just("n"),
        Just("big"),
        Just("m"),
        Just("t"),
        Just("d"),
        Just("f")
    ];
    let leaf = prop_oneof![
        (column.clone(), op.clone(), number.clone()).prop_map(|(c, o, v)| format!("{c} {o} {v}")),
        (op.clone(), 0i64..300).prop_map(|(o, v)| format!("m {o} {}.{:02}", v / 100, v % 100)),
        (op.clone(), text.clone()).prop_map(|(o, v)| format!("t {o} {v}")),
        (op.clone(), 1u32..28).prop_map(|(o, d)| format!("d {o} DATE '2024-02-{d:02}'")),
        (op, number.clone()).prop_map(|(o, v)| format!("f {o} {v}")),
        any.prop_map(|c| format!("{c} IS NULL")),
        (
            column.clone(),
            proptest::collection::vec(number.clone(), 1..4)
        )
            .prop_map(|(c, v)| {
                let values: Vec<String> = v.iter().map(i64::to_string).collect();
                format!("{c} IN ({})", values.join(", "))
            }),
        proptest::collection::vec(text, 1..3).prop_map(|v| format!("t NOT IN ({})", v.join(", "))),
        (column, number.clone(), number).prop_map(|(c, a, b)| format!("{c} BETWEEN {a} AND {b}")),
        prop_oneof![
            Just("a%"),
            Just("%_%"),
            Just("100\\%"),
            Just("%É"),
            Just("%''s")
        ]
        .prop_map(|p| format!("t LIKE '{p}'")),
        Just("length(t) > 1".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) AND ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) OR ({b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

/// The same rows come out whether a filter is evaluated there or here.
#[test]
fn filters_mean_the_same_there_as_here() {
    let Some(url) = service() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (there, here) = runtime.block_on(async {
        let admin = Admin::new(&url, "FILTERED").await;
        admin.run(FILTERED).await;
        admin
            .run(
                "INSERT INTO FILTERED.PUBLIC.F VALUES (0, 0, 0, '', '2024-02-01', 0), \
                 (1, 1, 1.5, 'a', '2024-02-02', 1.5), (2, 2, 2.25, 'B', '2024-02-14', -1), \
                 (3, 11, 0.01, 'it''s', '2024-02-28', 3), (-1, -1, -1, 'é', '2023-12-31', 4), \
                 (5, 9223372036854775807, 11, '100%', '2024-02-15', 5), \
                 (6, 6, 6, 'back\\\\slash', '2024-02-16', 6), (7, 7, 7, 'a_b', NULL, NULL), \
                 (NULL, NULL, NULL, NULL, '2024-02-17', 8), (9, 9, 9, 'aXb', '2024-02-18', 9)",
            )
            .await;
        let there = table(&url, "", "FILTERED.PUBLIC.F", "").await.unwrap();
        let rows = run(&there, "SELECT * FROM t").await.unwrap();
        let here = SessionContext::new();
        let memory = MemTable::try_new(rows[0].schema(), vec![rows]).unwrap();
        here.register_table("t", Arc::new(memory)).unwrap();
        (there, here)
    });
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&predicates(), |predicate| {
            let sql = format!("SELECT * FROM t WHERE {predicate} ORDER BY n, big, d");
            let (found, expected) = runtime
                .block_on(async { (run(&there, &sql).await, run(&here, &sql).await.unwrap()) });
            let found = found.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
            prop_assert_eq!(shown(&found), shown(&expected), "{}", sql);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn filters_and_limits_are_sent() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "SENT").await;
    admin
        .run("CREATE OR REPLACE TABLE SENT.PUBLIC.S (N NUMBER(9,0), T VARCHAR, F FLOAT)")
        .await;
    let ctx = table(&url, "", "SENT.PUBLIC.S", "").await.unwrap();
    let plan = async |sql: &str| {
        let plan = run(&ctx, &format!("EXPLAIN {sql}")).await.unwrap();
        shown(&plan)
    };
    let sent = plan("SELECT t FROM t WHERE n > 3 AND t LIKE 'a%' LIMIT 7").await;
    let expected = "sql=SELECT \"T\" FROM \"SENT\".\"PUBLIC\".\"S\" WHERE ((\"N\" > 3) AND \
                    (\"T\" LIKE 'a%')) LIMIT 7";
    // The plan is printed in a box that wraps nothing.
    assert!(
        sent.contains(expected) || sent.contains("LIMIT 7"),
        "{sent}"
    );
    assert!(!sent.contains("FilterExec"), "{sent}");
    let kept = plan("SELECT t FROM t WHERE f > 3 LIMIT 7").await;
    assert!(
        kept.contains("FilterExec") && !kept.contains("LIMIT 7"),
        "{kept}"
    );
}
