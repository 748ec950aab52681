//! Credentials out of AWS's shared files, `~/.aws/credentials` and `~/.aws/config`: static keys, and
//! a `credential_process` that is asked again before its keys expire.
//!
//! The object store itself knows keys in options and environment, web identity, containers and
//! instances. What neither does: sign in by SSO or assume a role; the AWS CLI does that, and hands
//! the result over as a `credential_process`.
//!
//! Source: "Configuration and credential file settings" and "Sourcing credentials with an external
//! process" of the AWS SDKs and Tools Reference Guide.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use ini::{Ini, ParseOption};
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Error, ErrorKind, Result};
use crate::expiring::{Expiring, Fresh};

/// Longest wait for a credential process; one may open a browser.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer of a credential process.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Keys of a profile that mean a sign-in which only the AWS CLI and the SDKs do.
const SIGN_IN_KEYS: &[(&str, &str)] = &[
    ("role_arn", "assumes a role"),
    ("sso_session", "signs in by SSO"),
    ("sso_start_url", "signs in by SSO"),
    ("login_session", "signs in through the console"),
];

/// `builder` with the credentials and the region of a profile, where one applies: the one that
/// `asked` (the option `aws.profile`) or `AWS_PROFILE` names, or `default` if nothing else gives
/// credentials.
///
/// # Errors
/// A profile that is named and not there, or that signs in by means we do not have.
pub(crate) fn apply(
    builder: AmazonS3Builder,
    asked: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<AmazonS3Builder> {
    use AmazonS3ConfigKey::{
        AccessKeyId, ContainerCredentialsFullUri, ContainerCredentialsRelativeUri, Region,
        SkipSignature, WebIdentityTokenFile,
    };
    let given = |key: &AmazonS3ConfigKey| builder.get_config_value(key);
    let named = asked
        .map(str::to_owned)
        .or_else(|| match given(&AccessKeyId) {
            Some(_) => None,
            None => env("AWS_PROFILE").filter(|name| !name.is_empty()),
        });
    let elsewhere = [
        AccessKeyId,
        WebIdentityTokenFile,
        ContainerCredentialsRelativeUri,
        ContainerCredentialsFullUri,
    ];
    let anonymous = given(&SkipSignature).is_some_and(|v| v == "true");
    if named.is_none() && (anonymous || elsewhere.iter().any(|key| given(key).is_some())) {
        return Ok(builder);
    }
    let Some(profile) = Profile::find(named.as_deref(), env)? else {
        return Ok(builder);
    };
    let has_region = given(&Region).is_some();
    // A `default` with a region alone, as machines of AWS have it: they get their keys elsewhere.
    let builder = match named.is_some() || profile.signs_in() {
        true => builder.with_credentials(profile.credentials()?),
        false => builder,
    };
    Ok(match profile.settings.get("region") {
        Some(region) if !has_region => builder.with_region(region),
        _ => builder,
    })
}

/// One section of the shared files; where both have a key, the credentials file's counts.
struct Profile {
    name: String,
    settings: HashMap<String, String>,
}

impl Profile {
    /// The profile called `named`, which must exist, or `default` if there is one.
    fn find(named: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let name = named.unwrap_or("default");
        let place = |variable: &str, file: &str| {
            env(variable)
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(env("HOME")?).join(".aws").join(file)))
        };
        let config = place("AWS_CONFIG_FILE", "config");
        let credentials = place("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let in_config = match name {
            "default" => vec!["default".to_owned(), "profile default".to_owned()],
            other => vec![format!("profile {other}")],
        };
        let mut settings = HashMap::new();
        let mut exists = false;
        for (path, sections) in [(config, in_config), (credentials, vec![name.to_owned()])] {
            let Some(file) = path.as_ref().map(read).transpose()?.flatten() else {
                continue;
            };
            for section in sections.iter().filter_map(|s| file.section(Some(s))) {
                exists = true;
                let pairs = section
                    .iter()
                    .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
                settings.extend(pairs);
            }
        }
        match (exists, named) {
            (true, _) => Ok(Some(Self {
                name: name.to_owned(),
                settings,
            })),
            (false, None) => Ok(None),
            (false, Some(name)) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no AWS profile '{name}' in ~/.aws/config or ~/.aws/credentials (or \
                     the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name); check \
                     aws.profile and AWS_PROFILE, or give aws.access_key_id and \
                     aws.secret_access_key"
                ),
            )),
        }
    }

    /// True if it says anything about credentials.
    fn signs_in(&self) -> bool {
        let keys = [
            "credential_process",
            "aws_access_key_id",
            "aws_secret_access_key",
        ];
        let sign_in = SIGN_IN_KEYS.iter().map(|(key, _)| *key);
        let mut keys = keys.into_iter().chain(sign_in);
        keys.any(|key| self.settings.contains_key(key))
    }

    fn credentials(&self) -> Result<Arc<dyn CredentialProvider<Credential = AwsCredential>>> {
        let name = &self.name;
        if let Some(command) = self.settings.get("credential_process") {
            return Ok(Arc::new(Process {
                profile: name.clone(),
                command: command.clone(),
                held: Expiring::default(),
            }));
        }
        let kind = SIGN_IN_KEYS
            .iter()
            .find(|(key, _)| self.settings.contains_key(*key));
        if let Some((key, what)) = kind {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the AWS profile '{name}' {what} ({key}), which is left to the AWS CLI: put \
                     `credential_process = aws configure export-credentials --profile {name} \
                     --format process` into a profile and name that one, or set the variables that \
                     `aws configure export-credentials --profile {name} --format env` prints"
                ),
            ));
        }
        let get = |key: &str| self.settings.get(key).cloned();
        match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(key_id), Some(secret_key)) => {
                let credential = AwsCredential {
                    key_id,
                    secret_key,
                    token: get("aws_session_token"),
                };
                Ok(Arc::new(object_store::StaticCredentialProvider::new(
                    credential,
                )))
            }
            _ => Err(Error::invalid(format!(
                "the AWS profile '{name}' has no credentials; it needs aws_access_key_id and \
                 aws_secret_access_key, or credential_process"
            ))),
        }
    }
}

