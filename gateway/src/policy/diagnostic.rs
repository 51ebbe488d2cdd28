//! One problem of a policy, and how it is shown to a person.
//!
//! It refuses to know what the problem is about. It alone names `miette`.

use std::fmt;
use std::path::Path;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    NamedSource, SourceCode, SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};

/// Lines longer than this (characters) are not quoted: an excerpt is for reading.
const MAX_EXCERPT_LINE: usize = 400;

/// Columns at which text is wrapped.
const WIDTH: usize = 100;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy holds, but hardly as its author meant it.
    Warning,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset after the last byte.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first byte in characters, from 1.
    pub column: usize,
}

impl Span {
    /// The place after the last byte of a text.
    pub(super) fn at_end(text: &str) -> Self {
        let line = text.rsplit('\n').next().unwrap_or(text);
        Self {
            start: text.len(),
            end: text.len(),
            line: text.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

/// How a diagnostic is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours.
    pub color: bool,
    /// Box-drawing characters instead of ASCII ones.
    pub unicode: bool,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) file: Option<String>,
    pub(super) span: Option<Span>,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) help: Option<String>,
    /// The place may show a secret: it is named, never quoted.
    pub(super) sensitive: bool,
}

impl Diagnostic {
    /// A problem of a file or folder as such, of which nothing is quoted.
    pub(crate) fn of_path(severity: Severity, path: &Path, message: String) -> Self {
        Self {
            severity,
            file: Some(path.display().to_string()),
            span: None,
            message,
            expected: None,
            help: None,
            sensitive: true,
        }
    }

    /// The same, with what to do about it.
    pub(crate) fn with_help(self, help: &str) -> Self {
        Self {
            help: Some(help.to_owned()),
            ..self
        }
    }

    /// Error or warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The file's name as given, or `None` for a problem of the folder as a whole.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The place in the file.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// What was found: a lower-case fragment.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What was expected in its stead.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        self.expected.as_deref()
    }

    /// How to fix it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The diagnostic for a terminal (`color`, with box-drawing characters) or a file (neither).
    /// `source` is the text of [`Diagnostic::file`].
    #[must_use]
    pub fn render(&self, source: &str, color: bool) -> String {
        let unicode = color;
        self.render_with(source, Style { color, unicode })
    }

    /// As [`Diagnostic::render`], with the style chosen in full. A place in a `Secret` document is named
    /// but not quoted.
    #[must_use]
    pub fn render_with(&self, source: &str, style: Style) -> String {
        let theme = GraphicalTheme {
            characters: if style.unicode {
                ThemeCharacters::unicode()
            } else {
                ThemeCharacters::ascii()
            },
            styles: if style.color {
                ThemeStyles::ansi()
            } else {
                ThemeStyles::none()
            },
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            // `Line` has none to give, but is asked for its whole self only then.
            .with_context_lines(1)
            .with_links(false);
        let mut text = String::new();
        let report = Report::new(self, source);
        match handler.render_report(&mut text, &report) {
            Ok(()) => text,
            Err(fmt::Error) => format!("{self}\n"),
        }
    }
}

/// One line: `FILE:LINE:COLUMN: error: MESSAGE`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(out, "{place}: ")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{severity}: {}", self.message)
    }
}

impl Diagnostic {
    fn place(&self) -> Option<String> {
        let file = harmless(self.file.as_ref()?);
        Some(match self.span {
            Some(span) => format!("{file}:{}:{}", span.line, span.column),
            None => file,
        })
    }
}

/// What `miette` draws: the diagnostic together with an excerpt, if it may be quoted.
#[derive(Debug)]
struct Report<'a> {
    diagnostic: &'a Diagnostic,
    excerpt: Option<(NamedSource<Line>, LabeledSpan)>,
}

impl<'a> Report<'a> {
    fn new(diagnostic: &'a Diagnostic, source: &str) -> Self {
        Self {
            diagnostic,
            excerpt: excerpt(diagnostic, source),
        }
    }
}

fn excerpt(diagnostic: &Diagnostic, source: &str) -> Option<(NamedSource<Line>, LabeledSpan)> {
    let (file, span) = (diagnostic.file.as_ref()?, diagnostic.span?);
    if diagnostic.sensitive {
        return None;
    }
    let before = source.get(..span.start)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = source.get(line_start..)?;
    let line = rest.split('\n').next().unwrap_or(rest);
    let line = line.trim_end_matches('\r');
    if line.chars().count() > MAX_EXCERPT_LINE {
        return None;
    }
    // One line is quoted, even where the value goes on.
    let column = (span.start - line_start).min(line.len());
    let end = (span.end.max(span.start) - line_start).min(line.len());
    let label = LabeledSpan::new(
        diagnostic
            .expected
            .as_ref()
            .map(|text| format!("expected {text}")),
        column,
        end.saturating_sub(column),
    );
    let line = Line {
        text: harmless(line),
        number: before.matches('\n').count(),
    };
    Some((NamedSource::new(harmless(file), line), label))
}

/// What a file says cannot move the cursor, change colours, or turn the direction of the line: such letters are shown as
/// question marks, one a byte, so that places stay where they are.
fn harmless(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for letter in line.chars() {
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() && letter != '\t') || turns {
            shown.extend(std::iter::repeat_n('?', letter.len_utf8()));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// The line that is quoted, alone: those around it may belong to a `Secret`.
#[derive(Debug)]
struct Line {
    text: String,
    /// From 0.
    number: usize,
}

impl SourceCode for Line {
    /// The whole line, whatever part of it is asked for; asked without context, `miette` only wants
    /// to know where the part begins.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let bytes = self.text.as_bytes();
        let before = self.text.get(..span.offset());
        let before = before.ok_or(MietteError::OutOfBounds)?;
        let contents = if lines_before == 0 && lines_after == 0 {
            let column = before.chars().count();
            let part = bytes.get(span.offset()..span.offset() + span.len());
            let part = part.ok_or(MietteError::OutOfBounds)?;
            MietteSpanContents::new(part, *span, self.number, column, 1)
        } else {
            MietteSpanContents::new(bytes, (0, bytes.len()).into(), self.number, 0, 1)
        };
        Ok(Box::new(contents))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.diagnostic.message)?;
        match self.diagnostic.place() {
            Some(place) if self.excerpt.is_none() => write!(out, "\nat {place}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        // Where nothing is quoted there is no label to say what was expected.
        let expected = self.diagnostic.expected.as_ref();
        let expected = expected.filter(|_| self.excerpt.is_none());
        let text = match (expected, &self.diagnostic.help) {
            (None, None) => return None,
            (None, Some(help)) => help.clone(),
            (Some(expected), None) => format!("expected {expected}"),
            (Some(expected), Some(help)) => format!("expected {expected}; {help}"),
        };
        Some(Box::new(text))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt
            .as_ref()
            .map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.excerpt
            .as_ref()
            .map(|(_, label)| Box::new(std::iter::once(label.clone())) as Box<_>)
    }
}

#[cfg(test)]
mod tests;
