//! An opening, whole and piece by piece: the answers agree, and once there is one it stays. Knows no protocol.

#![no_main]

use gateway::sniff::{Progress, Sniffed, Sniffer, sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = sniff(input);
    let mut sniffer = Sniffer::default();
    let mut settled = None;
    for len in 0..=input.len() {
        let progress = sniffer.advance(&input[..len]);
        if let Some(settled) = &settled {
            assert_eq!(&progress, settled, "changed at {len}");
        } else if progress != Progress::NeedMore {
            assert_eq!(sniff(&input[..len]), progress, "at {len}");
            settled = Some(progress);
        }
    }
    assert_eq!(settled.unwrap_or(Progress::NeedMore), whole);
    if let Progress::Done(Sniffed::Http1(head)) = whole {
        assert!(head.target.is_ascii() && !head.target.contains([' ', '\r', '\n', '\0']));
        if let Some(authority) = head.authority {
            assert!(
                !authority.host().is_empty()
                    && !authority.contains(['@', '/', '\\', '%', ' ', ','])
            );
        }
    }
});
