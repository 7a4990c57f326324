//! Steps of a script about members.

use super::super::calls::Answer;
use super::super::plan::{MS, Plan};
use super::Script;
use raftqueue_node::api::{Change, ChangeMembers, Look, MembersInfo, Reason, Request, Response};
use raftqueue_node::replica::{CallId, Event};
use raftqueue_raft::NodeId;

impl Plan {
    /// Besides those that form the cluster, so many nodes wait.
    pub fn add_spares(&mut self, count: u64) {
        self.spares = (1..=count).map(|id| NodeId(0x2000 + id)).collect();
    }
}

impl Script {
    /// The id of a node, as an administrator names it.
    #[must_use]
    pub fn id(&self, node: usize) -> String {
        self.world.nodes[node].id.to_string()
    }

    /// The members as the leader tells of them. Nodes that wait have said so.
    pub fn members(&mut self) -> MembersInfo {
        self.step(|world| {
            world.announce();
            world.pass(5 * MS)
        });
        match self.ask(Request::Look(Look::Members)) {
            Answer::Response(Response::Members(members)) => members,
            other => panic!("{other:?}"),
        }
    }

    /// Asks the leader for a change as of the configuration in force.
    pub fn ask_change(&mut self, change: Change) -> CallId {
        let expected = Some(self.members().configuration_index);
        self.call(Request::Members(ChangeMembers { change, expected, force: false, dry: false }))
    }

    /// As [`Script::ask_change`], where nobody can confirm what is in force.
    pub fn ask_change_unseen(&mut self, change: Change) -> CallId {
        self.call(Request::Members(ChangeMembers { change, expected: None, force: false, dry: false }))
    }

    /// Changes the members; says where the configuration stands then, or why it is refused.
    pub fn change(&mut self, change: Change) -> Result<u64, (Reason, String)> {
        let call = self.ask_change(change);
        self.changed(call)
    }

    /// As [`Script::change`], with everything about the call said.
    pub fn change_with(&mut self, asked: ChangeMembers) -> Result<u64, (Reason, String)> {
        let call = self.call(Request::Members(asked));
        self.changed(call)
    }

    /// The answer to a change.
    pub fn changed(&mut self, call: CallId) -> Result<u64, (Reason, String)> {
        match self.answer(call) {
            Answer::Response(Response::MembersChanged { configuration_index, refusal: None }) => {
                Ok(configuration_index)
            }
            Answer::Response(Response::MembersChanged { refusal: Some(why), .. }) => {
                Err((Reason::FailedPrecondition, why))
            }
            Answer::Failure(failure) => Err((failure.reason, failure.text)),
            other => panic!("{other:?}"),
        }
    }

    /// A node notices that messages are lacking there, and does not get them.
    pub fn lacks_messages(&mut self, node: usize) {
        self.step(|world| {
            let applied = world.nodes[node].replica().expect("it runs").applied();
            world.hand(node, Event::Incomplete(applied));
            Ok(())
        });
    }

    /// A waiting node becomes a learner, and a voter as soon as it may.
    pub fn grow(&mut self, nodes: &[usize]) {
        let ids: Vec<String> = nodes.iter().map(|node| self.id(*node)).collect();
        self.change(Change::AddLearners(ids.clone())).expect("they wait");
        self.catch_up();
        self.pass_ms(100);
        self.change(Change::Promote(ids)).expect("they have everything");
    }

    /// The numbers of the voters.
    pub fn voters(&mut self) -> Vec<usize> {
        let members = self.members();
        let voters = members.members.iter().filter(|member| member.standing.name() == "voter");
        let ids: Vec<NodeId> = voters.map(|member| NodeId(member.id)).collect();
        self.world.nodes.iter().filter(|node| ids.contains(&node.id)).map(|node| node.number).collect()
    }
}
