//! The description of this API, made from the routes and types that serve it, in words that client generators get right.
//!
//! OpenAPI 3.0 is what all of them know. Beyond being valid, the file keeps to rules without which widely used generators
//! make clients that do not compile, or compile and are wrong; each stands in a test below:
//!
//! * every integer is `int64`: others are made 32 bits wide without a word, and a time or a CRC is cut;
//! * a request has no `default`: it makes a field required for some, and the module unimportable for others. What a
//!   missing field means stands in its description, and `null` means the same;
//! * names are a plain `enum`, never `oneOf` constants, which are made into types that nothing matches;
//! * no type is optional by `null`, which answers never have: a field that may be missing is not `required`;
//! * that nobody is asked who he is stands there (`security`), as linters want it said;
//! * a `$ref` stands alone, and every schema is referred to; every call has an `operationId` and one tag; no type is named `New` and another type's name,
//!   which in Go is that one's constructor.
//!
//! `RAFTQUEUE_RECORD=1 cargo test -p raftqueue-node openapi` writes `proto/raftqueue/v1/openapi.json` anew.

use super::{Describe, Routes, add_all, answers};
use crate::api::Outcome;
use crate::fake::FakeNode;
use crate::wire::errors;
use raftqueue_proto::v1;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// One route, as it is described.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) describe: Describe,
}

/// Fields without which a request is refused, and so is one that settles leases without `leases`; all others may be left out.
const REQUIRED: [(&str, &[&str]); 8] = [
    ("CreateTopic", &["topic"]),
    ("Publish", &["messages"]),
    ("PublishHeader", &["name"]),
    ("SessionStep", &["session", "sequence"]),
    ("AddLearner", &["nodes"]),
    ("Promote", &["nodes"]),
    ("Remove", &["nodes"]),
    ("Replace", &["old", "new"]),
];

const ABOUT: &str = "Every call may be sent to any node. A call that is refused or of unknown outcome answers with a \
    Failure and 400, 404, 409, 413, 429, 503, 504 or 507: 504 means that it may have happened, or may still; every other \
    code that it did not. A method that an address does not have is answered with 405 and the header `allow`, a body \
    with a `content-encoding` with 415. A field that is `null` counts as left out; a field that is not known is refused. \
    Integers are at most 2^63 - 1.";

pub(super) fn operations() -> Vec<Operation> {
    let mut routes = Routes::<FakeNode>::default();
    add_all(&mut routes);
    routes.operations
}

/// The description that the routes and types make.
fn described() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    let failure = generator.subschema_for::<answers::Failure>();
    for Operation { method, path, id, about, describe } in operations() {
        let (request, answer) = describe(&mut generator);
        let content = |schema: &schemars::Schema| json!({"application/json": {"schema": schema}});
        let mut operation = json!({
            "operationId": id,
            "tags": [tag(path)],
            "summary": about,
            "parameters": parameters(method, path),
            "responses": {
                "200": {"description": "Done", "content": content(&answer)},
                "default": {"description": "Refused, or of unknown outcome", "content": content(&failure)},
            },
        });
        if method == "post" {
            operation["requestBody"] = json!({"required": true, "content": content(&request)});
        }
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    }
    let mut file = json!({
        "openapi": "3.0.3",
        "info": {
            "title": "RaftQueue",
            "version": "v1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "servers": [{"url": "http://localhost:7420", "description": "Any node"}],
        "security": [],
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    });
    make_plain(&mut file);
    let schemas = &mut file["components"]["schemas"];
    for (name, fields) in REQUIRED {
        schemas[name]["required"] = json!(fields);
    }
    for schema in schemas.as_object_mut().expect("schemas").values_mut() {
        if schema["properties"].get("leases").is_some() {
            schema["required"] = json!(["leases"]);
        }
    }
    let reasons: Vec<&str> = reasons().collect();
    let about = "Why a call was not answered with success, as in the gRPC contract. Later versions may know more: take \
        one that is not known by its outcome and the code of HTTP.";
    schemas["Reason"] = json!({"type": "string", "enum": reasons, "description": about});
    let outcomes = [Outcome::NotDone, Outcome::Unknown].map(errors::outcome_name);
    let about = "`NOT_DONE`: it did not happen, and is safe to repeat. `UNKNOWN`: it may have happened, or may still.";
    schemas["Outcome"] = json!({"type": "string", "enum": outcomes, "description": about});
    schemas["Failure"]["properties"]["reason"] = json!({"$ref": "#/components/schemas/Reason"});
    schemas["Failure"]["properties"]["outcome"] = json!({"$ref": "#/components/schemas/Outcome"});
    keep_used(&mut file);
    file
}

