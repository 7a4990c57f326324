//! A node that was away too long gets everything from others, whatever cuts that off.

use super::{Lives, MIB, NOTHING_LEFT, rounds, volume};
use crate::traffic::{Plan, Traffic};
use raftqueue_client::v1;
use raftqueue_tests::process::series_value;

/// A file with messages that came from others counts on this disk.
pub(crate) const INSTALLED: &str = "raftqueue_install_bytes_total";
/// It lacks messages that others have.
pub(crate) const INCOMPLETE: &str = "raftqueue_incomplete";

/// Four of five messages stay, so that there is much to get.
const MUCH_LEFT: Plan = Plan { one_left_of: 5, lease_ms: 1_000, is_calm: false, ..NOTHING_LEFT };

/// Times that it may be away before each cut has come in the midst of an install.
const AWAY_MAX: u32 = 8;

/// Whose end cuts an install off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The one that gets messages.
    Receiver,
    /// The one that leads, and that is asked first.
    Leader,
}

impl Lives {
    /// Waits until a node has got some of the messages that it lacks; false if it has them all.
    fn is_installing(&self, node: usize) -> bool {
        self.cluster.wait_for(&format!("node {node} gets messages"), || {
            // Whoever is ready has said whether it lacks anything.
            let is_ready = self.cluster.is_ready(node);
            let text = self.cluster.try_metrics(node).ok_or("no answer")?;
            let value = |series| series_value(&text, series).ok_or(format!("no {series}"));
            match (value(INCOMPLETE)? > 0.5, value(INSTALLED)?) {
                (true, installed) if installed > 0.0 => Ok(true),
                (false, _) if is_ready => Ok(false),
                (incomplete, installed) => Err(format!("{incomplete}, {installed} bytes, ready: {is_ready}")),
            }
        })
    }

    /// The nodes but one, those that are asked for messages first in front.
    fn givers(&self, but: usize) -> Vec<usize> {
        let mut members = self.members().expect("all are connected");
        members.sort_by(|one, next| one.id.cmp(&next.id));
        let node = |member: v1::Member| (0..3).find(|node| self.address(*node) == member.client_address);
        let givers: Vec<_> = members.into_iter().filter_map(node).filter(|node| *node != but).collect();
        assert_eq!(givers.len(), 2);
        givers
    }

    fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.cluster.ports(node).0)
    }

    fn members(&self) -> Result<Vec<v1::Member>, String> {
        let status = self.client.cluster_status(v1::ClusterStatusRequest {});
        self.runtime.block_on(status).map(|status| status.members).map_err(|error| error.to_string())
    }

    fn lead(&self, node: usize) {
        let address = self.address(node);
        self.cluster.wait_for(&format!("node {node} leads"), || {
            let member = self.members()?.into_iter().find(|member| member.client_address == address);
            let member = member.ok_or("it is not connected")?;
            if member.role == "leader" {
                return Ok(());
            }
            let request = v1::TransferLeadershipRequest { to: Some(member.id) };
            let transferred = self.runtime.block_on(self.client.transfer_leadership(request));
            Err(format!("{transferred:?}"))
        });
    }

    /// Whether the install of a node was really under way when this one's end came, and it goes on.
    fn is_cut_off(&mut self, away: usize, cut: Cut, giver: usize, traffic: &Traffic) -> bool {
        match cut {
            Cut::Receiver => {
                self.cluster.kill(away);
                self.cluster.start(away);
                // What it gets now it lacked then.
                self.is_installing(away)
            }
            Cut::Leader => {
                self.cluster.kill(giver);
                let is_incomplete = self.cluster.metric(away, INCOMPLETE) > 0.5;
                // The one that is complete leads, and needs the one that is not.
                self.go_on(traffic, MIB);
                self.cluster.start(giver);
                self.cluster.wait_ready(giver);
                is_incomplete
            }
        }
    }
}

#[test]
fn rule_3_4_a_node_that_was_away_too_long_gets_everything_whatever_cuts_that_off() {
    let mut lives = Lives::started(&[]);
    let mut traffics = ["a", "b"].map(|topic| lives.traffic(topic, MUCH_LEFT));
    let away = (lives.cluster.leader() + 1) % 3;
    let givers = lives.givers(away);
    let cuts = [Cut::Receiver, Cut::Receiver, Cut::Receiver, Cut::Leader];
    let mut to_come = cuts.repeat(rounds(1) as usize);
    let mut times_away = 0;
    while !to_come.is_empty() {
        times_away += 1;
        assert!(times_away <= AWAY_MAX * rounds(1), "{to_come:?} never came in time");
        lives.cluster.kill(away);
        for traffic in &traffics {
            lives.go_on(traffic, volume() / 2);
        }
        lives.lead(givers[0]);
        lives.cluster.start(away);
        while let Some(cut) = to_come.first().copied()
            && lives.is_installing(away)
        {
            if lives.is_cut_off(away, cut, givers[0], &traffics[0]) {
                to_come.remove(0);
            }
            if cut == Cut::Leader {
                break;
            }
        }
        lives.cluster.reaches(away, INCOMPLETE, |value| value < 0.5);
        lives.cluster.wait_ready(away);
    }
    traffics.iter_mut().for_each(Traffic::stop);
    // It leads, and each of the others is away once. So what is read is read here.
    for other in givers {
        lives.lead(away);
        lives.cluster.kill(other);
        let count: usize = traffics.iter().map(Traffic::check).sum();
        println!("{count} messages left, away {times_away} times");
        lives.cluster.start(other);
        lives.cluster.wait_ready(other);
    }
}
