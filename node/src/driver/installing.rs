//! Getting a snapshot of another node, and giving others what they lack.

use super::Driver;
use crate::api::codec;
use crate::driver::inbox::{Notice, Wanted};
use crate::driver::keeper::Giver;
use crate::driver::mending::Holder;
use crate::peers::giving;
use crate::peers::transport::Transport;
use crate::replica::{Arrived, Asked, Event, Freeze, Gift};
use crate::wire::giving::GIVEN_MAX;
use raftqueue_queue::{StateBuilder, TopicId};
use raftqueue_raft::{Index, Install, NodeId};
use raftqueue_wal::{Reader, RecordName, SnapshotFile, SnapshotWriter};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// Pause before a snapshot is asked for again that could not be got.
const PAUSE: Duration = Duration::from_millis(500);

/// Where getting a snapshot stands.
#[derive(Debug, Default)]
pub(super) struct Installing {
    /// One is on its way.
    is_fetching: bool,
    /// None is asked for before this moment.
    not_before: Option<Instant>,
    /// One is here, aside.
    arrived: Option<SnapshotFile>,
    /// Why none could be got the last time.
    pub(super) why: Option<String>,
}

/// The other nodes, asked one after the other for what this one lacks.
#[derive(Debug)]
pub(crate) struct Givers {
    transport: Transport,
    handle: Handle,
    /// True once the process ends: nobody is waited for then.
    stopping: watch::Receiver<bool>,
    /// Who gave something last.
    last: Option<NodeId>,
    /// Who answered last.
    answered: Option<NodeId>,
}

impl Givers {
    /// They are asked on the threads of `handle`.
    pub(crate) fn new(transport: Transport, handle: Handle, stopping: watch::Receiver<bool>) -> Self {
        Self { transport, handle, stopping, last: None, answered: None }
    }
}

impl Giver for Givers {
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        let mut told = Vec::new();
        let mut others = self.transport.connected();
        others.sort_by_key(|other| Some(*other) != self.last);
        for other in others.into_iter().skip(passed) {
            let stopping = &mut self.stopping;
            let asked = async {
                tokio::select! {
                    gift = giving::ask_messages(&self.transport, other, topic, wanted) => gift,
                    // It fails only when whoever says so has gone.
                    _ = stopping.wait_for(|stops| *stops) => Err("this process ends".into()),
                }
            };
            match self.handle.block_on(asked) {
                Ok(gift) => {
                    if passed == 0 {
                        self.last = Some(other);
                    }
                    self.answered = Some(other);
                    return Ok(gift);
                }
                Err(why) => told.push(why),
            }
        }
        Err(if told.is_empty() { "no other node is connected".into() } else { told.join("; ") })
    }

    fn own(&self) -> Option<NodeId> {
        self.transport.identity().map(|own| own.node_id)
    }

    fn gave(&self) -> Option<NodeId> {
        self.answered
    }
}

impl Holder for Givers {
    fn record(&mut self, passed: usize, name: RecordName) -> Result<Asked, String> {
        let others = self.transport.connected();
        let Some(other) = others.get(passed).copied() else {
            return Err(match others.len() {
                0 => "no other node is connected".into(),
                count => format!("none of the {count} nodes that are connected has it"),
            });
        };
        let stopping = &mut self.stopping;
        let asked = async {
            tokio::select! {
                asked = giving::ask_record(&self.transport, other, name) => asked,
                _ = stopping.wait_for(|stops| *stops) => Err("this process ends".into()),
            }
        };
        // One that does not answer now may have it all the same, but the others are asked, too.
        Ok(self.handle.block_on(asked).unwrap_or_else(|why| {
            tracing::debug!(index = name.index.0, "a damaged record is not given: {why}");
            Asked::Unknown
        }))
    }
}

impl Driver {
    /// The leader no longer has what this node lacks: a snapshot is fetched, one at a time.
    pub(super) fn install(&mut self, install: Install) {
        let is_too_early = self.installing.not_before.is_some_and(|moment| Instant::now() < moment);
        if self.installing.is_fetching || self.installing.arrived.is_some() || is_too_early {
            return;
        }
        self.installing.is_fetching = true;
        let (start, leader) = (install.start.0, install.leader);
        // The leader's reaches the farthest as a rule. It may lack messages, and then gives none.
        let others = self.parts.transport.connected().into_iter().filter(move |other| *other != leader);
        let givers: Vec<_> = std::iter::once(leader).chain(others).collect();
        tracing::info!(start = start.0, %leader, "this node cannot go on by its own log: a snapshot is fetched");
        let (transport, notify) = (self.parts.transport.clone(), self.parts.notify.clone());
        let reader = self.parts.reader.clone();
        // Sections are decoded as they come: not on the thread that heartbeats need.
        self.parts.clients.spawn(async move {
            let arrived = fetch(&transport, &givers, start, &reader).await;
            // Fails only when the node has stopped.
            let _ = notify.send(Notice::Arrived(arrived));
        });
    }

