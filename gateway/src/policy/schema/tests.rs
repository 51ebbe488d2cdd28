//! The schema and the decoder say the same of examples, of broken policies, and of every single field.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::{all, kinds, of_kind};
use crate::policy::decode::type_of;
use crate::policy::problems::Problems;
use crate::policy::tests::{folder, source, workspace};
use crate::policy::yaml::{self, Node, Value as Yaml};
use crate::policy::{Compiled, Diagnostic, Severity, SourceFile, compile};

/// The comment by which editors find the schema from a folder of `policies/`.
const POINTER: &str = "# yaml-language-server: $schema=../schema.json\n";

fn validator() -> Validator {
    jsonschema::draft202012::new(&all()).unwrap()
}

/// The documents of some files as an editor reads them; `None` if some are not plain YAML.
fn documents(files: &[SourceFile]) -> Option<Vec<Value>> {
    let mut problems = Problems::new(files);
    let mut documents = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for node in yaml::load(index, &file.text, &mut problems) {
            documents.push(json_of(&node));
        }
    }
    let (_, diagnostics) = problems.finish();
    diagnostics.is_empty().then_some(documents)
}

fn json_of(node: &Node) -> Value {
    match &node.value {
        Yaml::Scalar { text, plain } => match type_of(text) {
            "nothing" if *plain => Value::Null,
            "a boolean" if *plain => Value::Bool(text.to_lowercase() == "true"),
            "an integer" | "a number" if *plain => {
                serde_json::from_str(text).unwrap_or_else(|_| json!(0.5))
            }
            _ => Value::String(text.to_string()),
        },
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Mapping(entries) => {
            let entries = entries.iter();
            Value::Object(
                entries
                    .map(|(key, node)| (key.name.clone(), json_of(node)))
                    .collect(),
            )
        }
        Yaml::Broken => Value::Null,
    }
}

fn folders(path: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(workspace().join(path)).unwrap();
    let mut folders: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn the_schema_is_one_and_so_is_that_of_each_kind() {
    jsonschema::meta::validate(&all()).unwrap();
    for kind in kinds() {
        let schema = of_kind(kind).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
        jsonschema::draft202012::new(&schema).unwrap();
        assert_eq!(schema["$defs"][kind]["properties"]["kind"]["const"], kind);
    }
    assert!(of_kind("Egressgateway").is_none());
}

#[test]
fn the_schema_in_the_repository_is_this_one() {
    let path = workspace().join("policies/schema.json");
    let wanted = format!("{:#}\n", all());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is out of date: run this test with UPDATE_GOLDEN=1",
        path.display()
    );
}

#[test]
fn every_example_is_valid_and_tells_editors_so() {
    let validator = validator();
    let mut seen = 0;
    for example in folders("policies") {
        let files = folder(&example);
        for file in &files {
            assert!(
                file.text.starts_with(POINTER),
                "{}/{} does not begin with {POINTER}",
                example.display(),
                file.name
            );
        }
        for document in documents(&files).unwrap() {
            seen += 1;
            let kind = document["kind"].as_str().unwrap();
            if let Err(error) = of_kind(kind)
                .map(|schema| jsonschema::draft202012::new(&schema).unwrap())
                .unwrap()
                .validate(&document)
            {
                panic!(
                    "{}: {kind}: {error} at {}",
                    name_of(&example),
                    error.instance_path()
                );
            }
            assert!(
                validator.is_valid(&document),
                "{}: {kind}",
                name_of(&example)
            );
        }
    }
    assert!(seen > 15, "{seen} documents");
}

/// Cases in which a field is missing because of what another document says.
const BY_ANOTHER_DOCUMENT: &[&str] = &[
    "aws-without-region",
    "credential-for-an-http-route",
    "credential-header-missing",
    // By another field.
    "credential-target-query",
    "oauth2-without-token-url",
    "provider-auth-missing",
];

/// Could a schema of single documents see this mistake? Unknown words and fields, missing ones, wrong types, numbers out of
/// range. What the decoder does not support yet is in the reference, and in the schema.
fn is_visible(problem: &Diagnostic) -> bool {
    let message = problem.message();
    let types = [
        "nothing",
        "a boolean",
        "an integer",
        "a number",
        "a string",
        "a list",
        "a mapping",
    ];
    problem.severity() == Severity::Error
        && (["unknown field ", "unknown kind ", "unknown apiVersion "]
            .iter()
            .any(|start| message.starts_with(start))
            || message.ends_with("` is missing")
            || message.ends_with("` is empty")
            || types
                .iter()
                .any(|name| message.ends_with(&format!("` is {name}")))
            || problem
                .help()
                .is_some_and(|help| help.contains("known values: "))
            || problem
                .expected()
                .is_some_and(|text| text.starts_with("an integer from ")))
}

#[test]
fn what_is_broken_for_a_schema_to_see_is_refused_by_it() {
    let validator = validator();
    let (mut refused, mut wrong) = (0, Vec::new());
    for case in folders("tests/golden/policy") {
        let files = folder(&case);
        let Some(documents) = documents(&files) else {
            continue;
        };
        let compiled = compile(&files);
        let valid = documents
            .iter()
            .all(|document| validator.is_valid(document));
        let visible = compiled.diagnostics.iter().any(is_visible)
            && !BY_ANOTHER_DOCUMENT.contains(&name_of(&case).as_str());
        if visible && valid {
            wrong.push(format!("{} is accepted by the schema", name_of(&case)));
        }
        if compiled.policy.is_some() && !valid {
            wrong.push(format!("{} is refused by the schema alone", name_of(&case)));
        }
        refused += usize::from(visible);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused >= 40, "{refused} cases");
}

