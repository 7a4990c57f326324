//! Opening the data directory, and what is read of it before the node is one of a cluster.

use super::{Fatal, removed};
use crate::api::LocalStatus;
use crate::config::Config;
use crate::driver::bodies::{Bodies, CACHE_BYTES_DEFAULT, PAGE_BYTES_MAX};
use crate::driver::keeper::{Keeper, KeeperSettings};
use crate::driver::restoring::{self, Restored};
use crate::driver::scrubbing::{self, ScrubbingThread};
use crate::entropy;
use crate::metrics::Metrics;
use crate::peers::discovery::Discovery;
use crate::peers::forming::{Formed, Forming, LogStanding};
use crate::peers::own::{Own, OwnIdentity};
use crate::peers::promises::{self, Asking, Others};
use crate::replica::{Freeze, Settings, SnapshotSettings};
use raftqueue_raft::{self as raft, NodeId};
use raftqueue_wal::disk::RealDisk;
use raftqueue_wal::{
    DataDir, IdentityError, Manifest, OpenError, Options, PageCache, Preview, Reader, Recovered,
    SnapshotFile, Wal,
};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a data directory that another process holds is tried again.
const LOOK_FOR_LOCK_EVERY: Duration = Duration::from_millis(50);

/// What a node goes on from.
pub(super) struct Prepared {
    pub(super) wal: Wal,
    pub(super) recovered: raft::Recovered,
    pub(super) manifest: Manifest,
    /// Records of the log do not verify.
    pub(super) has_holes: bool,
    /// The files of it that cannot be used.
    pub(super) damaged: BTreeSet<String>,
    /// What was read of the newest snapshot.
    pub(super) snapshot: Option<Freeze>,
    /// No snapshot can be read, and the log needs one.
    pub(super) is_stateless: bool,
    /// As the seed of a new cluster: what entry 1 says.
    pub(super) form: Option<raft::Configuration>,
}

