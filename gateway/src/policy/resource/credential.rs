//! `CredentialInjectionPolicy` as written.
//!
//! It refuses to know the routes and the secrets that it names.

use std::sync::Arc;

use http::HeaderName;

use super::gateway::{read_secret_key, read_secret_name};
use super::leaf::parse_header_name;
use super::{ParentKind, RawParent, provider_auth, read_parents};
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::template::is_header_text;
use crate::policy::{SecretRef, Template, TokenSource};

/// The key of a secret that holds its value, unless a policy says otherwise.
const DEFAULT_SECRET_KEY: &str = "token";
/// What a header is expected to be called.
pub(super) const HEADER_EXPECTED: &str = "the name of a request header";

pub(in crate::policy) struct RawCredentialPolicy {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    /// `None` if it could not be read.
    pub(in crate::policy) target: Option<RawTarget>,
    /// The values that must be there.
    pub(in crate::policy) secrets: Vec<Spanned<SecretRef>>,
}

/// Where the credential goes.
pub(in crate::policy) enum RawTarget {
    Header {
        secret: SecretRef,
        /// `None` for the provider's own.
        name: Option<HeaderName>,
        /// `None` for the provider's own.
        template: Option<Template>,
    },
    QueryParam {
        name: Arc<str>,
        template: Template,
    },
    AwsV4 {
        secret: Arc<str>,
        region: Option<Arc<str>>,
        service: Option<Arc<str>>,
        /// To blame for what is missing there.
        place: Place,
    },
    AccessToken(TokenSource),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetKind {
    Header,
    QueryParam,
    ProviderAuth,
}

/// The fields whose meaning depends on the target.
pub(super) struct Parts<'n> {
    pub(super) secret: Option<Spanned<String>>,
    pub(super) key: Option<At<'n>>,
    header: Option<At<'n>>,
    template: Option<At<'n>>,
    query: Option<At<'n>>,
    auth: Option<At<'n>>,
    place: Place,
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
            target: None,
            secrets: Vec::new(),
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        raw.parents = read_routes(decoder, &mut spec);
        let secret = spec.required(decoder, "secretRef");
        let known = [
            ("Header", TargetKind::Header),
            ("QueryParam", TargetKind::QueryParam),
            ("ProviderAuth", TargetKind::ProviderAuth),
        ];
        let written = spec.optional("target");
        let kind = match &written {
            Some(target) => decoder.choice(target, &known).map(|kind| kind.value),
            None => Some(TargetKind::Header),
        };
        let parts = Parts {
            secret: secret.and_then(|secret| read_secret_name(decoder, &secret)),
            key: spec.optional("secretKey"),
            header: spec.optional("headerName"),
            template: spec.optional("valueTemplate"),
            query: spec.optional("queryParamName"),
            auth: spec.optional("providerAuth"),
            place: spec.place,
        };
        raw.target = kind.and_then(|kind| match kind {
            TargetKind::Header => read_header(decoder, &parts),
            TargetKind::QueryParam => read_query(decoder, &parts),
            TargetKind::ProviderAuth => read_auth(decoder, &parts),
        });
        spec.finish(decoder);
        if let (Some(target), Some(secret)) = (&raw.target, &parts.secret) {
            let place = secret.place;
            let needed = target.secret_refs().into_iter();
            raw.secrets = needed.map(|value| Spanned { value, place }).collect();
        }
        raw
    }
}

impl RawTarget {
    fn secret_refs(&self) -> Vec<SecretRef> {
        let distinct = |template: &Template| {
            let mut refs: Vec<SecretRef> = template.secret_refs().cloned().collect();
            refs.sort();
            refs.dedup();
            refs
        };
        match self {
            Self::Header {
                secret,
                template: None,
                ..
            } => vec![secret.clone()],
            Self::Header {
                template: Some(template),
                ..
            }
            | Self::QueryParam { template, .. } => distinct(template),
            Self::AwsV4 { secret, .. } => ["access_key_id", "secret_access_key"]
                .map(|key| SecretRef {
                    name: secret.clone(),
                    key: key.into(),
                })
                .into(),
            Self::AccessToken(source) => source.secret_refs().into_iter().cloned().collect(),
        }
    }
}

