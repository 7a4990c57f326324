//! Timeouts, pre-votes and votes (Ongaro's dissertation, sections 3.4, 4.2.3 and 9.6).

use super::{Raft, Role};
use crate::configuration::VoteResult;
use crate::event::Cause;
use crate::mutants::{self, Mutant};
use crate::{Envelope, GroupId, HardState, Index, Message, NodeId, Term};
use std::collections::BTreeMap;

/// Election timeouts after which a leader that says nothing is nobody's leader. Voters campaign by then.
const SILENT_ELECTIONS: u32 = 2;

impl Raft {
    /// A full randomised timeout: after hearing a leader, granting a vote, or starting.
    pub(super) fn wait_for_leader(&mut self) {
        let timeout = self.settings.election_ticks;
        self.campaign_in_ticks = self.random.between(timeout, 2 * timeout);
    }

    /// A shorter timeout, after an attempt that failed: nobody leads, so nobody is disturbed. If this node saw the
    /// leader's process end, the others see it within moments, and the next attempt may come at once.
    fn ticks_to_next_attempt(&mut self) -> u32 {
        let timeout = self.settings.election_ticks;
        if self.hinted_ticks > 0 {
            return self.random.between(1, timeout / 4 + 1);
        }
        self.random.between(timeout / 4, timeout)
    }

    /// Waits as long as the node that goes first may need: it asks for votes, and two disks must hold them.
    fn let_another_go_first(&mut self) {
        let timeout = self.settings.election_ticks;
        self.role = Role::Follower;
        let longest = if self.hinted_ticks > 0 { timeout / 2 } else { timeout };
        self.campaign_in_ticks = self.random.between(timeout / 4, longest);
    }

    /// True while the leader was heard within the shortest election timeout. No other node may win in that time.
    pub(super) fn is_leader_fresh(&self) -> bool {
        self.is_leader()
            || self.leader.is_some()
                && !self.leader_gone
                && self.leader_silent_ticks < self.settings.election_ticks
                && !mutants::is(Mutant::NoStickiness)
    }

    pub(super) fn tick_election(&mut self) {
        self.hinted_ticks = self.hinted_ticks.saturating_sub(1);
        self.campaign_in_ticks = self.campaign_in_ticks.saturating_sub(1);
        let forming = self.log.durable() == Index(0);
        let able = !self.disk_stalled
            && !self.is_damaged()
            && (!self.lacks_messages() || self.is_nobody_else_left());
        if self.campaign_in_ticks == 0 && able && !forming && self.may_be_needed_to_lead() {
            return self.become_pre_candidate();
        }
        // Whoever does not campaign, as a learner, sees as well that nobody leads: clients are not sent to who is gone.
        if self.leader_silent_ticks >= SILENT_ELECTIONS * self.settings.election_ticks {
            self.leader = None;
        }
        self.ask_again_in_ticks = self.ask_again_in_ticks.saturating_sub(1);
        if self.ask_again_in_ticks == 0 {
            self.ask();
        }
    }

    /// True if nobody has led for so long that whoever could lead with all its messages would have. Then a node that lacks some
    /// may lead: others may hold what it lacks in the part of their logs that they do not know to be committed, and hear of
    /// that from nobody else.
    fn is_nobody_else_left(&self) -> bool {
        !self.has_heard_leader_lately()
    }

    /// A voter may be needed. So may a node that the newest configuration removes, until that configuration is known to
    /// be committed: perhaps only nodes on their way out hold it, and the others cannot win without it (Ongaro's
    /// dissertation, section 4.2.2). Such a node leads without counting itself, and stops once the configuration is
    /// committed.
    fn may_be_needed_to_lead(&self) -> bool {
        let id = self.settings.id;
        let index = self.log.configuration_index();
        let was_voter = || self.log.configuration_at(index.prev()).is_some_and(|before| before.is_voter(id));
        self.configuration().is_voter(id)
            || index > self.commit && was_voter() && !mutants::is(Mutant::RemovedNeverLeads)
    }