/// Sees each mapping: how it is reached, its schema's fields, itself.
type Visit<'a> = dyn FnMut(&str, &Map<String, Value>, &mut Map<String, Value>) + 'a;

/// A value for every field of a schema, whether or not they go together. At each mapping, `visit` may add to it; it
/// is told how the mapping is reached.
fn fill(schema: &Value, path: &str, visit: &mut Visit<'_>) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        return fill(&all()["$defs"][name], path, visit);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].get(0).or_else(|| schema["examples"].get(0)) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("integer") => schema["minimum"].clone(),
        Some("string") => json!("text"),
        Some("array") => json!([fill(&schema["items"], &format!("{path}[0]"), visit)]),
        Some("object") => {
            let mut object = Map::new();
            match schema.get("properties").and_then(Value::as_object) {
                Some(properties) => {
                    for (name, schema) in properties {
                        let below = if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}.{name}")
                        };
                        object.insert(name.clone(), fill(schema, &below, visit));
                    }
                    visit(path, properties, &mut object);
                }
                None => {
                    let value = fill(&schema["additionalProperties"], path, visit);
                    object.insert("x-key".to_owned(), value);
                }
            }
            Value::Object(object)
        }
        other => panic!("{path} has the type {other:?}"),
    }
}

fn compile_json(document: &Value) -> Compiled {
    // JSON is YAML.
    compile(&[source("document.yaml", &document.to_string())])
}

#[test]
fn every_field_of_the_schema_is_one_of_the_decoder_s() {
    for kind in kinds() {
        let whole = fill(&all()["$defs"][kind], "", &mut |_, _, _| {});
        let compiled = compile_json(&whole);
        let unknown: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(Diagnostic::message)
            .filter(|message| message.starts_with("unknown "))
            .collect();
        assert!(unknown.is_empty(), "{kind}: {unknown:?}");
    }
}

#[test]
fn every_field_of_the_decoder_is_one_of_the_schema_s() {
    let mut mappings = 0;
    for kind in kinds() {
        let schema = &all()["$defs"][kind];
        // One unknown field in each mapping; the help names the known ones.
        let mut fields: Vec<(String, BTreeSet<String>)> = Vec::new();
        let whole = fill(schema, "", &mut |path, properties, object| {
            object.insert("zzzzzz".to_owned(), json!(1));
            fields.push((path.to_owned(), properties.keys().cloned().collect()));
        });
        // Where two fields mean the same only one is read.
        let mut other = whole.clone();
        if let Some(spec) = other["spec"].as_object_mut() {
            spec.remove("parentRefs");
        }
        // And some are read where another says so.
        let mut signed = whole.clone();
        if let Some(target) = signed["spec"].get_mut("target") {
            *target = json!("ProviderAuth");
        }
        let compiled = [&whole, &other, &signed].map(compile_json);
        let problems = || compiled.iter().flat_map(|compiled| &compiled.diagnostics);
        for (path, known) in fields {
            let path = if path.is_empty() {
                String::new()
            } else {
                format!("{path}.")
            };
            let message = format!("unknown field `{path}zzzzzz`");
            let Some(problem) = problems().find(|problem| problem.message() == message) else {
                panic!("{kind}: nobody missed {path}zzzzzz");
            };
            mappings += 1;
            let help = problem.help().unwrap();
            let listed = help.split_once("known fields: ").unwrap().1;
            for field in listed.split(", ") {
                assert!(
                    known.contains(field),
                    "{kind}: {path}{field} is not in the schema"
                );
            }
        }
    }
    assert!(mappings >= 30, "{mappings} mappings");
}

#[test]
fn every_default_of_the_schema_is_the_decoder_s() {
    let empty = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "EgressGateway",
        "metadata": {"name": "g"},
        "spec": {},
    });
    let mut written = empty.clone();
    written["spec"] = defaults(&all()["$defs"]["EgressGateway"]["properties"]["spec"]);
    assert_eq!(written["spec"]["limits"]["maxConnectionsPerSandbox"], 1024);
    let gateway = |document| compile_json(document).policy.unwrap().gateways["g"].clone();
    let (empty, written) = (gateway(&empty), gateway(&written));
    assert_eq!(empty.default, written.default);
    assert_eq!(empty.dns, written.dns);
    assert_eq!(empty.limits, written.limits);
    assert_eq!(empty.request_timeout, written.request_timeout);
}

/// The fields that have a default, and the mappings that hold some.
fn defaults(schema: &Value) -> Value {
    let mut object = Map::new();
    for (name, schema) in schema["properties"].as_object().unwrap() {
        if let Some(default) = schema.get("default") {
            object.insert(name.clone(), default.clone());
        } else if schema.get("properties").is_some() && schema.get("required").is_none() {
            let inner = defaults(schema);
            if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                object.insert(name.clone(), inner);
            }
        }
    }
    Value::Object(object)
}
