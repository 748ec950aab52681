//! Which families of models are computed: one file each, with what its config.json means, how its
//! weights are called and what its layers are made of; [`FAMILIES`] lists them.

mod gemma;
mod granite;
mod llama;
mod mistral;
mod olmo;
mod phi;
mod qwen;

use serde_json::{Map, Value};

use super::config::DecoderConfig;
use super::fields::Fields;
use super::gguf::Header;
use crate::Result;

/// What is known of a family.
#[derive(Debug)]
pub(crate) struct Family {
    /// Values of `model_type` in config.json.
    pub(crate) model_types: &'static [&'static str],
    /// Values of `architectures`: the networks that predict tokens.
    pub(crate) architectures: &'static [&'static str],
    /// What transformers' class assumes for a key that config.json leaves out. `model_type` is one
    /// of the above.
    pub(crate) defaults: fn(model_type: &str) -> Value,
    /// Turns the plain pre-norm decoder that sizes and rotation describe into the family's.
    pub(crate) spec: fn(&Fields, &mut DecoderConfig) -> Result<()>,
    /// Its architectures in GGUF files.
    pub(crate) gguf: &'static [Architecture],
}

/// An architecture of GGUF files.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// As in `general.architecture`.
    pub(crate) name: &'static str,
    /// The `model_type` that it is.
    pub(crate) model_type: &'static str,
    /// Rows of query and key matrices lie as an interleaved rotation wants them.
    pub(crate) interleaved: bool,
    /// Adds to config.json what only this architecture has.
    pub(crate) keys: fn(&GgufKeys<'_>, &mut Map<String, Value>) -> Result<()>,
}

/// The keys of a GGUF file that begin with the architecture's name.
#[derive(Debug)]
pub(crate) struct GgufKeys<'a> {
    pub(crate) header: &'a Header,
    pub(crate) name: &'a str,
}

impl GgufKeys<'_> {
    /// Copies numbers that are there: name in config.json, name in the file.
    pub(crate) fn copy(&self, to: &mut Map<String, Value>, keys: &[(&str, &str)]) -> Result<()> {
        for (theirs, ours) in keys {
            let key = format!("{}.{ours}", self.name);
            // Whole numbers stay whole.
            if let Ok(Some(size)) = self.header.optional_size(&key) {
                to.insert((*theirs).into(), size.into());
            } else if let Some(number) = self.header.optional_number(&key)? {
                to.insert((*theirs).into(), number.into());
            }
        }
        Ok(())
    }
}

/// All families.
pub(crate) static FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen::FAMILY,
    &gemma::FAMILY,
    &phi::FAMILY,
    &olmo::FAMILY,
    &granite::FAMILY,
];

/// The family of a `model_type`.
pub(crate) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.model_types.contains(&model_type))
        .copied()
}

/// Every `model_type` that is computed, as a list for messages.
pub(crate) fn model_types() -> String {
    let types: Vec<&str> = FAMILIES
        .iter()
        .flat_map(|family| family.model_types)
        .copied()
        .collect();
    types.join(", ")
}

/// The family and its part for an architecture of GGUF files.
pub(crate) fn gguf(name: &str) -> Option<(&'static Family, &'static Architecture)> {
    FAMILIES.iter().find_map(|family| {
        let found = family
            .gguf
            .iter()
            .find(|architecture| architecture.name == name);
        found.map(|architecture| (*family, architecture))
    })
}

/// Every architecture of GGUF files that is computed, as a list for messages.
pub(crate) fn gguf_names() -> String {
    let all = FAMILIES.iter().flat_map(|family| family.gguf);
    all.map(|architecture| architecture.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Every architecture that is computed, as a list for messages.
pub(crate) fn architectures() -> String {
    let all = FAMILIES.iter().flat_map(|family| family.architectures);
    all.copied().collect::<Vec<_>>().join(", ")
}
