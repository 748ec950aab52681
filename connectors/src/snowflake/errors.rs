//! Snowflake's refusals as errors that say what to do.

use super::messages::{QueryData, Reply};
use super::name::{TableName, quoted};
use super::settings::{Settings, SignIn};
use crate::error::{Error, ErrorKind, said};

/// The session's token has expired: renew it.
pub(super) const EXPIRED: &str = "390112";
/// The session is gone, or the token that could renew it: sign in again.
pub(super) const SESSION_LOST: [&str; 6] =
    ["390104", "390110", "390111", "390113", "390114", "390115"];
/// The statement still runs.
pub(super) const RUNNING: [&str; 2] = ["333333", "333334"];

/// A refused login.
pub(super) fn sign_in<T>(settings: &Settings, reply: &Reply<T>) -> Error {
    let who = match &settings.user {
        Some(user) => format!(" as {user}"),
        None => String::new(),
    };
    let advice = match (reply.code(), &settings.sign_in) {
        ("390189" | "390201", _) => "check snowflake.role, and that it is granted to the user",
        ("390186", _) => "check snowflake.warehouse",
        (_, SignIn::Password(_)) => {
            "check snowflake.user and snowflake.password; where the account asks for a second \
             factor, use a key pair or a programmatic access token instead"
        }
        (_, SignIn::KeyPair { .. }) => {
            "check snowflake.account, snowflake.user, that the public key is the user's (ALTER \
             USER ... SET RSA_PUBLIC_KEY), and that the clock of this machine is right, because \
             the login is signed with its time"
        }
        (_, SignIn::OAuth(_)) => "the token of snowflake.oauth_token may have expired: get another",
        (_, SignIn::AccessToken(_)) => {
            "the token of snowflake.access_token may have expired, or needs a network policy"
        }
    };
    Error::new(
        ErrorKind::Denied,
        format!(
            "signing in to Snowflake account {}{who}: {} ({}); {advice}",
            settings.account,
            message(reply),
            reply.code()
        ),
    )
}

/// A refused statement, sent while `doing`.
pub(super) fn statement(doing: &str, settings: &Settings, reply: &Reply<QueryData>) -> Error {
    let role = settings.role.as_deref();
    let role = role.map_or("the user's role".into(), |r| format!("role {r}"));
    let (kind, advice) = match reply.code() {
        "002003" | "002043" => (
            ErrorKind::NotFound,
            format!("; check the name, and that {role} may see it"),
        ),
        "003001" | "003540" => (
            ErrorKind::Denied,
            format!("; grant the privilege to {role}"),
        ),
        "000606" | "000607" => (
            ErrorKind::InvalidInput,
            "; set snowflake.warehouse to one that the role may use".into(),
        ),
        "000904" => (
            ErrorKind::InvalidInput,
            "; the table's columns may have changed: CREATE EXTERNAL TABLE again".into(),
        ),
        "000630" => (
            ErrorKind::Exhausted,
            "; raise snowflake.statement_timeout_secs or read less".into(),
        ),
        "000604" | "000605" => (ErrorKind::Unavailable, "; someone stopped it".into()),
        "000625" | "000629" => (ErrorKind::Unavailable, "; run it again".into()),
        _ => (ErrorKind::InvalidInput, String::new()),
    };
    let state = reply.data.as_ref().and_then(|d| d.sql_state.as_deref());
    let id = reply.data.as_ref().and_then(|d| d.query_id.as_deref());
    let id = id.map_or(String::new(), |id| format!(", query {id}"));
    Error::new(
        kind,
        format!(
            "{doing}: {} ({}{}{id}){advice}",
            message(reply),
            reply.code(),
            state.map_or(String::new(), |s| format!(", SQLSTATE {s}")),
        ),
    )
}

/// The server's message, short.
fn message<T>(reply: &Reply<T>) -> String {
    said(reply.message.as_deref().unwrap_or("no reason given"))
}

/// A table that is under none of its names.
pub(super) fn missing(settings: &Settings, name: &TableName) -> Error {
    let names: Vec<String> = name.candidates().iter().map(|p| quoted(p)).collect();
    let role = settings.role.as_deref();
    let role = role.map_or("the user's role".into(), |r| format!("role {r}"));
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no table {} in Snowflake, or {role} may not see it; check the name and the \
             role, or, to create it, say OPTIONS ('table.create' 'qa_pairs')",
            names.join(" and no ")
        ),
    )
}
