//! The policies that the repository shows to people must load.

use std::sync::Arc;

use http::HeaderMap;

use super::{folder, report, workspace};
use crate::outcome::DenyReason;
use crate::policy::explain::{self, Circumstances, Question};
use crate::policy::{
    Class, Denial, Destination, Gateway, Host, RequestFacts, RequestPermit, Severity, compile,
};

#[test]
fn every_example_policy_is_accepted() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(workspace().join("policies")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = folder(&path);
        let compiled = compile(&files);
        assert!(
            compiled.policy.is_some(),
            "{name}:\n{}",
            report(&compiled, &files)
        );
        // The worked example holds a placeholder for its key, and is told so; the others are flawless.
        let warnings: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(|diagnostic| (diagnostic.severity(), diagnostic.message()))
            .collect();
        if name == "worked-example" {
            let placeholder = "the value of `api-key` is a placeholder";
            assert_eq!(warnings, [(Severity::Warning, placeholder)]);
        } else {
            assert_eq!(warnings, [], "{name}");
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "anthropic",
            "azure-openai",
            "bedrock",
            "bedrock-sigv4",
            "gemini",
            "github-read-only",
            "internal-wiki",
            "locked-down",
            "oauth2-client",
            "observe",
            "openai",
            "package-registries",
            "postgres",
            "worked-example"
        ]
    );
}

fn example(name: &str) -> Arc<Gateway> {
    let compiled = compile(&folder(&workspace().join("policies").join(name)));
    let gateways = compiled.policy.unwrap().gateways;
    gateways.into_values().next().unwrap()
}

