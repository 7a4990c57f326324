//! One script per behaviour. Re-recorded with `RAFTQUEUE_RECORD=1`; every change of a recording must be explained.

use crate::script::Script;

pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");

/// Plays a script and compares with what was recorded, or records it anew where that is asked for.
fn play(name: &str) -> std::io::Result<()> {
    let path = format!("{FOLDER}/{name}");
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        let script = std::fs::read_to_string(&path)?;
        std::fs::write(&path, goldenscript::generate(&mut Script::new(), &script)?)?;
    }
    goldenscript::run(&mut Script::new(), path)
}

/// One test per script, and one that no script is forgotten.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> std::io::Result<()> {
                play(stringify!($name))
            }
        )*

        #[test]
        fn every_script_is_run() {
            let files = std::fs::read_dir(FOLDER).unwrap();
            let files: std::collections::BTreeSet<_> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(files, [$(stringify!($name).to_owned()),*].into());
        }
    };
}

scripts! {
    a_candidate_asks_for_votes_only_once_its_own_is_durable
    a_candidate_follows_the_winner_of_its_term
    a_candidate_with_a_greater_term_is_not_stuck
    a_change_is_refused_before_the_term_has_committed
    a_leader_changes_nobody_before_an_entry_of_its_own_counts
    a_change_that_is_none_is_refused
    a_cluster_is_formed_by_one_and_joined_by_blank_nodes
    a_cluster_of_one_leads_and_commits_by_itself
    a_cluster_of_three_elects_a_leader_and_commits
    a_configuration_that_is_cut_off_is_forgotten
    a_disk_that_hangs_again_and_again_causes_one_hand_over_a_minute
    a_disk_that_hangs_keeps_few_answers_in_memory
    a_follower_away_for_too_long_begins_anew_with_a_snapshot
    a_follower_commits_only_what_agrees_with_its_leader
    a_follower_that_cannot_hear_disturbs_nobody
    a_follower_that_cannot_speak_keeps_following
    a_follower_that_got_there_by_itself_is_fed_again
    a_follower_that_has_everything_is_never_left_probing
    a_follower_that_lacks_what_is_gone_is_told_so
    a_fresh_leader_protects_its_followers_from_candidates
    a_fresh_learner_gets_the_log_without_further_writes
    a_fresh_learner_of_an_idle_compacted_cluster_is_told_at_once
    a_full_window_recovers_from_the_loss_of_an_answer
    a_full_window_recovers_from_the_loss_of_everything
    a_hand_over_ends_where_its_target_turns_out_to_lack_messages
    a_forced_change_gives_up_what_only_a_voter_has_that_is_gone
    a_joint_configuration_is_left_once_also_by_a_new_leader
    a_joint_configuration_needs_the_majority_of_the_new_voters
    a_joint_configuration_needs_the_majority_of_the_old_voters
    a_joint_configuration_survives_its_leader
    a_killed_leader_is_replaced_without_waiting_for_a_timeout
    a_lagging_follower_is_fed_from_disk
    a_late_answer_confirms_no_later_read
    a_late_shorter_append_cuts_nothing
    a_leader_compacts_past_a_throttled_follower
    a_learner_notices_that_its_leader_is_gone
    a_leader_that_cannot_hear_stops
    a_leader_that_cannot_speak_is_replaced
    a_leader_that_hears_no_quorum_stops_and_the_others_elect
    a_leader_that_is_removed_finishes_the_change_and_goes
    a_leader_that_is_removed_waits_until_the_others_lack_nothing
    a_leader_that_lacks_messages_hands_over
    a_leader_that_leaves_avoids_those_that_lack_messages
    a_leader_that_leaves_avoids_those_that_replay
    a_leader_that_replays_hands_over_to_one_that_is_ready
    a_leader_that_replays_leads_on_if_nobody_takes_over
    a_leader_told_that_a_follower_is_gone_does_not_count_it
    a_leader_whose_disk_hangs_avoids_those_whose_disks_hang_too
    a_leader_whose_disk_hangs_hands_over
    a_leader_whose_disk_hangs_hears_first_how_the_others_are
    a_leader_whose_disk_hangs_stays_if_a_quorum_hangs
    a_leader_whose_disk_hangs_stays_if_the_others_could_not_lead
    a_leader_whose_disk_hangs_stays_if_the_others_lack_messages
    a_leader_whose_disk_hangs_stops_if_nobody_takes_over
    a_leader_whose_reads_fail_again_and_again_hands_over
    a_leadership_transfer_goes_only_to_another_voter
    a_leadership_transfer_goes_to_a_follower_that_has_everything
    a_leadership_transfer_is_repeated_when_its_message_is_lost
    a_leadership_transfer_that_fails_ends_after_a_timeout
    a_leadership_transfer_waits_until_its_target_has_everything
    a_load_that_finds_nothing_left_waits_for_the_word
    a_log_that_is_behind_wins_no_pre_vote
    a_lost_request_for_a_vote_is_asked_again
    a_member_is_added_as_a_learner_and_promoted
    a_new_leader_whose_log_has_begun_feeds_who_agrees
    a_new_voter_is_not_taken_for_a_silent_one
    a_node_replays_until_it_has_applied_what_was_committed_when_it_started
    a_node_starts_with_what_its_snapshot_has
    a_node_that_lacks_messages_leads_where_nobody_else_can
    a_node_that_lacks_messages_votes_and_does_not_campaign
    a_leader_that_lacks_messages_gives_a_snapshot_where_nobody_else_can
    a_node_whose_log_is_damaged_votes_by_what_it_is_known_to_be
    a_node_whose_state_is_lost_votes_by_its_log_and_leads_once_it_has_that_of_another
    a_node_that_waits_for_a_snapshot_votes_and_follows
    a_node_that_was_cut_off_returns_without_disturbing_anybody
    a_node_that_was_demoted_in_vain_is_a_voter_again
    a_node_whose_disk_hangs_grants_no_pre_vote
    a_node_with_a_smaller_term_may_still_win
    a_paused_leader_answers_no_stale_read
    a_peer_that_has_the_beginning_after_all_is_fed_again
    a_pre_vote_changes_nothing_at_those_who_grant_it
    a_read_waits_for_the_first_commit_of_the_term
    a_ready_voter_takes_its_turn_before_one_that_replays
    a_receipt_for_overwritten_entries_counts_for_nothing
    a_refused_pre_vote_brings_the_greater_term
    a_removed_node_disturbs_nobody
    a_removed_node_ignores_a_late_request_to_take_over
    a_request_to_take_over_is_ignored_by_who_has_not_flushed_its_log
    a_restarted_node_finds_its_configuration_in_its_log
    a_slow_follower_bounds_what_is_sent_to_it
    a_snapshot_brings_the_term_of_its_giver
    a_snapshot_is_the_state_of_a_fresh_learner
    a_snapshot_keeps_what_follows_it
    a_snapshot_of_everything_leaves_nothing_to_send
    a_snapshot_takes_the_place_of_a_log_that_conflicts
    a_snapshot_tells_what_is_committed
    a_snapshot_tells_where_a_log_went_astray
    a_snapshot_that_comes_too_late_changes_nothing
    a_snapshot_that_the_leader_has_passed_is_followed_by_another
    a_snapshot_whose_answer_is_lost_is_seen_by_a_heartbeat
    a_stalled_disk_that_recovers_in_time_keeps_its_leader
    a_star_of_five_keeps_its_leader
    a_vote_is_given_only_once_it_is_durable
    a_vote_that_was_given_outlives_a_crash
    a_voter_that_does_not_know_that_it_is_one_votes
    a_wrong_hint_disturbs_no_leader_that_lives
    an_answer_speaks_of_the_log_as_it_is_after_a_truncation
    an_entry_of_an_older_term_is_not_committed_by_counting_it
    an_idle_follower_learns_of_a_commit_within_a_heartbeat
    appends_out_of_order_are_sorted_out
    entries_loaded_for_a_place_that_is_passed_block_nobody
    forming_is_repeated_after_a_crash
    late_answers_to_a_pre_vote_start_nothing
    no_member_changes_while_leadership_is_handed_over
    nothing_of_a_snapshot_is_acknowledged_before_it_is_the_disks_own
    one_that_granted_another_waits_for_it
    one_that_replays_leads_where_the_ready_cannot
    reads_are_refused_where_nobody_could_answer_them
    six_divergent_followers_take_the_log_of_their_leader
    the_active_version_rises_by_an_entry
    the_configuration_at_the_beginning_stays_in_force
    the_disk_of_a_single_voter_may_hang
    the_last_entry_commits_although_its_answers_were_lost
    the_lead_goes_from_one_to_another_while_members_come_and_go
    the_members_of_a_snapshot_are_in_force
    those_on_their_way_out_may_have_to_lead_once_more
    two_nodes_that_cannot_hear_each_other_do_not_fight
    voters_are_replaced_in_one_step
    what_a_client_was_told_survives_a_power_cut_everywhere
    what_came_before_the_beginning_agrees
    without_a_quorum_what_waits_is_bounded
    writes_that_complete_one_after_another_lose_nothing
}
