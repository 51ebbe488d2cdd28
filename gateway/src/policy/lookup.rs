//! What a gateway answers about names that are looked up: how the policy came to mean a name, and
//! whether it names an address that no name may lead to otherwise.
//!
//! It refuses to know DNS, and what is done with the answer.

use std::net::IpAddr;

use super::address::overrides_guard;
use super::{DefaultPolicy, Gateway, Host, HostPattern};

/// How the policy comes to allow a look-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    /// The very name is written there.
    Written,
    /// The name lies under this one, by a wildcard: whoever owns it sees what is asked.
    Under(Host),
    /// Any name is allowed.
    Any,
}

impl Gateway {
    /// How this name came to be allowed to be looked up, whatever the port; `None` if it is not.
    #[must_use]
    pub fn naming(&self, name: &Host) -> Option<Naming> {
        self.resolves(name)?;
        let mut under = None;
        let mut any =
            self.default == DefaultPolicy::AllowAll || self.rules.anywhere().next().is_some();
        let patterns = self.rules.naming(name).flat_map(|grant| &grant.hosts);
        for pattern in patterns.filter(|pattern| pattern.matches(name)) {
            match pattern {
                HostPattern::Exact(_) => return Some(Naming::Written),
                HostPattern::OneLabel(host) | HostPattern::Labels(host) => {
                    under.get_or_insert(host);
                }
                HostPattern::Any => any = true,
            }
        }
        Some(match under {
            Some(host) if !any => Naming::Under(host.clone()),
            _ => Naming::Any,
        })
    }

    /// Does a CIDR rule name this guarded or private address, for whatever port? A rule that merely
    /// contains it among everything else does not.
    #[must_use]
    pub fn names_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.rules
            .containing(address)
            .flat_map(|grant| &grant.cidrs)
            .any(|cidr| cidr.contains(&address) && overrides_guard(cidr))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::{SourceFile, compile};
    use std::sync::Arc;

    fn gateway(rules: &str) -> Arc<Gateway> {
        let text = format!(
            "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: g}}
spec:
  listeners: [{{name: tcp, protocol: TCP}}]
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {{name: r}}
spec:
  parentRefs: [{{kind: EgressGateway, name: g}}]
  rules:
{rules}"
        );
        let files = [SourceFile {
            name: "policy.yaml".to_owned(),
            text: text.into(),
        }];
        let compiled = compile(&files);
        let report = compiled.report(&files, crate::policy::Style::default());
        let mut policy = compiled.policy.expect(&report);
        policy.gateways.remove("g").unwrap()
    }

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    #[test]
    fn a_name_that_is_written_out_is_not_under_a_wildcard() {
        let gateway = gateway(
            "    - matches: [{destinationHostnames: [\"**.wild.test\", a.wild.test, b.test], ports: [{port: 22}]}]\n",
        );
        let naming = |name: &str| gateway.naming(&host(name));
        assert_eq!(naming("a.wild.test"), Some(Naming::Written));
        assert_eq!(naming("b.test"), Some(Naming::Written));
        let under = Some(Naming::Under(host("wild.test")));
        assert_eq!(naming("x.a.wild.test"), under);
        assert_eq!(naming("x.wild.test"), under);
        assert_eq!(naming("wild.test"), None);
        assert_eq!(naming("x.b.test"), None);
    }

    #[test]
    fn a_rule_for_any_name_is_wider_than_a_wildcard() {
        let gateway = gateway(
            "    - matches: [{destinationHostnames: [\"*.wild.test\", \"**\"], ports: [{port: 22}]}]\n",
        );
        assert_eq!(gateway.naming(&host("x.wild.test")), Some(Naming::Any));
        assert_eq!(gateway.naming(&host("other.test")), Some(Naming::Any));
    }

    #[test]
    fn an_address_is_named_by_a_block_of_its_own_kind_alone() {
        let gateway = gateway(
            "    - matches: [{destinationCIDRs: [10.1.0.0/16, 127.0.0.9/32, 0.0.0.0/0], ports: [{port: 22}]}]\n",
        );
        let named = |address: &str| gateway.names_address(address.parse().unwrap());
        assert!(named("10.1.2.3") && named("::ffff:10.1.2.3") && named("127.0.0.9"));
        assert!(!named("10.2.0.1") && !named("127.0.0.1") && !named("169.254.169.254"));
    }
}