/// The decision on a request over TLS to port 443.
fn request(gateway: &Gateway, host: &str, path: &str) -> Result<RequestPermit, Denial> {
    let host = &Host::parse(host).unwrap();
    let permit = gateway.authorize(&Destination {
        address: "203.0.113.1:443".parse().unwrap(),
        host: Some(host),
        listener: gateway.listener(Class::Tls, 443).unwrap(),
    })?;
    let facts = RequestFacts {
        host: Some(host),
        port: 443,
        method: "POST",
        path,
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    gateway.authorize_request(&permit, &facts)
}

/// The header that is set and the secret it comes from.
fn injected(permit: &RequestPermit) -> Option<(String, String)> {
    let injection = permit.injections().first()?;
    let secret = *injection.secret_refs().first()?;
    Some((injection.headers().first()?.to_string(), secret.to_string()))
}

#[test]
fn the_worked_example_does_what_its_page_says() {
    let gateway = example("worked-example");
    let capture = gateway
        .otlp
        .as_ref()
        .unwrap()
        .capture_body
        .as_ref()
        .unwrap();
    assert_eq!(capture.max_bytes, 65536);
    let key = (
        "x-api-key".to_owned(),
        "anthropic-credentials/api-key".to_owned(),
    );
    for path in ["/v1/messages", "/v1/complete"] {
        let permit = request(&gateway, "api.anthropic.com", path).unwrap();
        assert_eq!(injected(&permit), Some(key.clone()), "{path}");
    }
    for (host, path) in [
        ("api.anthropic.com", "/v1/models"),
        ("other.example", "/v1/messages"),
    ] {
        let permit = request(&gateway, host, path).unwrap();
        assert_eq!(injected(&permit), None, "{host}{path}");
    }
}

#[test]
fn the_safe_examples_allow_what_they_name_and_no_more() {
    let anthropic = example("anthropic");
    assert!(request(&anthropic, "api.anthropic.com", "/v1/messages").is_ok());
    let denied = request(&anthropic, "api.anthropic.com", "/v1/files");
    assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
    let denied = request(&anthropic, "evil.example", "/v1/messages");
    assert_eq!(denied.unwrap_err(), Denial::NoRule);
    let openai = example("openai");
    let permit = request(&openai, "api.openai.com", "/v1/chat/completions").unwrap();
    let (header, secret) = injected(&permit).unwrap();
    assert_eq!(
        (header.as_str(), secret.as_str()),
        ("authorization", "openai-credentials/token")
    );
    let locked_down = example("locked-down");
    for (host, allowed) in [
        ("index.crates.io", true),
        ("crates.io", false),
        ("github.com", true),
    ] {
        assert_eq!(request(&locked_down, host, "/").is_ok(), allowed, "{host}");
    }
}

/// What becomes of a question, in a few words: the rule that allows it and what is set, or stage and reason.
fn answer(gateway: &Gateway, line: &str) -> String {
    let (method, asked) = line.split_once(' ').unwrap();
    let method = (method != "-").then_some(method);
    let asked = Question::parse(asked).unwrap();
    let asked = asked
        .with_request(method, http::HeaderMap::new(), None)
        .unwrap();
    let verdict = explain::decide(gateway, &asked, Circumstances::default());
    match &verdict.outcome {
        Ok(allowed) => {
            let set = allowed
                .injects
                .iter()
                .map(|injected| injected.place.clone());
            let set: Vec<String> = set.collect();
            let rule = allowed.rule.as_deref().unwrap_or_default();
            format!("{rule} {}", set.join(" ")).trim_end().to_owned()
        }
        Err(_) => {
            let (stage, reason) = DenyReason::foretold(&verdict).unwrap();
            format!("{}: {}", stage.as_str(), reason.as_str())
        }
    }
}

/// An example and what becomes of some questions under it.
type Table = (&'static str, &'static [(&'static str, &'static str)]);

const NO_NAME: &str = "dns: name_not_allowed";
const NO_REQUEST: &str = "http: request_not_allowed";
const NO_RULE: &str = "kernel: no_rule";

const TABLES: &[Table] = &[
    (
        "anthropic",
        &[
            (
                "POST https://api.anthropic.com/v1/messages",
                "AIProviderRoute/anthropic#1 header x-api-key",
            ),
            (
                "POST https://api.anthropic.com/v1/messages/count_tokens",
                "AIProviderRoute/anthropic#1 header x-api-key",
            ),
            (
                "POST https://api.anthropic.com/v1/messages/batches",
                NO_REQUEST,
            ),
            (
                "TRACE https://api.anthropic.com/v1/messages",
                "http: trace_refused",
            ),
            ("POST http://api.anthropic.com/v1/messages", NO_RULE),
            ("GET https://example.com/", NO_NAME),
        ],
    ),
    (
        "openai",
        &[
            (
                "POST https://api.openai.com/v1/responses",
                "AIProviderRoute/openai#1 header authorization",
            ),
            ("GET https://api.openai.com/v2/x", NO_REQUEST),
            ("GET https://chat.openai.com/", NO_NAME),
        ],
    ),
    (
        "azure-openai",
        &[
            (
                "POST https://my-resource.openai.azure.com/openai/deployments/my-deployment/chat/completions?api-version=1",
                "AIProviderRoute/azure-openai#1 header api-key",
            ),
            (
                "POST https://my-resource.openai.azure.com/openai/v1/responses",
                "AIProviderRoute/azure-openai#1 header api-key",
            ),
            (
                "POST https://my-resource.openai.azure.com/openai/deployments/other/chat/completions",
                NO_REQUEST,
            ),
            (
                "POST https://other.openai.azure.com/openai/v1/responses",
                NO_NAME,
            ),
        ],
    ),
    (
        "gemini",
        &[
            (
                "POST https://generativelanguage.googleapis.com/v1beta/models/gemini-x:generateContent",
                "AIProviderRoute/gemini#1 header x-goog-api-key",
            ),
            (
                "POST https://generativelanguage.googleapis.com/v1beta/models/gemini-x:streamGenerateContent?alt=sse",
                "AIProviderRoute/gemini#1 header x-goog-api-key",
            ),
            (
                "POST https://generativelanguage.googleapis.com/v1beta/files",
                NO_REQUEST,
            ),
            ("POST https://storage.googleapis.com/", NO_NAME),
        ],
    ),
    (
        "bedrock",
        &[
            (
                "POST https://bedrock-runtime.eu-central-1.amazonaws.com/model/anthropic.claude-x-v1:0/converse",
                "AIProviderRoute/bedrock#1 header authorization",
            ),
            (
                "POST https://bedrock-runtime.eu-central-1.amazonaws.com/model/anthropic.claude-x-v1%3A0/invoke-with-response-stream",
                "AIProviderRoute/bedrock#1 header authorization",
            ),
            (
                "POST https://bedrock-runtime.eu-central-1.amazonaws.com/guardrail/x/apply",
                NO_REQUEST,
            ),
            (
                "POST https://bedrock-runtime.us-east-1.amazonaws.com/model/x/converse",
                NO_NAME,
            ),
            ("GET https://s3.eu-central-1.amazonaws.com/", NO_NAME),
        ],
    ),
    (
        "bedrock-sigv4",
        &[
            (
                "POST https://bedrock-runtime.eu-central-1.amazonaws.com/model/anthropic.claude-x-v1:0/converse",
                "AIProviderRoute/bedrock-sigv4#1 AWS signature",
            ),
            (
                "POST https://bedrock-runtime.us-east-1.amazonaws.com/model/x/converse",
                NO_NAME,
            ),
        ],
    ),
    (
        "oauth2-client",
        &[
            (
                "GET https://crm.example.com/api/contacts/7",
                "EgressHTTPRoute/crm#1 header authorization, with a token of https://login.example.com/oauth2/token",
            ),
            ("POST https://crm.example.com/api/contacts", NO_REQUEST),
            ("GET https://crm.example.com/api/users", NO_REQUEST),
            ("POST https://login.example.com/oauth2/token", NO_NAME),
        ],
    ),
    (
        "github-read-only",
        &[
            (
                "GET https://api.github.com/repos/acme/tool/issues",
                "SandboxProxyRule/api header authorization",
            ),
            (
                "HEAD https://api.github.com/repos/acme/tool",
                "SandboxProxyRule/api header authorization",
            ),
            (
                "POST https://api.github.com/repos/acme/tool/issues",
                NO_REQUEST,
            ),
            ("DELETE https://api.github.com/repos/acme/tool", NO_REQUEST),
            ("GET https://api.github.com/repos/other/tool", NO_REQUEST),
            ("POST https://api.github.com/graphql", NO_REQUEST),
            (
                "GET https://github.com/acme/tool/info/refs?service=git-upload-pack",
                "SandboxProxyRule/clone",
            ),
            (
                "POST https://github.com/acme/tool.git/git-upload-pack",
                "SandboxProxyRule/clone",
            ),
            (
                "POST https://github.com/acme/tool.git/git-receive-pack",
                NO_REQUEST,
            ),
            ("GET https://github.com/other/tool/info/refs", NO_REQUEST),
            ("- github.com:22", NO_RULE),
            ("GET https://gist.github.com/", NO_NAME),
        ],
    ),
    (
        "package-registries",
        &[
            (
                "GET https://pypi.org/simple/requests/",
                "SandboxProxyRule/pip-npm-cargo",
            ),
            (
                "GET https://files.pythonhosted.org/packages/x.whl",
                "SandboxProxyRule/pip-npm-cargo",
            ),
            (
                "GET https://registry.npmjs.org/left-pad",
                "SandboxProxyRule/pip-npm-cargo",
            ),
            ("PUT https://registry.npmjs.org/left-pad", NO_REQUEST),
            (
                "GET https://index.crates.io/se/rd/serde",
                "SandboxProxyRule/pip-npm-cargo",
            ),
            (
                "GET https://static.crates.io/crates/serde/serde.crate",
                "SandboxProxyRule/pip-npm-cargo",
            ),
            ("PUT https://crates.io/api/v1/crates/new", NO_NAME),
            (
                "GET http://deb.debian.org/debian/dists/stable/InRelease",
                "SandboxProxyRule/apt",
            ),
            ("GET https://security.debian.org/", "SandboxProxyRule/apt"),
            ("POST http://deb.debian.org/", NO_REQUEST),
            ("GET http://pypi.org/simple/", "http: no_rule"),
            ("POST https://upload.pypi.org/legacy/", NO_NAME),
        ],
    ),
    (
        "internal-wiki",
        &[
            (
                "GET https://wiki.local/snippets/a/b",
                "SandboxProxyRule/wiki-auth header authorization",
            ),
            ("PUT https://wiki.local/snippets/a", NO_REQUEST),
            ("GET https://wiki.local/admin", NO_REQUEST),
            ("GET http://wiki.local/snippets/a", NO_RULE),
            ("GET https://10.20.0.15/snippets/a", "sniff: no_server_name"),
        ],
    ),
    (
        "postgres",
        &[
            ("- db.internal.example:5432", "EgressL4Route/postgres#1"),
            ("- 10.20.0.5:5432", "sniff: no_rule"),
            ("- other.internal.example:5432", NO_NAME),
            ("- db.internal.example:22", NO_RULE),
            ("- tls://db.internal.example:5432", "sniff: no_listener"),
            ("GET https://db.internal.example/", NO_RULE),
        ],
    ),
    (
        "locked-down",
        &[
            ("- github.com:22", "EgressL4Route/git#1"),
            ("- 10.20.0.7:5433", "EgressL4Route/git#2"),
            ("- 10.20.0.16:5432", NO_RULE),
            ("GET https://pypi.org/", "EgressL4Route/packages#1"),
            ("GET http://pypi.org/", NO_RULE),
            ("- crates.io:443", NO_NAME),
        ],
    ),
    (
        "observe",
        &[
            (
                "POST https://example.com/any",
                "EgressGateway/observe defaultPolicy",
            ),
            (
                "GET http://203.0.113.7:8080/",
                "EgressGateway/observe defaultPolicy",
            ),
            ("- example.com:22", "EgressGateway/observe defaultPolicy"),
            (
                "GET http://169.254.169.254/latest/meta-data/",
                "kernel: address_guard",
            ),
            ("- 127.0.0.1:631", "kernel: address_guard"),
            ("- udp:203.0.113.7:443", "kernel: protocol_not_allowed"),
            ("GET https://203.0.113.7/", "sniff: no_server_name"),
        ],
    ),
    (
        "worked-example",
        &[
            (
                "POST https://api.anthropic.com/v1/messages",
                "AIProviderRoute/anthropic#1 header x-api-key",
            ),
            (
                "GET https://api.anthropic.com/v1/models",
                "EgressGateway/echo-bot defaultPolicy",
            ),
        ],
    ),
];

#[test]
fn every_example_does_what_its_comments_say() {
    for (name, table) in TABLES {
        let gateway = example(name);
        for (asked, wanted) in *table {
            assert_eq!(answer(&gateway, asked), *wanted, "{name}: {asked}");
        }
    }
    let tabled: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    let folders = std::fs::read_dir(workspace().join("policies")).unwrap();
    for folder in folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(tabled.contains(&name), "{name} has no table");
    }
}