/// Opens the data directory, recovers the log and, where there is none, forms the cluster.
pub(super) async fn prepare(
    config: &Config,
    forming: &Arc<Forming>,
    (own, discovery): (&Own, &Arc<Discovery>),
    reader: &OnceLock<Reader>,
    status: &watch::Sender<Arc<LocalStatus>>,
    metrics: &Metrics,
) -> Result<Prepared, Fatal> {
    let Opened { dir, mut wal, recovered, restored } = open_when_free(config, status).await?;
    // Set once, here.
    let _ = reader.set(wal.reader());
    let has_log = recovered.last_index > raft::Index(0);
    if recovered.hard_state.is_none() && !has_log {
        return Err(Fatal {
            code: 3,
            text: format!(
                "{}: HARDSTATE is lost before this node had a log, so it may have promised what it no longer knows: clear the \
                 directory, so that it joins as a new node",
                config.data_dir.display()
            ),
        });
    }
    if let Some(cut) = &recovered.cut {
        tracing::warn!(
            file = cut.file,
            offset = cut.offset,
            records = cut.records,
            "cut off a torn write that was never acknowledged"
        );
    }
    for damaged in &recovered.damaged_files {
        tracing::error!(
            "{damaged}: its messages cannot be read here, the other nodes have them; `raftq wal dump {}` tells more",
            config.data_dir.display()
        );
    }
    for rotten in &recovered.holes {
        tracing::error!(
            "{rotten}: what was acknowledged does not verify; it is mended with what another node has"
        );
    }
    for copy in &recovered.damaged_copies {
        tracing::warn!("{copy}: this stands twice, and its other copy is whole");
    }
    let has_holes = !recovered.holes.is_empty();
    let hard_state = recovered.hard_state.unwrap_or(recovered.framed);
    let identity = dir.identity().expect("formatted if it was blank");
    tracing::info!(
        node = %identity.node_id,
        name = identity.name,
        data_dir = %config.data_dir.display(),
        last_index = recovered.last_index.0,
        term = hard_state.term.0,
        "the log is open"
    );
    // Who is connected before everything is read is not to take this node for one that lost its log.
    own.durable.store(recovered.last_index.0, Ordering::Relaxed);
    own.is_promise_lost.store(recovered.hard_state.is_none(), Ordering::Relaxed);
    own.term.store(hard_state.term.0, Ordering::Relaxed);
    if has_log {
        let configuration =
            recovered.configurations.last().map(|(_, configuration)| Arc::clone(configuration));
        forming.has_log(LogStanding { configuration, last_index: recovered.last_index.0 });
    } else {
        metrics.waits();
    }
    let node_id = identity.node_id;
    let waiting = LocalStatus {
        node_id: Some(node_id.0),
        name: config.name.clone(),
        term: hard_state.term.0,
        not_ready: Some("waiting for the cluster to form".into()),
        ..LocalStatus::default()
    };
    status.send_replace(Arc::new(waiting.clone()));
    let own_cluster = identity.formation_id;
    forming.opened(dir);
    if let Some(expected) = config.cluster_id.filter(|expected| has_log && *expected != own_cluster) {
        let text = format!(
            "this disk belongs to cluster {own_cluster:032x}, not to {expected:032x}: give the node its own disk, or one that \
             is blank"
        );
        tracing::error!("{text}");
        let cluster_id = format!("{own_cluster:032x}");
        status.send_replace(Arc::new(LocalStatus { cluster_id, not_ready: Some(text), ..waiting.clone() }));
        // It says what it is as long as it runs, and does nothing else.
        std::future::pending::<()>().await;
    }
    let Restored { freeze: snapshot, unusable, lost } = restored;
    let manifest = recovered.manifest.clone();
    let files = recovered.damaged_files.iter().map(|damaged| damaged.file.clone());
    let unread = manifest.snapshots.iter().filter(|file| unusable.contains(&file.number));
    let damaged = files.chain(unread.map(SnapshotFile::name)).collect();
    unusable.into_iter().for_each(|number| wal.give_up_snapshot(number));
    let is_lost = recovered.hard_state.is_none();
    let mut recovered = restoring::for_raft(hard_state, recovered, snapshot.as_ref());
    let is_stateless = lost.is_some();
    if let Some(why) = lost {
        tracing::error!(
            start = recovered.start.0.0,
            "no snapshot can be read, and the log begins behind it: {why}; this node gets the state of another one, and \
             votes meanwhile by its log"
        );
    }
    if is_lost {
        let term = ask_for_promises(config, own, discovery, &recovered, status, waiting).await?;
        // Nobody hears of that term by this: it is as if it had campaigned there, and nobody had heard of it.
        recovered.hard_state = raft::HardState { term, vote: Some(node_id) };
        wal = renew(wal, recovered.hard_state).await?;
        own.term.store(term.0, Ordering::Relaxed);
        own.is_promise_lost.store(false, Ordering::Release);
        metrics.hard_state_renewed();
        tracing::warn!(
            term = term.0,
            "HARDSTATE was lost; every other member was heard, and this node takes part again"
        );
    }
    let form = if has_log {
        None
    } else {
        let told = async {
            own.waits_to_be_added().await;
            let text = "waiting to be added to a cluster (`raftq members add`)";
            status.send_modify(|status| Arc::make_mut(status).not_ready = Some(text.into()));
            std::future::pending().await
        };
        let formed = tokio::select! {
            formed = forming.run() => formed,
            formed = told => formed,
        };
        match formed {
            Ok(Formed::Seed(configuration)) => Some(configuration),
            Ok(Formed::Bound) => None,
            Err(error) => return Err(Fatal { code: 3, text: format!("cannot form a cluster: {error}") }),
        }
    };
    Ok(Prepared { wal, recovered, manifest, has_holes, damaged, snapshot, is_stateless, form })
}

/// What is read of the snapshots. Where they are lost only another node can give the state back: without one nothing is opened.
fn restore(config: &Config, node_id: NodeId, found: &Preview<'_>) -> Result<Restored, OpenError> {
    let restored = restoring::restore_from(found.disk, found.manifest, found.start)?;
    let has_others = match found.configuration {
        Some(configuration) => configuration.members.keys().any(|id| *id != node_id),
        None => config.members.iter().any(|member| member.name != config.name),
    };
    match &restored.lost {
        Some(why) if !has_others => Err(OpenError::StateLost { start: found.start, why: why.clone() }),
        _ => Ok(restored),
    }
}

