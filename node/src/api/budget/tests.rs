use super::*;

const MIB: usize = 1 << 20;

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>) -> Failure {
    let failure = result.expect_err("there is no room");
    assert_eq!(failure.reason, Reason::Overloaded);
    assert_eq!(failure.outcome, crate::api::Outcome::NotDone);
    assert!(failure.retry_after_ms.is_some_and(|ms| ms > 0));
    failure
}

#[test]
fn rule_10_2_what_finds_no_room_is_refused_and_what_is_given_back_is_room() {
    let budget = Budget::new(64 * MIB);
    let first = budget.charge(Share::Arriving, 36 * MIB).expect("it is empty");
    let failure = refused(budget.charge(Share::Replies, 36 * MIB));
    assert!(failure.text.contains(&(64 * MIB).to_string()), "{failure:?}");
    assert_eq!(
        (budget.used(), budget.held(Share::Replies), budget.refused(Share::Replies)),
        (36 * MIB, 0, 1)
    );
    drop(first);
    assert_eq!(budget.used(), 0);
    drop(budget.charge(Share::Replies, 36 * MIB).expect("there is room again"));
}

#[test]
fn rule_10_2_when_it_is_full_small_calls_go_through_and_acknowledgements_longest() {
    let budget = Budget::new(64 * MIB);
    let replies = budget.charge(Share::Replies, 42 * MIB).expect("three quarters of seven eighths");
    refused(budget.charge(Share::Replies, MIB));
    let arriving = budget.charge(Share::Arriving, 14 * MIB).expect("the rest of seven eighths");
    refused(budget.charge(Share::Arriving, MIB));
    let mut small = Vec::new();
    while let Ok(held) = budget.charge(Share::Arriving, SMALL_BYTES) {
        small.push(held);
    }
    assert_eq!(small.len() * SMALL_BYTES, 4 * MIB, "one part in sixteen is for what is small");
    let mut settling = Vec::new();
    while let Ok(held) = budget.charge(Share::Settling, 1_000) {
        settling.push(held);
    }
    assert_eq!(settling.len(), 4 * MIB / 1_000, "and one for what settles leases");
    drop((replies, arriving, small, settling));
    assert_eq!(budget.used(), 0);
    assert!(Share::ALL.iter().all(|share| budget.held(*share) == 0));
}

#[test]
fn a_single_call_that_the_limits_allow_fits_an_empty_budget_of_its_size() {
    for call in [1, 1_000, 36 * MIB, 108 * MIB + 17] {
        let budget = Budget::new(bytes_for(call));
        drop(budget.charge(Share::Arriving, call).expect("it fits"));
        assert!(bytes_for(call) < call * 2 + 100);
    }
}

#[test]
fn an_eighth_of_the_limit_is_the_default_but_never_less_than_the_least() {
    assert_eq!(default_bytes(None), 256 * MIB);
    assert_eq!(default_bytes(Some(128 << 20)), 64 * MIB);
    assert_eq!(default_bytes(Some(1 << 30)), 128 * MIB);
}

#[test]
fn what_cannot_be_refused_is_held_all_the_same_and_counts_against_others() {
    let budget = Budget::new(64 * MIB);
    let forced = budget.force(Share::Replies, 100 * MIB);
    refused(budget.charge(Share::Settling, 1));
    drop(forced);
    let mut held = budget.charge(Share::Settling, 1).expect("there is room again");
    held.set(3);
    held.move_to(Share::Replies);
    assert_eq!((budget.held(Share::Settling), budget.held(Share::Replies)), (0, 3));
    held.set(1);
    assert_eq!(budget.used(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_gets_it_when_it_is_given_back_or_is_refused_in_time() {
    let budget = Budget::new(64 * MIB);
    let held = budget.charge(Share::Replies, 30 * MIB).expect("it is empty");
    let patience = Duration::from_secs(1);
    refused(budget.charge_within(Share::Streams, 30 * MIB, patience).await);
    let waits = budget.charge_within(Share::Streams, 30 * MIB, patience);
    let (waited, ()) = tokio::join!(waits, async { drop(held) });
    assert_eq!(waited.expect("it was given back").bytes(), 30 * MIB);
}

#[tokio::test]
async fn the_parts_of_an_account_outlive_it_and_no_byte_counts_twice() {
    let budget = Budget::new(64 * MIB);
    let account = Arc::new(Account::new(&budget, Share::Streams));
    account.absorb(budget.charge(Share::Replies, 1_000).expect("it is empty"));
    assert_eq!((budget.held(Share::Replies), budget.held(Share::Streams)), (0, 1_000));
    let bytes = bytes_with(Bytes::from_static(b"sent"), account.part(600));
    let more = account.part(500);
    assert_eq!((account.bytes(), budget.used()), (1_100, 1_100), "100 of the second part by force");
    drop(more);
    let (half, ()) = tokio::join!(account.at_most(0), async { drop(bytes) });
    let () = half;
    assert_eq!(budget.used(), 0);
    account.absorb(budget.charge(Share::Replies, 50).expect("there is room"));
    let part = account.part(20);
    drop(account);
    assert_eq!(budget.used(), 50, "the part has the account");
    drop(part);
    assert_eq!(budget.used(), 0);
}
