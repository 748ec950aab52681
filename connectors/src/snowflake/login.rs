//! What a login says: who signs in, how, and the parameters of the session.

use serde_json::{Map, Value, json};

use super::key_pair;
use super::settings::{Settings, SignIn};
use crate::error::{Error, Result};

/// What a login says; holds secrets.
pub(super) async fn credentials(settings: &Settings) -> Result<Map<String, Value>> {
    let mut parameters = json!({
        "AUTOCOMMIT": true,
        "TIMEZONE": "UTC",
        "QUERY_TAG": settings.query_tag,
        "ROWS_PER_RESULTSET": 0,
        "GO_QUERY_RESULT_FORMAT": "ARROW",
        "CLIENT_RESULT_CHUNK_SIZE": 48, // megabytes; the smallest that is allowed
        "DATE_INPUT_FORMAT": "YYYY-MM-DD",
        "TIME_INPUT_FORMAT": "AUTO",
        "TIMESTAMP_INPUT_FORMAT": "AUTO",
    });
    if let Some(seconds) = settings.statement_timeout_secs {
        parameters["STATEMENT_TIMEOUT_IN_SECONDS"] = json!(seconds);
    }
    let mut data = Map::new();
    let mut say = |key: &str, value: Value| data.insert(key.into(), value);
    // The server decides by these two whether it may answer in Arrow.
    say("CLIENT_APP_ID", json!("Go"));
    say("CLIENT_APP_VERSION", json!("1.19.1"));
    say("ACCOUNT_NAME", json!(settings.account));
    say("CLIENT_ENVIRONMENT", json!({"APPLICATION": "Casebook"}));
    say("SESSION_PARAMETERS", parameters);
    if let Some(user) = &settings.user {
        say("LOGIN_NAME", json!(user));
    }
    match &settings.sign_in {
        SignIn::Password(password) => {
            say("AUTHENTICATOR", json!("SNOWFLAKE"));
            say("PASSWORD", json!(password.expose()));
        }
        SignIn::OAuth(token) => {
            say("AUTHENTICATOR", json!("OAUTH"));
            say("TOKEN", json!(token.expose()));
        }
        SignIn::AccessToken(token) => {
            say("AUTHENTICATOR", json!("PROGRAMMATIC_ACCESS_TOKEN"));
            say("TOKEN", json!(token.expose()));
        }
        SignIn::KeyPair { pem, passphrase } => {
            let (pem, passphrase) = (pem.clone(), passphrase.clone());
            let account = settings.account.clone();
            let user = settings.user.clone().unwrap_or_default();
            let signed = tokio::task::spawn_blocking(move || {
                key_pair::token(&account, &user, &pem, passphrase.as_ref())
            });
            let token = signed
                .await
                .map_err(|e| Error::while_doing("opening the private key", e))??;
            say("AUTHENTICATOR", json!("SNOWFLAKE_JWT"));
            say("TOKEN", json!(token.expose()));
        }
    }
    Ok(data)
}
