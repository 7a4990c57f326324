//! Which calls may be sent again, and what is said of one that failed for good.

use crate::{Error, Outcome};

/// What to do about an attempt of unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Repeat it: it changes nothing. Without an answer nothing was done.
    Read,
    /// Repeat it: doing it twice has the same effect as doing it once.
    Harmless,
    /// Tell the caller. Only what was certainly not done is repeated.
    Risky,
}

impl Repeat {
    /// What is said of a call that failed for good. An earlier attempt may still be carried out, whatever the result of the last
    /// one; but a question that is not answered has changed nothing.
    pub(crate) fn judged(self, error: Error, was_unknown: bool) -> Error {
        let outcome = match self {
            Repeat::Read => Outcome::NotDone,
            _ if was_unknown => Outcome::Unknown,
            _ => error.outcome,
        };
        Error { outcome, ..error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_1_a_question_without_an_answer_has_changed_nothing() {
        let outcome = |repeat: Repeat, error: Error, was_unknown| repeat.judged(error, was_unknown).outcome;
        for (error, was_unknown) in
            [(Error::unheard("no answer in time"), false), (Error::not_sent("no"), true)]
        {
            assert_eq!(outcome(Repeat::Read, error.clone(), was_unknown), Outcome::NotDone);
            assert_eq!(outcome(Repeat::Harmless, error.clone(), was_unknown), Outcome::Unknown);
            assert_eq!(outcome(Repeat::Risky, error, was_unknown), Outcome::Unknown);
        }
        assert_eq!(outcome(Repeat::Risky, Error::not_sent("no"), false), Outcome::NotDone);
    }
}
