//! The one task that owns the replica. It drains events, has them handled, and performs the actions. It decides
//! nothing, and waits only for the next event.
//!
//! Writes go to the log's thread ([`crate::driver::storage`]), messages to the transport, and replies to the callers.
//! Reads of the disk go to blocking threads, whose answers come back as events. All of that leaves without waiting.

pub mod bodies;
mod freeing;
pub(crate) mod giving;
pub(crate) mod inbox;
mod installing;
pub mod keeper;
mod loading;
pub mod mending;
mod recovering;
pub mod restoring;
pub mod scrubbing;
mod shell;
pub mod storage;
mod telling;
pub(crate) mod view;

pub(crate) use installing::Givers;
pub use loading::to_apply;
pub use recovering::Recovering;

use crate::api::{Failure, LocalStatus, Reason, Recover, RecoveryInfo, Response};
use crate::driver::bodies::Bodies;
use crate::driver::freeing::Freeing;
use crate::driver::inbox::{Leadership, NewCall, Notice, Order, Replied, Reply};
use crate::driver::installing::Installing;
use crate::driver::keeper::{Job, KeeperThread};
use crate::driver::mending::MendingThread;
use crate::driver::scrubbing::ScrubbingThread;
use crate::driver::storage::Storage;
use crate::metrics::{Census, EntryTimes, Metrics, Progress, Pulse};
use crate::peers::forming::Forming;
use crate::peers::own::Own;
use crate::peers::transport::{Arrival, Arrivals, News, Transport};
use crate::replica::{Actions, CallId, Event, Now, Replica};
use crate::traces::Watched;
use raftqueue_raft::Alarm;
use raftqueue_wal::Reader;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

/// The length of a tick.
pub const TICK: Duration = Duration::from_millis(10);
/// Events taken in one batch, of each kind, so that none starves the others.
const BATCH_MAX: usize = 1_024;

/// Why the driver ended.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The disk failed: what was written last may be lost, and nothing more can be promised.
    DiskFailed(String),
    /// A committed entry cannot be applied here.
    Unreadable(String),
    /// This node's disk is a copy of another's, or was set back.
    Cloned(String),
    /// The cluster was forced to recover without this node: nothing that it does counts any more.
    LeftBehind(String),
    /// This node is to go on alone.
    Recovers(Box<Recovering>),
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) storage: Storage,
    pub(crate) keeper: KeeperThread,
    pub(crate) mending: MendingThread,
    pub(crate) scrubbing: ScrubbingThread,
    /// Everything up to here was applied: for those who mend the log.
    pub(crate) applied: Arc<AtomicU64>,
    /// True while this node lacks messages and leaves it to others to give snapshots.
    pub(crate) is_incomplete: Arc<AtomicBool>,
    pub(crate) reader: Reader,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) transport: Transport,
    /// The threads that serve clients, for what takes long.
    pub(crate) clients: Handle,
    pub(crate) arrivals: Arrivals,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    pub(crate) notify: mpsc::UnboundedSender<Notice>,
    pub(crate) own: Arc<Own>,
    pub(crate) forming: Arc<Forming>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: watch::Sender<Arc<LocalStatus>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) election_timeout_ms: u64,
}

/// What a turn begins with.
enum First {
    Notice(Notice),
    News(News),
    Tick,
    Arrival(Arrival),
    Order(Order),
    /// The last turn left something.
    Rest,
}

