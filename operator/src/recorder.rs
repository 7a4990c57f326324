//! Writes events. The same news about the same object is one event, which counts how often it was told; other news of the same kind
//! is another one. (The library's recorder takes those for the same and keeps the note of the first.)
//!
//! An event's name follows from what it says, so an operator that dies after it wrote one, and tells it again, makes no second one.

use crate::names::MANAGER;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, PoisonError};

/// Events whose numbers are remembered; beyond it counting begins anew.
const COUNTED_MAX: usize = 10_000;

/// Writes events in the name of one operator.
pub struct Recorder {
    client: Client,
    identity: String,
    /// How often each was told, by namespace and name.
    told: Mutex<BTreeMap<(String, String), i32>>,
}

impl Recorder {
    /// For the operator of this name.
    #[must_use]
    pub fn new(client: Client, identity: String) -> Self {
        Self { client, identity, told: Mutex::default() }
    }

    /// Tells of something about an object.
    ///
    /// # Errors
    /// What the API server refused.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = name(event, about);
        let api: Api<Written> = Api::namespaced(self.client.clone(), &namespace);
        let now = MicroTime(Timestamp::now());
        let told = self.count((namespace.clone(), name.clone()));
        if told == 1 {
            let written = self.written(event, about, &namespace, &name, &now);
            match api.create(&PostParams::default(), &written).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                other => return other.map(drop),
            }
        }
        let series = json!({"series": {"count": told.max(2), "lastObservedTime": now}});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&series)).await {
            // The API server keeps events for a while only.
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let written = self.written(event, about, &namespace, &name, &now);
                api.create(&PostParams::default(), &written).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Counts one more.
    fn count(&self, event: (String, String)) -> i32 {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= COUNTED_MAX {
            told.clear();
        }
        let count = told.entry(event).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn written(
        &self,
        event: &Event,
        about: &ObjectReference,
        namespace: &str,
        name: &str,
        now: &MicroTime,
    ) -> Written {
        let kind = match event.type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        Written {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.clone()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            type_: Some(kind.to_owned()),
            event_time: Some(now.clone()),
            regarding: Some(about.clone()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            ..Written::default()
        }
    }
}

/// The name of an event: that of the object, and a number that follows from what is said about which object.
fn name(event: &Event, about: &ObjectReference) -> String {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let number = hasher.hash_one((&about.uid, &event.reason, &event.action, &event.note));
    format!("{}.{number:016x}", about.name.as_deref().unwrap_or(MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Call, client, refusal};
    use serde_json::Value;

    fn event(note: &str) -> Event {
        Event {
            type_: EventType::Normal,
            reason: "MembersRemoved".into(),
            note: Some(note.into()),
            action: "Remove".into(),
            secondary: None,
        }
    }

    fn about() -> ObjectReference {
        ObjectReference {
            namespace: Some("shop".into()),
            name: Some("demo".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        }
    }

    fn fine(_: &Call) -> (u16, Value) {
        (201, json!({"metadata": {"name": "demo.1"}, "eventTime": null}))
    }

    #[tokio::test]
    async fn other_news_is_another_event_and_the_same_is_counted() {
        let (client, calls) = client(fine);
        let recorder = Recorder::new(client, "me".into());
        for note in ["demo-4 is removed", "demo-2 is removed", "demo-2 is removed", "demo-2 is removed"] {
            recorder.publish(&event(note), &about()).await.unwrap();
        }
        let calls = calls.all();
        let [first, second, again, last] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!(first.what, "POST /apis/events.k8s.io/v1/namespaces/shop/events");
        assert_eq!(
            (&first.body["note"], &first.body["reportingInstance"]),
            (&json!("demo-4 is removed"), &json!("me"))
        );
        assert_eq!(second.body["note"], "demo-2 is removed");
        assert_ne!(first.body["metadata"]["name"], second.body["metadata"]["name"]);
        let path = format!(
            "PATCH /apis/events.k8s.io/v1/namespaces/shop/events/{}",
            second.body["metadata"]["name"].as_str().unwrap()
        );
        assert_eq!((&again.what, &last.what), (&path, &path));
        assert_eq!((&again.body["series"]["count"], &last.body["series"]["count"]), (&json!(2), &json!(3)));
    }

    #[tokio::test]
    async fn what_an_operator_before_has_told_is_counted_and_what_is_gone_is_told_again() {
        let (before, calls) = client(|call: &Call| match call.what.starts_with("POST") {
            true => refusal(409, "AlreadyExists"),
            false => fine(call),
        });
        Recorder::new(before, "me".into()).publish(&event("one"), &about()).await.unwrap();
        assert_eq!(calls.all()[1].body["series"]["count"], 2);

        let (gone, calls) = client(|call: &Call| match call.what.starts_with("PATCH") {
            true => refusal(404, "NotFound"),
            false => fine(call),
        });
        let recorder = Recorder::new(gone, "me".into());
        for _ in 0..2 {
            recorder.publish(&event("one"), &about()).await.unwrap();
        }
        let methods: Vec<String> = calls.what().iter().map(|what| what[..4].to_owned()).collect();
        assert_eq!(methods, ["POST", "PATC", "POST"]);
    }
}
