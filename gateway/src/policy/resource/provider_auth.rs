//! `providerAuth` of a `CredentialInjectionPolicy` as written: credentials that are signed with, or exchanged for tokens.
//!
//! It refuses to know the targets that put a value somewhere as it is.

use std::sync::Arc;

use super::credential::{Parts, RawTarget, read_secret};
use crate::policy::decode::{At, Decoder};
use crate::policy::problems::Place;
use crate::policy::{ClientAuthMethod, OAuth2Client, SecretRef, TokenSource, TokenUrl};

/// What an access token may do unless a policy narrows it: every API that the account itself may use (Google Cloud's
/// own default for service accounts).
const DEFAULT_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    AwsV4,
    GcpServiceAccount,
    OAuth2ClientCredentials,
}

const KINDS: [(&str, Kind); 3] = [
    ("AWSv4", Kind::AwsV4),
    ("GCPServiceAccount", Kind::GcpServiceAccount),
    ("OAuth2ClientCredentials", Kind::OAuth2ClientCredentials),
];
const METHODS: [(&str, ClientAuthMethod); 2] = [
    ("ClientSecretBasic", ClientAuthMethod::Basic),
    ("ClientSecretPost", ClientAuthMethod::Post),
];

/// The fields whose meaning depends on the type.
struct Settings<'n> {
    region: Option<At<'n>>,
    service: Option<At<'n>>,
    scopes: Option<At<'n>>,
    token_url: Option<At<'n>>,
    audience: Option<At<'n>>,
    resource: Option<At<'n>>,
    method: Option<At<'n>>,
    place: Place,
}

/// The types that there are, as policies write them.
pub(in crate::policy) fn names() -> [&'static str; 3] {
    KINDS.map(|(name, _)| name)
}

/// The ways in which a client proves itself, as policies write them.
pub(in crate::policy) fn methods() -> [&'static str; 2] {
    METHODS.map(|(name, _)| name)
}

pub(super) fn read(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
    parts: &Parts<'_>,
) -> Option<RawTarget> {
    let mut fields = decoder.fields(at)?;
    let written = fields.required(decoder, "type");
    let kind = written
        .as_ref()
        .and_then(|kind| decoder.choice(kind, &KINDS))?;
    let settings = Settings {
        region: fields.optional("region"),
        service: fields.optional("service"),
        scopes: fields.optional("scopes"),
        token_url: fields.optional("tokenUrl"),
        audience: fields.optional("audience"),
        resource: fields.optional("resource"),
        method: fields.optional("authMethod"),
        place: kind.place,
    };
    fields.finish(decoder);
    settings.refuse_foreign(decoder, kind.value);
    match kind.value {
        Kind::AwsV4 => read_aws(decoder, &settings, parts),
        Kind::GcpServiceAccount => read_google(decoder, &settings, parts),
        Kind::OAuth2ClientCredentials => read_client(decoder, &settings, parts),
    }
}

impl Settings<'_> {
    /// Reports the fields of the other types.
    fn refuse_foreign(&self, decoder: &mut Decoder<'_, '_>, kind: Kind) {
        let (aws, client) = (Kind::AwsV4, Kind::OAuth2ClientCredentials);
        let name = KINDS.iter().find(|(_, other)| *other == kind);
        let why = format!("with type {}", name.map_or("", |(name, _)| name));
        for (field, belongs) in [
            (&self.region, kind == aws),
            (&self.service, kind == aws),
            (&self.scopes, kind != aws),
            (&self.token_url, kind == client),
            (&self.audience, kind == client),
            (&self.resource, kind == client),
            (&self.method, kind == client),
        ] {
            decoder.refuse(field.as_ref().filter(|_| !belongs), &why);
        }
    }
}

fn read_aws(
    decoder: &mut Decoder<'_, '_>,
    settings: &Settings<'_>,
    parts: &Parts<'_>,
) -> Option<RawTarget> {
    let why = "with type AWSv4, whose keys are access_key_id, secret_access_key and session_token";
    decoder.refuse(parts.key.as_ref(), why);
    let mut word = |at: &Option<At<'_>>| read_word(decoder, at.as_ref()?);
    let (region, service) = (word(&settings.region), word(&settings.service));
    Some(RawTarget::AwsV4 {
        secret: parts.secret.as_ref()?.value.as_str().into(),
        region,
        service,
        place: settings.place,
    })
}

