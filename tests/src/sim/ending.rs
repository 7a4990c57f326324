//! The end of a life: all faults stop, and the cluster must be whole again.

use super::Violation;
use super::calls::Answer;
use super::clients::{NOBODY, PASSING_TOPICS};
use super::coverage::Rare;
use super::ledger::key;
use super::message::Origin;
use super::nodes::Node;
use super::plan::{MS, SECOND};
use super::world::{Phase, World};
use raftqueue_node::api::{
    Dead, DeadAction, Failure, Look, MessageId, MessageRef, Outcome, Request, Response, Take, TakeKind,
    TopicInfo, TopicOptions, Write,
};
use raftqueue_node::replica::CallId;
use raftqueue_queue::TopicId;

impl World {
    /// Makes the topics that stay, before anything goes wrong.
    pub(super) fn make_topics(&mut self) -> Result<(), Violation> {
        for topic in 0..self.plan.topics {
            let options = TopicOptions {
                attempts_max: (topic == 1).then_some(2),
                messages_max: (topic == 2).then_some(40),
                ..TopicOptions::default()
            };
            let request = Request::Write(Write::CreateTopic {
                topic: format!("t{topic}"),
                options,
                request_id: Some(7),
            });
            let mut answer = self.ask(&request)?;
            // Where crashes are enumerated, they come here too; the request's id makes a repeat succeed.
            while answer.is_unknown() {
                answer = self.ask(&request)?;
            }
            Violation::unless(matches!(answer, Answer::Response(Response::TopicCreated { .. })), || {
                format!("a topic cannot be made: {answer:?}")
            })?;
        }
        Ok(())
    }

