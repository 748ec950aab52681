//! casebook.toml: what is typed ([`raw`]) becomes what is valid ([`Config`]).
//!
//! Strict: an unknown key is an error with its line and the valid keys. `${env:NAME}`,
//! `${env:NAME:-default}` and `${file:path}` work inside string values only, after parsing, so a
//! value cannot inject structure. No error quotes a value: see [`shown`].

mod document;
mod documents;
#[cfg(test)]
mod effects;
mod hidden;
mod interpolate;
mod jobs;
#[cfg(test)]
mod properties;
mod raw;
mod remote;
mod session;
mod shown;
mod tables;
mod trust;

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::context::{Casebook, TableSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::models::ModelSpec;
use casebook_llm::ChatOptions;

use document::Fault;
use interpolate::Places;
use raw::Raw;

pub use hidden::Hidden;
pub use interpolate::fill_text;
pub use trust::check_implicit;

/// The file that is read when it exists and no other is named.
pub const DEFAULT: &str = "casebook.toml";
/// Largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// A valid configuration. Paths in it are relative to the file's directory.
pub struct Config {
    origin: PathBuf,
    raw: Raw,
    hidden: Hidden,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values can be secrets.
        f.debug_struct("Config")
            .field("origin", &self.origin)
            .field("sections", &self.raw.lines.keys())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads and checks `path`. `environment` looks variables up; it is given so that nothing
    /// below the program's edge reads the environment.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let failed = |e: std::io::Error| {
            let advice = "; write one with `casebook init`, or give another with --config";
            wrong(path, &format!("{e}{advice}")).with_source(e)
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = vec![];
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(failed)?;
        if bytes.len() as u64 > MOST_BYTES {
            let what = format!("the file is larger than {MOST_BYTES} bytes; give another");
            return Err(wrong(path, &what));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| wrong(path, "the file is not text in UTF-8; save it as UTF-8"))?;
        Self::parse(path, &text, environment)
    }

    /// Checks `text`, the content of `path`.
    ///
    /// # Errors
    /// The line and what is wrong there; no value is quoted.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let hidden = Hidden::default();
        let read = || {
            let mut keys = document::parse(text)?;
            // Once as typed, so that an unknown key comes before a variable that is not set.
            Raw::read(&keys)?;
            let places = Places {
                folder: path.parent().unwrap_or(Path::new("")),
                environment,
                hidden: &hidden,
            };
            interpolate::fill(&mut keys, &places)?;
            Raw::read(&keys)
        };
        let raw = read().map_err(|fault: Fault| {
            let line = format!("{}, line {}", path.display(), fault.line);
            Error::new(ErrorKind::Configuration, format!("{line}: {}", fault.what))
        })?;
        let config = Self {
            origin: path.to_path_buf(),
            raw,
            hidden,
        };
        config.hide_secrets();
        config.hide_keys_of_models();
        match config.check() {
            Ok(()) => Ok(config),
            Err(error) => {
                let message = config.hidden.out_of(&error.to_string());
                Err(Error::new(error.kind(), message))
            }
        }
    }

    /// What no message may hold.
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// References between sections must be to something that exists.
    fn check(&self) -> Result<()> {
        self.memory_bytes()?;
        self.check_tables()?;
        for (name, model) in &self.raw.models {
            let title = format!("[models.{name}]");
            let wrong = |what: String| self.wrong(&title, &what);
            check_model(model).map_err(wrong)?;
            self.remote(model).map_err(wrong)?;
        }
        for name in self.raw.profiles.keys() {
            let layers = self.profile_layers(name)?;
            let layers: Vec<(&str, &str)> = layers
                .iter()
                .map(|(o, t)| (o.as_str(), t.as_str()))
                .collect();
            casebook_qa::profile::Profile::resolve(name, &layers)
                .map_err(|e| self.wrong(&format!("[profiles.{name}]"), &e.to_string()))?;
        }
        self.check_jobs()
    }

    fn profile_layers(&self, name: &str) -> Result<Vec<(String, String)>> {
        let Some(table) = self.raw.profiles.get(name) else {
            return Ok(vec![]);
        };
        let text = toml::to_string(table).map_err(|e| wrong(&self.origin, &e.to_string()))?;
        let file = self
            .origin
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(vec![(format!("{file} [profiles.{name}]"), text)])
    }

    /// The state of a session with these models, profiles and table settings.
    pub fn casebook(&self) -> Result<Casebook> {
        let mut casebook = Casebook::default();
        casebook.hidden.add(&self.hidden);
        if self.raw.session.allow_remote == Some(false) {
            casebook.models.forbid_remote();
        }
        for (name, model) in &self.raw.models {
            let wrong = |what: String| self.wrong(&format!("[models.{name}]"), &what);
            let spec = ModelSpec {
                remote: self.remote(model).map_err(wrong)?,
                source: self.path_or_id(&model.source),
                device: model.device.clone().unwrap_or_else(|| "auto".into()),
                dtype: model.dtype.clone(),
                adapter: model.adapter.as_ref().map(|p| self.resolve(p)),
                chat: chat(model).map_err(wrong)?,
            };
            casebook.models.insert(name.clone(), spec);
        }
        for name in self.raw.profiles.keys() {
            casebook
                .profiles
                .insert(name.clone(), self.profile_layers(name)?);
        }
        for (name, table) in &self.raw.tables {
            let settings = TableSettings {
                id: table.id.clone(),
                text: table.text.clone(),
                title: table.title.clone(),
                keep: table.keep.clone(),
            };
            casebook.tables.insert(name.to_lowercase(), settings);
        }
        Ok(casebook)
    }

    /// An error in the section called `title`.
    fn wrong(&self, title: &str, what: &str) -> Error {
        match self.raw.lines.get(title) {
            Some(line) => self.wrong_in(*line, title, what),
            None => wrong(&self.origin, &format!("{title} {what}")),
        }
    }

    /// An error in a line of the section called `title`.
    fn wrong_in(&self, line: usize, title: &str, what: &str) -> Error {
        let message = format!("{}, line {line}: {title} {what}", self.origin.display());
        Error::new(ErrorKind::Configuration, message)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        let folder = self.origin.parent().unwrap_or(Path::new(""));
        if path.is_absolute() {
            path.to_path_buf()
        } else {
            folder.join(path)
        }
    }

    /// A model source is a path if there is one, else a name or hub id.
    fn path_or_id(&self, source: &str) -> String {
        let path = self.resolve(Path::new(source));
        if path.exists() {
            path.to_string_lossy().into_owned()
        } else {
            source.to_owned()
        }
    }
}

