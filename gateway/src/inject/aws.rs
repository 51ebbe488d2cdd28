//! AWS Signature Version 4 over a request whose sandbox has no key: what the sandbox signed with, or
//! left unsigned, is replaced. It refuses to know when a request is allowed.
//!
//! The date is the gateway's; AWS refuses a signature whose clock is more than 15 minutes off, so the
//! sandbox's clock does not matter and the gateway's does.

mod chunks;
pub(super) mod copy;
mod endpoint;

use super::{InjectError, Recipient, Room};
use crate::policy::{Injection, InjectionTarget, MissingSecret, SecretRef};
use crate::secrets::Secrets;
use crate::upstream::RequestBody;
use aws_credential_types::Credentials;
use aws_lc_rs::digest::{Context, SHA256};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use chunks::{Chunked, Signer};
use http::header::{AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::sync::Arc;
use std::time::SystemTime;

/// Headers of AWS's other ways to sign: S3 Express sessions, Signature Version 4A.
pub(super) const OTHER_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-amz-s3session-token"),
    HeaderName::from_static("x-amz-region-set"),
];
/// Parameters of a presigned URL (Signature Version 4 and 4A).
pub(super) const PRESIGNED: [&str; 9] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "X-Amz-S3session-Token",
    "X-Amz-Region-Set",
];
/// Parameters of a presigned URL of Signature Version 2.
pub(super) const PRESIGNED_V2: [&str; 2] = ["AWSAccessKeyId", "Signature"];

/// The sandbox's own word for its body, which decides how the body is signed.
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const CHUNKED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const CHUNKED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

/// What S3 does not escape in a canonical path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// How the body gets into the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    /// By this word or hash, as the sandbox gave it; who receives the body holds it against that.
    Said(String),
    /// By its hash; the body is held back until it is known.
    Hashed {
        /// The hash is a header too.
        declared: bool,
        /// In hexadecimal, once it is known.
        hash: Option<String>,
    },
    /// Chunk by chunk: `aws-chunked` with a signature in each.
    Chunked {
        /// With trailing headers, signed too.
        trailer: bool,
    },
}

/// How to sign one request.
pub(super) struct Plan {
    credentials: Credentials,
    service: String,
    region: String,
    payload: Payload,
    time: SystemTime,
}

impl Plan {
    /// Reads what the sandbox says of its body, before that is removed. Takes an `Expect` away where the body
    /// is needed first. `None` for an injection that is no signature.
    pub(super) fn new(
        injection: &Injection,
        secrets: &Secrets,
        recipient: Recipient<'_>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Self>, InjectError> {
        let InjectionTarget::AwsV4 {
            access_key_id,
            secret_access_key,
            session_token,
            region,
            service,
        } = &injection.target
        else {
            return Ok(None);
        };
        let credentials = credentials(secrets, access_key_id, secret_access_key, session_token)?;
        let said = endpoint::scope(recipient.host);
        let of = |written: &Option<Arc<str>>, said: Option<String>, field| {
            let written = written.as_deref().map(str::to_owned);
            written.or(said).ok_or_else(|| InjectError::Unlocated {
                host: recipient.host.to_owned(),
                field,
                policy: Arc::clone(&injection.policy),
            })
        };
        let service = of(service, said.service, "service")?;
        let region = of(region, said.region, "region")?;
        let payload = Payload::of(headers, &service, recipient.tls)?;
        if matches!(payload, Payload::Hashed { .. }) {
            headers.remove(EXPECT);
        }
        Ok(Some(Self {
            credentials,
            service,
            region,
            payload,
            time: SystemTime::now(),
        }))
    }

    /// Is the hash of the body part of the signature?
    pub(super) fn covers_body(&self) -> bool {
        matches!(self.payload, Payload::Hashed { .. })
    }

