//! The automaton that finds secrets in every spelling. Each byte of a pattern may be written raw,
//! percent-encoded or as a JSON escape, whatever its neighbours are: the automaton has one path a
//! spelling between each two bytes, so that any mixture is one of its walks.
//!
//! It refuses to know where text comes from and what becomes of a match.

use super::filter::{Filter, STRIDE};
use std::collections::HashMap;
use zeroize::Zeroize;

/// Where every pattern ends, and where every pattern starts.
const ACCEPT: u32 = 0;
const START: u32 = 1;

/// Finds the patterns that it was built with. Read-only, and shared by every body that needs it.
pub(super) struct Automaton {
    /// The edges of node `n` are `edges[first[n]..first[n + 1]]`.
    first: Vec<usize>,
    edges: Vec<Edge>,
    /// The nodes after a first byte.
    starts: Vec<Vec<u32>>,
    /// Few places of a text pass.
    filter: Filter,
    /// No match is longer than this.
    reach: usize,
    /// No match goes past one of these bytes.
    between: Between,
}

/// To `to` by this byte.
struct Edge {
    byte: u8,
    to: u32,
}

/// Working memory of [`Automaton::longest`], kept between calls.
#[derive(Default)]
pub(super) struct Threads {
    live: Vec<u32>,
    next: Vec<u32>,
}

impl Automaton {
    /// The first place in `from..until` where a match that lies within `text` may begin.
    pub(super) fn candidate(&self, text: &[u8], from: usize, until: usize) -> Option<usize> {
        self.filter.candidate(text, from, until)
    }

    /// How much of a text can be decided before more of it comes: all but its last word, or the last
    /// [`reach`](Self::reach) bytes of that.
    pub(super) fn settled(&self, text: &[u8]) -> usize {
        let least = text.len().saturating_sub(self.reach);
        let tail = text.get(least..).unwrap_or_default();
        least + self.between.last_in(tail).map_or(0, |at| at + 1)
    }

    /// The length of the longest match that begins at the beginning of `text`.
    pub(super) fn longest(&self, text: &[u8], threads: &mut Threads) -> Option<usize> {
        let Threads { live, next } = threads;
        let mut end = None;
        live.clear();
        for (at, byte) in text.iter().enumerate() {
            if at == 0 {
                live.extend_from_slice(self.after(*byte));
            } else {
                next.clear();
                for node in live.iter() {
                    for to in leads(self.edges(*node), *byte) {
                        if to == ACCEPT {
                            end = Some(at + 1);
                        } else if !next.contains(&to) {
                            next.push(to);
                        }
                    }
                }
                std::mem::swap(live, next);
            }
            if live.is_empty() {
                break;
            }
        }
        end
    }

    /// By walking through what matches begin with.
    fn filter(&self) -> Filter {
        let mut levels = vec![vec![START]];
        while let Some(level) = levels.last()
            && levels.len() <= STRIDE
        {
            let steps = level.iter().flat_map(|node| self.edges(*node));
            let mut next: Vec<u32> = steps.map(|edge| edge.to).collect();
            next.sort_unstable();
            next.dedup();
            if next.contains(&ACCEPT) {
                break;
            }
            levels.push(next);
        }
        // As many steps as a match takes at least, but one.
        let mut filter = Filter::new(levels.len() - 1);
        for (at, level) in levels.iter().enumerate() {
            for edge in level.iter().flat_map(|node| self.edges(*node)) {
                for second in self.edges(edge.to) {
                    filter.admit(at, edge.byte, second.byte);
                }
            }
        }
        filter
    }

    fn after(&self, byte: u8) -> &[u32] {
        self.starts
            .get(usize::from(byte))
            .map_or(&[], Vec::as_slice)
    }

