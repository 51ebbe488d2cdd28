//! `EgressGateway` as written.
//!
//! It refuses to know routes. A gateway refers to nothing but secrets, so its settings are final here;
//! only what can clash keeps its place.

use std::net::IpAddr;
use std::time::Duration;

use super::super::gateway::DEFAULT_TIMEOUT;
use super::leaf::{
    parse_dns_upstream, parse_endpoint, parse_header_name, parse_header_value, parse_media_type,
    read_duration, read_port,
};
use super::read_name;
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::template::is_secret_key;
use crate::policy::{
    CaptureBody, Class, DefaultPolicy, Dns, Host, HostAlias, Limits, Listener, LookupFamily, Otlp,
    OtlpProtocol, SecretRef, TlsMode, UpstreamTls,
};

/// The most bytes of a body that may be captured: an exported event has to stay below the 4 MiB that
/// collectors take by default, base64 and both directions included.
const MAX_CAPTURE_BYTES: usize = 1024 * 1024;

/// The bodies that are worth reading in a trace.
const CAPTURED_CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "text/event-stream",
];

pub(in crate::policy) struct RawGateway {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) default: DefaultPolicy,
    pub(in crate::policy) listeners: Vec<RawListener>,
    /// Some listener could not be read: what seems to be missing may be that one.
    pub(in crate::policy) listeners_incomplete: bool,
    pub(in crate::policy) otlp: Option<Otlp>,
    pub(in crate::policy) upstream_tls: UpstreamTls,
    pub(in crate::policy) dns: Dns,
    pub(in crate::policy) request_timeout: Duration,
    pub(in crate::policy) limits: Limits,
    /// The secrets that the gateway itself needs.
    pub(in crate::policy) secrets: Vec<Spanned<SecretRef>>,
}

pub(in crate::policy) struct RawListener {
    pub(in crate::policy) listener: Listener,
    pub(in crate::policy) place: Place,
}

impl RawGateway {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            default: DefaultPolicy::default(),
            listeners: Vec::new(),
            listeners_incomplete: false,
            otlp: None,
            upstream_tls: UpstreamTls::default(),
            dns: Dns::default(),
            request_timeout: DEFAULT_TIMEOUT,
            limits: Limits::default(),
            secrets: Vec::new(),
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        if let Some(default) = spec.optional("defaultPolicy") {
            let known = [
                ("deny-all", DefaultPolicy::DenyAll),
                ("allow-all", DefaultPolicy::AllowAll),
            ];
            let default = decoder.choice(&default, &known);
            raw.default = default.map_or(raw.default, |default| default.value);
        }
        if let Some(listeners) = spec.optional("listeners") {
            // None is what it says: a class of traffic without a listener is denied.
            let items = decoder.items(&listeners);
            let listeners = items.iter().filter_map(|item| read_listener(decoder, item));
            raw.listeners = listeners.collect();
            raw.listeners_incomplete = raw.listeners.len() < items.len();
        }
        if let Some(otlp) = spec.optional("otlp") {
            raw.otlp = read_otlp(decoder, &otlp);
        }
        if let Some(tls) = spec.optional("upstreamTLS") {
            let tls = read_upstream_tls(decoder, &tls, &mut raw.secrets);
            raw.upstream_tls = tls.unwrap_or_default();
        }
        if let Some(dns) = spec.optional("dns") {
            raw.dns = read_dns(decoder, &dns).unwrap_or_default();
        }
        let timeout = spec.optional("requestTimeout");
        if let Some(timeout) = read_duration(decoder, timeout.as_ref()) {
            raw.request_timeout = timeout;
        }
        if let Some(limits) = spec.optional("limits") {
            raw.limits = read_limits(decoder, &limits).unwrap_or_default();
        }
        spec.finish(decoder);
        raw
    }
}

