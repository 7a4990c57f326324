//! How `raftq scale` asks `raftq up` to run more nodes, or fewer: a line of JSON each way, on a port of the loopback.
//!
//! Whoever has asked for something first has the only say until its connection ends, so two of them never work against each
//! other. Like the clients' port it asks nobody who they are, and it takes nothing but numbers of nodes.

use crate::failure::Failure;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

/// The port, counted from that of the first node.
const PORT_OFFSET: u16 = 3;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// How long an answer may take: nodes that stop have seconds to do so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most nodes of one cluster.
pub(crate) const NODES_MAX: u16 = 9;

/// The port on which a cluster is asked.
pub(super) fn port(base_port: u16) -> u16 {
    base_port + PORT_OFFSET
}

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// So many nodes; `None`: as many as there are.
    pub(crate) nodes: Option<u16>,
    /// These begin anew with a blank disk, by number: no cluster counts on what they have.
    pub(crate) blank: Vec<u16>,
}

/// A node that `raftq up` keeps running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where it serves clients.
    pub(crate) endpoint: String,
    /// Its process; `None` while it does not run.
    pub(crate) pid: Option<u32>,
}

/// A request to the loop that owns the nodes.
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    pub(super) answer: oneshot::Sender<Result<Vec<Row>, String>>,
}

impl Wanted {
    fn write(&self) -> Value {
        json!({"nodes": self.nodes, "blank": self.blank})
    }

    fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let nodes = match value.get("nodes")? {
            Value::Null => None,
            count => Some(number(count).filter(|count| (1..=NODES_MAX).contains(count))?),
        };
        let blank = value.get("blank")?.as_array()?.iter().map(number).collect::<Option<_>>()?;
        Some(Self { nodes, blank })
    }
}

fn write_answer(answer: &Result<Vec<Row>, String>) -> Value {
    match answer {
        Ok(rows) => {
            let row = |row: &Row| json!({"endpoint": row.endpoint, "pid": row.pid});
            json!({"nodes": rows.iter().map(row).collect::<Vec<_>>()})
        }
        Err(why) => json!({"error": why}),
    }
}

fn read_answer(line: &str) -> Option<Result<Vec<Row>, String>> {
    let value: Value = serde_json::from_str(line).ok()?;
    if let Some(why) = value.get("error") {
        return Some(Err(why.as_str()?.to_owned()));
    }
    let row = |value: &Value| {
        let pid = value.get("pid")?.as_u64().and_then(|pid| u32::try_from(pid).ok());
        Some(Row { endpoint: value.get("endpoint")?.as_str()?.to_owned(), pid })
    };
    value.get("nodes")?.as_array()?.iter().map(row).collect::<Option<_>>().map(Ok)
}

