//! Tokens of Kubernetes ServiceAccounts: the API server is asked what it thinks of them (TokenReview).
//!
//! Its answers are kept for a while, and calls with one token share one question: how often it is asked does not depend on how
//! much is published. Until an answer that a token counts is over, up to [a minute](COUNTS_FOR), a token counts that Kubernetes took back
//! meanwhile, with its pod or its ServiceAccount.

pub(crate) mod asking;

use crate::caller::Caller;
use crate::jwt::audiences;
use crate::tokens::{Hash, hash_of};
use crate::words::shown;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{OnceCell, Semaphore};

/// How long an answer is kept that a token counts, if the token does not end sooner.
const COUNTS_FOR: Duration = Duration::from_secs(60);
/// How long an answer is kept that it does not.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long nobody asks again about a token after a question without an answer.
const UNANSWERED_FOR: Duration = Duration::from_secs(1);
/// Tokens whose answers are kept, or are waited for.
const TOKENS_MAX: usize = 1_000;
/// Questions at once; more wait for one of them to end.
const QUESTIONS_MAX: usize = 16;
/// How long a call waits for an answer, in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the API server is, and what this pod shows it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Its host, as KUBERNETES_SERVICE_HOST has it; its certificate must be for this.
    pub host: String,
    /// Its port, as KUBERNETES_SERVICE_PORT has it.
    pub port: u16,
    /// The token of this pod's own ServiceAccount; read anew for each question, as the kubelet renews it.
    pub token_file: PathBuf,
    /// The CA that must have signed the API server's certificate, in PEM; read anew, too.
    pub ca_file: PathBuf,
}

impl ApiServer {
    /// The API server of a pod, with the files where the kubelet puts them.
    #[must_use]
    pub fn of_pod(host: impl Into<String>, port: u16) -> Self {
        let folder = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self { host: host.into(), port, token_file: folder.join("token"), ca_file: folder.join("ca.crt") }
    }
}

/// Why a token of a ServiceAccount does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// There is no answer; the caller may try again.
    #[error("the API server cannot be asked about the token: {0}")]
    Unavailable(String),
    /// This pod may not ask; who runs it must grant that. The caller may try again then.
    #[error("the API server refuses TokenReviews of this pod: {0}")]
    Forbidden(String),
    /// Kubernetes does not know it, or not any more.
    #[error("Kubernetes does not accept the token{}", because(.0))]
    Refused(String),
    /// It is made for others.
    #[error("the token is made for {}, not for `{}`", audiences(.found), shown(.wanted))]
    Audience {
        /// For whom it is.
        found: Vec<String>,
        /// For whom it must be.
        wanted: String,
    },
    /// It is somebody else's.
    #[error("the token is that of `{}`, and only ServiceAccounts count", shown(.0))]
    NoServiceAccount(String),
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {}", shown(why)) }
}

impl ReviewError {
    /// Whether it says nothing about the token.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, ReviewError::Unavailable(_) | ReviewError::Forbidden(_))
    }
}

/// Asks the API server, and keeps its answers for a while.
#[derive(Debug)]
pub(crate) struct Reviewer {
    api: ApiServer,
    answers: Mutex<HashMap<Hash, Arc<OnceCell<Answer>>>>,
    questions: Semaphore,
}

/// What was answered about a token, and when it counts.
#[derive(Debug)]
struct Answer {
    said: Result<Caller, ReviewError>,
    from: SystemTime,
    until: SystemTime,
}

impl Answer {
    fn new(said: Result<Caller, ReviewError>, now: SystemTime) -> Self {
        let for_long = match &said {
            Ok(_) => COUNTS_FOR,
            Err(error) if error.is_temporary() => UNANSWERED_FOR,
            Err(_) => REFUSED_FOR,
        };
        let end = now.checked_add(for_long).unwrap_or(now);
        let until = match said.as_ref().map(Caller::expires) {
            Ok(Some(expires)) => end.min(expires),
            _ => end,
        };
        Self { said, from: now, until }
    }

    /// Whether it counts at this time. One of a time to come is over, too: the clock was set back.
    fn is_of(&self, now: SystemTime) -> bool {
        self.from <= now && now < self.until
    }
}

impl Reviewer {
    pub(crate) fn new(api: ApiServer) -> Self {
        Self { api, answers: Mutex::default(), questions: Semaphore::new(QUESTIONS_MAX) }
    }

