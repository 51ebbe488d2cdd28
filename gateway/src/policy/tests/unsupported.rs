//! What the engine understands and the gateway does not enforce yet is refused, with its place, and by that alone.

use super::{compile_all, report, source};
use crate::policy::compile;
use crate::policy::unsupported::{Feature, Features};

const EVERY: [Feature; 10] = [
    Feature::Models,
    Feature::TokenBudget,
    Feature::QueryParam,
    Feature::AwsV4,
    Feature::GcpServiceAccount,
    Feature::Udp,
    Feature::OtlpGrpc,
    Feature::ClientCertificate,
    Feature::DnsOverTls,
    Feature::SandboxBinding,
];

/// A policy that asks for the feature, and the place where it does.
fn asking(feature: Feature) -> (String, &'static str) {
    let (gateway, rest, place) = match feature {
        Feature::Models => (
            "",
            ai("models: [claude-*]", ""),
            "spec.rules[0].matches[0].models",
        ),
        Feature::TokenBudget => (
            "",
            ai(
                "endpoints: [/v1/messages]",
                "\n    filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 10}}]",
            ),
            "spec.rules[0].filters[0]",
        ),
        Feature::QueryParam => (
            "",
            credential("target: QueryParam\n  queryParamName: key"),
            "spec.target",
        ),
        Feature::AwsV4 => (
            "",
            credential(
                "target: ProviderAuth\n  providerAuth: {type: AWSv4, region: us-east-1, service: bedrock}",
            ),
            "spec.providerAuth.type",
        ),
        Feature::GcpServiceAccount => (
            "",
            credential(
                "target: ProviderAuth\n  providerAuth: {type: GCPServiceAccount, scopes: [a]}",
            ),
            "spec.providerAuth.type",
        ),
        Feature::Udp => (
            "",
            document(
                "EgressL4Route",
                "parentRefs: [{kind: EgressGateway, name: g}]\n  rules: [{matches: [{destinationCIDRs: [192.0.2.0/24], ports: [{port: 123}], protocol: UDP}]}]",
            ),
            "spec.rules[0].matches[0].protocol",
        ),
        Feature::OtlpGrpc => (
            "  otlp: {endpoint: 'http://127.0.0.1:4317', protocol: grpc}\n",
            String::new(),
            "spec.otlp.protocol",
        ),
        Feature::ClientCertificate => (
            "  upstreamTLS: {clientCertSecretRef: {name: client}}\n",
            String::new(),
            "spec.upstreamTLS.clientCertSecretRef",
        ),
        Feature::DnsOverTls => (
            "  dns: {upstreams: ['udp://1.1.1.1', 'tls://9.9.9.9']}\n",
            String::new(),
            "spec.dns.upstreams[1]",
        ),
        Feature::SandboxBinding => (
            "",
            document(
                "SandboxBinding",
                "gatewayRef: {name: g}\n  selector: {pid: 7}",
            ),
            "kind",
        ),
    };
    let text = format!(
        "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {{name: g}}\nspec:\n  listeners: [{{name: egress, protocol: TLS, tls: {{mode: Terminate}}}}]\n{gateway}{rest}"
    );
    (text, place)
}

fn document(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n  {spec}\n"
    )
}

fn ai(matched: &str, rest: &str) -> String {
    let spec = format!(
        "parentRefs: [{{kind: EgressGateway, name: g}}]\n  rules:\n  - matches: [{{provider: anthropic, {matched}}}]{rest}"
    );
    document("AIProviderRoute", &spec)
}

fn credential(spec: &str) -> String {
    let spec = format!(
        "parentRefs: [{{kind: AIProviderRoute, name: x}}]\n  secretRef: {{name: s}}\n  {spec}"
    );
    ai("endpoints: []", "") + &document("CredentialInjectionPolicy", &spec)
}

#[test]
fn what_is_not_enforced_is_refused_with_its_place_and_by_that_alone() {
    for feature in EVERY {
        let (text, place) = asking(feature);
        let files = [source("policy.yaml", &text)];
        let all = compile_all(&files);
        assert!(
            all.diagnostics.is_empty(),
            "{feature:?}:\n{}",
            report(&all, &files)
        );
        assert!(all.policy.is_some(), "{feature:?}");
        let enforced = compile(&files);
        let told: Vec<_> = enforced
            .diagnostics
            .iter()
            .map(|found| found.message())
            .collect();
        match Features::ENFORCED.refuses(feature) {
            None => assert!(
                enforced.policy.is_some() && told.is_empty(),
                "{feature:?}: {told:?}"
            ),
            Some(name) => {
                assert!(enforced.policy.is_none(), "{feature:?}");
                assert_eq!(told, [format!("`{place}`: {name} is not supported yet")]);
                assert!(enforced.diagnostics[0].span().is_some());
            }
        }
    }
}