/// See the module's header.
pub(crate) struct Driver {
    parts: Parts,
    start: Instant,
    /// As of the beginning of this turn.
    now: Now,
    /// Where each answer goes, and whether its messages are leased.
    replies: BTreeMap<CallId, (Reply, bool)>,
    /// Calls of which somebody wants to know how far they come.
    watched: Watched,
    /// Calls that came together and did not fit into one turn. They go before all other orders.
    calls: VecDeque<NewCall>,
    installing: Installing,
    /// Answers that were at hand; handled before anything else.
    immediate: Vec<Event>,
    disk_stalled: bool,
    entry_times: EntryTimes,
    census: Census,
    /// It was said in the log that log time is ahead of the clocks.
    is_ahead_told: bool,
    /// The same of disks that are nearly full, and whether those of a majority are.
    room_told: telling::RoomTold,
    /// Takes what is large and only to be freed.
    freeing: Freeing,
    last_tick: Instant,
    leader_seen: Instant,
    /// What was asked of a node that may have to go on alone.
    recoveries: Vec<(Recover, oneshot::Sender<Result<RecoveryInfo, Failure>>)>,
    ended: Option<Ended>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let entry_times = EntryTimes::new(parts.replica.raft().last_index());
        Self {
            parts,
            start: now,
            now: Now::default(),
            replies: BTreeMap::new(),
            watched: Watched::default(),
            calls: VecDeque::new(),
            installing: Installing::default(),
            immediate: Vec::new(),
            disk_stalled: false,
            entry_times,
            census: Census::default(),
            is_ahead_told: false,
            room_told: telling::RoomTold::default(),
            freeing: Freeing::start(),
            last_tick: now,
            leader_seen: now,
            recoveries: Vec::new(),
            ended: None,
        }
    }

    /// Runs until it is told to stop, or cannot go on.
    pub(crate) async fn run(mut self) -> Ended {
        let mut ticks = tokio::time::interval(TICK);
        // A process that was held up does not make up for missed ticks: its peers have not waited either.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.look_at_clocks();
        self.perform();
        while self.ended.is_none() {
            // Receipts of the disk come first: they release what others wait for. Time is next, so that load cannot
            // stop it. Then come small messages, then entries, and the clients' calls last. After a turn that left
            // something the next follows at once, but after a look at all of these.
            let has_rest = self.has_rest();
            let first = tokio::select! {
                biased;
                Some(notice) = self.parts.notices.recv() => First::Notice(notice),
                _ = ticks.tick() => First::Tick,
                Some(news) = self.parts.arrivals.news.recv() => First::News(news),
                Some(arrival) = self.parts.arrivals.control.recv() => First::Arrival(arrival),
                Some(arrival) = self.parts.arrivals.bulk.recv() => First::Arrival(arrival),
                Some(order) = self.parts.orders.recv(), if self.calls.is_empty() => First::Order(order),
                () = tokio::task::yield_now(), if has_rest => First::Rest,
            };
            self.look_at_clocks();
            self.parts.replica.begin_turn();
            match first {
                First::Notice(notice) => self.on_notice(notice),
                First::News(news) => self.on_news(news),
                First::Tick => self.on_tick(),
                First::Arrival((envelope, vitals)) => self.handle(Event::Arrived(envelope, vitals)),
                First::Order(order) => self.on_order(order),
                First::Rest => {}
            }
            let begun = Instant::now();
            self.drain();
            self.perform();
            self.answer_recoveries();
            self.watched.turned(&self.parts.replica);
            self.parts.metrics.turned(&mut self.entry_times, Progress::of(&self.parts.replica), begun);
        }
        let ended = self.ended.take().expect("just seen");
        let Driver { parts, replies, freeing, .. } = self;
        for (_, (reply, _)) in replies {
            let _ = reply.send(Err(Failure::unknown(
                Reason::ShuttingDown,
                "the node stopped before the call was done",
            )));
        }
        let (storage, keeper) = (parts.storage, parts.keeper);
        let (mending, scrubbing) = (parts.mending, parts.scrubbing);
        // The last write is finished, so that the next start finds nothing to doubt.
        let _ = tokio::task::spawn_blocking(move || {
            storage.stop();
            keeper.stop();
            mending.stop();
            scrubbing.stop();
            freeing.stop();
        })
        .await;
        ended
    }

    /// Takes what else is there, so that one entry and one write carry all of it.
    fn drain(&mut self) {
        for _ in 0..BATCH_MAX {
            if !self.parts.replica.takes_more() {
                break;
            }
            let Ok(notice) = self.parts.notices.try_recv() else { break };
            self.on_notice(notice);
        }
        for _ in 0..BATCH_MAX {
            let Ok(news) = self.parts.arrivals.news.try_recv() else { break };
            self.on_news(news);
        }
        for _ in 0..BATCH_MAX {
            let Ok((envelope, vitals)) = self.parts.arrivals.control.try_recv() else { break };
            self.handle(Event::Arrived(envelope, vitals));
        }
        for _ in 0..BATCH_MAX {
            let Ok((envelope, vitals)) = self.parts.arrivals.bulk.try_recv() else { break };
            self.handle(Event::Arrived(envelope, vitals));
        }
        for _ in 0..BATCH_MAX {
            self.take_calls();
            if !self.calls.is_empty() || !self.parts.replica.takes_more() {
                break;
            }
            let Ok(order) = self.parts.orders.try_recv() else { break };
            self.on_order(order);
        }
        self.take_calls();
    }

    /// Hands calls that came together to the replica, as many as the turn has room for.
    fn take_calls(&mut self) {
        while self.parts.replica.takes_more()
            && let Some(call) = self.calls.pop_front()
        {
            self.on_call(call);
        }
    }

    /// Whether the last turn left something to this one.
    fn has_rest(&self) -> bool {
        self.parts.replica.is_unfinished() || !self.calls.is_empty()
    }

    /// Looks at the clocks: once a turn, since a turn takes milliseconds and may have a thousand events.
    fn look_at_clocks(&mut self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now = Now { mono_ms: millis(self.start.elapsed()), wall_ms: millis(wall) };
    }

    fn handle(&mut self, event: Event) {
        self.parts.replica.handle(self.now, event);
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Gone(peer) => self.handle(Event::PeerGone(peer)),
            News::Runs(peer, versions) => self.handle(Event::Runs(peer, versions)),
            News::Cloned(error) => self.ended = Some(Ended::Cloned(error)),
            News::LeftBehind(text) => self.ended = Some(Ended::LeftBehind(text)),
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event(event) => {
                let are_gifts_noted =
                    matches!(event, Event::Complete(_) | Event::Incomplete(_) | Event::Lost { .. });
                self.handle(event);
                if are_gifts_noted {
                    self.note_gifts();
                }
            }
            Notice::Written(persisted, free_bytes) => {
                // The replies that the receipt releases carry the number.
                free_bytes.into_iter().for_each(|bytes| self.handle(Event::FreeBytes(bytes)));
                self.handle(Event::Persisted(persisted));
                let durable = self.parts.replica.raft().durable_index();
                self.parts.own.durable.store(durable.0, Ordering::Relaxed);
                self.parts.bodies.durable(durable);
            }
            Notice::Arrived(result) => self.arrived(result),
            Notice::DiskFailed(error) => self.ended = Some(Ended::DiskFailed(error)),
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Call(call) => self.on_call(call),
            Order::Calls(calls) => self.calls.extend(calls),
            Order::Cancel(id) => {
                self.replies.remove(&id);
                self.handle(Event::Cancel(id));
            }
            Order::Give { topic, wanted, reply } => self.give(topic, &wanted, reply),
            Order::MakeSnapshot => self.handle(Event::SnapshotWanted),
            Order::Unheard(messages) => self.handle(Event::AnswerUnheard(messages)),
            Order::Unreadable { messages, are_leased } => {
                self.handle(Event::MessagesUnreadable { messages, are_leased });
            }
            Order::Recover(asked, reply) => self.recoveries.push((asked, reply)),
            Order::HandOver => self.handle(Event::HandOver),
            Order::Stop => self.ended = Some(Ended::Stopped),
        }
    }

    fn on_call(&mut self, call: NewCall) {
        let NewCall { id, request, deadline, reply, steps } = call;
        let leases = request.leases();
        steps.into_iter().for_each(|steps| self.watched.take(id, steps));
        self.replies.insert(id, (reply, leases));
        let deadline_ms = millis(deadline.saturating_duration_since(self.start));
        self.handle(Event::Call { id, request, deadline_ms });
    }

    fn on_tick(&mut self) {
        let lag = self.last_tick.elapsed().saturating_sub(TICK);
        self.last_tick = Instant::now();
        self.parts.pulse.beat();
        let stalled = self.parts.storage.busy_ms() > self.parts.election_timeout_ms;
        if stalled != self.disk_stalled {
            self.disk_stalled = stalled;
            if stalled {
                tracing::warn!("the disk has not answered for an election timeout");
            }
            self.handle(Event::DiskStalled(stalled));
        }
        for node in self.parts.transport.take_waiting() {
            self.handle(Event::Waiting(Box::new(node)));
        }
        self.handle(Event::Tick);
        self.note_gifts();
        let view = self.parts.replica.view();
        self.publish(&view);
        self.parts.metrics.observe(&view, stalled, lag);
        self.tell_of_clocks(view.log_time_ahead_ms);
        let published_ms = |topic, offset| self.parts.bodies.published_ms(topic, offset);
        // Until then there are only states of the past to show.
        if !view.raft.replaying
            && let Some(found) = self.census.tick(self.parts.replica.state(), published_ms)
        {
            self.parts.metrics.counted(found, self.parts.replica.receives_waiting());
            let bodies = Arc::clone(&self.parts.bodies);
            // What files alone tell of is known at the next census.
            tokio::task::spawn_blocking(move || bodies.find_ages());
        }
    }

    fn perform(&mut self) {
        loop {
            let actions = self.parts.replica.take_actions();
            self.act(actions);
            if self.immediate.is_empty() {
                break;
            }
            for event in std::mem::take(&mut self.immediate) {
                self.handle(event);
            }
        }
    }

    fn act(&mut self, actions: Actions) {
        let Actions {
            write,
            send,
            load,
            load_to_apply,
            lookups,
            look_for_due,
            freeze,
            install,
            is_arrival_judged,
            installed,
            left,
            results,
            role,
            alarms,
            fatal,
        } = actions;
        if installed.is_some() {
            // Before the write that makes it count.
            self.hand_arrival_over();
        }
        if let Some(write) = write {
            self.parts.storage.write(write);
        }
        // Before any message leaves: a call that a peer passes on because of such a message must find this state.
        if let Some(role) = role {
            tracing::info!(
                role = ?role.role,
                term = role.term.0,
                leader = role.leader.map(|leader| leader.to_string()),
                "role changed"
            );
            self.parts.metrics.role_changed(&role, self.parts.replica.raft().campaign_cause());
            let view = self.parts.replica.view();
            self.publish(&view);
        }
        for (envelope, vitals) in send {
            self.parts.transport.send(envelope, vitals);
        }
        for request in load {
            self.load(request);
        }
        if let Some((from, to)) = load_to_apply {
            self.load_to_apply(from, to);
        }
        results.carry_out(self);
        if let Some(index) = installed {
            self.went_over(index);
        } else if is_arrival_judged {
            self.arrival_refused();
        }
        left.into_iter().for_each(|state| self.freeing.free(state));
        install.into_iter().for_each(|install| self.install(install));
        if let Some(freeze) = freeze {
            let blocks = self.parts.bodies.freeze();
            self.parts.keeper.begin(Job { freeze, blocks });
        }
        if let Some((now_ms, max)) = look_for_due {
            self.look_for_due(now_ms, max);
        }
        for lookup in lookups {
            match self.parts.bodies.look_up(&lookup, false) {
                Some(found) => self.immediate.push(Event::LookedUp(lookup.id, found)),
                None => {
                    let bodies = Arc::clone(&self.parts.bodies);
                    self.off_the_driver(move || {
                        Event::LookedUp(lookup.id, bodies.look_up(&lookup, true).expect("it may block"))
                    });
                }
            }
        }
        for alarm in alarms {
            match alarm {
                Alarm::Malformed { from } => {
                    tracing::error!(peer = %from, "a peer's message contradicts itself");
                }
                alarm => tracing::error!(?alarm, "a peer breaks the protocol"),
            }
        }
        if let Some(why) = fatal {
            self.ended.get_or_insert(Ended::Unreadable(why));
        }
    }

    fn locate(&self, response: Response) -> Replied {
        match response {
            Response::Messages(messages) => Replied::Messages(self.parts.bodies.locate(messages)),
            Response::Members(members) => Replied::Response(Response::Members(self.with_addresses(members))),
            response => Replied::Response(response),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
