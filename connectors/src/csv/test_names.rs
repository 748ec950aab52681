//! Columns go by their names, in every file of a table, and nulls and empty texts stay apart.

use std::fs;

use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use super::test_session::{ask, session};

struct Folder(TempDir, SessionContext);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap(), session());
        for (name, text) in files {
            folder.put(name, text);
        }
        folder
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Makes the table `t` of the file or folder `name`.
    async fn create(&self, columns: &str, name: &str, options: &str) -> Result<String, String> {
        ask(&self.1, "DROP TABLE IF EXISTS t").await?;
        let at = self.at(name);
        let sql =
            format!("CREATE EXTERNAL TABLE t {columns} STORED AS CSV LOCATION '{at}' {options}");
        ask(&self.1, &sql).await
    }

    async fn ask(&self, sql: &str) -> Result<String, String> {
        ask(&self.1, sql).await
    }

    /// What is in the table `t` of the file or folder `name`.
    async fn rows(&self, columns: &str, name: &str, options: &str) -> Result<String, String> {
        self.create(columns, name, options).await?;
        self.ask("SELECT * FROM t").await
    }
}

#[tokio::test]
async fn declared_columns_are_found_in_the_header() {
    let folder = Folder::new(&[("in.csv", "id,title,text\n1,Smith,affirmed\n")]);
    let rows = |columns| folder.rows(columns, "in.csv", "");
    let swapped = rows("(id VARCHAR, text VARCHAR, title VARCHAR)").await;
    assert_eq!(swapped.unwrap(), "1|affirmed|Smith");
    assert_eq!(
        rows("(text VARCHAR, id BIGINT)").await.unwrap(),
        "affirmed|1"
    );
    assert_eq!(
        rows("(\"ID\" BIGINT, \"Text\" VARCHAR)").await.unwrap(),
        "1|affirmed"
    );
    let error = rows("(id VARCHAR, name VARCHAR, body VARCHAR)")
        .await
        .unwrap_err();
    for part in ["in.csv", "it has no name, body", "id, title, text"] {
        assert!(error.contains(part), "{error}");
    }
    // Whatever is asked of it.
    let error = folder.ask("SELECT count(*) FROM t").await.unwrap_err();
    assert!(error.contains("it has no name, body"), "{error}");
    let short = folder.rows(
        "(id BIGINT, court VARCHAR)",
        "in.csv",
        "OPTIONS ('truncated_rows' 'true')",
    );
    assert_eq!(short.await.unwrap(), "1|~");
}

#[tokio::test]
async fn every_file_of_a_folder_is_matched() {
    let files = [("d/a.csv", "id,text\n1,x\n"), ("d/b.csv", "Text,Id\ny,2\n")];
    for columns in ["", "(text VARCHAR, id VARCHAR)"] {
        let folder = Folder::new(&[]);
        fs::create_dir(folder.at("d")).unwrap();
        for (name, text) in files {
            folder.put(name, text);
        }
        folder.create(columns, "d/", "").await.unwrap();
        let query = "SELECT id, text FROM t ORDER BY id";
        assert_eq!(folder.ask(query).await.unwrap(), "1|x/2|y");
        // One that joins later, with the columns in another order, and one that lacks some.
        folder.put("d/c.csv", "text,id\nz,3\n");
        assert_eq!(folder.ask(query).await.unwrap(), "1|x/2|y/3|z");
        folder.put("d/d.csv", "id,body\n4,w\n");
        let error = folder.ask("SELECT count(*) FROM t").await.unwrap_err();
        assert!(
            error.contains("d.csv") && error.contains("it has no text"),
            "{error}"
        );
        fs::remove_file(folder.at("d/d.csv")).unwrap();
        // One with a column more, which nobody declared.
        folder.put("d/e.csv", "id,text,note\n5,v,n\n");
        let more = folder.ask(query).await;
        match columns.is_empty() {
            true => assert!(more.unwrap_err().contains("note is not in the table")),
            false => assert_eq!(more.unwrap(), "1|x/2|y/3|z/5|v"),
        }
    }
}