    /// A snapshot is here, or could not be got.
    pub(super) fn arrived(&mut self, arrived: Result<(SnapshotFile, Box<Arrived>), String>) {
        self.installing.is_fetching = false;
        self.installing.not_before = Some(Instant::now() + PAUSE);
        match arrived {
            Ok((file, arrived)) => {
                self.installing.why = None;
                tracing::info!(index = file.index.0, bytes = file.size, "a snapshot has arrived");
                self.installing.arrived = Some(file);
                self.handle(Event::Installed(arrived));
            }
            Err(why) => {
                tracing::warn!("no snapshot was got: {why}");
                self.installing.why = Some(why);
            }
        }
    }

    /// The protocol takes the snapshot that arrived: with the next write it counts.
    pub(super) fn hand_arrival_over(&mut self) {
        let file = self.installing.arrived.take().expect("what is taken has arrived");
        self.parts.storage.arrived(file);
    }

    /// The state is another node's: what stood in the log and in no file is to be got from others.
    pub(super) fn went_over(&mut self, index: Index) {
        tracing::info!(index = index.0, "went over to the snapshot; its messages are fetched");
        self.parts.is_incomplete.store(true, Ordering::Release);
        self.freeing.free(self.parts.bodies.reset());
    }

    /// Whether others get this node's snapshot now.
    pub(super) fn note_gifts(&self) {
        self.parts.is_incomplete.store(!self.parts.replica.gives_snapshot(), Ordering::Release);
    }

    /// The protocol does not take what arrived.
    pub(super) fn arrival_refused(&mut self) {
        let Some(file) = self.installing.arrived.take() else { return };
        let disk = self.parts.reader.disk();
        tokio::task::spawn_blocking(move || raftqueue_wal::remove_snapshot(&*disk, &file));
    }

    /// Another node lacks messages: those that live here are located.
    pub(super) fn give(&self, topic: TopicId, wanted: &[Range<u64>], reply: oneshot::Sender<Wanted>) {
        let living = self.parts.replica.living(topic, wanted, GIVEN_MAX);
        let located = self.parts.bodies.locate(living.messages.clone());
        // Fails only when whoever asked has gone.
        let _ = reply.send(Wanted { living, located });
    }
}

/// Fetches a snapshot that reaches up to `start` from the first of `givers` that has one.
async fn fetch(
    transport: &Transport,
    givers: &[NodeId],
    start: Index,
    reader: &Reader,
) -> Result<(SnapshotFile, Box<Arrived>), String> {
    let mut told = Vec::new();
    for &giver in givers {
        match fetch_from(transport, giver, start, reader).await {
            Ok(arrived) => return Ok(arrived),
            Err(why) => told.push(why),
        }
    }
    Err(told.join("; "))
}

/// Fetches a snapshot, writes it aside and makes a state of it.
async fn fetch_from(
    transport: &Transport,
    giver: NodeId,
    start: Index,
    reader: &Reader,
) -> Result<(SnapshotFile, Box<Arrived>), String> {
    let mut given = giving::ask_snapshot(transport, giver, start).await?;
    let head = given.head.clone();
    if head.index < start {
        return Err(format!("node {giver}: its snapshot is of index {}, before {start}", head.index));
    }
    let (disk, number) = (reader.disk(), reader.next_file());
    let mut writer = {
        let (disk, head) = (Arc::clone(&disk), head.clone());
        blocking(move || SnapshotWriter::create(&*disk, number, &head).map_err(|error| error.to_string()))
            .await?
    };
    let mut builder = StateBuilder::default();
    let version = head.configuration.version;
    let state = loop {
        let received = async {
            let Some(section) = given.next().await? else { return Ok(None) };
            let decoded = codec::read_section(version, &section).map_err(|error| error.to_string())?;
            builder.push(decoded).map_err(|error| error.to_string())?;
            Ok(Some(section))
        };
        let failed = match received.await {
            Ok(Some(section)) => {
                let written;
                (writer, written) = blocking(move || {
                    let written = writer.section(&section);
                    Ok((writer, written))
                })
                .await?;
                let Err(error) = written else { continue };
                error.to_string()
            }
            Ok(None) => match builder.finish() {
                Ok(state) => break state,
                Err(error) => error.to_string(),
            },
            Err(why) => why,
        };
        blocking(move || {
            writer.abandon(&*disk);
            Ok(())
        })
        .await?;
        return Err(failed);
    };
    let file = blocking(move || writer.finish(&*disk).map_err(|error| error.to_string())).await?;
    let freeze = Freeze {
        index: head.index,
        term: head.term,
        configuration_index: head.configuration_index,
        configuration: head.configuration,
        term_runs: head.term_runs,
        state,
    };
    Ok((file, Box::new(Arrived { freeze, giver_term: given.giver_term })))
}

/// Acts on a thread that may block.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(act).await.map_err(|error| error.to_string())?
}
