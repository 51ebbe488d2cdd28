//! Messages as clients and as attackers write them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use hickory_proto::rr::Name;
use proptest::prelude::*;

const ID: u16 = 0x1234;

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Message {
    let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message
}

fn bytes(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    query(name, kind, edns).to_vec().unwrap()
}

fn question(message: &[u8]) -> Box<Question> {
    match read(message) {
        Read::Question(question) => question,
        other => panic!("no question: {other:?}"),
    }
}

/// The response code (header bits alone) of a reply to what is no question.
fn reply(message: &[u8]) -> u8 {
    match read(message) {
        Read::Reply(answer) => {
            assert_eq!(answer[..2], message[..2], "another id");
            assert_eq!(answer[2] & RESPONSE, RESPONSE);
            answer[3] & 15
        }
        other => panic!("no reply: {other:?}"),
    }
}

fn addresses(count: u16) -> Vec<IpAddr> {
    let address = |n: u16| {
        IpAddr::from(
            [[192, 0], n.to_be_bytes()]
                .concat()
                .first_chunk::<4>()
                .copied()
                .unwrap(),
        )
    };
    (0..count).map(address).collect()
}

const LIFE: Duration = Duration::from_secs(60);

#[test]
fn a_question_is_answered_as_it_was_asked_its_case_included() {
    let asked = bytes("WwW.ExAmPlE.cOm.", RecordType::A, Some(4096));
    let question = question(&asked);
    assert_eq!(question.name(), "WwW.ExAmPlE.cOm");
    assert_eq!(question.wanted(), "A");
    let mixed = [addresses(2), vec!["2001:db8::1".parse().unwrap()]].concat();
    let answer = Message::from_vec(&question.answer(&mixed, LIFE, Transport::Udp)).unwrap();
    assert_eq!(answer.metadata.id, ID);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert!(!answer.metadata.authentic_data && !answer.metadata.truncation);
    assert_eq!(answer.queries[0].name().to_ascii(), "WwW.ExAmPlE.cOm.");
    assert_eq!(answer.answers.len(), 2, "the other family is left out");
    for record in &answer.answers {
        assert_eq!(record.name.to_ascii(), "WwW.ExAmPlE.cOm.");
        assert_eq!((record.ttl, record.record_type()), (60, RecordType::A));
    }
    let edns = answer.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
    assert!(edns.flags().dnssec_ok, "RFC 3225");
    assert!(edns.options().as_ref().is_empty());
}

#[test]
fn hyphens_and_underscores_are_themselves_wherever_they_stand() {
    for name in ["-a-.test", "_dmarc.a_b.test", "r3---sn-x.test"] {
        assert_eq!(question(&bytes(name, RecordType::A, None)).name(), name);
    }
    let root = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    assert_eq!(question(&root).name(), "");
}

#[test]
fn a_client_without_edns_gets_none() {
    let question = question(&bytes("a.test.", RecordType::AAAA, None));
    let answer = question.refuse(ResponseCode::NXDomain, Transport::Udp);
    let answer = Message::from_vec(&answer).unwrap();
    assert!(answer.edns.is_none() && answer.authorities.is_empty());
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_cookie_and_other_options_are_not_sent_back() {
    // OPT with COOKIE (10) and an unknown option (65001).
    let mut asked = bytes("a.test.", RecordType::A, None);
    asked[11] = 1;
    asked.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 18]);
    asked.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0xe9, 0, 2, 1, 1]);
    let answer = question(&asked).answer(&addresses(1), LIFE, Transport::Udp);
    let answer = Message::from_vec(&answer).unwrap();
    assert!(answer.edns.unwrap().options().as_ref().is_empty());
}

#[test]
fn an_answer_is_cut_to_what_the_client_takes_and_says_so() {
    let many = addresses(200);
    for (edns, limit) in [
        (None, 512),
        (Some(0), 512),
        (Some(700), 700),
        (Some(1232), 1232),
        (Some(65_535), 1232),
    ] {
        let question = question(&bytes("a.test.", RecordType::A, edns));
        let cut = question.answer(&many, LIFE, Transport::Udp);
        assert!(
            cut.len() <= limit && cut.len() + 16 > limit.min(1000),
            "{edns:?}: {}",
            cut.len()
        );
        let cut = Message::from_vec(&cut).unwrap();
        assert_eq!(cut.metadata.truncation, limit < 1200, "{edns:?}");
        assert!(!cut.answers.is_empty());
        let whole = question.answer(&many, LIFE, Transport::Tcp);
        let whole = Message::from_vec(&whole).unwrap();
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), MAX_ANSWERS);
    }
}

#[test]
fn the_longest_name_has_an_answer() {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}.", &label[2..]);
    let question = question(&bytes(&name, RecordType::AAAA, Some(512)));
    let many: Vec<IpAddr> = vec!["2001:db8::1".parse().unwrap(); 64];
    let answer = question.answer(&many, LIFE, Transport::Udp);
    assert!(answer.len() <= 512);
    let answer = Message::from_vec(&answer).unwrap();
    assert!(answer.metadata.truncation && answer.answers.len() > 5);
}

