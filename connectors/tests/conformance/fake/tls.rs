//! TLS in front of any fake, with a certificate that an authority of the test's own signed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) struct Tls {
    /// `https://` and a name that the certificate is for.
    pub(crate) url: String,
    /// The authority that signed it.
    pub(crate) ca_file: PathBuf,
    /// Another authority.
    pub(crate) other_ca_file: PathBuf,
    _dir: tempfile::TempDir,
}

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("the openssl program");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

impl Tls {
    /// What comes over TLS goes on to the server at `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = "-newkey rsa:2048 -nodes -sha256";
        for ca in ["ca", "other"] {
            let name = format!("-subj /CN=authority-{ca} -keyout {ca}.key -out {ca}.pem");
            openssl(dir.path(), &format!("req -x509 {new} -days 2 {name}"));
        }
        std::fs::write(dir.path().join("san"), "subjectAltName=DNS:localhost\n").unwrap();
        let request = "-subj /CN=localhost -keyout server.key -out server.csr";
        openssl(dir.path(), &format!("req {new} {request}"));
        openssl(
            dir.path(),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -sha256 \
             -extfile san -out server.pem",
        );
        let certificates: Vec<_> = CertificateDer::pem_file_iter(dir.path().join("server.pem"))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(dir.path().join("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = url.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // Who does not trust the certificate goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut behind = TcpStream::connect(behind).await.unwrap();
                    tokio::io::copy_bidirectional(&mut stream, &mut behind)
                        .await
                        .ok();
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            ca_file: dir.path().join("ca.pem"),
            other_ca_file: dir.path().join("other.pem"),
            _dir: dir,
        }
    }
}
