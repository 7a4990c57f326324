//! What the lives have met: every kind of fault, and the branches of the cores that only rare schedules reach. A
//! checker that never saw a branch proves nothing about it. So the default run fails if one of these stays at zero.
//!
//! All of it follows from outputs, answers and committed commands. The cores count only their steps for it.

use super::plan::Fault;
use std::fmt;

macro_rules! rarities {
    ($($name:ident: $text:literal,)*) => {
        /// Something that happens only in rare schedules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rare {
            $(#[doc = $text] $name,)*
        }

        impl Rare {
            /// All of them with what they are, in the order of their numbers.
            pub const ALL: &[(Rare, &str)] = &[$((Rare::$name, $text),)*];
        }
    };
}

rarities! {
    PreVoteRefused: "a pre-vote is refused",
    VoteRefused: "a vote is refused",
    TermWithoutLeader: "a candidate gives up its term",
    StepDownUnheard: "a leader that hears no quorum steps down",
    AppendRejected: "an append does not fit and is probed again",
    PeerAsked: "a peer is asked what it lacks",
    StalledReply: "a peer says that its disk hangs",
    HandOver: "a leader tells another to take over",
    HandOverOnStall: "a leader with a hanging disk hands over",
    LogUnreadable: "an entry that is needed cannot be read",
    HandOverOnFullDisk: "a leader with a full disk hands over",
    Truncation: "entries that were received are cut off",
    DurableTruncation: "entries on disk are cut off",
    LoadForPeer: "old entries are read for a peer",
    LoadToApply: "entries are read back to be applied",
    LookUpFromDisk: "sizes of messages are read from disk",
    BodiesFromDisk: "bodies are read from disk",
    TornBatch: "a recovery cuts a torn batch",
    UnheardWriteKept: "a write that nobody heard of survives a crash",
    UnheardWriteLost: "a write that nobody heard of is lost",
    CrashRecovering: "a node crashes while it recovers",
    PoisonedLog: "a log is closed by an error of its disk",
    RefusedStart: "a node cannot read its disk and does not start",
    NoSpace: "a write waits for room",
    RefusedDamage: "a damaged disk is refused",
    RefusedForeignDisk: "the disk of another node is refused",
    RefusedBlank: "a blank disk is not taken for a member's",
    Holes: "a node starts although records of its log do not verify",
    RecordGiven: "a record that rots is put back with what another node has",
    HeadMended: "the head of a record that rots is made anew",
    RecordCut: "a record that rots is in the others' snapshots only",
    MendingUnheard: "nobody gives a record that rots for now",
    MessagesRepaired: "messages that cannot be read are got from another node",
    PromisesAwaited: "a node that lost what it promised waits for the others",
    PromisesRenewed: "a node that lost what it promised has heard all others, and goes on",
    ScrubMeetsRecord: "the scrub meets a record that rots",
    ScrubMeetsMessage: "the scrub meets a message of an older file that cannot be read",
    ScrubMeetsPage: "the scrub meets a page of places that rots",
    ScrubMeetsHead: "the scrub meets a head of a batch that rots",
    ScrubMeetsSnapshot: "the scrub meets a snapshot that rots",
    Healed: "a damaged disk is whole again",
    QuorumLost: "no majority has a good disk, and everything is refused",
    RefusedSetBack: "a disk that was set back is noticed by the leader",
    ReadFailure: "a message cannot be read at the moment",
    PublishDiskFull: "a publish is refused for want of room",
    CallOverdue: "a call is not done in time",
    CallUnknown: "a call is of unknown outcome",
    NotLeader: "a node that does not lead says so",
    CreateRepeated: "a topic is made again by the same request",
    TopicExists: "a topic exists already",
    NoSuchTopic: "a topic does not exist",
    LimitReached: "a topic is full",
    SessionResumed: "a named producer comes back",
    SessionRetry: "a publish is repeated in its session",
    SequenceReused: "a sequence is used for another batch",
    OutOfSequence: "a sequence does not follow the last one",
    SessionExpired: "a session is unknown",
    Fenced: "an older producer of a name is fenced off",
    AckGone: "an ack comes for a message that is gone",
    AckStale: "an ack comes for a lease that is another's",
    LeaseExpired: "a lease runs out",
    Died: "a message dies",
    Redriven: "a dead message is sent again",
    SkippedCandidates: "a receive finds its candidates taken",
    PopRepeated: "a pop is repeated",
    VersionRaised: "the active version is raised",
    NewForm: "an entry of the raised version is committed",
    OldBinary: "a node goes back to an older binary",
    TopicUpdated: "a topic is changed, under the version that can",
    TimeCommand: "time passes by a command of its own",
    TurnCut: "a turn leaves something to the next",
    DueFromFile: "deadlines are read from a file",
    KeepingWithoutRoom: "there is no room for a snapshot or a kept file",
    WentOver: "a node goes over to another one's snapshot, and its log is no more",
    ArrivalRefused: "a snapshot that has arrived is not taken",
    TransferBroken: "a transfer of a snapshot or of messages breaks off",
    Filled: "a node that was incomplete has every message again",
    GoneMeanwhile: "a message is removed while an incomplete node asks for it",
    LearnerAdded: "a waiting node becomes a learner",
    Promoted: "a learner becomes a voter",
    MemberRemoved: "a member is removed",
    MemberReplaced: "a learner takes the place of a voter",
    SeveralChanged: "several voters come or go at once",
    LeaderRemoved: "a leader removes itself",
    JointLeftByAnother: "a joint configuration is left by another leader than made it",
    ConfigurationOvertaken: "a configuration that was in a log is never committed",
    StaleChangeRefused: "a change as of an old configuration is refused",
    SecondChangeRefused: "a change is refused while another one is under way",
    PromotionRefused: "a learner that is not ready is not promoted",
    RemovalRefused: "a change that leaves too few voters that are well is refused",
    ReplacementRefused: "a voter that is well is not replaced",
    ChangeUnknown: "a change of the members is of unknown outcome",
    Recycled: "a node that was removed or lost its disk begins again as another one",
    SetAside: "a node hears that it was removed, and sets aside what it has",
    OldDiskBack: "the disk of a removed node comes back",
    Recovered: "the node that is left of a lost quorum goes on alone",
    RecoveryCut: "a forced recovery is cut short, and carried out all the same",
    StateLost: "a node starts without a state, since both of its snapshots are damaged",
    StateGiven: "a node without a state goes over to another one's",
    RestoredOlder: "the older snapshot is taken, since the newer one is damaged",
}

