//! The documents as written: one `Raw*` for each kind, every value with its place.
//!
//! It refuses to know other documents: references are names here, defaults that depend on a reference
//! are left open. A document with problems is kept as far as it could be read, so that what refers to it
//! is not blamed as well.

mod ai_route;
mod binding;
mod credential;
mod gateway;
mod http_route;
mod leaf;
mod provider_auth;
mod proxy_rule;
mod route;
mod secret;

pub(super) use ai_route::{MAX_TOKENS, RawAiRoute};
pub(super) use binding::RawBinding;
pub(super) use credential::{RawCredentialPolicy, RawTarget};
pub(super) use gateway::{RawGateway, RawListener};
pub(super) use http_route::RawHttpRoute;
pub(super) use provider_auth::{methods as client_auth_methods, names as provider_auth_types};
pub(super) use proxy_rule::RawProxyRule;
pub(super) use route::RawL4Route;
pub(super) use secret::RawSecret;

use super::Span;
use super::decode::{At, Decoder, Fields};
use super::problems::{Problems, Spanned, quote, suggest};
use super::template::is_secret_name;
use super::yaml::{Node, Value};

/// Both mean the same: what CLRK writes is read as it stands.
pub(super) const GROUPS: &[&str] = &["clrk.apoxy.dev", "postern.dev"];
pub(super) const API_VERSIONS: &[&str] = &["clrk.apoxy.dev/v1alpha1", "postern.dev/v1alpha1"];
pub(super) const CORE_VERSION: &str = "v1";

const KINDS: &[&str] = &[
    "EgressGateway",
    "EgressL4Route",
    "EgressHTTPRoute",
    "AIProviderRoute",
    "CredentialInjectionPolicy",
    "SandboxProxyRule",
    "SandboxBinding",
    "Secret",
];

/// One document.
pub(super) enum Raw {
    Gateway(RawGateway),
    L4Route(RawL4Route),
    HttpRoute(RawHttpRoute),
    AiRoute(RawAiRoute),
    CredentialPolicy(RawCredentialPolicy),
    ProxyRule(RawProxyRule),
    Binding(RawBinding),
    Secret(RawSecret),
}

/// The kinds of object to which others attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ParentKind {
    Gateway,
    AiRoute,
    HttpRoute,
}

/// A reference to a gateway or route, by name.
pub(super) struct RawParent {
    pub(super) kind: ParentKind,
    pub(super) name: Spanned<String>,
    pub(super) section: Option<Spanned<String>>,
}

impl ParentKind {
    /// As a policy writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "EgressGateway",
            Self::AiRoute => "AIProviderRoute",
            Self::HttpRoute => "EgressHTTPRoute",
        }
    }
}

impl Raw {
    /// The kind and name by which others refer to the document.
    pub(super) fn identity(&self) -> (&'static str, &Spanned<String>) {
        match self {
            Self::Gateway(raw) => ("EgressGateway", &raw.name),
            Self::L4Route(raw) => ("EgressL4Route", &raw.name),
            Self::HttpRoute(raw) => ("EgressHTTPRoute", &raw.name),
            Self::AiRoute(raw) => ("AIProviderRoute", &raw.name),
            Self::Binding(raw) => ("SandboxBinding", &raw.name),
            Self::CredentialPolicy(raw) => ("CredentialInjectionPolicy", &raw.name),
            Self::ProxyRule(raw) => ("SandboxProxyRule", &raw.name),
            Self::Secret(raw) => ("Secret", &raw.name),
        }
    }
}

/// Reads one document; `None` if it is empty, or not even its kind and name could be read.
pub(super) fn read(file: usize, root: &Node, problems: &mut Problems<'_>) -> Option<Raw> {
    // `---` with nothing after it.
    if matches!(&root.value, Value::Scalar { text, plain: true } if text.is_empty()) {
        return None;
    }
    let at = At {
        node: root,
        path: String::new(),
    };
    let mut decoder = Decoder {
        problems,
        file,
        sensitive: may_hold_secrets(root),
    };
    let raw = read_document(&mut decoder, &at);
    if raw.is_none() {
        problems.incomplete = true;
    }
    raw
}

/// `metadata.namespace`, if it is written.
pub(super) fn namespace(root: &Node) -> Option<(&str, Span)> {
    let node = field(field(root, "metadata")?, "namespace")?;
    match &node.value {
        Value::Scalar { text, .. } => Some((text, node.span)),
        Value::Sequence(_) | Value::Mapping(_) | Value::Broken => None,
    }
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &node.value else {
        return None;
    };
    let mut entries = entries.iter();
    let (_, node) = entries.find(|(key, _)| key.name == name)?;
    Some(node)
}

