//! Deliberate bugs, so that tests can show that they would be seen. Without the feature `mutants`, which no shipped
//! binary has, `is` is the constant `false` and nothing of this remains.

/// A rule of the protocol, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Promises leave before the term and vote behind them are durable.
    SkipVoteSync,
    /// A follower says that entries are durable when they have only arrived.
    SkipEntrySync,
    /// A leader counts its own entries before they are on its disk.
    CountSelfEarly,
    /// A leader commits entries of earlier terms by counting them.
    CommitOldTerm,
    /// A truncation leaves the durable index as it was.
    StaleDurableAfterTruncation,
    /// A truncation leaves the configurations that it cuts off in force.
    KeepTruncatedConfiguration,
    /// A follower takes the leader's commit index as it comes, whatever its own log holds.
    CommitUnverified,
    /// What lies behind the entries of an append is cut off, although it agrees.
    TruncateBehindAppend,
    /// A node votes for whoever asks, whatever that one's log holds.
    VoteForShorterLog,
    /// A node votes for everybody who asks in a term.
    VoteTwice,
    /// Followers of a leader that is well vote for another one.
    NoStickiness,
    /// A pre-vote enters the term that it asks about.
    PreVoteEntersTerm,
    /// A leader leads on although no quorum answers.
    NoCheckQuorum,
    /// A decision in a joint configuration takes the majority of the new voters alone.
    IgnoreOutgoing,
    /// A membership change begins while another one, or the first commit of the term, is pending.
    ChangeWhilePending,
    /// A read is answered without asking whether somebody else leads by now.
    ReadWithoutQuorum,
    /// Every round of reads has the number of the one before.
    ReuseReadRound,
    /// A read does not wait for the first commit of the term.
    ReadBeforeFirstCommit,
    /// A node that is told to take over campaigns with entries that are not on its disk.
    TakeOverUnflushed,
    /// A peer whose answer was lost is not asked again.
    NeverAskAgain,
    /// A peer waits for entries that are being loaded from an index that it has passed.
    WaitForOldLoad,
    /// A voter that is being removed does not campaign, though nobody else can win.
    RemovedNeverLeads,
    /// A voter that could lead yields to one that still replays its log.
    YieldToReplaying,
    /// A leader hands over to whoever has most of the log, replayed or not.
    HandOverToReplaying,
    /// A log that is cut forgets the configuration in force where it begins now.
    ForgetConfigurationAtStart,
    /// An append is refused because what it follows is gone here.
    RefuseBehindGone,
    /// A peer that lacks what is gone is asked again where the log begins.
    ProbeForGone,
    /// A peer that lacks what is gone is told so once.
    TellGoneOnce,
    /// Everything that a log holds counts as committed when that of a snapshot reaches as far, whatever its terms.
    CommitDisagreeing,
    /// A snapshot is taken that is older than what is committed.
    InstallOld,
    /// A snapshot of a later term is taken without entering that term.
    InstallKeepsTerm,
    /// A snapshot leaves the members that were known before in force.
    InstallKeepsMembers,
    /// A snapshot takes the place of all of the log, also of what follows it.
    InstallDropsTail,
    /// A snapshot counts as durable when it is only here.
    InstalledIsDurable,
    /// A node campaigns although it lacks bodies of messages.
    LeadIncomplete,
    /// A node campaigns although records of its log do not verify.
    LeadDamaged,
    /// Leadership is handed to a node that lacks bodies of messages.
    HandOverToIncomplete,
    /// A leader leads on that replays, or lacks bodies of messages, although another is ready.
    UnreadyLeadsOn,
    /// A leader whose disk hangs does not wait to hear whether those of the others do.
    HandOverAtOnce,
    /// A joint configuration is left, and a removed leader goes, although those that stay lack messages.
    LeaveTheLacking,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 40] = [
        Mutant::SkipVoteSync,
        Mutant::SkipEntrySync,
        Mutant::CountSelfEarly,
        Mutant::CommitOldTerm,
        Mutant::StaleDurableAfterTruncation,
        Mutant::KeepTruncatedConfiguration,
        Mutant::CommitUnverified,
        Mutant::TruncateBehindAppend,
        Mutant::VoteForShorterLog,
        Mutant::VoteTwice,
        Mutant::NoStickiness,
        Mutant::PreVoteEntersTerm,
        Mutant::NoCheckQuorum,
        Mutant::IgnoreOutgoing,
        Mutant::ChangeWhilePending,
        Mutant::ReadWithoutQuorum,
        Mutant::ReuseReadRound,
        Mutant::ReadBeforeFirstCommit,
        Mutant::TakeOverUnflushed,
        Mutant::NeverAskAgain,
        Mutant::WaitForOldLoad,
        Mutant::RemovedNeverLeads,
        Mutant::YieldToReplaying,
        Mutant::HandOverToReplaying,
        Mutant::ForgetConfigurationAtStart,
        Mutant::RefuseBehindGone,
        Mutant::ProbeForGone,
        Mutant::TellGoneOnce,
        Mutant::CommitDisagreeing,
        Mutant::InstallOld,
        Mutant::InstallKeepsTerm,
        Mutant::InstallKeepsMembers,
        Mutant::InstallDropsTail,
        Mutant::InstalledIsDurable,
        Mutant::LeadIncomplete,
        Mutant::LeadDamaged,
        Mutant::HandOverToIncomplete,
        Mutant::UnreadyLeadsOn,
        Mutant::HandOverAtOnce,
        Mutant::LeaveTheLacking,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks one rule, or none, for every [`crate::Raft`] on this thread.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::activate;
#[cfg(feature = "mutants")]
pub(crate) use switch::is;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
