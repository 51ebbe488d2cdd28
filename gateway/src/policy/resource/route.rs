//! `EgressL4Route` as written, and what all routes have in common.
//!
//! It refuses to know whether their gateways exist and what is injected on them.

use ipnet::IpNet;

use super::RawParent;
use super::leaf::{parse_cidr, read_hosts, read_port};
use super::read_gateways;
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::{HostPattern, PortRange, Protocol};

pub(in crate::policy) struct RawL4Route {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) rules: Vec<RawRule<RawL4Match>>,
}

/// One entry of `rules`; its position there (from 1) is its number in records.
pub(in crate::policy) struct RawRule<M, X = ()> {
    pub(in crate::policy) number: usize,
    pub(in crate::policy) matches: Vec<M>,
    /// What the rule has besides.
    pub(in crate::policy) extra: X,
}

pub(in crate::policy) struct RawL4Match {
    pub(in crate::policy) place: Place,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    pub(in crate::policy) cidrs: Vec<IpNet>,
    /// Empty for every port.
    pub(in crate::policy) ports: Vec<PortRange>,
    pub(in crate::policy) protocol: Protocol,
}

impl RawL4Route {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            parents: Vec::new(),
            rules: Vec::new(),
        };
        if let Some(mut spec) = spec {
            raw.parents = read_gateways(decoder, &mut spec);
            raw.rules = read_rules(decoder, &mut spec, read_l4_match, |_, _| ());
            spec.finish(decoder);
        }
        raw
    }
}

/// `rules[].matches[]`, and with `read_extra` what a rule has besides.
pub(super) fn read_rules<M, X>(
    decoder: &mut Decoder<'_, '_>,
    spec: &mut Fields<'_>,
    read_match: impl Fn(&mut Decoder<'_, '_>, &At<'_>) -> Option<M>,
    read_extra: impl Fn(&mut Decoder<'_, '_>, &mut Fields<'_>) -> X,
) -> Vec<RawRule<M, X>> {
    let mut rules = Vec::new();
    let Some(list) = spec.required(decoder, "rules") else {
        return rules;
    };
    for (index, item) in decoder.some_items(&list, "rule", None).iter().enumerate() {
        let Some(mut fields) = decoder.fields(item) else {
            continue;
        };
        let mut matches = Vec::new();
        // Elsewhere no match means every request; a rule that allows everything should say so.
        if let Some(list) = fields.required(decoder, "matches") {
            for item in decoder.some_items(&list, "match", None) {
                matches.extend(read_match(decoder, &item));
            }
        }
        let extra = read_extra(decoder, &mut fields);
        fields.finish(decoder);
        rules.push(RawRule {
            number: index + 1,
            matches,
            extra,
        });
    }
    rules
}

fn read_l4_match(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawL4Match> {
    let mut fields = decoder.fields(at)?;
    if fields.is_empty() {
        let message = format!("`{}` is empty, and matches every connection", at.path);
        decoder.problems.warning(fields.place, message).help(
            "name `destinationHostnames` or `destinationCIDRs`; a gateway that shall allow everything says so with `defaultPolicy: allow-all`",
        );
    }
    let mut cidrs = Vec::new();
    let blocks = fields.optional("destinationCIDRs");
    if let Some(list) = &blocks {
        const EXPECTED: &str = "an address block such as 192.0.2.0/24 or 2001:db8::/32";
        const OTHERWISE: &str = "then `destinationHostnames` alone say where";
        let items = decoder.some_items(list, "address block", Some(OTHERWISE));
        for cidr in decoder.parse_list(&items, EXPECTED, parse_cidr) {
            cidrs.push(cidr.value);
        }
    }
    let names = fields.optional("destinationHostnames");
    let otherwise = Some("then `destinationCIDRs` alone say where");
    let hosts = read_hosts(decoder, names.as_ref(), otherwise);
    let mut ports = Vec::new();
    if let Some(list) = fields.optional("ports") {
        for item in decoder.some_items(&list, "port", Some("then every port is meant")) {
            ports.extend(read_ports(decoder, &item));
        }
    }
    let mut protocol = Protocol::default();
    if let Some(written) = fields.optional("protocol") {
        let known = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp)];
        let chosen = decoder.choice(&written, &known);
        protocol = chosen.map_or(protocol, |chosen| chosen.value);
        if protocol == Protocol::Udp {
            check_udp(decoder, at, names.as_ref(), blocks.as_ref());
        }
    }
    fields.finish(decoder);
    Some(RawL4Match {
        place: decoder.place(at),
        hosts,
        cidrs,
        ports,
        protocol,
    })
}

/// A datagram names no host, and every address at once is what UDP must never have.
fn check_udp(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
    names: Option<&At<'_>>,
    blocks: Option<&At<'_>>,
) {
    let place = decoder.place(names.unwrap_or(at));
    if names.is_some() {
        decoder
            .problems
            .error(place, "protocol UDP is allowed by address, not by name")
            .expected("`destinationCIDRs` alone")
            .help(
                "a datagram names no host: make the names a match of their own, with protocol TCP",
            );
    } else if blocks.is_none() {
        decoder
            .problems
            .error(place, "protocol UDP without `destinationCIDRs`")
            .expected("the address blocks that datagrams may be sent to");
    }
}

/// `{port}` or `{startPort, endPort}`.
fn read_ports(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<PortRange> {
    const EXPECTED: &str = "`{port: 443}` or `{startPort: 8000, endPort: 8100}`";
    let mut fields = decoder.fields_such_as(at, EXPECTED)?;
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
