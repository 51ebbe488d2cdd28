//! Messages of OTLP as they are on the wire (Protocol Buffers' encoding), written as they are said: spans are many, and made
//! of many small pieces. Knows fields by their numbers, and not what they are for.

use super::attributes::{flag, number, signed, text, texts};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::cell::Cell;

/// What is kept for the next message. Few need more: those with captured bodies.
const KEPT: usize = 16 * 1024;
/// The longest length there is, encoded, bytes.
const LONGEST: usize = 10;
/// Of a field with a number below 16: one byte says which, and of what kind.
const KEY: usize = 1;

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) enum Said<'a> {
    Text(&'a str),
    /// OTLP integers are signed; a count beyond that would be a mistake elsewhere.
    Number(u64),
    Flag(bool),
    Texts(&'a [String]),
}

/// Takes attributes, one after the other. A key may come in parts.
pub(super) trait Attributes {
    fn say(&mut self, key: &[&str], value: Said<'_>);

    fn text(&mut self, key: &str, value: &str) {
        self.say(&[key], Said::Text(value));
    }

    fn number(&mut self, key: &str, value: u64) {
        self.say(&[key], Said::Number(value));
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.say(&[key], Said::Flag(value));
    }

    /// Those that there are.
    fn present<const N: usize>(&mut self, optional: [(&str, Option<&str>); N]) {
        for (key, value) in optional {
            if let Some(value) = value {
                self.text(key, value);
            }
        }
    }
}

impl Attributes for Vec<KeyValue> {
    fn say(&mut self, key: &[&str], value: Said<'_>) {
        let key = key.concat();
        self.push(match value {
            Said::Text(value) => text(key, value),
            Said::Number(value) => number(key, value),
            Said::Flag(value) => flag(key, value),
            Said::Texts(values) => texts(key, values),
        });
    }
}

/// A message on its way. Fields are written in the order in which they are told, whatever their numbers are.
#[derive(Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    /// What `write` says, handed to `take` as it is on the wire. Each thread has one place where it is written, which stays
    /// at hand.
    pub(super) fn encoded<T>(write: impl FnOnce(&mut Self), take: impl FnOnce(&[u8]) -> T) -> T {
        thread_local! {
            static PLACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut encoder = Self(PLACE.take());
        write(&mut encoder);
        let taken = take(&encoder.0);
        encoder.0.clear();
        encoder.0.shrink_to(KEPT);
        PLACE.set(encoder.0);
        taken
    }

    /// A message as a whole.
    pub(super) fn whole(&mut self, message: &impl Message) {
        message.encode_raw(&mut self.0);
    }

    /// A string or bytes; nothing if there are none, which means the same.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.piece(field, value);
        }
    }

    pub(super) fn varint(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        encode_key(field, WireType::ThirtyTwoBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message of which nobody knows how long it will be.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        let begin = self.0.len();
        write(self);
        let length = self.0.len() - begin;
        let mut place = [0; LONGEST];
        let mut left = place.as_mut_slice();
        encode_varint(length as u64, &mut left);
        let written = LONGEST - left.len();
        let head = place.into_iter().take(written);
        self.0.splice(begin..begin, head);
    }

    /// Attributes, each under this number.
    pub(super) fn attributes(&mut self, field: u32) -> Field<'_> {
        Field { to: self, field }
    }

    fn piece(&mut self, field: u32, value: &[u8]) {
        self.begin(field, value.len());
        self.0.extend_from_slice(value);
    }

    fn begin(&mut self, field: u32, length: usize) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(length as u64, &mut self.0);
    }

    /// `AnyValue` (opentelemetry/proto/common/v1/common.proto), of a length that is known.
    fn value(&mut self, value: Said<'_>) {
        match value {
            Said::Text(text) => self.piece(1, text.as_bytes()),
            Said::Flag(flag) => self.varint(2, flag.into()),
            Said::Number(number) => self.varint(3, signed(number).cast_unsigned()),
            Said::Texts(texts) => {
                self.begin(5, list_length(texts));
                for text in texts {
                    self.begin(1, length_of(Said::Text(text)));
                    self.value(Said::Text(text));
                }
            }
        }
    }
}

/// One field of a message, which is repeated.
pub(super) struct Field<'a> {
    to: &'a mut Encoder,
    field: u32,
}

impl Attributes for Field<'_> {
    /// `KeyValue`.
    fn say(&mut self, key: &[&str], value: Said<'_>) {
        let key_length = key.iter().map(|part| part.len()).sum();
        let value_length = length_of(value);
        let to = &mut *self.to;
        to.begin(self.field, delimited(key_length) + delimited(value_length));
        to.begin(1, key_length);
        for part in key {
            to.0.extend_from_slice(part.as_bytes());
        }
        to.begin(2, value_length);
        to.value(value);
    }
}

fn length_of(value: Said<'_>) -> usize {
    match value {
        Said::Text(text) => delimited(text.len()),
        Said::Flag(_) => KEY + 1,
        Said::Number(number) => KEY + encoded_len_varint(signed(number).cast_unsigned()),
        Said::Texts(texts) => delimited(list_length(texts)),
    }
}

fn list_length(texts: &[String]) -> usize {
    let lengths = texts.iter().map(|text| length_of(Said::Text(text)));
    lengths.map(delimited).sum()
}

/// With its key and its length in front.
pub(super) fn delimited(length: usize) -> usize {
    KEY + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = (u8, String, u64, Vec<String>)> {
        let text = || prop_oneof![".{0,8}", "[a-z]{120,140}"];
        (
            0..4_u8,
            text(),
            any::<u64>(),
            proptest::collection::vec(text(), 0..4),
        )
    }

    proptest! {
        /// As the library writes the same, which writes fields in the order of their numbers.
        #[test]
        fn what_is_written_at_once_is_what_the_library_writes(
            attributes in proptest::collection::vec(("[a-z.]{1,12}", ".{0,130}", value()), 0..12),
            events in 0..3_usize,
            times in any::<[u64; 2]>(),
        ) {
            let tell = |to: &mut dyn FnMut(&[&str], Said<'_>)| {
                for (one, other, (kind, text, number, texts)) in &attributes {
                    to(&[one, other], match kind {
                        0 => Said::Text(text),
                        1 => Said::Number(*number),
                        2 => Said::Flag(number % 2 == 0),
                        _ => Said::Texts(texts),
                    });
                }
            };
            let mut listed = Vec::new();
            tell(&mut |key, value| listed.say(key, value));
            let mut encoder = Encoder::default();
            encoder.bytes(5, b"name");
            encoder.varint(6, 2);
            encoder.fixed64(7, times[0]);
            let mut field = encoder.attributes(9);
            tell(&mut |key, value| field.say(key, value));
            for _ in 0..events {
                encoder.message(11, |event| {
                    event.fixed64(1, times[1]);
                    event.bytes(2, b"event");
                    let mut field = event.attributes(3);
                    tell(&mut |key, value| field.say(key, value));
                });
            }
            encoder.fixed32(16, 1);
            let event = Event {
                time_unix_nano: times[1],
                name: "event".to_owned(),
                attributes: listed.clone(),
                ..Event::default()
            };
            let span = Span {
                name: "name".to_owned(),
                kind: 2,
                start_time_unix_nano: times[0],
                attributes: listed,
                events: vec![event; events],
                flags: 1,
                ..Span::default()
            };
            prop_assert_eq!(Span::decode(encoder.0.as_slice()).unwrap(), span);
        }
    }
}