/// Opens the files that tell where messages stand, on a thread that may block.
pub(super) async fn open_files(
    config: &Config,
    reader: Reader,
    manifest: &Manifest,
    restored: raft::Index,
) -> Result<(Keeper, Arc<Bodies>), Fatal> {
    let (settings, manifest) = (KeeperSettings::new(config.segment_bytes), manifest.clone());
    let open = move || -> Result<_, OpenError> {
        let cache = PageCache::new(PAGE_BYTES_MAX);
        let keeper = Keeper::open(reader.clone(), &manifest, restored, cache, settings)?;
        let bodies = Arc::new(Bodies::new(reader, CACHE_BYTES_DEFAULT, keeper.files()));
        Ok((keeper, bodies))
    };
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| Fatal { code: 1, text: format!("recovery was cut off: {error}") })?
        .map_err(|error| refused(config, &error))
}

/// Starts the thread that reads this node's disk in the background, if it is to.
pub(super) fn start_scrubbing(config: &Config, worker: scrubbing::Worker) -> ScrubbingThread {
    ScrubbingThread::start((config.scrub_bytes_per_second > 0).then_some(worker))
}

/// What the replica is told.
pub(super) fn replica_settings(config: &Config, own: OwnIdentity) -> Settings {
    let tick_ms = u64::try_from(crate::driver::TICK.as_millis()).expect("a tick is short");
    let election_ticks =
        u32::try_from(config.election_timeout_ms.div_ceil(tick_ms)).expect("at most a minute").max(4);
    let raft = raft::Settings {
        election_ticks,
        heartbeat_ticks: (election_ticks / 6).max(1),
        ..raft::Settings::new(own.node_id, entropy::random())
    };
    Settings {
        generation: own.generation,
        reserve_bytes: config.reserve_bytes,
        lease_ms_default: config.limits.lease_ms_default,
        attempts_max_default: config.attempts_max,
        snapshots: SnapshotSettings { bytes: 2 * config.segment_bytes, ..SnapshotSettings::default() },
        ..Settings::new(raft)
    }
}

/// Waits until every other member has said which term it is in. Meanwhile this node gives what it has, and takes part in
/// nothing.
async fn ask_for_promises(
    config: &Config,
    own: &Own,
    discovery: &Arc<Discovery>,
    recovered: &raft::Recovered,
    status: &watch::Sender<Arc<LocalStatus>>,
    waiting: LocalStatus,
) -> Result<raft::Term, Fatal> {
    let known = recovered.configurations.last().filter(|(_, known)| !known.members.is_empty());
    let Some((_, configuration)) = known else {
        let text = format!(
            "{}: HARDSTATE is lost, and nothing here tells who the other members are: replace the node",
            config.data_dir.display()
        );
        return Err(Fatal { code: 3, text });
    };
    let node_id = own.identity.borrow().expect("the data directory is open").node_id;
    let last = recovered.term_runs.last().map_or(recovered.start.1, |(_, term)| *term);
    let greatest = recovered.hard_state.term.max(last);
    let asking = Asking::new(node_id, configuration, greatest);
    let tell = |left: &str, others: Others| {
        let what = "HARDSTATE is lost: this node neither votes nor counts until each other member has said which term it is in";
        let remedy = match others {
            Others::Enough => "If one of them will not come back, replace this node",
            Others::None => {
                "No member has kept its own, so none of these disks can go on: bring back a copy of a disk that has, as the only \
                 node, and run `raftq recover` on it"
            }
            Others::TooFew => {
                "Those that lost theirs are so many that the others are no majority: the cluster has lost its quorum, and nobody can \
                 tell what was promised. Stop the nodes that lost theirs, run `raftq recover` on one that did not, and start \
                 the others with blank disks"
            }
        };
        let text = format!("{what}. It waits for {left}. {remedy}");
        tracing::error!("{text}");
        status.send_replace(Arc::new(LocalStatus { not_ready: Some(text), ..waiting.clone() }));
    };
    Ok(promises::ask_all(asking, own, discovery, &config.members, tell).await)
}

/// Writes `HARDSTATE` anew, on a thread that may block.
async fn renew(mut wal: Wal, hard_state: raft::HardState) -> Result<Wal, Fatal> {
    let renew = move || wal.renew_hard_state(hard_state).map(|()| wal);
    tokio::task::spawn_blocking(renew)
        .await
        .map_err(|error| Fatal { code: 1, text: format!("recovery was cut off: {error}") })?
        .map_err(|error| Fatal { code: 5, text: format!("the disk failed: write HARDSTATE: {error}") })
}

