//! Properties of the configuration: nothing panics, and no secret comes out, however it is broken.

use std::path::Path;

use proptest::prelude::*;

use super::{Config, Hidden, fill_text};

/// Counter-based random numbers, so that a failure names the seed that repeats it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A whole configuration, of which every text is somebody's idea of a place for a password.
const LINES: &[&str] = &[
    "[models.default]",
    "source = \"builtin:tiny\"",
    "device = \"cpu\"",
    "[connections.wh]",
    "type = \"snowflake\"",
    "account = \"xy12345\"",
    "user = \"CASEBOOK\"",
    "password = \"x\"",
    "host = \"http://127.0.0.1:9\"",
    "prefetch_bytes = \"1000000\"",
    "[connections.db]",
    "type = \"databricks\"",
    "host = \"https://dbc.example\"",
    "token = \"x\"",
    "read_timeout_secs = \"60\"",
    "[connections.sql]",
    "type = \"odbc\"",
    "connection_string = \"Driver={X};Uid=bob;Pwd=x\"",
    "[connections.lake]",
    "type = \"delta\"",
    "aws = { secret_access_key = \"x\", region = \"r\" }",
    "[tables.cases]",
    "format = \"csv\"",
    "location = \"cases.csv\"",
    "id = \"id\"",
    "title = [\"name\"]",
    "options = { \"csv.batch_bytes\" = \"1000\", \"format.delimiter\" = \",\" }",
    "[tables.far]",
    "connection = \"lake\"",
    "table = \"s3://bucket/x\"",
    "[tables.qa]",
    "format = \"csv\"",
    "location = \"http://bob:x@127.0.0.1:9/qa.csv?sig=x\"",
    "options = { table = { create = \"qa_pairs\" }, write = { key = \"qa_id\" } }",
    "[tables.tuned]",
    "format = \"lora\"",
    "location = \"tuned/\"",
    "[profiles.legal]",
    "description = \"for courts\"",
    "question_mode = \"list\"",
    "[jobs.j]",
    "source = \"cases\"",
    "target = \"qa\"",
    "model = \"default\"",
    "arguments = { seed = \"7\" }",
    "output = \"out\"",
    "train = { target = \"tuned\" }",
];

/// Keys of texts that a message may show where they are typed, because they name something.
const NAMES: &[&str] = &[
    "id =",
    "title =",
    "table =",
    "model =",
    "location =",
    "output =",
];

/// `LINES` with the value of one line exchanged for `secret`, in one of the ways in which a line
/// goes wrong.
fn broken(random: &mut Random, secret: &str) -> String {
    let mut lines: Vec<String> = LINES.iter().map(|line| (*line).to_owned()).collect();
    let is_reference = random.below(3) == 0;
    let at = loop {
        let at = random.below(lines.len());
        let named = NAMES.iter().any(|name| lines[at].starts_with(name));
        if lines[at].contains('"') && (is_reference || !named) {
            break at;
        }
    };
    let quoted: Vec<(usize, usize)> = {
        let marks: Vec<usize> = lines[at].match_indices('"').map(|(i, _)| i).collect();
        marks
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect()
    };
    // In an inline table the first texts can be keys, which are names.
    let (open, close) = quoted[quoted.len() - 1];
    let (key, rest) = (
        lines[at][..open].to_owned(),
        lines[at][close + 1..].to_owned(),
    );
    let reference = "${env:SECRET}".to_owned();
    let value = match is_reference {
        true => reference.as_str(),
        false => secret,
    };
    let ways = [
        format!("{key}\"{value}\"{rest}"),
        format!("{key}\"{value}{rest}"),
        format!("{key}{value}\"{rest}"),
        format!("{key}{value}{rest}"),
        format!("{key}'{value}\"{rest}"),
        format!("{key}\"\"\"{value}\"{rest}"),
        format!("{key}[\"{value}\"]{rest}"),
        format!("{key}[\"{value}\"{rest}"),
        format!("{key}{{ a = \"{value}\" }}{rest}"),
        format!("{key}{{ \"x\".b = \"{value}\"{rest}"),
        format!("{key}\"{value}\\q\"{rest}"),
        format!("{key}\"\\u12{value}\"{rest}"),
        format!("{key}12\"{value}\"{rest}"),
        format!("{key}\"${{{value}}}\"{rest}"),
        format!("{key}\"${{env:UNSET:-{value}\"{rest}"),
        format!("{key}\"${{env:UNSET:-{value}}}\"{rest}"),
        format!("{key}\"http://u:{value}@127.0.0.1:9/x?sig={value}\"{rest}"),
        format!("{key}\"{value}\" \"{value}\"{rest}"),
        format!("{key}= \"{value}\"{rest}"),
        format!("  \"{value}\"{rest}"),
    ];
    lines[at] = ways[random.below(ways.len())].clone();
    match random.below(6) {
        // The same line again, or in another section.
        0 => lines.insert(at + 1, lines[at].clone()),
        1 => {
            let line = lines.remove(at);
            let to = random.below(lines.len() + 1);
            lines.insert(to, line);
        }
        2 => {
            let typo = lines[at].replacen(['a', 'e', 'o'], "", 1);
            lines[at] = typo;
        }
        _ => {}
    }
    let mut text = lines.join("\n");
    if random.below(3) == 0 {
        let mut cut = |text: &str| {
            let mut at = random.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let at = cut(&text);
        let part = random.of::<str>(&[
            "", "\"", "'", "\\", "[", "]", "{", "}", "=", "\n", ".", "#", ",",
        ]);
        text.insert_str(at, part);
    }
    text
}

/// Everything that can be said of what became of `text`.
fn said(text: &str, secret: &str) -> String {
    let environment = |name: &str| (name == "SECRET").then(|| secret.to_owned());
    match Config::parse(Path::new("casebook.toml"), text, &environment) {
        Err(error) => {
            let mut out = format!("{error} {error:?}");
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                out.push_str(&cause.to_string());
                next = cause.source();
            }
            out
        }
        Ok(config) => {
            let mut out = format!("{config:?}");
            for name in config.table_names() {
                let request = config.check_request(name).unwrap();
                let place = config.place(name, &config.raw.tables[name]);
                let places = format!("{request:?} {place:?}");
                // Locations are shown, without what was filled in.
                out.push_str(&match text.contains("${env:SECRET}") {
                    true => config.hidden().out_of(&places),
                    false => places,
                });
            }
            out
        }
    }
}