    fn become_pre_candidate(&mut self) {
        self.leader = None;
        self.leader_gone = false;
        self.has_tried = true;
        self.cause = if self.hinted_ticks > 0 { Cause::Hint } else { Cause::Timeout };
        self.campaign_in_ticks = self.ticks_to_next_attempt();
        let id = self.settings.id;
        self.role = Role::PreCandidate { answers: BTreeMap::from([(id, true)]) };
        self.ask();
        self.count_pre_votes();
    }

    /// Asks whoever has not answered yet, and again after each heartbeat's time: a request or its answer gets lost where a
    /// connection is just being made, and an election timeout is long to wait for that (Ongaro and Ousterhout, section 5.1).
    fn ask(&mut self) {
        self.ask_again_in_ticks = self.settings.heartbeat_ticks;
        let (last_index, last_term) = (self.log.last(), self.log.last_term());
        match &self.role {
            Role::PreCandidate { answers } => {
                let message = Message::PreVote { last_index, last_term, replaying: self.is_replaying() };
                // Sent past `send_to`: it names a term that was not entered, so there is nothing to be durable.
                let (from, term) = (self.settings.id, self.term().next());
                for to in self.voters_without(answers) {
                    self.send.push(Envelope { from, to, group: GroupId(0), term, message: message.clone() });
                }
            }
            Role::Candidate { answers } => {
                let transfer = matches!(self.cause, Cause::HandOver);
                for to in self.voters_without(answers) {
                    self.send_to(to, Message::Vote { last_index, last_term, transfer });
                }
            }
            Role::Follower | Role::Leader(_) => {}
        }
    }

    /// Enters the next term and asks for votes. `transfer`: the leader asked for it.
    fn become_candidate(&mut self, transfer: bool) {
        let id = self.settings.id;
        let term = self.term().next();
        if transfer {
            self.cause = Cause::HandOver;
        }
        self.become_follower(term, None);
        self.log.set_hard_state(HardState { term, vote: Some(id) });
        self.role = Role::Candidate { answers: BTreeMap::new() };
        self.ask();
        self.count_own_vote();
    }

    /// The other voters that have not answered.
    fn voters_without(&self, answers: &BTreeMap<NodeId, bool>) -> Vec<NodeId> {
        let configuration = self.configuration();
        let id = self.settings.id;
        let is_asked =
            |peer: &NodeId| *peer != id && configuration.is_voter(*peer) && !answers.contains_key(peer);
        configuration.peers().into_iter().filter(is_asked).collect()
    }

