//! Says whether a secret can be read out of a text, by reading: at each place it undoes escapes one
//! by one and compares. Slow, plain, and with nothing in common with the automaton.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Is the secret in the text, in any mixture of spellings or in base64?
pub(super) fn can_read(text: &[u8], secret: &[u8]) -> bool {
    let mut wanted = vec![secret.to_vec()];
    for before in 0..3 {
        // The digits that the secret alone decides.
        let digits = (before * 8usize).div_ceil(6)..(before + secret.len()) * 8 / 6;
        let whole = [&vec![0; before][..], secret].concat();
        for encoded in [
            STANDARD_NO_PAD.encode(&whole),
            URL_SAFE_NO_PAD.encode(&whole),
        ] {
            wanted.push(encoded.as_bytes()[digits.clone()].to_vec());
        }
    }
    (0..text.len()).any(|at| wanted.iter().any(|wanted| reads(&text[at..], wanted)))
}

fn reads(text: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else {
        return true;
    };
    let next = |spelled: usize, read: usize| reads(&text[spelled..], &wanted[read..]);
    if text.first() == Some(first) && next(1, 1) {
        return true;
    }
    match text {
        [b'%', high, low, ..] => hex(&[*high, *low]) == Some(u32::from(*first)) && next(3, 1),
        [b'\\', b'u', rest @ ..] => {
            let Some(unit) = rest.get(..4).and_then(hex) else {
                return false;
            };
            let pair = rest.get(6..10).filter(|_| rest.get(4..6) == Some(b"\\u"));
            let other = pair.and_then(hex).unwrap_or_default();
            let units = [u16::try_from(unit).unwrap(), u16::try_from(other).unwrap()];
            let (character, spelled) = match char::from_u32(unit) {
                Some(character) => (character, 6),
                None => match char::decode_utf16(units).next() {
                    Some(Ok(character)) => (character, 12),
                    _ => return false,
                },
            };
            let mut raw = [0; 4];
            let raw = character.encode_utf8(&mut raw).as_bytes();
            wanted.starts_with(raw) && next(spelled, raw.len())
        }
        [b'\\', short, ..] => {
            let meant = match short {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'"' | b'\\' | b'/' => *short,
                _ => return false,
            };
            meant == *first && next(2, 1)
        }
        _ => false,
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value * 16 + char::from(*digit).to_digit(16)?)
    })
}
