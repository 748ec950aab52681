//! A secret that comes from the environment or a file, put anywhere in casebook.toml and broken in
//! random ways: no command says it, or a part of it, in any writing, nor does a file that it leaves.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// Configurations that are tried; each runs every command.
const SEEDS: u64 = 40;
/// Of them at the same time.
const THREADS: usize = 8;
/// No piece of a secret of this length is shown.
const PIECE: usize = 8;

/// Counter-based random numbers, so that a failure names the seed that repeats it.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// As keys, passwords and paths of secrets look.
    fn secret(&mut self) -> String {
        let alphabet = self.of(&[
            "ABCDEFGHabcdefgh0123456789+/",
            "0123456789abcdef",
            "Zz9!$&'()*,;=:@%-_.~ä",
            "Zz9\"'\\{}[]#?%<>|^",
        ]);
        let alphabet: Vec<char> = alphabet.chars().collect();
        let length = 16 + self.below(20);
        let tail = (0..length).map(|_| alphabet[self.below(alphabet.len())]);
        format!("S3{}", tail.collect::<String>())
    }
}

const CONFIG: &str = r#"[session]
memory_limit = "4G"
[models.default]
source = "builtin:tiny"
device = "cpu"
dtype = "f32"
[models.other]
source = "builtin:tiny"
adapter = "adapter"
[connections.wh]
type = "snowflake"
account = "xy12345"
user = "CASEBOOK"
password = "x"
host = "http://127.0.0.1:9"
[connections.dbx]
type = "databricks"
host = "http://127.0.0.1:9"
token = "x"
[connections.lake]
type = "delta"
"aws.secret_access_key" = "x"
"aws.region" = "x"
[tables.cases]
format = "csv"
location = "cases.csv"
id = "id"
text = "text"
title = ["name"]
keep = ["court"]
options = { "format.delimiter" = "," }
[tables.far]
connection = "wh"
table = "LEGAL.PUBLIC.CASES"
[tables.farther]
connection = "dbx"
table = "a.b.c"
[tables.deep]
connection = "lake"
location = "deep/"
[tables.qa]
format = "delta"
location = "qa/"
options = { "table.create" = "qa_pairs", "write.key" = "qa_id" }
[tables.chat]
format = "chat_jsonl"
location = "chat.jsonl"
[tables.probes]
format = "csv"
location = "probes.csv"
[tables.tuned]
format = "lora"
location = "tuned/"
options = { "lora.rank" = "1", "lora.max_steps" = "1", "lora.model" = "default", "lora.mode" = "resume", "lora.with_document_share" = "0" }
[profiles.legal]
description = "for courts"
system = "You read court opinions."
focus = ["the holding"]
question_mode = "list"
[jobs.j]
source = "cases"
target = "qa"
model = "default"
profile = "legal"
output = "out"
arguments = { seed = "7", max_pairs_per_document = "1", "checks.ungrounded" = "false" }
[jobs.j.train]
target = "tuned"
also = "probes"
[jobs.j.compare]
probes = "probes"
html = "out/page.html"
"#;

/// [`CONFIG`] with one of its texts exchanged for one with a secret in it.
fn broken(random: &mut Random) -> String {
    let mut lines: Vec<String> = CONFIG.lines().map(str::to_owned).collect();
    let at = loop {
        let at = random.below(lines.len());
        if lines[at].contains(" = ") {
            break at;
        }
    };
    // The texts between quotes of the line, those before a = left out: they are keys.
    let marks: Vec<usize> = lines[at].match_indices('"').map(|(i, _)| i).collect();
    let texts: Vec<(usize, usize)> = marks
        .chunks_exact(2)
        .map(|pair| (pair[0] + 1, pair[1]))
        .filter(|(_, end)| !lines[at][end + 1..].starts_with(" ="))
        .collect();
    let (start, end) = texts[random.below(texts.len())];
    let old = lines[at][start..end].to_owned();
    let reference = random.of(&[
        "${env:SECRET}",
        "${file:secret.txt}",
        "${env:UNSET:-${env:SECRET}}",
    ]);
    let value = match random.below(10) {
        0 | 1 => reference.to_owned(),
        2 => format!("{reference}/x.csv"),
        3 => format!("down/{reference}/deeper/x.csv"),
        4 => format!("{old}{reference}"),
        5 => format!("{reference}{old}"),
        6 => format!("user:{reference}@host/x"),
        7 => format!("http://u:{reference}@127.0.0.1:9/x?sig={reference}"),
        8 => format!("s3://{reference}/x/*.csv"),
        _ => format!("http://127.0.0.1:9/{reference}/x.csv#{reference}"),
    };
    lines[at].replace_range(start..end, &value);
    match random.below(8) {
        0 => lines[at].push('"'),
        1 => lines[at] = lines[at].replacen('e', "", 1),
        2 => lines.insert(at, lines[at].clone()),
        3 => {
            let line = lines.remove(at);
            let to = random.below(lines.len());
            lines.insert(to, line);
        }
        _ => {}
    }
    lines.join("\n")
}