    /// Hashes the body, if it is to be.
    pub(super) fn cover<'a>(&mut self, body: impl Iterator<Item = &'a [u8]>) {
        if let Payload::Hashed { hash, .. } = &mut self.payload {
            let mut context = Context::new(&SHA256);
            body.for_each(|piece| context.update(piece));
            let digits = context.finish();
            let digits = digits.as_ref().iter().map(|byte| format!("{byte:02x}"));
            *hash = Some(digits.collect());
        }
    }

    /// Signs, as of now: the body may have been long on its way. The head must be as it will be sent, and the body
    /// hashed where it is to be.
    pub(super) fn finish(
        mut self,
        request: Request<RequestBody>,
        room: &Room,
    ) -> Result<Request<RequestBody>, InjectError> {
        self.time = SystemTime::now();
        self.sign(request, room)
    }

    fn sign(
        self,
        request: Request<RequestBody>,
        room: &Room,
    ) -> Result<Request<RequestBody>, InjectError> {
        let (mut parts, body) = request.into_parts();
        let body = match &self.payload {
            Payload::Said(word) => {
                self.set(&mut parts, SignableBody::Precomputed(word.clone()), true)?;
                body
            }
            Payload::Hashed { declared, hash } => {
                let hash = hash.clone();
                let hash = hash.ok_or(InjectError::Unsignable("its body was not read"))?;
                self.set(&mut parts, SignableBody::Precomputed(hash), *declared)?;
                body
            }
            Payload::Chunked { trailer } => {
                let word = if *trailer { CHUNKED_TRAILER } else { CHUNKED };
                let word = SignableBody::Precomputed(word.to_owned());
                let seed = self.set(&mut parts, word, true)?;
                let signer = self.signer(&parts.headers, seed)?;
                Chunked::new(body, signer, *trailer, room.clone()).boxed_unsync()
            }
        };
        Ok(Request::from_parts(parts, body))
    }

    /// Sets the headers of the signature, and returns it.
    fn set(
        &self,
        parts: &mut Parts,
        body: SignableBody<'_>,
        declared: bool,
    ) -> Result<String, InjectError> {
        let uri = if is_s3(&self.service) {
            canonical_uri(parts)
        } else {
            parts.uri.to_string()
        };
        let signed = signed_headers(&parts.headers)?;
        let signed = signed.iter().map(|(name, value)| (*name, *value));
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(self.time)
            .settings(settings(&self.service, declared))
            .build()
            .map_err(unsignable("its parameters are incomplete"))?
            .into();
        let request = SignableRequest::new(parts.method.as_str(), uri, signed, body)
            .map_err(unsignable("its target is not clear"))?;
        let (instructions, signature) = sign(request, &params)
            .map_err(unsignable("a header field is not text"))?
            .into_parts();
        for (name, value) in instructions.headers() {
            let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            else {
                return Err(InjectError::NotAFieldValue(AUTHORIZATION));
            };
            value.set_sensitive(name != DATE && name != CONTENT_SHA256);
            parts.headers.insert(name, value);
        }
        Ok(signature)
    }

    fn signer(&self, headers: &HeaderMap, seed: String) -> Result<Signer, InjectError> {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let date = date.ok_or(InjectError::Unsignable("it has no date"))?;
        let key = v4::generate_signing_key(
            self.credentials.secret_access_key(),
            self.time,
            &self.region,
            &self.service,
        );
        let scope = format!(
            "{}/{}/{}/aws4_request",
            date.get(..8).unwrap_or_default(),
            self.region,
            self.service
        );
        Ok(Signer::new(key.as_ref(), date, &scope, seed))
    }
}

