//! Items that leave together, as they stand in the message: each with its key and its length, one behind the other. In
//! front of them there is room for what the message begins with, so that they are written once. Knows not what they are.

use super::encode::delimited;
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

/// The number under which the messages of all three signals have their items.
const ITEM: u32 = 2;

/// See the module.
#[derive(Default)]
pub(super) struct Batch {
    room: usize,
    /// The room, and the items.
    bytes: Vec<u8>,
    items: usize,
}

impl Batch {
    /// None, with so many bytes of `room` in front. It grows as it is filled; `expected` says how many bytes of items that
    /// may be.
    pub(super) fn new(room: usize, expected: usize) -> Self {
        let mut bytes = Vec::with_capacity(room + expected);
        bytes.resize(room, 0);
        Self {
            room,
            bytes,
            items: 0,
        }
    }

    pub(super) fn add(&mut self, item: &[u8]) {
        encode_key(ITEM, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(item.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(item);
        self.items += 1;
    }

    /// How many there are.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Bytes of all of them.
    pub(super) fn length(&self) -> usize {
        self.bytes.len() - self.room
    }

    /// Bytes with another of so many.
    pub(super) fn length_with(&self, item: usize) -> usize {
        self.length() + delimited(item)
    }

    /// What begins with `head` and goes on with the items.
    pub(super) fn behind(mut self, head: &[u8]) -> Bytes {
        let Some(start) = self.room.checked_sub(head.len()) else {
            self.bytes.splice(..self.room, head.iter().copied());
            return self.bytes.into();
        };
        if let Some(place) = self.bytes.get_mut(start..self.room) {
            place.copy_from_slice(head);
        }
        Bytes::from(self.bytes).slice(start..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_front_fits_or_makes_room() {
        for room in [0, 1, 4, 5, 9] {
            let mut batch = Batch::new(room, 0);
            assert_eq!((batch.items(), batch.length()), (0, 0));
            assert_eq!(batch.length_with(3), 5);
            batch.add(b"one");
            batch.add(b"");
            assert_eq!((batch.items(), batch.length()), (2, 7));
            assert_eq!(batch.behind(b"head").as_ref(), b"head\x12\x03one\x12\x00");
        }
    }
}
