//! Whatever a client sends, reading it ends; what is answered is a response to it, within its limits. Knows only the header.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use gateway::dns::{MAX_ANSWERS, MAX_DATAGRAM, Read, Transport, read};
use libfuzzer_sys::fuzz_target;

/// An IPv6 record with its name compressed, and the header, question and OPT around all of them.
const MOST: usize = MAX_ANSWERS * 28 + 12 + 259 + 11;

fuzz_target!(|message: &[u8]| match read(message) {
    Read::Nothing => assert!(message.len() < 12 || message[2] & 0x80 != 0),
    Read::Reply(answer) => is_response(&answer, message, 512),
    Read::Question(question) => {
        assert!(question.name().is_ascii());
        assert!(!question.wanted().is_empty());
        let addresses: Vec<IpAddr> = (0..=u8::MAX)
            .flat_map(|n| [IpAddr::from([192, 0, 2, n]), IpAddr::from([n; 16])])
            .collect();
        let answer = |over| question.answer(&addresses, Duration::from_secs(60), over);
        is_response(&answer(Transport::Udp), message, MAX_DATAGRAM);
        is_response(&answer(Transport::Tcp), message, MOST);
    }
});

fn is_response(answer: &[u8], message: &[u8], most: usize) {
    assert!((12..=most).contains(&answer.len()), "{}", answer.len());
    assert_eq!(answer[..2], message[..2], "another id");
    assert!(answer[2] & 0x80 != 0, "no response");
}
