//! A node from its start to its end: listeners first, then recovery, then forming, then the driver.

mod core;
mod locks;
mod opening;
mod recovering;
mod removed;
mod servers;

use self::core::Core;
use self::locks::Locks;
use self::servers::Servers;
use crate::api::LocalStatus;
use crate::api::budget::Budget;
use crate::config::Config;
use crate::driver::giving::{Counted, OwnGifts};
use crate::driver::inbox::Leadership;
use crate::driver::keeper::{KeeperThread, LostMessages, Worker};
use crate::driver::mending::{self, Mender, MendingThread};
use crate::driver::scrubbing;
use crate::driver::storage::Storage;
use crate::driver::{Driver, Ended, Givers, Parts};
use crate::edges::connections::ConnectionLimits;
use crate::edges::edge::Edge;
use crate::edges::http;
use crate::edges::{console, operations};
use crate::entropy;
use crate::metrics::{Metrics, Pulse};
use crate::peers::announcing;
use crate::peers::certificates::Household;
use crate::peers::discovery::Discovery;
use crate::peers::forming::Forming;
use crate::peers::leaving;
use crate::peers::own::Own;
use crate::peers::transport::{Giving, PeerService, Transport};
use crate::replica::Replica;
use crate::service::NodeService;
use crate::service::reading::Readers;
use crate::traces::Exporter;
use raftqueue_raft as raft;
use raftqueue_tls::Mode;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long calls that have begun may take to end when the node stops.
const FINISH: Duration = Duration::from_secs(1);
/// How long a hand-over may take when the node stops.
const HAND_OVER: Duration = Duration::from_secs(1);
/// Calls that may wait for the driver.
const ORDERS: usize = 16_384;

/// Why a node could not start or go on, with its exit code.
#[derive(Debug)]
pub struct Fatal {
    /// 2: wrong certificates; 3: the data directory is refused; 4: an address cannot be served; 5: the disk failed; 6: an entry or this disk
    /// cannot be trusted. 1: anything else.
    pub code: u8,
    /// For people.
    pub text: String,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fatal {}

/// How a node ends that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// To be started again: what it had is set aside, since it was removed from its cluster, or seemed to be; or it goes on alone.
    Again,
}

