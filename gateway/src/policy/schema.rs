//! The JSON Schema (2020-12) of the policy documents, for editors: every kind and field of the reference,
//! with descriptions, words, patterns and defaults.
//!
//! It refuses to know other documents: that references lead somewhere and that rules can be enforced is for
//! the compiler to say. A test holds both together: what the decoder knows is here, and what is here it knows.

mod credentials;
mod gateway;
mod leaf;
mod routes;

use serde_json::{Map, Value, json};

use super::resource::{API_VERSIONS, CORE_VERSION};

/// The dialect of every schema here.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A definition, of a kind of document or of what its fields are made of: its name and how its schema is made.
type Kind = (&'static str, fn() -> Value);

const KINDS: &[Kind] = &[
    ("EgressGateway", gateway::gateway),
    ("EgressL4Route", routes::l4_route),
    ("EgressHTTPRoute", routes::http_route),
    ("AIProviderRoute", routes::ai_route),
    ("CredentialInjectionPolicy", credentials::injection_policy),
    ("SandboxProxyRule", credentials::proxy_rule),
    ("SandboxBinding", credentials::binding),
    ("Secret", credentials::secret),
];

/// The kinds that have a schema, in the order of the reference.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// The schema of one document, whatever its kind.
#[must_use]
pub fn all() -> Value {
    let choices: Vec<Value> = kinds().map(reference).collect();
    json!({
        "$schema": DIALECT,
        "title": "A document of a Postern policy",
        "description": "A policy is a folder of YAML files, each with one or more of these documents.",
        "oneOf": choices,
        "$defs": definitions(KINDS),
    })
}

/// The schema of documents of one kind, or `None` if there is no such kind.
#[must_use]
pub fn of_kind(kind: &str) -> Option<Value> {
    let known = KINDS.iter().find(|(name, _)| *name == kind)?;
    Some(json!({
        "$schema": DIALECT,
        "title": kind,
        "$ref": format!("#/$defs/{kind}"),
        "$defs": definitions(std::slice::from_ref(known)),
    }))
}

/// The kinds, and what fields are made of.
fn definitions(kinds: &[Kind]) -> Map<String, Value> {
    let kinds = kinds
        .iter()
        .map(|(name, make)| ((*name).to_owned(), make()));
    let leaves = leaf::DEFINITIONS.iter();
    leaves
        .map(|(name, make)| ((*name).to_owned(), make()))
        .chain(kinds)
        .collect()
}

/// One field: its name, what it is for, and what may stand there.
type Field = (&'static str, &'static str, Value);

/// A document of our own kinds.
fn document(kind: &str, description: &str, spec: Value) -> Value {
    let fields = [
        (
            "apiVersion",
            "Both groups mean the same.",
            json!({"enum": API_VERSIONS}),
        ),
        ("kind", "What the document is.", json!({"const": kind})),
        ("metadata", "The document's name.", reference("metadata")),
        ("spec", "What it says.", spec),
    ];
    object(
        description,
        fields,
        &["apiVersion", "kind", "metadata", "spec"],
    )
}

/// A document of Kubernetes' core kinds: without a `spec`.
fn core_document<const N: usize>(kind: &str, description: &str, fields: [Field; N]) -> Value {
    let head = [
        (
            "apiVersion",
            "Kubernetes' own.",
            json!({"const": CORE_VERSION}),
        ),
        ("kind", "What the document is.", json!({"const": kind})),
        ("metadata", "The document's name.", reference("metadata")),
    ];
    let fields = head.into_iter().chain(fields);
    object(description, fields, &["apiVersion", "kind", "metadata"])
}

/// A mapping of exactly these fields.
fn object(description: &str, fields: impl IntoIterator<Item = Field>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .into_iter()
        .map(|(name, about, value)| (name.to_owned(), described(about, value)))
        .collect();
    let mut object = json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The description of the field stands before that of its type.
fn described(about: &str, mut value: Value) -> Value {
    if let Value::Object(schema) = &mut value {
        schema.insert("description".to_owned(), about.into());
    }
    value
}

/// A mapping whose keys are the author's own.
fn map(keys: &str, values: Value) -> Value {
    let mut map = json!({"type": "object", "additionalProperties": values});
    if !keys.is_empty() {
        map["propertyNames"] = reference(keys);
    }
    map
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn some(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1})
}

fn integer(least: u64, most: u64, default: Option<u64>) -> Value {
    let mut schema = json!({"type": "integer", "minimum": least, "maximum": most});
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}

/// One of a few words; the first one is the default if there is one.
fn words(words: &[&str], has_default: bool) -> Value {
    let mut schema = json!({"enum": words});
    if has_default {
        schema["default"] = json!(words.first());
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn with(mut schema: Value, keyword: &str, value: Value) -> Value {
    schema[keyword] = value;
    schema
}

#[cfg(test)]
mod tests;