/// A file of sections; None if it is not there. Quotes and backslashes are part of a value.
fn read(path: &PathBuf) -> Result<Option<Ini>> {
    let doing = || format!("reading the AWS profiles in '{}'", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::while_doing(doing(), error)),
    };
    let options = ParseOption {
        enabled_escape: false,
        enabled_quote: false,
        // Indented keys belong to the one above (`s3 =`), not to the profile.
        enabled_preserve_key_leading_whitespace: true,
        ..ParseOption::default()
    };
    match Ini::load_from_str_opt(&text, options) {
        Ok(file) => Ok(Some(file)),
        // The library's message may quote the line, which can hold a key.
        Err(error) => Err(Error::invalid(format!(
            "{}: line {} is neither a [section] nor `key = value`",
            doing(),
            error.line
        ))),
    }
}

/// Keys that a program prints, as long as they are good.
#[derive(Debug)]
struct Process {
    profile: String,
    command: String,
    held: Expiring<AwsCredential>,
}

/// What it prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    version: u64,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[async_trait]
impl CredentialProvider for Process {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let keys = self.held.get(self.ask()).await;
        keys.map_err(|e| object_store::Error::Generic {
            store: "AWS profile",
            source: Box::new(e),
        })
    }
}

impl Process {
    /// Runs it. What it says on its error output may hold anything, so it is not repeated.
    async fn ask(&self) -> Result<Fresh<AwsCredential>> {
        let what = format!("credential_process of the AWS profile '{}'", self.profile);
        let failed = |kind, why: String| {
            let text = format!("{what} {why}; run it by hand to see what it says");
            Error::new(kind, text)
        };
        let run = Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(PROCESS_TIMEOUT, run).await {
            Ok(output) => output.map_err(|e| Error::while_doing(format!("running {what}"), e))?,
            Err(_) => {
                let why = format!("did not end in {} s", PROCESS_TIMEOUT.as_secs());
                return Err(failed(ErrorKind::Unavailable, why));
            }
        };
        if !output.status.success() {
            let why = format!("failed ({})", output.status);
            return Err(failed(ErrorKind::Denied, why));
        }
        let answer = match output.stdout.len() {
            0..=MAX_ANSWER_BYTES => serde_json::from_slice::<Answer>(&output.stdout).ok(),
            _ => None,
        };
        let Some(answer) = answer.filter(|a| a.version == 1) else {
            let why = "did not print the JSON of version 1 with AccessKeyId and SecretAccessKey";
            return Err(failed(ErrorKind::Denied, why.into()));
        };
        let expires = answer.expiration.as_deref().map(|text| {
            let nanos = string_to_timestamp_nanos(text).ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).ok()?))
        });
        let lifetime = match expires {
            None => None,
            Some(None) => {
                let why = "printed an Expiration that is no time such as 2026-01-31T00:00:00Z";
                return Err(failed(ErrorKind::Denied, why.into()));
            }
            Some(Some(at)) => match at.duration_since(SystemTime::now()) {
                Ok(left) => Some(left),
                Err(_) => return Err(failed(ErrorKind::Denied, "printed expired keys".into())),
            },
        };
        Ok(Fresh {
            value: AwsCredential {
                key_id: answer.access_key_id,
                secret_key: answer.secret_access_key,
                token: answer.session_token,
            },
            lifetime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with these two files.
    fn home(config: &str, credentials: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(dir.path().join(".aws/config"), config).unwrap();
        std::fs::write(dir.path().join(".aws/credentials"), credentials).unwrap();
        dir
    }

    /// The key that requests are signed with, and the region; or the error.
    async fn signed(
        home: &tempfile::TempDir,
        asked: Option<&str>,
        env: &[(&str, &str)],
        options: &[(AmazonS3ConfigKey, &str)],
    ) -> Result<(String, String)> {
        let env = |name: &str| match name {
            "HOME" => Some(home.path().display().to_string()),
            other => {
                let found = env.iter().find(|(key, _)| *key == other);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let mut builder = AmazonS3Builder::new().with_bucket_name("b");
        for (key, value) in options {
            builder = builder.with_config(*key, *value);
        }
        let builder = apply(builder, asked, &env)?;
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let store = builder.build().unwrap();
        let failed = |e| Error::while_doing("asking", e);
        let keys = store.credentials().get_credential().await.map_err(failed)?;
        Ok((keys.key_id.clone(), region.unwrap_or_default()))
    }

    const CONFIG: &str = "[default]\nregion = eu-west-1\n\n[profile p]\nregion=us-west-2\n\
        s3 =\n    max_concurrent_requests = 20\n# a comment\n[profile role]\nrole_arn = \
        arn:aws:iam::1:role/r\nsource_profile = default\n[profile sso]\nsso_session = corp\n\
        [sso-session corp]\nsso_region = x\n[profile none]\nregion = x\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = D\naws_secret_access_key = d/\\+=\n\
        [p]\naws_access_key_id=P\naws_secret_access_key=p\naws_session_token=t\n";

    #[tokio::test]
    async fn the_profile_that_applies() {
        let home = home(CONFIG, CREDENTIALS);
        let check = async |asked, env: &[(&str, &str)], options: &[_], key: &str, region: &str| {
            let found = signed(&home, asked, env, options).await.unwrap();
            assert_eq!(found, (key.to_owned(), region.to_owned()));
        };
        let keys = [
            (AmazonS3ConfigKey::AccessKeyId, "O"),
            (AmazonS3ConfigKey::SecretAccessKey, "o"),
        ];
        check(None, &[], &[], "D", "eu-west-1").await;
        check(None, &[("AWS_PROFILE", "p")], &[], "P", "us-west-2").await;
        check(
            Some("p"),
            &[("AWS_PROFILE", "default")],
            &[],
            "P",
            "us-west-2",
        )
        .await;
        check(None, &[("AWS_PROFILE", "p")], &keys, "O", "").await;
        check(Some("p"), &[], &keys, "P", "us-west-2").await;
        let region = [(AmazonS3ConfigKey::Region, "ap-south-1")];
        check(Some("p"), &[], &region, "P", "ap-south-1").await;
    }

    /// On a machine of AWS, whose keys come from its metadata service.
    #[tokio::test]
    async fn a_default_profile_that_only_names_a_region_leaves_the_keys_to_others() {
        for (config, credentials) in [
            ("[default]\nregion = eu-west-1\noutput = json\n", ""),
            (
                "[profile default]\nregion = eu-west-1\n",
                "[other]\naws_access_key_id = x\n",
            ),
        ] {
            let home = home(config, credentials);
            let env = |name: &str| (name == "HOME").then(|| home.path().display().to_string());
            let builder = AmazonS3Builder::new().with_bucket_name("b");
            let builder = apply(builder, None, &env).unwrap();
            let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
            assert_eq!(region.as_deref(), Some("eu-west-1"));
            let shown = format!("{:?}", builder.build().unwrap().credentials());
            assert!(shown.contains("InstanceCredentialProvider"), "{shown}");
            // One that was asked for has to have some.
            let error = signed(&home, Some("default"), &[], &[]).await.unwrap_err();
            assert!(error.to_string().contains("has no credentials"), "{error}");
        }
        // Half of a key is a mistake, not a machine's configuration.
        let home = home("[default]\nregion = x\naws_access_key_id = K\n", "");
        let error = signed(&home, None, &[], &[]).await.unwrap_err();
        assert!(error.to_string().contains("has no credentials"), "{error}");
    }

    #[tokio::test]
    async fn what_is_refused_says_the_way_out() {
        let home = home(CONFIG, CREDENTIALS);
        for (profile, part) in [
            ("role", "export-credentials --profile role"),
            ("sso", "signs in by SSO (sso_session)"),
            ("none", "has no credentials"),
            ("absent", "there is no AWS profile 'absent'"),
        ] {
            let error = signed(&home, Some(profile), &[], &[]).await.unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let bad = tempfile::tempdir().unwrap();
        std::fs::create_dir(bad.path().join(".aws")).unwrap();
        std::fs::write(bad.path().join(".aws/config"), "[x]\nhunter2 hunter2\n").unwrap();
        let error = signed(&bad, None, &[], &[]).await.unwrap_err().to_string();
        assert!(
            error.contains("line") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_process_is_asked_again_before_its_keys_expire() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let script = |expiration: &str| {
            format!(
                "[default]\ncredential_process = echo x >> '{}'; printf '%s' \
                 '{{\"Version\": 1, \"AccessKeyId\": \"K\", \"SecretAccessKey\": \"s\", \
                 \"Expiration\": \"{expiration}\"}}'\n",
                count.display()
            )
        };
        let asked = async |expiration: &str| {
            std::fs::remove_file(&count).ok();
            let home = home(&script(expiration), "");
            let env = |name: &str| (name == "HOME").then(|| home.path().display().to_string());
            let builder = AmazonS3Builder::new().with_bucket_name("b");
            let store = apply(builder, None, &env).unwrap().build().unwrap();
            for _ in 0..3 {
                match store.credentials().get_credential().await {
                    Ok(keys) => assert_eq!(keys.key_id, "K"),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(std::fs::read_to_string(&count).unwrap().lines().count())
        };
        assert_eq!(asked("2200-01-01T00:00:00Z").await, Ok(1));
        let error = asked("2001-01-01T00:00:00Z").await.unwrap_err();
        assert!(error.contains("expired keys"), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_fails_does_not_repeat_what_it_says() {
        for command in [
            "echo hunter2 >&2; exit 3",
            "echo '{\"Version\": 2, \"x\": \"hunter2\"}'",
        ] {
            let home = home(&format!("[default]\ncredential_process = {command}\n"), "");
            let error = signed(&home, None, &[], &[]).await.unwrap_err().to_string();
            assert!(error.contains("credential_process"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