/// How often each of them was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    faults: [u64; Fault::ALL.len()],
    rare: [u64; Rare::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self { faults: [0; Fault::ALL.len()], rare: [0; Rare::ALL.len()] }
    }
}

impl Coverage {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub(super) fn rare(&mut self, rare: Rare) {
        self.rare[rare as usize] += 1;
    }

    pub(super) fn rare_if(&mut self, happened: bool, rare: Rare) {
        self.rare[rare as usize] += u64::from(happened);
    }

    /// Faults of a kind that took effect.
    #[must_use]
    pub fn faults_of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// How often it happened.
    #[must_use]
    pub fn times(&self, rare: Rare) -> u64 {
        self.rare[rare as usize]
    }

    /// Adds another life.
    pub fn add(&mut self, other: &Coverage) {
        for (sum, more) in self.faults.iter_mut().zip(other.faults) {
            *sum += more;
        }
        for (sum, more) in self.rare.iter_mut().zip(other.rare) {
            *sum += more;
        }
    }

    fn rows(&self) -> impl Iterator<Item = (String, u64)> {
        let faults = Fault::ALL.iter().zip(self.faults).map(|(fault, count)| (format!("{fault:?}"), count));
        let rare = Rare::ALL.iter().zip(self.rare).map(|((_, text), count)| ((*text).to_owned(), count));
        faults.chain(rare)
    }

    /// What was never met.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        self.rows().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.rows() {
            writeln!(f, "  {name:<56}{count:>12}")?;
        }
        Ok(())
    }
}