/// Drops the schemas that nothing refers to: requests that have no body. Some generators make broken code of them.
fn keep_used(file: &mut Value) {
    loop {
        let mut used = BTreeSet::new();
        walk(file, "", &mut |_, fields| used.extend(fields.get("$ref").map(reference_name)));
        let schemas = file["components"]["schemas"].as_object_mut().expect("schemas");
        let before = schemas.len();
        schemas.retain(|name, _| used.contains(name));
        if schemas.len() == before {
            return;
        }
    }
}

fn reference_name(reference: &Value) -> String {
    reference.as_str().and_then(|pointer| pointer.rsplit('/').next()).expect("a pointer").to_owned()
}

/// The contract's reasons, as this API spells them.
fn reasons() -> impl Iterator<Item = &'static str> {
    (1..)
        .map_while(|number| v1::Reason::try_from(number).ok())
        .map(|reason| reason.as_str_name().trim_start_matches("REASON_"))
}

/// What a call is about: generators make one class of each.
fn tag(path: &str) -> &'static str {
    match path.split('/').nth(2) {
        Some("topics") if path.matches('/').count() > 3 => "messages",
        Some("topics") => "topics",
        Some("sessions") => "sessions",
        _ => "cluster",
    }
}

fn parameters(method: &str, path: &str) -> Value {
    let integer = |minimum: u64| json!({"type": "integer", "format": "int64", "minimum": minimum});
    let mut parameters = Vec::new();
    if let Some((_, name)) = path.split_once('{') {
        let name = name.split('}').next().expect("a name ends");
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    if (method, path) == ("get", "/v1/topics") {
        for (name, about) in [
            ("after", "Continue after the topic with this id."),
            ("topics_max", "Most topics in the reply, 1 to 10,000. Without it 1,000."),
        ] {
            parameters.push(json!({"name": name, "in": "query", "description": about, "schema": integer(0)}));
        }
    }
    let about = "How long the call may take, in milliseconds, at most 600,000. Without it 900, and `wait_ms` more where \
        the call has one.";
    parameters.push(json!({
        "name": "raftqueue-deadline-ms", "in": "header", "description": about, "schema": integer(1),
    }));
    parameters.into()
}

/// Brings schemas into the form that generators get right.
fn make_plain(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(make_plain),
        Value::Object(fields) => {
            fields.values_mut().for_each(make_plain);
            if let Some(reference) = fields.get("$ref").cloned() {
                // Generators pass over everything beside it, so it is left out.
                *fields = Map::from_iter([("$ref".to_owned(), reference)]);
                return;
            }
            if let Some(Value::Array(one_of)) = fields.get("oneOf").cloned() {
                let names: Vec<&Value> = one_of.iter().map(|one| &one["enum"][0]).collect();
                let about = one_of.iter().map(|one| {
                    let name = one["enum"][0].as_str().expect("names are strings");
                    format!(" `{name}`: {}", one["description"].as_str().expect("each is described"))
                });
                let all = format!(
                    "{}{}",
                    fields["description"].as_str().expect("described"),
                    about.collect::<String>()
                );
                *fields = Map::from_iter([
                    ("description".to_owned(), all.into()),
                    ("type".to_owned(), "string".into()),
                    ("enum".to_owned(), json!(names)),
                ]);
            }
            if let Some(Value::Array(one_of)) = fields.get("allOf").or(fields.get("anyOf")) {
                *value = one_of[0].clone();
                return;
            }
            for word in ["default", "nullable", "maximum"] {
                // A property may have such a name; a schema has it beside its type.
                if fields.contains_key("type") {
                    fields.remove(word);
                }
            }
            if fields.get("type") == Some(&"integer".into()) {
                fields.insert("format".to_owned(), "int64".into());
            }
        }
        _ => {}
    }
}

