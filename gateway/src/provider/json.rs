//! An incremental JSON reader (RFC 8259) that reports the scalars at a few paths and forgets everything else.
//!
//! It refuses to know what the paths mean. Its memory is bounded whatever it is fed: a stack of [`MAX_DEPTH`] containers and
//! [`MAX_SCALAR`] bytes of text. Malformed input silences it; what was reported before that stays reported.

mod number;
mod scalar;

pub use scalar::{Found, Scalar};

use number::Number;
use scalar::folds;

/// The deepest nesting that is followed; a document that goes deeper is treated as malformed. 128 is serde_json's limit, and
/// deeper than any provider's request or response.
pub const MAX_DEPTH: usize = 128;
/// The longest string or number that is reported, and the longest key that can match, in bytes after unescaping. Model names,
/// identifiers and reasons are well under 100.
pub const MAX_SCALAR: usize = 256;
/// The most paths one extractor can look for: each is a bit of a `u64`.
pub const MAX_PATHS: usize = 64;

/// Where a scalar is: the keys from the root down. [`EACH`] stands for every element of an array.
pub type Path = &'static [&'static str];

/// The segment of a [`Path`] that matches every element of an array, and no key of an object.
pub const EACH: &str = "*";

/// Reads one JSON document from chunks and reports the scalars at given paths, each with the tag of its path.
///
/// A path that occurs several times (a key repeated in one object) is reported each time, in order.
#[derive(Debug)]
pub struct Extractor<T: 'static> {
    paths: &'static [(Path, T)],
    state: State,
    stack: Vec<Frame>,
    /// The paths that the value to come may be on: bit `n` for the path with index `n`.
    candidates: u64,
    /// The text of the key, string or number being read, if `capturing`.
    text: Vec<u8>,
    capturing: bool,
    overlong: bool,
    length: usize,
    /// Keys match in whatever case: some servers read them so.
    fold: bool,
    /// The keys on the way to the value to come are spelt as in its paths.
    exact: bool,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    object: bool,
    /// The paths that lead through this container.
    candidates: u64,
    /// As they are written.
    exact: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but this many bytes of a byte order mark so far.
    Start(usize),
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    AfterValue,
    Text {
        key: bool,
        escape: Escape,
    },
    Number(Number),
    Word {
        word: &'static [u8],
        at: usize,
    },
    Whole,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    Hex { value: u16, digits: u8 },
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<T: Copy> Extractor<T> {
    /// `paths` holds at most [`MAX_PATHS`], none of them empty; any further one never matches.
    pub fn new(paths: &'static [(Path, T)]) -> Self {
        let mut extractor = Self {
            paths,
            state: State::Start(0),
            stack: Vec::new(),
            candidates: 0,
            text: Vec::with_capacity(MAX_SCALAR),
            capturing: false,
            overlong: false,
            length: 0,
            fold: false,
            exact: true,
            high: None,
        };
        extractor.reset();
        extractor
    }

    /// As [`Extractor::new`], for keys in whatever case.
    pub fn folding(paths: &'static [(Path, T)]) -> Self {
        Self {
            fold: true,
            ..Self::new(paths)
        }
    }

    /// Makes ready for another document.
    pub fn reset(&mut self) {
        self.state = State::Start(0);
        self.stack.clear();
        self.exact = true;
        self.candidates = self.among(u64::MAX, |path| !path.is_empty());
    }

    /// Whether one document has been read to its end, with nothing wrong and nothing but blanks after it.
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Reads on. Chunks may be cut anywhere.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl FnMut(T, Scalar<'_>)) {
        self.feed_all(chunk, &mut |tag, found| {
            if let Some(scalar) = found.scalar {
                sink(tag, scalar);
            }
        });
    }

    /// As [`Extractor::feed`], and reports the objects and arrays at the paths too, where they begin.
    pub fn feed_all(&mut self, chunk: &[u8], sink: &mut impl FnMut(T, Found<'_>)) {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.state {
                State::Broken => return,
                State::Text {
                    escape: Escape::None,
                    ..
                } => {
                    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                    let plain = rest.iter().position(special).unwrap_or(rest.len());
                    if let Some((text, tail)) = rest.split_at_checked(plain).filter(|_| plain > 0) {
                        self.keep(text);
                        rest = tail;
                        continue;
                    }
                }
                _ => {}
            }
            self.step(byte, sink);
            rest = tail;
        }
    }

    fn step(&mut self, byte: u8, sink: &mut impl FnMut(T, Found<'_>)) {
        match self.state {
            State::Start(seen) => {
                if BYTE_ORDER_MARK.get(seen) == Some(&byte) {
                    let seen = seen + 1;
                    self.state = if seen == BYTE_ORDER_MARK.len() {
                        State::Value
                    } else {
                        State::Start(seen)
                    };
                } else if seen > 0 {
                    self.state = State::Broken;
                } else if !is_blank(byte) {
                    self.value(byte, sink);
                } else {
                    self.state = State::Value;
                }
            }
            State::Number(number) => match number.next(byte) {
                Some(number) => {
                    self.keep(&[byte]);
                    self.state = State::Number(number);
                }
                None if number.is_complete() => {
                    self.report(Kind::Number, sink);
                    self.step(byte, sink);
                }
                None => self.state = State::Broken,
            },
            State::Text { key, escape } => self.text(byte, key, escape, sink),
            State::Word { word, at } => self.word(byte, word, at, sink),
            State::Broken => {}
            _ if is_blank(byte) => {}
            State::Value => self.value(byte, sink),
            State::FirstElement if byte == b']' => self.close(false),
            State::FirstElement => self.value(byte, sink),
            State::FirstKey if byte == b'}' => self.close(true),
            State::FirstKey | State::Key if byte == b'"' => {
                let interesting = self.stack.last().is_some_and(|frame| frame.candidates != 0);
                self.begin(interesting);
                self.state = State::Text {
                    key: true,
                    escape: Escape::None,
                };
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::AfterValue => match (byte, self.stack.last()) {
                (b',', Some(Frame { object: true, .. })) => self.state = State::Key,
                (b',', Some(Frame { object: false, .. })) => {
                    self.elements();
                    self.state = State::Value;
                }
                (b'}', _) => self.close(true),
                (b']', _) => self.close(false),
                _ => self.state = State::Broken,
            },
            State::FirstKey | State::Key | State::Colon | State::Whole => {
                self.state = State::Broken
            }
        }
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8, sink: &mut impl FnMut(T, Found<'_>)) {
        let word = |word| State::Word { word, at: 1 };
        let depth = self.stack.len();
        let interesting = self.here() != 0;
        match byte {
            b'{' | b'[' if depth == MAX_DEPTH => self.state = State::Broken,
            b'{' => {
                self.open(true, sink);
                self.state = State::FirstKey;
            }
            b'[' => {
                self.open(false, sink);
                self.elements();
                self.state = State::FirstElement;
            }
            b'"' => {
                self.begin(interesting);
                self.state = State::Text {
                    key: false,
                    escape: Escape::None,
                };
            }
            b't' => self.state = word(b"true"),
            b'f' => self.state = word(b"false"),
            b'n' => self.state = word(b"null"),
            _ => match Number::first(byte) {
                Some(number) => {
                    self.begin(interesting);
                    self.keep(&[byte]);
                    self.state = State::Number(number);
                }
                None => self.state = State::Broken,
            },
        }
    }

    fn word(
        &mut self,
        byte: u8,
        word: &'static [u8],
        at: usize,
        sink: &mut impl FnMut(T, Found<'_>),
    ) {
        if word.get(at) != Some(&byte) {
            self.state = State::Broken;
        } else if at + 1 < word.len() {
            self.state = State::Word { word, at: at + 1 };
        } else {
            let scalar = match word {
                b"true" => Scalar::Bool(true),
                b"false" => Scalar::Bool(false),
                _ => Scalar::Null,
            };
            self.report(Kind::Word(scalar), sink);
        }
    }

    fn text(&mut self, byte: u8, key: bool, escape: Escape, sink: &mut impl FnMut(T, Found<'_>)) {
        let next = match (escape, byte) {
            (Escape::None, b'"') => return self.end_text(key, sink),
            (Escape::None, b'\\') => Some(Escape::Backslash),
            (Escape::None, _) => None,
            (Escape::Backslash, b'u') => Some(Escape::Hex {
                value: 0,
                digits: 0,
            }),
            (Escape::Backslash, _) => unescape(byte).map(|plain| {
                self.keep(&[plain]);
                Escape::None
            }),
            (Escape::Hex { value, digits }, _) => char::from(byte).to_digit(16).and_then(|digit| {
                let value = (value << 4) | u16::try_from(digit).ok()?;
                Some(if digits < 3 {
                    Escape::Hex {
                        value,
                        digits: digits + 1,
                    }
                } else {
                    self.keep_unit(value);
                    Escape::None
                })
            }),
        };
        self.state = next.map_or(State::Broken, |escape| State::Text { key, escape });
    }

    fn end_text(&mut self, key: bool, sink: &mut impl FnMut(T, Found<'_>)) {
        self.keep(&[]);
        if !key {
            return self.report(Kind::Text, sink);
        }
        let (depth, parent, exact) = match self.stack.last() {
            Some(frame) => (self.stack.len() - 1, frame.candidates, frame.exact),
            None => (0, 0, true),
        };
        let parent = if self.capturing && !self.overlong {
            parent
        } else {
            0
        };
        let spelt = |is: &dyn Fn(&str, &[u8]) -> bool| {
            self.among(parent, |path| {
                let segment = path.get(depth).filter(|segment| **segment != EACH);
                segment.is_some_and(|segment| is(segment, &self.text))
            })
        };
        let written = spelt(&|segment, text| segment.as_bytes() == text);
        self.candidates = if self.fold { spelt(&folds) } else { written };
        self.exact = exact && written == self.candidates;
        self.state = State::Colon;
    }

    /// Narrows the candidates to the paths that go on into the elements of the array just entered.
    fn elements(&mut self) {
        if let Some(frame) = self.stack.last() {
            let depth = self.stack.len() - 1;
            self.exact = frame.exact;
            self.candidates = self.among(frame.candidates, |path| path.get(depth) == Some(&EACH));
        }
    }

    /// A container begins.
    fn open(&mut self, object: bool, sink: &mut impl FnMut(T, Found<'_>)) {
        self.sink(None, sink);
        self.stack.push(Frame {
            object,
            candidates: self.candidates,
            exact: self.exact,
        });
    }

    fn close(&mut self, object: bool) {
        self.state = match self.stack.pop() {
            Some(frame) if frame.object == object => self.after_value(),
            _ => State::Broken,
        };
    }

    fn after_value(&self) -> State {
        if self.stack.is_empty() {
            State::Whole
        } else {
            State::AfterValue
        }
    }

    /// A scalar has ended.
    fn report(&mut self, kind: Kind, sink: &mut impl FnMut(T, Found<'_>)) {
        self.state = self.after_value();
        if self.here() == 0 {
            return;
        }
        let scalar = match (kind, std::str::from_utf8(&self.text)) {
            (Kind::Word(word), _) => word,
            _ if self.overlong => Scalar::TooLong(self.length),
            (Kind::Number, Ok(text)) => Scalar::Number(text),
            (Kind::Text, Ok(text)) => Scalar::Text(text),
            (_, Err(_)) => {
                self.state = State::Broken;
                return;
            }
        };
        self.sink(Some(scalar), sink);
    }

    /// The paths that end at the value to come.
    fn here(&self) -> u64 {
        let depth = self.stack.len();
        self.among(self.candidates, |path| path.len() == depth)
    }

    fn sink(&self, scalar: Option<Scalar<'_>>, sink: &mut impl FnMut(T, Found<'_>)) {
        let (here, exact) = (self.here(), self.exact);
        for (index, (_, tag)) in self.paths.iter().take(MAX_PATHS).enumerate() {
            if here & (1 << index) != 0 {
                sink(*tag, Found { scalar, exact });
            }
        }
    }

    /// Those of `candidates` whose path satisfies `condition`.
    fn among(&self, candidates: u64, condition: impl Fn(Path) -> bool) -> u64 {
        if candidates == 0 {
            return 0;
        }
        let paths = self.paths.iter().take(MAX_PATHS).enumerate();
        paths.fold(0, |found, (index, (path, _))| {
            let bit = 1 << index;
            if candidates & bit != 0 && condition(path) {
                found | bit
            } else {
                found
            }
        })
    }

    fn begin(&mut self, capturing: bool) {
        self.text.clear();
        self.capturing = capturing;
        self.overlong = false;
        self.length = 0;
        self.high = None;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.high.take().is_some() {
            self.append("\u{fffd}".as_bytes());
        }
        self.append(bytes);
    }

    /// Keeps one UTF-16 code unit, which may be half a character.
    fn keep_unit(&mut self, unit: u16) {
        let pair = self
            .high
            .take()
            .map(|high| char::decode_utf16([high, unit]).next());
        match pair {
            Some(Some(Ok(character))) => {
                return self.append(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(_) => self.append("\u{fffd}".as_bytes()),
            None => {}
        }
        if (0xd800..0xdc00).contains(&unit) {
            self.high = Some(unit);
        } else {
            let character = char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER);
            self.append(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if !self.capturing {
            return;
        }
        self.length = self.length.saturating_add(bytes.len());
        if self.overlong || self.text.len() + bytes.len() > MAX_SCALAR {
            self.overlong = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }
}

enum Kind {
    Number,
    Text,
    Word(Scalar<'static>),
}

fn unescape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' | b'/' => Some(byte),
        b'b' => Some(0x08),
        b'f' => Some(0x0c),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
