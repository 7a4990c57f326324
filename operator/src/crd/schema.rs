//! Helpers to shape the schema where the derived one is not what an API server should see.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// Takes `null` out of what the properties of an object may be.
///
/// A derived optional field accepts `null` and keeps it. Without that the API server drops a `null` and fills in the
/// default, and rules need not tell "absent" from "null".
pub(super) fn without_null(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                property.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(mut choices)) = property.remove("anyOf") {
            choices.retain(|choice| choice.get("type") != Some(&json!("null")));
            match (choices.len(), choices.pop()) {
                (1, Some(Value::Object(only))) => merge_missing(property, only),
                (_, last) => {
                    choices.extend(last);
                    property.insert("anyOf".into(), Value::Array(choices));
                }
            }
        }
    }
}

/// A CEL rule as it stands in a schema.
pub(super) fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

/// Schema of a field of the status whose values are named by an enum here but may be extended later: any text.
pub(super) fn open_text(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "string"})
}

fn merge_missing(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        into.entry(key).or_insert(value);
    }
}
