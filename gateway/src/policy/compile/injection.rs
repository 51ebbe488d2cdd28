//! Credentials: what is set on which route, each by one policy alone.
//!
//! It refuses to know gateways, and what else applies to a request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::HeaderName;

use super::super::problems::{Place, Problems, Spanned, quote, suggest};
use super::super::resource::{ParentKind, Raw, RawCredentialPolicy, RawProxyRule, RawTarget};
use super::Folder;
use crate::policy::{Host, HostPattern, Injection, InjectionTarget, Provider, SecretRef, Template};

/// The injections of every route, by route and provider.
#[derive(Default)]
pub(super) struct Credentials(BTreeMap<(ParentKind, String, Option<Provider>), Vec<Injection>>);

/// What a credential needs to know of the route that it is for.
struct Route<'r> {
    hosts: Vec<&'r Spanned<HostPattern>>,
    /// `None` for a route without provider.
    providers: BTreeSet<Option<Provider>>,
}

impl Credentials {
    pub(super) fn collect(folder: &Folder<'_>, problems: &mut Problems<'_>) -> Self {
        let mut credentials = Self::default();
        // Who sets this place of requests on this route.
        let mut first: HashMap<(ParentKind, &str, String), (&str, Place)> = HashMap::new();
        for document in folder.documents {
            let Raw::CredentialPolicy(policy) = document else {
                continue;
            };
            for parent in &policy.parents {
                let (kind, name) = (parent.kind, parent.name.value.as_str());
                let Some(route) = route(folder, kind, name) else {
                    report_unknown(folder, kind, &parent.name, problems);
                    continue;
                };
                let mut hosts = route.hosts.iter();
                if let Some(host) = hosts.find(|host| host.value == HostPattern::Any) {
                    report_any_host(host.place, &policy.name.value, problems);
                }
                check_region(policy, &route.hosts, problems);
                warn_of_tenants(folder, policy, kind, name, problems);
                let mut set: BTreeSet<String> = BTreeSet::new();
                for provider in route.providers {
                    if let Some(injection) = injection(policy, provider, problems) {
                        set.extend(injection.places());
                        let key = (kind, name.to_owned(), provider);
                        credentials.0.entry(key).or_default().push(injection);
                    }
                }
                let me = (policy.name.value.as_str(), policy.name.place);
                for place in set {
                    let other = first.insert((kind, name, place.clone()), me);
                    if let Some((other, at)) = other {
                        let at = problems.locate(at);
                        let route = kind.as_str();
                        problems
                            .error(me.1, format!("{place} of {route} `{name}` is set twice"))
                            .help(format!("policy `{other}` at {at} sets it already"));
                    }
                }
            }
        }
        credentials
    }

    pub(super) fn of(
        &self,
        kind: ParentKind,
        route: &str,
        provider: Option<Provider>,
    ) -> Vec<Injection> {
        self.0
            .get(&(kind, route.to_owned(), provider))
            .cloned()
            .unwrap_or_default()
    }
}

fn route<'r>(folder: &Folder<'r>, kind: ParentKind, name: &str) -> Option<Route<'r>> {
    match kind {
        ParentKind::AiRoute => {
            let route = folder.ai_routes.get(name)?;
            let matches = || route.rules.iter().flat_map(|rule| &rule.matches);
            Some(Route {
                hosts: matches().flat_map(|found| &found.hosts).collect(),
                providers: matches().map(|found| Some(found.provider)).collect(),
            })
        }
        ParentKind::HttpRoute => Some(Route {
            hosts: folder.http_routes.get(name)?.hosts.iter().collect(),
            providers: BTreeSet::from([None]),
        }),
        ParentKind::Gateway => None,
    }
}

/// Whoever has a resource at Azure has a name beside everybody else's, and would be sent the key.
fn warn_of_tenants(
    folder: &Folder<'_>,
    policy: &RawCredentialPolicy,
    kind: ParentKind,
    name: &str,
    problems: &mut Problems<'_>,
) {
    if kind != ParentKind::AiRoute {
        return;
    }
    let route = folder.ai_routes.get(name);
    let matches = route.iter().flat_map(|route| &route.rules);
    let shared = matches
        .flat_map(|rule| &rule.matches)
        .find(|found| found.provider == Provider::AzureOpenAi && !found.explicit_hosts);
    if let Some(shared) = shared {
        problems
            .warning(
                shared.place,
                format!(
                    "the credential of `{}` would be sent to any customer's host under `{}`",
                    policy.name.value,
                    Provider::AzureOpenAi.default_hosts().join("`, `"),
                ),
            )
            .help("name your own resource: `hosts: [my-resource.openai.azure.com]`");
    }
}