fn read_document(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Raw> {
    let mut fields = decoder.fields(at)?;
    let version = fields.required(decoder, "apiVersion");
    let kind = fields.required(decoder, "kind");
    let kind = kind.and_then(|kind| read_kind(decoder, &kind));
    if let Some(version) = version {
        check_version(decoder, &version, kind);
    }
    let name = fields
        .required(decoder, "metadata")
        .and_then(|metadata| read_metadata(decoder, &metadata));
    let (kind, name) = (kind?, name?);
    if kind == "Secret" {
        return Some(Raw::Secret(RawSecret::read(decoder, fields, name)));
    }
    let spec = fields.required(decoder, "spec");
    fields.finish(decoder);
    let spec = spec.and_then(|spec| decoder.fields(&spec));
    Some(match kind {
        "EgressGateway" => Raw::Gateway(RawGateway::read(decoder, spec, name)),
        "EgressL4Route" => Raw::L4Route(RawL4Route::read(decoder, spec, name)),
        "EgressHTTPRoute" => Raw::HttpRoute(RawHttpRoute::read(decoder, spec, name)),
        "SandboxBinding" => Raw::Binding(RawBinding::read(decoder, spec, name)),
        "AIProviderRoute" => Raw::AiRoute(RawAiRoute::read(decoder, spec, name)),
        "CredentialInjectionPolicy" => {
            Raw::CredentialPolicy(RawCredentialPolicy::read(decoder, spec, name))
        }
        _ => Raw::ProxyRule(RawProxyRule::read(decoder, spec, name)),
    })
}

/// A document may hold secrets unless it is certainly of another kind and has none of a secret's fields.
fn may_hold_secrets(root: &Node) -> bool {
    let Value::Mapping(entries) = &root.value else {
        return true;
    };
    let is_other_kind = |node: &Node| match &node.value {
        Value::Scalar { text, .. } => {
            text.as_str() != "Secret" && KINDS.iter().any(|kind| *kind == text.as_str())
        }
        Value::Sequence(_) | Value::Mapping(_) | Value::Broken => false,
    };
    let other_kind = entries
        .iter()
        .any(|(key, node)| key.name == "kind" && is_other_kind(node));
    let secret_field = entries
        .iter()
        .any(|(key, _)| matches!(key.name.as_str(), "data" | "stringData"));
    !other_kind || secret_field
}

fn read_kind(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<&'static str> {
    let Spanned { value, place } = decoder.text(at)?;
    let Some(kind) = KINDS.iter().find(|kind| **kind == value) else {
        decoder
            .problems
            .error(place, format!("unknown kind {}", quote(value)))
            .help(suggest(value, "kinds", KINDS));
        return None;
    };
    Some(kind)
}

fn check_version(decoder: &mut Decoder<'_, '_>, at: &At<'_>, kind: Option<&str>) {
    let Some(Spanned { value, place }) = decoder.text(at) else {
        return;
    };
    let known: &[&str] = match kind {
        Some("Secret") => &[CORE_VERSION],
        Some(_) => API_VERSIONS,
        None if value == CORE_VERSION => return,
        None => API_VERSIONS,
    };
    if !known.contains(&value) {
        let whose = kind.map_or(String::new(), |kind| format!(" of {kind}"));
        decoder
            .problems
            .error(place, format!("unknown apiVersion {}{whose}", quote(value)))
            .expected(known.join(" or "))
            .help(suggest(value, "versions", known));
    }
}

/// `name` is all that has a meaning; `namespace`, `labels` and `annotations` are accepted since every
/// Kubernetes tool writes them, and a policy folder is one namespace.
fn read_metadata(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Spanned<String>> {
    let mut fields = decoder.fields(at)?;
    let name = fields.required(decoder, "name");
    let name = name.and_then(|name| read_name(decoder, &name));
    if let Some(namespace) = fields.optional("namespace") {
        decoder.text(&namespace);
    }
    for map in ["labels", "annotations"] {
        if let Some(map) = fields.optional(map) {
            for (_, value) in decoder.entries(&map) {
                decoder.text(&value);
            }
        }
    }
    fields.finish(decoder);
    name
}

/// The name of an object, written where it is defined or referred to.
fn read_name(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Spanned<String>> {
    decoder.parse(
        at,
        "lower-case letters, digits, `-` and `.`, at most 253 of them",
        |text| {
            if is_secret_name(text) {
                Ok(text.to_owned())
            } else {
                Err("not a valid name (RFC 1123 subdomain)")
            }
        },
    )
}

/// `{group, kind, name, sectionName}`, to objects of these kinds.
fn read_parents(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
    kinds: &[ParentKind],
    sections: bool,
) -> Vec<RawParent> {
    let known: Vec<_> = kinds.iter().map(|kind| (kind.as_str(), *kind)).collect();
    let mut parents = Vec::new();
    for item in decoder.some_items(at, "reference", None) {
        let Some(mut fields) = decoder.fields(&item) else {
            continue;
        };
        if let Some(group) = fields.optional("group") {
            let known: Vec<_> = GROUPS.iter().map(|group| (*group, ())).collect();
            decoder.choice(&group, &known);
        }
        let found = fields.required(decoder, "kind");
        let found = found.and_then(|found| decoder.choice(&found, &known));
        let name = fields.required(decoder, "name");
        let name = name.and_then(|name| read_name(decoder, &name));
        let section = if sections {
            fields.optional("sectionName")
        } else {
            None
        };
        let section = section
            .and_then(|section| decoder.text(&section))
            .map(|section| Spanned {
                value: section.value.to_owned(),
                place: section.place,
            });
        fields.finish(decoder);
        if let (Some(kind), Some(name)) = (found, name) {
            parents.push(RawParent {
                kind: kind.value,
                name,
                section,
            });
        }
    }
    parents
}

/// The references of a route or rule to its gateways.
fn read_gateways(decoder: &mut Decoder<'_, '_>, fields: &mut Fields<'_>) -> Vec<RawParent> {
    let parents = fields.required(decoder, "parentRefs");
    parents
        .map(|parents| read_parents(decoder, &parents, &[ParentKind::Gateway], true))
        .unwrap_or_default()
}
