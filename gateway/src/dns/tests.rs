//! The resolver of a sandbox as a whole, without a kernel: messages in, answers and records out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::policy::{SourceFile, Style, compile};
use crate::telemetry::AuditLog;
use crate::telemetry::redact::Redactor;
use crate::upstream::Verifier;
use hickory_proto::op::Message;
use std::net::Ipv4Addr;
use tempfile::TempDir;

struct Fixture {
    responder: Arc<Responder>,
    who: Who,
    folder: TempDir,
}

impl Fixture {
    fn new(default: &str, upstream: SocketAddr) -> Self {
        let text = format!(
            "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: g}}
spec:
  defaultPolicy: {default}
  listeners: [{{name: tcp, protocol: TCP}}]
  dns: {{upstreams: [\"udp://{upstream}\"]}}
"
        );
        let files = [SourceFile {
            name: "policy.yaml".to_owned(),
            text: text.into(),
        }];
        let compiled = compile(&files);
        let report = compiled.report(&files, Style::default());
        let gateway = compiled
            .policy
            .expect(&report)
            .gateways
            .remove("g")
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let audit = Arc::new(AuditLog::open(&folder.path().join("audit"), true).unwrap());
        let redactor = Redactor::new(std::iter::empty(), Vec::new());
        let redactor = Arc::new(redactor);
        let telemetry = Arc::new(Telemetry::new(audit, None, redactor, Arc::default()));
        let verifier = Verifier::new(None).unwrap();
        let resolver = Arc::new(Resolver::new(Arc::clone(&gateway), &verifier).unwrap());
        let who = Who {
            gateway: "g".into(),
            sandbox: "s".into(),
            cgroup: 0,
            pid: 0,
            tgid: 0,
            uid: 0,
            comm: "".into(),
            executable: None,
            destination: upstream,
            generation: 1,
        };
        Self {
            responder: Arc::new(Responder::new(gateway, resolver, telemetry)),
            who,
            folder,
        }
    }

    fn audit(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit")).unwrap()
    }

    fn decide(&self, name: &str, kind: u8) -> Step {
        let message = message(name, kind);
        self.responder.decide(&message, &self.who, Transport::Udp)
    }

    /// What is answered without a look-up.
    fn code(&self, name: &str, kind: u8) -> ResponseCode {
        match self.decide(name, kind) {
            Step::Answer(answer) => code(&answer),
            Step::Nothing => panic!("no answer"),
            Step::LookUp(..) => panic!("{name} would be looked up"),
        }
    }
}

#[tokio::test]
async fn what_is_dialled_is_paid_from_the_same_purse_as_what_is_asked() {
    let fixture = Fixture::new("allow-all", (Ipv4Addr::LOCALHOST, 53).into());
    let spend = |name: &str| fixture.responder.spend(&Host::parse(name).unwrap());
    let begun = Instant::now();
    let asked = (0..1000).all(|n| {
        let step = fixture.decide(&format!("q{n}.test"), A);
        matches!(step, Step::LookUp(..))
    });
    assert!(asked);
    let dialled = (0..10_000).filter(|n| spend(&format!("d{n}.test")).is_ok());
    // One more is earned each 30 ms, and the next that is refused is never far.
    let dialled = dialled.count();
    let most = 1000 + begun.elapsed().as_millis() / 30 + 1;
    let is_rationed = (1000..=most).contains(&u128::try_from(dialled).unwrap());
    assert!(is_rationed, "{dialled} of {most}");
    let refused = (0..200).find_map(|n| spend(&format!("another{n}.test")).err());
    assert_eq!(refused, Some(DenyReason::DnsRateLimited));
    let refused = (0..200).find_map(|n| match fixture.decide(&format!("further{n}.test"), A) {
        Step::Answer(answer) => Some(code(&answer)),
        _ => None,
    });
    assert_eq!(refused, Some(ResponseCode::Refused));
    assert_eq!((spend("q7.test"), spend("d7.test")), (Ok(()), Ok(())));
    let label = "a".repeat(60);
    let long = spend(&format!("{label}.{label}.{label}.test"));
    assert_eq!(long, Err(DenyReason::DnsNameTooLong));
}

fn message(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    message
}

fn code(answer: &[u8]) -> ResponseCode {
    Message::from_vec(answer).unwrap().metadata.response_code
}

const A: u8 = 1;
const PTR: u8 = 12;
const TXT: u8 = 16;

fn nowhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

#[tokio::test]
async fn even_where_all_is_allowed_only_addresses_of_names_are_looked_up() {
    let all = Fixture::new("allow-all", nowhere());
    assert!(matches!(all.decide("any.test", A), Step::LookUp(..)));
    assert_eq!(all.code("any.test", TXT), ResponseCode::NoError);
    for (name, kind) in [
        ("1.0.0.10.in-addr.arpa", PTR),
        ("secret.in-addr.arpa", A),
        ("in-addr.arpa", A),
        ("1.0.d.f.IP6.ARPA", PTR),
    ] {
        assert_eq!(all.code(name, kind), ResponseCode::NXDomain, "{name}");
    }
    assert!(matches!(all.decide("notin-addr.arpa", A), Step::LookUp(..)));
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.test");
    assert_eq!(all.code(&long, A), ResponseCode::Refused);
    let audit = all.audit();
    assert!(audit.contains("dns_name_too_long") && audit.contains("name_not_allowed"));
}

#[tokio::test]
async fn what_is_not_a_host_name_is_no_name() {
    let all = Fixture::new("allow-all", nowhere());
    for name in ["127.1", "a b.test", "a\0.test", "*.test", "0x7f000001"] {
        assert_eq!(all.code(name, A), ResponseCode::NXDomain, "{name}");
    }
}

#[tokio::test]
async fn one_denial_repeated_is_one_record_and_a_count() {
    let none = Fixture::new("deny-all", nowhere());
    for _ in 0..50 {
        assert_eq!(none.code("a.test", A), ResponseCode::NXDomain);
    }
    assert_eq!(none.code("b.test", A), ResponseCode::NXDomain);
    assert_eq!(none.audit().matches("name_not_allowed").count(), 2);
    none.responder.denials.tell();
    assert!(none.audit().contains("\"count\":49"), "{}", none.audit());
}

#[tokio::test]
async fn too_many_questions_are_refused_and_said_to_be() {
    let none = Fixture::new("deny-all", nowhere());
    let begun = Instant::now();
    let codes: Vec<ResponseCode> = (0..12_000)
        .map(|n| none.code(&format!("n{n}.test"), A))
        .collect();
    assert!(
        codes[..5000]
            .iter()
            .all(|code| *code == ResponseCode::NXDomain)
    );
    assert!(codes.contains(&ResponseCode::Refused));
    let answered = codes.iter().filter(|code| **code == ResponseCode::NXDomain);
    // One more is earned each millisecond.
    let most = 5000 + begun.elapsed().as_millis() + 1;
    assert!(u128::try_from(answered.count()).unwrap() <= most, "{most}");
    // Neither reply is worth more than the question once there are too many.
    let message = [0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    while let Step::Answer(_) = none.responder.decide(&message, &none.who, Transport::Udp) {}
    let recorded = none.audit().matches("\"denied\"").count();
    // One more each 50 ms, and one of the other reason.
    let most = 200 + begun.elapsed().as_millis() / 50 + 2;
    let is_rationed = (200..=most).contains(&u128::try_from(recorded).unwrap());
    assert!(is_rationed, "{recorded} of {most}");
}

#[tokio::test]
async fn one_look_up_too_many_waits_for_its_turn_and_then_fails() {
    // A name server that says nothing.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let all = Fixture::new("allow-all", silent.local_addr().unwrap());
    let (say, mut hear) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..=MAX_LOOK_UPS {
        let Step::LookUp(question, host) = all.decide(&format!("n{n}.test"), A) else {
            panic!("not looked up");
        };
        let (responder, who, say) = (Arc::clone(&all.responder), all.who.clone(), say.clone());
        tokio::spawn(async move {
            let answer = responder
                .look_up(&question, &host, &who, Transport::Udp)
                .await;
            say.send(code(&answer)).unwrap();
        });
    }
    let first = tokio::time::timeout(TURN + Duration::from_millis(1500), hear.recv()).await;
    assert_eq!(first.unwrap(), Some(ResponseCode::ServFail));
    assert!(
        hear.try_recv().is_err(),
        "the others wait for their answers"
    );
    assert!(all.audit().contains("32 look-ups under way"));
}