#[test]
fn what_is_no_single_question_is_refused_in_the_protocol_s_own_words() {
    let good = bytes("a.test.", RecordType::A, Some(1232));
    let with = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        message
    };
    // IQUERY, STATUS, 3, NOTIFY, UPDATE, … 15
    for opcode in 1..16 {
        assert_eq!(reply(&with(2, opcode << 3 | 1)), NOT_IMPLEMENTED);
    }
    for count in [0, 2, 255] {
        assert_eq!(reply(&with(5, count)), FORMAT_ERROR, "{count} questions");
    }
    assert_eq!(reply(&with(4, 1)), FORMAT_ERROR, "257 questions");
    assert_eq!(reply(&with(7, 1)), FORMAT_ERROR, "an answer in a query");
    assert_eq!(reply(&with(9, 1)), FORMAT_ERROR, "an authority in a query");
    assert_eq!(
        reply(&with(11, 2)),
        FORMAT_ERROR,
        "a record that is not there"
    );
    let end = good.len() - 11;
    let twice = [&with(11, 2)[..], &good[end..]].concat();
    assert_eq!(reply(&twice), FORMAT_ERROR, "two OPT records");
    for short in 12..good.len() {
        assert_eq!(reply(&good[..short]), FORMAT_ERROR, "cut at {short}");
    }
    for short in 0..12 {
        assert!(matches!(read(&good[..short]), Read::Nothing));
    }
    assert!(matches!(read(&with(2, 0x81)), Read::Nothing), "a response");
}

#[test]
fn a_later_version_of_edns_is_told_which_one_there_is() {
    let mut message = query("a.test.", RecordType::A, Some(1232));
    message.edns.as_mut().unwrap().set_version(1);
    let Read::Reply(answer) = read(&message.to_vec().unwrap()) else {
        panic!("taken for a question");
    };
    let answer = Message::from_vec(&answer).unwrap();
    let edns = answer.edns.unwrap();
    assert_eq!((edns.version(), edns.rcode_high()), (0, 1), "BADVERS is 16");
    assert_eq!(answer.metadata.response_code.low(), 0);
}

#[test]
fn names_that_go_round_in_circles_end() {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [0, 1, 0, 1];
    for name in [
        // At itself, at the label before it, at the header, past the end, at each other.
        &[0xc0, 12][..],
        &[1, b'a', 0xc0, 12],
        &[0xc0, 0],
        &[0xc0, 200],
        &[0xc0, 14, 0xc0, 12],
        // Reserved kinds of labels, and one without its end.
        &[0x80, 1, 0],
        &[0x41, 1, 0],
        &[63, b'a'],
    ] {
        let message = [&header[..], name, &question].concat();
        match read(&message) {
            Read::Reply(answer) => assert_eq!(answer[3] & 15, FORMAT_ERROR, "{name:?}"),
            // A pointer into the header reads as some name, if it ends.
            Read::Question(question) => assert!(question.name().len() < 1024),
            Read::Nothing => panic!("{name:?} has no answer"),
        }
    }
    // 127 labels are a name, 128 are too long.
    for (labels, good) in [(127, true), (128, false)] {
        let name = [[1, b'a'].repeat(labels), vec![0]].concat();
        let message = [&header[..], &name, &question].concat();
        assert_eq!(
            matches!(read(&message), Read::Question(_)),
            good,
            "{labels}"
        );
    }
}

#[test]
fn no_byte_of_a_name_is_taken_for_a_dot() {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let label = b"\x0ca.b\0\xff \\\"@*\n";
    let length = u8::try_from(label.len()).unwrap();
    let message = [
        &header[..],
        &[length],
        &label[..],
        &[4],
        b"test",
        &[0, 0, 1, 0, 1],
    ]
    .concat();
    let name = question(&message).name();
    assert!(name.is_ascii() && name.ends_with(".test"), "{name}");
    assert!(name.contains("a\\046b\\000\\255\\032"), "{name}");
    assert!(crate::policy::Host::parse(&name).is_err(), "{name}");
}

/// What holds of every message whatsoever.
fn holds(message: &[u8]) {
    match read(message) {
        Read::Nothing => assert!(message.len() < 12 || message[2] & RESPONSE != 0),
        Read::Reply(answer) => {
            assert!((12..=512).contains(&answer.len()));
            assert_eq!(answer[..2], message[..2]);
            assert_eq!(answer[2] & RESPONSE, RESPONSE);
        }
        Read::Question(question) => {
            let many = [addresses(100), vec!["2001:db8::1".parse().unwrap(); 100]].concat();
            for (over, limit) in [(Transport::Udp, MAX_DATAGRAM), (Transport::Tcp, 4096)] {
                for answer in [
                    question.answer(&many, LIFE, over),
                    question.refuse(ResponseCode::NXDomain, over),
                ] {
                    assert!((12..=limit).contains(&answer.len()), "{}", answer.len());
                    assert_eq!(answer[..2], message[..2]);
                    let parsed = Message::from_vec(&answer).unwrap();
                    assert_eq!(parsed.metadata.message_type, MessageType::Response);
                    assert_eq!(parsed.queries[0].name(), question.query.name());
                }
            }
            assert!(question.name().is_ascii() && !question.wanted().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_answered(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        holds(&message);
    }

    #[test]
    fn any_bytes_after_the_header_of_a_question_are_answered(
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        additional in 0..4_u8,
    ) {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional];
        holds(&[&header[..], &rest].concat());
    }

    #[test]
    fn a_question_with_scars_is_answered(
        name in "[a-zA-Z0-9_-]{1,63}(\\.[a-zA-Z0-9_-]{1,60}){0,3}",
        kind in any::<u16>(),
        edns in proptest::option::of(any::<u16>()),
        scars in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut message = bytes(&format!("{name}."), RecordType::from(kind), edns);
        for (at, value) in scars {
            let at = at.index(message.len());
            message[at] = value;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        holds(&message);
    }
}
