//! An incremental reader of server-sent events (WHATWG HTML §9.2.6) that hands on the data of each event as it comes.
//!
//! It refuses to know what the data is, and other fields (`event`, `id`, `retry`, comments). No line is ever buffered.

/// A part of an event's data, or the end of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes of the data; the lines of one event are joined by LF.
    Data(&'a [u8]),
    /// The blank line after an event that had data. An event cut off by the end of the stream has none.
    End,
}

/// Splits a stream of events. Chunks may be cut anywhere; lines may end in LF, CR or CRLF.
#[derive(Debug, Default)]
pub struct Splitter {
    line: Line,
    /// The last byte was a CR, so that an LF belongs to it.
    after_cr: bool,
    /// The current event has data already.
    has_data: bool,
}

#[derive(Debug, Clone, Copy)]
enum Line {
    /// Nothing but this many bytes of a byte order mark, at the start of the stream.
    Mark(usize),
    /// Nothing but this many bytes of the field name.
    Name(usize),
    /// The colon after `data` was the last byte.
    Colon,
    Data,
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Mark(0)
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const FIELD: &[u8] = b"data";

impl Splitter {
    /// Reads on and hands what is data to `sink`.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.after_cr {
                self.after_cr = false;
                if byte == b'\n' {
                    rest = tail;
                    continue;
                }
            }
            if matches!(self.line, Line::Data | Line::Other) {
                let len = rest
                    .iter()
                    .position(|byte| is_end(*byte))
                    .unwrap_or(rest.len());
                if let Some((text, tail)) = rest.split_at_checked(len).filter(|_| len > 0) {
                    if matches!(self.line, Line::Data) {
                        sink(Piece::Data(text));
                    }
                    rest = tail;
                    continue;
                }
            }
            rest = tail;
            if is_end(byte) {
                self.after_cr = byte == b'\r';
                self.end_line(sink);
                continue;
            }
            self.line = match self.line {
                Line::Mark(seen) if BYTE_ORDER_MARK.get(seen) == Some(&byte) => match seen + 1 {
                    3 => Line::Name(0),
                    seen => Line::Mark(seen),
                },
                Line::Mark(1..) => Line::Other,
                Line::Mark(0) if byte == b'd' => Line::Name(1),
                Line::Name(seen) if FIELD.get(seen) == Some(&byte) => Line::Name(seen + 1),
                Line::Name(seen) if seen == FIELD.len() && byte == b':' => {
                    self.begin_data(sink);
                    Line::Colon
                }
                Line::Colon if byte == b' ' => Line::Data,
                Line::Colon => {
                    sink(Piece::Data(&[byte]));
                    Line::Data
                }
                Line::Mark(_) | Line::Name(_) | Line::Data | Line::Other => Line::Other,
            };
        }
    }

    fn end_line(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        match self.line {
            Line::Mark(0) | Line::Name(0) if self.has_data => {
                self.has_data = false;
                sink(Piece::End);
            }
            // A line that is nothing but a field name has an empty value.
            Line::Name(seen) if seen == FIELD.len() => self.begin_data(sink),
            _ => {}
        }
        self.line = Line::Name(0);
    }

    fn begin_data(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        if std::mem::replace(&mut self.has_data, true) {
            sink(Piece::Data(b"\n"));
        }
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut events, mut data) = (Splitter::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, &mut |piece| match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::End => events.push(std::mem::take(&mut data)),
            });
        }
        events
    }

    #[test]
    fn events_are_told_apart_however_lines_end() {
        let text = "\u{feff}event: a\ndata: one\n\ndata:two\ndata:  lines\n\n: comment\ndata\ndata\n\nid: 7\n\ndata: [DONE]\n\ndata: cut off";
        let expected = [&b"one"[..], b"two\n lines", b"\n", b"[DONE]"];
        for end in ["\n", "\r", "\r\n"] {
            let text = text.replace('\n', end);
            assert_eq!(events(&[text.as_bytes()]), expected, "{end:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&bytes), expected, "{end:?}");
            for at in 0..text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                assert_eq!(events(&[first, second]), expected, "{end:?} {at}");
            }
        }
    }

    #[test]
    fn only_the_field_called_data_is_data() {
        for line in [
            "dat: x",
            "datas: x",
            "Data: x",
            " data: x",
            ": data: x",
            "ddata: x",
            "\u{feff}\u{feff}data: x",
        ] {
            assert!(
                events(&[format!("{line}\n\n").as_bytes()]).is_empty(),
                "{line:?}"
            );
        }
        assert_eq!(events(&[b"\xef\xbbdata: x\n\ndata: y\n\n"]), [b"y"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn data_comes_out_as_it_went_in(values in prop::collection::vec("[^\r\n]{0,20}", 1..6), cuts in 1usize..9) {
            let text: String = values.iter().map(|value| format!("event: x\r\ndata: {value}\r\n\r\n")).collect();
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(cuts).collect();
            let expected: Vec<Vec<u8>> = values.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(events(&chunks), expected);
        }
    }
}
