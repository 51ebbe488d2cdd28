//! Places in the files of a folder, and the list to which every stage adds the problems it finds.
//!
//! It refuses to know what a problem is about and how it is drawn.

use std::fmt;

use super::{Diagnostic, Severity, SourceFile, Span};

/// The most problems that are kept: a file of a million mistakes is reported as such.
const MAX_PROBLEMS: usize = 500;

/// A place in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position in the list of files.
    pub(super) file: usize,
    pub(super) span: Span,
    /// It may show a secret, and must not be quoted.
    pub(super) sensitive: bool,
}

/// Where a rule is written; shown as `FILE:LINE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlace {
    /// The file's name as given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file, self.line)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// The problems found so far.
pub(super) struct Problems<'a> {
    files: &'a [SourceFile],
    found: Vec<(Option<Place>, Diagnostic)>,
    dropped: usize,
    /// Something could not be read at all: what seems to be missing may be in there.
    pub(super) incomplete: bool,
}

/// The problem just added, to be said more about.
pub(super) struct Added<'p>(Option<&'p mut Diagnostic>);

impl<'a> Problems<'a> {
    pub(super) fn new(files: &'a [SourceFile]) -> Self {
        Self {
            files,
            found: Vec::new(),
            dropped: 0,
            incomplete: false,
        }
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) -> Added<'_> {
        self.add(Severity::Error, Some(place), message.into())
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>) -> Added<'_> {
        self.add(Severity::Warning, Some(place), message.into())
    }

    /// An error of the folder as a whole.
    pub(super) fn folder_error(&mut self, message: impl Into<String>) -> Added<'_> {
        self.add(Severity::Error, None, message.into())
    }

    /// Is there an error?
    pub(super) fn failed(&self) -> bool {
        let mut found = self.found.iter();
        self.dropped > 0 || found.any(|(_, found)| found.severity == Severity::Error)
    }

    /// The name of the file of a place.
    pub(super) fn file(&self, place: Place) -> &'a str {
        self.files.get(place.file).map_or("", |file| &file.name)
    }

    /// `FILE:LINE:COLUMN` of a place in another message.
    pub(super) fn locate(&self, place: Place) -> String {
        let place = self.rule_place(place);
        format!("{place}:{}", place.column)
    }

    /// A place that outlives the compilation.
    pub(super) fn rule_place(&self, place: Place) -> RulePlace {
        RulePlace {
            file: self.file(place).to_owned(),
            line: place.span.line,
            column: place.span.column,
        }
    }

    /// Whether there is an error, and all problems in the order of files and places.
    pub(super) fn finish(mut self) -> (bool, Vec<Diagnostic>) {
        self.found
            .sort_by_key(|(place, _)| place.map(|place| (place.file, place.span.start)));
        let mut failed = false;
        let mut diagnostics = Vec::with_capacity(self.found.len());
        for (_, diagnostic) in self.found {
            failed |= diagnostic.severity == Severity::Error;
            diagnostics.push(diagnostic);
        }
        if self.dropped > 0 {
            failed = true;
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                file: None,
                span: None,
                message: format!("{} more problems are not shown", self.dropped),
                expected: None,
                help: None,
                sensitive: true,
            });
        }
        (failed, diagnostics)
    }

    fn add(&mut self, severity: Severity, place: Option<Place>, message: String) -> Added<'_> {
        if self.found.len() >= MAX_PROBLEMS {
            self.dropped += 1;
            return Added(None);
        }
        let file = place.and_then(|place| self.files.get(place.file));
        self.found.push((
            place,
            Diagnostic {
                severity,
                file: file.map(|file| file.name.clone()),
                span: place.map(|place| place.span),
                message,
                expected: None,
                help: None,
                sensitive: place.is_some_and(|place| place.sensitive),
            },
        ));
        Added(self.found.last_mut().map(|(_, diagnostic)| diagnostic))
    }
}

impl Added<'_> {
    /// What should have stood there.
    pub(super) fn expected(self, text: impl Into<String>) -> Self {
        self.with(|diagnostic| diagnostic.expected = Some(text.into()))
    }

    /// How to fix it.
    pub(super) fn help(self, text: impl Into<String>) -> Self {
        self.with(|diagnostic| diagnostic.help = Some(text.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Diagnostic)) -> Self {
        if let Some(diagnostic) = &mut self.0 {
            change(diagnostic);
        }
        self
    }
}

/// A text from a policy, for a message: escaped, and cut at 60 characters.
pub(super) fn quote(text: &str) -> String {
    const MAX_QUOTE: usize = 60;
    let mut quoted: String = text
        .chars()
        .take(MAX_QUOTE)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        quoted.push_str("...");
    }
    format!("`{quoted}`")
}

/// The known word nearest to an unknown one, if any is near enough to have been meant.
pub(super) fn nearest<'k>(
    found: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    // Longer than any word known; comparing costs the product of both lengths.
    if found.len() > 128 {
        return None;
    }
    let found = found.to_ascii_lowercase();
    let distance = |word: &str| strsim::damerau_levenshtein(&found, &word.to_ascii_lowercase());
    known
        .into_iter()
        .map(|word| (distance(word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Help for an unknown word: the nearest known one, and all of them.
pub(crate) fn suggest(found: &str, what: &str, known: &[&str]) -> String {
    let list = if known.is_empty() {
        format!("there are no {what}")
    } else {
        format!("known {what}: {}", known.join(", "))
    };
    match nearest(found, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`? {list}"),
        None => list,
    }
}
