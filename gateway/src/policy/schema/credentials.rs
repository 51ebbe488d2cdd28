//! The schemas of the kinds about credentials, and of what ties sandboxes to gateways. It refuses to know routes.

use serde_json::{Value, json};

use super::leaf::text;
use super::{core_document, document, map, object, reference, some, with, words};
use crate::policy::resource::{client_auth_methods, provider_auth_types};

pub(super) fn injection_policy() -> Value {
    let route = object(
        "A route whose requests get the credential.",
        [
            (
                "group",
                "May be left out.",
                json!({"enum": crate::policy::resource::GROUPS}),
            ),
            (
                "kind",
                "The route's kind.",
                words(&["AIProviderRoute", "EgressHTTPRoute"], false),
            ),
            ("name", "The route's metadata.name.", reference("name")),
        ],
        &["kind", "name"],
    );
    let secret = object(
        "A secret, as a document or in the secrets folder.",
        [("name", "Its name.", reference("name"))],
        &["name"],
    );
    let auth = object(
        "How requests are signed, or what token they carry.",
        [
            (
                "type",
                "AWSv4 takes the keys access_key_id, secret_access_key and session_token of the secret, GCPServiceAccount the service account's JSON, OAuth2ClientCredentials the keys client_id and client_secret.",
                words(&provider_auth_types(), false),
            ),
            (
                "region",
                "AWSv4: in place of the one in the host name.",
                plain("eu-central-1"),
            ),
            (
                "service",
                "AWSv4: in place of the one in the host name.",
                plain("bedrock"),
            ),
            (
                "scopes",
                "GCPServiceAccount and OAuth2ClientCredentials: what the access token is for.",
                with(
                    some(plain("https://www.googleapis.com/auth/cloud-platform")),
                    "minItems",
                    json!(1),
                ),
            ),
            (
                "tokenUrl",
                "OAuth2ClientCredentials: where tokens are asked for, by the gateway itself.",
                text(
                    "An https URL with a host name.",
                    "^https://[^@#]+$",
                    "https://login.example.com/oauth2/token",
                ),
            ),
            (
                "audience",
                "OAuth2ClientCredentials: whom the token is for, for servers that want the parameter audience.",
                plain("https://api.example.com/"),
            ),
            (
                "resource",
                "OAuth2ClientCredentials: whom the token is for, for servers that want the parameter resource (RFC 8707).",
                plain("https://api.example.com/"),
            ),
            (
                "authMethod",
                "OAuth2ClientCredentials: how the client proves itself; ClientSecretPost is for servers that do not take HTTP Basic.",
                words(&client_auth_methods(), true),
            ),
        ],
        &["type"],
    );
    let spec = object(
        "Which credential goes where.",
        [
            ("parentRefs", "The routes.", some(route.clone())),
            ("targetRefs", "Another name for parentRefs.", some(route)),
            ("secretRef", "Where the credential is kept.", secret),
            (
                "secretKey",
                "Which value of the secret.",
                with(reference("secretKey"), "default", "token".into()),
            ),
            (
                "target",
                "What is set.",
                words(&["Header", "QueryParam", "ProviderAuth"], true),
            ),
            (
                "headerName",
                "For target Header; the provider's own if it is left out.",
                reference("headerName"),
            ),
            (
                "valueTemplate",
                "Text around {{ value }} or {{ base64 user ':' value }}; the provider's own if it is left out.",
                plain("Bearer {{ value }}"),
            ),
            ("queryParamName", "For target QueryParam.", plain("key")),
            ("providerAuth", "For target ProviderAuth.", auth),
        ],
        &["secretRef"],
    );
    let one = json!([{"required": ["parentRefs"]}, {"required": ["targetRefs"]}]);
    let about = "Sets a credential on the requests of routes, last of all and whatever the sandbox sent in its place.";
    document("CredentialInjectionPolicy", about, with(spec, "oneOf", one))
}

pub(super) fn proxy_rule() -> Value {
    let value = text(
        "Text around {{ SECRET.KEY }}, split at the last dot.",
        r"^[\t -~]*$",
        "Bearer {{ wiki-token.value }}",
    );
    let spec = object(
        "Requests and what is set on them.",
        [
            (
                "parentRefs",
                "The gateways that the rule is for.",
                reference("gatewayRefs"),
            ),
            ("hosts", "To these hosts.", some(reference("hostPattern"))),
            (
                "ports",
                "On these ports; naming a plaintext port opts in to plain HTTP there.",
                with(some(reference("port")), "default", json!([443])),
            ),
            (
                "methods",
                "Every method if there are none.",
                some(reference("method")),
            ),
            (
                "paths",
                "Every path if there are none.",
                some(reference("path")),
            ),
            (
                "headers",
                "Set on each request, whatever the sandbox sent.",
                map("headerName", value),
            ),
        ],
        &["parentRefs", "hosts"],
    );
    document(
        "SandboxProxyRule",
        "Hosts, requests and headers in one; it implies the connection to its hosts.",
        spec,
    )
}

pub(super) fn binding() -> Value {
    let gateway = object(
        "The gateway that owns the sandboxes.",
        [("name", "Its metadata.name.", reference("name"))],
        &["name"],
    );
    let selector = object(
        "Exactly one of the three.",
        [
            (
                "cgroup",
                "A path below the cgroup mount; * is any run within one segment.",
                text("A path.", "^/", "/sandboxes/*"),
            ),
            (
                "systemdUnit",
                "A unit's name, with *.",
                plain("agent@*.service"),
            ),
            (
                "pid",
                "A process.",
                json!({"type": "integer", "minimum": 2, "maximum": u32::MAX}),
            ),
        ],
        &[],
    );
    let one = ["cgroup", "systemdUnit", "pid"].map(|field| json!({"required": [field]}));
    let spec = object(
        "Which sandboxes go through which gateway.",
        [
            ("gatewayRef", "The gateway.", gateway),
            (
                "selector",
                "The sandboxes.",
                with(selector, "oneOf", json!(one)),
            ),
        ],
        &["gatewayRef", "selector"],
    );
    document(
        "SandboxBinding",
        "Ties sandboxes that exist to a gateway.",
        spec,
    )
}

pub(super) fn secret() -> Value {
    let fields = [
        (
            "data",
            "Values in base64. One of the form <...> is a placeholder and counts as absent.",
            map("secretKey", json!({"type": "string"})),
        ),
        (
            "stringData",
            "Values as they are; they win over data.",
            map("secretKey", json!({"type": "string"})),
        ),
        ("type", "Without meaning here.", json!({"type": "string"})),
    ];
    core_document(
        "Secret",
        "Credentials; better kept in the secrets folder.",
        fields,
    )
}

fn plain(example: &str) -> Value {
    json!({"type": "string", "minLength": 1, "examples": [example]})
}
