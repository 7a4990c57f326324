//! How `raftq scale` asks `raftq up` to run more nodes, or fewer, and `raftq kill` to kill one: a line of JSON each way, on a
//! port of the loopback.
//!
//! Whoever has asked for other nodes first has the only say about them until its connection ends, so two of them never work
//! against each other. Like the clients' port it asks nobody who they are, and it takes nothing but numbers of nodes.

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

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Which nodes there are.
    Look,
    /// That these run, and no others.
    Run(Wanted),
    /// That the process of this node, by number, is killed. The answer is the row that it had.
    Kill(u16),
}

/// A node that `raftq up` keeps running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where it serves clients.
    pub(crate) endpoint: String,
    /// Its process; `None` while it does not run.
    pub(crate) pid: Option<u32>,
    /// It is started again when it dies.
    pub(crate) restarts: bool,
}

/// A request to the loop that owns the nodes.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Vec<Row>, String>>,
}

impl Request {
    fn write(&self) -> Value {
        match self {
            Request::Look => json!({"look": true}),
            Request::Run(wanted) => json!({"nodes": wanted.nodes, "blank": wanted.blank}),
            Request::Kill(node) => json!({"kill": node}),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        if value.get("look").is_some() {
            return Some(Request::Look);
        }
        if let Some(node) = value.get("kill") {
            return number(node).map(Request::Kill);
        }
        let nodes = match value.get("nodes")? {
            Value::Null => None,
            count => Some(number(count).filter(|count| (1..=NODES_MAX).contains(count))?),
        };
        let blank = value.get("blank")?.as_array()?.iter().map(number).collect::<Option<_>>()?;
        Some(Request::Run(Wanted { nodes, blank }))
    }
}

fn write_answer(answer: &Result<Vec<Row>, String>) -> Value {
    match answer {
        Ok(rows) => {
            let row = |row: &Row| json!({"endpoint": row.endpoint, "pid": row.pid, "restarts": row.restarts});
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
        let restarts = value.get("restarts").and_then(Value::as_bool).unwrap_or(true);
        Some(Row { endpoint: value.get("endpoint")?.as_str()?.to_owned(), pid, restarts })
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
        let request = Request::read(&line);
        let is_understood = request.is_some();
        if matches!(request, Some(Request::Run(_))) && has_say.is_none() {
            has_say = say.try_lock().ok();
        }
        let answer = match request {
            None => Err("this port is for `raftq scale` and `raftq kill`".to_owned()),
            Some(Request::Run(_)) if has_say.is_none() => {
                Err("another `raftq scale` is at work: wait for its end".to_owned())
            }
            Some(request) => ask(&asked, request).await,
        };
        if !lines.say(&write_answer(&answer)).await || !is_understood {
            return;
        }
    }
}

async fn ask(asked: &mpsc::Sender<Asked>, request: Request) -> Result<Vec<Row>, String> {
    let (answer, answered) = oneshot::channel();
    let stops = || "`raftq up` stops".to_owned();
    asked.send(Asked { request, answer }).await.map_err(|_| stops())?;
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
    /// Finds the `raftq up` whose first node has one of these ports; the first one that answers.
    pub(crate) async fn connect(base_ports: &[u16]) -> Result<Self, Failure> {
        let mut why = Failure::Usage("no port is given".into());
        for (position, base_port) in base_ports.iter().enumerate() {
            let port = port(*base_port);
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => return Ok(Self { lines: Lines::new(stream), port }),
                Err(_) if position > 0 => {}
                Err(error) => {
                    why = Failure::Failed(format!(
                        "no `raftq up` answers on 127.0.0.1:{port} ({error}): start one, or say its --base-port"
                    ));
                }
            }
        }
        Err(why)
    }

    /// Asks something, and returns the nodes that it is about.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Vec<Row>, Failure> {
        let exchange = async {
            if !self.lines.say(&request.write()).await {
                return None;
            }
            read_answer(&self.lines.next().await?)
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.ok().flatten();
        let gone = format!("what answers on 127.0.0.1:{} is no `raftq up`, or it has stopped", self.port);
        answer.ok_or(Failure::Failed(gone))?.map_err(Failure::Failed)
    }
}

/// Where the first node of the `raftq up` that is meant may be: as said; else the first of the endpoints that are told, if they are
/// of this machine, or up to eight nodes before it; else where it is by default.
pub(crate) fn base_ports(said: Option<u16>, told: &[String]) -> Result<Vec<u16>, Failure> {
    if let Some(port) = said {
        return Ok(vec![port]);
    }
    if told.is_empty() {
        return Ok(vec![super::BASE_PORT_DEFAULT]);
    }
    let is_here = |host: &str| host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let here = told.iter().filter_map(|endpoint| {
        let (host, port) = endpoint.rsplit_once(':')?;
        is_here(host).then(|| port.parse::<u16>().ok())?
    });
    let Some(first) = here.min() else {
        return Err(Failure::Usage(format!(
            "this acts on a `raftq up` of this machine, and {} is elsewhere: say its --base-port",
            told.join(",")
        )));
    };
    Ok((0..NODES_MAX).filter_map(|node| first.checked_sub(node * super::PORTS_PER_NODE)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_others_refused() {
        for request in [
            Request::Look,
            Request::Kill(2),
            Request::Run(Wanted { nodes: None, blank: Vec::new() }),
            Request::Run(Wanted { nodes: Some(5), blank: vec![3, 4] }),
            Request::Run(Wanted { nodes: Some(9), blank: Vec::new() }),
        ] {
            assert_eq!(Request::read(&request.write().to_string()), Some(request));
        }
        let row = Row { endpoint: "127.0.0.1:7420".into(), pid: Some(12), restarts: true };
        for answer in [Ok(vec![row.clone(), Row { pid: None, restarts: false, ..row }]), Err("no".to_owned())]
        {
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
            r#"{"kill": "node-1"}"#,
        ] {
            assert_eq!(Request::read(bad), None, "{bad}");
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
        let run = Request::Run(Wanted { nodes: None, blank: Vec::new() });
        let mut first = Link::connect(&[base_port]).await.expect("it listens");
        first.ask(&run).await.expect("nobody else asks");
        let mut second = Link::connect(&[base_port]).await.expect("it listens");
        let Err(Failure::Failed(why)) = second.ask(&run).await else { panic!("it is refused") };
        assert!(why.contains("another `raftq scale` is at work"), "{why}");
        second.ask(&Request::Kill(0)).await.expect("that is no say about who runs");
        second.ask(&Request::Look).await.expect("nor is that");
        first.ask(&run).await.expect("it is still its turn");
        drop(first);
        while second.ask(&run).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_up_that_is_meant_is_found_by_the_endpoints_that_are_told() {
        let told = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(base_ports(Some(8_420), &told("h:1")).expect("it is said"), [8_420]);
        assert_eq!(base_ports(None, &[]).expect("the default"), [7_420]);
        let ports =
            base_ports(None, &told("queue:7420,127.0.0.1:8440,localhost:8430")).expect("two are here");
        assert_eq!((ports[0], ports[1], ports.len()), (8_430, 8_420, 9));
        assert!(matches!(base_ports(None, &told("queue:7420")), Err(Failure::Usage(_))));
    }
}