/// Opens the data directory, once the process that this one replaces has released it.
async fn open_when_free(config: &Config, status: &watch::Sender<Arc<LocalStatus>>) -> Result<Opened, Fatal> {
    let deadline = Instant::now() + Duration::from_millis(config.lock_wait_ms);
    let mut is_told = false;
    loop {
        let owned = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&owned))
            .await
            .map_err(|error| Fatal { code: 1, text: format!("recovery was cut off: {error}") })?;
        let unopened = match opened {
            Ok(opened) => return Ok(opened),
            Err(unopened) => unopened,
        };
        if !unopened.is_held || Instant::now() >= deadline {
            return Err(unopened.fatal);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(wait_ms = config.lock_wait_ms, "waiting: {}", unopened.fatal);
            let why = format!("waiting for the data directory: {}", unopened.fatal);
            status.send_modify(|status| Arc::make_mut(status).not_ready = Some(why));
        }
        tokio::time::sleep(LOOK_FOR_LOCK_EVERY).await;
    }
}

/// A data directory that is open.
struct Opened {
    dir: DataDir,
    wal: Wal,
    recovered: Recovered,
    restored: Restored,
}

/// Why the data directory is not open.
struct Unopened {
    fatal: Fatal,
    /// Another process holds it, which may pass.
    is_held: bool,
}

impl From<Fatal> for Unopened {
    fn from(fatal: Fatal) -> Self {
        Self { fatal, is_held: false }
    }
}

/// The exit code of a start that fails so: whether the disk itself is to blame, and not what stands on it, who may read it, or what
/// room there is.
fn code_of(error: Option<&std::io::Error>) -> u8 {
    use rustix::io::Errno as E;
    let of_disk = [E::IO, E::TIMEDOUT, E::NXIO, E::NODEV, E::NODATA, E::REMOTEIO].map(E::raw_os_error);
    let raw = error.and_then(std::io::Error::raw_os_error);
    if raw.is_some_and(|raw| of_disk.contains(&raw)) { 5 } else { 3 }
}

/// What is wrong with the directory, and what to do about it.
fn refused(config: &Config, error: &OpenError) -> Fatal {
    let path = config.data_dir.display();
    let text = match error.way_out() {
        Some(way_out) => format!("{path}: {error}; {way_out}"),
        None => format!("{path}: {error}"),
    };
    let of_disk = match error {
        OpenError::Io { source, .. } => Some(source),
        _ => None,
    };
    Fatal { code: code_of(of_disk), text }
}

fn open(config: &Config) -> Result<Opened, Unopened> {
    let path = &config.data_dir.display();
    let unopened = |error: OpenError| Unopened {
        is_held: matches!(error, OpenError::AnotherProcess),
        fatal: refused(config, &error),
    };
    let cannot = |be: &'static str| {
        move |error: std::io::Error| Fatal {
            code: code_of(Some(&error)),
            text: format!("{path}: cannot be {be}: {error}"),
        }
    };
    std::fs::create_dir_all(&config.data_dir).map_err(cannot("made"))?;
    let disk = RealDisk::open(&config.data_dir).map_err(cannot("opened"))?;
    removed::finish(&config.data_dir, &disk).map_err(cannot("cleared"))?;
    let mut dir = DataDir::open(Arc::new(disk), Some(&config.name)).map_err(unopened)?;
    if dir.identity().is_none() {
        dir.format(entropy::node_id(), &config.name).map_err(|error| {
            let of_disk = match &error {
                IdentityError::Io { source, .. } => Some(source),
                _ => None,
            };
            Fatal { code: code_of(of_disk), text: format!("{path}: cannot be formatted: {error}") }
        })?;
    }
    let options = Options {
        segment_bytes: config.segment_bytes,
        entropy: entropy::random(),
        reserve_bytes: config.reserve_bytes,
        ..Options::default()
    };
    let node_id = dir.identity().expect("formatted if it was blank").node_id;
    let mut restored = Restored::default();
    let judge = |found: &Preview<'_>| {
        restored = restore(config, node_id, found)?;
        Ok(())
    };
    let (wal, recovered) = dir.open_log_if(options, judge).map_err(unopened)?;
    Ok(Opened { dir, wal, recovered, restored })
}
