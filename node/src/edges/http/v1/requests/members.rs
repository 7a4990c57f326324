//! Calls about members.

use super::{AtMost, Call, Routes, null_is_absent};
use crate::api::{CHANGED_MAX, Failure, Method};
use crate::edges::http::v1::members as json;
use crate::edges::service::Service;
use raftqueue_proto::v1;
use serde::Deserialize;

request! {
    /// Waiting nodes that are to become learners.
    AddLearner {
        /// One to three waiting nodes by id or name.
        nodes: AtMost<CHANGED_MAX, String>,
        /// The index of the configuration that the caller has seen: if another one is in force, the call is refused with
        /// `STALE_CONFIGURATION`. Default: whichever is in force.
        configuration_index: Option<u64>,
        /// Changes nothing: the answer says why the call would be refused, if it would.
        dry: bool,
    }
}

request! {
    /// Learners that are to become voters.
    Promote {
        /// One to three learners by id or name.
        nodes: AtMost<CHANGED_MAX, String>,
        /// The index of the configuration that the caller has seen. Default: whichever is in force.
        configuration_index: Option<u64>,
        /// Changes nothing: the answer says why the call would be refused, if it would.
        dry: bool,
    }
}

request! {
    /// Members that are to be removed.
    Remove {
        /// One to three members by id or name.
        nodes: AtMost<CHANGED_MAX, String>,
        /// The index of the configuration that the caller has seen. Default: whichever is in force.
        configuration_index: Option<u64>,
        /// Changes nothing: the answer says why the call would be refused, if it would.
        dry: bool,
        /// Removes them also if no quorum of the others is well.
        force: bool,
    }
}

request! {
    /// A voter whose place a learner is to take.
    Replace {
        /// The voter, by id or name.
        old: String,
        /// The learner, by id or name.
        new: String,
        /// The index of the configuration that the caller has seen. Default: whichever is in force.
        configuration_index: Option<u64>,
        /// Changes nothing: the answer says why the call would be refused, if it would.
        dry: bool,
        /// Replaces a voter that is well.
        force: bool,
    }
}

request! {
    /// A node that may have to go on alone.
    Recover {
        /// What an earlier answer of this node showed. Default: nothing is done, the node only says what it knows.
        token: Option<String>,
        /// Goes on also where the node is a learner, or lacks bodies of messages that live.
        force: bool,
    }
}

call!(AddLearner => AddLearnerRequest, MemberChangeResponse as MemberChange: |self, _name| v1::AddLearnerRequest {
    nodes: self.nodes.0,
    configuration_index: self.configuration_index,
    dry: self.dry,
});
call!(Promote => PromoteRequest, MemberChangeResponse as MemberChange: |self, _name| v1::PromoteRequest {
    nodes: self.nodes.0,
    configuration_index: self.configuration_index,
    dry: self.dry,
});
call!(Remove => RemoveRequest, MemberChangeResponse as MemberChange: |self, _name| v1::RemoveRequest {
    nodes: self.nodes.0,
    configuration_index: self.configuration_index,
    dry: self.dry,
    force: self.force,
});
call!(Replace => ReplaceRequest, MemberChangeResponse as MemberChange: |self, _name| v1::ReplaceRequest {
    old: self.old,
    new: self.new,
    configuration_index: self.configuration_index,
    dry: self.dry,
    force: self.force,
});
request! {
    /// The active version of commands and formats is to rise.
    RaiseVersion {
        /// The version that is to be in force. Default: the newest that all members run.
        version: Option<u32>,
        /// The index of the configuration that the caller has seen. Default: whichever is in force.
        configuration_index: Option<u64>,
        /// Changes nothing: the answer says why the call would be refused, if it would.
        dry: bool,
    }
}

call!(RaiseVersion => RaiseVersionRequest, MemberChangeResponse as MemberChange: |self, _name| v1::RaiseVersionRequest {
    version: self.version,
    configuration_index: self.configuration_index,
    dry: self.dry,
});
bare!(
    /// Nothing to say.
    Members(_name) => MembersRequest, MembersResponse as MemberList: v1::MembersRequest {}
);

/// The routes of members.
pub(super) fn add_all<S: Service>(routes: &mut Routes<S>) {
    routes.get::<Members>(
        "/v1/members",
        "members",
        "The members as the leader sees them, and the nodes that wait",
    );
    let about = "Waiting nodes become learners";
    routes.post::<AddLearner>("/v1/members/add-learner", "addLearner", about);
    routes.post::<Promote>("/v1/members/promote", "promote", "Learners become voters");
    routes.post::<Remove>("/v1/members/remove", "remove", "Members are removed");
    routes.post::<Replace>("/v1/members/replace", "replace", "A learner takes the place of a voter");
    let about = "The active version of commands and formats rises";
    routes.post::<RaiseVersion>("/v1/members/raise-version", "raiseVersion", about);
}
