//! Takes records out of the memory in which the kernel's programs leave them. Waits for nobody, and no system call is
//! needed.

use super::error::{KernelError, map_error};
use crate::sys::SharedWords;
use aya::maps::MapError;
use gateway_common::{Flow, FlowKey, Handover, capacity};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

type Place = [AtomicU64; Handover::WORDS];

/// The records that nobody has come for yet.
pub(super) struct Handovers {
    places: SharedWords,
    head: SharedWords,
}

impl Handovers {
    /// Those in the map `FLOWS`, and what `FLOWS_HEAD` says of them.
    pub(super) fn of_maps(
        flows: BorrowedFd<'_>,
        head: BorrowedFd<'_>,
    ) -> Result<Self, KernelError> {
        let shared = |map, words, name| {
            SharedWords::of_map(map, words)
                .map_err(|error| map_error(name, MapError::IoError(error)))
        };
        Ok(Self {
            places: shared(flows, capacity::FLOWS * Handover::WORDS, "FLOWS")?,
            // Nobody here needs the rest.
            head: shared(head, 1, "FLOWS_HEAD")?,
        })
    }

    /// Takes the record with this key, the last if there are several: of a SYN that was sent again, or of a connection
    /// from the same port that is gone.
    pub(super) fn take(&self, key: &FlowKey) -> Option<Flow> {
        let used = self.head.words().first()?.load(Ordering::Acquire);
        take(places(self.places.words()), used, key)
    }

    /// Forgets them all. What is written meanwhile is left alone, what is not finished after a moment is not: a gateway
    /// has died between giving the one half of a place back and the other.
    pub(super) fn clear(&self) {
        /// Longer than any program is held up.
        const MOMENT: Duration = Duration::from_millis(20);
        let mut unfinished = Vec::new();
        for place in places(self.places.words()) {
            let (begun, ended) = numbers(place);
            let number = ended.load(Ordering::Acquire);
            if number != 0 && free(place, number) {
                continue;
            }
            let begun_by = begun.load(Ordering::Acquire);
            if begun_by != 0 {
                unfinished.push((place, begun_by));
            }
        }
        if unfinished.is_empty() {
            return;
        }
        std::thread::sleep(MOMENT);
        for (place, begun_by) in unfinished {
            let (begun, ended) = numbers(place);
            if ended.load(Ordering::Acquire) == begun_by {
                continue;
            }
            begun
                .compare_exchange(begun_by, 0, Ordering::Release, Ordering::Relaxed)
                .ok();
        }
    }
}

fn take(places: &[Place], used: u64, key: &FlowKey) -> Option<Flow> {
    let first = usize::try_from(key.first()).ok()?;
    // A record has the first place that is free, and `used` says how far that ever was.
    let reach = (u64::BITS - used.leading_zeros()).max(1);
    let candidates = places
        .get(first..)?
        .iter()
        .step_by(usize::try_from(Handover::KEYS).ok()?);
    let mut last = None;
    for place in candidates.take(usize::try_from(reach).ok()?) {
        let Some(record) = read(place) else { continue };
        let is_wanted = record.flow.source == key.port
            && record.flow.sandbox == key.sandbox
            && record.flow.netns == key.netns
            && record.address == key.address;
        if is_wanted
            && free(place, record.ended)
            && last.is_none_or(|(number, _)| number < record.begun)
        {
            last = Some((record.begun, record.flow));
        }
    }
    last.map(|(_, flow)| flow)
}

/// Cuts the memory into places.
fn places(words: &[AtomicU64]) -> &[Place] {
    words.as_chunks().0
}

/// The first word of a place, and the last.
fn numbers(place: &Place) -> (&AtomicU64, &AtomicU64) {
    let [begun, .., ended] = place;
    (begun, ended)
}

/// From its end to its beginning, as [`Handover`] says. `None` if there is none, or it is being written.
fn read(place: &Place) -> Option<Handover> {
    let (begun, ended) = numbers(place);
    let number = ended.load(Ordering::Acquire);
    if number == 0 {
        return None;
    }
    let words = place.each_ref().map(|word| word.load(Ordering::Relaxed));
    fence(Ordering::Acquire);
    let record = Handover::from_words(words);
    (record.ended == number && record.begun == number && begun.load(Ordering::Relaxed) == number)
        .then_some(record)
}