/// Every command that reads the configuration.
const COMMANDS: &[&[&str]] = &[
    &["check"],
    &["check", "--write"],
    &["run", "j", "--dry-run"],
    &["run", "j"],
    &["run", "j"],
    &["ask", "Who?", "--model", "tuned"],
    &["ask", "Who?", "--model", "other"],
    &["profiles"],
    &["profiles", "legal"],
    &["compare", "tuned", "--probes", "probes", "--html", "c.html"],
    &[
        "sql",
        "SHOW TABLES; SELECT * FROM information_schema.tables",
    ],
    &["sql", "EXPLAIN VERBOSE SELECT count(*) FROM cases"],
    &[
        "sql",
        "EXPLAIN SELECT id FROM docs_to_qa('cases', profile => 'legal')",
    ],
    &["sql", "SHOW CREATE TABLE cases; SELECT count(*) FROM deep"],
    &[
        "sql",
        "INSERT INTO chat VALUES ('a', 'b'); INSERT INTO chat VALUES ('a', 'b')",
    ],
    &[
        "sql",
        "EXPLAIN INSERT INTO tuned SELECT question, answer FROM probes",
    ],
    &["sql", "SELECT count(*) FROM far; SELECT 1"],
    &["sql", "SELECT count(*) FROM farther"],
    &["sql", "SELECT step FROM train_log('tuned')"],
    &[
        "sql",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '${env:SECRET}/a/${file:secret.txt}'; \
         SELECT * FROM t",
    ],
    &[
        "sql",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/x' OPTIONS ('aws.region' \
         '${env:SECRET}', 'aws.endpoint' 'http://127.0.0.1:9/${env:SECRET}', 'aws.allow_http' \
         '${env:SECRET}')",
    ],
];

/// `text` as it is, and with what URLs escape.
fn readings(text: &str) -> [Vec<u8>; 2] {
    let plain = text.to_ascii_lowercase().into_bytes();
    let mut decoded = vec![];
    let mut at = 0;
    while at < plain.len() {
        let code = text.get(at + 1..at + 3).filter(|_| plain[at] == b'%');
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                decoded.push(byte.to_ascii_lowercase());
                at += 3;
            }
            None => {
                decoded.push(plain[at]);
                at += 1;
            }
        }
    }
    [plain, decoded]
}

/// A piece of `secret` that `text` shows.
fn shown(text: &str, secret: &str) -> Option<String> {
    let secret = secret.to_ascii_lowercase().into_bytes();
    let readings = readings(text);
    let found = secret.windows(PIECE).find(|piece| {
        readings
            .iter()
            .any(|reading| reading.windows(PIECE).any(|part| part == *piece))
    });
    found.map(|piece| String::from_utf8_lossy(piece).into_owned())
}

/// The texts of the files that commands leave for people.
fn left(folder: &Path) -> String {
    let mut out = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            out += &left(&path);
        } else if name == "result.json" || name.ends_with(".html") {
            out += &std::fs::read_to_string(&path).unwrap();
        }
    }
    out
}

#[test]
fn no_command_says_a_secret_wherever_it_stands() {
    // Most of the time is spent waiting for servers that are not there.
    let next = AtomicU64::new(0);
    let worked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    worked.fetch_add(try_one(seed), Ordering::Relaxed);
                }
            });
        }
    });
    let worked = worked.into_inner();
    // A dry run of a job that a secret broke is refused like the job.
    assert!(worked > 40, "{worked}");
}

/// Tries one configuration; how many commands went well.
fn try_one(seed: u64) -> u64 {
    let mut random = Random(seed);
    let secret = random.secret();
    let toml = match seed {
        // Else the breaking hides what a valid file would say.
        0 => CONFIG.to_owned(),
        _ => broken(&mut random),
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("c.toml", &toml);
    file("secret.txt", &secret);
    file(
        "cases.csv",
        "id,text,name,court\nd1,It was held.,A v. B,C\n",
    );
    file("probes.csv", "question,answer\nWho held it?,the court\n");
    let mut worked = 0;
    for command in COMMANDS {
        let output = Command::new("timeout")
            .args([
                "300",
                env!("CARGO_BIN_EXE_casebook"),
                "--config",
                "c.toml",
                "-v",
            ])
            .args(*command)
            .env("SECRET", &secret)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said);
        let at = format!("seed {seed}, {command:?}, {secret}: {said}\n{toml}");
        assert_eq!(shown(&said, &secret), None, "{at}");
        assert!(!said.contains("panicked"), "{at}");
        worked += u64::from(output.status.success());
    }
    let left = left(dir.path());
    assert_eq!(shown(&left, &secret), None, "seed {seed}: {left}\n{toml}");
    worked
}
