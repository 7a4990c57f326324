//! Links between nodes: late, lossy, doubling, cut in either direction, reset.

use super::plan::{MS, Micros, Plan};
use super::random::Random;
use raftqueue_node::replica::Vitals;
use raftqueue_raft::Envelope;

/// A message between nodes, on its way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The lives of both processes when it left.
    pub(super) boots: (u32, u32),
    /// The connection that it travels on.
    connection: u32,
    /// Its connection broke while it was on the way, and it arrives all the same.
    is_late: bool,
    pub(super) envelope: Envelope,
    pub(super) vitals: Vitals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Nothing enters it before this moment.
    blocked_until: Micros,
    connection: u32,
    /// A connection that broke, part of whose packets arrive late.
    lingering: Option<u32>,
    /// When the last packet arrives, so that none overtakes it on an orderly link.
    last_arrival: Micros,
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    links: Vec<Link>,
    storm_until: Micros,
    random: Random,
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Network {
    pub(super) fn new(nodes: usize, random: Random) -> Self {
        Self { nodes, links: vec![Link::default(); nodes * nodes], storm_until: 0, random, sent: 0, lost: 0 }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// Sends a packet: the moments at which it arrives, none if it is lost.
    pub(super) fn send(
        &mut self,
        now: Micros,
        plan: &Plan,
        (from, to): (usize, usize),
        boots: (u32, u32),
        (envelope, vitals): (Envelope, Vitals),
    ) -> (Packet, Vec<Micros>) {
        self.sent += 1;
        let storm = now < self.storm_until;
        let is_good = plan.left_out.is_all_at(now);
        let (loss, doubled) = if is_good { (0, 0) } else { (plan.loss_percent, plan.doubled_percent) };
        let (loss, doubled) = if storm { (loss + 25, doubled + 15) } else { (loss, doubled) };
        let is_lost = self.random.percent(loss);
        let copies = if self.random.percent(doubled) { 2 } else { 1 };
        let arrivals = (0..copies).map(|_| {
            let delay = plan.packet_delay / 4 + self.random.waiting(plan.packet_delay);
            now + delay + if storm { self.random.waiting(60 * MS) } else { 0 }
        });
        let mut arrivals: Vec<Micros> = arrivals.collect();
        let link = self.link(from, to);
        let packet =
            Packet { from, to, boots, connection: link.connection, is_late: false, envelope, vitals };
        if is_lost || now < link.blocked_until {
            self.lost += 1;
            return (packet, Vec::new());
        }
        if !(plan.reorders && !is_good || storm) {
            for arrival in &mut arrivals {
                *arrival = (*arrival).max(link.last_arrival);
                link.last_arrival = *arrival;
            }
        }
        (packet, arrivals)
    }

    /// True if the connection that the packet travelled on still stands.
    pub(super) fn stands(&mut self, packet: &Packet) -> bool {
        packet.is_late || self.link(packet.from, packet.to).connection == packet.connection
    }

    /// So much later a packet arrives whose connection broke under it; `None` for all others, and for those that are lost
    /// with it.
    pub(super) fn delay_late(&mut self, packet: &mut Packet) -> Option<Micros> {
        let lingers = self.link(packet.from, packet.to).lingering == Some(packet.connection);
        if packet.is_late || !lingers || self.random.percent(40) {
            return None;
        }
        packet.is_late = true;
        Some(self.random.waiting(200 * MS))
    }

    /// Cuts one direction until a moment.
    /// Nothing enters a link now.
    pub(super) fn is_cut(&self, now: Micros, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].blocked_until > now
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, until: Micros) {
        let link = self.link(from, to);
        link.blocked_until = link.blocked_until.max(until);
    }

    /// Breaks the connections between two nodes. What was on the way is gone, or a part of it `lingers` and arrives
    /// late.
    pub(super) fn reset(&mut self, one: usize, other: usize, lingers: bool) {
        for (from, to) in [(one, other), (other, one)] {
            let link = self.link(from, to);
            link.lingering = lingers.then_some(link.connection);
            link.connection += 1;
            link.last_arrival = 0;
        }
    }

    pub(super) fn storm(&mut self, until: Micros) {
        self.storm_until = self.storm_until.max(until);
    }

    /// Joins every cut.
    pub(super) fn join(&mut self) {
        self.links.iter_mut().for_each(|link| link.blocked_until = 0);
    }

    /// All is well from now on.
    pub(super) fn heal(&mut self) {
        self.storm_until = 0;
        self.join();
    }
}