fn read_header(decoder: &mut Decoder<'_, '_>, parts: &Parts<'_>) -> Option<RawTarget> {
    decoder.refuse(parts.query.as_ref(), "without `target: QueryParam`");
    decoder.refuse(parts.auth.as_ref(), "without `target: ProviderAuth`");
    let name = parts.header.as_ref();
    let name = name.map(|name| decoder.parse(name, HEADER_EXPECTED, parse_header_name));
    let secret = read_secret(decoder, parts);
    let template = read_template(decoder, parts, secret.as_ref());
    Some(RawTarget::Header {
        secret: secret?,
        name: name.flatten().map(|name| name.value),
        template,
    })
}

fn read_query(decoder: &mut Decoder<'_, '_>, parts: &Parts<'_>) -> Option<RawTarget> {
    decoder.refuse(parts.header.as_ref(), "with `target: QueryParam`");
    decoder.refuse(parts.auth.as_ref(), "with `target: QueryParam`");
    let name = match &parts.query {
        Some(name) => decoder.parse(name, "the name of a query parameter", |text| {
            if text.is_empty() || !is_header_text(text) {
                Err("not visible ASCII")
            } else {
                Ok(text.to_owned())
            }
        }),
        None => {
            decoder
                .problems
                .error(parts.place, "`spec.queryParamName` is missing")
                .help("name the parameter that carries the credential");
            None
        }
    };
    let secret = read_secret(decoder, parts);
    let template = read_template(decoder, parts, secret.as_ref());
    let secret = secret?;
    // The default template is a template.
    let template = template.or_else(|| Template::of_policy("{{ value }}", &secret).ok())?;
    Some(RawTarget::QueryParam {
        name: name?.value.into(),
        template,
    })
}

fn read_auth(decoder: &mut Decoder<'_, '_>, parts: &Parts<'_>) -> Option<RawTarget> {
    for part in [&parts.header, &parts.template, &parts.query] {
        decoder.refuse(part.as_ref(), "with `target: ProviderAuth`");
    }
    let Some(auth) = &parts.auth else {
        decoder
            .problems
            .error(parts.place, "`spec.providerAuth` is missing")
            .help(format!(
                "say which, as in `providerAuth: {{type: AWSv4}}`; known types: {}",
                provider_auth::names().join(", ")
            ));
        return None;
    };
    provider_auth::read(decoder, auth, parts)
}

/// The secret's value that the policy names, or the default one.
pub(super) fn read_secret(decoder: &mut Decoder<'_, '_>, parts: &Parts<'_>) -> Option<SecretRef> {
    let key = match &parts.key {
        Some(key) => read_secret_key(decoder, key).map(|key| key.value),
        None => Some(DEFAULT_SECRET_KEY.to_owned()),
    };
    Some(SecretRef {
        name: parts.secret.as_ref()?.value.as_str().into(),
        key: key?.into(),
    })
}

fn read_template(
    decoder: &mut Decoder<'_, '_>,
    parts: &Parts<'_>,
    secret: Option<&SecretRef>,
) -> Option<Template> {
    const EXPECTED: &str =
        "text around `{{ value }}` or `{{ base64 user ':' value }}`, keys of the secret";
    let at = parts.template.as_ref()?;
    // Whatever the secret is called, the template can be judged.
    let secret = secret.cloned().unwrap_or_else(|| SecretRef {
        name: "unknown".into(),
        key: DEFAULT_SECRET_KEY.into(),
    });
    let template = decoder.parse(at, EXPECTED, |text| Template::of_policy(text, &secret))?;
    if template.value.secret_refs().next().is_none() {
        let message = format!("`{}` never uses the secret", at.path);
        decoder
            .problems
            .error(template.place, message)
            .expected(EXPECTED);
    }
    Some(template.value)
}

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
        Some(routes) => {
            let kinds = [ParentKind::AiRoute, ParentKind::HttpRoute];
            read_parents(decoder, &routes, &kinds, false)
        }
        None => {
            decoder
                .problems
                .error(spec.place, "`spec.parentRefs` is missing");
            Vec::new()
        }
    }
}
