//! A forced recovery, from the side of the node that goes on alone: what it knows, what that would cost, whether it may, and
//! what is decided. Whoever shuts the node down and starts it anew carries it out.
//!
//! Afterwards the first entry that the node's leader makes of commands raises the generation in the replicated state: what is
//! given out from then on cannot be taken for what the lost part of the log gave out.

use super::Replica;
use super::propose::Proposed;
use super::view::standing;
use crate::api::codec::EntryWriter;
use crate::api::{Failure, Reason, Recover, RecoveryInfo, RecoveryMember};
use bytes::Bytes;
use raftqueue_queue::{Command, Generation};
use raftqueue_raft::{Configuration, Index, Member, MemberKind, NodeId, Payload, Term};

/// What a node decided that goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The generation that begins.
    pub generation: u32,
    /// How the log ends.
    pub last: (Index, Term),
    /// The term of the entry that follows.
    pub term: Term,
    /// What that entry says.
    pub configuration: Configuration,
}

impl Replica {
    /// What this node knows, which is of this generation. `is_heard` says of each other member whether this node has a
    /// connection to it, and it can vote.
    #[must_use]
    pub fn recovery(&self, generation: u32, is_heard: impl Fn(NodeId) -> bool) -> RecoveryInfo {
        let (status, own) = (self.raft.status(), self.raft.id());
        let (configuration, at) = (self.raft.configuration(), self.raft.configuration_index());
        let before = self.raft.configuration_at(at.prev());
        let member = |id: NodeId| {
            let known = configuration.members.get(&id);
            let known = known.or_else(|| before.and_then(|before| before.members.get(&id)));
            RecoveryMember {
                id: id.0,
                name: known.map_or_else(|| id.to_string(), |member| member.name.clone()),
                address: known.map_or_else(String::new, |member| member.address.clone()),
                standing: standing(configuration, id).expect("it is of the configuration"),
                is_own: id == own,
                is_heard: id == own || is_heard(id),
            }
        };
        let members: Vec<RecoveryMember> = configuration.peers().into_iter().map(member).collect();
        let refusal = self.why_no_recovery(generation, &members);
        let caution = refusal.is_none().then(|| self.why_force_recovery()).flatten();
        let last_term = self.raft.term_at(status.last).unwrap_or_default();
        let token = refusal.is_none().then(|| {
            let numbers = [own.0, generation.into(), at.0, status.last.0, last_term.0];
            format!("{:016x}", digest(&numbers))
        });
        RecoveryInfo {
            node_id: own.0,
            generation,
            term: self.raft.term().0,
            last: status.last.0,
            last_term: last_term.0,
            commit: status.commit.0,
            applied: self.applied.0,
            configuration_index: at.0,
            joint: configuration.is_joint(),
            complete: !status.incomplete,
            intact: !self.raft.is_damaged() && !self.is_stateless,
            costs: self.costs(&members),
            members,
            refusal,
            caution,
            token: token.unwrap_or_default(),
            ..RecoveryInfo::default()
        }
    }

    /// Decides what `info`, which this node has just told of itself, leads to. `own` says what the node is called and where it
    /// is found.
    ///
    /// # Errors
    /// It may not be done, or the token is not that of this state.
    pub fn decide_recovery(
        &self,
        info: &RecoveryInfo,
        asked: &Recover,
        own: (&str, &str),
    ) -> Result<Decision, Failure> {
        let refused = |text: String| Failure::not_done(Reason::FailedPrecondition, text);
        if let Some(why) = &info.refusal {
            return Err(refused(format!("this node does not go on alone: {why}")));
        }
        if asked.token.as_ref().is_none_or(|token| *token != info.token) {
            return Err(Failure::not_done(
                Reason::StaleConfiguration,
                "that is no token of this node as it is now: its log, its members or its generation are others; ask it again \
                 without a token, look at what it says, and give the token that it shows then",
            ));
        }
        if let Some(why) = info.caution.as_ref().filter(|_| !asked.force) {
            return Err(refused(format!("this node goes on alone only if it is forced: {why}")));
        }
        let old = self.raft.configuration();
        let (name, address) = (own.0.to_owned(), own.1.to_owned());
        let member = Member { name, address, kind: MemberKind::Voter };
        let members = [(self.raft.id(), member)].into();
        let configuration = Configuration { members, version: old.version, ..Configuration::default() };
        Ok(Decision {
            generation: info.generation + 1,
            last: (Index(info.last), Term(info.last_term)),
            term: self.raft.term().next(),
            configuration,
        })
    }

