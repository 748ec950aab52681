//! `casebook profiles`: who asks and who answers.

use casebook::Result;
use casebook_qa::profile::{PROFILES, Profile};
use clap::Args;

use super::{Program, output};

/// Arguments of `casebook profiles`.
#[derive(Debug, Args)]
pub(super) struct Profiles {
    /// Show this profile in full, as TOML
    name: Option<String>,
}

impl Profiles {
    pub(super) fn run(self, program: &Program) -> Result<()> {
        let configured = &program.casebook.profiles;
        if let Some(name) = &self.name {
            let layers = configured.get(name).map(Vec::as_slice).unwrap_or_default();
            let layers: Vec<(&str, &str)> = layers
                .iter()
                .map(|(o, t)| (o.as_str(), t.as_str()))
                .collect();
            let text = Profile::resolve(name, &layers)?.to_toml();
            return output::line(&program.casebook.hidden.out_of(&text));
        }
        for (name, _) in PROFILES {
            let layered = if configured.contains_key(*name) {
                ", changed in casebook.toml"
            } else {
                ""
            };
            output::line(&format!("{name} (built in{layered})"))?;
        }
        for name in configured
            .keys()
            .filter(|n| !PROFILES.iter().any(|(p, _)| p == n))
        {
            output::line(&format!("{name} (casebook.toml)"))?;
        }
        Ok(())
    }
}
