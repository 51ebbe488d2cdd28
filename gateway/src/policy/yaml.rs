//! YAML text to a tree in which every node knows its place.
//!
//! It refuses to know what the documents mean, and it reads a subset: no anchors, aliases or tags, keys
//! are scalars and unique, nesting is at most 64. What is refused is reported and leaves a hole in the
//! tree ([`Value::Broken`]) over which nobody stumbles again.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use zeroize::Zeroizing;

use super::Span;
use super::problems::{Place, Problems, quote};

/// The deepest nesting; the deepest field of any document is at 9.
const MAX_DEPTH: usize = 64;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A scalar; wiped on drop, since it may be a secret.
    Scalar {
        text: Zeroizing<String>,
        /// Written without quotes, so that it may be a number or a boolean.
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
    /// Already reported.
    Broken,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) span: Span,
    pub(super) name: String,
}

/// The documents of one file, as far as it could be read.
pub(super) fn load(file: usize, text: &str, problems: &mut Problems<'_>) -> Vec<Node> {
    let offsets = Offsets::new(text);
    let mut builder = Builder {
        file,
        offsets: &offsets,
        problems,
        documents: Vec::new(),
        open: Vec::new(),
        sensitive: may_hold_secrets(text),
    };
    // Event by event: the parser's own loader recurses as deep as the file nests.
    for event in Parser::new_from_str(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)) {
        let done = match event {
            Ok((event, span)) => builder.event(event, offsets.span(span.start, span.end)),
            Err(error) => {
                let span = offsets.span(*error.marker(), *error.marker());
                let place = builder.place(span);
                let is_alias = text.get(span.start..).is_some_and(|at| at.starts_with('*'));
                let help = if is_alias {
                    "put a pattern that begins with `*` in quotes, as '*.example.com'; the rest of the file was not read"
                } else {
                    "the rest of the file was not read"
                };
                builder.problems.incomplete = true;
                builder
                    .problems
                    .error(place, format!("not valid YAML: {}", error.info()))
                    .help(help);
                Err(Stop)
            }
        };
        if done.is_err() {
            break;
        }
    }
    builder.documents
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A syntax error can stand anywhere, even in a secret; in such a file it is not quoted.
fn may_hold_secrets(text: &str) -> bool {
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .any(|word| {
            ["secret", "secrets", "data", "stringdata"]
                .iter()
                .any(|telling| word.eq_ignore_ascii_case(telling))
        })
}

/// The file cannot be read further.
struct Stop;

struct Builder<'b, 'f> {
    file: usize,
    offsets: &'b Offsets<'b>,
    problems: &'b mut Problems<'f>,
    documents: Vec<Node>,
    open: Vec<Open>,
    sensitive: bool,
}

