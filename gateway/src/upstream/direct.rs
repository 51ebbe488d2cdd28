//! Requests of the gateway's own to a host that the operator named, for a credential: no sandbox decides
//! where this connects to. Resolved, guarded and verified as upstreams are, one connection a request.

use super::connect;
use super::resolve::Resolver;
use super::verify::{Offer, Verifier};
use crate::outcome::UpstreamError;
use crate::policy::{Gateway, Host};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;

/// One exchange, connection included: a request of the sandbox waits for it.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is read of an answer: tokens are a few KB.
const MAX_ANSWER: usize = 256 * 1024;

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

    /// Posts a form to `https://host:port/path`.
    ///
    /// # Errors
    /// There was no whole answer within ten seconds.
    pub async fn post_form(
        &self,
        host: &Host,
        port: u16,
        path: &str,
        form: Bytes,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        match tokio::time::timeout(DEADLINE, self.exchange(host, port, path, form)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(UpstreamError::Timeout {
                host: host.to_string(),
                seconds: DEADLINE.as_secs(),
            }),
        }
    }

    async fn exchange(
        &self,
        host: &Host,
        port: u16,
        path: &str,
        form: Bytes,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let failed = |source| UpstreamError::Http {
            host: host.to_string(),
            source,
        };
        let stream = connect::named(&self.gateway, &self.resolver, host, port).await?;
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
        let authority = match port {
            443 => host.to_string(),
            port => format!("{host}:{port}"),
        };
        let request = Request::post(path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(form))
            .map_err(|error| failed(error.into()))?;
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
