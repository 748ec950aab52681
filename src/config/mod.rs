//! casebook.toml: what is typed ([`raw`]) becomes what is valid ([`Config`]).
//!
//! Strict: an unknown key is an error with its line and the valid keys. `${env:NAME}`,
//! `${env:NAME:-default}` and `${file:path}` work inside string values only, after parsing, so a
//! value cannot inject structure.

mod documents;
mod interpolate;
mod jobs;
mod raw;
mod session;
mod tables;

use std::path::{Path, PathBuf};

use crate::context::{Casebook, TableSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::models::ModelSpec;

use raw::Raw;

pub use interpolate::fill_text;

/// A valid configuration. Paths in it are relative to the file's directory.
#[derive(Debug)]
pub struct Config {
    origin: PathBuf,
    raw: Raw,
}

impl Config {
    /// Reads and checks `path`. `environment` looks variables up; it is given so that nothing
    /// below the program's edge reads the environment.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let advice = "; write one with `casebook init`, or give another with --config";
            wrong(path, &format!("{e}{advice}")).with_source(e)
        })?;
        Self::parse(path, &text, environment)
    }

    fn parse(
        path: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        // Once as typed, for errors with lines; then with the values filled in.
        toml::from_str::<Raw>(text).map_err(|e| wrong(path, &e.to_string()).with_source(e))?;
        let mut table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(path, &e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        interpolate::fill(&mut table, &folder, environment).map_err(|e| wrong(path, &e))?;
        let raw: Raw = table
            .try_into()
            .map_err(|e: toml::de::Error| wrong(path, e.message()))?;
        let config = Self {
            origin: path.to_path_buf(),
            raw,
        };
        config.check()?;
        Ok(config)
    }

    /// References between sections must be to something that exists.
    fn check(&self) -> Result<()> {
        self.memory_bytes()?;
        self.check_tables()?;
        for name in self.raw.profiles.keys() {
            let layers = self.profile_layers(name)?;
            let layers: Vec<(&str, &str)> = layers
                .iter()
                .map(|(o, t)| (o.as_str(), t.as_str()))
                .collect();
            casebook_qa::profile::Profile::resolve(name, &layers)
                .map_err(|e| wrong(&self.origin, &e.to_string()))?;
        }
        for name in self.raw.jobs.keys() {
            self.job(name)?;
        }
        Ok(())
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
        for (name, model) in &self.raw.models {
            let spec = ModelSpec {
                source: self.path_or_id(&model.source),
                device: model.device.clone().unwrap_or_else(|| "auto".into()),
                dtype: model.dtype.clone(),
                adapter: model.adapter.as_ref().map(|p| self.resolve(p)),
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

    fn wrong(&self, what: &str) -> Error {
        wrong(&self.origin, what)
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
}
