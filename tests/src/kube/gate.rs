//! A gate between one client and the API server: a call passes, is answered at the gate, is carried out without an answer, or has
//! its connection cut. So tests see what becomes of a client whose API server misbehaves, or that dies at a call of its choice.
//!
//! One call, one connection. The way to the API server is `kubectl proxy`, so the client needs no key and speaks plain HTTP.

use super::error::Error;
use super::own::Own;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most bytes of the head of a call.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Such as `PATCH`.
    pub method: String,
    /// With its question mark and what follows.
    pub path: String,
}

impl Call {
    /// It changes something.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE")
    }

    /// It is one that lasts.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.path.contains("watch=true")
    }

    /// It is about objects of this kind, named as in paths.
    #[must_use]
    pub fn is_about(&self, plural: &str) -> bool {
        self.path.split(['/', '?']).any(|part| part == plural)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// The API server does it; the client never hears of it.
    Silence,
    /// The API server does it; whether the client hears of it is asked then, by [`Porter::lets_hear`].
    Ask,
    /// The API server never hears of it; this is the answer.
    Answer {
        /// The status.
        code: u16,
        /// The reason of a `Status` object.
        reason: &'static str,
    },
    /// It passes, and its connection is cut after so long.
    Cut(Duration),
}

/// Who judges the calls.
pub trait Porter: Send + Sync + 'static {
    /// What becomes of this one.
    fn judge(&self, call: &Call) -> Verdict;

    /// One that was to be asked about was carried out. The object is known by its uid and its version, where the answer has both: a
    /// call that changes nothing leaves them as they were.
    fn lets_hear(&self, _call: &Call, _object: Option<(String, String)>) -> bool {
        true
    }
}

/// A gate that is open until it is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Gate {
    /// Opens one in the network of the cluster.
    ///
    /// # Errors
    /// [`Error::Io`]; those of the start of `kubectl proxy`.
    pub fn open(own: &Own, porter: Arc<dyn Porter>) -> Result<Self, Error> {
        let server = own.plain_door()?;
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&closed);
        let address = own.entrance().work_in_network(|| -> Result<SocketAddr, Error> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("open a gate"))?;
            let address = listener.local_addr().map_err(Error::io("open a gate"))?;
            // Threads that this one starts are in its network.
            std::thread::spawn(move || serve(&listener, server, &porter, &is_closed));
            Ok(address)
        })??;
        Ok(Self { address, closed })
    }

    /// A kubeconfig of what is behind the gate, for somebody who may do everything, or for somebody who may do what `user` may.
    #[must_use]
    pub fn kubeconfig(&self, user: Option<&str>) -> String {
        let user = user.map(|user| format!("as: \"{user}\"")).unwrap_or_default();
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: gate, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: gate, user: {{{user}}}}}]\ncontexts: [{{name: gate, context: {{cluster: gate, user: gate}}}}]\n\
             current-context: gate\n",
            self.address
        )
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Until the first call after the gate was closed.
fn serve(listener: &TcpListener, server: SocketAddr, porter: &Arc<dyn Porter>, is_closed: &AtomicBool) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        if is_closed.load(Ordering::Relaxed) {
            return;
        }
        let porter = Arc::clone(porter);
        // A connection that breaks is the client's to judge.
        std::thread::spawn(move || drop(pass(client, server, &*porter)));
    }
}

fn pass(client: TcpStream, server: SocketAddr, porter: &dyn Porter) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some((call, request)) = read(&mut reader)? else { return Ok(()) };
    let verdict = porter.judge(&call);
    if let Verdict::Answer { code, reason } = verdict {
        return answer(client, code, reason);
    }
    let mut upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    upstream.write_all(&request)?;
    match verdict {
        Verdict::Silence => {
            upstream.read_to_end(&mut Vec::new())?;
            client.shutdown(Shutdown::Both)
        }
        Verdict::Ask => {
            let (mut answer, mut client) = (Vec::new(), client);
            upstream.read_to_end(&mut answer)?;
            if porter.lets_hear(&call, object_in(&String::from_utf8_lossy(&answer))) {
                client.write_all(&answer)?;
            }
            client.shutdown(Shutdown::Both)
        }
        Verdict::Cut(after) => {
            let ends = [client.try_clone()?, upstream.try_clone()?];
            std::thread::spawn(move || {
                std::thread::sleep(after);
                ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
            });
            relay(upstream, client)
        }
        _ => relay(upstream, client),
    }
}

/// The answer as it comes, until its end, or until the client goes away.
fn relay(mut upstream: TcpStream, mut client: TcpStream) -> std::io::Result<()> {
    let (mut from, to) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = from.read(&mut [0]);
        let _ = to.shutdown(Shutdown::Both);
    });
    client.set_nodelay(true)?;
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// A call and its bytes, made the only one of its connection.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(Call, Vec<u8>)>> {
    let (mut head, mut length) = (Vec::new(), 0_usize);
    loop {
        let mut line = String::new();
        if reader.take(HEAD_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "connection" => continue,
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
        head.push(line);
    }
    let Some(first) = head.first() else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = format!("{}Connection: close\r\n\r\n", head.concat()).into_bytes();
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.extend(body);
    Ok(Some((Call { method, path }, request)))
}

/// Uid and version of the object in an answer of success; the version is empty where it was deleted at once.
fn object_in(answer: &str) -> Option<(String, String)> {
    let is_done = answer.starts_with("HTTP/1.1 2");
    let value = |field: &str| {
        let (_, rest) = answer.split_once(&format!("\"{field}\":\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    is_done.then(|| Some((value("uid")?, value("resourceVersion").unwrap_or_default()))).flatten()
}

fn answer(mut client: TcpStream, code: u16, reason: &str) -> std::io::Result<()> {
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": format!("the gate says {reason}")})
    .to_string();
    let retry = if code == 429 { "Retry-After: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry}Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    client.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_known_by_its_uid_and_its_version() {
        let body =
            r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"7","ownerReferences":[{"uid":"v"}]}}"#;
        let answer = |code: u16| format!("HTTP/1.1 {code} OK\r\nContent-Type: a\r\n\r\n{body}");
        assert_eq!(object_in(&answer(201)), Some(("u".into(), "7".into())));
        assert_eq!(object_in(&answer(409)), None);
    }

    #[test]
    fn a_call_knows_what_it_is() {
        let call = |method: &str, path: &str| Call { method: method.into(), path: path.into() };
        let status =
            call("PATCH", "/apis/raftqueue.io/v1alpha1/namespaces/a/raftqueues/demo/status?force=true");
        assert!(status.writes() && !status.watches());
        assert!(status.is_about("raftqueues") && status.is_about("status") && !status.is_about("pods"));
        let watch = call("GET", "/api/v1/pods?watch=true&labelSelector=a");
        assert!(!watch.writes() && watch.watches() && watch.is_about("pods"));
    }
}
