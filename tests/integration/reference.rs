//! What the documentation says of the connectors is generated from their list. Run the tests with
//! CASEBOOK_BLESS=1 to write it anew.

use std::path::Path;

use casebook_connectors::{connector_table, option_reference};

/// The text between `<!-- NAME` and `<!-- end -->` in `file` is `expected`.
fn check(file: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = text.find(&format!("<!-- {name}")).unwrap();
    let begin = begin + text[begin..].find('\n').unwrap() + 1;
    let end = begin + text[begin..].find("<!-- end -->").unwrap();
    if std::env::var("CASEBOOK_BLESS").is_ok_and(|bless| bless == "1") {
        let new = format!("{}{expected}{}", &text[..begin], &text[end..]);
        std::fs::write(&path, new).unwrap();
        return;
    }
    let hint = "out of date; run the tests with CASEBOOK_BLESS=1";
    assert_eq!(&text[begin..end], expected, "{file} {hint}");
}

#[test]
fn the_readme_lists_the_connectors() {
    check("README.md", "connectors", &connector_table());
}

#[test]
fn every_option_is_documented() {
    check("connectors/README.md", "options", &option_reference());
}

#[test]
fn every_option_of_training_is_documented() {
    check(
        "connectors/README.md",
        "training",
        &casebook::sinks::lora::reference(),
    );
}
