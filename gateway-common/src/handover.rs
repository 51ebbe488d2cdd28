//! How the record of a redirected connection gets from the kernel, which writes it as the SYN leaves, to the gateway, which
//! takes it when it accepts: memory that both see, so that neither waits for the other. A record lies in one of the places
//! that its key may have, mostly the first: what is in use is little, and close together. Where all of them are in use, a
//! new one takes the place of another: nothing is ever full.

use super::{Address, Flow};

/// Finds the record of a redirected connection from what `accept()` shows. The source port alone
/// would collide across namespaces and source addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Network namespace cookie.
    pub netns: u64,
    /// Source address.
    pub address: Address,
    /// [`Settings::sandbox`](super::Settings::sandbox): sandboxes that share a namespace have listeners of their own, so
    /// the same source address and port may be in use by each.
    pub sandbox: u32,
    /// Source port, host order.
    pub port: u16,
}

impl FlowKey {
    /// The first place that the record may have: those of ports that follow one another do so too, as the kernel chooses
    /// them for connections (every other).
    #[inline(always)]
    pub const fn first(&self) -> u32 {
        /// 2⁶⁴ divided by the golden ratio: what is almost the same lands far apart (Knuth, The Art of Computer
        /// Programming, volume 3, section 6.4).
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [a, b, c, d] = self.address;
        let address = (a ^ c) as u64 | ((b ^ d) as u64) << 32;
        let owner =
            (self.netns ^ address.rotate_left(24)).wrapping_mul(GOLDEN) ^ self.sandbox as u64;
        let owner = (owner.wrapping_mul(GOLDEN) >> 32) as u32;
        (owner + (self.port >> 1) as u32) % Handover::KEYS
    }
}

/// A record on its way, of two cache lines. The kernel writes it from its first field to its last; the gateway reads it
/// from its last to its first, believes what has the same number in both, and then puts zero into both. Two numbers that
/// differ are of a record that is being written: nobody reads it, and nobody else writes there, however long it takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Handover {
    /// The record's number among those with the same first place, from one on; zero if the place is free.
    pub begun: u64,
    /// Source address.
    pub address: Address,
    /// Whose it is and where it wanted to go; with the source port.
    pub flow: Flow,
    /// As `begun`, when all of it is written.
    pub ended: u64,
}

impl Handover {
    /// What [`FlowKey::first`] tells apart. A power of two, and that many places further on is the next that a record may
    /// have.
    pub const KEYS: u32 = 1024;
    /// Places that a record may have. A power of two, at most 64.
    pub const PLACES: u32 = 16;
}

/// What is said of the places as a whole.
#[repr(C)]
pub struct HandoverHead {
    /// Bit `n` is set for good when a record has found no place before its `n`th.
    pub used: u64,
    /// Always zero: the rest of a cache line.
    pub reserved: [u64; 7],
    /// How many records there were, by first place.
    pub numbers: [u64; Handover::KEYS as usize],
}

#[cfg(feature = "userspace")]
impl Handover {
    /// Words of a record.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// The record that these words are.
    #[expect(unsafe_code, reason = "a plain value from as many bytes")]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        // SAFETY: `#[repr(C)]` of integers without padding, and of the same size.
        unsafe { core::mem::transmute(words) }
    }
}
