//! Whom leadership is handed to.

use super::*;

/// Ids are shown with all their digits, and one of sixteen begins with a zero.
#[test]
fn a_node_is_named_by_its_id_as_it_is_shown_or_by_its_name() {
    let mut alone = Alone::leading();
    for (id, to) in (1..).zip(["0000000000000007", "7", "a"]) {
        let answer = alone.ask(id, Request::TransferLeadership { to: Some(to.into()) });
        assert_eq!(answer, Ok(Response::Transferred { leader: 7 }), "{to}");
    }
    let missing = alone.ask(9, Request::TransferLeadership { to: Some("0000000000000008".into()) });
    assert_eq!(missing.unwrap_err().reason, Reason::NodeNotFound);
}
