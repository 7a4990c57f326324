//! Every deliberate bug is seen: by the checks of the random schedules, or by a script that then tells another story.

use crate::random;
use crate::script::Script;
use crate::scripts::FOLDER;
use raftqueue_raft::mutants::{Mutant, activate};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Schedules until a bug counts as unseen.
const SCHEDULES_MAX: u64 = 3_000;

#[derive(Debug, PartialEq)]
enum SeenBy {
    RandomSchedules,
    Script(&'static str),
}

fn seen_by(mutant: Mutant) -> SeenBy {
    use SeenBy::{RandomSchedules, Script};
    match mutant {
        Mutant::KeepTruncatedConfiguration => Script("a_configuration_that_is_cut_off_is_forgotten"),
        Mutant::IgnoreOutgoing => Script("a_joint_configuration_needs_the_majority_of_the_old_voters"),
        Mutant::RemovedNeverLeads => Script("those_on_their_way_out_may_have_to_lead_once_more"),
        Mutant::NoStickiness => Script("a_fresh_leader_protects_its_followers_from_candidates"),
        Mutant::PreVoteEntersTerm => Script("a_pre_vote_changes_nothing_at_those_who_grant_it"),
        Mutant::NoCheckQuorum => Script("a_leader_that_hears_no_quorum_stops_and_the_others_elect"),
        Mutant::TakeOverUnflushed => {
            Script("a_request_to_take_over_is_ignored_by_who_has_not_flushed_its_log")
        }
        Mutant::YieldToReplaying => Script("a_ready_voter_takes_its_turn_before_one_that_replays"),
        Mutant::HandOverToReplaying => Script("a_leader_that_leaves_avoids_those_that_replay"),
        Mutant::ForgetConfigurationAtStart => Script("the_configuration_at_the_beginning_stays_in_force"),
        Mutant::RefuseBehindGone => Script("what_came_before_the_beginning_agrees"),
        Mutant::ProbeForGone | Mutant::TellGoneOnce => {
            Script("a_follower_that_lacks_what_is_gone_is_told_so")
        }
        Mutant::CommitDisagreeing => Script("a_snapshot_tells_where_a_log_went_astray"),
        Mutant::InstallDropsTail => Script("a_snapshot_keeps_what_follows_it"),
        Mutant::InstallKeepsMembers => Script("the_members_of_a_snapshot_are_in_force"),
        Mutant::InstallKeepsTerm => Script("a_snapshot_brings_the_term_of_its_giver"),
        Mutant::InstalledIsDurable => {
            Script("nothing_of_a_snapshot_is_acknowledged_before_it_is_the_disks_own")
        }
        Mutant::LeadIncomplete => Script("a_node_that_lacks_messages_votes_and_does_not_campaign"),
        Mutant::LeadDamaged => Script("a_node_whose_log_is_damaged_votes_by_what_it_is_known_to_be"),
        Mutant::HandOverToIncomplete => Script("a_leader_that_leaves_avoids_those_that_lack_messages"),
        Mutant::UnreadyLeadsOn => Script("a_leader_that_replays_hands_over_to_one_that_is_ready"),
        Mutant::LeaveTheLacking => Script("a_leader_that_is_removed_waits_until_the_others_lack_nothing"),
        Mutant::HandOverAtOnce => Script("a_leader_whose_disk_hangs_hears_first_how_the_others_are"),
        _ => RandomSchedules,
    }
}

/// Plays the script again; true if it tells another story, or a check fails.
fn tells_another_story(name: &str) -> bool {
    let recorded =
        std::fs::read_to_string(format!("{FOLDER}/{name}")).expect("every script named here exists");
    let told = catch_unwind(AssertUnwindSafe(|| goldenscript::generate(&mut Script::new(), &recorded)));
    !matches!(told, Ok(Ok(told)) if told == recorded)
}

#[test]
fn every_mutant_is_seen() {
    let mut unseen = Vec::new();
    for mutant in Mutant::ALL {
        let by = seen_by(mutant);
        if let SeenBy::Script(name) = by {
            assert!(!tells_another_story(name), "{name} is not as recorded even without a mutant");
        }
        activate(Some(mutant));
        let how = match by {
            SeenBy::RandomSchedules => {
                let seen = (0..SCHEDULES_MAX).find_map(|seed| Some((seed, random::run(seed).err()?)));
                seen.map(|(seed, why)| format!("schedule {seed}: {why}"))
            }
            SeenBy::Script(name) => tells_another_story(name).then(|| format!("script {name}")),
        };
        activate(None);
        match how {
            Some(how) => println!("{mutant:?}: {}", how.lines().next().unwrap_or_default()),
            None => unseen.push(mutant),
        }
    }
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
}
