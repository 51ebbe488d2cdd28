//! The four documents of the worked example, and what a test must add to them: where the mock is,
//! whom to trust, where spans go. It refuses to change anything else.

use std::fs;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::policy::Host;
use crate::postern::workspace;

/// The name of its gateway.
pub const GATEWAY: &str = "echo-bot";
/// The name and key of its secret, as in a secrets folder.
pub const SECRET: (&str, &str) = ("anthropic-credentials", "api-key");
const PLACEHOLDER: &str = "<base64-of-sk-ant-...>";

/// `policies/worked-example/policy.yaml`.
pub fn documents() -> Result<String> {
    let path = workspace().join("policies/worked-example/policy.yaml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(text.contains(PLACEHOLDER), "the worked example was changed");
    Ok(text)
}

/// What is added to the gateway's document.
pub struct Additions<'a> {
    /// The hosts whose mocks are to be dialled.
    pub hosts: &'a [Host],
    /// The collector.
    pub endpoint: &'a str,
}

/// `documents` with `additions` to the `EgressGateway`; the trust bundle is the secret `test-ca`.
pub fn with(documents: &str, additions: &Additions<'_>) -> Result<String> {
    const BEFORE: &str = "  otlp:\n";
    let mut added = "  upstreamTLS:\n    additionalTrustBundleSecretRef:\n      name: test-ca\n      key: ca.crt\n    hostAliases:\n".to_owned();
    for host in additions.hosts {
        let line = format!(
            "      - {{ip: {}, hostnames: [{}]}}\n",
            host.address, host.name
        );
        added = added + &line;
    }
    let endpoint = additions.endpoint;
    added = added + BEFORE + &format!("    endpoint: {endpoint}\n");
    replace(documents, BEFORE, &added)
}

/// `documents` with `key` where the placeholder of the secret was.
pub fn with_key(documents: &str, key: &str) -> Result<String> {
    replace(documents, PLACEHOLDER, &STANDARD.encode(key))
}

/// `documents` under deny-all.
pub fn denying(documents: &str) -> Result<String> {
    replace(
        documents,
        "defaultPolicy: allow-all",
        "defaultPolicy: deny-all",
    )
}

/// The lines that came and went, in order, as `+` and `-` lines.
pub fn difference(before: &str, after: &str) -> Vec<String> {
    let (before, after): (Vec<&str>, Vec<&str>) =
        (before.lines().collect(), after.lines().collect());
    let mut lines = Vec::new();
    let (mut old, mut new) = (0, 0);
    while old < before.len() || new < after.len() {
        if old < before.len() && new < after.len() && before[old] == after[new] {
            old += 1;
            new += 1;
        } else if old < before.len() && !after[new..].contains(&before[old]) {
            lines.push(format!("- {}", before[old]));
            old += 1;
        } else if new < after.len() {
            lines.push(format!("+ {}", after[new]));
            new += 1;
        }
    }
    lines
}

fn replace(text: &str, what: &str, by: &str) -> Result<String> {
    ensure!(
        text.matches(what).count() == 1,
        "the worked example has {what:?} {} times, not once",
        text.matches(what).count()
    );
    Ok(text.replace(what, by))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "data:\n  api-key: <base64-of-sk-ant-...>\nspec:\n  defaultPolicy: allow-all\n  otlp:\n    captureBody:\n";

    #[test]
    fn the_difference_is_what_was_added_and_nothing_else() -> Result<()> {
        let changed = denying(&with_key(TEXT, "k")?)?;
        let changed = with(
            &changed,
            &Additions {
                hosts: &[],
                endpoint: "http://127.0.0.1:1",
            },
        )?;
        assert_eq!(
            difference(TEXT, &changed),
            [
                "-   api-key: <base64-of-sk-ant-...>",
                "+   api-key: aw==",
                "-   defaultPolicy: allow-all",
                "+   defaultPolicy: deny-all",
                "+   upstreamTLS:",
                "+     additionalTrustBundleSecretRef:",
                "+       name: test-ca",
                "+       key: ca.crt",
                "+     hostAliases:",
                "+     endpoint: http://127.0.0.1:1",
            ]
        );
        assert!(denying("nothing").is_err());
        assert!(difference(TEXT, TEXT).is_empty());
        Ok(())
    }
}
