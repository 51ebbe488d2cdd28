//! The resolver against name servers on loopback.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::policy::{SourceFile, Style, compile};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// A name server that counts what it is asked.
#[derive(Default)]
struct Server {
    over_udp: AtomicUsize,
    over_tcp: AtomicUsize,
}

impl Server {
    fn answer(&self, message: &[u8], over_udp: bool) -> Vec<u8> {
        let asked = if over_udp {
            &self.over_udp
        } else {
            &self.over_tcp
        };
        asked.fetch_add(1, Ordering::Relaxed);
        let request = Message::from_vec(message).unwrap();
        let query = request.queries[0].clone();
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        // Hyphens in front come escaped.
        let name = query.name().to_ascii().replace('\\', "");
        let first = name.split('.').next().unwrap();
        let mut add = |owner: &str, data: RData| {
            let labels = owner.trim_end_matches('.').split('.').map(str::as_bytes);
            let mut owner = Name::from_labels(labels).unwrap();
            owner.set_fqdn(true);
            response.add_answer(Record::from_rdata(owner, 1, data));
        };
        let v4 = |text: &str| RData::A(A(text.parse().unwrap()));
        match (first, query.query_type()) {
            ("plain" | "under_score" | "-odd--label-", RecordType::A) => {
                add(&name, v4("192.0.2.1"))
            }
            ("chain", RecordType::A) => {
                add(
                    &name,
                    RData::CNAME(CNAME(Name::from_ascii("far.away.test.").unwrap())),
                );
                add("far.away.test.", v4("192.0.2.2"));
            }
            ("six", RecordType::AAAA) => {
                add(&name, RData::AAAA(AAAA("2001:db8::6".parse().unwrap())));
            }
            ("rebind", RecordType::A) => {
                for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.3"] {
                    add(&name, v4(address));
                }
            }
            ("inside", RecordType::A) => add(&name, v4("10.1.2.3")),
            ("private", RecordType::A) => add(&name, v4("10.9.9.9")),
            ("big", RecordType::A) if !over_udp => add(&name, v4("192.0.2.4")),
            ("big", RecordType::A) => response.metadata.truncation = true,
            ("empty" | "six" | "plain", _) => {}
            _ => response.metadata.response_code = ResponseCode::NXDomain,
        }
        response.add_query(query);
        response.to_vec().unwrap()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        while let Ok(length) = stream.read_u16().await {
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await.unwrap();
            let answer = self.answer(&message, false);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let framed = [&length[..], &answer].concat();
            stream.write_all(&framed).await.unwrap();
        }
    }
}

/// Over UDP and TCP, on one port.
async fn start() -> (Arc<Server>, SocketAddr) {
    let server = Arc::new(Server::default());
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (one, other) = (Arc::clone(&server), Arc::clone(&server));
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            let answer = one.answer(&buffer[..length], true);
            udp.send_to(&answer, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = tcp.accept().await.unwrap();
            let server = Arc::clone(&other);
            tokio::spawn(async move { server.serve(stream).await });
        }
    });
    (server, address)
}