    fn edges(&self, node: u32) -> &[Edge] {
        let node = usize::try_from(node).unwrap_or(usize::MAX);
        match self.first.get(node..=node.saturating_add(1)) {
            Some(&[from, to]) => self.edges.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        for edge in &mut self.edges {
            edge.byte.zeroize();
        }
    }
}

/// Takes patterns and makes an [`Automaton`] of them.
pub(super) struct Builder {
    edges: Vec<(u32, Edge)>,
    nodes: u32,
    /// The nodes inside escapes. Those that begin alike share them, so that a `%` leaves one thread.
    inside: HashMap<(u32, Vec<u8>), u32>,
    longest: usize,
    /// Those that the secrets have.
    used: [bool; 256],
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            edges: Vec::new(),
            nodes: START + 1,
            inside: HashMap::new(),
            longest: 0,
            used: [false; 256],
        }
    }

    /// The bytes themselves. Where they are UTF-8, a JSON escape stands for a whole character.
    pub(super) fn literal(&mut self, secret: &[u8]) {
        self.longest = self.longest.max(secret.len());
        for byte in secret {
            self.used[usize::from(*byte)] = true;
        }
        let stops = self.stops(secret.len());
        for ((from, to), byte) in steps(&stops).zip(secret) {
            self.byte(from, *byte, to);
            match *byte {
                // As forms have it.
                b' ' => self.path(from, &[b"+"], to),
                0x80.. => self.latin1(from, *byte, to),
                _ => {}
            }
        }
        for chunk in characters(secret) {
            let (at, character) = chunk;
            let (from, to) = (stops.get(at), stops.get(at + character.len_utf8()));
            if let (Some(from), Some(to), false) = (from, to, character.is_ascii()) {
                let units = character.encode_utf16(&mut [0; 2]).to_vec();
                self.units(*from, &units, *to);
            }
        }
    }

    /// What base64 (RFC 4648, both alphabets) makes of the bytes when `before` bytes stand before
    /// them, modulo 3. A digit at an edge that shares bits with the neighbour may be any that has
    /// the right ones. Padding is no part of the match: it says nothing.
    pub(super) fn base64(&mut self, secret: &[u8], before: usize) {
        let digits = base64_digits(secret, before);
        let stops = self.stops(digits.len());
        for ((from, to), digit) in steps(&stops).zip(&digits) {
            for value in (0..64u8).filter(|value| value & digit.known == digit.bits) {
                for byte in alphabet(value) {
                    self.byte(from, byte, to);
                }
            }
        }
    }

    pub(super) fn build(mut self) -> Automaton {
        self.edges.sort_by_key(|(from, _)| *from);
        let mut first = Vec::new();
        for node in 0..=self.nodes {
            first.push(self.edges.partition_point(|(from, _)| *from < node));
        }
        let used = |byte: &u8| self.used[usize::from(*byte)];
        let is_free = |set: &Between| !(0..=u8::MAX).filter(used).any(|byte| set.has(byte));
        let between = [Between::Words, Between::Lines].into_iter().find(is_free);
        let mut automaton = Automaton {
            first,
            edges: self.edges.into_iter().map(|(_, edge)| edge).collect(),
            starts: vec![Vec::new(); 256],
            filter: Filter::new(STRIDE),
            reach: reach(self.longest),
            between: between.unwrap_or(Between::Nothing),
        };
        for byte in 0..=u8::MAX {
            let mut after: Vec<u32> = leads(automaton.edges(START), byte).collect();
            after.sort_unstable();
            after.dedup();
            if let Some(starts) = automaton.starts.get_mut(usize::from(byte)) {
                *starts = after;
            }
        }
        automaton.filter = automaton.filter();
        automaton
    }

    /// The nodes between `length` bytes, with both ends.
    fn stops(&mut self, length: usize) -> Vec<u32> {
        let mut stops = vec![START];
        stops.extend((1..length).map(|_| self.node()));
        stops.push(ACCEPT);
        stops
    }

    fn node(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Every spelling of one byte, as text has it.
    fn byte(&mut self, from: u32, byte: u8, to: u32) {
        self.octet(from, byte, to);
        if byte.is_ascii() {
            self.units(from, &[u16::from(byte)], to);
        }
        // RFC 8259 §7.
        let short = match byte {
            b'"' | b'\\' | b'/' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => return,
        };
        self.path(from, &[b"\\", &[short]], to);
    }

    /// Raw, or percent-encoded (RFC 3986 §2.1).
    fn octet(&mut self, from: u32, byte: u8, to: u32) {
        self.path(from, &[&[byte]], to);
        self.path(from, &[b"%", hex(byte >> 4), hex(byte & 15)], to);
    }

    /// A byte above ASCII that somebody took for a character of Latin-1, as HTTP/1.1 had it.
    fn latin1(&mut self, from: u32, byte: u8, to: u32) {
        self.units(from, &[u16::from(byte)], to);
        let middle = self.node();
        self.octet(from, 0xc0 | byte >> 6, middle);
        self.octet(middle, 0x80 | byte & 0x3f, to);
    }

    /// `\uXXXX`, one for each UTF-16 code unit.
    fn units(&mut self, from: u32, units: &[u16], to: u32) {
        let mut steps: Vec<&[u8]> = Vec::new();
        for unit in units {
            steps.extend([b"\\".as_slice(), b"u"]);
            for byte in unit.to_be_bytes() {
                steps.extend([hex(byte >> 4), hex(byte & 15)]);
            }
        }
        self.path(from, &steps, to);
    }

    /// One step after the other, each by any of its bytes.
    fn path(&mut self, mut from: u32, steps: &[&[u8]], to: u32) {
        let Some((last, before)) = steps.split_last() else {
            return;
        };
        for step in before {
            let key = (from, step.to_vec());
            from = match self.inside.get(&key) {
                Some(known) => *known,
                None => {
                    let next = self.node();
                    self.step(from, step, next);
                    self.inside.insert(key, next);
                    next
                }
            };
        }
        self.step(from, last, to);
    }

    fn step(&mut self, from: u32, bytes: &[u8], to: u32) {
        let edges = bytes.iter().map(|byte| (from, Edge { byte: *byte, to }));
        self.edges.extend(edges);
    }
}

