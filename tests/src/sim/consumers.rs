//! Consumers, which lease and settle, and poppers, which take.

use super::calls::Answer;
use super::clients::{Ask, allowed, any_topic};
use super::ledger::{Ledger, key};
use super::plan::{MS, Plan};
use super::random::Random;
use raftqueue_node::api::{
    Delivery, LeaseId, LeaseResult, Request, Response, Settle, Settlement, Take, TakeKind,
};
use raftqueue_queue::POP_REMEMBERED_MS;

/// How often a call of unknown outcome is repeated.
const REPEATS_MAX: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// What to ask next, because of what was received.
    planned: Vec<Request>,
    repeats: u32,
}

impl Consumer {
    pub(super) fn next(&mut self, plan: &Plan, random: &mut Random) -> Ask {
        match self.planned.last() {
            Some(request) => (request.clone(), allowed(random)),
            None => {
                let request = Request::Take(Take {
                    topic: any_topic(plan, random),
                    subscription: String::new(),
                    messages_max: random.pick(&[1, 2, 8]),
                    bytes_max: random.pick(&[1, 1_000, 1_000_000]),
                    wait_ms: random.pick(&[0, 0, 50, 400]),
                    kind: TakeKind::Receive { lease_ms: Some(random.between(1_000, 3_000)) },
                });
                (request, allowed(random) + 100 * MS)
            }
        }
    }

    /// Returns true if the call will be repeated.
    pub(super) fn hear(
        &mut self,
        request: &Request,
        answer: &Answer,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> bool {
        match (request, answer) {
            (
                Request::Take(Take { topic, kind: TakeKind::Receive { .. }, .. }),
                Answer::Deliveries(deliveries),
            ) => {
                self.plan(topic, deliveries, random);
                return false;
            }
            (Request::Take(Take { kind: TakeKind::Receive { .. }, .. }), _) => return false,
            (
                Request::Settle(Settle { leases, settlement: Settlement::Ack, .. }),
                Answer::Response(Response::Leases(results)),
            ) => {
                for (lease, result) in leases.iter().zip(results) {
                    if matches!(result, LeaseResult::Done | LeaseResult::Gone) {
                        ledger.take(key(lease.message));
                    }
                }
            }
            (Request::Settle(Settle { leases, settlement: Settlement::Ack, .. }), answer)
                if answer.is_unknown() =>
            {
                leases.iter().for_each(|lease| ledger.perhaps_take(key(lease.message)));
            }
            _ => {}
        }
        let is_open = answer.is_unknown() || answer.is_not_done();
        if is_open && self.repeats < REPEATS_MAX {
            self.repeats += 1;
            return true;
        }
        self.repeats = 0;
        self.planned.pop();
        false
    }

    /// What a worker does with what it got; the last one planned comes first.
    fn plan(&mut self, topic: &str, deliveries: &[Delivery], random: &mut Random) {
        let lease =
            |delivery: &Delivery| LeaseId { message: delivery.message.id, token: delivery.message.token };
        let mut leases: Vec<LeaseId> = deliveries.iter().map(lease).collect();
        let (topic, subscription) = (topic.to_owned(), String::new());
        match random.below(20) {
            0 => return, // Forgotten: the leases run out.
            1..=3 => {
                let reason =
                    if random.percent(50) { format!("bad luck {}", random.below(3)) } else { String::new() };
                let delay_ms = random.pick(&[0, 0, 30, 700]);
                self.planned.push(Request::Settle(Settle {
                    topic,
                    subscription,
                    leases,
                    settlement: Settlement::Nack { delay_ms, reason },
                }));
                return;
            }
            4 => {
                self.planned.push(Request::Settle(Settle {
                    topic,
                    subscription,
                    leases,
                    settlement: Settlement::Release,
                }));
                return;
            }
            5 => {
                // Half is done with, half is given back.
                let rest = leases.split_off(leases.len() / 2);
                let (topic, subscription) = (topic.clone(), subscription.clone());
                self.planned.push(Request::Settle(Settle {
                    topic,
                    subscription,
                    leases: rest,
                    settlement: Settlement::Release,
                }));
            }
            _ => {}
        }
        if leases.is_empty() {
            return;
        }
        self.planned.push(Request::Settle(Settle {
            topic: topic.clone(),
            subscription: subscription.clone(),
            leases: leases.clone(),
            settlement: Settlement::Ack,
        }));
        if random.one_in(8) {
            let lease_ms = Some(random.between(1_000, 4_000));
            self.planned.push(Request::Settle(Settle {
                topic,
                subscription,
                leases,
                settlement: Settlement::Extend { lease_ms },
            }));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Popper {
    /// A pop with a request id whose outcome is not known.
    open: Option<Request>,
    repeats: u32,
    /// Log time when it last knew what had become of its pops.
    known_ms: Option<u64>,
}

impl Popper {
    pub(super) fn next(&mut self, plan: &Plan, random: &mut Random) -> Ask {
        let request = self.open.clone().unwrap_or_else(|| {
            Request::Take(Take {
                topic: any_topic(plan, random),
                subscription: String::new(),
                messages_max: random.pick(&[1, 1, 3]),
                bytes_max: 1_000_000,
                wait_ms: random.pick(&[0, 0, 50, 300]),
                kind: TakeKind::Pop { request_id: random.percent(50).then(|| u128::from(random.bits())) },
            })
        });
        (request, allowed(random) + 100 * MS)
    }

    /// No more calls: what is unknown stays so.
    pub(super) fn stop(&mut self, ledger: &mut Ledger) {
        if let Some(Request::Take(Take { topic, messages_max, kind: TakeKind::Pop { .. }, .. })) =
            self.open.take()
        {
            ledger.allow(&topic, messages_max);
        }
    }

    /// Returns true if the call will be repeated. `log_ms` is log time.
    pub(super) fn hear(
        &mut self,
        request: &Request,
        answer: &Answer,
        log_ms: u64,
        ledger: &mut Ledger,
    ) -> bool {
        let Request::Take(Take { topic, messages_max, kind: TakeKind::Pop { request_id }, .. }) = request
        else {
            return false;
        };
        let known_ms = *self.known_ms.get_or_insert(log_ms);
        if let Answer::Deliveries(deliveries) = answer {
            deliveries.iter().for_each(|delivery| ledger.take(key(delivery.message.id)));
        }
        let was_open = self.open.is_some();
        let is_open = answer.is_unknown() || was_open && answer.is_not_done();
        if is_open && request_id.is_some() && self.repeats < REPEATS_MAX {
            self.repeats += 1;
            self.open = Some(request.clone());
            return true;
        }
        // Where a majority of clocks has jumped by an hour, the repeat was taken for another pop.
        let was_forgotten = was_open && log_ms - known_ms >= POP_REMEMBERED_MS;
        if is_open || was_forgotten {
            ledger.allow(topic, *messages_max);
        }
        self.repeats = 0;
        self.open = None;
        self.known_ms = Some(log_ms);
        false
    }
}