/// What a model's entry says about its prompts and replies.
fn chat(model: &raw::RawModel) -> Result<ChatOptions, String> {
    let date = model.prompt_date.as_deref();
    let prompt_date = date.map(|date| {
        let wrong = |_| "prompt_date is no date; write it as \"2024-07-26\"".to_owned();
        ChatOptions::date(date).map_err(wrong)
    });
    let stop = model.stop.clone().unwrap_or_default();
    if stop.iter().any(String::is_empty) {
        return Err("stop has an empty text; leave it out".to_owned());
    }
    Ok(ChatOptions {
        prompt_date: prompt_date.transpose()?,
        enable_thinking: model.enable_thinking.unwrap_or(false),
        stop,
    })
}

/// A slip in a model's settings shows before anything is loaded.
fn check_model(model: &raw::RawModel) -> Result<(), String> {
    chat(model)?;
    if let Some(dtype) = &model.dtype
        && casebook_llm::parse_dtype(dtype).is_err()
    {
        return Err(shown::not_one_of("dtype", dtype, &["f32", "bf16", "f16"]));
    }
    match &model.device {
        Some(device) if device.parse::<casebook_llm::DeviceChoice>().is_err() => {
            let valid = ["auto", "cpu", "cuda", "cuda:N"];
            Err(shown::not_one_of("device", device, &valid))
        }
        _ => Ok(()),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("{}: {}", path.display(), what.trim_end()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        let environment = |name: &str| (name == "BASE").then(|| "builtin:tiny".to_owned());
        Config::parse(Path::new("dir/casebook.toml"), text, &environment)
    }

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    }

    #[test]
    fn models_tables_and_profiles_reach_the_session() {
        let config = parse(
            "[models.small]\nsource = \"${env:BASE}\"\n[tables.cases]\nformat = \"csv\"\nlocation = \
             \"cases.csv\"\nid = \"case_id\"\n[profiles.legal]\nquestions_per_chunk = 2\n",
        )
        .unwrap();
        let casebook = config.casebook().unwrap();
        assert_eq!(
            casebook.models.spec("small").unwrap().source,
            "builtin:tiny"
        );
        assert_eq!(
            casebook.table_settings("CASES").id.as_deref(),
            Some("case_id")
        );
        assert!(casebook.profiles["legal"][0].0.contains("[profiles.legal]"));
    }

    #[test]
    fn a_memory_limit_is_a_size() {
        let bytes = |text: &str| parse(text).unwrap().memory_bytes().unwrap();
        assert_eq!(
            bytes("[session]\nmemory_limit = \"1.5G\"\n"),
            Some(1_610_612_736)
        );
        assert_eq!(bytes(""), None);
    }

    #[test]
    fn tables_of_a_connection_get_its_options() {
        let config = parse(
            "[connections.lake]\ntype = \"delta\"\naws = { region = \"r\" }\n[tables.cases]\n\
             connection = \"lake\"\ntable = \"s3://b/cases\"\noptions = { delta = { version = 3 } }\n",
        )
        .unwrap();
        let place = config.place("cases", &config.raw.tables["cases"]).unwrap();
        assert_eq!(
            (place.format.as_str(), place.location.as_str()),
            ("DELTA", "s3://b/cases")
        );
        assert_eq!(place.options["aws.region"], "r");
        assert_eq!(place.options["delta.version"], "3");
    }

    #[test]
    fn errors_point_at_line_and_key() {
        let text = error("[models.small]\nsorce = \"x\"\n");
        assert!(
            text.contains("line 2") && text.contains("sorce") && text.contains("source"),
            "{text}"
        );
        let text = error("[tables.t]\nformat = \"exel\"\nlocation = \"x\"\n");
        assert!(
            text.contains("[tables.t]") && text.contains("parquet"),
            "{text}"
        );
        let text = error("[tables.t]\nformat = \"csv\"\n");
        assert!(text.contains("needs a location"), "{text}");
        let text = error("[tables.t]\nconnection = \"lake\"\ntable = \"a.b\"\n");
        assert!(text.contains("connection 'lake'"), "{text}");
        let text = error("[connections.lake]\ntype = \"databrick\"\n");
        assert!(
            text.contains("[connections.lake]") && text.contains("delta"),
            "{text}"
        );
        for size in ["lots", "1K", "-4G", "4", ""] {
            let text = error(&format!("[session]\nmemory_limit = \"{size}\"\n"));
            assert!(
                text.contains("memory_limit") && text.contains("4G"),
                "{text}"
            );
        }
        let text = error("[models.m]\nsource = \"${env:UNSET}\"\n");
        assert!(
            text.contains("models.m.source") && text.contains("UNSET"),
            "{text}"
        );
        let text = error("[profiles.legal]\nquestions = 2\n");
        assert!(text.contains("questions_per_chunk"), "{text}");
        let text = error("[jobs.x]\nsource = \"cases\"\ntarget = \"qa\"\n");
        assert!(
            text.contains("[jobs.x]") && text.contains("source") && text.contains("cases"),
            "{text}"
        );
    }

    #[test]
    fn settings_that_contradict_or_have_no_effect_are_errors() {
        for (text, part) in [
            (
                "[tables.Cases]\nformat = \"csv\"\nlocation = \"a\"\n[tables.cases]\nformat = \
                 \"csv\"\nlocation = \"b\"\n",
                "differ by case alone",
            ),
            (
                "[jobs.J]\nsource = \"a\"\ntarget = \"b\"\n[jobs.j]\nsource = \"a\"\ntarget = \
                 \"b\"\n",
                "[jobs.J] of line 1 differ by case alone",
            ),
            (
                "[tables.t]\nformat = \"csv\"\nconnection = \"c\"\n",
                "both format and connection",
            ),
            (
                "[tables.t]\nid = \"x\"\n",
                "needs either format and location",
            ),
            (
                "[tables.t]\nformat = \"csv\"\nlocation = \"\"\n",
                "location is empty",
            ),
            (
                "[connections.c]\ntype = \"delta\"\n[tables.t]\nconnection = \"c\"\ntable = \
                 \"a\"\nlocation = \"b\"\n",
                "both table and location",
            ),
            (
                "[connections.c]\ntype = \"delta\"\naws = { region = \"a\" }\n\"aws.region\" = \
                 \"b\"\n",
                "line 1: [connections.c] the option 'aws.region' is given twice",
            ),
            (
                "[connections.wh]\ntype = \"snowflake\"\npasswrd = \"hunter2\"\n",
                "Did you mean",
            ),
            (
                "[tables.t]\nformat = \"csv\"\nlocation = \"x\"\noptions = { \"csv.batch_byte\" = 1 \
                 }\n",
                "Did you mean 'csv.batch_bytes'?",
            ),
            (
                "[models.m]\nsource = \"x\"\ndtype = \"f3\"\n",
                "Valid: f32, bf16, f16",
            ),
            (
                "[models.m]\nsource = \"x\"\ndevice = \"gpu\"\n",
                "Valid: auto, cpu, cuda",
            ),
            (
                "[models.m]\nsource = 1\n",
                "line 2: [models.m] 'source': is a whole number",
            ),
            ("[models.m]\n", "line 1: [models.m] needs source"),
            (
                "[tables.\"a\\u001Bb\"]\nformat = \"csv\"\n",
                "line 1: a name in [tables] has a control character",
            ),
            (
                "[\"t\u{430}bles\".t]\n",
                "the unknown key of 6 characters, not all of them ASCII. Did you mean 'tables'?",
            ),
            (
                "[tables.t]\nformat = \"csv\"\nlocation = \"a\"\nlocation = \"a\"\n",
                "line 4: the key 'location' is there twice, first in line 3; keep one",
            ),
            (
                "models = 1\n",
                "[models] is a whole number; expected a table",
            ),
            (
                "[model.m]\n",
                "line 1: the file has the unknown key 'model'. Did you mean 'models'?",
            ),
            (
                "[tables.t]\ntitle = \"x\"\n",
                "line 2: [tables.t] 'title': is text; expected a list",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\nerror_budget = nan\n",
                "from 0 to 1",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\nerror_budget = 2\n",
                "is 2",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\n[jobs.j.compare]\nmax_questions = \
                 10_000_000\n",
                "line 5: [jobs.j] compare 'max_questions': is 10000000",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\ntrain = { target = \"x\", holdout_share \
                 = 1 }\n",
                "from 0 to below 1",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\narguments = { \"x) --\" = 1 }\n",
                "no name of one",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\narguments = { seed = nan }\n",
                "line 4: [jobs.j] 'arguments': 'seed' is NaN, which SQL has no number for",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\n[jobs.j.arguments]\nseed = 1\n\
                 max_pairs_per_document = -inf\n",
                "line 6: [jobs.j] 'arguments': 'max_pairs_per_document' is -inf",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\narguments = { seed = [1] }\n",
                "'seed' is a list; expected text in quotes, a number",
            ),
            (
                "[profiles.legal]\nquestions_per_chunk = 1_000_000_000\n",
                "a whole number from 1 to 1000",
            ),
            (
                "[tables.t]\nformat = \"lora\"\nlocation = \"x\"\noptions = { \"lora.rnk\" = 1 }\n",
                "line 4: [tables.t] unknown option of LORA table t: 'lora.rnk'. Did you mean \
                 'lora.rank'?",
            ),
            (
                "[tables.t]\nformat = \"lora\"\nlocation = \"x\"\n[tables.t.options]\n\"lora.epochs\" = \
                 1\n[tables.t.options.lora]\nalpha = 1\nrank = -2\n",
                "line 8: [tables.t] LORA table t: training setting rank",
            ),
            (
                "[tables.t]\nformat = \"csv\"\nlocation = \"x\"\n[tables.t.options]\n\
                 \"csv.batch_bytes\" = 1\n\"csv.batch_byte\" = 1\n",
                "line 6: [tables.t]",
            ),
            (
                "[connections.wh]\ntype = \"snowflake\"\nhost = \"h\"\npasswrd = \"x\"\n",
                "line 4: [connections.wh] has the unknown key 'passwrd'. Did you mean 'password'?",
            ),
            (
                "[connections.wh]\ntype = \"delta\"\naws = { region = \"h\",\n regoin = \"x\" }\n\
                 delta = { vresion = 1 }\n",
                "line 5: [connections.wh]",
            ),
            (
                "[tables.t]\nformat = \"lora\"\nlocation = \"x\"\noptions = { lora = { rank = -2 } }\n",
                "training setting rank is '-2'; expected a whole number from 1 to 1024",
            ),
            (
                "[tables.t]\nformat = \"lora\"\nlocation = \"x\"\nid = \"x\"\n",
                "line 1: [tables.t] id has no effect",
            ),
            (
                "[tables.t]\nformat = \"chat_jsonl\"\nlocation = \"x\"\nkeep = [\"x\"]\n",
                "keep has no effect",
            ),
            (
                "[tables.t]\nformat = \"chat_jsonl\"\nlocation = \"x\"\noptions = { lines = 1 }\n",
                "unknown option of CHAT_JSONL table t",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\narguments = { Profile = \"legal\" }\n",
                "profile is a key of the job itself",
            ),
            (
                "[jobs.j]\nsource = \"a\"\ntarget = \"b\"\narguments = { keep_document = true }\n\
                 train = { target = \"x\" }\n",
                "leave keep_document out",
            ),
        ] {
            let found = error(text);
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn byte_order_marks_and_line_ends_of_windows_are_read() {
        let config =
            parse("\u{feff}[tables.t]\r\nformat = \"csv\"\r\nlocation = \"\"\"\r\nx.csv\"\"\"\r\n")
                .unwrap();
        let place = config.place("t", &config.raw.tables["t"]).unwrap();
        assert_eq!(place.location, "dir/x.csv");
    }

    #[test]
    fn files_of_any_size_and_kind_are_read_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let load = |path: &Path| Config::load(path, &|_| None).unwrap_err().to_string();
        std::fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
        assert!(load(&path).contains("larger than"), "{}", load(&path));
        std::fs::write(&path, b"# \xff").unwrap();
        assert!(load(&path).contains("UTF-8"), "{}", load(&path));
        #[cfg(unix)]
        assert!(load(Path::new("/dev/zero")).contains("larger than"));
    }
}
