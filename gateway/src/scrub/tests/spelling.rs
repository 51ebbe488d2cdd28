//! Random secrets and random spellings of them. Knows nothing of how they are found.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// SplitMix64: the same numbers for the same seed, everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Less than `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let value = usize::try_from(self.next() >> 1).unwrap_or_default();
        value % limit
    }

    pub(super) fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a secret is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As keys are.
    Key,
    /// Signs that encodings treat in their own ways.
    Signs,
    /// UTF-8.
    Text,
    /// Escapes of escapes: what is found may be longer than what was written.
    Escapes,
}

pub(super) fn secret(random: &mut Random, kind: Kind) -> Vec<u8> {
    let alphabet: &[char] = match kind {
        Kind::Key => &[
            'a', 'Q', 'z', 'B', '0', '7', '-', '_', 'k', 'M', '.', '9', 'e', 'X', 'h', '4',
        ],
        Kind::Signs => &[
            'a', '"', '/', '+', '=', '<', '&', '~', '\t', '\n', 'Z', '1', '?', '>', ' ', '5',
        ],
        Kind::Text => &['p', 'ä', '漢', '😀', 'Ω', 'x', '1', 'ß', '\u{9f}', '!'],
        Kind::Escapes => &['%', '\\', '2', '5', 'u', '0', 'C', 'c', '/', '6'],
    };
    let length = if random.one_in(8) {
        64 + random.below(64)
    } else {
        8 + random.below(32)
    };
    let text: String = (0..length).map(|_| random.pick(alphabet)).collect();
    text.into_bytes()
}

/// A spelling of the secret by itself.
pub(super) fn spelled(random: &mut Random, secret: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(secret).unwrap();
    // All in one way, or each character in its own.
    let one_way = random.one_in(2).then(|| random.below(4));
    let mut out = Vec::new();
    for character in text.chars() {
        let way = one_way.unwrap_or_else(|| random.below(4));
        character_in(random, character, way, &mut out);
    }
    out
}

fn character_in(random: &mut Random, character: char, way: usize, out: &mut Vec<u8>) {
    let mut raw = [0; 4];
    let raw = character.encode_utf8(&mut raw).as_bytes();
    let short = "\"\"\\\\//b\u{8}f\u{c}n\nr\rt\t"
        .as_bytes()
        .chunks(2)
        .find(|pair| [pair[1]] == *raw);
    match (way, short) {
        (0, _) => out.extend_from_slice(raw),
        (1, _) => {
            for byte in raw {
                percent(random, *byte, out);
            }
        }
        (2, Some(pair)) => out.extend([b'\\', pair[0]]),
        (2 | 3, _) => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let digits = format!("{unit:04x}");
                let digits: String = digits
                    .chars()
                    .map(|digit| either_case(random, digit))
                    .collect();
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(digits.as_bytes());
            }
        }
        _ => unreachable!(),
    }
}

fn percent(random: &mut Random, byte: u8, out: &mut Vec<u8>) {
    out.push(b'%');
    let digits = format!("{byte:02x}");
    out.extend(
        digits
            .chars()
            .map(|digit| either_case(random, digit))
            .map(|digit| u8::try_from(digit).unwrap()),
    );
}

fn either_case(random: &mut Random, digit: char) -> char {
    if random.one_in(2) {
        digit.to_ascii_uppercase()
    } else {
        digit
    }
}

/// Base64 of the secret within something else: the digits before it, those that have bits of it, and
/// the rest.
pub(super) fn encoded(random: &mut Random, secret: &[u8]) -> [Vec<u8>; 3] {
    let noise = |random: &mut Random| -> Vec<u8> {
        (0..random.below(8))
            .map(|_| random.pick(b"~user:\x00\xffnoise"))
            .collect()
    };
    let (before, after) = (noise(random), noise(random));
    let whole = [&before[..], secret, &after].concat();
    let engine = random.pick(&[&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]);
    let digits = engine.encode(whole).into_bytes();
    let from = before.len() * 8 / 6;
    let to = ((before.len() + secret.len()) * 8).div_ceil(6);
    let way = random.below(4);
    let mut middle = Vec::new();
    for digit in &digits[from..to] {
        let way = if random.one_in(12) { way } else { 0 };
        character_in(random, char::from(*digit), way, &mut middle);
    }
    [digits[..from].to_vec(), middle, digits[to..].to_vec()]
}
