//! Texts that cannot be printed by accident.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize, Serializer};

/// A password, token or key. Debug, Display and serialisation show `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be handed to the system it is for and to nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// OPTIONS as typed, before anything knows which of them are secrets: Debug shows their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GivenOptions(HashMap<String, String>);

impl Deref for GivenOptions {
    type Target = HashMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for GivenOptions {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl From<HashMap<String, String>> for GivenOptions {
    fn from(options: HashMap<String, String>) -> Self {
        Self(options)
    }
}

impl<const N: usize> From<[(String, String); N]> for GivenOptions {
    fn from(options: [(String, String); N]) -> Self {
        Self(options.into())
    }
}

impl fmt::Debug for GivenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<&String> = self.0.keys().collect();
        keys.sort();
        f.debug_set().entries(keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_options_show_their_keys() {
        let mut options = GivenOptions::default();
        options.insert("odbc.password".into(), "hunter2".into());
        assert_eq!(format!("{options:?}"), "{\"odbc.password\"}");
        assert_eq!(options["odbc.password"], "hunter2");
        let same = GivenOptions::from(HashMap::from([("odbc.password".into(), "hunter2".into())]));
        assert!(same == options && same != GivenOptions::default());
    }

    #[test]
    fn never_shows_its_text() {
        let secret = Secret::new("hunter2");
        let shown = format!(
            "{secret} {secret:?} {}",
            serde_json::to_string(&secret).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
    }
}
