//! The loop over a kind that is not the RaftQueue: lamps, which are ConfigMaps here.

use super::memory::SPACING;
use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use prometheus::{Encoder, Registry, TextEncoder};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug, thiserror::Error)]
#[error("the lamp is broken")]
struct Broken;

/// What passes find is laid out before; what they were told is written down.
#[derive(Default)]
struct Lamps {
    finds: Mutex<VecDeque<Result<Looked<u32>, Broken>>>,
    /// For each pass, whether a failure of it would be the first.
    passes: Mutex<Vec<bool>>,
    /// What no watch tells of.
    brightness: AtomicU32,
    /// What the loop was told of watches that are refused.
    refused: Mutex<BTreeSet<String>>,
}

impl Kind for Lamps {
    type Object = ConfigMap;
    type Untold = u32;
    type Error = Broken;

    fn watch(&self, watches: Watches<ConfigMap>) -> Watches<ConfigMap> {
        watches
    }

    async fn pass(&self, _: &ObjectMeta, is_first_failure: bool) -> Result<Looked<u32>, Broken> {
        self.passes.lock().unwrap().push(is_first_failure);
        self.finds.lock().unwrap().pop_front().expect("no pass too many")
    }

    fn watch_refused(&self, why: &str) {
        self.refused.lock().unwrap().insert(why.to_owned());
    }

    async fn is_still_so(&self, brightness: &u32) -> bool {
        self.brightness.load(Ordering::Relaxed) == *brightness
    }

    fn keep_only(&self, _: &BTreeSet<Key>) {}
}

fn lamp() -> ObjectMeta {
    ObjectMeta {
        namespace: Some("hall".into()),
        name: Some("lamp".into()),
        resource_version: Some("1".into()),
        ..ObjectMeta::default()
    }
}

fn found(next: Next, quiet: Option<u32>) -> Result<Looked<u32>, Broken> {
    let quiet = quiet.map(|untold| Unchanged { version: Some("1".into()), untold });
    Ok(Looked { result: PassResult::Done, next, quiet })
}

fn of(finds: impl IntoIterator<Item = Result<Looked<u32>, Broken>>) -> (Loop<Lamps>, Registry) {
    let registry = Registry::new();
    let lamps = Lamps { finds: Mutex::new(finds.into_iter().collect()), ..Lamps::default() };
    (Loop::new(lamps, PassMetrics::new(&registry)), registry)
}

fn passes(lamps: &Loop<Lamps>) -> usize {
    lamps.kind.passes.lock().unwrap().len()
}

/// The turn of the lamp once it may have one.
async fn turn(lamps: &Loop<Lamps>) -> Result<Action, PassError<Broken>> {
    tokio::time::sleep(SPACING).await;
    lamps.turn(&lamp()).await
}

#[tokio::test]
async fn a_lamp_that_is_well_is_left_alone_until_something_is_heard_or_its_light_changes() {
    let well = || found(Next::Steady, Some(0));
    let (lamps, _) = of([well(), well(), found(Next::Soon, None), found(Next::WhenHeard, None)]);
    assert_eq!(turn(&lamps).await.unwrap(), Action::requeue(STEADY));
    // At once again is too early, whatever there is.
    assert_ne!(lamps.turn(&lamp()).await.unwrap(), Action::requeue(STEADY));
    assert_eq!(turn(&lamps).await.unwrap(), Action::requeue(STEADY));
    assert_eq!(passes(&lamps), 1, "nothing was heard");
    lamps.memory.touch(key(&lamp()));
    assert_eq!(turn(&lamps).await.unwrap(), Action::requeue(STEADY));
    assert_eq!(passes(&lamps), 2, "something was heard");
    lamps.kind.brightness.store(7, Ordering::Relaxed);
    assert_eq!(turn(&lamps).await.unwrap(), Action::requeue(SOON));
    assert_eq!(turn(&lamps).await.unwrap(), Action::await_change());
    assert_eq!(passes(&lamps), 4, "its light has changed, and it is not well");
}

#[tokio::test]
async fn a_lamp_that_fails_is_tried_later_and_later_and_counted() {
    let (lamps, registry) = of([Err(Broken), Err(Broken), found(Next::AtOnce, None), Err(Broken)]);
    for _ in 0..2 {
        let error = turn(&lamps).await.unwrap_err();
        assert_eq!(error.to_string(), "the lamp is broken");
        lamps.failed(&lamp(), &error);
    }
    assert_eq!(turn(&lamps).await.unwrap(), Action::requeue(SPACING));
    assert!(turn(&lamps).await.is_err());
    assert_eq!(*lamps.kind.passes.lock().unwrap(), [true, false, false, true]);
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(r#"reconciles_total{result="error"} 3"#), "{text}");
    assert!(text.contains(r#"reconciles_total{result="ok"} 1"#), "{text}");
}

#[tokio::test]
async fn a_watch_that_is_refused_is_told_in_the_words_of_the_api_server_and_holds_up_no_end() {
    let (client, _) = crate::fake::client(|_| crate::fake::refusal(403, "Forbidden"));
    let (lamps, _) = of([]);
    let lamps = Arc::new(lamps);
    let heard = Arc::clone(&lamps);
    let is_told = async move {
        while heard.kind.refused.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Nothing was ever listed when it is asked to stop.
    let run = Arc::clone(&lamps).run(client, Some("hall"), 1, Box::pin(is_told));
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("it ends when it is asked to");
    assert_eq!(*lamps.kind.refused.lock().unwrap(), BTreeSet::from(["Forbidden".to_owned()]));
}
