//! A proxy in front of any fake: whatever host a request is for, it goes on to that one.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Proxy {
    /// Without a scheme.
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind = url.trim_start_matches("http://").to_owned();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heads);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (behind, noted) = (behind.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    let text = String::from_utf8_lossy(&head).into_owned();
                    noted.lock().unwrap().push(text);
                    let mut behind = TcpStream::connect(behind).await.unwrap();
                    behind.write_all(&head).await.unwrap();
                    tokio::io::copy_bidirectional(&mut stream, &mut behind)
                        .await
                        .ok();
                });
            }
        });
        Self { address, heads }
    }

    /// The first request of each connection so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
