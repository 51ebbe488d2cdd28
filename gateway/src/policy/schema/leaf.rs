//! What fields are made of: names, hosts, paths, durations. Each has a pattern that refuses what is certainly
//! wrong, and an example; the compiler judges finer. It refuses to know in which field a value stands.

use serde_json::{Value, json};

use super::{Kind, map, object, reference, with};

/// By the names under which documents refer to them.
pub(super) const DEFINITIONS: &[Kind] = &[
    ("metadata", metadata),
    ("gatewayRefs", gateway_refs),
    ("name", name),
    ("secretKey", secret_key),
    ("host", host),
    ("hostPattern", host_pattern),
    ("address", address),
    ("block", block),
    ("port", port),
    ("portRange", port_range),
    ("path", path),
    ("method", method),
    ("headerName", header_name),
    ("headerValue", header_value),
    ("duration", duration),
    ("mediaType", media_type),
];

fn metadata() -> Value {
    object(
        "What the document is called.",
        [
            (
                "name",
                "By which other documents refer to it; unique among those of its kind.",
                reference("name"),
            ),
            (
                "namespace",
                "Without meaning: a policy folder is one namespace.",
                json!({"type": "string"}),
            ),
            (
                "labels",
                "Without meaning here.",
                map("", json!({"type": "string"})),
            ),
            (
                "annotations",
                "Without meaning here.",
                map("", json!({"type": "string"})),
            ),
        ],
        &["name"],
    )
}

fn gateway_refs() -> Value {
    let reference = object(
        "A gateway that the rules belong to.",
        [
            (
                "group",
                "May be left out.",
                json!({"enum": crate::policy::resource::GROUPS}),
            ),
            (
                "kind",
                "Always a gateway.",
                json!({"const": "EgressGateway"}),
            ),
            ("name", "The gateway's metadata.name.", reference("name")),
            (
                "sectionName",
                "Only for traffic that this listener handles.",
                reference("name"),
            ),
        ],
        &["kind", "name"],
    );
    super::some(reference)
}

fn name() -> Value {
    const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    let schema = text(
        "The name of an object (RFC 1123).",
        &format!("^{LABEL}(\\.{LABEL})*$"),
        "example",
    );
    with(schema, "maxLength", 253.into())
}

fn secret_key() -> Value {
    let schema = text(
        "The key of a value in a secret.",
        "^[-._a-zA-Z0-9]+$",
        "token",
    );
    let schema = with(schema, "maxLength", 253.into());
    with(schema, "not", json!({"enum": [".", ".."]}))
}

fn host() -> Value {
    let about = "A host name, without scheme, port or path; case makes no difference.";
    text(about, r"^[^\s*/:@?#\[\]]+$", "api.example.com")
}

fn host_pattern() -> Value {
    let about = "A host name, *.NAME for exactly one label more, **.NAME for one or more, or ** for any host. No wildcard means the name it hangs from.";
    text(
        about,
        r"^(\*\*|(\*\*?\.)?[^\s*/:@?#\[\]]+)$",
        "api.example.com",
    )
}

fn address() -> Value {
    text("An IPv4 or IPv6 address.", "^[0-9A-Fa-f:.]+$", "192.0.2.1")
}

fn block() -> Value {
    let about = "An address block such as 192.0.2.0/24 or 2001:db8::/32, or one address.";
    text(about, "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "192.0.2.0/24")
}

fn port() -> Value {
    json!({"description": "A port.", "type": "integer", "minimum": 1, "maximum": 65535})
}

fn port_range() -> Value {
    let fields = [
        ("port", "One port.", reference("port")),
        ("startPort", "The first port of a range.", reference("port")),
        (
            "endPort",
            "The last port of a range, inclusive.",
            reference("port"),
        ),
    ];
    let range = object(
        "Either `port`, or both `startPort` and `endPort`.",
        fields,
        &[],
    );
    let choices = json!([
        {"required": ["port"], "properties": {"startPort": false, "endPort": false}},
        {"required": ["startPort", "endPort"], "properties": {"port": false}},
    ]);
    with(range, "oneOf", choices)
}

fn path() -> Value {
    let about = "A path without its query. * is any run of characters within one segment, ** any run at all.";
    let schema = text(about, r##"^/[!"$->@-~]*$"##, "/v1/**");
    with(schema, "maxLength", 1024.into())
}

fn method() -> Value {
    let about = "A method, in upper case as RFC 9110 writes them.";
    text(about, r"^[-!#$%&'*+.^_`|~0-9A-Z]+$", "GET")
}

fn header_name() -> Value {
    let about = "The name of a request header; case makes no difference.";
    text(about, r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$", "X-Example")
}

fn header_value() -> Value {
    text(
        "Visible ASCII characters, spaces and tabs.",
        r"^[\t -~]*$",
        "example",
    )
}

fn duration() -> Value {
    let about = "A duration such as 300ms, 30s, 5m or 1h30m.";
    text(about, "^([0-9]{1,5}(h|m|s|ms)){1,4}$", "30s")
}

fn media_type() -> Value {
    const TOKEN: &str = r"[-!#$&^_.+0-9A-Za-z]+";
    let about = "A media type without parameters.";
    text(about, &format!("^{TOKEN}/{TOKEN}$"), "application/json")
}

/// A string that a pattern describes.
pub(super) fn text(description: &str, pattern: &str, example: &str) -> Value {
    json!({
        "description": description,
        "type": "string",
        "pattern": pattern,
        "examples": [example],
    })
}
