//! What a call of `docs_to_qa` comes to once every default is filled in.

use std::sync::Arc;

use casebook_qa::profile::{KEYS, Profile};

use super::arguments::{ARGUMENTS, QaArguments};
use crate::context::Casebook;
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::models::ModelSpec;
use crate::profiles;
use crate::settings::QaConfig;

/// The settled call. Arguments win over session settings, which win over the profile.
#[derive(Debug)]
pub struct QaSpec {
    /// Models, profiles and counters of the session.
    pub casebook: Arc<Casebook>,
    /// The model that generates.
    pub model: ModelSpec,
    /// The profile as far as it is known before the model is loaded.
    pub profile: Profile,
    /// Documents in generation at the same time.
    pub look_ahead_documents: usize,
    /// Chunks of one document in generation at the same time.
    pub look_ahead_chunks: usize,
    /// Share of rows that may fail in the engine.
    pub error_budget: f64,
    /// Rows carry the text that they are about.
    pub keep_document: bool,
    profile_name: String,
    overrides: Vec<(String, String)>,
}

impl QaSpec {
    /// Fills in the defaults and checks names and values.
    pub fn resolve(
        casebook: Arc<Casebook>,
        config: &QaConfig,
        arguments: &QaArguments,
    ) -> Result<Self> {
        let model = casebook
            .models
            .spec(arguments.model.as_ref().unwrap_or(&config.model))?;
        let profile_name = arguments
            .profile
            .as_ref()
            .unwrap_or(&config.profile)
            .clone();
        let mut overrides = config.overrides();
        overrides.retain(|(key, _)| !arguments.overrides.iter().any(|(k, _)| k == key));
        overrides.extend(arguments.overrides.iter().cloned());
        let profile = profile(
            &casebook,
            &profile_name,
            profiles::overlay_at_hand(&model).as_deref(),
            &overrides,
        )?;
        Ok(Self {
            casebook,
            model,
            profile,
            look_ahead_documents: config.look_ahead_documents.max(1),
            look_ahead_chunks: config.look_ahead_chunks.max(1),
            error_budget: config.error_budget,
            keep_document: arguments.keep_document.unwrap_or(false),
            profile_name,
            overrides,
        })
    }

    /// The profile for `generator`: a model may carry prompts that it was trained with.
    pub(super) fn profile_for(&self, generator: &Generator) -> Result<Profile> {
        let overlay = generator.profile_overlay();
        profile(&self.casebook, &self.profile_name, overlay, &self.overrides)
    }
}

fn profile(
    casebook: &Casebook,
    name: &str,
    overlay: Option<&str>,
    overrides: &[(String, String)],
) -> Result<Profile> {
    let mut profile = profiles::resolve(casebook, name, overlay)?;
    for (key, value) in overrides {
        if !KEYS.contains(&key.as_str()) {
            let valid = [ARGUMENTS, KEYS].concat();
            return Err(Error::unknown("argument of docs_to_qa:", key, &valid));
        }
        profile.set(key, value)?;
    }
    Ok(profile)
}
