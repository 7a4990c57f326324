//! What one seed is about: how many nodes, how good the network and the disks are, who the clients are, which faults
//! come how often. Lives differ in kind, not only in the order of events, so that rare mixtures occur, too.

use super::random::Random;
use raftqueue_node::driver::keeper::KeeperSettings;
use raftqueue_node::replica::SnapshotSettings;
use raftqueue_raft::NodeId;
use std::collections::BTreeSet;

/// A moment or a span of virtual time, in microseconds.
pub type Micros = u64;

/// One millisecond.
pub(super) const MS: Micros = 1_000;
/// One second.
pub(super) const SECOND: Micros = 1_000_000;
/// Length of a tick.
pub(super) const TICK: Micros = 10 * MS;
/// The election timeout T of every node, in ticks.
pub(super) const ELECTION_TICKS: u32 = 30;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// One process dies and comes back; what it had written stays in the page cache.
    Crash,
    /// One machine loses power: any part of what was not synced is lost.
    PowerCut,
    /// One process dies inside a call to its disk, sometimes with the power.
    CrashInside,
    /// Several machines at once.
    CrashSeveral,
    /// All machines at once.
    CrashAll,
    /// A process stands still for a while.
    Pause,
    /// Two halves that do not hear each other.
    Split,
    /// One node that does not hear, or is not heard.
    OneWay,
    /// One link between two nodes is cut.
    CutLink,
    /// Connections break: what was on the way is gone.
    Reset,
    /// Packets are lost, doubled and late for a while.
    Storm,
    /// A disk is slow for a while.
    SlowDisk,
    /// One write takes very long.
    Stall,
    /// A wall clock jumps.
    ClockJump,
    /// Somebody says that a node has gone that has not.
    FalseHint,
    /// The leader is asked to hand over, as a node that stops does.
    HandOver,
    /// Several nodes lose touch one after the other, and come back in another order.
    Swizzle,
    /// A connection breaks, and part of what was on the way arrives long after.
    LateReset,
    /// A clock runs fast or slow, up to 5 %.
    Drift,
    /// A write is out and never comes back while the process lives.
    Hang,
    /// A write fails, having written any part.
    FailWrite,
    /// A sync fails, and what it should have written is called clean and is lost.
    FailSync,
    /// Reads fail for a while.
    FailRead,
    /// A disk is full, or nearly, for a while.
    FullDisk,
    /// A read shows a flipped bit; the medium is whole.
    RotOnRead,
    /// Bits flip, or a sector is zeroed, in what was synced and proven long ago.
    Rot,
    /// A sector of proven bytes was overwritten by what belongs elsewhere.
    Misdirected,
    /// A disk comes back blank.
    Wiped,
    /// Two nodes get each other's disks, for a while.
    Swapped,
    /// A node gets a copy of another one's disk, for a while.
    Cloned,
    /// A disk comes back as it was some time ago, as from a backup.
    SetBack,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Fault; 31] = [
        Fault::Crash,
        Fault::PowerCut,
        Fault::CrashInside,
        Fault::CrashSeveral,
        Fault::CrashAll,
        Fault::Pause,
        Fault::Split,
        Fault::OneWay,
        Fault::CutLink,
        Fault::Reset,
        Fault::Storm,
        Fault::SlowDisk,
        Fault::Stall,
        Fault::ClockJump,
        Fault::FalseHint,
        Fault::HandOver,
        Fault::Swizzle,
        Fault::LateReset,
        Fault::Drift,
        Fault::Hang,
        Fault::FailWrite,
        Fault::FailSync,
        Fault::FailRead,
        Fault::FullDisk,
        Fault::RotOnRead,
        Fault::Rot,
        Fault::Misdirected,
        Fault::Wiped,
        Fault::Swapped,
        Fault::Cloned,
        Fault::SetBack,
    ];
}

/// Where the faults of a life are left out to find those that matter. Each fault draws from a stream of its own, so that
/// the others stay what they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Kinds that do not come.
    pub kinds: BTreeSet<Fault>,
    /// Single faults, by their number in the life.
    pub faults: BTreeSet<u64>,
    /// No leader is struck down because it leads.
    pub strikes: bool,
    /// The network loses, doubles and reorders nothing by itself.
    pub losses: bool,
    /// Kinds of clients, as [`Plan::clients`] numbers them.
    pub clients: BTreeSet<usize>,
    /// Nothing goes wrong before this moment.
    pub before: Micros,
    /// Nothing goes wrong from this moment on.
    pub from: Option<Micros>,
}

