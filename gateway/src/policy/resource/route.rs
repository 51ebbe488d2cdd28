//! `EgressL4Route` and `AIProviderRoute` as written.
//!
//! It refuses to know whether their gateways exist and what is injected on them.

use ipnet::IpNet;

use super::leaf::{parse_cidr, read_hosts, read_paths, read_port};
use super::{RawParent, read_gateways};
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::{HostPattern, PathPattern, PortRange, Provider};

pub(in crate::policy) struct RawL4Route {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) rules: Vec<RawRule<RawL4Match>>,
}

pub(in crate::policy) struct RawAiRoute {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) rules: Vec<RawRule<RawAiMatch>>,
}

/// One entry of `rules`; its position there (from 1) is its number in records.
pub(in crate::policy) struct RawRule<M> {
    pub(in crate::policy) number: usize,
    pub(in crate::policy) matches: Vec<M>,
}

pub(in crate::policy) struct RawL4Match {
    pub(in crate::policy) place: Place,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    pub(in crate::policy) cidrs: Vec<IpNet>,
    /// Empty for every port.
    pub(in crate::policy) ports: Vec<PortRange>,
}

pub(in crate::policy) struct RawAiMatch {
    pub(in crate::policy) provider: Provider,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    /// Empty for every path.
    pub(in crate::policy) endpoints: Vec<PathPattern>,
}

impl RawL4Route {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let (parents, rules) = read_spec(decoder, spec, &[], read_l4_match);
        Self {
            name,
            parents,
            rules,
        }
    }
}

impl RawAiRoute {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let (parents, rules) = read_spec(decoder, spec, &["filters"], read_ai_match);
        Self {
            name,
            parents,
            rules,
        }
    }
}

/// `parentRefs` and `rules[].matches[]`, which both kinds share.
fn read_spec<M>(
    decoder: &mut Decoder<'_, '_>,
    spec: Option<Fields<'_>>,
    later: &[&'static str],
    read_match: impl Fn(&mut Decoder<'_, '_>, &At<'_>) -> Option<M>,
) -> (Vec<RawParent>, Vec<RawRule<M>>) {
    let Some(mut spec) = spec else {
        return (Vec::new(), Vec::new());
    };
    let parents = read_gateways(decoder, &mut spec);
    let mut rules = Vec::new();
    if let Some(list) = spec.required(decoder, "rules") {
        for (index, item) in decoder.some_items(&list, "rule").iter().enumerate() {
            let Some(mut fields) = decoder.fields(item) else {
                continue;
            };
            let mut matches = Vec::new();
            // Elsewhere no match means every request; a rule that allows everything should say so.
            if let Some(list) = fields.required(decoder, "matches") {
                for item in decoder.some_items(&list, "match") {
                    matches.extend(read_match(decoder, &item));
                }
            }
            fields.later(decoder, later);
            fields.finish(decoder);
            rules.push(RawRule {
                number: index + 1,
                matches,
            });
        }
    }
    spec.finish(decoder);
    (parents, rules)
}

fn read_l4_match(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawL4Match> {
    let mut fields = decoder.fields(at)?;
    let mut cidrs = Vec::new();
    if let Some(list) = fields.optional("destinationCIDRs") {
        const EXPECTED: &str = "an address block such as 192.0.2.0/24 or 2001:db8::/32";
        for cidr in decoder.parse_list(&list, EXPECTED, parse_cidr) {
            cidrs.push(cidr.value);
        }
    }
    let hosts = fields.optional("destinationHostnames");
    let hosts = read_hosts(decoder, hosts.as_ref());
    let mut ports = Vec::new();
    if let Some(list) = fields.optional("ports") {
        for item in decoder.items(&list) {
            ports.extend(read_ports(decoder, &item));
        }
    }
    if let Some(protocol) = fields.optional("protocol") {
        decoder.choice(&protocol, &[("TCP", ())], &["UDP"]);
    }
    fields.finish(decoder);
    Some(RawL4Match {
        place: decoder.place(at),
        hosts,
        cidrs,
        ports,
    })
}

/// `{port}` or `{startPort, endPort}`.
fn read_ports(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<PortRange> {
    let mut fields = decoder.fields(at)?;
    let single = fields.optional("port");
    let start = fields.optional("startPort");
    let end = fields.optional("endPort");
    fields.finish(decoder);
    let place = decoder.place(at);
    match (single, start, end) {
        (Some(port), None, None) => {
            let port = read_port(decoder, &port)?;
            PortRange::single(port)
        }
        (None, Some(start), Some(end)) => {
            let start = read_port(decoder, &start);
            let end = read_port(decoder, &end);
            let (start, end) = (start?, end?);
            let range = PortRange::new(start, end);
            if range.is_none() {
                decoder
                    .problems
                    .error(place, format!("`{}` ends before it starts", at.path))
                    .expected(format!("endPort to be at least {start}"));
            }
            range
        }
        _ => {
            decoder
                .problems
                .error(place, format!("`{}` is not a port or a range", at.path))
                .expected("either `port`, or both `startPort` and `endPort`");
            None
        }
    }
}

fn read_ai_match(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawAiMatch> {
    let mut fields = decoder.fields(at)?;
    let provider = fields
        .required(decoder, "provider")
        .and_then(|provider| decoder.choice(&provider, Provider::NAMES, &[]));
    let endpoints = fields.optional("endpoints");
    let endpoints = read_paths(decoder, endpoints.as_ref());
    let list = fields.optional("hosts");
    let mut hosts = read_hosts(decoder, list.as_ref());
    fields.later(decoder, &["models"]);
    fields.finish(decoder);
    let Spanned {
        value: provider,
        place,
    } = provider?;
    let written = list.is_some_and(|list| !decoder.items(&list).is_empty());
    if !written {
        let defaults = provider.default_hosts();
        if defaults.is_empty() {
            decoder
                .problems
                .error(place, "this provider has no hosts of its own")
                .help("name them: `hosts: [api.example.com]`");
        }
        hosts.extend(defaults.iter().filter_map(|host| {
            let value = HostPattern::parse(host).ok()?;
            Some(Spanned { value, place })
        }));
    }
    Some(RawAiMatch {
        provider,
        hosts,
        endpoints: endpoints.into_iter().map(|path| path.value).collect(),
    })
}
