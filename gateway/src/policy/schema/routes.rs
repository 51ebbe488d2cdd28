//! The schemas of the three routes. It refuses to know credentials.

use serde_json::{Value, json};

use super::{document, integer, object, reference, some, with, words};
use crate::policy::Provider;
use crate::policy::resource::MAX_TOKENS;

pub(super) fn l4_route() -> Value {
    let found = object(
        "Destinations: hosts or blocks, on these ports.",
        [
            (
                "destinationHostnames",
                "Names; with destinationCIDRs, either is enough.",
                some(reference("hostPattern")),
            ),
            (
                "destinationCIDRs",
                "Addresses, dialled as the sandbox asked for them.",
                some(reference("block")),
            ),
            (
                "ports",
                "Every port if there are none.",
                some(reference("portRange")),
            ),
            (
                "protocol",
                "UDP is allowed by destinationCIDRs alone.",
                words(&["TCP", "UDP"], true),
            ),
        ],
        &[],
    );
    let spec = route(
        [("rules", "One that matches is enough.", rules(found, None))],
        &["rules"],
    );
    document(
        "EgressL4Route",
        "An allowlist of destinations: whole connections, whatever is said on them.",
        spec,
    )
}

pub(super) fn http_route() -> Value {
    let path = object(
        "Which paths.",
        [
            (
                "type",
                "Exact, PathPrefix by whole segments, or Glob with * and **.",
                words(&["Exact", "PathPrefix", "Glob"], false),
            ),
            ("value", "Begins with a slash.", reference("path")),
        ],
        &["type", "value"],
    );
    let header = object(
        "A header field that the request must have.",
        [
            ("name", "Its name.", reference("headerName")),
            ("value", "Its value, exactly.", reference("headerValue")),
        ],
        &["name", "value"],
    );
    let found = object(
        "Requests: all that is written must hold.",
        [
            (
                "methods",
                "Every method if there are none.",
                some(reference("method")),
            ),
            ("path", "Every path if it is left out.", path),
            ("headers", "All of them must be there.", some(header)),
        ],
        &[],
    );
    let spec = route(
        [
            (
                "hostnames",
                "Requests to these hosts are refused (403) outside the rules.",
                some(reference("hostPattern")),
            ),
            ("rules", "One that matches is enough.", rules(found, None)),
        ],
        &["hostnames", "rules"],
    );
    document(
        "EgressHTTPRoute",
        "An allowlist of requests to hosts that an L4 rule, or allow-all, lets through.",
        spec,
    )
}

pub(super) fn ai_route() -> Value {
    let providers = Provider::NAMES.iter().map(|(name, _)| *name);
    let homeless = Provider::NAMES.iter();
    let homeless = homeless.filter(|(_, provider)| provider.default_hosts().is_empty());
    let homeless: Vec<&str> = homeless.map(|(name, _)| *name).collect();
    let found = object(
        "Requests to a provider's API.",
        [
            (
                "provider",
                "Whose API it is.",
                words(&providers.collect::<Vec<_>>(), false),
            ),
            (
                "endpoints",
                "Paths; every path if there are none.",
                some(reference("path")),
            ),
            (
                "models",
                "Models by name, * for any run of characters; every model if there are none.",
                some(json!({"type": "string", "minLength": 1, "examples": ["example-*"]})),
            ),
            (
                "hosts",
                "In place of the provider's own.",
                some(reference("hostPattern")),
            ),
        ],
        &["provider"],
    );
    let is_homeless =
        json!({"required": ["provider"], "properties": {"provider": {"enum": homeless}}});
    let found = with(found, "if", is_homeless);
    let needs_hosts = json!({"required": ["hosts"], "properties": {"hosts": {"minItems": 1}}});
    let found = with(found, "then", needs_hosts);
    let filters = some(budget());
    let spec = route(
        [(
            "rules",
            "One that matches is enough.",
            rules(found, Some(filters)),
        )],
        &["rules"],
    );
    document(
        "AIProviderRoute",
        "Requests to AI providers on port 443; it implies the connection to their hosts.",
        spec,
    )
}

fn budget() -> Value {
    let tokens = || integer(1, MAX_TOKENS, None);
    let budget = object(
        "Bounds on tokens, reserved before a call.",
        [
            (
                "maxTokensPerDay",
                "Input and output, of all sandboxes of the gateway.",
                tokens(),
            ),
            (
                "maxTokensPerExecution",
                "Input and output, of one sandbox.",
                tokens(),
            ),
            (
                "maxOutputTokensPerRequest",
                "Output that one request may ask for.",
                tokens(),
            ),
        ],
        &[],
    );
    object(
        "What is checked besides.",
        [
            (
                "type",
                "The kind of filter.",
                words(&["TokenBudget"], false),
            ),
            ("tokenBudget", "The bounds.", budget),
        ],
        &["type", "tokenBudget"],
    )
}

fn route<const N: usize>(fields: [super::Field; N], required: &[&str]) -> Value {
    let parents = (
        "parentRefs",
        "The gateways that the rules are for.",
        reference("gatewayRefs"),
    );
    let required: Vec<&str> = std::iter::once("parentRefs")
        .chain(required.iter().copied())
        .collect();
    object(
        "The rules.",
        std::iter::once(parents).chain(fields),
        &required,
    )
}

fn rules(found: Value, filters: Option<Value>) -> Value {
    let matches = (
        "matches",
        "One is enough; an empty match {} means everything.",
        some(found),
    );
    let filters = filters.map(|filters| ("filters", "What is checked besides.", filters));
    some(object(
        "One rule.",
        std::iter::once(matches).chain(filters),
        &["matches"],
    ))
}
