//! Credentials: which headers are set on which route, each by one policy alone.
//!
//! It refuses to know gateways, except that two rules of one gateway must not set one header.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use http::HeaderName;

use super::super::problems::{Place, Problems, quote, suggest};
use super::super::resource::{Raw, RawCredentialPolicy, RawProxyRule};
use super::super::rules::{Allows, Grant};
use super::{Attached, Folder};
use crate::policy::{HTTPS_PORT, HostPattern, Injection, Provider, Template};

/// The injections of every route, by route and provider.
#[derive(Default)]
pub(super) struct Credentials(BTreeMap<(String, Provider), Vec<Injection>>);

impl Credentials {
    pub(super) fn collect(folder: &Folder<'_>, problems: &mut Problems<'_>) -> Self {
        let mut credentials = Self::default();
        let mut first: HashMap<(&str, HeaderName), (&str, Place)> = HashMap::new();
        for document in folder.documents {
            let Raw::CredentialPolicy(policy) = document else {
                continue;
            };
            for parent in &policy.parents {
                let name = parent.name.value.as_str();
                let Some(route) = folder.ai_routes.get(name) else {
                    if !problems.incomplete {
                        let known: Vec<&str> = folder.ai_routes.keys().copied().collect();
                        problems
                            .error(
                                parent.name.place,
                                format!("there is no AIProviderRoute {}", quote(name)),
                            )
                            .help(suggest(name, "routes", &known));
                    }
                    continue;
                };
                let matches = || route.rules.iter().flat_map(|rule| &rule.matches);
                let any_host = matches()
                    .flat_map(|found| &found.hosts)
                    .find(|host| host.value == HostPattern::Any);
                if let Some(host) = any_host {
                    report_any_host(host.place, &policy.name.value, problems);
                }
                let providers: BTreeSet<Provider> = matches().map(|found| found.provider).collect();
                let mut set: HashSet<HeaderName> = HashSet::new();
                for provider in providers {
                    if let Some(injection) = injection(policy, provider, problems) {
                        set.insert(injection.header.clone());
                        let key = (name.to_owned(), provider);
                        credentials.0.entry(key).or_default().push(injection);
                    }
                }
                for header in set {
                    let me = (policy.name.value.as_str(), policy.name.place);
                    if let Some((other, place)) = first.insert((name, header.clone()), me) {
                        let place = problems.locate(place);
                        problems
                            .error(
                                me.1,
                                format!(
                                    "header `{header}` of AIProviderRoute `{name}` is set twice"
                                ),
                            )
                            .help(format!("policy `{other}` at {place} sets it already"));
                    }
                }
            }
        }
        credentials
    }

    pub(super) fn of(&self, route: &str, provider: Provider) -> Vec<Injection> {
        self.0
            .get(&(route.to_owned(), provider))
            .cloned()
            .unwrap_or_default()
    }
}

/// What a policy sets on requests to this provider.
fn injection(
    policy: &RawCredentialPolicy,
    provider: Provider,
    problems: &mut Problems<'_>,
) -> Option<Injection> {
    let own_header = || provider.default_header().map(HeaderName::from_static);
    let header = policy.header.as_ref().map(|header| header.value.clone());
    let Some(header) = header.or_else(own_header) else {
        problems
            .error(policy.name.place, "`spec.headerName` is missing")
            .help("the route's provider has no credential header of its own: name it");
        return None;
    };
    let secret = policy.secret.as_ref()?;
    let template = match &policy.template {
        Some(template) => template.value.clone(),
        // The default templates are templates.
        None => Template::of_policy(provider.default_template(header.as_str()), secret).ok()?,
    };
    Some(Injection {
        policy: policy.name.value.as_str().into(),
        header,
        template,
        provider: Some(provider),
    })
}

/// What a rule sets on the requests that it allows.
pub(super) fn of_proxy_rule(raw: &RawProxyRule) -> Vec<Injection> {
    let policy: Arc<str> = raw.name.value.as_str().into();
    let headers = raw.headers.iter();
    headers
        .map(|header| Injection {
            policy: policy.clone(),
            header: header.name.value.clone(),
            template: header.template.clone(),
            provider: None,
        })
        .collect()
}

/// A secret for whoever asks is none.
pub(super) fn check_any_host(raw: &RawProxyRule, problems: &mut Problems<'_>) {
    let uses_secret = raw
        .headers
        .iter()
        .any(|header| header.template.secret_refs().next().is_some());
    let any_host = raw.hosts.iter().find(|host| host.value == HostPattern::Any);
    if let (true, Some(host)) = (uses_secret, any_host) {
        report_any_host(host.place, &raw.name.value, problems);
    }
}

/// An `AIProviderRoute` and a `SandboxProxyRule` both apply to one request: they must set different headers.
pub(super) fn report_clashes(grants: &[Attached], problems: &mut Problems<'_>) {
    let of_kind = |provider: bool| {
        grants.iter().filter_map(move |attached| {
            let Allows::Requests(rule) = &attached.grant.allows else {
                return None;
            };
            let wanted = rule.provider.is_some() == provider && !rule.injections.is_empty();
            wanted.then_some((attached, rule))
        })
    };
    let routes: Vec<_> = of_kind(true).collect();
    let mut seen: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for (attached, rule) in of_kind(false) {
        for (other, route) in &routes {
            let Some(host) = meeting(&attached.grant, &other.grant) else {
                continue;
            };
            for mine in &rule.injections {
                let twin = route
                    .injections
                    .iter()
                    .find(|theirs| theirs.header == mine.header);
                let Some(theirs) = twin else { continue };
                if !seen.insert((&mine.policy, &theirs.policy, mine.header.as_str())) {
                    continue;
                }
                let place = problems.locate(other.place);
                problems
                    .error(
                        attached.place,
                        format!("header `{}` for `{host}` is set twice", mine.header),
                    )
                    .help(format!(
                        "CredentialInjectionPolicy `{}` sets it already, on the AIProviderRoute at {place}",
                        theirs.policy
                    ));
            }
        }
    }
}

/// A host pattern of `one` that means a host of `other` too, on the same port and listener.
fn meeting<'g>(one: &'g Grant, other: &Grant) -> Option<&'g HostPattern> {
    let apart = matches!((&one.listener, &other.listener), (Some(a), Some(b)) if a != b);
    if apart || !one.has_port(HTTPS_PORT) || !other.has_port(HTTPS_PORT) {
        return None;
    }
    one.hosts
        .iter()
        .find(|pattern| other.hosts.iter().any(|host| host.overlaps(pattern)))
}

fn report_any_host(place: Place, policy: &str, problems: &mut Problems<'_>) {
    problems
        .error(
            place,
            format!(
                "the credential of `{policy}` would be sent to any host that the sandbox names"
            ),
        )
        .expected("the hosts that the credential is for");
}
