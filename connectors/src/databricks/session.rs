//! Requests to a workspace: signed in, tried again where that helps, answers as JSON.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::settings::{Auth, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::expiring::{Expiring, Fresh};
use crate::http::{self, ClientSettings, Retry};
use crate::secret::Secret;

/// Largest answer of an API call. Results come by links; a table may have thousands of columns.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A workspace and who asks.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    host: Url,
    auth: Auth,
    /// The access token of a service principal.
    token: Arc<Expiring<Secret>>,
    retry: Retry,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            http: http::client(&ClientSettings {
                connect_timeout: settings.connect_timeout,
                read_timeout: settings.read_timeout,
                ca_file: settings.ca_file.as_deref(),
                proxy: settings.proxy.clone(),
            })?,
            host: settings.host.clone(),
            auth: settings.auth.clone(),
            token: Arc::default(),
            retry: Retry::default(),
        })
    }

    /// The same for rows that were hours in the making.
    pub(super) fn patient(&self) -> Self {
        Self {
            retry: Retry::patient(),
            ..self.clone()
        }
    }

    /// The host, for errors.
    pub(super) fn host(&self) -> &str {
        self.host.host_str().unwrap_or_default()
    }

    /// True if the host answers at all, whatever it says.
    pub(super) async fn reach(&self) -> Result<()> {
        match self.http.get(self.host.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let lost = http::lost(&format!("{} does not answer", self.host()), error);
                Err(Error::new(
                    lost.kind(),
                    format!("{lost}; check databricks.host and the network"),
                )
                .with_source(lost))
            }
        }
    }

    /// GET of the path made of `segments`.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        what: &str,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        let url = self.url(segments);
        let make = || self.http.get(url.clone()).query(query);
        self.answer(what, &self.retry, make).await
    }

    /// POST of `body`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        what: &str,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let url = self.url(segments);
        let make = || self.http.post(url.clone()).json(body);
        self.answer(what, &self.retry, make).await
    }

    /// POST of something that must not happen twice: not tried again.
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        what: &str,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let once = Retry {
            attempts: 1,
            ..self.retry.clone()
        };
        let url = self.url(segments);
        let make = || self.http.post(url.clone()).json(body);
        self.answer(what, &once, make).await
    }

    /// What a signed `link` leads to. The token of the workspace does not go there: the storage
    /// is another system, and it refuses requests with two signatures.
    pub(super) async fn download(
        &self,
        what: &str,
        link: &Secret,
        headers: &HashMap<String, Secret>,
        max_bytes: usize,
    ) -> Result<Bytes> {
        let make = || {
            let request = self.http.get(link.expose());
            headers.iter().fold(request, |request, (name, value)| {
                request.header(name, value.expose())
            })
        };
        http::fetch(what, &self.retry, max_bytes, make).await
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.host.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        what: &str,
        retry: &Retry,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<T> {
        let what = format!("{what} at {}", self.host());
        let mut renewed = false;
        let bytes = loop {
            let token = self.token().await?;
            let make = || make().bearer_auth(token.expose());
            match http::fetch(&what, retry, MAX_ANSWER_BYTES, make).await {
                Ok(bytes) => break bytes,
                // A token can be revoked before its time.
                Err(error) if error.kind() == ErrorKind::Denied && self.renews() && !renewed => {
                    self.token.forget();
                    renewed = true;
                }
                Err(error) => return Err(error),
            }
        };
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{what}: the answer is not what the API documents: {e}"),
            )
        })
    }

    fn renews(&self) -> bool {
        matches!(self.auth, Auth::Machine { .. })
    }

    /// A token that is good now.
    pub(super) async fn token(&self) -> Result<Secret> {
        match &self.auth {
            Auth::Token(token) => Ok(token.clone()),
            Auth::Machine { id, secret } => {
                let token = self.token.get(self.sign_in(id, secret));
                Ok((*token.await?).clone())
            }
        }
    }

    /// OAuth client credentials (RFC 6749, 4.4).
    async fn sign_in(&self, id: &str, secret: &Secret) -> Result<Fresh<Secret>> {
        #[derive(serde::Deserialize)]
        struct Answer {
            access_token: Secret,
            expires_in: u64,
        }
        let what = format!("signing in to {} as service principal {id}", self.host());
        let url = self.url(&["oidc", "v1", "token"]);
        let form = [("grant_type", "client_credentials"), ("scope", "all-apis")];
        let make = || {
            let request = self.http.post(url.clone());
            request.basic_auth(id, Some(secret.expose())).form(&form)
        };
        let bytes = http::fetch(&what, &self.retry, MAX_ANSWER_BYTES, make)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Denied | ErrorKind::InvalidInput => Error::new(
                    ErrorKind::Denied,
                    format!(
                        "{error}; check databricks.client_id and databricks.client_secret, and \
                         that the service principal belongs to the workspace"
                    ),
                ),
                _ => error,
            })?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| {
            // The cause could show a part of the token.
            Error::new(
                ErrorKind::Corrupt,
                format!("{what}: the answer has no access_token or expires_in"),
            )
        })?;
        Ok(Fresh {
            value: answer.access_token,
            lifetime: Some(Duration::from_secs(answer.expires_in)),
        })
    }
}