impl Payload {
    fn of(headers: &HeaderMap, service: &str, tls: bool) -> Result<Self, InjectError> {
        let mut said = headers.get_all(CONTENT_SHA256).iter();
        let said = match (said.next(), said.next()) {
            (None, _) => None,
            (Some(word), None) => Some(word.to_str().unwrap_or_default()),
            (Some(_), Some(_)) => {
                return Err(InjectError::Unsignable(
                    "x-amz-content-sha256 is there twice",
                ));
            }
        };
        let is_hash =
            |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(match said {
            // S3 takes what is not signed over TLS alone: there nobody else can change it.
            None if is_s3(service) && tls => Self::Said(UNSIGNED.to_owned()),
            None => Self::Hashed {
                declared: is_s3(service),
                hash: None,
            },
            Some(word) if !is_s3(service) && (is_hash(word) || word == UNSIGNED) => Self::Hashed {
                declared: true,
                hash: None,
            },
            Some(_) if !is_s3(service) => {
                return Err(InjectError::Unsignable(
                    "of all services S3 alone takes a body that is signed in pieces",
                ));
            }
            Some(UNSIGNED) if !tls => Self::Hashed {
                declared: true,
                hash: None,
            },
            Some(word @ (UNSIGNED | UNSIGNED_TRAILER)) => Self::Said(word.to_owned()),
            Some(word) if is_hash(word) => Self::Said(word.to_ascii_lowercase()),
            Some(CHUNKED) => Self::Chunked { trailer: false },
            Some(CHUNKED_TRAILER) => Self::Chunked { trailer: true },
            Some(_) => {
                return Err(InjectError::Unsignable(
                    "x-amz-content-sha256 is neither a hash nor one of S3's words for Signature Version 4",
                ));
            }
        })
    }
}

fn is_s3(service: &str) -> bool {
    ["s3", "s3express", "s3-outposts", "s3-object-lambda"].contains(&service)
}

/// S3 signs the path as it is; all others as if it were to be escaped once more.
fn settings(service: &str, declared: bool) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if is_s3(service) {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    if declared {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings
}

/// S3 decodes the path and escapes it in its own way before it holds it against the signature, however the
/// client has escaped it.
fn canonical_uri(parts: &Parts) -> String {
    let decoded: Vec<u8> = percent_decode_str(parts.uri.path()).collect();
    let path = percent_encode(&decoded, PATH);
    let scheme = parts.uri.scheme_str().unwrap_or("https");
    let authority = parts.uri.authority().map_or("", |name| name.as_str());
    match parts.uri.query() {
        None => format!("{scheme}://{authority}{path}"),
        Some(query) => format!("{scheme}://{authority}{path}?{query}"),
    }
}

/// What AWS wants signed (`host` and its own headers), and the type of the body. Others may change on the
/// way.
fn signed_headers(headers: &HeaderMap) -> Result<Vec<(&str, &str)>, InjectError> {
    let signed = headers
        .iter()
        .filter(|(name, _)| *name == HOST || *name == CONTENT_TYPE || is_amz(name));
    signed
        .map(
            |(name, value)| match std::str::from_utf8(value.as_bytes()) {
                Ok(value) => Ok((name.as_str(), value)),
                Err(_not_text) => Err(InjectError::Unsignable("a header field is not text")),
            },
        )
        .collect()
}

fn is_amz(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-amz-")
}

fn unsignable<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> InjectError {
    move |error| {
        tracing::debug!(%error, "AWS signature");
        InjectError::Unsignable(what)
    }
}

pub(super) fn credentials(
    secrets: &Secrets,
    id: &SecretRef,
    key: &SecretRef,
    token: &SecretRef,
) -> Result<Credentials, InjectError> {
    let id = text(secrets, id)?.ok_or_else(|| MissingSecret(id.clone()))?;
    let key = text(secrets, key)?.ok_or_else(|| MissingSecret(key.clone()))?;
    // One that is there and cannot be read is not one that is not there.
    if secrets.get(token).is_none() && secrets.snapshot().problem(token).is_some() {
        return Err(MissingSecret(token.clone()).into());
    }
    let token = text(secrets, token)?;
    Ok(Credentials::new(id, key, token, None, "postern"))
}

fn text(secrets: &Secrets, secret: &SecretRef) -> Result<Option<String>, InjectError> {
    let Some(value) = secrets.get(secret) else {
        return Ok(None);
    };
    let unusable = || InjectError::Unusable {
        secret: secret.clone(),
        what: "it is not one line of visible ASCII",
    };
    let text = value.expose();
    if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
        return Err(unusable());
    }
    match std::str::from_utf8(text) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_not_text) => Err(unusable()),
    }
}

#[cfg(test)]
mod tests;
