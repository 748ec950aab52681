//! The client that every request goes through: timeouts, whom it trusts, its proxy, and no redirect
//! to another server.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};

use super::proxy::Proxy;
use crate::error::{Error, Result};

/// Longest request to an object store, with all that is sent or read: a file of 64 MB takes so long at
/// 2 Mbit/s. The library's 30 seconds are for small ones, and it has no limit between two reads.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);
/// Redirects within one server.
const MAX_REDIRECTS: usize = 5;

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct ClientSettings<'a> {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence. It bounds each read, not the whole transfer, so that a long result is not
    /// cut off.
    pub read_timeout: Duration,
    /// A file of certificates of authorities that are trusted as well.
    pub ca_file: Option<&'a str>,
    /// Which proxy stands between.
    pub proxy: Proxy,
}

impl Default for ClientSettings<'_> {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            ca_file: None,
            proxy: Proxy::default(),
        }
    }
}

/// A client with timeouts: none of reqwest's are on by default.
///
/// # Errors
/// A file of certificates that holds none; a proxy that is no URL.
pub fn client(settings: &ClientSettings<'_>) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout)
        .redirect(redirects())
        .user_agent(concat!("casebook/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = settings.ca_file {
        let certificates = Certificate::from_pem_bundle(&ca_pem(file)?);
        let certificates = certificates.map_err(|e| no_certificate(file).with_source(e))?;
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    settings
        .proxy
        .apply(builder)?
        .build()
        .map_err(|e| Error::while_doing("setting up HTTP", e))
}

/// Follows a few redirects within one server; what leads to another one is an answer that is
/// refused.
fn redirects() -> Policy {
    Policy::custom(|next| {
        let from = next.previous().last().map(Url::origin);
        match from.as_ref() == Some(&next.url().origin()) && next.previous().len() <= MAX_REDIRECTS
        {
            true => next.follow(),
            false => next.stop(),
        }
    })
}

/// How an object store connects whose location and credentials a warehouse lends: it trusts the
/// authorities in `ca_file` as well, and goes through the same proxy.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
#[cfg_attr(not(feature = "databricks"), allow(dead_code))] // who lends
pub(crate) fn store_options(
    ca_file: Option<&str>,
    proxy: &Proxy,
) -> Result<object_store::ClientOptions> {
    let mut options = object_store::ClientOptions::new().with_timeout(TRANSFER_TIMEOUT);
    if let Some(file) = ca_file {
        let certificates = object_store::Certificate::from_pem_bundle(&ca_pem(file)?);
        let certificates = certificates.map_err(|e| no_certificate(file).with_source(e))?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(match proxy {
        Proxy::Environment => options,
        Proxy::At(url) => options.with_proxy_url(url.expose()),
        // The library has no word for none: one that is named turns the environment's off, and
        // every host is excepted from it.
        Proxy::None => options
            .with_proxy_url("http://localhost")
            .with_proxy_excludes("*"),
    })
}

/// What tls.ca_file holds.
fn ca_pem(file: &str) -> Result<Vec<u8>> {
    let pem = std::fs::read(file)
        .map_err(|e| Error::while_doing(format!("reading the file '{file}' of tls.ca_file"), e))?;
    match memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----") {
        Some(_) => Ok(pem),
        None => Err(no_certificate(file)),
    }
}

fn no_certificate(file: &str) -> Error {
    Error::invalid(format!(
        "the file '{file}' of tls.ca_file holds no certificate in PEM form, which begins with \
         -----BEGIN CERTIFICATE-----"
    ))
}
