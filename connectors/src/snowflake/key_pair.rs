//! The signed token of a key-pair login, from a PKCS#8 key that may be encrypted.

use pkcs8::der::pem::LineEnding;
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The token with which `user` of `account` signs in. Slow (it opens the key), so it does not
/// belong on an async thread.
///
/// # Errors
/// A key that is not PKCS#8, or a missing or wrong passphrase. Errors never quote the key.
pub(super) fn token(
    account: &str,
    user: &str,
    pem: &Secret,
    passphrase: Option<&Secret>,
) -> Result<Secret> {
    let pem = opened(pem, passphrase)?;
    let name = format!("{account}.{}", user.to_uppercase());
    snowflake_jwt::generate_jwt_token(pem.expose(), &name)
        .map(Secret::new)
        .map_err(|_| {
            Error::invalid(
                "signing in to Snowflake: the private key is not an RSA key in PKCS#8 form; make \
                 one with: openssl genrsa 2048 | openssl pkcs8 -topk8 -inform PEM -nocrypt",
            )
        })
}

/// The key in plain PKCS#8 PEM form.
fn opened(pem: &Secret, passphrase: Option<&Secret>) -> Result<Secret> {
    let unusable = |what: &str| Error::invalid(format!("opening the private key: {what}"));
    let text = pem.expose().trim();
    let (label, document) = SecretDocument::from_pem(text)
        .map_err(|_| unusable("it is not in PEM form (-----BEGIN ... PRIVATE KEY-----)"))?;
    match (label, passphrase) {
        ("PRIVATE KEY", None) => Ok(Secret::new(text)),
        ("PRIVATE KEY", Some(_)) => Err(unusable(
            "it is not encrypted, but snowflake.private_key_passphrase is given; remove that",
        )),
        ("ENCRYPTED PRIVATE KEY", None) => Err(unusable(
            "it is encrypted; give snowflake.private_key_passphrase",
        )),
        ("ENCRYPTED PRIVATE KEY", Some(passphrase)) => {
            let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
                .map_err(|_| unusable("its encryption is not one of PKCS#5 v2"))?;
            let plain = info.decrypt(passphrase.expose()).map_err(|_| {
                unusable("snowflake.private_key_passphrase does not open it, or is not for it")
            })?;
            let pem = plain
                .to_pem("PRIVATE KEY", LineEnding::LF)
                .map_err(|_| unusable("its content is not a key"))?;
            Ok(Secret::new(pem.as_str()))
        }
        ("RSA PRIVATE KEY", _) => Err(unusable(
            "it is in PKCS#1 form; convert it with: openssl pkcs8 -topk8 -nocrypt -in KEY.pem",
        )),
        (other, _) => Err(unusable(&format!(
            "it is a {other}, not a PKCS#8 PRIVATE KEY"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as Snowflake's manual has users make them, with the openssl program: the same key
    /// plain, encrypted with triple DES, and with AES.
    struct Keys {
        plain: String,
        des3: String,
        aes: String,
    }

    fn keys() -> Keys {
        let openssl = |arguments: &str, input: &str| -> String {
            use std::io::Write;
            use std::process::{Command, Stdio};
            let mut child = Command::new("openssl")
                .args(arguments.split(' '))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the openssl program");
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "openssl {arguments}");
            String::from_utf8(output.stdout).unwrap()
        };
        let plain = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "");
        let encrypted = |cipher: &str| {
            let arguments = format!("pkcs8 -topk8 -v2 {cipher} -passout pass:open-sesame");
            openssl(&arguments, &plain)
        };
        Keys {
            des3: encrypted("des3"),
            aes: encrypted("aes256"),
            plain,
        }
    }

    fn claims(pem: &str, passphrase: Option<&str>) -> Result<String> {
        use base64::Engine;
        let passphrase = passphrase.map(Secret::new);
        let token = token("ACCT", "me", &Secret::new(pem), passphrase.as_ref())?;
        let body = token.expose().split('.').nth(1).unwrap().to_owned();
        let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body);
        Ok(String::from_utf8(body.unwrap()).unwrap())
    }

    #[test]
    fn encrypted_keys_sign_as_the_plain_one_does() {
        let issuer = |claims: String| -> String {
            let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
            assert_eq!(claims["sub"], "ACCT.ME");
            claims["iss"].as_str().unwrap().to_owned()
        };
        let keys = keys();
        let plain = issuer(claims(&keys.plain, None).unwrap());
        assert!(plain.starts_with("ACCT.ME.SHA256:"), "{plain}");
        assert_eq!(
            issuer(claims(&keys.des3, Some("open-sesame")).unwrap()),
            plain
        );
        assert_eq!(
            issuer(claims(&keys.aes, Some("open-sesame")).unwrap()),
            plain
        );
    }

    #[test]
    fn errors_say_what_to_do_and_quote_no_key() {
        let check = |pem: &str, passphrase: Option<&str>, expected: &str| {
            let error = claims(pem, passphrase).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                !error.contains("hunter2") && !error.contains("MII"),
                "{error}"
            );
        };
        let keys = keys();
        check(&keys.aes, None, "give snowflake.private_key_passphrase");
        check(&keys.aes, Some("hunter2"), "does not open it");
        check(&keys.plain, Some("hunter2"), "is not encrypted");
        check("hunter2", None, "not in PEM form");
        let old = keys.plain.replace("PRIVATE KEY", "RSA PRIVATE KEY");
        check(&old, None, "openssl pkcs8 -topk8");
    }
}
