//! What the fuzz targets `sniff` and `client_hello` hold on to, for a few seconds of inputs that are the same each time:
//! where cargo-fuzz is not installed this is all the fuzzing there is. Knows no protocol beyond the record layer.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::hello::{hellos, records};
use crate::sniff::{MAX_SNIFF, Progress, Sniffed, Sniffer, sniff};

const HANDSHAKE: u8 = 22;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x9057_e211),
        ..ProptestConfig::default()
    }
}

/// Bytes of no kind, and such as begin like something and then go on as they like.
fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..300);
    let beginnings = prop::sample::select(vec![
        &b"\x16\x03\x01"[..],
        b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03",
        b"GET / HTTP/1.1\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost: ",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        b"SSH-",
    ]);
    let text = "[ -~\r\n\t]{0,120}(\r\n\r\n)?".prop_map(String::into_bytes);
    let tail = prop_oneof![any_bytes.clone(), text];
    let begun = (beginnings, tail).prop_map(|(beginning, tail)| [beginning, &tail].concat());
    prop_oneof![1 => any_bytes, 3 => begun, 1 => hellos()]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_opening_of_any_bytes_has_one_answer_and_plain_names(input in inputs()) {
        let whole = sniff(&input);
        let mut sniffer = Sniffer::default();
        let mut settled = None;
        for len in 0..=input.len() {
            let progress = sniffer.advance(&input[..len]);
            if let Some(settled) = &settled {
                prop_assert_eq!(&progress, settled, "changed at {}", len);
            } else if progress != Progress::NeedMore {
                prop_assert_eq!(&sniff(&input[..len]), &progress, "at {}", len);
                settled = Some(progress);
            }
        }
        prop_assert_eq!(&settled.unwrap_or(Progress::NeedMore), &whole);
        if let Progress::Done(Sniffed::Http1(head)) = whole {
            prop_assert!(head.target.is_ascii() && !head.target.contains([' ', '\r', '\n', '\0']));
            if let Some(authority) = head.authority {
                prop_assert!(!authority.host().is_empty());
                prop_assert!(!authority.contains(['@', '/', '\\', '%', ' ', ',']));
            }
        }
    }

    #[test]
    fn a_handshake_of_any_bytes_is_read_alike_however_it_is_cut(
        hello in prop_oneof![hellos().prop_map(unwrapped), prop::collection::vec(any::<u8>(), 1..300)],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in 1_usize..=256,
    ) {
        let mut handshake = hello;
        for (at, to) in changes {
            let at = at.index(handshake.len());
            handshake[at] = to;
        }
        let cut = records(&handshake, size);
        prop_assume!(cut.len() < MAX_SNIFF);
        let whole = sniff(&records(&handshake, 1 << 14));
        prop_assert_eq!(&sniff(&cut), &whole, "in records of {}", size);
        if let Progress::Done(sniffed) = whole {
            let Sniffed::Tls(hello) = sniffed else {
                return Err(TestCaseError::fail("a handshake record was taken for something else"));
            };
            if let Some(name) = &hello.server_name {
                prop_assert!(name.len() <= 254 && name.is_ascii());
                prop_assert!(name.parse::<std::net::IpAddr>().is_err());
            }
            prop_assert!(hello.alpn.iter().all(|protocol| (1..=255).contains(&protocol.len())));
        }
    }
}

/// The handshake bytes of records; what is no whole record is left as it is.
fn unwrapped(sent: Vec<u8>) -> Vec<u8> {
    let mut handshake = Vec::new();
    let mut rest = sent.as_slice();
    while let [HANDSHAKE, _, _, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        handshake.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    if handshake.is_empty() {
        vec![1]
    } else {
        handshake
    }
}
