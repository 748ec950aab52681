//! `[models.NAME]` with a source that is an endpoint: what is typed becomes what is valid.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casebook_connectors::Secret;
use casebook_connectors::http::Proxy;

use super::Config;
use super::raw::{RawModel, RawRemote, RawValue};
use crate::remote::{RemoteSpec, SCHEME};

impl Config {
    /// The endpoint of `model`; none if it is in this process.
    ///
    /// # Errors
    /// The key and what is wrong with it; no value is quoted.
    pub(super) fn remote(&self, model: &RawModel) -> Result<Option<Arc<RemoteSpec>>, String> {
        let raw = &model.remote;
        if !model.source.starts_with(SCHEME) {
            if ["https://", "http://"]
                .iter()
                .any(|s| model.source.starts_with(s))
            {
                return Err(format!(
                    "source is a URL; write {SCHEME} before that of an endpoint"
                ));
            }
            return match raw.given.first() {
                None => Ok(None),
                Some(key) => Err(format!(
                    "{key} has no effect: it is for a model behind an endpoint, whose source begins \
                     with {SCHEME}"
                )),
            };
        }
        for (key, given) in [
            ("device", model.device.is_some()),
            ("dtype", model.dtype.is_some()),
            ("adapter", model.adapter.is_some()),
            ("stop", model.stop.is_some()),
            ("enable_thinking", model.enable_thinking.is_some()),
            ("prompt_date", model.prompt_date.is_some()),
        ] {
            if given {
                return Err(format!(
                    "{key} has no effect: the model is behind an endpoint, whose server decides it"
                ));
            }
        }
        let name = raw.model.as_deref();
        let name = name.ok_or("needs model, the name that its server has for it")?;
        let spec = self.spec(RemoteSpec::new(&model.source, name)?, raw)?;
        spec.check()?;
        Ok(Some(Arc::new(spec)))
    }

    fn spec(&self, mut spec: RemoteSpec, raw: &RawRemote) -> Result<RemoteSpec, String> {
        let serde_json::Value::Object(body) =
            serde_json::to_value(&raw.body).map_err(|_| "body is no JSON")?
        else {
            return Err("body is no table".to_owned());
        };
        let seconds = |given: Option<usize>| given.map(|secs| Duration::from_secs(secs as u64));
        let path = |given: &Option<std::path::PathBuf>| given.as_ref().map(|p| self.resolve(p));
        spec.revision.clone_from(&raw.revision);
        if let Some(revision) = &spec.revision
            && revision.trim().is_empty()
        {
            return Err("revision is empty; leave it out to take what the server says".to_owned());
        }
        if let Some(proxy) = &raw.proxy {
            spec.proxy = Proxy::parse("proxy", proxy.expose()).map_err(|e| e.to_string())?;
        }
        spec.timeout = seconds(raw.timeout_secs).unwrap_or(spec.timeout);
        // One try of a call is not longer than the call, unless it is said to be.
        let default = spec.request_timeout.min(spec.timeout);
        spec.request_timeout = seconds(raw.request_timeout_secs).unwrap_or(default);
        spec.api_key.clone_from(&raw.api_key);
        spec.headers = pairs("headers", &raw.headers)?;
        spec.query = pairs("query", &raw.query)?;
        spec.body = body;
        spec.omit = raw.omit.clone().unwrap_or_default();
        spec.ca_file = path(&raw.ca_file);
        spec.tokenizer = path(&raw.tokenizer);
        spec.max_context = raw.max_context;
        spec.max_concurrency = raw.max_concurrency.unwrap_or(spec.max_concurrency);
        spec.replies = path(&raw.replies);
        spec.allow_http = raw.allow_http.unwrap_or(false);
        Ok(spec)
    }

    /// Takes what signs in to endpoints out of messages, also where the section is wrong, and leaves
    /// their hosts there.
    pub(super) fn hide_keys_of_models(&self) {
        for model in self.raw.models.values() {
            let remote = &model.remote;
            for secret in remote.api_key.iter().chain(&remote.proxy) {
                self.hidden.note(secret.expose(), "***");
            }
            if let Ok(Some(spec)) = self.remote(model) {
                self.hidden.show(&spec.host());
                for secret in spec.secrets() {
                    self.hidden.note(secret.expose(), "***");
                }
            }
        }
    }
}

