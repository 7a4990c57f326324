//! The way of a state through a snapshot and back: sections, bytes, sections, state. The states are those that the random
//! commands of the queue's own model make. `PROPTEST_CASES` makes it longer.

#[path = "../queue/tests/model/model.rs"]
#[allow(dead_code, reason = "of the model only what the commands need is used here")]
mod model;
#[path = "../queue/tests/model/steps.rs"]
mod steps;

use bytes::BytesMut;
use model::Model;
use proptest::prelude::*;
use raftqueue_node::api::codec::{VERSION_MAX, read_section, write_section};
use raftqueue_queue::{ApplyMeta, Section, State, StateBuilder};
use steps::{Step, steps};

/// The sections of a state as a snapshot holds them.
fn written(state: &State) -> Vec<Vec<u8>> {
    let bytes = |section: Section| {
        let mut out = BytesMut::new();
        write_section(&mut out, VERSION_MAX, &section);
        out.to_vec()
    };
    state.sections().map(bytes).collect()
}

/// What a node makes of the sections of a snapshot: the state, or which section was wrong.
fn read(snapshot: &[Vec<u8>]) -> Result<State, String> {
    let mut builder = StateBuilder::default();
    for bytes in snapshot {
        let section = read_section(VERSION_MAX, bytes).map_err(|unreadable| unreadable.0)?;
        builder.push(section).map_err(|broken| broken.to_string())?;
    }
    builder.finish().map_err(|broken| broken.to_string())
}

/// Applies the steps as a log would have them; the model says what they mean.
struct Run {
    state: State,
    model: Model,
    index: u64,
    now_ms: u64,
}

impl Run {
    fn begin() -> Run {
        Run { state: State::default(), model: Model::default(), index: 0, now_ms: 1_000_000 }
    }

    fn apply(&mut self, step: &Step) {
        self.now_ms += step.wait_ms;
        self.index += u64::from(!step.is_same_entry);
        let command = step.command(&self.model, self.now_ms);
        let meta = ApplyMeta { index: self.index, now_ms: self.now_ms, version: 1 };
        let _ = self.state.apply(&meta, &command);
        let _ = self.model.apply(self.index, self.now_ms, &command);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rule_3_1_a_state_comes_back_through_its_bytes(steps in steps()) {
        let mut run = Run::begin();
        for step in &steps {
            run.apply(step);
            prop_assert_eq!(&read(&written(&run.state)), &Ok(run.state.clone()));
        }
    }

    /// Sections changed, missing, twice and in another order: a state that keeps its rules, or an error that says why.
    #[test]
    fn rule_3_1_a_damaged_snapshot_is_refused_or_keeps_every_rule(
        steps in steps(),
        damage in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut run = Run::begin();
        steps.iter().for_each(|step| run.apply(step));
        let mut snapshot = written(&run.state);
        for (kind, at, other, byte) in damage {
            if snapshot.is_empty() {
                break;
            }
            let (at, other) = (at.index(snapshot.len()), other.index(snapshot.len()));
            match kind {
                0 => drop(snapshot.remove(at)),
                1 => snapshot.insert(other, snapshot[at].clone()),
                2 => snapshot.swap(at, other),
                _ => {
                    let place = other % snapshot[at].len().max(1);
                    if let Some(held) = snapshot[at].get_mut(place) {
                        *held ^= byte;
                    }
                }
            }
        }
        match read(&snapshot) {
            Ok(state) => prop_assert_eq!(state.check(), Ok(())),
            Err(text) => prop_assert!(!text.is_empty()),
        }
    }
}