#[tokio::test]
async fn files_that_differ_are_named_when_the_table_is_made() {
    let folder = Folder::new(&[]);
    fs::create_dir(folder.at("d")).unwrap();
    folder.put("d/a.csv", "id,text\n1,x\n");
    folder.put("d/b.csv", "id,body\n2,y\n");
    let error = folder.create("", "d/", "").await.unwrap_err();
    for part in ["b.csv", "it has no text", "body is not in the table"] {
        assert!(error.contains(part), "{error}");
    }
    let union = "OPTIONS ('truncated_rows' 'true')";
    folder.create("", "d/", union).await.unwrap();
    let rows = folder.ask("SELECT id, text, body FROM t ORDER BY id").await;
    assert_eq!(rows.unwrap(), "1|x|~/2|~|y");
}

#[tokio::test]
async fn headers_that_programs_write_are_usable() {
    let folder = Folder::new(&[
        ("index.csv", ",id,text\n0,a,one\n"),
        ("trailing.csv", "id,text,\na,one,\nb,two\n"),
        ("lost.csv", "id,text,\na,one,two\nb,two\n"),
        ("twice.csv", "id,date,text,date\n1,2020,x,2021\n"),
        ("x.tsv", "id\ttext\n1\ta, b\n"),
    ]);
    let rows = |name| folder.rows("", name, "");
    assert_eq!(rows("index.csv").await.unwrap(), "0|a|one");
    assert_eq!(folder.ask("SELECT column_1 FROM t").await.unwrap(), "0");
    let named = folder.rows("(n BIGINT, id VARCHAR, text VARCHAR)", "index.csv", "");
    assert_eq!(named.await.unwrap(), "0|a|one");
    assert_eq!(rows("trailing.csv").await.unwrap(), "a|one/b|two");
    let error = rows("lost.csv").await.unwrap_err();
    assert!(error.contains("3 cells, the header 2"), "{error}");
    let error = folder
        .rows("", "lost.csv", "OPTIONS ('has_header' 'false')")
        .await
        .unwrap_err();
    assert!(error.contains("2 cells, the table 3"), "{error}");
    assert_eq!(rows("twice.csv").await.unwrap(), "1|2020|x|2021");
    assert_eq!(folder.ask("SELECT date_2 FROM t").await.unwrap(), "2021");
    assert_eq!(rows("x.tsv").await.unwrap(), "1|a, b");
    let typed = folder
        .rows("", "x.tsv", "OPTIONS ('delimiter' '\\t')")
        .await;
    assert_eq!(typed.unwrap(), "1|a, b");
    let said = folder.rows("", "x.tsv", "OPTIONS ('delimiter' ',')").await;
    assert!(said.unwrap_err().contains("2 cells"));
    let error = folder
        .create("", "x.tsv", "OPTIONS ('delimiter' '||')")
        .await
        .unwrap_err();
    assert!(error.contains("one ASCII character"), "{error}");
    let error = folder
        .create("", "x.tsv", "OPTIONS ('delimitr' ';')")
        .await
        .unwrap_err();
    assert!(
        error.contains("Did you mean 'format.delimiter'?"),
        "{error}"
    );
}

#[tokio::test]
async fn styles_of_other_programs_are_read() {
    let folder = Folder::new(&[
        (
            "pg.csv",
            "id,html\n\"1\",\"<a href=\\\"#\\\" x=\\\"1,2\\\">\"\n\"2\",\"C:\\\\new\"\n\"3\",\"end \\\\\"\n",
        ),
        (
            "spark.csv",
            "id,text\n1,\"\\section{A}, \\\"no\\\"\"\n2,\"C:\\new, x\"\n3,C:\\new\n",
        ),
        (
            "mysql.csv",
            "\"id\",\"text\"\n\"1\",\"he said \\\"no\\\"\"\n\"2\",\\N\n\"3\",\"a\\\nb\"\n",
        ),
    ]);
    let expected = [
        ("pg.csv", "1|<a href=\"#\" x=\"1,2\">/2|C:\\new/3|end \\"),
        ("spark.csv", "1|\\section{A}, \"no\"/2|C:\\new, x/3|C:\\new"),
        ("mysql.csv", "1|he said \"no\"/2|~/3|a\nb"),
    ];
    for (name, rows) in expected {
        let error = folder.rows("", name, "").await.unwrap_err();
        assert!(error.contains("('format.escape' '\\')"), "{name}: {error}");
        let read = folder.rows("", name, "OPTIONS ('escape' '\\')").await;
        assert_eq!(read.unwrap(), rows, "{name}");
    }
}