fn read_listener(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawListener> {
    let mut fields = decoder.fields(at)?;
    let name = fields.required(decoder, "name");
    let name = name.and_then(|name| read_name(decoder, &name));
    let class = fields.required(decoder, "protocol").and_then(|protocol| {
        let known = [
            ("TLS", Class::Tls),
            ("HTTP", Class::Http),
            ("TCP", Class::Tcp),
        ];
        decoder.choice(&protocol, &known)
    });
    let port = fields
        .optional("port")
        .and_then(|port| read_port(decoder, &port));
    let mut tls_mode = TlsMode::Passthrough;
    if let Some(tls) = fields.optional("tls") {
        if class
            .as_ref()
            .is_some_and(|class| class.value != Class::Tls)
        {
            let place = decoder.place(&tls);
            decoder
                .problems
                .error(place, format!("`{}` without protocol TLS", tls.path))
                .help("leave it out, or make the listener's protocol TLS");
        }
        if let Some(mut fields) = decoder.fields(&tls) {
            let mode = fields.optional("mode").and_then(|mode| {
                let known = [
                    ("Terminate", TlsMode::Terminate),
                    ("Passthrough", TlsMode::Passthrough),
                ];
                decoder.choice(&mode, &known)
            });
            tls_mode = mode.map_or(tls_mode, |mode| mode.value);
            fields.finish(decoder);
        }
    }
    fields.finish(decoder);
    let name = name?;
    Some(RawListener {
        place: name.place,
        listener: Listener {
            name: name.value.into(),
            class: class?.value,
            port,
            tls_mode,
        },
    })
}

fn read_otlp(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Otlp> {
    let mut fields = decoder.fields(at)?;
    let endpoint = fields.optional("endpoint").and_then(|endpoint| {
        const EXPECTED: &str = "a URL such as http://127.0.0.1:4318";
        decoder.parse(&endpoint, EXPECTED, parse_endpoint)
    });
    let mut protocol = OtlpProtocol::default();
    if let Some(written) = fields.optional("protocol") {
        let known = [
            ("http/protobuf", OtlpProtocol::HttpProtobuf),
            ("grpc", OtlpProtocol::Grpc),
        ];
        let chosen = decoder.choice(&written, &known);
        protocol = chosen.map_or(protocol, |chosen| chosen.value);
    }
    let mut headers = Vec::new();
    if let Some(map) = fields.optional("headers") {
        for (key, value) in decoder.entries(&map) {
            let name = parse_header_name(key.value);
            let value = decoder.parse(&value, "visible ASCII characters", parse_header_value);
            match (name, value) {
                (Ok(name), Some(value)) => headers.push((name, value.value)),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    let shown = decoder.shown(key.value);
                    let message = format!("`{}` has {shown}: {error}", map.path);
                    decoder
                        .problems
                        .error(key.place, message)
                        .expected("a header that a request may carry");
                }
            }
        }
    }
    let capture_body = fields
        .optional("captureBody")
        .and_then(|capture| read_capture(decoder, &capture));
    fields.finish(decoder);
    Some(Otlp {
        endpoint: endpoint.map(|endpoint| endpoint.value.into()),
        protocol,
        headers,
        capture_body,
    })
}

fn read_capture(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<CaptureBody> {
    let mut fields = decoder.fields(at)?;
    let max_bytes = fields
        .required(decoder, "maxBytes")
        .and_then(|bytes| decoder.integer(&bytes, 0, MAX_CAPTURE_BYTES));
    let include_content_types = match fields.optional("includeContentTypes") {
        Some(types) => {
            const EXPECTED: &str = "a media type such as application/json";
            const OTHERWISE: &str = "then JSON and event streams are captured";
            let items = decoder.some_items(&types, "media type", Some(OTHERWISE));
            let types = decoder.parse_list(&items, EXPECTED, parse_media_type);
            types.into_iter().map(|found| found.value).collect()
        }
        None => CAPTURED_CONTENT_TYPES
            .iter()
            .map(|media_type| (*media_type).to_owned())
            .collect(),
    };
    fields.finish(decoder);
    Some(CaptureBody {
        max_bytes: max_bytes?.value,
        include_content_types,
    })
}

fn read_upstream_tls(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
    secrets: &mut Vec<Spanned<SecretRef>>,
) -> Option<UpstreamTls> {
    let mut fields = decoder.fields(at)?;
    let mut tls = UpstreamTls::default();
    if let Some(bundle) = fields.optional("additionalTrustBundleSecretRef") {
        let bundle = read_secret_ref(decoder, &bundle);
        tls.trust_bundle = bundle.as_ref().map(|bundle| bundle.value.clone());
        secrets.extend(bundle);
    }
    if let Some(aliases) = fields.optional("hostAliases") {
        for item in decoder.some_items(&aliases, "alias", Some("then every name is looked up")) {
            tls.host_aliases.extend(read_alias(decoder, &item));
        }
    }
    if let Some(certificate) = fields.optional("clientCertSecretRef")
        && let Some(name) = read_secret_name(decoder, &certificate)
    {
        tls.client_cert = Some(name.value.into());
        let place = name.place;
        let needed = tls.client_cert_refs().into_iter().flatten();
        secrets.extend(needed.map(|value| Spanned { value, place }));
    }
    fields.finish(decoder);
    Some(tls)
}

fn read_secret_ref(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Spanned<SecretRef>> {
    let mut fields = decoder.fields(at)?;
    let name = fields.required(decoder, "name");
    let name = name.and_then(|name| read_name(decoder, &name));
    let key = fields.required(decoder, "key");
    let key = key.and_then(|key| read_secret_key(decoder, &key));
    fields.finish(decoder);
    let name = name?;
    Some(Spanned {
        place: name.place,
        value: SecretRef {
            name: name.value.into(),
            key: key?.value.into(),
        },
    })
}

/// `{name}`, a secret whose keys go without saying.
pub(super) fn read_secret_name(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
) -> Option<Spanned<String>> {
    let mut fields = decoder.fields(at)?;
    let name = fields.required(decoder, "name");
    fields.finish(decoder);
    read_name(decoder, &name?)
}

/// The key of a value in a secret.
pub(super) fn read_secret_key(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
) -> Option<Spanned<String>> {
    const EXPECTED: &str = "letters, digits, `-`, `_` and `.`";
    decoder.parse(at, EXPECTED, |text| {
        if is_secret_key(text) {
            Ok(text.to_owned())
        } else {
            Err("not a valid key")
        }
    })
}

fn read_alias(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<HostAlias> {
    let mut fields = decoder.fields(at)?;
    let ip = fields
        .required(decoder, "ip")
        .and_then(|ip| decoder.parse(&ip, "an IPv4 or IPv6 address", str::parse::<IpAddr>));
    let mut hosts = Vec::new();
    if let Some(names) = fields.required(decoder, "hostnames") {
        for item in decoder.some_items(&names, "host name", None) {
            let host = decoder.parse(&item, "an exact host name", Host::parse);
            hosts.extend(host.map(|host| host.value));
        }
    }
    fields.finish(decoder);
    Some(HostAlias {
        ip: ip?.value,
        hosts,
    })
}

fn read_dns(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Dns> {
    let mut fields = decoder.fields(at)?;
    let family = fields.optional("lookupFamily").and_then(|family| {
        let known = [
            ("V4Preferred", LookupFamily::V4Preferred),
            ("V4Only", LookupFamily::V4Only),
            ("V6Only", LookupFamily::V6Only),
            ("Auto", LookupFamily::Auto),
            ("All", LookupFamily::All),
        ];
        decoder.choice(&family, &known)
    });
    let mut upstreams = Vec::new();
    if let Some(list) = fields.optional("upstreams") {
        const EXPECTED: &str =
            "udp://ADDRESS, tcp://ADDRESS or tls://ADDRESS, with or without :PORT";
        for item in decoder.some_items(&list, "server", Some("then the host's resolver is asked")) {
            let Some(upstream) = decoder.parse(&item, EXPECTED, parse_dns_upstream) else {
                continue;
            };
            upstreams.push(upstream.value);
        }
    }
    fields.finish(decoder);
    Some(Dns {
        lookup_family: family.map_or_else(LookupFamily::default, |family| family.value),
        upstreams,
    })
}

fn read_limits(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Limits> {
    let mut fields = decoder.fields(at)?;
    let mut limits = Limits::default();
    if let Some(connections) = fields
        .optional("maxConnectionsPerSandbox")
        .and_then(|connections| decoder.integer(&connections, 1, 1_000_000))
    {
        limits.max_connections_per_sandbox = connections.value;
    }
    // Below 8 KiB ordinary requests fail (RFC 9110 section 4.1 wants 8000 octets for the target alone).
    if let Some(bytes) = fields
        .optional("maxRequestHeaderBytes")
        .and_then(|bytes| decoder.integer(&bytes, 8192, 1_048_576))
    {
        limits.max_request_header_bytes = bytes.value;
    }
    let idle = fields.optional("idleTimeout");
    if let Some(idle) = read_duration(decoder, idle.as_ref()) {
        limits.idle_timeout = idle;
    }
    fields.finish(decoder);
    Some(limits)
}