/// Names and values of `key`.
fn pairs(key: &str, values: &BTreeMap<String, RawValue>) -> Result<Vec<(String, Secret)>, String> {
    let pairs = values.iter().map(|(name, value)| match value {
        RawValue::Table(_) => Err(format!("{key} holds a table; expected texts")),
        value => Ok((name.clone(), Secret::new(value.text()))),
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use crate::error::ErrorKind;

    const BASE: &str = "[models.m]\nsource = \"openai:https://host/v1\"\nmodel = \"m\"\n";

    fn parse(more: &str) -> crate::Result<Config> {
        let environment = |name: &str| (name == "KEY").then(|| "sk-hunter2".to_owned());
        let text = format!("{BASE}{more}");
        Config::parse(Path::new("dir/casebook.toml"), &text, &environment)
    }

    #[test]
    fn every_key_reaches_the_model() {
        let config = parse(
            "api_key = \"${env:KEY}\"\nrevision = \"r\"\nheaders = { \"x-team\" = \"legal\" }\n\
             query = { \"api-version\" = \"2026-01-01\" }\n\
             body = { chat_template_kwargs = { enable_thinking = false }, n_probs = 2 }\n\
             omit = [\"seed\"]\nproxy = \"http://p:3128\"\ntls.ca_file = \"ca.pem\"\n\
             tokenizer = \"tokenizer.json\"\nmax_context = 4096\nmax_concurrency = 8\n\
             request_timeout_secs = 30\ntimeout_secs = 60\nreplies = \"out/r.jsonl\"\n\
             allow_http = true\n",
        )
        .unwrap();
        let spec = config.casebook().unwrap().models.spec("m").unwrap();
        assert_eq!(spec.shown(), "m at host");
        let remote = spec.remote.unwrap();
        assert_eq!(remote.api_key.as_ref().unwrap().expose(), "sk-hunter2");
        assert_eq!(remote.headers[0].1.expose(), "legal");
        assert_eq!(
            remote.body["chat_template_kwargs"]["enable_thinking"],
            false
        );
        assert_eq!(
            remote.tokenizer.as_deref(),
            Some(Path::new("dir/tokenizer.json"))
        );
        assert_eq!((remote.max_concurrency, remote.timeout.as_secs()), (8, 60));
        assert!(!format!("{remote:?}").contains("hunter2"));
    }

    #[test]
    fn what_cannot_be_is_an_error_that_names_the_key() {
        for (more, part) in [
            ("device = \"cpu\"", "device has no effect"),
            ("adapter = \"x\"", "adapter has no effect"),
            ("stop = [\"x\"]", "stop has no effect"),
            ("enable_thinking = true", "enable_thinking has no effect"),
            ("api_key = \"\"", "api_key is empty"),
            ("proxy = \"hunter2\"", "option proxy"),
            ("omit = [\"hunter2\"]", "omit names an unknown parameter"),
            ("body = { model = \"hunter2\" }", "body sets 'model'"),
            (
                "headers = { a = { b = \"hunter2\" } }",
                "headers holds a table",
            ),
            ("revision = \" \"", "revision is empty"),
            ("max_concurrency = 0", "from 1 to 4096"),
            ("allow_http = \"hunter2\"", "expected true or false"),
            ("tls = { ca = \"x\" }", "Valid: ca_file"),
            (
                "timeout_secs = 5\nrequest_timeout_secs = 6",
                "request_timeout_secs is more",
            ),
            ("api_kye = \"hunter2\"", "Did you mean 'api_key'?"),
            (
                "[models.n]\nsource = \"builtin:tiny\"\napi_key = \"hunter2\"",
                "api_key has no effect",
            ),
            (
                "[models.n]\nsource = \"https://host/v1\"",
                "write openai: before",
            ),
            (
                "[models.n]\nsource = \"openai:https://host/v1\"",
                "needs model",
            ),
            (
                "[models.n]\nsource = \"openai:http://host/v1\"\nmodel = \"m\"",
                "allow_http",
            ),
        ] {
            let error = parse(more).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{more}");
            let error = error.to_string();
            assert!(error.contains(part), "{more}: {error}");
            assert!(!error.contains("hunter2"), "{more}: {error}");
        }
    }

    #[test]
    fn what_is_forbidden_is_not_reached() {
        let config = parse("[session]\nallow_remote = false\n").unwrap();
        let models = config.casebook().unwrap().models;
        let error = models.spec("m").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let error = error.to_string();
        assert!(
            error.contains("allow_remote") && error.contains("host"),
            "{error}"
        );
        let config = parse("[session]\nallow_remote = true\n").unwrap();
        config.casebook().unwrap().models.spec("m").unwrap();
    }
}
