//! `builtin:tiny`: a Llama of 5.8 million parameters that has read court opinions.
//!
//! For trying Casebook out and for its tests, not for work; see the model card in README.md. The
//! files are those of a Hugging Face model directory, embedded so that a fresh program needs no
//! network.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Name of the model.
pub const NAME: &str = "casebook-tiny";

/// The files of the model directory: (name, content).
pub static FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../model/config.json")),
    (
        "generation_config.json",
        include_bytes!("../model/generation_config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../model/model.safetensors"),
    ),
    ("tokenizer.json", include_bytes!("../model/tokenizer.json")),
    (
        "tokenizer_config.json",
        include_bytes!("../model/tokenizer_config.json"),
    ),
    (
        "casebook-profile.toml",
        include_bytes!("../model/casebook-profile.toml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn the_weights_are_whole() {
        let (_, bytes) = FILES
            .iter()
            .find(|(name, _)| *name == "model.safetensors")
            .unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&bytes[8..8 + header]).unwrap();
        let end = text
            .split("\"data_offsets\":[")
            .skip(1)
            .filter_map(|part| {
                part.split(']')
                    .next()?
                    .split(',')
                    .nth(1)?
                    .trim()
                    .parse()
                    .ok()
            })
            .max();
        assert_eq!(end, Some(bytes.len() - 8 - header));
    }
}
