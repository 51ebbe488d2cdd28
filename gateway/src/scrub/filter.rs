//! Leaves most of a text alone: says where a match may begin, by two bytes at a time. It refuses to know what a match is;
//! what it lets pass is for the automaton to decide.

use zeroize::Zeroize;

/// 65,536 bits, one for every two bytes: 8 KiB.
const WORDS: usize = 65_536 / 64;

/// How far the looks at a text are apart at most. Matches have at least one byte more.
pub(super) const STRIDE: usize = 15;

/// Of the two-byte sequences that matches have.
pub(super) struct Filter {
    /// Those that one can begin with.
    starts: Pairs,
    /// Those among the first `stride`, of which each match shows one to every look.
    early: Pairs,
    stride: usize,
}

impl Filter {
    /// Of matches that are longer than `stride` bytes.
    pub(super) fn new(stride: usize) -> Self {
        Self {
            starts: Pairs::default(),
            early: Pairs::default(),
            stride: stride.clamp(1, STRIDE),
        }
    }

    /// A match may have these bytes at the place `at` and the one after it.
    pub(super) fn admit(&mut self, at: usize, one: u8, other: u8) {
        if at == 0 {
            self.starts.set(one, other);
        }
        if at < self.stride {
            self.early.set(one, other);
        }
    }

    /// The first place in `from..until` where a match that lies within `text` may begin.
    pub(super) fn candidate(&self, text: &[u8], from: usize, until: usize) -> Option<usize> {
        let mut at = from;
        while at < until {
            // Whatever begins in at..at + stride has these two bytes.
            let look = at + self.stride - 1;
            let &[one, other] = text.get(look..look + 2)? else {
                return None;
            };
            if self.early.has(one, other) {
                let last = (look + 1).min(until);
                let begins = text.get(at..=last)?.windows(2);
                let found = begins.into_iter().position(|two| match *two {
                    [one, other] => self.starts.has(one, other),
                    _ => false,
                });
                if let Some(found) = found {
                    return Some(at + found);
                }
            }
            at = look + 1;
        }
        None
    }
}

/// A set of two-byte sequences.
struct Pairs(Box<[u64; WORDS]>);

impl Pairs {
    fn set(&mut self, one: u8, other: u8) {
        let (word, bit) = place(one, other);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn has(&self, one: u8, other: u8) -> bool {
        let (word, bit) = place(one, other);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn place(one: u8, other: u8) -> (usize, u64) {
    let bit = usize::from(one) << 8 | usize::from(other);
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two letters, so that a text is full of what is nearly a match.
        #[test]
        fn no_match_is_passed_by(
            pattern in "[ab]{16,20}",
            before in "[ab]{0,48}",
            after in "[ab]{0,48}",
            from in 0..48_usize,
        ) {
            let mut filter = Filter::new(STRIDE);
            for (at, two) in pattern.as_bytes().windows(2).enumerate() {
                filter.admit(at, two[0], two[1]);
            }
            let text = format!("{before}{pattern}{after}").into_bytes();
            let at = before.len();
            let from = from.min(at);
            let found = filter.candidate(&text, from, at + 1);
            prop_assert!(found.is_some_and(|found| (from..=at).contains(&found)));
            prop_assert!(filter.candidate(&text, from, from).is_none());
        }
    }
}