/// Runs a node until `shutdown` resolves or it cannot go on.
///
/// Spans of calls go to `exporter`, if there is one. On shutdown it fails `/readyz`, hands leadership over, goes on forwarding for the configured drain, lets calls that
/// have begun end, finishes its last write and returns.
///
/// # Errors
/// [`Fatal`]; everything that was acknowledged is on disk all the same.
pub async fn run(
    config: Config,
    exporter: Option<Exporter>,
    shutdown: impl Future<Output = ()>,
) -> Result<End, Fatal> {
    let core = Core::start()?;
    let budget = Budget::new(config.client_bytes_max);
    let metrics = Arc::new(Metrics::new(&config.name));
    metrics.reserve_bytes(config.reserve_bytes);
    let own = Arc::new(Own::new(
        config.name.clone(),
        config.client_address.clone(),
        config.peer_address.clone(),
        entropy::random(),
    ));
    let (notify, notices) = mpsc::unbounded_channel();
    let listed = config.members.iter().map(|member| (member.name.clone(), member.peer_address.clone()));
    let listed: BTreeMap<String, String> = listed.collect();
    let hosts = config.tls.as_ref().map(|tls| tls.peer_hosts.clone()).unwrap_or_default();
    let household = Arc::new(Household::new(config.domain.clone(), listed.clone(), hosts));
    let locks = Locks::open(&config, &household)?;
    let discovery = match (&locks.keys, &config.tls) {
        (Some(keys), Some(tls)) => Discovery::new().with_tls(Arc::clone(keys), tls.peers),
        _ => Discovery::new(),
    };
    let discovery = Arc::new(discovery);
    let (transport, arrivals) = Transport::new(
        Arc::clone(&own),
        Arc::clone(&discovery),
        Arc::clone(&metrics),
        listed,
        Duration::from_millis(config.election_timeout_ms),
    );
    household.know(transport.clone());
    let (orders, orders_taken) = mpsc::channel(ORDERS);
    let starting = LocalStatus {
        name: config.name.clone(),
        not_ready: Some("opening the data directory".into()),
        ..LocalStatus::default()
    };
    let (status, status_seen) = watch::channel(Arc::new(starting));
    let (leadership, leadership_seen) = watch::channel(Leadership::default());
    let service = NodeService::new(
        orders.clone(),
        status_seen.clone(),
        leadership_seen,
        Readers::new(budget.clone(), &config.limits),
        transport.clone(),
        Arc::clone(&own),
        Arc::clone(&metrics),
        Duration::from_millis(config.election_timeout_ms),
    );
    let edge = Edge::new(service.clone(), config.limits)
        .with_budget(budget.clone())
        .with_traces(exporter)
        .behind(locks.gate());
    metrics.budget(&budget);
    metrics.data_dir(&config.data_dir);
    metrics.segment_bytes(config.segment_bytes);
    let forming = Arc::new(Forming::new(
        Arc::clone(&own),
        Arc::clone(&discovery),
        config.members.clone(),
        config.bootstrap,
        config.cluster_id,
    ));
    let reader = Arc::new(OnceLock::new());
    let giving = Arc::new(OnceLock::new());
    let stopping = Arc::new(AtomicBool::new(false));
    let pulse = Arc::new(Pulse::default());

    let connection_limits = ConnectionLimits::of_this_process();
    let mut servers = Servers::new(Arc::clone(&metrics), &locks, Handle::current(), core.handle());
    let client_port = servers.listen_for_clients(&config.client_listen).await?;
    let each_max = config.connections_per_address_max;
    servers.serve_clients(client_port, connection_limits.clients, each_max, http::router(&edge));
    let peer_port = servers.listen(&config.peer_listen, "peers").await?;
    let console =
        console::router(edge.clone(), Arc::clone(&metrics), config.console.clone(), Handle::current());
    let peers =
        PeerService::new(&transport, edge, Arc::clone(&forming), Arc::clone(&reader), Arc::clone(&giving))
            .of(household)
            .audited(locks.audit());
    servers.serve_peers(peer_port, connection_limits.peers, peers);
    if let Some(address) = &config.operations_listen {
        let router =
            operations::router(Arc::clone(&metrics), status_seen, Arc::clone(&stopping), Arc::clone(&pulse));
        let port = servers.listen(address, "operations").await?;
        let wants_tls = config.tls.as_ref().is_some_and(|tls| tls.clients == Mode::Required);
        let router = operations::locked(router.merge(console), locks.gate(), wants_tls);
        servers.serve_operations(port, connection_limits.operations, router);
    }

    let mut connections = JoinSet::new();
    locks.keep(&metrics, &mut connections);
    let announce = announcing::announce(
        Arc::clone(&own),
        Arc::clone(&forming),
        Arc::clone(&discovery),
        config.members.clone(),
    );
    connections.spawn_on(announce, core.handle());
    let mut shutdown = std::pin::pin!(shutdown);
    let prepare = opening::prepare(&config, &forming, (&*own, &discovery), &reader, &status, &metrics);
    let prepared = tokio::select! {
        prepared = prepare => prepared?,
        () = &mut shutdown => {
            servers.stop(Duration::ZERO).await;
            return Ok(End::Stopped);
        }
    };
    let opening::Prepared { wal, recovered, manifest, has_holes, mut damaged, snapshot, is_stateless, form } =
        prepared;
    let identity = own.identity.borrow().expect("the data directory is open");
    let node_id = identity.node_id;
    let state = snapshot.as_ref().map(|freeze| freeze.state.clone());
    let restored = snapshot.as_ref().map_or(raft::Index(0), |freeze| freeze.index);
    let mut replica = Replica::new(opening::replica_settings(&config, identity), recovered, snapshot);
    if let Some(configuration) = form {
        replica.form(configuration);
    }
    let reader = wal.reader();
    let (keeper, bodies) = opening::open_files(&config, reader.clone(), &manifest, restored).await?;
    damaged.extend(keeper.damaged().iter().cloned());
    metrics.damaged_files(damaged.len());
    bodies.durable(replica.raft().durable_index());
    own.durable.store(replica.raft().durable_index().0, Ordering::Relaxed);
    own.term.store(replica.raft().term().0, Ordering::Relaxed);
    service.set_bodies(Arc::clone(&bodies));
    transport.connect(&mut connections, core.handle());
    let (went_over, going_over) = std::sync::mpsc::channel();
    let counted = Arc::new(Counted::new(wal.usable_snapshots(), replica.raft().term()));
    let lacks_messages = manifest.is_incomplete || keeper.lacks_messages() || is_stateless;
    let is_incomplete = Arc::new(AtomicBool::new(lacks_messages));
    let gifts = OwnGifts::new(
        orders,
        Arc::clone(&bodies),
        reader.disk(),
        Arc::clone(&counted),
        Arc::clone(&is_incomplete),
    );
    let gifts: Arc<dyn Giving> = Arc::new(gifts);
    // Set once, here.
    let _ = giving.set(gifts);
    let storage = Storage::start(wal, notify.clone(), Arc::clone(&metrics), went_over, Arc::clone(&counted));
    let scrubbing = opening::start_scrubbing(
        &config,
        scrubbing::Worker {
            reader: reader.clone(),
            bodies: Arc::clone(&bodies),
            counted,
            switcher: storage.switcher(),
            forming: Arc::clone(&forming),
            bytes_per_second: config.scrub_bytes_per_second,
            notices: notify.clone(),
            metrics: Arc::clone(&metrics),
            handle: Handle::current(),
        },
    );
    let keeper_stop = watch::Sender::new(false);
    let worker = Worker {
        keeper,
        bodies: Arc::clone(&bodies),
        switcher: storage.switcher(),
        notices: notify.clone(),
        metrics: Arc::clone(&metrics),
        went_over: going_over,
        givers: Box::new(Givers::new(transport.clone(), Handle::current(), keeper_stop.subscribe())),
        is_incomplete: lacks_messages,
        has_lost: false,
        lost: LostMessages::default(),
        restored: state,
        counted: None,
        stop: keeper_stop.subscribe(),
    };
    let keeper = KeeperThread::start(worker, keeper_stop);
    let applied = Arc::new(AtomicU64::new(restored.0));
    let mending_stop = watch::Sender::new(false);
    let mender = mending::Worker {
        mender: Mender::new(reader.clone()),
        holders: Box::new(Givers::new(transport.clone(), Handle::current(), mending_stop.subscribe())),
        applied: Arc::clone(&applied),
        notices: notify.clone(),
        metrics: Arc::clone(&metrics),
        is_damaged: has_holes,
        handle: Handle::current(),
    };
    let mending = MendingThread::start(mender, mending_stop);
    if has_holes {
        replica.begins_damaged();
    }
    if lacks_messages {
        replica.begins_incomplete();
    }
    if is_stateless {
        replica.begins_without_state();
    }
    let doubt = leaving::doubt(Arc::clone(&own), transport.clone(), discovery, config.members.clone());
    connections.spawn_on(doubt, core.handle());
    connections.spawn(removed::clear(config.data_dir.clone(), status.subscribe()));
    let driver = Driver::new(Parts {
        own: Arc::clone(&own),
        replica,
        storage,
        keeper,
        mending,
        scrubbing,
        applied,
        is_incomplete,
        reader,
        bodies,
        transport,
        clients: Handle::current(),
        arrivals,
        orders: orders_taken,
        notices,
        notify,
        forming: Arc::clone(&forming),
        metrics,
        status: status.clone(),
        leadership,
        pulse: Arc::clone(&pulse),
        election_timeout_ms: config.election_timeout_ms,
    });
    let mut driver = core.handle().spawn(driver.run());

    let mut is_told_to_stop = false;
    let ended = tokio::select! {
        () = own.removed() => {
            stopping.store(true, Ordering::Relaxed);
            service.stop();
            servers.stop(FINISH).await;
            service.stop_driver().await;
            driver.await
        }
        ended = &mut driver => ended,
        () = &mut shutdown => {
            is_told_to_stop = true;
            stopping.store(true, Ordering::Relaxed);
            leave(&service, &config).await;
            service.stop();
            servers.stop(FINISH).await;
            service.stop_driver().await;
            driver.await
        }
    };
    if let Ok(Ended::Recovers(recovering)) = ended {
        let end = recovering::decide(&forming, *recovering).await;
        servers.stop(FINISH).await;
        return if is_told_to_stop { end.map(|_| End::Stopped) } else { end };
    }
    if let Ok(Ended::LeftBehind(text)) = &ended
        && !is_told_to_stop
    {
        service.is_left_behind();
        pulse.ends();
        recovering::say(&status, text, shutdown.as_mut()).await;
        is_told_to_stop = true;
    }
    drop(connections);
    servers.stop(Duration::ZERO).await;
    // Who was told to stop while it left does not begin again: nobody would tell it once more.
    is_told_to_stop = is_told_to_stop
        || tokio::select! {
            biased;
            () = &mut shutdown => true,
            () = std::future::ready(()) => false,
        };
    let again = if is_told_to_stop { End::Stopped } else { End::Again };
    let removed_at = *own.removed_at.borrow();
    match ended {
        // It was added meanwhile: what it has may count. The next process goes on with it.
        Ok(Ended::Stopped) if removed_at.is_some_and(|at| at != own.log_end()) => {
            tracing::warn!(
                "this node got entries since it was told that it was removed: it goes on as it is"
            );
            Ok(again)
        }
        Ok(Ended::Stopped) if removed_at.is_some() => {
            removed::set_aside(&config.data_dir, node_id).map_err(|error| Fatal {
                code: 3,
                text: format!(
                    "{}: what a removed node had cannot be set aside: {error}",
                    config.data_dir.display()
                ),
            })?;
            Ok(again)
        }
        Ok(Ended::Stopped | Ended::Recovers(_) | Ended::LeftBehind(_)) => Ok(End::Stopped),
        Ok(Ended::DiskFailed(error)) => Err(Fatal { code: 5, text: format!("the disk failed: {error}") }),
        Ok(Ended::Unreadable(error) | Ended::Cloned(error)) => Err(Fatal { code: 6, text: error }),
        Err(error) => Err(Fatal { code: 1, text: format!("the driver was cut off: {error}") }),
    }
}

/// Gives leadership away and goes on forwarding for a while.
async fn leave(service: &NodeService, config: &Config) {
    tracing::info!("shutting down");
    if service.leads() {
        service.hand_over().await;
        let gone = async {
            while service.leads() {
                tokio::time::sleep(crate::driver::TICK).await;
            }
        };
        if tokio::time::timeout(HAND_OVER, gone).await.is_err() && config.members.len() > 1 {
            tracing::warn!("no other node took over in time");
        }
    }
    tokio::time::sleep(Duration::from_millis(config.drain_ms)).await;
}