    /// The caller that a token names, by an answer that is kept or by asking. `expires`: when the token ends, as it says itself.
    /// Dropping the future is safe: if others wait for the same answer, one of them asks anew.
    ///
    /// # Errors
    /// [`ReviewError`] if the token does not count, or nobody could be asked in time.
    pub(crate) async fn review(
        &self,
        token: &str,
        audience: &str,
        expires: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Caller, ReviewError> {
        let answer = self.place(hash_of(&format!("{audience}\n{token}")), now)?;
        let asked = answer.get_or_init(|| async {
            let asking = async {
                // The semaphore is never closed.
                let _turn = self.questions.acquire().await;
                asking::ask(&self.api, token, audience, expires).await
            };
            let said = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
                let seconds = PATIENCE.as_secs();
                Err(ReviewError::Unavailable(format!("it did not answer within {seconds} seconds")))
            });
            Answer::new(said, now)
        });
        asked.await.said.clone()
    }

    /// Where the answer about a token is, or will be.
    fn place(&self, token: Hash, now: SystemTime) -> Result<Arc<OnceCell<Answer>>, ReviewError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(&token)
            && answer.get().is_none_or(|answer| answer.is_of(now))
        {
            return Ok(Arc::clone(answer));
        }
        answers.remove(&token);
        if answers.len() >= TOKENS_MAX {
            make_room(&mut answers, now);
        }
        if answers.len() >= TOKENS_MAX {
            return Err(ReviewError::Unavailable(format!("it is being asked about {TOKENS_MAX} others")));
        }
        let answer = Arc::new(OnceCell::new());
        answers.insert(token, Arc::clone(&answer));
        Ok(answer)
    }
}

/// Forgets what is over, what nobody waits for any more, and if that is nothing, the answer that is over first; refusals before
/// what counts, so that strangers with many tokens do not push out those that are in use.
fn make_room(answers: &mut HashMap<Hash, Arc<OnceCell<Answer>>>, now: SystemTime) {
    // Whoever waits holds the place, too, and has taken it under the lock that is held now.
    answers.retain(|_, place| match place.get() {
        Some(answer) => answer.is_of(now),
        None => Arc::strong_count(place) > 1,
    });
    if answers.len() < TOKENS_MAX {
        return;
    }
    let value = |answer: &Answer| (answer.said.is_ok(), answer.until);
    let answered = answers.iter().filter_map(|(token, place)| Some((value(place.get()?), *token)));
    if let Some((_, token)) = answered.min() {
        answers.remove(&token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Means;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(n: u64) -> Hash {
        hash_of(&n.to_string())
    }

    fn reviewer() -> Reviewer {
        Reviewer::new(ApiServer::of_pod("127.0.0.1", 1))
    }

    fn worker(expires: Option<SystemTime>) -> Result<Caller, ReviewError> {
        Ok(Caller::of(Means::ServiceAccount, "shop/worker".into(), Vec::new(), expires))
    }

    fn refused() -> Result<Caller, ReviewError> {
        Err(ReviewError::Refused("it has been invalidated".into()))
    }

    #[test]
    fn answers_are_kept_as_long_as_they_may_count() {
        let unavailable = Err(ReviewError::Unavailable(String::new()));
        for (said, seconds) in [
            (worker(None), 60),
            (worker(Some(at(1_010))), 10),
            (worker(Some(at(9_000))), 60),
            (refused(), 5),
            (unavailable, 1),
            (Err(ReviewError::Forbidden(String::new())), 1),
        ] {
            let answer = Answer::new(said, at(1_000));
            let is_of = [999, 1_000, 999 + seconds, 1_000 + seconds].map(|seconds| answer.is_of(at(seconds)));
            assert_eq!(is_of, [false, true, true, false], "{answer:?}");
        }
    }

    #[test]
    fn there_is_room_for_a_thousand_tokens_and_what_counts_is_forgotten_last() {
        let reviewer = reviewer();
        let put = |n: u64, said: Result<Caller, ReviewError>, now: u64| {
            let place = reviewer.place(token(n), at(now)).expect("there is room");
            place.set(Answer::new(said, at(now))).expect("it is new");
        };
        let is_there = |n: u64| reviewer.answers.lock().expect("no panic").contains_key(&token(n));
        put(0, worker(None), 100);
        (1..1_000).for_each(|n| put(n, refused(), 101));
        put(1_000, worker(None), 102);
        assert_eq!(reviewer.answers.lock().expect("no panic").len(), 1_000);
        assert!(is_there(0) && is_there(1_000), "what counts is there");
        put(1_001, refused(), 107);
        assert_eq!(reviewer.answers.lock().expect("no panic").len(), 3, "what is over has gone");
    }

    #[test]
    fn places_whose_askers_have_gone_are_given_to_others_and_those_of_askers_are_not() {
        let reviewer = reviewer();
        let held: Vec<_> =
            (0..1_000).map(|n| reviewer.place(token(n), at(0)).expect("there is room")).collect();
        let error = reviewer.place(token(1_000), at(0)).expect_err("all are waited for");
        assert!(error.is_temporary() && error.to_string().contains("1000 others"), "{error}");
        assert!(reviewer.place(token(5), at(0)).is_ok(), "who waits for the same waits along");
        drop(held);
        assert!(reviewer.place(token(1_000), at(0)).is_ok(), "nobody waits any more");
    }
}