fn report_unknown(
    folder: &Folder<'_>,
    kind: ParentKind,
    name: &Spanned<String>,
    problems: &mut Problems<'_>,
) {
    if !problems.incomplete {
        let message = format!("there is no {} {}", kind.as_str(), quote(&name.value));
        let known = suggest(&name.value, "routes", &folder.names(kind));
        problems.error(name.place, message).help(known);
    }
}

/// What a policy sets on requests to this provider.
fn injection(
    policy: &RawCredentialPolicy,
    provider: Option<Provider>,
    problems: &mut Problems<'_>,
) -> Option<Injection> {
    let target = match policy.target.as_ref()? {
        RawTarget::Header {
            secret,
            name,
            template,
        } => {
            let own_header = || Some(HeaderName::from_static(provider?.default_header()?));
            let Some(name) = name.clone().or_else(own_header) else {
                let whose = match provider {
                    Some(_) => "the route's provider",
                    None => "a route without provider",
                };
                problems
                    .error(policy.name.place, "`spec.headerName` is missing")
                    .help(format!(
                        "{whose} has no credential header of its own: name it"
                    ));
                return None;
            };
            let default = || {
                let provider = provider.unwrap_or(Provider::Custom);
                // The default templates are templates.
                Template::of_policy(provider.default_template(name.as_str()), secret).ok()
            };
            InjectionTarget::Header {
                template: template.clone().or_else(default)?,
                name,
            }
        }
        RawTarget::QueryParam { name, template } => InjectionTarget::QueryParam {
            name: name.clone(),
            template: template.clone(),
        },
        RawTarget::AwsV4 {
            secret,
            region,
            service,
            ..
        } => {
            let key = |key: &str| SecretRef {
                name: secret.clone(),
                key: key.into(),
            };
            InjectionTarget::AwsV4 {
                access_key_id: key("access_key_id"),
                secret_access_key: key("secret_access_key"),
                session_token: key("session_token"),
                region: region.clone(),
                service: service.clone(),
            }
        }
        RawTarget::AccessToken(source) => InjectionTarget::AccessToken(source.clone()),
    };
    Some(Injection {
        policy: policy.name.value.as_str().into(),
        provider,
        target,
    })
}

/// An AWS signature is for one region and service; hosts of AWS say which, others don't.
fn check_region(
    policy: &RawCredentialPolicy,
    hosts: &[&Spanned<HostPattern>],
    problems: &mut Problems<'_>,
) {
    let Some(RawTarget::AwsV4 {
        region,
        service,
        place,
        ..
    }) = &policy.target
    else {
        return;
    };
    let missing = match (region, service) {
        (Some(_), Some(_)) => return,
        (None, Some(_)) => "`spec.providerAuth.region` is",
        (Some(_), None) => "`spec.providerAuth.service` is",
        (None, None) => "`spec.providerAuth.region` and `spec.providerAuth.service` are",
    };
    let mut hosts = hosts.iter();
    if let Some(host) = hosts.find(|host| !says_its_region(&host.value)) {
        let help = format!(
            "host `{}` does not say it, as SERVICE.REGION.amazonaws.com would",
            host.value
        );
        problems
            .error(*place, format!("{missing} missing"))
            .help(help);
    }
}

fn says_its_region(pattern: &HostPattern) -> bool {
    // What stands before AWS's domain: empty, or ending in a dot.
    let before = |host: &Host| {
        let name = host.as_str();
        let name = name.strip_suffix(".cn").unwrap_or(name);
        let rest = name.strip_suffix("amazonaws.com").map(str::to_owned);
        rest.filter(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    match pattern {
        HostPattern::Exact(host) => before(host).is_some_and(|rest| rest.matches('.').count() > 1),
        // One label of two is left to the request.
        HostPattern::OneLabel(host) => before(host).is_some_and(|rest| !rest.is_empty()),
        HostPattern::Labels(host) => before(host).is_some(),
        HostPattern::Any => false,
    }
}

/// What a rule sets on the requests that it allows.
pub(super) fn of_proxy_rule(raw: &RawProxyRule) -> Vec<Injection> {
    let policy: Arc<str> = raw.name.value.as_str().into();
    let headers = raw.headers.iter();
    headers
        .map(|header| Injection {
            policy: policy.clone(),
            provider: None,
            target: InjectionTarget::Header {
                name: header.name.value.clone(),
                template: header.template.value.clone(),
            },
        })
        .collect()
}

/// A secret for whoever asks is none.
pub(super) fn check_any_host(raw: &RawProxyRule, problems: &mut Problems<'_>) {
    let uses_secret = raw
        .headers
        .iter()
        .any(|header| header.template.value.secret_refs().next().is_some());
    let any_host = raw.hosts.iter().find(|host| host.value == HostPattern::Any);
    if let (true, Some(host)) = (uses_secret, any_host) {
        report_any_host(host.place, &raw.name.value, problems);
    }
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
