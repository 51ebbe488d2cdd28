//! What a field that is missing may look like, by its name alone. It refuses to know where it is missing.

/// The field with a value, as somebody might write it.
pub(super) fn of(name: &str) -> Option<&'static str> {
    EXAMPLES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, example)| *example)
}

/// Names that stand in one kind of place, or mean the same wherever they stand.
const EXAMPLES: &[(&str, &str)] = &[
    ("apiVersion", "apiVersion: postern.dev/v1alpha1"),
    ("kind", "kind: EgressGateway"),
    ("metadata", "metadata: {name: my-name}"),
    ("name", "name: my-name"),
    ("spec", "spec: {...}"),
    (
        "parentRefs",
        "parentRefs: [{kind: EgressGateway, name: my-gateway}]",
    ),
    ("gatewayRef", "gatewayRef: {name: my-gateway}"),
    ("selector", "selector: {cgroup: /sandboxes/*}"),
    ("rules", "rules: [{matches: [...]}]"),
    ("matches", "matches: [{...}]"),
    ("provider", "provider: anthropic"),
    ("hosts", "hosts: [api.example.com]"),
    ("hostnames", "hostnames: [api.example.com]"),
    ("ip", "ip: 192.0.2.1"),
    ("protocol", "protocol: TLS"),
    ("tokenBudget", "tokenBudget: {maxTokensPerDay: 1000000}"),
    ("secretRef", "secretRef: {name: my-secret}"),
    ("target", "target: Header"),
    ("queryParamName", "queryParamName: key"),
    ("providerAuth", "providerAuth: {type: AWSv4}"),
    ("maxBytes", "maxBytes: 65536"),
    ("key", "key: ca.crt"),
];
