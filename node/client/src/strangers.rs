//! What listens at an endpoint where no client port of a node does, as far as a few bytes tell.
//!
//! It is asked only after a call failed in a way in which hardly any node lets it fail, so a cluster pays nothing for it.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a stranger has to accept, and to say something.
const PATIENCE: Duration = Duration::from_millis(500);
/// As much of an answer is read.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// What a node answers at its client port, and at no other one.
const OWN_STATUS: (&str, &str) = ("/status", "\"role\"");
/// What is answered at the operations port, and not at the client port.
const OPERATIONS: &str = "/livez";

/// What an answer begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Http { is_success: bool, text: String },
    Http2,
    Tls,
    Other,
}

/// Says what is at `address`, if it is no client port of a node: for the place of `X` in "not a client port (X)". `None` if it may
/// be one, or says nothing.
pub(crate) async fn look(address: &str) -> Option<&'static str> {
    let address = address.split_once("://").map_or(address, |(_, address)| address).trim_end_matches('/');
    let (path, word) = OWN_STATUS;
    match ask(address, path).await? {
        Heard::Http { text, .. } if text.contains(word) => None,
        Heard::Http { .. } => match ask(address, OPERATIONS).await {
            Some(Heard::Http { is_success: true, .. }) => Some("this looks like the metrics port"),
            _ => Some("this looks like another HTTP server"),
        },
        Heard::Http2 => Some("this looks like the port of the peers"),
        Heard::Tls => Some("this speaks TLS: say https://"),
        Heard::Other => Some("this is no HTTP server"),
    }
}

async fn ask(address: &str, path: &str) -> Option<Heard> {
    let mut bytes = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        // An answer of HTTP ends with its connection; others may wait for more, and what they said first tells enough.
        while (bytes.is_empty() || bytes.starts_with(b"HTTP")) && bytes.len() < ANSWER_BYTES_MAX {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                break;
            }
        }
        Some(())
    };
    // What was said before it broke counts, or before it took too long.
    let _ = timeout(PATIENCE, asking).await;
    heard(&bytes)
}

/// `None` if nothing was said.
fn heard(bytes: &[u8]) -> Option<Heard> {
    match bytes {
        [] => None,
        // A record of an alert or of a handshake, of version 3.
        [0x15 | 0x16, 3, ..] => Some(Heard::Tls),
        // A frame of settings or of farewell on stream 0.
        [0, _, _, 4 | 7, _, 0, 0, 0, 0, ..] => Some(Heard::Http2),
        _ if bytes.starts_with(b"HTTP/1.") => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let is_success = text.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
            // How Go's and nginx's servers say that they want TLS, and nodes.
            if text.contains("HTTP request to an HTTPS server")
                || text.contains("HTTP request was sent to HTTPS port")
                || text.contains("this port speaks TLS")
            {
                return Some(Heard::Tls);
            }
            Some(Heard::Http { is_success, text })
        }
        _ => Some(Heard::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Listens, and says these to whoever asks for their paths.
    async fn server(answers: &'static [(&'static str, &'static [u8])]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = vec![0; 1_024];
                let read = stream.read(&mut asked).await.unwrap_or_default();
                let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
                let answer = answers.iter().find(|(path, _)| asked.contains(path));
                let _ = stream.write_all(answer.map_or(b"", |(_, bytes)| bytes)).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn strangers_are_known_by_what_they_say() {
        const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        const OWN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{\"role\":\"Leader\",\"term\":2}";
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        for (said, answers) in [
            (None, &[("/status", OWN)][..]),
            (Some("metrics port"), &[("/status", NOT_FOUND), ("/livez", OK)]),
            (Some("another HTTP server"), &[("/status", NOT_FOUND), ("/livez", NOT_FOUND)]),
            (Some("port of the peers"), &[("/status", SETTINGS)]),
            (Some("TLS"), &[("/status", &[0x15, 3, 1, 0, 2, 2, 22])]),
            (
                Some("TLS"),
                &[(
                    "/status",
                    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
                )],
            ),
            (Some("no HTTP server"), &[("/status", b"SSH-2.0-OpenSSH_9.9\r\n")]),
            (None, &[("/status", b"")]),
        ] {
            let found = look(&server(answers).await).await;
            assert_eq!(found.is_some(), said.is_some(), "{said:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(said.unwrap_or_default()), "{said:?}: {found:?}");
        }
    }
}