/// A collection whose end has not come yet.
enum Open {
    Sequence(Span, Vec<Node>),
    Mapping(Span, Vec<(Key, Node)>, Option<Key>),
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
            Event::Alias(_) => {
                let place = self.place(span);
                self.problems
                    .error(place, "aliases are not supported")
                    .help("write the value out where it is used; a pattern such as '*.example.com' stands in quotes");
                self.close(span, Value::Broken);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = if self.decorated(span, anchor, tag.as_ref()) {
                    Value::Broken
                } else {
                    Value::Scalar {
                        text: Zeroizing::new(text.into_owned()),
                        plain: style == ScalarStyle::Plain,
                    }
                };
                self.close(span, value);
            }
            Event::SequenceStart(anchor, tag) => {
                self.decorated(span, anchor, tag.as_ref());
                self.open(span, Open::Sequence(span, Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.decorated(span, anchor, tag.as_ref());
                self.open(span, Open::Mapping(span, Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(start, items)) => {
                    self.close(self.offsets.join(start, span), Value::Sequence(items));
                }
                Some(Open::Mapping(start, entries, _)) => {
                    let entries = self.unique(entries);
                    self.close(self.offsets.join(start, span), Value::Mapping(entries));
                }
                None => {}
            },
        }
        Ok(())
    }

    fn place(&self, span: Span) -> Place {
        Place {
            file: self.file,
            span,
            sensitive: self.sensitive,
        }
    }

    fn decorated(&mut self, span: Span, anchor: usize, tag: Option<&Cow<'_, Tag>>) -> bool {
        let place = self.place(span);
        if anchor > 0 {
            self.problems
                .error(place, "anchors are not supported")
                .help("write the value out where it is used");
        }
        if tag.is_some() {
            self.problems
                .error(place, "tags are not supported")
                .help("quote the value if it is to be a string");
        }
        anchor > 0 || tag.is_some()
    }

    fn open(&mut self, span: Span, collection: Open) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            let place = self.place(span);
            self.problems.incomplete = true;
            self.problems
                .error(place, format!("nested deeper than {MAX_DEPTH} levels"))
                .help("the rest of the file was not read");
            return Err(Stop);
        }
        self.open.push(collection);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, span: Span, value: Value) {
        let place = self.place(span);
        match self.open.last_mut() {
            None => self.documents.push(Node { span, value }),
            Some(Open::Sequence(_, items)) => items.push(Node { span, value }),
            Some(Open::Mapping(_, entries, waiting)) => match waiting.take() {
                Some(key) => entries.push((key, Node { span, value })),
                None => {
                    // A key that is none still needs its value to follow.
                    let name = match &value {
                        Value::Scalar { text, .. } => text.to_string(),
                        Value::Sequence(_) | Value::Mapping(_) | Value::Broken => String::new(),
                    };
                    if name.is_empty() && !matches!(value, Value::Broken) {
                        self.problems
                            .error(place, "a key must be a plain, non-empty string");
                    }
                    *waiting = Some(Key { span, name });
                }
            },
        }
    }

    /// Reports keys that appear twice, and drops keys that are none.
    fn unique(&mut self, entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            if key.name.is_empty() {
                continue;
            }
            if let Some(first) = seen.get(&key.name) {
                let first = self.problems.locate(self.place(*first));
                let place = self.place(key.span);
                self.problems
                    .error(place, format!("duplicate key {}", quote(&key.name)))
                    .help(format!("the first one is at {first}"));
                continue;
            }
            seen.insert(key.name.clone(), key.span);
            kept.push((key, node));
        }
        kept
    }
}

/// From the parser's places (in characters) to bytes, lines and columns.
struct Offsets<'t> {
    text: &'t str,
    /// Byte offset of each character after the byte order mark, and the end; empty for ASCII.
    bytes: Vec<usize>,
    /// Byte offset of each line.
    lines: Vec<usize>,
}

impl<'t> Offsets<'t> {
    fn new(text: &'t str) -> Self {
        let mut bytes = Vec::new();
        if !text.is_ascii() {
            let all = text.char_indices().map(|(offset, _)| offset);
            bytes.extend(all.skip(usize::from(text.starts_with(BYTE_ORDER_MARK))));
            bytes.push(text.len());
        }
        let breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { text, bytes, lines }
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let start = self.byte(start);
        self.between(start, self.byte(end).max(start))
    }

    fn join(&self, start: Span, end: Span) -> Span {
        self.between(start.start, end.end.max(start.start))
    }

    fn byte(&self, marker: Marker) -> usize {
        let index = marker.index();
        let byte = if self.bytes.is_empty() {
            index
        } else {
            self.bytes.get(index).copied().unwrap_or(usize::MAX)
        };
        byte.min(self.text.len())
    }

    fn between(&self, start: usize, end: usize) -> Span {
        let line = self.lines.partition_point(|first| *first <= start);
        let first = line
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .copied()
            .unwrap_or_default();
        let column = self
            .text
            .get(first..start)
            .map_or(0, |before| before.chars().count())
            + 1;
        Span {
            start,
            end,
            line,
            column,
        }
    }
}
