//! The schema of `EgressGateway`. It refuses to know what the settings do.

use serde_json::{Value, json};

use super::leaf::text;
use super::{document, integer, list, map, object, reference, some, with, words};

pub(super) fn gateway() -> Value {
    let spec = object(
        "The settings of the gateway.",
        [
            (
                "defaultPolicy",
                "What happens to what no rule names. Guarded addresses stay closed under allow-all.",
                words(&["deny-all", "allow-all"], true),
            ),
            (
                "listeners",
                "How each class of traffic is handled; a class without a listener is denied.",
                list(listener()),
            ),
            ("otlp", "Export of telemetry.", otlp()),
            (
                "upstreamTLS",
                "How upstreams are found and trusted.",
                upstream_tls(),
            ),
            ("dns", "How the gateway resolves names.", dns()),
            (
                "requestTimeout",
                "How long a request may wait for the head of its response: from its own head, or from the last of its body that moved.",
                with(reference("duration"), "default", "5m".into()),
            ),
            ("limits", "What a sandbox may use.", limits()),
        ],
        &[],
    );
    document(
        "EgressGateway",
        "A way out for sandboxes, to which rules are attached.",
        spec,
    )
}

fn listener() -> Value {
    let tls = object(
        "For protocol TLS alone.",
        [(
            "mode",
            "Terminate reads requests, so that rules about them and credentials work; Passthrough copies bytes unread.",
            words(&["Passthrough", "Terminate"], true),
        )],
        &[],
    );
    let listener = object(
        "One class of traffic.",
        [
            (
                "name",
                "Unique in its gateway; a sectionName.",
                reference("name"),
            ),
            (
                "protocol",
                "What the first bytes of a connection are; TCP is whatever is neither TLS nor HTTP.",
                words(&["TLS", "HTTP", "TCP"], false),
            ),
            (
                "port",
                "The only destination port; without it, every port that no other listener of the protocol names.",
                reference("port"),
            ),
            ("tls", "What becomes of TLS.", tls),
        ],
        &["name", "protocol"],
    );
    let other =
        json!({"required": ["protocol"], "properties": {"protocol": {"enum": ["HTTP", "TCP"]}}});
    let listener = with(listener, "if", other);
    with(listener, "then", json!({"properties": {"tls": false}}))
}

fn otlp() -> Value {
    let bodies = [
        "application/json",
        "application/x-ndjson",
        "text/event-stream",
    ];
    let capture = object(
        "Bodies that are attached to spans, credentials taken out.",
        [
            (
                "maxBytes",
                "Bytes kept of each body.",
                integer(0, 1024 * 1024, None),
            ),
            (
                "includeContentTypes",
                "Media types whose bodies are kept.",
                with(some(reference("mediaType")), "default", json!(bodies)),
            ),
        ],
        &["maxBytes"],
    );
    object(
        "Where spans and metrics go.",
        [
            (
                "endpoint",
                "The collector.",
                text(
                    "A URL without user information, query or fragment.",
                    r"^https?://[^\s@?#]+$",
                    "http://127.0.0.1:4318",
                ),
            ),
            (
                "protocol",
                "How it is spoken to.",
                words(&["http/protobuf", "grpc"], true),
            ),
            (
                "headers",
                "Sent with every export.",
                map("headerName", reference("headerValue")),
            ),
            (
                "captureBody",
                "Without it, bodies are not looked at.",
                capture,
            ),
        ],
        &[],
    )
}

fn upstream_tls() -> Value {
    let trust = object(
        "A PEM bundle in a secret.",
        [
            ("name", "The secret.", reference("name")),
            (
                "key",
                "The key of the bundle in it.",
                reference("secretKey"),
            ),
        ],
        &["name", "key"],
    );
    let client = object(
        "A secret with the keys tls.crt and tls.key.",
        [("name", "The secret.", reference("name"))],
        &["name"],
    );
    let alias = object(
        "Names that are dialled at one address, which may be a guarded one.",
        [
            ("ip", "The address.", reference("address")),
            ("hostnames", "The names, exact.", some(reference("host"))),
        ],
        &["ip", "hostnames"],
    );
    object(
        "Certificates and addresses of upstreams.",
        [
            (
                "additionalTrustBundleSecretRef",
                "Authorities trusted besides the public ones.",
                trust,
            ),
            ("hostAliases", "Names that are not looked up.", some(alias)),
            (
                "clientCertSecretRef",
                "The gateway's own certificate for upstreams that ask for one.",
                client,
            ),
        ],
        &[],
    )
}

fn dns() -> Value {
    let upstream = text(
        "udp://ADDRESS, tcp://ADDRESS or tls://ADDRESS, with or without :PORT.",
        "^(udp|tcp|tls)://.+$",
        "udp://192.0.2.53",
    );
    object(
        "Whom the gateway asks.",
        [
            (
                "lookupFamily",
                "Which addresses are asked for, and in which order they are tried.",
                words(&["V4Preferred", "V4Only", "V6Only", "Auto", "All"], true),
            ),
            (
                "upstreams",
                "Resolvers; the host's own if there are none.",
                some(upstream),
            ),
        ],
        &[],
    )
}

fn limits() -> Value {
    object(
        "Bounds for each sandbox.",
        [
            (
                "maxConnectionsPerSandbox",
                "Open connections.",
                integer(1, 1_000_000, Some(1024)),
            ),
            (
                "maxRequestHeaderBytes",
                "Bytes of one request's head.",
                integer(8192, 1_048_576, Some(65_536)),
            ),
            (
                "idleTimeout",
                "How long a connection may carry nothing.",
                with(reference("duration"), "default", "5m".into()),
            ),
        ],
        &[],
    )
}
