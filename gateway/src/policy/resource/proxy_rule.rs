//! `SandboxProxyRule` as written.
//!
//! It refuses to know whether its gateways and secrets exist.

use http::{HeaderName, Method};

use super::credential::HEADER_EXPECTED;
use super::leaf::{parse_header_name, read_methods, read_paths, read_single_port, read_some_hosts};
use super::{RawParent, read_gateways};
use crate::policy::decode::{Decoder, Fields};
use crate::policy::problems::Spanned;
use crate::policy::{HTTPS_PORT, HostPattern, PathPattern, PortRange, Template};

pub(in crate::policy) struct RawProxyRule {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    pub(in crate::policy) ports: Vec<PortRange>,
    /// The ports are written, not the default.
    pub(in crate::policy) explicit_ports: bool,
    pub(in crate::policy) methods: Vec<Spanned<Method>>,
    pub(in crate::policy) paths: Vec<PathPattern>,
    pub(in crate::policy) headers: Vec<RawProxyHeader>,
}

pub(in crate::policy) struct RawProxyHeader {
    pub(in crate::policy) name: Spanned<HeaderName>,
    pub(in crate::policy) template: Spanned<Template>,
}

impl RawProxyRule {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            parents: Vec::new(),
            hosts: Vec::new(),
            ports: Vec::new(),
            explicit_ports: false,
            methods: Vec::new(),
            paths: Vec::new(),
            headers: Vec::new(),
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        raw.parents = read_gateways(decoder, &mut spec);
        raw.hosts = read_some_hosts(decoder, &mut spec, "hosts");
        if let Some(ports) = spec.optional("ports") {
            for item in decoder.some_items(&ports, "port", Some("then it is 443")) {
                raw.ports.extend(read_single_port(decoder, &item));
            }
            raw.explicit_ports = true;
        } else {
            raw.ports.extend(PortRange::single(HTTPS_PORT));
        }
        let methods = spec.optional("methods");
        raw.methods = read_methods(decoder, methods.as_ref());
        let paths = spec.optional("paths");
        let paths = read_paths(decoder, paths.as_ref());
        raw.paths = paths.into_iter().map(|path| path.value).collect();
        raw.headers = read_headers(decoder, &mut spec);
        spec.finish(decoder);
        raw
    }
}

fn read_headers(decoder: &mut Decoder<'_, '_>, spec: &mut Fields<'_>) -> Vec<RawProxyHeader> {
    let mut headers: Vec<RawProxyHeader> = Vec::new();
    let Some(map) = spec.optional("headers") else {
        return headers;
    };
    for (key, value) in decoder.entries(&map) {
        let place = key.place;
        let name = match parse_header_name(key.value) {
            Ok(value) => Some(Spanned { value, place }),
            Err(error) => {
                let shown = decoder.shown(key.value);
                decoder
                    .problems
                    .error(place, format!("`{}` has {shown}: {error}", map.path))
                    .expected(HEADER_EXPECTED);
                None
            }
        };
        const EXPECTED: &str =
            "text around `{{ secret-name.key }}` or `{{ base64 name.user ':' name.password }}`";
        let template = decoder.parse(&value, EXPECTED, Template::of_rule);
        let (Some(name), Some(template)) = (name, template) else {
            continue;
        };
        if headers.iter().any(|known| known.name.value == name.value) {
            let message = format!("header `{}` is set twice", name.value);
            decoder
                .problems
                .error(place, message)
                .help("the case of a header's name makes no difference");
            continue;
        }
        headers.push(RawProxyHeader { name, template });
    }
    headers
}
