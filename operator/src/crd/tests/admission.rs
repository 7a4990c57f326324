//! Admission of an object as an API server does it: unknown fields, defaults, the schema, then the rules.

use super::super::RaftQueue;
use kube::CustomResourceExt;
use kube::core::cel::{Validator, apply_defaults};
use serde_json::Value;

/// The schema of a whole object.
pub(super) fn schema() -> Value {
    serde_json::to_value(&RaftQueue::crd().spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema)
        .unwrap()
}

/// Creates the object.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn create(object: &Value) -> Result<RaftQueue, Vec<String>> {
    admit(object, None)
}

/// Replaces an admitted object.
///
/// # Errors
/// Everything that is wrong with the new one, or with the change.
pub(super) fn update(old: &Value, new: &Value) -> Result<RaftQueue, Vec<String>> {
    create(old).expect("the object to be changed is good");
    admit(new, Some(old))
}

fn admit(object: &Value, old: Option<&Value>) -> Result<RaftQueue, Vec<String>> {
    let schema = schema();
    let object = apply_defaults(&schema, object);
    let mut wrong = Vec::new();
    check(&schema, &object, "", &mut wrong);
    let old = old.map(|old| apply_defaults(&schema, old));
    if let Err(errors) = Validator::new().validate(&schema, &object, old.as_ref()) {
        wrong.extend(errors.into_vec().into_iter().map(|error| error.message));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let typed: RaftQueue = serde_json::from_value(object.clone()).expect("what is admitted can be read");
    assert_eq!(
        serde_json::to_value(&typed).unwrap()["spec"],
        as_written(&object)["spec"],
        "the type holds all of it"
    );
    // The rules once more, through the type.
    match old.map(|old| serde_json::from_value::<RaftQueue>(old).unwrap()) {
        None => kube::core::cel::validate_cel(&typed).unwrap(),
        Some(old) => kube::core::cel::validate_cel_update(&typed, &old).unwrap(),
    }
    Ok(typed)
}

/// The object with its quantities as text, which is how they are always written.
fn as_written(object: &Value) -> Value {
    let mut object = object.clone();
    for list in ["requests", "limits"] {
        let quantities = object["spec"]["resources"].get_mut(list).and_then(Value::as_object_mut);
        for quantity in
            quantities.into_iter().flat_map(serde_json::Map::values_mut).filter(|value| value.is_number())
        {
            *quantity = Value::String(quantity.to_string());
        }
    }
    object
}

/// What the schema says without its rules. Knows the keywords that our schema uses and fails on any other, so that a new
/// one cannot pass unseen.
fn check(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    for (keyword, bound) in schema.as_object().unwrap() {
        let length = || value.as_str().map(|text| text.chars().count() as u64);
        let count = || value.as_object().map(|entries| entries.len() as u64);
        let holds = match keyword.as_str() {
            "type" => has_type(value, bound.as_str().unwrap()),
            "enum" => bound.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= bound.as_f64(),
            "maximum" => value.as_f64() <= bound.as_f64(),
            "minLength" => length().is_none_or(|length| length >= bound.as_u64().unwrap()),
            "maxLength" => length().is_none_or(|length| length <= bound.as_u64().unwrap()),
            "maxProperties" => count().is_none_or(|count| count <= bound.as_u64().unwrap()),
            "required" => {
                bound.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "x-kubernetes-int-or-string" => value.is_i64() || value.is_string(),
            "description"
            | "title"
            | "default"
            | "format"
            | "properties"
            | "additionalProperties"
            | "items" => true,
            // Only the status as a whole, as every custom resource has it.
            "nullable" => path == ".status",
            "x-kubernetes-validations" | "x-kubernetes-list-type" | "x-kubernetes-list-map-keys" => true,
            other => panic!("{path}: the schema uses {other}, which this check does not know"),
        };
        if !holds {
            wrong.push(format!("{path}: {value} breaks {keyword} {bound}"));
        }
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| check(&schema["items"], item, path, wrong)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
                    Some(inner) => check(inner, field, &path, wrong),
                    None if ["", ".metadata"]
                        .iter()
                        .any(|outer| path.starts_with(&format!("{outer}.metadata"))) => {}
                    None if [".apiVersion", ".kind"].contains(&path.as_str()) => {}
                    None => wrong.push(format!("{path}: unknown field")),
                }
            }
        }
        _ => {}
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the schema uses the type {other}, which this check does not know"),
    }
}
