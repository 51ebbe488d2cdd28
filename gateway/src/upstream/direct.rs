//! Requests of the gateway's own to a host that the operator named, for a credential: no sandbox decides
//! where this connects to. Resolved, guarded and verified as upstreams are, one connection a request.

use super::connect;
use super::resolve::Resolver;
use super::verify::{Offer, Verifier};
use crate::outcome::UpstreamError;
use crate::policy::{Gateway, TokenUrl};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// One exchange, connection included: a request of the sandbox waits for it.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is read of an answer: tokens are a few KB.
const MAX_ANSWER: usize = 256 * 1024;

/// What is posted, as `application/x-www-form-urlencoded`; wiped when it is sent.
pub struct Form {
    /// The fields.
    pub body: Zeroizing<Vec<u8>>,
    /// Who asks, if the fields do not say it.
    pub authorization: Option<HeaderValue>,
}

/// Speaks HTTP/1.1 over verified TLS.
#[derive(Clone)]
pub struct Direct {
    gateway: Arc<Gateway>,
    resolver: Arc<Resolver>,
    verifier: Verifier,
}

impl Direct {
    /// Finds hosts by `resolver` (and `gateway`'s aliases), and trusts whom `verifier` trusts.
    pub fn new(gateway: Arc<Gateway>, resolver: Arc<Resolver>, verifier: Verifier) -> Self {
        Self {
            gateway,
            resolver,
            verifier,
        }
    }

    /// Posts a form. Redirects are not followed: they are an answer.
    ///
    /// # Errors
    /// There was no whole answer within ten seconds.
    pub async fn post_form(
        &self,
        url: &TokenUrl,
        form: Form,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        match tokio::time::timeout(DEADLINE, self.exchange(url, form)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(UpstreamError::Timeout {
                host: url.host().to_string(),
                seconds: DEADLINE.as_secs(),
            }),
        }
    }

    async fn exchange(
        &self,
        url: &TokenUrl,
        form: Form,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let host = url.host();
        let failed = |source| UpstreamError::Http {
            host: host.to_string(),
            source,
        };
        let stream = connect::named(&self.gateway, &self.resolver, host, url.port()).await?;
        let stream = self
            .verifier
            .connect(Offer::Http1, host.as_str(), stream)
            .await
            .map_err(|source| UpstreamError::Tls {
                host: host.to_string(),
                source,
            })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.into()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the gateway's own connection ended");
            }
        });
        let mut request = Request::post(url.path())
            .header(HOST, url.authority())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_owner(form.body)))
            .map_err(|error| failed(error.into()))?;
        request.headers_mut().extend(
            form.authorization
                .map(|authorization| (AUTHORIZATION, authorization)),
        );
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(failed)?;
        Ok((parts.status, body.to_bytes()))
    }
}
