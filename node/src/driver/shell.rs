//! What the driver does with what applying entries led to.

use super::Driver;
use crate::api::{Failure, Response};
use crate::driver::inbox::Replied;
use crate::replica::{AppliedEntry, CallId, DueBlock, Event, Shell};
use raftqueue_queue::{Dropped, TopicId};

impl Shell for Driver {
    fn applied(&mut self, entry: AppliedEntry) {
        self.parts.bodies.applied(entry, self.parts.replica.raft().durable_index());
    }

    fn reply(&mut self, call: CallId, result: Result<Response, Failure>) {
        let Some((reply, leases)) = self.replies.remove(&call) else { return };
        self.watched.answer(call, result.is_ok());
        let result = result.map(|response| self.locate(response));
        // The caller may have gone. Then nobody hears of what was leased for it.
        if let Err(Ok(Replied::Messages(located))) = reply.send(result)
            && leases
        {
            self.immediate.push(Event::AnswerUnheard(located.into_messages()));
        }
    }

    fn confirmed(&mut self, call: CallId) {
        let view = self.parts.replica.view();
        let cluster = self.standing(&view).cluster();
        self.reply(call, Ok(Response::Cluster(cluster)));
    }

    fn deleted(&mut self, topic: TopicId) {
        self.freeing.free(self.parts.bodies.forget(topic));
    }

    fn look_again(&mut self, block: DueBlock, when_ms: u64) {
        self.parts.bodies.look_again(&block, when_ms);
    }

    fn dropped(&mut self, dropped: Dropped) {
        self.freeing.free(dropped);
    }
}