#[tokio::test]
async fn an_insert_is_read_back_and_a_key_may_be_empty() {
    let folder = Folder::new(&[]);
    for (name, options, key) in [
        ("plain", "", ""),
        ("escape", "'escape' '\\', ", ""),
        ("null", "'null_value' 'NULL', ", ""),
        ("formulas", "'csv.escape_formulas' 'true', ", ""),
        ("gz", "'compression' 'gzip', ", ""),
        ("key", "", "'write.key' 'id', "),
        (
            "formulas_key",
            "'csv.escape_formulas' 'true', ",
            "'write.key' 'id', ",
        ),
    ] {
        fs::create_dir(folder.at(name)).unwrap();
        let options = format!("OPTIONS ({options}{key}'has_header' 'true')");
        let at = format!("{name}/");
        folder
            .create("(id VARCHAR, text VARCHAR)", &at, &options)
            .await
            .unwrap();
        let insert = "INSERT INTO t VALUES ('', NULL), ('1', ''), ('=2', 'C:\\new \"x\"'), \
                      ('3', 'NULL'), ('4', '\\N'), ('5', 'a,b\\')";
        assert_eq!(folder.ask(insert).await.unwrap(), "6", "{name}");
        let again = folder.ask(insert).await.unwrap();
        assert_eq!(again, if key.is_empty() { "6" } else { "0" }, "{name}");
        let rows = folder
            .ask("SELECT DISTINCT id, text FROM t ORDER BY id")
            .await;
        let expected = "|~/1|/3|NULL/4|\\N/5|a,b\\/=2|C:\\new \"x\"";
        assert_eq!(rows.unwrap(), expected, "{name}");
    }
    fs::create_dir(folder.at("one")).unwrap();
    folder.create("(text VARCHAR)", "one/", "").await.unwrap();
    folder
        .ask("INSERT INTO t VALUES (NULL), (''), ('x'), (NULL)")
        .await
        .unwrap();
    assert_eq!(folder.ask("SELECT * FROM t").await.unwrap(), "~//x/~");
    fs::create_dir(folder.at("tabs")).unwrap();
    folder.put("tabs/a.tsv", "id\ttext\n1\tx\n");
    folder.create("", "tabs/", "").await.unwrap();
    folder
        .ask("INSERT INTO t VALUES ('2', 'a,b')")
        .await
        .unwrap();
    let rows = folder.ask("SELECT * FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, "1|x/2|a,b");
}

#[tokio::test]
async fn a_copy_is_whole_or_not_there() {
    let folder = Folder::new(&[]);
    let at = folder.at("out.csv");
    let copy = |query: &str, at: &str| format!("COPY ({query}) TO '{at}' STORED AS CSV");
    folder
        .ask(&copy("SELECT 1 AS a WHERE false", &at))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(&at).unwrap(), "a\n");
    let tabs = folder.at("out.tsv");
    folder
        .ask(&copy("SELECT 'a,b' AS a, '' AS b, NULL AS c", &tabs))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(&tabs).unwrap(), "a\tb\tc\na,b\t\"\"\t\n");
    let bad = folder.at("bad.csv");
    let fails = "SELECT CAST(CASE WHEN value < 90000 THEN '1' ELSE 'x' END AS INT) AS a \
                 FROM generate_series(1, 100000)";
    folder.ask(&copy(fails, &bad)).await.unwrap_err();
    assert!(!fs::exists(&bad).unwrap());
    let error = folder
        .ask(&copy("SELECT [1, 2] AS a", &bad))
        .await
        .unwrap_err();
    assert!(
        error.contains("column a has type") && !fs::exists(&bad).unwrap(),
        "{error}"
    );
}
