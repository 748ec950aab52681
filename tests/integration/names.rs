//! Names of casebook.toml as SQL spells them.

use std::process::Command;

#[test]
fn a_table_is_found_in_any_case() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "\u{feff}[tables.Cases]\r\nformat = \"csv\"\r\nlocation = \"cases.csv\"\r\n";
    std::fs::write(dir.path().join("c.toml"), toml).unwrap();
    std::fs::write(dir.path().join("cases.csv"), "id,text\n1,It was held.\n").unwrap();
    // Byte order marks and line ends of Windows in both files.
    let sql = "\u{feff}SELECT id FROM Cases;\r\nSELECT id FROM cases; SELECT id FROM \"Cases\";\r\n\
               SELECT doc_id FROM docs_to_qa(Cases) LIMIT 0; SELECT doc_id FROM docs_to_qa('cases') \
               LIMIT 0; SHOW TABLES";
    std::fs::write(dir.path().join("q.sql"), sql).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_casebook"))
        .args([
            "--config", "c.toml", "sql", "-q", "-f", "q.sql", "--format", "csv",
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(text.matches("id\n1\n").count(), 3, "{text}");
    // Listed once, as it is written.
    assert!(
        text.contains("Cases") && !text.contains(",cases,"),
        "{text}"
    );
}
