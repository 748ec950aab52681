//! Every key of every section has an effect: with it, a configuration comes to something else.

use std::collections::BTreeSet;
use std::path::Path;

use super::Config;
use super::raw::{RawCompare, RawJob, RawModel, RawRemote, RawSession, RawTable, RawTrain};

/// Sections with all that they need and nothing else; `KEYS` stands where a key is added.
const SESSION: &str = "[session]\nKEYS";
const MODEL: &str = "[models.m]\nsource = \"builtin:tiny\"\nKEYS";
const REMOTE: &str = "[models.m]\nsource = \"openai:https://h/v1\"\nmodel = \"m\"\nKEYS";
const TABLE: &str = "[tables.t]\nformat = \"csv\"\nlocation = \"a.csv\"\nKEYS";
const LINKED: &str = "[connections.c]\ntype = \"delta\"\naws = { region = \"r\" }\n\
                      [connections.d]\ntype = \"delta\"\n[tables.t]\nKEYS";
const JOB: &str = "[tables.a]\nformat = \"csv\"\nlocation = \"a.csv\"\n[tables.b]\nformat = \"csv\"\n\
                   location = \"b.csv\"\n[tables.l]\nformat = \"lora\"\nlocation = \"l/\"\n[tables.k]\n\
                   format = \"lora\"\nlocation = \"k/\"\n[jobs.j]\n";
const TRAIN: &str = "source = \"a\"\ntarget = \"b\"\n[jobs.j.train]\n";
const COMPARE: &str =
    "source = \"a\"\ntarget = \"b\"\ntrain = { target = \"l\" }\n[jobs.j.compare]\nKEYS";

/// For each key: the section around it, and two ways to write it that mean different things.
const SAMPLES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "session",
        "memory_limit",
        SESSION,
        "",
        "memory_limit = \"4G\"",
    ),
    (
        "model",
        "source",
        "[models.m]\nKEYS",
        "source = \"builtin:tiny\"",
        "source = \"x/y\"",
    ),
    (
        "session",
        "allow_remote",
        SESSION,
        "",
        "allow_remote = false",
    ),
    ("model", "device", MODEL, "", "device = \"cuda:1\""),
    ("model", "dtype", MODEL, "", "dtype = \"f16\""),
    ("model", "adapter", MODEL, "", "adapter = \"x\""),
    ("model", "stop", MODEL, "", "stop = [\"###\"]"),
    (
        "model",
        "enable_thinking",
        MODEL,
        "",
        "enable_thinking = true",
    ),
    (
        "model",
        "prompt_date",
        MODEL,
        "",
        "prompt_date = \"2026-11-28\"",
    ),
    (
        "remote",
        "model",
        "[models.m]\nsource = \"openai:https://h/v1\"\nKEYS",
        "model = \"a\"",
        "model = \"b\"",
    ),
    ("remote", "api_key", REMOTE, "", "api_key = \"x\""),
    ("remote", "revision", REMOTE, "", "revision = \"x\""),
    ("remote", "headers", REMOTE, "", "headers = { a = \"x\" }"),
    ("remote", "query", REMOTE, "", "query = { a = \"x\" }"),
    ("remote", "body", REMOTE, "", "body = { a = 1 }"),
    ("remote", "omit", REMOTE, "", "omit = [\"seed\"]"),
    ("remote", "proxy", REMOTE, "", "proxy = \"none\""),
    ("remote", "tls", REMOTE, "", "tls.ca_file = \"x\""),
    ("remote", "tokenizer", REMOTE, "", "tokenizer = \"x\""),
    ("remote", "max_context", REMOTE, "", "max_context = 4096"),
    (
        "remote",
        "max_concurrency",
        REMOTE,
        "",
        "max_concurrency = 2",
    ),
    (
        "remote",
        "request_timeout_secs",
        REMOTE,
        "",
        "request_timeout_secs = 7",
    ),
    ("remote", "timeout_secs", REMOTE, "", "timeout_secs = 7"),
    ("remote", "replies", REMOTE, "", "replies = \"x\""),
    ("remote", "allow_http", REMOTE, "", "allow_http = true"),
    (
        "table",
        "format",
        "[tables.t]\nlocation = \"a\"\nKEYS",
        "format = \"csv\"",
        "format = \"json\"",
    ),
    (
        "table",
        "location",
        "[tables.t]\nformat = \"csv\"\nKEYS",
        "location = \"a\"",
        "location = \"b\"",
    ),
    (
        "table",
        "connection",
        LINKED,
        "table = \"s3://b/x\"\nconnection = \"c\"",
        "table = \"s3://b/x\"\nconnection = \"d\"",
    ),
    (
        "table",
        "table",
        LINKED,
        "connection = \"c\"\ntable = \"s3://b/x\"",
        "connection = \"c\"\ntable = \"s3://b/y\"",
    ),
    (
        "table",
        "options",
        TABLE,
        "",
        "options = { \"csv.batch_bytes\" = 7 }",
    ),
    ("table", "id", TABLE, "", "id = \"x\""),
    ("table", "text", TABLE, "", "text = \"x\""),
    ("table", "title", TABLE, "", "title = [\"x\"]"),
    ("table", "keep", TABLE, "", "keep = [\"x\"]"),
    (
        "job",
        "source",
        "target = \"b\"\nKEYS",
        "source = \"a\"",
        "source = \"b\"",
    ),
    (
        "job",
        "target",
        "source = \"a\"\nKEYS",
        "target = \"a\"",
        "target = \"b\"",
    ),
    (
        "job",
        "model",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "model = \"x\"",
    ),
    (
        "job",
        "profile",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "profile = \"legal\"",
    ),
    (
        "job",
        "arguments",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "arguments = { seed = 7 }",
    ),
    (
        "job",
        "error_budget",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "error_budget = 0.5",
    ),
    (
        "job",
        "output",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "output = \"x\"",
    ),
    (
        "job",
        "train",
        "source = \"a\"\ntarget = \"b\"\nKEYS",
        "",
        "train = { target = \"l\" }",
    ),
    (
        "job",
        "compare",
        "source = \"a\"\ntarget = \"b\"\ntrain = { target = \"l\" }\nKEYS",
        "",
        "compare = {}",
    ),
    (
        "train",
        "target",
        "KEYS",
        "target = \"l\"",
        "target = \"k\"",
    ),
    ("train", "also", "target = \"l\"\nKEYS", "", "also = \"a\""),
    (
        "train",
        "holdout_share",
        "target = \"l\"\nKEYS",
        "",
        "holdout_share = 0.5",
    ),
    ("compare", "probes", COMPARE, "", "probes = \"a\""),
    ("compare", "held_out", COMPARE, "", "held_out = \"a\""),
    ("compare", "control", COMPARE, "", "control = \"a\""),
    ("compare", "max_questions", COMPARE, "", "max_questions = 7"),
    ("compare", "html", COMPARE, "", "html = \"x.html\""),
];