/// Passes on what is asked, as long as it is polled.
pub(super) async fn serve(listener: TcpListener, asked: mpsc::Sender<Asked>) {
    let say = Arc::new(Mutex::new(()));
    let mut connections = JoinSet::new();
    loop {
        let free = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            accepted = listener.accept(), if free => match accepted {
                Ok((stream, _)) => drop(connections.spawn(answer(stream, asked.clone(), Arc::clone(&say)))),
                // Without descriptors nothing can be accepted for a while.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers one connection until it ends, or says something that is not understood.
async fn answer(stream: TcpStream, asked: mpsc::Sender<Asked>, say: Arc<Mutex<()>>) {
    let mut lines = Lines::new(stream);
    let mut has_say = None;
    while let Some(line) = lines.next().await {
        let answer = match Wanted::read(&line) {
            None => return,
            Some(wanted) => {
                if has_say.is_none() {
                    has_say = say.try_lock().ok();
                }
                match has_say {
                    None => Err("another `raftq scale` is at work: wait for its end".to_owned()),
                    Some(_) => ask(&asked, wanted).await,
                }
            }
        };
        if !lines.say(&write_answer(&answer)).await {
            return;
        }
    }
}

async fn ask(asked: &mpsc::Sender<Asked>, wanted: Wanted) -> Result<Vec<Row>, String> {
    let (answer, answered) = oneshot::channel();
    let stops = || "`raftq up` stops".to_owned();
    asked.send(Asked { wanted, answer }).await.map_err(|_| stops())?;
    answered.await.map_err(|_| stops())?
}

struct Lines {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Lines {
    fn new(stream: TcpStream) -> Self {
        let (from, to) = stream.into_split();
        Self { from: BufReader::new(from), to }
    }

    /// The next line, whole and of bounded length; else nothing.
    async fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        (&mut self.from).take(LINE_BYTES_MAX).read_line(&mut line).await.ok()?;
        line.ends_with('\n').then_some(line)
    }

    async fn say(&mut self, value: &Value) -> bool {
        self.to.write_all(format!("{value}\n").as_bytes()).await.is_ok()
    }
}

/// The other end: `raftq up`, as it is asked.
pub(crate) struct Link {
    lines: Lines,
    port: u16,
}

impl Link {
    /// Finds the `raftq up` whose first node has this port.
    pub(crate) async fn connect(base_port: u16) -> Result<Self, Failure> {
        let port = port(base_port);
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| {
            Failure::Failed(format!(
                "no `raftq up` answers on 127.0.0.1:{port} ({error}): start one, or say its --base-port"
            ))
        })?;
        Ok(Self { lines: Lines::new(stream), port })
    }

    /// Has these nodes run, and says which do.
    pub(crate) async fn ask(&mut self, wanted: &Wanted) -> Result<Vec<Row>, Failure> {
        let exchange = async {
            if !self.lines.say(&wanted.write()).await {
                return None;
            }
            read_answer(&self.lines.next().await?)
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.ok().flatten();
        let gone = format!("what answers on 127.0.0.1:{} is no `raftq up`, or it has stopped", self.port);
        answer.ok_or(Failure::Failed(gone))?.map_err(Failure::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_others_refused() {
        for wanted in [
            Wanted { nodes: None, blank: Vec::new() },
            Wanted { nodes: Some(5), blank: vec![3, 4] },
            Wanted { nodes: Some(9), blank: Vec::new() },
        ] {
            assert_eq!(Wanted::read(&wanted.write().to_string()), Some(wanted));
        }
        let row = Row { endpoint: "127.0.0.1:7420".into(), pid: Some(12) };
        for answer in [Ok(vec![row.clone(), Row { pid: None, ..row }]), Err("no".to_owned())] {
            assert_eq!(read_answer(&write_answer(&answer).to_string()), Some(answer));
        }
        for bad in [
            "POST / HTTP/1.1",
            "{}",
            "[]",
            r#"{"nodes": 0, "blank": []}"#,
            r#"{"nodes": 10, "blank": []}"#,
            r#"{"nodes": -1, "blank": []}"#,
            r#"{"nodes": 3, "blank": ["x"]}"#,
            r#"{"nodes": 3}"#,
        ] {
            assert_eq!(Wanted::read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn one_at_a_time_has_the_say() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base_port = listener.local_addr().expect("an address").port() - PORT_OFFSET;
        let (asked, mut asking) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(listener, asked));
        tokio::spawn(async move {
            while let Some(Asked { answer, .. }) = asking.recv().await {
                let _ = answer.send(Ok(Vec::new()));
            }
        });
        let look = Wanted { nodes: None, blank: Vec::new() };
        let mut first = Link::connect(base_port).await.expect("it listens");
        first.ask(&look).await.expect("nobody else asks");
        let mut second = Link::connect(base_port).await.expect("it listens");
        let Err(Failure::Failed(why)) = second.ask(&look).await else { panic!("it is refused") };
        assert!(why.contains("another `raftq scale` is at work"), "{why}");
        first.ask(&look).await.expect("it is still its turn");
        drop(first);
        while second.ask(&look).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