fn read_google(
    decoder: &mut Decoder<'_, '_>,
    settings: &Settings<'_>,
    parts: &Parts<'_>,
) -> Option<RawTarget> {
    const EXPECTED: &str = "a scope such as https://www.googleapis.com/auth/cloud-platform";
    let scopes = match &settings.scopes {
        Some(scopes) => read_scopes(decoder, scopes, EXPECTED),
        None => Arc::new([DEFAULT_SCOPE.to_owned()]),
    };
    let key = read_secret(decoder, parts)?;
    let source = TokenSource::GcpServiceAccount { key, scopes };
    Some(RawTarget::AccessToken(source))
}

fn read_client(
    decoder: &mut Decoder<'_, '_>,
    settings: &Settings<'_>,
    parts: &Parts<'_>,
) -> Option<RawTarget> {
    const URL: &str =
        "the https URL of the token endpoint, such as https://login.example.com/oauth2/token";
    const RESOURCE: &str = "an absolute URI without fragment, such as https://api.example.com/";
    let why = "with type OAuth2ClientCredentials, whose keys are client_id and client_secret";
    decoder.refuse(parts.key.as_ref(), why);
    if settings.token_url.is_none() {
        decoder
            .problems
            .error(settings.place, "`spec.providerAuth.tokenUrl` is missing")
            .expected(URL);
    }
    let endpoint = settings.token_url.as_ref();
    let endpoint = endpoint.and_then(|at| decoder.parse(at, URL, TokenUrl::parse));
    let scopes = settings.scopes.as_ref().map_or_else(
        || Arc::from([]),
        |scopes| read_scopes(decoder, scopes, "a scope such as read"),
    );
    let audience = settings.audience.as_ref();
    let audience = audience.map(|at| {
        decoder.parse(
            at,
            "what the server calls the API, in visible ASCII",
            parse_audience,
        )
    });
    let resource = settings.resource.as_ref();
    let resource = resource.map(|at| decoder.parse(at, RESOURCE, parse_resource));
    let method = match &settings.method {
        Some(method) => decoder.choice(method, &METHODS)?.value,
        None => ClientAuthMethod::default(),
    };
    let secret: Arc<str> = parts.secret.as_ref()?.value.as_str().into();
    let key = |key: &str| SecretRef {
        name: Arc::clone(&secret),
        key: key.into(),
    };
    let client = OAuth2Client {
        endpoint: endpoint?.value,
        id: key("client_id"),
        secret: key("client_secret"),
        method,
        scopes,
        audience: audience.flatten().map(|audience| audience.value),
        resource: resource.flatten().map(|resource| resource.value),
    };
    let source = TokenSource::OAuth2Client(Arc::new(client));
    Some(RawTarget::AccessToken(source))
}

/// A part of an AWS credential scope, such as `us-east-1` or `bedrock`.
fn read_word(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Arc<str>> {
    let word = decoder.parse(at, "lower-case letters, digits and `-`", |text| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !text.is_empty() && text.len() <= 63 && text.bytes().all(known) {
            Ok(text.into())
        } else {
            Err("not a name of AWS")
        }
    });
    word.map(|word| word.value)
}

fn read_scopes(decoder: &mut Decoder<'_, '_>, at: &At<'_>, expected: &str) -> Arc<[String]> {
    let items = decoder.some_items(at, "scope", None);
    let scopes = decoder.parse_list(&items, expected, |text| {
        // RFC 6749 section 3.3.
        let known = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if !text.is_empty() && text.bytes().all(known) {
            Ok(text.to_owned())
        } else {
            Err("not an OAuth scope")
        }
    });
    scopes.into_iter().map(|scope| scope.value).collect()
}

fn parse_audience(text: &str) -> Result<Arc<str>, &'static str> {
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if text.trim().is_empty() {
        Err("it is empty")
    } else if text.bytes().all(visible) {
        Ok(text.into())
    } else {
        Err("not visible ASCII")
    }
}

/// RFC 8707 section 2, RFC 3986 section 4.3.
fn parse_resource(text: &str) -> Result<Arc<str>, &'static str> {
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_absolute = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.bytes().all(in_scheme)
            && !rest.is_empty()
    });
    if !is_absolute || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("not an absolute URI");
    }
    if text.contains('#') {
        return Err("it has a fragment");
    }
    Ok(text.into())
}
