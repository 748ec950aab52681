//! What is sent to the system selects the rows that we would select.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, StringViewArray,
};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::{Source, session, shown};

/// Texts that collations, quoting and LIKE treat in ways of their own.
const TEXTS: &[&str] = &[
    "a", "A", "ž", "a ", "", "a'b", "a\\b", "%", "_x", "NULL", "b\"c", "é",
];
const ROWS: usize = 60;

fn text(i: usize) -> Option<&'static str> {
    (!i.is_multiple_of(7)).then(|| TEXTS[i * 5 % TEXTS.len()])
}

fn number(i: usize) -> Option<i32> {
    (!i.is_multiple_of(11)).then_some(i as i32 % 9 - 4)
}

/// Days from 2026-01-01, and hundredths.
fn day(i: usize) -> Option<i32> {
    (!i.is_multiple_of(5)).then_some(20_454 + i as i32 % 4)
}

fn rows() -> RecordBatch {
    let range = 0..ROWS;
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(
        range.clone().map(|i| i as i32),
    ));
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter(range.clone().map(number)));
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter(range.clone().map(text)));
    let days: ArrayRef = Arc::new(Date32Array::from_iter(range.clone().map(day)));
    let money = Decimal128Array::from_iter(range.map(|i| number(i).map(|n| i128::from(n) * 25)));
    let money: ArrayRef = Arc::new(money.with_precision_and_scale(8, 2).unwrap());
    let columns = [
        ("id", ids),
        ("n", numbers),
        ("t", texts),
        ("d", days),
        ("m", money),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A random predicate of SQL.
fn predicate() -> impl Strategy<Value = String> {
    let compare = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let quoted = prop::sample::select(TEXTS).prop_map(|t| format!("'{}'", t.replace('\'', "''")));
    let number = (compare.clone(), -5..5).prop_map(|(op, n)| format!("n {op} {n}"));
    let money =
        (compare.clone(), -5..5).prop_map(|(op, n)| format!("m {op} {}", f64::from(n) * 0.25));
    let day = (compare.clone(), 1..5).prop_map(|(op, d)| format!("d {op} DATE '2026-01-0{d}'"));
    let words = (compare, quoted.clone()).prop_map(|(op, t)| format!("t {op} {t}"));
    let list = (prop::collection::vec(quoted.clone(), 1..4), any::<bool>())
        .prop_map(|(l, not)| format!("t {}IN ({})", if not { "NOT " } else { "" }, l.join(", ")));
    let like = quoted.prop_map(|t| format!("t LIKE {t}"));
    let null = prop::sample::select(vec!["n IS NULL", "t IS NOT NULL", "d IS NULL"]);
    let between = (-5..5, 0..4).prop_map(|(a, b)| format!("n BETWEEN {a} AND {}", a + b));
    let leaf = prop_oneof![
        number,
        money,
        day,
        words,
        list,
        like,
        null.prop_map(str::to_owned),
        between
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

/// One session with the rows in memory as `here`, and in each source.
static SESSION: LazyLock<(SessionContext, Vec<(String, Source)>)> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let ctx = session();
        let batch = rows();
        let here = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        ctx.register_table("here", Arc::new(here)).unwrap();
        let mut names = vec![];
        for (i, source) in Source::all("filters").into_iter().enumerate() {
            let table = source.table("there");
            source.run(&format!(
                "CREATE TABLE {table} (id int, n int, t text, d date, m numeric(8,2))"
            ));
            let name = format!("there{i}");
            source.create_with(&ctx, &name, "there", &[]).await.unwrap();
            let insert = format!("INSERT INTO {name} SELECT * FROM here");
            ctx.sql(&insert).await.unwrap().collect().await.unwrap();
            names.push((name, source));
        }
        (ctx, names)
    })
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn filters_select_the_same_rows_there(predicate in predicate()) {
        let (ctx, names) = &*SESSION;
        RUNTIME.block_on(async {
            let select = |table: &str| format!("SELECT id FROM {table} WHERE {predicate} ORDER BY id");
            let here = shown(ctx, &select("here")).await;
            for (name, source) in names {
                let there = shown(ctx, &select(name)).await;
                assert_eq!(here, there, "{predicate} in {}", source.connection);
            }
        });
    }
}

#[tokio::test]
async fn what_is_sent_is_shown() {
    let Some(source) = Source::postgres("sent") else {
        return;
    };
    source.run("CREATE TABLE sent.t (id int, body text, j jsonb, c char(5), u uuid)");
    source.run(
        "INSERT INTO sent.t SELECT g, 'b' || g, '{}', 'ab', null FROM generate_series(1, 9) g",
    );
    let ctx = session();
    source.create(&ctx, "t").await;
    source
        .create_with(&ctx, "u", "t", &[("odbc.dialect", "standard")])
        .await
        .unwrap();
    let check = async |sql: &str, expected: &str, rows: usize| {
        let plan = shown(&ctx, &format!("EXPLAIN {sql}")).await;
        assert!(plan.contains(expected), "{expected}\n{plan}");
        let found = super::batches(&ctx, sql)
            .await
            .iter()
            .map(|b| b.num_rows())
            .sum::<usize>();
        assert_eq!(found, rows, "{sql}");
    };
    let from = "FROM \"sent\".\"t\"";
    check(
        "SELECT body FROM t",
        &format!("sql=SELECT \"body\" {from} "),
        9,
    )
    .await;
    check(
        "SELECT id FROM t WHERE body = 'b3' LIMIT 5",
        &format!("sql=SELECT \"id\" {from} WHERE (\"body\" = 'b3') LIMIT 5"),
        1,
    )
    .await;
    check(
        "SELECT id FROM t LIMIT 4",
        &format!("{from} LIMIT 4, rows=4"),
        4,
    )
    .await;
    // No LIMIT is certain there; reading stops all the same.
    check("SELECT id FROM u LIMIT 4", &format!("{from}, rows=4"), 4).await;
    // Types that only look like texts are compared here.
    check("SELECT id FROM t WHERE j = '{}'", &format!("{from} "), 9).await;
    check("SELECT id FROM t WHERE c = 'ab   '", &format!("{from} "), 9).await;
    check("SELECT id FROM t WHERE c = 'ab'", &format!("{from} "), 0).await;
    check("SELECT id FROM t WHERE u IS NULL", "WHERE \"u\" IS NULL", 9).await;
    assert_eq!(
        super::one(&ctx, "SELECT count(*) FROM t WHERE id > 3").await,
        "6"
    );
}
