//! What a location means: odd names, patterns, what is left out, what is not there yet.

use std::sync::{Mutex, Once, PoisonError};

use datafusion::prelude::SessionContext;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::place::{Place, ask, create, number, session};

/// What was said to the user by all tests.
static SAID: Mutex<Vec<String>> = Mutex::new(vec![]);

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "casebook" && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
            said.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Notices from now on can be asked for with [`said`].
pub(super) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}

/// The notices about `about`.
pub(super) fn said(about: &str) -> Vec<String> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.iter()
        .filter(|text| text.contains(about))
        .cloned()
        .collect()
}

/// The ids of the table at `location`, or why there are none.
async fn ids(
    ctx: &SessionContext,
    format: &str,
    location: &str,
    options: &str,
) -> Result<String, String> {
    ask(ctx, "DROP TABLE IF EXISTS t").await?;
    create(ctx, "t", format, location, options).await?;
    let shown = ask(ctx, "SELECT id FROM t ORDER BY id").await?;
    let rows = shown.lines().skip(3);
    let ids = rows.filter_map(|line| line.strip_prefix('|')?.split_whitespace().next());
    Ok(ids.collect::<Vec<_>>().join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_whatever_its_name() {
    let place = Place::local();
    let ctx = session(2);
    for (i, name) in [
        "100%.csv",
        "_under.csv",
        "a b.csv",
        "a#b.csv",
        "a%20b.csv",
        "a=b.csv",
        "amp&.csv",
        "back\\slash.csv",
        "brace{1}.csv",
        "brace{1,2}.csv",
        "data[1].csv",
        "export (1).csv",
        "it's.csv",
        "plus+.csv",
        "q?.csv",
        "semi;.csv",
        "star*.csv",
        "tilde~.csv",
        "x@y.csv",
        "ünï.csv",
        "UPPER.CSV",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(format!("{}{name}", place.base), format!("id\n{i}\n")).unwrap();
        let at = format!("{}{}", place.base, name.replace('\'', "''"));
        assert_eq!(ids(&ctx, "CSV", &at, "").await, Ok(i.to_string()), "{name}");
        let relative = at.replacen('/', "/./", 1);
        assert_eq!(
            ids(&ctx, "CSV", &relative, "").await,
            Ok(i.to_string()),
            "{relative}"
        );
    }
    create(&ctx, "all", "CSV", &place.base, "").await.unwrap();
    // All but _under.csv, which is no data unless it is named.
    assert_eq!(number(&ctx, "SELECT count(*) FROM all").await, 20);
    let odd = format!("{}dir [2024] 50%#", place.base);
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(format!("{odd}/a.csv"), "id\n1\n").unwrap();
    for at in [
        odd.clone(),
        format!("{odd}/"),
        format!("{odd}/a.csv"),
        format!("{odd}/../100%.csv"),
    ] {
        assert!(ids(&ctx, "CSV", &at, "").await.is_ok(), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_match_as_in_the_shell() {
    for place in Place::all() {
        let ctx = session(2);
        for (path, id) in [
            ("a.csv", 1),
            ("2020/b.csv", 2),
            ("2021/01/c.csv", 3),
            ("B.CSV", 4),
        ] {
            if place.options.is_empty() {
                let folder = format!("{}g/{path}", place.base);
                let folder = std::path::Path::new(&folder).parent().unwrap();
                std::fs::create_dir_all(folder).unwrap();
            }
            place.put(&format!("g/{path}"), format!("id\n{id}\n")).await;
        }
        for (pattern, expected) in [
            ("*.csv", "1"),
            ("*.[cC][sS][vV]", "1 4"),
            ("*/*.csv", "2"),
            ("**/*.csv", "1 2 3"),
            ("20*/b.csv", "2"),
            ("2020/?.csv", "2"),
            ("[ab].csv", "1"),
            ("{a,B}.{csv,CSV}", ""),
            ("{a.csv,B.CSV}", "1 4"),
            ("{a,2020/b}.csv", "1 2"),
            ("*", "1 4"),
            ("*/", "2"),
            ("**/", "1 2 3 4"),
            ("202{0..1}/**/*.csv", "2 3"),
        ] {
            let at = format!("{}g/{pattern}", place.base);
            let found = ids(&ctx, "CSV", &at, &place.options).await;
            match expected {
                "" => assert!(
                    found.clone().is_err_and(|e| e.contains("no file matches")),
                    "{found:?}"
                ),
                expected => assert_eq!(found, Ok(expected.to_owned()), "{at}"),
            }
        }
        // Files that join later are read, too, and so is what a pattern lost.
        let at = format!("{}g/20*/b.csv", place.base);
        create(&ctx, "later", "CSV", &at, &place.options)
            .await
            .unwrap();
        if place.options.is_empty() {
            std::fs::create_dir_all(format!("{}g/2022", place.base)).unwrap();
        }
        place.put("g/2022/b.csv", "id\n9\n".to_owned()).await;
        assert_eq!(number(&ctx, "SELECT count(*) FROM later").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_with_a_dot_or_an_underscore_are_no_data() {
    for place in Place::all() {
        let ctx = session(2);
        for (id, path) in [
            "a.csv",
            "_b.csv",
            ".c.csv",
            "_SUCCESS",
            ".a.csv.crc",
            "a.csv~",
            "_temporary/0/d.csv",
            ".hidden/e.csv",
            "_delta_log/f.csv",
        ]
        .into_iter()
        .enumerate()
        {
            put_at(&place, &format!("n/{path}"), format!("id\n{id}\n")).await;
        }
        for (id, path) in ["_x=1/a.csv", "_x=2/_b.csv", "_x=2/b.csv", ".x=3/c.csv"]
            .into_iter()
            .enumerate()
        {
            put_at(&place, &format!("p/{path}"), format!("id\n{id}\n")).await;
        }
        put_at(&place, "none/_only.csv", "id\n1\n".to_owned()).await;
        for (location, expected) in [
            ("n/", "0"),
            ("n/*.csv", "0"),
            ("n/**/*.csv", "0"),
            ("n/_b.csv", "1"),
            ("n/.c.csv", "2"),
            ("n/_*.csv", "1"),
            ("n/[_a]*.csv", "0"),
            ("n/_temporary/0/", "6"),
            ("n/_temporary/*/*.csv", "6"),
            ("p/", "0 2"),
            ("p/*/", "0 2"),
            ("p/_x=2/", "2"),
            ("p/_x=*/*.csv", "0 2"),
        ] {
            let at = format!("{}{location}", place.base);
            let found = ids(&ctx, "CSV", &at, &place.options).await;
            assert_eq!(found, Ok(expected.to_owned()), "{at}");
        }
        let at = format!("{}p/", place.base);
        create(&ctx, "p", "CSV", &at, &place.options).await.unwrap();
        assert_eq!(
            number(&ctx, "SELECT count(*) FROM p WHERE \"_x\" = '2'").await,
            1
        );
        let at = format!("{}none/", place.base);
        let error = ids(&ctx, "CSV", &at, &place.options).await.unwrap_err();
        assert!(error.contains("_only.csv"), "{error}");
    }
}

async fn put_at(place: &Place, path: &str, text: String) {
    if place.options.is_empty() {
        let path = format!("{}{path}", place.base);
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    }
    place.put(path, text).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_back_is_named() {
    let place = Place::local();
    let ctx = session(1);
    put_at(&place, "l/a.csv", "id\n1\n".into()).await;
    let link = format!("{}l/again", place.base);
    std::os::unix::fs::symlink("../l", &link).unwrap();
    for location in ["l/", "l/*.csv", "l/**/*.csv"] {
        let at = format!("{}{location}", place.base);
        let error = ids(&ctx, "CSV", &at, "").await.unwrap_err();
        assert!(
            error.contains(&link) && error.contains("remove"),
            "{location}: {error}"
        );
    }
    let at = format!("{}l/a.csv", place.base);
    assert_eq!(ids(&ctx, "CSV", &at, "").await, Ok("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_nothing_is_an_error_when_read() {
    let place = Place::local();
    let ctx = session(1);
    std::fs::create_dir_all(format!("{}d/sub", place.base)).unwrap();
    let pattern = format!("{}d/*.csv", place.base);
    create(&ctx, "p (id BIGINT)", "CSV", &pattern, "")
        .await
        .unwrap();
    let error = ask(&ctx, "SELECT * FROM p").await.unwrap_err();
    assert!(error.contains("no file matches"), "{error}");
    let error = create(
        &ctx,
        "f (id BIGINT)",
        "CSV",
        &format!("{}d/f.csv", place.base),
        "",
    )
    .await;
    let error = error.unwrap_err();
    assert!(error.contains("there is no file"), "{error}");
    std::fs::write(format!("{}d/f.csv", place.base), "id\n1\n").unwrap();
    create(
        &ctx,
        "f (id BIGINT)",
        "CSV",
        &format!("{}d/f.csv", place.base),
        "",
    )
    .await
    .unwrap();
    assert_eq!(number(&ctx, "SELECT count(*) FROM f").await, 1);
    std::fs::remove_file(format!("{}d/f.csv", place.base)).unwrap();
    assert!(ask(&ctx, "SELECT * FROM f").await.is_err());
    // A directory and what table.create names have no rows yet; nothing is made of it.
    for (name, options) in [("a (id BIGINT)", ""), ("b", "'table.create' 'qa_pairs'")] {
        for format in ["CSV", "JSON", "PARQUET"] {
            let at = format!("{}new-{}/", place.base, name.len());
            ask(&ctx, &format!("DROP TABLE IF EXISTS {}", &name[..1]))
                .await
                .unwrap();
            create(&ctx, name, format, &at, options).await.unwrap();
            let sql = format!("SELECT count(*) FROM {}", &name[..1]);
            assert_eq!(number(&ctx, &sql).await, 0);
            ask(
                &ctx,
                &format!("EXPLAIN INSERT INTO {0} SELECT * FROM {0}", &name[..1]),
            )
            .await
            .unwrap();
            assert!(!std::path::Path::new(&at).exists());
        }
    }
    let insert = "INSERT INTO b VALUES ('a', 1, 'x')";
    assert_eq!(number(&ctx, insert).await, 1);
    assert_eq!(number(&ctx, "SELECT count(*) FROM b").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_named() {
    listen();
    let place = Place::local();
    let ctx = session(1);
    for (path, id) in [
        ("a.csv", 1),
        ("B.CSV", 2),
        ("c.txt", 3),
        ("_SUCCESS", 4),
        ("sub/d.csv", 5),
    ] {
        let path = format!("{}m/{path}", place.base);
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(path, format!("id\n{id}\n")).unwrap();
    }
    let at = format!("{}m", place.base);
    assert_eq!(ids(&ctx, "CSV", &at, "").await, Ok("1 2".to_owned()));
    let notices = said(&at);
    assert_eq!(notices.len(), 1, "{notices:?}");
    for part in ["c.txt", ".csv", "sub", "/**/*.csv"] {
        assert!(notices[0].contains(part), "{notices:?}");
    }
    assert!(!notices[0].contains("_SUCCESS"), "{notices:?}");
    // Later ones are named when they are there.
    std::fs::write(format!("{at}/later.dat"), "x").unwrap();
    ask(&ctx, "SELECT * FROM t").await.unwrap();
    assert!(said(&at).iter().any(|text| text.contains("later.dat")));
    std::fs::write(format!("{at}/z.csv.gz"), "x").unwrap();
    let error = ask(&ctx, "SELECT * FROM t").await.unwrap_err();
    assert!(
        error.contains("z.csv.gz is compressed in another way"),
        "{error}"
    );
    let error = ids(&ctx, "CSV", &at, "").await.unwrap_err();
    assert!(error.contains("several kinds"), "{error}");
    let error = ids(&ctx, "JSON", &at, "").await.unwrap_err();
    assert!(
        error.contains("no .json files") && error.contains("c.txt"),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_a_link() {
    let place = Place::local();
    let ctx = session(1);
    let (at, elsewhere) = (
        format!("{}t/", place.base),
        format!("{}elsewhere", place.base),
    );
    std::fs::create_dir(&at).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, format!("{at}_casebook")).unwrap();
    create(&ctx, "t (id BIGINT)", "JSON", &at, "")
        .await
        .unwrap();
    let error = ask(&ctx, "INSERT INTO t VALUES (1)").await.unwrap_err();
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
    for device in ["/dev/null", "/dev/zero"] {
        let error = create(&ctx, "d (id BIGINT)", "CSV", device, "")
            .await
            .unwrap_err();
        assert!(error.contains("neither a file nor a directory"), "{error}");
    }
}
