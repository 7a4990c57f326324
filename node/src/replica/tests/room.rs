//! What is said of the room on disks.

use super::*;

#[test]
fn room_is_ample_again_only_an_eighth_beyond_the_reserve() {
    let mut alone = Alone::leading();
    alone.create(1, "t", TopicOptions::default());
    let reserve = alone.replica.settings.reserve_bytes;
    let at = |alone: &mut Alone, free_bytes| {
        alone.handle(Event::FreeBytes(free_bytes));
        alone.perform();
        let is_ample = alone.replica.is_own_room_ample();
        assert_eq!(is_ample, alone.replica.is_quorum_room_ample(), "it is the only member");
        (alone.replica.refuses_for_room(), is_ample)
    };
    assert_eq!(at(&mut alone, reserve - 1), (true, false));
    let refused = alone.ask(2, publish("t", 1, b"a")).unwrap_err();
    assert_eq!(refused.reason, Reason::DiskFull);
    let words = format!("less than the reserve of {} MiB", reserve >> 20);
    assert!(refused.text.contains(&words), "{}", refused.text);
    assert_eq!(at(&mut alone, reserve), (false, false));
    assert!(alone.ask(3, publish("t", 1, b"a")).is_ok());
    assert_eq!(at(&mut alone, reserve + reserve / 8), (false, true));
}
