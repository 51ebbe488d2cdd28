//! What was found a moment ago, on this processor: agents go to the same few places again and again, and each look-up
//! is memory that has gone cold since. Knows no rules and no paths itself. What a rule set says never changes, and its
//! number never comes back: nothing that is kept of it is ever wrong, and nobody has to take it out.

use crate::{atomic::exchange, maps::REMEMBERED};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use gateway_common::{Address, Image, is_same};

/// As many places as an agent goes to at a time, and more. A power of two.
const SLOTS: usize = 64;

/// One in so many connections of the same program is looked up all the same, and one after so long, jiffies (a quarter of a
/// second at most): its path must not count as one that nobody asks for, and make way for others.
const CONNECTIONS: u64 = 16;
const JIFFIES: u64 = 25;

/// All of it, in one piece.
#[repr(C)]
pub struct Remembered {
    /// Which program connected last, whichever sandbox's.
    image: Image,
    /// How often since it was looked up.
    times: u64,
    /// When that was, jiffies.
    since: u64,
    allowed: [Slot; SLOTS],
}

/// A place, port and protocol that a rule set allows.
#[derive(Clone, Copy)]
pub struct Question {
    pub address: Address,
    pub ruleset: u32,
    pub port: u16,
    pub protocol: u8,
}

/// One of them, of half a cache line. Whoever interrupts, or is run instead for a while, may look and write here too.
#[repr(C)]
struct Slot {
    /// Odd while somebody writes; another one after each time.
    version: u64,
    address: Address,
    ruleset: u32,
    port: u16,
    protocol: u16,
}

/// Is it known that they do? If not, the rules are to be asked.
#[inline(always)]
pub fn is_allowed(question: &Question) -> bool {
    let Some(slot) = slot_of(question) else {
        return false;
    };
    // SAFETY: within a live map value. Volatile: read once each, and the version before and after all else.
    unsafe {
        let version = read_volatile(addr_of!((*slot).version));
        let address = read_volatile(addr_of!((*slot).address));
        let is_it = is_same(&address, &question.address)
            && read_volatile(addr_of!((*slot).ruleset)) == question.ruleset
            && read_volatile(addr_of!((*slot).port)) == question.port
            && read_volatile(addr_of!((*slot).protocol)) == u16::from(question.protocol);
        is_it && version & 1 == 0 && read_volatile(addr_of!((*slot).version)) == version
    }
}

/// They do.
#[inline(always)]
pub fn remember(question: &Question) {
    let Some(slot) = slot_of(question) else {
        return;
    };
    // SAFETY: within a live map value, and from `exchange` on this program's until the version is even again. Volatile keeps
    // the stores in their order, which is all that others on this processor see.
    unsafe {
        let version = read_volatile(addr_of!((*slot).version));
        if version & 1 != 0
            || exchange(addr_of_mut!((*slot).version), version, version + 1) != version
        {
            return;
        }
        write_volatile(addr_of_mut!((*slot).address), question.address);
        write_volatile(addr_of_mut!((*slot).ruleset), question.ruleset);
        write_volatile(addr_of_mut!((*slot).port), question.port);
        write_volatile(addr_of_mut!((*slot).protocol), question.protocol.into());
        write_volatile(addr_of_mut!((*slot).version), version + 2);
    }
}

/// Where it is, if it is anywhere.
#[inline(always)]
fn slot_of(question: &Question) -> Option<*mut Slot> {
    /// 2³² divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    const GOLDEN: u32 = 0x9e37_79b9;
    let [a, b, c, d] = question.address;
    let word = a ^ b ^ c ^ d ^ question.ruleset ^ (u32::from(question.port) << 16);
    let index = (word.wrapping_mul(GOLDEN) >> (u32::BITS - SLOTS.ilog2())) as usize;
    let here = REMEMBERED.get_ptr_mut(0)?;
    // SAFETY: within a live map value: there are no more slots than the bits that are left can name.
    Some(unsafe {
        addr_of_mut!((*here).allowed)
            .cast::<Slot>()
            .add(index & (SLOTS - 1))
    })
}

/// May the path of this program be unknown, which connects now? It is not, unless thousands of others have connected since it
/// was looked up.
#[inline(always)]
pub fn may_be_unknown(image: &Image) -> bool {
    let Some(here) = REMEMBERED.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: the value belongs to this CPU, and cgroup programs do not migrate while they run. Whoever interrupts this may
    // have a path looked up once more, or later.
    let here = unsafe { &mut *here };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_jiffies64() };
    let differs = (here.image.started ^ image.started) != 0
        || (here.image.tgid ^ image.tgid) | (here.image.execs ^ image.execs) != 0;
    here.times += 1;
    if differs || here.times >= CONNECTIONS || now.wrapping_sub(here.since) > JIFFIES {
        here.image = *image;
        here.times = 0;
        here.since = now;
        return true;
    }
    false
}