fn gateway(upstream: &str, family: &str) -> Arc<Gateway> {
    let text = format!(
        "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: g}}
spec:
  listeners: [{{name: tcp, protocol: TCP}}]
  dns: {{lookupFamily: {family}, upstreams: [\"{upstream}\"]}}
  upstreamTLS: {{hostAliases: [{{ip: 127.0.0.2, hostnames: [alias.test]}}]}}
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {{name: r}}
spec:
  parentRefs: [{{kind: EgressGateway, name: g}}]
  rules:
    - matches: [{{destinationHostnames: [\"**\"], ports: [{{port: 22}}]}}]
    - matches: [{{destinationCIDRs: [10.1.0.0/16], ports: [{{port: 22}}]}}]
"
    );
    let files = [SourceFile {
        name: "policy.yaml".to_owned(),
        text: text.into(),
    }];
    let compiled = compile(&files);
    let report = compiled.report(&files, Style::default());
    compiled
        .policy
        .expect(&report)
        .gateways
        .remove("g")
        .unwrap()
}

fn resolver(upstream: &str, family: &str) -> Resolver {
    Resolver::new(gateway(upstream, family), &Verifier::new(None).unwrap()).unwrap()
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

#[tokio::test]
async fn names_are_resolved_over_udp_and_kept() {
    let (server, address) = start().await;
    let resolver = resolver(&format!("udp://{address}"), "V4Only");
    for _ in 0..5 {
        let found = resolver.resolve(&host("plain.test")).await.unwrap();
        assert_eq!(texts(&found.addresses), ["192.0.2.1"]);
        // The server says one second.
        assert!(found.life > Duration::from_secs(1) && found.life <= LEAST_LIFE);
    }
    assert_eq!(server.over_udp.load(Ordering::Relaxed), 1, "asked again");
    for odd in ["under_score.test", "-odd--label-.test"] {
        assert!(resolver.resolve(&host(odd)).await.is_ok(), "{odd}");
    }
    let chain = resolver.resolve(&host("chain.test")).await.unwrap();
    assert_eq!(texts(&chain.addresses), ["192.0.2.2"]);
    let six = resolver.resolve(&host("six.test")).await;
    assert!(matches!(six, Err(NameError::NoAddress)), "{six:?}");
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let (server, address) = start().await;
    let resolver = resolver(&format!("udp://{address}"), "V4Only");
    let found = resolver.resolve(&host("big.test")).await.unwrap();
    assert_eq!(texts(&found.addresses), ["192.0.2.4"]);
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_name_that_is_not_is_told_from_one_without_addresses() {
    let (_server, address) = start().await;
    let resolver = resolver(&format!("tcp://{address}"), "V4Preferred");
    let none = resolver.resolve(&host("none.test")).await;
    assert!(matches!(none, Err(NameError::NoSuchName)), "{none:?}");
    let empty = resolver.resolve(&host("empty.test")).await;
    assert!(matches!(empty, Err(NameError::NoAddress)), "{empty:?}");
    let six = resolver.resolve(&host("six.test")).await.unwrap();
    assert_eq!(texts(&six.addresses), ["2001:db8::6"]);
}

#[tokio::test]
async fn a_sandbox_is_told_of_no_address_that_would_not_be_dialled() {
    let (_server, address) = start().await;
    let resolver = resolver(&format!("udp://{address}"), "V4Only");
    let rebind = resolver.tell(&host("rebind.test")).await.unwrap();
    assert_eq!(texts(&rebind.addresses), ["192.0.2.3"]);
    assert!(rebind.withheld.is_some());
    let private = resolver.tell(&host("private.test")).await.unwrap();
    assert!(private.addresses.is_empty());
    let (address, kind) = private.withheld.unwrap();
    assert_eq!(
        (address.to_string().as_str(), kind),
        ("10.9.9.9", "private")
    );
    let inside = resolver.tell(&host("inside.test")).await.unwrap();
    assert_eq!(texts(&inside.addresses), ["10.1.2.3"], "a rule names it");
    assert!(inside.withheld.is_none());
    let alias = resolver.tell(&host("alias.test")).await.unwrap();
    assert_eq!(texts(&alias.addresses), ["127.0.0.2"]);
}

/// DNS over TLS by a certificate for `name`, and the PEM of its authority.
async fn start_tls(name: &str) -> (Arc<Server>, SocketAddr, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server::default());
    let one = Arc::clone(&server);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up.
            if let Ok(stream) = acceptor.accept(stream).await {
                one.serve(stream).await;
            }
        }
    });
    (server, address, authority.pem())
}

fn resolver_over_tls(address: SocketAddr, bundle: Option<&str>) -> Resolver {
    let mut connection = over_tls(address.ip());
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let verifier = Verifier::new(bundle.map(str::as_bytes)).unwrap();
    let gateway = gateway("udp://192.0.2.53", "V4Only");
    Resolver::with(gateway, &verifier, Some(config)).unwrap()
}

#[tokio::test]
async fn a_server_over_tls_must_prove_its_address_to_the_gateway_s_own_trust() {
    let (server, address, pem) = start_tls("127.0.0.1").await;
    let trusting = resolver_over_tls(address, Some(&pem));
    let found = trusting.resolve(&host("plain.test")).await.unwrap();
    assert_eq!(texts(&found.addresses), ["192.0.2.1"]);
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 1);
    let distrusting = resolver_over_tls(address, None);
    let refused = distrusting.resolve(&host("plain.test")).await;
    assert!(matches!(refused, Err(NameError::Failed(_))), "{refused:?}");
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 1, "it was asked");

    let (other, address, pem) = start_tls("127.0.0.2").await;
    let refused = resolver_over_tls(address, Some(&pem));
    let refused = refused.resolve(&host("plain.test")).await;
    assert!(matches!(refused, Err(NameError::Failed(_))), "{refused:?}");
    assert_eq!(other.over_tcp.load(Ordering::Relaxed), 0, "it was asked");
}