impl LeftOut {
    /// Whether everything that goes wrong by itself is left out at a moment.
    #[must_use]
    pub fn is_all_at(&self, now: Micros) -> bool {
        now < self.before || self.from.is_some_and(|from| now >= from)
    }
}

/// The parameters of one life.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that all of it came from.
    pub seed: u64,
    /// The ids of the nodes that form the cluster, in the order of their numbers.
    pub ids: Vec<NodeId>,
    /// Those of the nodes behind them, which wait to be added. Where there is none, nobody comes or goes.
    pub spares: Vec<NodeId>,
    /// Mean time between two looks of the administrator at them.
    pub administrate_every: Micros,
    /// Handled events after which faults stop.
    pub events: u64,
    /// Mean time between two faults.
    pub fault_every: Micros,
    /// The faults and their weights.
    pub faults: Vec<(u64, Fault)>,
    /// New leaders that are struck down soon after they won, in percent. What a leader inherits and what it adds is
    /// then often left half done.
    pub struck_percent: u64,
    /// Mean time that a crashed node stays down.
    pub down_for: Micros,
    /// Mean delay of a packet.
    pub packet_delay: Micros,
    /// Packets lost, in percent, also when all is well.
    pub loss_percent: u64,
    /// Packets doubled, in percent.
    pub doubled_percent: u64,
    /// Packets of one link may overtake each other.
    pub reorders: bool,
    /// Mean time of a write with its sync.
    pub write_delay: Micros,
    /// Mean time of a read from disk.
    pub read_delay: Micros,
    /// Mean time until a node turns to what came in.
    pub turn_delay: Micros,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of entries that the protocol keeps in memory.
    pub retained_bytes: usize,
    /// Bytes of bodies that the cache keeps in memory.
    pub cache_bytes: usize,
    /// Bytes of one append message.
    pub append_bytes: usize,
    /// Append messages in flight to a peer.
    pub window_messages: usize,
    /// Bytes of one write.
    pub write_bytes: usize,
    /// Bytes of one entry.
    pub entry_bytes: usize,
    /// Entries proposed and not applied.
    pub entries_in_flight: usize,
    /// Steps after which a part of a turn leaves the rest to the next turn.
    pub turn_steps: u64,
    /// When snapshots are taken.
    pub snapshots: SnapshotSettings,
    /// Topics.
    pub topics: usize,
    /// Clients of each kind: producers, producers with sessions, consumers, poppers, lookers, administrators.
    pub clients: [usize; 6],
    /// Mean pause of a client between two calls.
    pub think: Micros,
    /// Greatest body.
    pub body_bytes: u64,
    /// Each node's wall clock is off by up to this much, in milliseconds.
    pub skew_ms: u64,
    /// Free bytes below which a disk counts as full.
    pub reserve_bytes: u64,
    /// Faults left out on purpose.
    pub left_out: LeftOut,
    /// Disks are damaged without regard to the others: of a committed entry no good copy may be left. Then nothing more is
    /// asked of the cluster than that it says so.
    pub is_reckless: bool,
    /// Some binaries know a version 2, and it is raised once all do.
    pub has_upgrades: bool,
    /// The life goes on until its leader has died and a power cut has lost something.
    pub is_demanding: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x706c_616e);
        let random = &mut random;
        let nodes = random.weighted(&[(8, 1), (62, 3), (30, 5)]);
        let ids = (0..nodes).map(|_| NodeId(random.bits() | 1)).collect();
        // Half of the kinds are rare in a life, so that the others get far.
        let faults = Fault::ALL.iter().map(|fault| (random.pick(&[1, 1, 2, 6, 12]), *fault)).collect();
        let is_slow = random.one_in(4);
        // In restless lives every leader is struck soon, and entries travel one at a time: much is left half done.
        let is_restless = random.one_in(3);
        Self {
            seed,
            ids,
            spares: spares(seed),
            administrate_every: Random::new(seed ^ 0x6164_6d69_6e00).pick(&[30, 150, 500]) * MS,
            events: random.between(6_000, 10_000),
            fault_every: if is_restless { 2 * SECOND } else { random.pick(&[120, 250, 400, 800]) * MS },
            faults,
            struck_percent: if is_restless { 95 } else { random.pick(&[0, 0, 30]) },
            down_for: random.pick(&[50, 200, 600]) * MS,
            packet_delay: random.pick(&[200, 500, 2_000, 6_000]),
            loss_percent: random.pick(&[0, 0, 1, 5]),
            doubled_percent: random.pick(&[0, 0, 1, 10]),
            reorders: random.percent(40),
            write_delay: if is_slow { 20 * MS } else { random.pick(&[500, 1_500, 4_000]) },
            read_delay: random.pick(&[200, 1_000, 15_000]),
            turn_delay: random.pick(&[10, 100, 1_000]),
            segment_bytes: random.pick(&[8, 16, 64]) << 10,
            retained_bytes: random.pick(&[0, 2 << 10, 16 << 10, 1 << 20]),
            cache_bytes: random.pick(&[0, 4 << 10, 1 << 20]),
            append_bytes: if is_restless { 1 } else { random.pick(&[1, 256, 4 << 10, 64 << 10]) },
            window_messages: if is_restless { 1 } else { random.pick(&[1, 3, 16]) },
            write_bytes: random.pick(&[256, 8 << 10, 1 << 20]),
            entry_bytes: random.pick(&[256, 4 << 10, 64 << 10]),
            entries_in_flight: random.pick(&[1, 4]),
            turn_steps: Random::new(seed ^ 0x7374_6570_7300).pick(&[1, 10, 60, 10_000]),
            snapshots: snapshots(seed),
            topics: random.index(3) + 1,
            clients: std::array::from_fn(|kind| match kind {
                0 | 4 | 5 => random.index(2) + 1,
                _ => random.index(3) + 1,
            }),
            think: random.pick(&[5, 20, 60]) * MS,
            body_bytes: random.pick(&[40, 300, 3_000]),
            skew_ms: random.pick(&[0, 50, 2_000]),
            reserve_bytes: 48 << 10,
            left_out: LeftOut::default(),
            // From a stream of its own, so that all other lives stay what they were.
            is_reckless: Random::new(seed ^ 0x7265_636b_6c65).one_in(12),
            has_upgrades: Random::new(seed ^ 0x7570_6772_6164).one_in(4),
            is_demanding: true,
        }
    }

    /// The same life without some of its faults.
    #[must_use]
    pub fn without(mut self, left_out: LeftOut) -> Self {
        self.is_demanding &= left_out == LeftOut::default();
        if left_out.strikes {
            self.struck_percent = 0;
        }
        if left_out.losses {
            (self.loss_percent, self.doubled_percent, self.reorders) = (0, 0, false);
        }
        for kind in &left_out.clients {
            self.clients[*kind] = 0;
        }
        self.left_out = left_out;
        self
    }

    /// Whether faults come by themselves.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// How the keepers work.
    #[must_use]
    pub fn keeper(&self) -> KeeperSettings {
        let segment_bytes = self.segment_bytes;
        KeeperSettings { segment_bytes, kept_bytes_target: 4 << 10, copied_bytes_max: 16 << 10 }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.ids.len() + self.spares.len()
    }
}

/// From a stream of its own, so that lives without spares stay what they were.
fn spares(seed: u64) -> Vec<NodeId> {
    let mut random = Random::new(seed ^ 0x0073_7061_7265);
    let count = if random.percent(40) { random.between(1, 3) } else { 0 };
    (0..count).map(|_| NodeId(random.bits() | 1)).collect()
}

/// From a stream of its own, so that all other parts of lives stay what they were. Some lives have no snapshots at all.
fn snapshots(seed: u64) -> SnapshotSettings {
    let mut random = Random::new(seed ^ 0x736e_6170);
    let never = SnapshotSettings { bytes: u64::MAX, steps: u64::MAX, idle_ticks: u32::MAX, idle_bytes: 0 };
    let often = SnapshotSettings {
        bytes: random.pick(&[2, 10, 40]) << 10,
        steps: random.pick(&[50, 500, u64::MAX]),
        idle_ticks: random.pick(&[20, 200]),
        idle_bytes: random.pick(&[0, 4 << 10]),
    };
    if random.one_in(5) { never } else { often }
}