    fn why_no_recovery(&self, generation: u32, members: &[RecoveryMember]) -> Option<String> {
        let (status, own) = (self.raft.status(), self.raft.id());
        let configuration = self.raft.configuration();
        if configuration.members.is_empty() {
            return Some("it has no log of a cluster: a blank node is added by `raftq members add`".into());
        }
        if !configuration.peers().contains(&own) {
            return Some("it is no member of its cluster any more".into());
        }
        if self.raft.has_heard_leader_lately() {
            return Some(match status.role.leader {
                Some(leader) => {
                    format!("node {leader} leads in term {}: the cluster has its quorum", status.role.term)
                }
                None => "a leader was heard, or this node started, less than ten election timeouts ago: the others get so long \
                         to elect one"
                    .into(),
            });
        }
        let heard: Vec<&RecoveryMember> = members.iter().filter(|member| member.is_heard).collect();
        if configuration.is_quorum(|id| heard.iter().any(|member| member.id == id.0)) {
            let names: Vec<&str> = heard.iter().map(|member| member.name.as_str()).collect();
            return Some(format!(
                "a majority of the voters is there ({}): they elect a leader",
                names.join(", ")
            ));
        }
        if self.is_stateless {
            let text = "its snapshots are lost, and with them what was there before its log begins: take a node that has a state";
            return Some(text.into());
        }
        if self.raft.is_damaged() {
            let text = "records of its log do not verify, and only another node could mend them: take a node whose log is whole";
            return Some(text.into());
        }
        if status.durable != status.last {
            return Some("its last entries are not on its disk yet: ask again".into());
        }
        (generation == u32::MAX).then(|| "there is no generation left".into())
    }

    fn why_force_recovery(&self) -> Option<String> {
        let is_voter = self.raft.configuration().is_voter(self.raft.id());
        match (is_voter, self.raft.status().incomplete) {
            (false, _) => Some("it is a learner, and may lack what the voters acknowledged".into()),
            (true, true) => Some(
                "it lacks bodies of messages that live, which only another node could give: those messages would be lost".into(),
            ),
            (true, false) => None,
        }
    }

    fn costs(&self, members: &[RecoveryMember]) -> Vec<String> {
        let status = self.raft.status();
        let (last, commit) = (status.last.0, status.commit.0);
        let others: Vec<&str> = members.iter().filter(|m| !m.is_own).map(|m| m.name.as_str()).collect();
        if others.is_empty() {
            return Vec::new();
        }
        let mut costs = vec![format!(
            "whatever a majority acknowledged behind index {last} is lost: this node never got it, and cannot say how much it is"
        )];
        if commit < last {
            costs.push(format!(
                "entries {} to {last} are here and not known to be committed: they count from then on",
                commit + 1
            ));
        }
        if status.incomplete {
            costs.push("messages that live and whose bodies are not here are lost".into());
        }
        costs.push(format!(
            "{} are members no longer: their disks are refused when they come back, and are to be wiped",
            others.join(", ")
        ));
        costs.push("leases and offsets that were given out behind that index are GONE".into());
        costs
    }

    /// True once the generation that this node is of stands in the replicated state.
    pub(super) fn is_of_own_generation(&self) -> bool {
        self.state.generation().0 >= self.settings.generation
    }

    /// Proposes that the generation rises, once in a term. Nothing else is proposed before that is applied.
    pub(super) fn raise_generation(&mut self) {
        let term = self.raft.term();
        if self.raised_in == Some(term) || self.raft.may_propose().is_err() {
            return;
        }
        let command = Command::RaiseGeneration { generation: Generation(self.settings.generation) };
        let own = self.raft.id();
        let stamp_ms = self.clock.stamp(own, self.raft.configuration().voters(), self.now);
        let mut writer = EntryWriter::default();
        writer.push(&command);
        self.steps.take(1);
        let payload =
            Payload::Command { meta: writer.finish(self.version(), stamp_ms), bodies: Bytes::new() };
        let (term, index) = self.raft.propose(payload).expect("just asked whether it may");
        self.counters.entries_proposed += 1;
        self.pipeline.began(1);
        self.raised_in = Some(term);
        let proposed = Proposed { stamp_ms, commands: vec![command], calls: vec![None] };
        self.proposed.insert((index, term), proposed);
    }
}

/// Tells states from one another (FNV-1a, 64 bits): whoever gives it back has seen this one.
fn digest(numbers: &[u64]) -> u64 {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
