//! From the tree to typed values: a small decoder that never stops at the first problem.
//!
//! It refuses to know any document's fields; `resource` asks it for them by name. Every method that
//! returns `None` (or leaves something out) has reported why.

mod example;

use std::fmt::Display;

use super::problems::{Place, Problems, Spanned, quote, suggest};
use super::yaml::{Key, Node, Value};

/// The decoder of one document.
pub(super) struct Decoder<'d, 'f> {
    pub(super) problems: &'d mut Problems<'f>,
    pub(super) file: usize,
    /// The document may hold secrets: places are named, values are not.
    pub(super) sensitive: bool,
}

/// A node and how it is reached from the document's root, such as `spec.listeners[0].port`.
#[derive(Clone, Debug)]
pub(super) struct At<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

/// The fields of one mapping; [`Fields::finish`] reports the ones nobody asked for.
pub(super) struct Fields<'n> {
    path: String,
    pub(super) place: Place,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Decoder<'_, '_> {
    pub(super) fn place(&self, at: &At<'_>) -> Place {
        self.place_of(at.node.span)
    }

    fn place_of(&self, span: super::Span) -> Place {
        Place {
            file: self.file,
            span,
            sensitive: self.sensitive,
        }
    }

    /// A value for a message, unless it may be a secret.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.sensitive {
            "a value".to_owned()
        } else {
            quote(text)
        }
    }

    /// A mapping with fields of known names.
    pub(super) fn fields(&mut self, at: &At<'n>) -> Option<Fields<'n>> {
        self.fields_such_as(at, "a mapping")
    }

    /// The same, where something simpler is often written: `expected` shows the whole.
    pub(super) fn fields_such_as(&mut self, at: &At<'n>, expected: &str) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &at.node.value else {
            self.mismatch(at, expected);
            return None;
        };
        Some(Fields {
            path: at.path.clone(),
            place: self.place(at),
            entries,
            known: Vec::new(),
        })
    }

    /// A mapping whose keys are the author's own, such as labels.
    pub(super) fn entries(&mut self, at: &At<'n>) -> Vec<(Spanned<&'n str>, At<'n>)> {
        let Value::Mapping(entries) = &at.node.value else {
            self.mismatch(at, "a mapping");
            return Vec::new();
        };
        entries
            .iter()
            .map(|(key, node)| {
                let path = join(&at.path, &key.name);
                let place = self.place_of(key.span);
                let value = key.name.as_str();
                (Spanned { value, place }, At { node, path })
            })
            .collect()
    }

    /// The items of a list that may be empty.
    pub(super) fn items(&mut self, at: &At<'n>) -> Vec<At<'n>> {
        let Value::Sequence(items) = &at.node.value else {
            self.mismatch(at, "a list");
            return Vec::new();
        };
        let item = |(index, node)| At {
            node,
            path: format!("{}[{index}]", at.path),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The items of a list that may not be empty: some would read none as all, others as none. `otherwise` is what
    /// can be done instead, where the field may be left out.
    pub(super) fn some_items(
        &mut self,
        at: &At<'n>,
        what: &str,
        otherwise: Option<&str>,
    ) -> Vec<At<'n>> {
        let items = self.items(at);
        if items.is_empty() && matches!(at.node.value, Value::Sequence(_)) {
            let place = self.place(at);
            let added = self
                .problems
                .error(place, format!("`{}` is empty", at.path))
                .expected(format!("at least one {what}"));
            if let Some(otherwise) = otherwise {
                added.help(format!("or leave it out: {otherwise}"));
            }
        }
        items
    }

    /// A string. Unquoted numbers, booleans and nulls are none: YAML readers disagree on their spelling.
    pub(super) fn text(&mut self, at: &At<'n>) -> Option<Spanned<&'n str>> {
        match &at.node.value {
            Value::Scalar { text, .. } if is_string(at) => Some(Spanned {
                value: text.as_str(),
                place: self.place(at),
            }),
            _ => {
                self.mismatch(at, "a string");
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub(super) fn parse<T, E: Display>(
        &mut self,
        at: &At<'n>,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Spanned<T>> {
        let place = self.place(at);
        let text = match &at.node.value {
            Value::Scalar { text, .. } => text.as_str(),
            Value::Sequence(_) | Value::Mapping(_) | Value::Broken => {
                self.mismatch(at, expected);
                return None;
            }
        };
        match parse(text) {
            Ok(value) if self.text(at).is_some() => Some(Spanned { value, place }),
            // It would be right as a string; the author is told to write one.
            Ok(_) => None,
            Err(_) if !is_string(at) => {
                self.mismatch(at, expected);
                None
            }
            Err(error) => {
                let shown = self.shown(text);
                self.problems
                    .error(place, format!("`{}` is {shown}: {error}", at.path))
                    .expected(expected);
                None
            }
        }
    }

    /// Of some items ([`Decoder::some_items`]), those that `parse` understands.
    pub(super) fn parse_list<T, E: Display>(
        &mut self,
        items: &[At<'n>],
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<Spanned<T>> {
        let parsed = items
            .iter()
            .filter_map(|item| self.parse(item, expected, &parse));
        parsed.collect()
    }

    /// An integer in decimal digits, from `min` to `max`.
    pub(super) fn integer<T>(&mut self, at: &At<'n>, min: T, max: T) -> Option<Spanned<T>>
    where
        T: std::str::FromStr + PartialOrd + Display,
    {
        let expected = format!("an integer from {min} to {max}");
        let place = self.place(at);
        match &at.node.value {
            Value::Scalar { text, plain: true } if type_of(text) == "an integer" => {
                let value = text.parse::<T>().ok();
                let value = value.filter(|value| (&min..=&max).contains(&value));
                if value.is_none() {
                    let shown = self.shown(text);
                    self.problems
                        .error(place, format!("`{}` is {shown}", at.path))
                        .expected(expected);
                }
                value.map(|value| Spanned { value, place })
            }
            _ => {
                self.mismatch(at, &expected);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        at: &At<'n>,
        known: &[(&str, T)],
    ) -> Option<Spanned<T>> {
        let Spanned { value: text, place } = self.text(at)?;
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            let value = *value;
            return Some(Spanned { value, place });
        }
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let shown = self.shown(text);
        self.problems
            .error(place, format!("`{}` is {shown}", at.path))
            .expected(words.join(" or "))
            .help(suggest(text, "values", &words));
        None
    }

    /// Is it a text of which this holds? For warnings; what is none is reported elsewhere.
    pub(super) fn is_text_with(&self, at: &At<'_>, holds: impl FnOnce(&str) -> bool) -> bool {
        match &at.node.value {
            Value::Scalar { text, .. } => is_string(at) && holds(text),
            Value::Sequence(_) | Value::Mapping(_) | Value::Broken => false,
        }
    }

    /// Reports a field that has no meaning beside the others.
    pub(super) fn refuse(&mut self, at: Option<&At<'_>>, why: &str) {
        if let Some(at) = at {
            let place = self.place(at);
            self.problems
                .error(place, format!("`{}` has no meaning {why}", at.path))
                .help("leave it out");
        }
    }

    /// Reports that a node is of another type than wanted.
    fn mismatch(&mut self, at: &At<'_>, expected: &str) {
        let found = match &at.node.value {
            Value::Broken => return,
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar { plain: false, .. } => "a string",
            Value::Scalar { text, .. } => type_of(text),
        };
        let place = self.place(at);
        let path = match at.path.as_str() {
            "" => "the document".to_owned(),
            path => format!("`{path}`"),
        };
        let added = self
            .problems
            .error(place, format!("{path} is {found}"))
            .expected(expected);
        if found == "nothing" {
            added.help("give it a value, or leave the field out");
        } else if expected == "a string" && matches!(at.node.value, Value::Scalar { .. }) {
            added.help("put the value in quotes");
        }
    }
}

impl<'n> Fields<'n> {
    /// Is nothing written in it?
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The field, if it is there. Its name counts as known from now on.
    pub(super) fn optional(&mut self, name: &'static str) -> Option<At<'n>> {
        self.known.push(name);
        self.find(name)
    }

    /// The field; its absence is reported.
    pub(super) fn required(
        &mut self,
        decoder: &mut Decoder<'_, '_>,
        name: &'static str,
    ) -> Option<At<'n>> {
        let found = self.optional(name);
        if found.is_none() {
            let path = join(&self.path, name);
            let added = decoder
                .problems
                .error(self.place, format!("`{path}` is missing"));
            if let Some(example) = example::of(name) {
                added.help(format!("add it: `{example}`"));
            }
        }
        found
    }

    /// Reports every field that nobody asked for.
    pub(super) fn finish(self, decoder: &mut Decoder<'_, '_>) {
        for (key, _) in self.entries {
            let name = key.name.as_str();
            if self.known.contains(&name) {
                continue;
            }
            let path = join(&self.path, name);
            let place = decoder.place_of(key.span);
            decoder
                .problems
                .error(place, format!("unknown field {}", quote(&path)))
                .help(suggest(name, "fields", &self.known));
        }
    }

    fn find(&self, name: &str) -> Option<At<'n>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        let path = join(&self.path, name);
        Some(At { node, path })
    }
}

fn is_string(at: &At<'_>) -> bool {
    match &at.node.value {
        Value::Scalar { text, plain } => !plain || type_of(text) == "a string",
        Value::Sequence(_) | Value::Mapping(_) | Value::Broken => false,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The type of an unquoted scalar by the core schema (YAML 1.2.2 section 10.3.2).
pub(super) fn type_of(text: &str) -> &'static str {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return "nothing",
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return "a boolean",
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let based = |prefix: &str, radix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|digit| digit.is_digit(radix)))
    };
    if digits(unsigned) || based("0x", 16) || based("0o", 8) {
        return "an integer";
    }
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or((unsigned, None), |(mantissa, exponent)| {
            (mantissa, Some(exponent))
        });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_holds =
        exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    let special = matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    );
    let number = (digits(whole) || whole.is_empty())
        && (digits(fraction) || fraction.is_empty())
        && !(whole.is_empty() && fraction.is_empty())
        && exponent_holds;
    if number || special {
        "a number"
    } else {
        "a string"
    }
}