/// Gives the place of this record to whoever comes next. Another may just have begun to write here: then it is none of
/// this record's any more.
fn free(place: &Place, number: u64) -> bool {
    let (begun, ended) = numbers(place);
    ended
        .compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
        && begun
            .compare_exchange(number, 0, Ordering::Release, Ordering::Relaxed)
            .is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    /// What the kernel's program does, word by word.
    struct Memory {
        words: Vec<AtomicU64>,
        numbers: RefCell<HashMap<u32, u64>>,
        used: Cell<u64>,
    }

    impl Memory {
        fn new() -> Self {
            let words = capacity::FLOWS * Handover::WORDS;
            Self {
                words: (0..words).map(|_| AtomicU64::new(0)).collect(),
                numbers: RefCell::default(),
                used: Cell::new(0),
            }
        }

        /// Where the next record goes, and its number.
        fn next(&self, key: &FlowKey) -> (&Place, u64) {
            let number = {
                let mut numbers = self.numbers.borrow_mut();
                let number = numbers.entry(key.first()).or_default();
                *number += 1;
                *number
            };
            let at = |index: u32| {
                let at = usize::try_from(index * Handover::KEYS + key.first()).unwrap();
                &places(&self.words)[at]
            };
            let is_free = |index: &u32| numbers(at(*index)).0.load(Ordering::Relaxed) == 0;
            let number_at = |index: &u32| numbers(at(*index)).1.load(Ordering::Relaxed);
            let index = (0..Handover::PLACES).find(is_free).unwrap_or_else(|| {
                let complete = (0..Handover::PLACES).filter(|index| number_at(index) != 0);
                complete.min_by_key(number_at).unwrap()
            });
            self.used.set(self.used.get() | ((2 << index) - 1));
            (at(index), number)
        }

        fn write(&self, key: &FlowKey, wanted: u16) {
            let (place, number) = self.next(key);
            fill(place, &record(key, wanted, number), Handover::WORDS);
        }
    }

    fn record(key: &FlowKey, wanted: u16, number: u64) -> [u64; Handover::WORDS] {
        let mut words = [0; Handover::WORDS];
        let mut halves = Vec::new();
        halves.extend(key.address);
        // `Flow`: an address, then port, via, protocol and the sandbox.
        halves.extend([0; 4]);
        halves.extend([u32::from(wanted) | 4 << 16 | 6 << 24, key.sandbox]);
        for (word, pair) in words[1..].iter_mut().zip(halves.chunks(2)) {
            *word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        }
        // cgroup, netns; image 2, process 4; listener and source.
        words[7] = key.netns;
        words[14] = 1 | u64::from(key.port) << 16;
        (words[0], words[Handover::WORDS - 1]) = (number, number);
        words
    }

    /// The first `count` words.
    fn fill(place: &Place, words: &[u64; Handover::WORDS], count: usize) {
        for (to, from) in place.iter().zip(words).take(count) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    fn key(netns: u64, sandbox: u32, port: u16) -> FlowKey {
        FlowKey {
            netns,
            address: gateway_common::v4_mapped(u32::from_ne_bytes([127, 0, 0, 1])),
            sandbox,
            port,
        }
    }

    fn wanted(memory: &Memory, key: &FlowKey) -> Option<u16> {
        take(places(&memory.words), memory.used.get(), key).map(|flow| flow.port)
    }

    #[test]
    fn a_record_is_taken_once_and_by_its_own_key_alone() {
        let memory = Memory::new();
        memory.write(&key(1, 1, 40_000), 443);
        assert_eq!(wanted(&memory, &key(2, 1, 40_000)), None);
        assert_eq!(wanted(&memory, &key(1, 2, 40_000)), None);
        assert_eq!(wanted(&memory, &key(1, 1, 40_001)), None);
        assert_eq!(wanted(&memory, &key(1, 1, 40_000)), Some(443));
        assert_eq!(wanted(&memory, &key(1, 1, 40_000)), None);
    }

    #[test]
    fn of_several_with_one_key_the_last_counts_and_none_stays() {
        let memory = Memory::new();
        let key = key(1, 1, 40_000);
        // More than there are places.
        for port in 1..=20 {
            memory.write(&key, port);
        }
        assert_eq!(wanted(&memory, &key), Some(20));
        assert_eq!(wanted(&memory, &key), None);
    }

    #[test]
    fn what_is_being_written_is_nobody_s() {
        let memory = Memory::new();
        let key = key(1, 1, 40_000);
        let (place, number) = memory.next(&key);
        let one = record(&key, 443, number);
        for count in 1..Handover::WORDS {
            fill(place, &one, count);
            assert_eq!(wanted(&memory, &key), None, "{count} words");
        }
        fill(place, &one, Handover::WORDS);
        // The next that comes here has begun.
        let other = record(&key, 80, number + 1);
        fill(place, &other, 5);
        assert_eq!(wanted(&memory, &key), None);
        fill(place, &other, Handover::WORDS);
        // Who was held up until now goes on from its middle.
        for (to, from) in place.iter().zip(&one).skip(5) {
            to.store(*from, Ordering::Relaxed);
        }
        assert_eq!(wanted(&memory, &key), None);
    }

    #[test]
    fn the_ports_of_many_sandboxes_are_spread_over_the_places() {
        // As the kernel numbers namespaces and the gateway sandboxes, and as ports are chosen for connections.
        let mut load: HashMap<u32, u32> = HashMap::new();
        for sandbox in 1..=64 {
            for port in (32_768..33_024).step_by(2) {
                *load
                    .entry(key(4000 + u64::from(sandbox), sandbox, port).first())
                    .or_default() += 1;
            }
        }
        // Eight each, if they were spread evenly.
        assert!(
            load.values().all(|count| *count <= Handover::PLACES),
            "{load:?}"
        );
    }
}
