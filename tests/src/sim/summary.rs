//! What the lives went through, counted.

use std::fmt;

/// Sums over one life or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they count")]
pub struct Summary {
    pub seeds: u64,
    pub events: u64,
    pub virtual_ms: u64,
    pub crashes: u64,
    pub leader_crashes: u64,
    pub crashes_inside: u64,
    pub power_cuts: u64,
    pub lossy_cuts: u64,
    pub lost_sectors: u64,
    pub all_down: u64,
    pub recoveries: u64,
    pub pauses: u64,
    pub partitions: u64,
    pub resets: u64,
    pub storms: u64,
    pub stalls: u64,
    pub clock_jumps: u64,
    pub hand_overs: u64,
    pub hints: u64,
    pub packets: u64,
    pub packets_lost: u64,
    pub elections: u64,
    pub entries: u64,
    pub entries_cut: u64,
    pub messages: u64,
    pub calls: u64,
    pub calls_done: u64,
    pub calls_unknown: u64,
    pub retries: u64,
    pub looks: u64,
    pub deliveries: u64,
    pub drained: u64,
    pub bodies_read: u64,
    pub loads: u64,
    pub state_checks: u64,
    pub disk_checks: u64,
    pub snapshots: u64,
    pub kept_files: u64,
    pub retired: u64,
    pub filled: u64,
    pub restored: u64,
    pub taken_out: u64,
    /// The most of one turn; not a sum.
    pub turn_steps_max: u64,
}

impl Summary {
    fn rows(&self) -> [(&'static str, u64); 43] {
        [
            ("seeds", self.seeds),
            ("events", self.events),
            ("virtual milliseconds", self.virtual_ms),
            ("crashes of a process", self.crashes),
            ("  of a leader", self.leader_crashes),
            ("  inside a disk call", self.crashes_inside),
            ("power cuts", self.power_cuts),
            ("  that lost un-synced sectors", self.lossy_cuts),
            ("  sectors lost", self.lost_sectors),
            ("times that all were down", self.all_down),
            ("recoveries of a log", self.recoveries),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("connection resets", self.resets),
            ("network storms", self.storms),
            ("disk stalls", self.stalls),
            ("clock jumps", self.clock_jumps),
            ("hand-overs", self.hand_overs),
            ("hints that a peer is gone", self.hints),
            ("packets", self.packets),
            ("  lost", self.packets_lost),
            ("elections", self.elections),
            ("entries committed", self.entries),
            ("entries cut off", self.entries_cut),
            ("messages published", self.messages),
            ("calls", self.calls),
            ("  done", self.calls_done),
            ("  of unknown outcome", self.calls_unknown),
            ("  repeated", self.retries),
            ("  that only looked", self.looks),
            ("messages delivered", self.deliveries),
            ("messages drained at the end", self.drained),
            ("live messages read on each node at the end", self.bodies_read),
            ("reads of the log", self.loads),
            ("queue states compared", self.state_checks),
            ("disks opened to compare", self.disk_checks),
            ("snapshots", self.snapshots),
            ("  restored from", self.restored),
            ("kept files", self.kept_files),
            ("files retired", self.retired),
            ("kept files got from others", self.filled),
            ("nodes that refused their disk for good", self.taken_out),
            ("most steps of one turn of a node", self.turn_steps_max),
        ]
    }

    fn fields(&mut self) -> [&mut u64; 43] {
        [
            &mut self.seeds,
            &mut self.events,
            &mut self.virtual_ms,
            &mut self.crashes,
            &mut self.leader_crashes,
            &mut self.crashes_inside,
            &mut self.power_cuts,
            &mut self.lossy_cuts,
            &mut self.lost_sectors,
            &mut self.all_down,
            &mut self.recoveries,
            &mut self.pauses,
            &mut self.partitions,
            &mut self.resets,
            &mut self.storms,
            &mut self.stalls,
            &mut self.clock_jumps,
            &mut self.hand_overs,
            &mut self.hints,
            &mut self.packets,
            &mut self.packets_lost,
            &mut self.elections,
            &mut self.entries,
            &mut self.entries_cut,
            &mut self.messages,
            &mut self.calls,
            &mut self.calls_done,
            &mut self.calls_unknown,
            &mut self.retries,
            &mut self.looks,
            &mut self.deliveries,
            &mut self.drained,
            &mut self.bodies_read,
            &mut self.loads,
            &mut self.state_checks,
            &mut self.disk_checks,
            &mut self.snapshots,
            &mut self.restored,
            &mut self.kept_files,
            &mut self.retired,
            &mut self.filled,
            &mut self.taken_out,
            &mut self.turn_steps_max,
        ]
    }

    /// Adds another life.
    pub fn add(&mut self, other: &Summary) {
        let turn_steps_max = self.turn_steps_max.max(other.turn_steps_max);
        for (sum, (_, value)) in self.fields().into_iter().zip(other.rows()) {
            *sum += value;
        }
        self.turn_steps_max = turn_steps_max;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<56}{value:>12}")?;
        }
        Ok(())
    }
}