    /// Asks the cluster and waits for the answer; asks again where nothing was done.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer, Violation> {
        for _ in 0..40 {
            let id = self.place_call(NOBODY, request.clone(), 2 * SECOND);
            let answer = self.await_answer(id)?;
            match &answer {
                Answer::Failure(Failure { outcome: Outcome::NotDone, .. }) | Answer::Refused => {
                    self.pass(50 * MS)?;
                }
                _ => return Ok(answer),
            }
        }
        Err(Violation(format!("asked again and again for {request:?}")))
    }

    /// Waits for the answer to a call of the simulator's own.
    pub(super) fn await_answer(&mut self, id: CallId) -> Result<Answer, Violation> {
        self.run_until(10 * SECOND, |world| world.heard.contains_key(&id), "an answer")?;
        Ok(self.heard.remove(&id).expect("just heard"))
    }

    pub(super) fn pass(&mut self, time: u64) -> Result<(), Violation> {
        let end = self.now + time;
        self.run_until(time + SECOND, |world| world.now >= end, "time to pass")
    }

    /// Everything goes well from now on.
    pub(super) fn stop(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Healing;
        self.trace.note(self.now, &[40], || "all faults stop".into());
        self.stop_faults()?;
        self.serve_despite_damage()?;
        (0..self.nodes.len()).try_for_each(|node| self.mend_all(node))?;
        (0..self.nodes.len()).try_for_each(|node| self.retire_damaged(node))?;
        // What stood in memory only now has to be read again.
        (0..self.nodes.len()).try_for_each(|node| self.mend_all(node))
    }

    /// No majority has a good disk: every call ends, nobody leads, nothing is committed, and who asks is refused.
    pub(super) fn refuse_all(&mut self) -> Result<(), Violation> {
        self.coverage.rare(Rare::QuorumLost);
        self.run_until(30 * SECOND, World::is_quiet, "all calls to end")?;
        let members: Vec<usize> = self.members().map(|node| node.number).collect();
        if !members.is_empty() {
            self.pass(3 * SECOND)?;
        }
        let committed = self.oracle.committed();
        for node in members {
            self.endpoints.insert(NOBODY, node);
            let id =
                self.place_call(NOBODY, Request::Look(Look::DescribeTopic { topic: "t0".into() }), SECOND);
            let answer = self.await_answer(id)?;
            Violation::unless(answer.is_not_done() || answer.is_unknown(), || {
                format!("no majority has a good disk, and node {node} answers {answer:?}")
            })?;
            self.compare_state(node)?;
        }
        Violation::unless(self.leader().is_none() && self.oracle.committed() == committed, || {
            format!("no majority has a good disk, and {:?} leads", self.leader())
        })?;
        self.close_books()
    }

    /// Soon all agree and every call has ended.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.run_until(World::HEALING_MAX, |world| world.leader().is_some(), "a leader")?;
        self.run_until(30 * SECOND, World::is_quiet, "all calls to end")?;
        self.check_recoveries()?;
        self.agree()
    }

    /// Damage on a minority of the disks stops nobody: while all else is well something new is committed soon, though the
    /// nodes with damage take part.
    fn serve_despite_damage(&mut self) -> Result<(), Violation> {
        let is_bad = |node: &Node| node.is_damaged || node.out.is_some();
        let is_minority = self.is_quorum(|node| !is_bad(node));
        if !is_minority || !self.nodes.iter().any(|node| node.is_damaged && node.is_up()) {
            return Ok(());
        }
        let end = self.now + 3 * World::HEALING_MAX + self.entries_behind() * World::CATCHING_UP_MAX;
        while self.now < end {
            // Whoever names this producer again gets the same session.
            let request = Request::Write(Write::OpenSession { name: Some("anybody".into()) });
            let id = self.place_call(NOBODY, request, 2 * SECOND);
            if let Answer::Response(_) = self.await_answer(id)? {
                return Ok(());
            }
            self.pass(100 * MS)?;
        }
        Err(Violation("a node with a damaged disk keeps all others from committing anything".into()))
    }

    /// All nodes have applied all that is committed and have their logs on disk, and hold the same, and nobody is half in or
    /// out of the cluster. What a node has not written yet is nothing that it can confirm: with another node out, everything
    /// would wait for it. A leader that is on its way out does not see what becomes of the last calls.
    pub(super) fn agree(&mut self) -> Result<(), Violation> {
        let is_even = |world: &World| {
            let committed = world.oracle.committed();
            let is_joint = world.configurations.last().is_some_and(|(_, members)| members.is_joint());
            world.leader().is_some()
                && !is_joint
                && world.members().all(|node| !node.running.as_ref().is_some_and(|at| at.lacks()))
                && world.members().all(|node| {
                    node.replica().is_some_and(|r| {
                        r.applied() == committed && r.raft().durable_index() == r.raft().last_index()
                    })
                })
        };
        // Who lacks messages asks for them every ten seconds at least.
        let limit = World::HEALING_MAX + self.entries_behind() * World::CATCHING_UP_MAX + 30 * SECOND;
        let waited = self.run_until(limit, is_even, "all nodes to apply the same");
        waited.map_err(|Violation(text)| {
            let stand = self.members().map(|node| {
                let running = node.running.as_ref()?;
                let raft = running.replica.raft();
                let at = (running.replica.applied().0, raft.durable_index().0, raft.last_index().0);
                Some((node.number, at, running.is_incomplete))
            });
            let stand = stand.collect::<Vec<_>>();
            Violation(format!(
                "{text}: of {} (applied, durable, last), lacking: {stand:?}",
                self.oracle.committed()
            ))
        })?;
        let members: Vec<usize> = self.members().map(|node| node.number).collect();
        for node in members {
            self.compare_state(node)?;
            self.read_all(node)?;
        }
        Ok(())
    }

    /// Nothing is under way any more, so nothing is left behind for it: no node keeps counting a call, an entry or bytes
    /// that are gone, and memory is within its bounds.
    fn rest(&mut self) -> Result<(), Violation> {
        let waited = self.run_until(
            5 * SECOND,
            |world| world.members().all(|node| node.is_idle(&world.plan)),
            "all counters to be zero",
        );
        waited.map_err(|Violation(text)| {
            let left = self.members().map(|node| {
                let running = node.running.as_ref().expect("all members run");
                let window_bytes = running.replica.view().raft.window_bytes;
                (node.number, running.replica.outstanding(), running.bodies.held(), window_bytes)
            });
            Violation(format!("{text}: {:?}", left.collect::<Vec<_>>()))
        })
    }

    /// Every message that is live for a node.
    pub(super) fn living(&mut self, node: usize) -> Vec<MessageRef> {
        self.run_binary(node);
        let running = self.nodes[node].running();
        let mut live: Vec<MessageRef> = Vec::new();
        for topic in running.replica.state().topics_from(TopicId(0)) {
            let mut from = 0;
            while let Some(run) = topic.live_run_from(from) {
                from = run.end;
                live.extend(run.map(|offset| {
                    let generation = topic.generation_of(offset).expect("a live offset was given").0;
                    let id = MessageId { generation, topic: topic.id().0, offset };
                    MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() }
                }));
            }
        }
        live
    }

    /// Every message that is live for a node can be read from its own log, and is what was published.
    fn read_all(&mut self, node: usize) -> Result<(), Violation> {
        for asked in self.living(node) {
            let bodies = &self.nodes[node].running().bodies;
            let located = bodies.locate(vec![asked.clone()]);
            let readings = bodies.read(&located, usize::MAX, true).expect("it may block");
            match &readings.deliveries[..] {
                [delivery] => self.check_delivery(delivery, &asked)?,
                _ => {
                    return Err(Violation(format!(
                        "node {node} cannot read the live {:?}: {:?}",
                        asked.id, readings.lost
                    )));
                }
            }
            self.summary.bodies_read += 1;
        }
        Ok(())
    }

    /// How many entries the node that is furthest behind has to take from the leader, or to write.
    fn entries_behind(&self) -> u64 {
        let logs = || self.members().filter_map(|node| Some(node.replica()?.raft()));
        let newest = logs().map(|log| log.last_index().0).max().unwrap_or(0).max(self.oracle.committed().0);
        logs().map(|log| log.durable_index().0).min().map_or(0, |least| newest.saturating_sub(least))
    }

    /// The members whose disks are good.
    pub(super) fn members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.out.is_none() && self.is_member(node))
    }

    /// Takes everything out of every topic.
    pub(super) fn drain(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Draining;
        self.stop_clients();
        let lasting = (0..self.plan.topics).map(|topic| format!("t{topic}"));
        let passing = (0..PASSING_TOPICS).map(|topic| format!("x{topic}"));
        for topic in lasting.chain(passing) {
            self.drain_topic(&topic)?;
        }
        Ok(())
    }

    fn drain_topic(&mut self, topic: &str) -> Result<(), Violation> {
        // Leases and delays end within seconds of log time; that may run a tenth slower behind clocks that were ahead.
        for _ in 0..200 {
            let Some(info) = self.describe(topic)? else { return Ok(()) };
            let counts = &info.subscriptions[0];
            if counts.ready > 0 {
                self.drain_some(topic)?;
            } else if counts.dead > 0 {
                let (topic, subscription) = (topic.to_owned(), String::new());
                self.ask(&Request::Dead(Dead {
                    topic,
                    subscription,
                    offsets: Vec::new(),
                    action: DeadAction::Redrive,
                }))?;
            } else if counts.leased + counts.delayed > 0 {
                self.pass(200 * MS)?;
            } else {
                if topic.starts_with('t') {
                    self.summary.drained += self.ledger.close(info.id, topic)?;
                }
                return Ok(());
            }
        }
        Err(Violation(format!("topic {topic} does not get empty")))
    }

    fn describe(&mut self, topic: &str) -> Result<Option<TopicInfo>, Violation> {
        let topic = topic.to_owned();
        let id =
            self.place_call(NOBODY, Request::Look(Look::DescribeTopic { topic: topic.clone() }), 2 * SECOND);
        match self.await_answer(id)? {
            Answer::Response(Response::Topic(info)) => Ok(Some(info)),
            Answer::Failure(failure)
                if failure.reason == raftqueue_node::api::Reason::TopicNotFound && topic.starts_with('x') =>
            {
                Ok(None)
            }
            Answer::Failure(Failure { outcome: Outcome::NotDone, .. }) | Answer::Refused => {
                self.pass(50 * MS)?;
                self.describe(&topic)
            }
            other => Err(Violation(format!("topic {topic} cannot be described: {other:?}"))),
        }
    }

    fn drain_some(&mut self, topic: &str) -> Result<(), Violation> {
        let answer = self.ask(&Request::Take(Take {
            topic: topic.to_owned(),
            subscription: String::new(),
            messages_max: 50,
            bytes_max: 10_000_000,
            wait_ms: 0,
            kind: TakeKind::Pop { request_id: None },
        }))?;
        match answer {
            Answer::Deliveries(deliveries) => {
                Violation::unless(
                    deliveries.is_sorted_by_key(|delivery| delivery.message.id.offset),
                    || format!("topic {topic} gives its messages out of order"),
                )?;
                for delivery in deliveries {
                    let origin = Origin::of(&delivery.body).expect("checked when it was read");
                    self.ledger.drain(key(delivery.message.id), origin)?;
                }
                Ok(())
            }
            // What was ready has expired meanwhile.
            Answer::Response(Response::Messages(_)) => Ok(()),
            other => Err(Violation(format!("topic {topic} cannot be drained while all is well: {other:?}"))),
        }
    }

    /// The last look at everything.
    pub(super) fn finish(&mut self) -> Result<(), Violation> {
        self.agree()?;
        self.rest()?;
        self.close_books()
    }

    /// However a life ends: who gave up and was never answered does not know what became of the call.
    fn close_books(&mut self) -> Result<(), Violation> {
        for call in std::mem::take(&mut self.calls).into_values() {
            self.oracle.unanswered(&call);
        }
        self.oracle.finish()
    }
}