    /// "Would you vote for me in `term`?" The answer changes nothing here: no term, no vote, no contact with a leader.
    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, last: (Term, Index), replaying: bool) {
        let (last_term, last_index) = last;
        // A node whose disk hangs could not vote afterwards, and the campaign would only raise the term.
        let mut granted = term > self.term()
            && !self.is_leader_fresh()
            && !self.disk_stalled
            && self.log.is_up_to_date(last_index, last_term);
        if granted && replaying && self.could_lead_instead_of(last) {
            granted = false;
            let soon = self.random.between(0, self.settings.election_ticks / 4 + 1);
            self.campaign_in_ticks = self.campaign_in_ticks.min(soon);
        }
        if !granted {
            return self.send_to(from, Message::PreVoteReply { granted });
        }
        if mutants::is(Mutant::PreVoteEntersTerm) {
            self.become_follower(term, None);
        }
        // Two nodes that saw the leader die need not race. A node that has not asked yet gives the other its turn. Of
        // two that ask, one steps back, or they would split the votes: the one whose log is behind or whose id is
        // smaller.
        let (own_index, own_term) = (self.log.last(), self.log.last_term());
        let races = matches!(self.role, Role::PreCandidate { .. })
            && (last_term, last_index, from) > (own_term, own_index, self.settings.id);
        if self.leader_gone || races {
            self.leader_gone = false;
            self.leader = None;
            self.let_another_go_first();
        }
        let message = Message::PreVoteReply { granted };
        self.send.push(Envelope { from: self.settings.id, to: from, group: GroupId(0), term, message });
    }

    /// Under a leader that still replays everybody waits. If this node does not replay, could get the other's vote and
    /// has had no turn yet, it takes its turn. If it fails, the other one has its turn. So nobody is refused for ever.
    fn could_lead_instead_of(&self, last: (Term, Index)) -> bool {
        !self.is_replaying()
            && !self.lacks_messages()
            && !self.is_damaged()
            && !self.has_tried
            && (self.log.last_term(), self.log.last()) >= last
            && self.may_be_needed_to_lead()
            && !mutants::is(Mutant::YieldToReplaying)
    }

    pub(super) fn on_pre_vote_granted(&mut self, from: NodeId, term: Term) {
        let expected = self.term().next();
        if let Role::PreCandidate { answers } = &mut self.role
            && term == expected
        {
            answers.insert(from, true);
            self.count_pre_votes();
        }
    }

    pub(super) fn on_pre_vote_refused(&mut self, from: NodeId) {
        if let Role::PreCandidate { answers } = &mut self.role {
            answers.insert(from, false);
            self.count_pre_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        let Role::PreCandidate { answers } = &self.role else { return };
        match self.configuration().vote_result(|id| answers.get(&id).copied()) {
            VoteResult::Won => self.become_candidate(false),
            VoteResult::Lost => self.attempt_failed(),
            VoteResult::Pending => {}
        }
    }

    /// A request for a vote in the current term. This node answers it whatever its role is: it may be a voter without
    /// knowing so yet, and the quorum may need it.
    pub(super) fn on_vote(&mut self, from: NodeId, last_index: Index, last_term: Term) {
        let hard_state = self.log.hard_state();
        let free = match hard_state.vote {
            Some(vote) => vote == from || mutants::is(Mutant::VoteTwice),
            None => self.leader.is_none(),
        };
        let granted = free && self.log.is_up_to_date(last_index, last_term);
        if granted {
            let vote =
                if mutants::is(Mutant::VoteTwice) { hard_state.vote.or(Some(from)) } else { Some(from) };
            self.log.set_hard_state(HardState { vote, ..hard_state });
            // Whoever asks again gets no more time than it had.
            if hard_state.vote.is_none() {
                self.wait_for_leader();
            }
        }
        self.send_to(from, Message::VoteReply { granted });
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        let Role::Candidate { answers } = &mut self.role else { return };
        answers.insert(from, granted);
        if !granted {
            // Most likely the votes are split. If the old leader is dead, perhaps nobody is left to say that this vote
            // is lost.
            self.campaign_in_ticks = self.ticks_to_next_attempt().min(self.campaign_in_ticks);
        }
        self.count_votes();
    }

    /// A candidate's own vote counts once it is durable, like everybody else's.
    pub(super) fn count_own_vote(&mut self) {
        if !self.log.is_hard_state_durable() {
            return;
        }
        if let Role::Candidate { answers } = &mut self.role {
            answers.insert(self.settings.id, true);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let Role::Candidate { answers } = &self.role else { return };
        if !self.log.is_hard_state_durable() {
            return;
        }
        match self.configuration().vote_result(|id| answers.get(&id).copied()) {
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.attempt_failed(),
            VoteResult::Pending => {}
        }
    }

    fn attempt_failed(&mut self) {
        self.role = Role::Follower;
        self.campaign_in_ticks = self.ticks_to_next_attempt();
    }

    /// The leader's process died. Its followers need not wait out their timeouts; pre-votes keep a wrong hint harmless.
    ///
    /// Each waits up to an eighth of a timeout, at random: then the others have most likely seen it too, and few ask at
    /// once. For one election timeout, or until a leader is heard, an attempt that fails is repeated soon.
    pub(super) fn on_peer_gone(&mut self, id: NodeId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.peer_gone(id);
        } else if self.leader == Some(id) {
            self.leader_gone = true;
            self.hinted_ticks = self.settings.election_ticks;
            let soon = self.random.between(0, self.settings.election_ticks / 8 + 1);
            self.campaign_in_ticks = self.campaign_in_ticks.min(soon);
        }
    }

    /// The leader hands over to this node. Ignored unless this node is still a voter whose whole log is on its disk.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        let ready = matches!(self.role, Role::Follower)
            && self.leader == Some(from)
            && self.configuration().is_voter(self.settings.id)
            && (self.log.durable() == self.log.last() || mutants::is(Mutant::TakeOverUnflushed))
            && !self.disk_stalled
            && !self.is_damaged()
            && !self.lacks_messages();
        if ready {
            self.become_candidate(true);
        }
    }
}
