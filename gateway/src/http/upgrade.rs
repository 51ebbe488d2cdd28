//! WebSockets: once the upstream has agreed, the connection is copied both ways, unread.

use super::body::{Open, ResponseBody};
use super::headers::strip_hop_by_hop;
use super::server::Session;
use crate::outcome::DenyReason;
use crate::splice::{Meter, splice};
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;

/// Passes the 101 on and joins the two connections. The record ends when they do, and the
/// connection keeps its place among the sandbox's until then.
pub(super) fn tunnel(
    session: &Session,
    mut response: Response<PooledBody>,
    mut open: Open,
    on_upgrade: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let Some(client) = on_upgrade else {
        // Nobody asked for it (RFC 9110 §15.2.2): the upstream is confused, or worse.
        open.record.error = Some("upstream_http");
        open.record.status = Some(StatusCode::BAD_GATEWAY.as_u16());
        let mut refused = Response::new(ResponseBody::whole(Bytes::new()));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return refused;
    };
    session.watch.release();
    let upstream = hyper::upgrade::on(&mut response);
    let idle = open.view.gateway.limits.idle_timeout;
    Arc::clone(&session.place).spawn(join(client, upstream, open, idle));
    strip_hop_by_hop(response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.extensions_mut().clear();
    response.map(|_nothing| ResponseBody::whole(Bytes::new()))
}

async fn join(client: OnUpgrade, upstream: OnUpgrade, open: Open, idle: Duration) {
    let mut tunnel = Tunnel {
        open,
        meter: Meter::default(),
    };
    let copy = async {
        let (client, upstream) = tokio::try_join!(client, upstream).map_err(|e| e.to_string())?;
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        splice(&mut client, &mut upstream, &tunnel.meter, idle)
            .await
            .map_err(|error| error.to_string())
    };
    let (copied, reason) = tokio::select! {
        copied = copy => (copied, None),
        () = tunnel.open.revoked() => (Ok(()), Some(DenyReason::PolicyChanged)),
    };
    tunnel.open.ended = true;
    tunnel.open.record.reason = reason;
    if let Err(error) = copied {
        tracing::debug!(error, "tunnel ended");
        tunnel.open.record.error = Some("tunnel");
    }
}

/// What went through is on record even if the tunnel is cut off.
struct Tunnel {
    open: Open,
    meter: Meter,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.open.record.bytes_up += self.meter.up();
        self.open.record.bytes_down += self.meter.down();
    }
}
