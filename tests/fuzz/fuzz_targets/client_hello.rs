//! The input is a handshake message; however it is cut into records, the same is read from it. Knows only the record layer.

#![no_main]

use gateway::sniff::{MAX_SNIFF, Progress, Sniffed, sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&size, handshake)) = input.split_first() else {
        return;
    };
    let size = usize::from(size) + 1;
    let cut = records(handshake, size);
    if cut.len() >= MAX_SNIFF {
        return;
    }
    let whole = sniff(&records(handshake, 1 << 14));
    assert_eq!(sniff(&cut), whole, "in records of {size}");
    if let Progress::Done(sniffed) = &whole {
        let Sniffed::Tls(hello) = sniffed else {
            panic!("a handshake record was taken for {sniffed:?}");
        };
        if let Some(name) = &hello.server_name {
            assert!(
                name.len() <= 254 && name.is_ascii() && name.parse::<std::net::IpAddr>().is_err()
            );
        }
        assert!(
            hello
                .alpn
                .iter()
                .all(|protocol| (1..=255).contains(&protocol.len()))
        );
    }
});

fn records(handshake: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let len = u16::try_from(fragment.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        [&[22, 3, 1], &len[..], fragment].concat()
    };
    // Even without a fragment the first bytes say TLS, so that the two cuts begin alike.
    if handshake.is_empty() {
        vec![22, 3, 1]
    } else {
        handshake.chunks(size).flat_map(record).collect()
    }
}