#[test]
fn the_openapi_file_says_what_is_served() {
    let described = format!("{:#}\n", described());
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/raftqueue/v1/openapi.json");
        std::fs::write(file, described).expect("written");
        return;
    }
    let served: Value = serde_json::from_str(raftqueue_proto::OPENAPI).expect("the file is JSON");
    assert_eq!(format!("{served:#}\n"), described, "see the header of this file for how it is written anew");
}

/// Calls `look` with every object of the file, and where it stands.
fn walk(value: &Value, pointer: &str, look: &mut impl FnMut(&str, &Map<String, Value>)) {
    match value {
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| walk(value, &format!("{pointer}/{at}"), look));
        }
        Value::Object(fields) => {
            look(pointer, fields);
            fields.iter().for_each(|(name, value)| walk(value, &format!("{pointer}/{name}"), look));
        }
        _ => {}
    }
}

#[test]
fn the_openapi_file_keeps_to_what_generators_get_right() {
    let file: Value = serde_json::from_str(raftqueue_proto::OPENAPI).expect("the file is JSON");
    let (mut integers, mut references) = (0, 0);
    walk(&file, "", &mut |pointer, fields| {
        let is_map = pointer.ends_with("/properties") || pointer.ends_with("/schemas");
        if let Some(kind) = fields.get("type").filter(|_| !is_map) {
            assert!(kind.is_string(), "{pointer}: one type, and no null: {kind}");
            let known = ["string", "integer", "boolean", "array", "object"];
            assert!(known.iter().any(|known| kind == known), "{pointer}: {kind}");
            assert_eq!(kind == "integer", fields.get("format") == Some(&"int64".into()), "{pointer}");
            assert!(!fields.contains_key("default"), "{pointer}: no default");
            assert!(!fields.contains_key("nullable"), "{pointer}: missing, never null");
            integers += usize::from(kind == "integer");
        }
        for word in ["oneOf", "anyOf", "allOf", "const", "not"] {
            assert!(is_map || !fields.contains_key(word), "{pointer}: {word}");
        }
        if let Some(reference) = fields.get("$ref") {
            assert_eq!(fields.len(), 1, "{pointer}: a reference stands alone");
            let target = reference.as_str().expect("a pointer").trim_start_matches('#');
            assert!(file.pointer(target).is_some(), "{pointer}: {target} is missing");
            references += 1;
        }
    });
    assert!(integers > 50 && references > 50, "{integers} integers, {references} references");
    let mut used = BTreeSet::new();
    walk(&file, "", &mut |_, fields| used.extend(fields.get("$ref").map(reference_name)));
    let schemas = file["components"]["schemas"].as_object().expect("schemas");
    assert!(schemas.keys().eq(used.iter()), "every schema is used: {used:?}");
}

#[test]
fn the_names_of_the_openapi_file_do_not_collide() {
    let file: Value = serde_json::from_str(raftqueue_proto::OPENAPI).expect("the file is JSON");
    let schemas = file["components"]["schemas"].as_object().expect("schemas");
    let names: BTreeSet<String> = schemas.keys().map(|name| name.to_lowercase()).collect();
    assert_eq!(names.len(), schemas.len(), "no two differ in capitals alone");
    for name in schemas.keys() {
        assert!(!name.starts_with("New"), "{name}: in Go this is a constructor");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, methods) in file["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_lowercase()), "{id} is not alone");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
            let header = |parameter: &Value| parameter["name"] == "raftqueue-deadline-ms";
            assert!(operation["parameters"].as_array().is_some_and(|all| all.iter().any(header)), "{id}");
            assert!(operation["responses"]["default"].is_object(), "{id} says how it fails");
        }
    }
    assert_eq!(ids.len(), operations().len());
    assert_eq!(file["servers"].as_array().map(Vec::len), Some(1));
    for name in ["Reason", "Outcome", "LeaseResult", "MessageState"] {
        assert!(schemas[name]["enum"].as_array().is_some_and(|names| names.len() >= 2), "{name}");
    }
    assert_eq!(schemas["Reason"]["enum"].as_array().map(Vec::len), Some(reasons().count()));
}
