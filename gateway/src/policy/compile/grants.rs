//! From the routes and rules as written to what a decision looks at.
//!
//! It refuses to know gateways: which listener a rule is for has been settled.

use std::sync::Arc;

use super::super::problems::Spanned;
use super::super::resource::{ParentKind, RawAiRoute, RawHttpRoute, RawL4Route, RawProxyRule};
use super::super::rules::{Allows, Grant, HttpRule, RequestRule};
use super::Placed;
use super::injection::{Credentials, of_proxy_rule};
use crate::policy::{HTTPS_PORT, Injection, PortRange, Protocol, TokenBudget};

pub(super) fn l4_grants(raw: &RawL4Route, listener: Option<&str>) -> Vec<Placed<Grant>> {
    let mut grants = Vec::new();
    for rule in &raw.rules {
        for found in &rule.matches {
            grants.push(Placed {
                owner: raw.name.place,
                place: found.place,
                rule: Grant {
                    rule: format!("EgressL4Route/{}#{}", raw.name.value, rule.number).into(),
                    hosts: values(&found.hosts),
                    cidrs: found.cidrs.clone(),
                    ports: if found.ports.is_empty() {
                        vec![PortRange::ALL]
                    } else {
                        found.ports.clone()
                    },
                    protocol: found.protocol,
                    listener: listener.map(Arc::from),
                    allows: Allows::Connection,
                },
            });
        }
    }
    grants
}

pub(super) fn ai_grants(
    raw: &RawAiRoute,
    listener: Option<&str>,
    credentials: &Credentials,
) -> Vec<Placed<Grant>> {
    let mut grants = Vec::new();
    for rule in &raw.rules {
        let number = format!("{}#{}", raw.name.value, rule.number);
        let budget = rule.extra.map(|budget| {
            Arc::new(TokenBudget {
                route: number.as_str().into(),
                max_tokens_per_day: budget.per_day,
                max_tokens_per_execution: budget.per_execution,
                max_output_tokens_per_request: budget.output_per_request,
            })
        });
        for found in &rule.matches {
            let provider = Some(found.provider);
            let injections = credentials.of(ParentKind::AiRoute, &raw.name.value, provider);
            grants.push(Placed {
                owner: raw.name.place,
                place: found.place,
                rule: Grant {
                    rule: format!("AIProviderRoute/{number}").into(),
                    hosts: values(&found.hosts),
                    cidrs: Vec::new(),
                    ports: PortRange::single(HTTPS_PORT).into_iter().collect(),
                    protocol: Protocol::Tcp,
                    listener: listener.map(Arc::from),
                    allows: Allows::Requests(RequestRule {
                        provider,
                        plaintext: false,
                        methods: Vec::new(),
                        paths: found.endpoints.clone(),
                        models: found.models.clone(),
                        budget: budget.clone(),
                        credential: credential_name(&injections),
                        injections,
                    }),
                },
            });
        }
    }
    grants
}

pub(super) fn http_rules(
    raw: &RawHttpRoute,
    listener: Option<&str>,
    credentials: &Credentials,
) -> Vec<Placed<HttpRule>> {
    let injections = credentials.of(ParentKind::HttpRoute, &raw.name.value, None);
    let mut rules = Vec::new();
    for rule in &raw.rules {
        for found in &rule.matches {
            rules.push(Placed {
                owner: raw.name.place,
                place: found.place,
                rule: HttpRule {
                    rule: format!("EgressHTTPRoute/{}#{}", raw.name.value, rule.number).into(),
                    hosts: values(&raw.hosts),
                    listener: listener.map(Arc::from),
                    methods: values(&found.methods),
                    path: found.path.clone(),
                    headers: found.headers.clone(),
                    credential: credential_name(&injections),
                    injections: injections.clone(),
                },
            });
        }
    }
    rules
}

pub(super) fn proxy_grant(raw: &RawProxyRule, listener: Option<&str>) -> Placed<Grant> {
    let injections = of_proxy_rule(raw);
    Placed {
        owner: raw.name.place,
        place: raw.name.place,
        rule: Grant {
            rule: format!("SandboxProxyRule/{}", raw.name.value).into(),
            hosts: values(&raw.hosts),
            cidrs: Vec::new(),
            ports: raw.ports.clone(),
            protocol: Protocol::Tcp,
            listener: listener.map(Arc::from),
            allows: Allows::Requests(RequestRule {
                provider: None,
                plaintext: raw.explicit_ports,
                methods: values(&raw.methods),
                paths: raw.paths.clone(),
                models: Vec::new(),
                budget: None,
                credential: credential_name(&injections),
                injections,
            }),
        },
    }
}

fn values<T: Clone>(list: &[Spanned<T>]) -> Vec<T> {
    list.iter().map(|item| item.value.clone()).collect()
}

fn credential_name(injections: &[Injection]) -> Option<Arc<str>> {
    let mut names: Vec<&str> = injections
        .iter()
        .map(|injection| &*injection.policy)
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join(",").into())
}
