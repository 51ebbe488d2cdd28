//! WebSockets: once the upstream has agreed, the connection is copied both ways, unread.

use super::body::{ResponseBody, Seen, finish};
use super::headers::strip_hop_by_hop;
use super::server::Front;
use crate::telemetry::RequestRecord;
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};

/// Passes the 101 on and joins the two connections. The record ends when they do.
pub(super) fn tunnel(
    front: Arc<Front>,
    mut response: Response<PooledBody>,
    mut record: RequestRecord,
    seen: Arc<Mutex<Seen>>,
    on_upgrade: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let Some(client) = on_upgrade else {
        // Nobody asked for it (RFC 9110 §15.2.2): the upstream is confused, or worse.
        record.error = Some("upstream_http");
        record.status = Some(StatusCode::BAD_GATEWAY.as_u16());
        finish(&front, &mut record, &seen);
        let mut refused = Response::new(ResponseBody::whole(Bytes::new()));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return refused;
    };
    let upstream = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        match tokio::try_join!(client, upstream) {
            Ok((client, upstream)) => {
                let mut client = TokioIo::new(client);
                let mut upstream = TokioIo::new(upstream);
                match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
                    Ok((_, down)) => record.bytes_down = down,
                    Err(error) => {
                        tracing::debug!(%error, "tunnel ended");
                        record.error = Some("tunnel");
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                record.error = Some("tunnel");
            }
        }
        finish(&front, &mut record, &seen);
    });
    strip_hop_by_hop(response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.extensions_mut().clear();
    response.map(|_nothing| ResponseBody::whole(Bytes::new()))
}
