//! What is sent again, against an upstream on loopback; over TLS and HTTP/2 the end-to-end suites do it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::guarded::Announce;
use super::*;
use crate::outcome::DenyReason;
use crate::policy::{Class, Destination, Host, SourceFile, Style, compile};
use crate::workers::Worker;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Unlimited;

impl Ration for Unlimited {
    fn spend(&self, _host: &Host) -> Result<(), DenyReason> {
        Ok(())
    }
}

fn gateway() -> Arc<Gateway> {
    let text = "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners: [{name: http, protocol: HTTP}]
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: r}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules: [{matches: [{destinationCIDRs: [127.0.0.1/32], ports: [{startPort: 1, endPort: 65535}]}]}]
";
    let files = [SourceFile {
        name: "policy.yaml".to_owned(),
        text: text.to_owned().into(),
    }];
    let compiled = compile(&files);
    let report = compiled.report(&files, Style::default());
    let mut policy = compiled.policy.expect(&report);
    policy.gateways.remove("g").unwrap()
}

fn upstream(address: SocketAddr) -> (Upstream, Permit) {
    let gateway = gateway();
    let permit = gateway
        .authorize(&Destination {
            address,
            host: None,
            listener: gateway.listener(Class::Http, address.port()).unwrap(),
        })
        .unwrap();
    let verifier = Verifier::new(None).unwrap();
    let resolver = Resolver::new(Arc::clone(&gateway), &verifier).unwrap();
    let upstream = Upstream::new(
        gateway,
        Arc::new(resolver),
        verifier,
        Arc::default(),
        Arc::new(Unlimited),
        Arc::new(Semaphore::new(0)),
    );
    (upstream, permit)
}

#[tokio::test]
async fn a_request_that_waited_for_a_connection_is_sent_again_if_that_is_found_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (upstream, permit) = upstream(address);
    let upstream = Arc::new(upstream);
    let key = Key {
        target: address.to_string(),
        verified: String::new(),
    };
    // Somebody else's turn to make a connection.
    let first = upstream.pool.first(&key).unwrap();
    let turn = first.lock().await;
    let sent = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move {
            let body = Full::new(Bytes::from_static(b"hello"));
            let body = body.map_err(|never| match never {}).boxed_unsync();
            let mut request = Request::post(format!("http://{address}/x"))
                .body(body)
                .unwrap();
            let host = HeaderValue::try_from(address.to_string()).unwrap();
            request.headers_mut().insert(HOST, host);
            let progress = Progress::default();
            let sending = upstream.send(&permit, Scheme::Http, Verb::Exchange, request, &progress);
            sending.await.map(|answer| answer.response.status())
        }
    });
    while Arc::strong_count(&first) < 3 {
        tokio::task::yield_now().await;
    }
    // It leaves one behind that takes a request and is gone.
    let (client, server) = tokio::io::duplex(1024);
    let (sender, mut connection) = http1::handshake(TokioIo::new(client)).await.unwrap();
    assert!(futures_util::poll!(&mut connection).is_pending());
    assert!(sender.is_ready());
    let home = Worker::here();
    let announce = Announce::default();
    let left = Http1 {
        sender,
        announce,
        home,
    };
    Arc::clone(&upstream.pool).give_back(key.clone(), left);
    drop(turn);
    while upstream.pool.idle(&key) > 0 {
        tokio::task::yield_now().await;
    }
    drop((connection, server));

    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nhello") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(seen).unwrap()
    });
    assert_eq!(sent.await.unwrap().unwrap(), 204);
    let seen = serving.await.unwrap();
    assert!(seen.starts_with("POST /x HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: {address}\r\n")), "{seen}");
}