/// All that a configuration comes to, for the session and for its jobs.
fn meaning(text: &str) -> String {
    let config = Config::parse(Path::new("dir/c.toml"), text, &|_| None).unwrap();
    let casebook = config.casebook().unwrap();
    let mut out = format!(
        "{:?}\n{:?}\n",
        config.memory_bytes().unwrap(),
        casebook.models
    );
    for name in config.raw.models.keys() {
        out += &format!("{:?}\n", casebook.models.spec(name).unwrap());
    }
    for (name, table) in &config.raw.tables {
        let place = config.place(name, table).unwrap();
        let options: std::collections::BTreeMap<_, _> = place.options.iter().collect();
        let settings = casebook.table_settings(name);
        out += &format!(
            "{} {} {options:?} {settings:?}\n",
            place.format, place.location
        );
    }
    for name in config.job_names() {
        out += &format!("{:?}\n", config.job(name).unwrap());
    }
    out
}

#[test]
fn every_key_has_an_effect() {
    for (section, key, around, one, other) in SAMPLES {
        let text = |own: &str| {
            let text = around.replace("KEYS", own);
            match *section {
                "job" | "compare" => format!("{JOB}{text}\n"),
                "train" => format!("{JOB}{TRAIN}{text}\n"),
                _ => text + "\n",
            }
        };
        let (one, other) = (meaning(&text(one)), meaning(&text(other)));
        assert_ne!(one, other, "{section} {key}");
    }
    let sections = [
        ("session", RawSession::KEYS),
        ("model", RawModel::KEYS),
        ("remote", RawRemote::KEYS),
        ("table", RawTable::KEYS),
        ("job", RawJob::KEYS),
        ("train", RawTrain::KEYS),
        ("compare", RawCompare::KEYS),
    ];
    let known: BTreeSet<(&str, &str)> = sections
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(|key| (*section, *key)))
        .collect();
    let tried: BTreeSet<(&str, &str)> = SAMPLES.iter().map(|s| (s.0, s.1)).collect();
    assert_eq!(known, tried);
}
