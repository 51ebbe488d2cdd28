//! `CredentialInjectionPolicy` and `SandboxProxyRule` as written.
//!
//! It refuses to know the routes and the secrets that they name.

use http::{HeaderName, Method};

use super::gateway::read_secret_key;
use super::leaf::{parse_header_name, read_hosts, read_methods, read_paths, read_single_port};
use super::{RawParent, read_gateways, read_name, read_parents};
use crate::policy::decode::{Decoder, Fields};
use crate::policy::problems::Spanned;
use crate::policy::{HTTPS_PORT, HostPattern, PathPattern, PortRange, SecretRef, Template};

/// The key of a secret that holds its value, unless a policy says otherwise.
const DEFAULT_SECRET_KEY: &str = "token";

pub(in crate::policy) struct RawCredentialPolicy {
    pub(in crate::policy) name: Spanned<String>,
    /// The `AIProviderRoute`s.
    pub(in crate::policy) parents: Vec<RawParent>,
    /// `None` if it could not be read.
    pub(in crate::policy) secret: Option<SecretRef>,
    /// `None` for the provider's own.
    pub(in crate::policy) header: Option<Spanned<HeaderName>>,
    /// `None` for the provider's own.
    pub(in crate::policy) template: Option<Spanned<Template>>,
}

pub(in crate::policy) struct RawProxyRule {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    pub(in crate::policy) ports: Vec<PortRange>,
    /// The ports are written, not the default.
    pub(in crate::policy) explicit_ports: bool,
    pub(in crate::policy) methods: Vec<Method>,
    pub(in crate::policy) paths: Vec<PathPattern>,
    pub(in crate::policy) headers: Vec<RawProxyHeader>,
}

pub(in crate::policy) struct RawProxyHeader {
    pub(in crate::policy) name: Spanned<HeaderName>,
    pub(in crate::policy) template: Template,
}

impl RawCredentialPolicy {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            parents: Vec::new(),
            secret: None,
            header: None,
            template: None,
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        raw.parents = read_routes(decoder, &mut spec);
        let secret = spec.required(decoder, "secretRef").and_then(|secret| {
            let mut fields = decoder.fields(&secret)?;
            let name = fields.required(decoder, "name");
            fields.finish(decoder);
            read_name(decoder, &name?)
        });
        let key = match spec.optional("secretKey") {
            Some(key) => read_secret_key(decoder, &key).map(|key| key.value),
            None => Some(DEFAULT_SECRET_KEY.to_owned()),
        };
        if let (Some(secret), Some(key)) = (secret, key) {
            raw.secret = Some(SecretRef {
                name: secret.value.into(),
                key: key.into(),
            });
        }
        if let Some(target) = spec.optional("target") {
            decoder.choice(&target, &[("Header", ())], &["QueryParam", "ProviderAuth"]);
        }
        raw.header = spec
            .optional("headerName")
            .and_then(|header| decoder.parse(&header, HEADER_EXPECTED, parse_header_name));
        if let Some(template) = spec.optional("valueTemplate") {
            const EXPECTED: &str =
                "text around `{{ value }}` or `{{ base64 user ':' value }}`, keys of the secret";
            // Whatever the secret is called, the template can be judged.
            let secret = raw.secret.clone().unwrap_or_else(|| SecretRef {
                name: "unknown".into(),
                key: DEFAULT_SECRET_KEY.into(),
            });
            raw.template = decoder.parse(&template, EXPECTED, |text| {
                Template::of_policy(text, &secret)
            });
            if let Some(Spanned { value, place }) = &raw.template
                && value.secret_refs().next().is_none()
            {
                let message = format!("`{}` never uses the secret", template.path);
                decoder.problems.error(*place, message).expected(EXPECTED);
            }
        }
        spec.later(decoder, &["queryParamName", "providerAuth"]);
        spec.finish(decoder);
        raw
    }
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
        if let Some(hosts) = spec.required(decoder, "hosts") {
            decoder.some_items(&hosts, "host");
            raw.hosts = read_hosts(decoder, Some(&hosts));
        }
        if let Some(ports) = spec.optional("ports") {
            for item in decoder.some_items(&ports, "port") {
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

const HEADER_EXPECTED: &str = "the name of a request header";

/// `parentRefs`, or `targetRefs`, which is another name for it.
fn read_routes(decoder: &mut Decoder<'_, '_>, spec: &mut Fields<'_>) -> Vec<RawParent> {
    let (parents, targets) = (spec.optional("parentRefs"), spec.optional("targetRefs"));
    if let (Some(_), Some(targets)) = (&parents, &targets) {
        let place = decoder.place(targets);
        decoder
            .problems
            .error(place, "both `spec.parentRefs` and `spec.targetRefs`")
            .help("they mean the same: keep one");
    }
    match parents.or(targets) {
        Some(routes) => read_parents(
            decoder,
            &routes,
            "AIProviderRoute",
            &["EgressHTTPRoute"],
            false,
        ),
        None => {
            decoder
                .problems
                .error(spec.place, "`spec.parentRefs` is missing");
            Vec::new()
        }
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
        const EXPECTED: &str = "text around `{{ secret-name.key }}`";
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
        headers.push(RawProxyHeader {
            name,
            template: template.value,
        });
    }
    headers
}