#[test]
fn a_secret_anywhere_broken_anyhow_is_never_said() {
    assert!(
        said(&LINES.join("\n"), "").starts_with("Config"),
        "{}",
        said(&LINES.join("\n"), "")
    );
    let mut valid = 0;
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let length = 8 + random.below(20);
        let alphabet: Vec<&str> = "abcXYZ0189+/=!@%^&*_-äß"
            .split("")
            .filter(|c| !c.is_empty())
            .collect();
        let tail: String = (0..length).map(|_| random.of(&alphabet)).collect();
        let secret = format!("S3{tail}");
        let text = broken(&mut random, &secret);
        let out = said(&text, &secret);
        assert!(!out.contains(&secret), "seed {seed}: {out}\n{text}");
        valid += usize::from(out.starts_with("Config"));
    }
    // Else the breaking hides what a valid file would say.
    assert!(valid > 500, "{valid}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Config::parse(Path::new("c.toml"), &text, &|_| None);
    }

    #[test]
    fn anything_like_toml_is_read_or_refused(
        parts in prop::collection::vec(prop_oneof![
            prop::sample::select(LINES.to_vec()).prop_map(str::to_owned),
            "[\\[\\]{}=\"'.,#\\\\ \n\t0-9a-z$:-]{0,12}",
            any::<i64>().prop_map(|n| format!("error_budget = {n}")),
            any::<f64>().prop_map(|n| format!("error_budget = {n:?}")),
        ], 0..30)
    ) {
        let _ = Config::parse(Path::new("c.toml"), &parts.join("\n"), &|_| Some(String::new()));
    }

    #[test]
    fn filling_never_panics_and_leaves_plain_text(text in "[$ae{}:\\-nvfil/ ]{0,60}") {
        let environment = |name: &str| (name == "a").then(|| "A".to_owned());
        let hidden = Hidden::default();
        let filled = fill_text("x", &text, Path::new("/nowhere"), &environment, &hidden);
        if !text.contains("${") {
            prop_assert_eq!(filled.as_deref(), Ok(text.as_str()));
        }
        // Escaped, any text is itself.
        let escaped = text.replace("${", "$${");
        let filled = fill_text("x", &escaped, Path::new("/nowhere"), &environment, &hidden);
        prop_assert_eq!(filled.as_deref(), Ok(text.as_str()));
    }

    #[test]
    fn a_value_is_put_in_as_it_is(value in any::<String>(), around in "[a-z {}\"\\[=\n]{0,8}") {
        let environment = |name: &str| (name == "X").then(|| value.clone());
        let hidden = Hidden::default();
        let fill = |text: &str| fill_text("x", text, Path::new(""), &environment, &hidden);
        let text = format!("{around}${{env:X}}{around}");
        prop_assert_eq!(fill(&text), Ok(format!("{around}{value}{around}")));
        let expected = if value.is_empty() { "d" } else { value.as_str() };
        prop_assert_eq!(fill("${env:X:-d}"), Ok(expected.to_owned()));
        prop_assert_eq!(fill("${env:Y:-${env:X:-d}}"), Ok(expected.to_owned()));
    }
}