/// What parts pieces of text from each other. Fixed sets, so that they tell little of a secret.
#[derive(Clone, Copy)]
enum Between {
    /// What neither a token (RFC 6750 §2.1) nor a user's name, a colon and a password (RFC 7617), nor any of their
    /// spellings is made of as a rule.
    Words,
    /// Control characters: no field value has one (RFC 9110 §5.5), and lines and events end in one.
    Lines,
    /// For a secret with control characters of its own.
    Nothing,
}

impl Between {
    /// The last place in `text` where one of them is.
    fn last_in(self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Words => last(text, parts_words),
            Self::Lines => last(text, parts_lines),
            Self::Nothing => None,
        }
    }

    fn has(self, byte: u8) -> bool {
        self.last_in(&[byte]).is_some()
    }
}

/// A block at a time, which the compiler looks at as a whole: a text without words is long.
fn last(text: &[u8], is_one: impl Fn(u8) -> bool) -> Option<usize> {
    const BLOCK: usize = 64;
    let (head, blocks) = text.as_rchunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate().rev() {
        if block.iter().fold(false, |any, byte| any | is_one(*byte)) {
            let found = block.iter().rposition(|byte| is_one(*byte))?;
            return Some(head.len() + index * BLOCK + found);
        }
    }
    head.iter().rposition(|byte| is_one(*byte))
}

/// Without a branch.
#[inline(always)]
fn parts_words(byte: u8) -> bool {
    let mut is_one = !matches!(byte, 0x20..0x7f);
    for other in *b" \"'(),;<>[]{}" {
        is_one |= byte == other;
    }
    is_one
}

#[inline(always)]
fn parts_lines(byte: u8) -> bool {
    byte < 0x20
}

/// No spelling of so many bytes is longer: `\uXXXX` for each, or for each digit of their base64. A power of two,
/// so that it tells little of how long a secret is.
fn reach(secret: usize) -> usize {
    (8 * secret + 16).next_power_of_two().max(MIN_REACH)
}

/// What most credentials reach: 250 bytes.
const MIN_REACH: usize = 2048;

fn steps(stops: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    stops.iter().copied().zip(stops.iter().skip(1).copied())
}

fn leads(edges: &[Edge], byte: u8) -> impl Iterator<Item = u32> {
    edges
        .iter()
        .filter(move |edge| edge.byte == byte)
        .map(|edge| edge.to)
}

/// The characters of the UTF-8 parts, with their offsets.
fn characters(bytes: &[u8]) -> impl Iterator<Item = (usize, char)> {
    let mut at = 0;
    bytes.utf8_chunks().flat_map(move |chunk| {
        let from = at;
        at += chunk.valid().len() + chunk.invalid().len();
        chunk
            .valid()
            .char_indices()
            .map(move |(index, character)| (from + index, character))
    })
}

/// A hexadecimal digit in both cases.
fn hex(nibble: u8) -> &'static [u8] {
    const DIGITS: [&[u8]; 16] = [
        b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"aA", b"bB", b"cC", b"dD",
        b"eE", b"fF",
    ];
    DIGITS.get(usize::from(nibble)).copied().unwrap_or_default()
}

/// The bits of a base64 digit that a secret decides.
struct Digit {
    known: u8,
    bits: u8,
}

fn base64_digits(secret: &[u8], before: usize) -> Vec<Digit> {
    let (from, to) = (before * 8, (before + secret.len()) * 8);
    let bit = |at: usize| {
        let byte = secret.get((at - from) / 8).copied().unwrap_or_default();
        byte >> (7 - (at - from) % 8) & 1
    };
    (from / 6..to.div_ceil(6))
        .map(|digit| {
            let mut of = Digit { known: 0, bits: 0 };
            for at in digit * 6..digit * 6 + 6 {
                let known = (from..to).contains(&at);
                of.known = of.known << 1 | u8::from(known);
                of.bits = of.bits << 1 | if known { bit(at) } else { 0 };
            }
            of
        })
        .collect()
}

/// A base64 digit in both alphabets (RFC 4648 §4 and §5).
fn alphabet(value: u8) -> impl Iterator<Item = u8> {
    let (one, other) = match value {
        0..26 => (b'A' + value, None),
        26..52 => (b'a' + value - 26, None),
        52..62 => (b'0' + value - 52, None),
        62 => (b'+', Some(b'-')),
        _ => (b'/', Some(b'_')),
    };
    std::iter::once(one).chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_byte_that_parts_is_found_wherever_it_is(
            text in proptest::collection::vec(prop_oneof![9 => b'a'..b'e', 1 => any::<u8>()], 0..300),
        ) {
            let words = |byte: &u8| byte.is_ascii_control() || !byte.is_ascii() || b" \"'(),;<>[]{}".contains(byte);
            prop_assert_eq!(Between::Words.last_in(&text), text.iter().rposition(words));
            prop_assert_eq!(Between::Lines.last_in(&text), text.iter().rposition(|byte| *byte < 0x20));
            prop_assert_eq!(Between::Nothing.last_in(&text), None);
        }
    }
}
