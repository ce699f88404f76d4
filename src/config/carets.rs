//! The report with the lines of the file and carets under the mistakes.

use std::fmt::{self, Write};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};

use super::report::{Issue, Report};

/// Who will read the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A program or a log: ASCII, and no line is wrapped.
    Plain,
    /// A terminal without colours.
    Monochrome,
    /// A terminal with colours.
    Coloured,
}

impl Report {
    /// The mistakes, each with its line of the file and a caret below it. Secrets are shown as asterisks.
    #[must_use]
    pub fn with_carets(&self, look: Look) -> String {
        let handler = look.handler();
        let mut out = String::new();
        for issue in &self.errors {
            // Writing to a string does not fail; a picture that cannot be drawn is told in words.
            if handler.render_report(&mut out, &Picture::of(issue)).is_err() {
                let _ = writeln!(out, "{issue}");
            }
            out.push('\n');
        }
        if self.further > 0 {
            let _ = writeln!(out, "and {} more\n", self.further);
        }
        out
    }
}

impl Look {
    fn handler(self) -> GraphicalReportHandler {
        let (characters, styles, width) = match self {
            Self::Plain => (ThemeCharacters::ascii(), ThemeStyles::none(), usize::MAX),
            Self::Monochrome => (ThemeCharacters::unicode(), ThemeStyles::none(), 110),
            Self::Coloured => (ThemeCharacters::unicode(), ThemeStyles::ansi(), 110),
        };
        GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles })
            .with_width(width)
            .with_wrap_lines(self != Self::Plain)
            .with_links(false)
            .without_syntax_highlighting()
    }
}

/// An issue as miette draws it.
#[derive(Debug)]
struct Picture<'a> {
    issue: &'a Issue,
    line: Option<Line<'a>>,
}

/// The one line that is shown: those around it are noise.
#[derive(Debug)]
struct Line<'a> {
    file: &'a str,
    /// With a space behind it if something is missing there, so that it can be pointed at.
    text: String,
    /// From 0.
    number: usize,
    /// From 0.
    column: usize,
    /// What the caret points at, in bytes of the text.
    marked: (usize, usize),
}

impl<'a> Picture<'a> {
    fn of(issue: &'a Issue) -> Self {
        Self { issue, line: Line::of(issue) }
    }
}

impl<'a> Line<'a> {
    /// `None` if the issue is not in the file, or its line too long to be shown.
    fn of(issue: &'a Issue) -> Option<Self> {
        let (text, number) = (issue.excerpt.as_deref()?, issue.line? - 1);
        let behind = if issue.column? > text.chars().count() { " " } else { "" };
        let text = format!("{text}{behind}");
        let offset =
            |column: usize| text.char_indices().nth(column - 1).map_or(text.len(), |(offset, _)| offset);
        let [start, end] = [issue.column?, issue.end_column?].map(offset);
        let file = issue.file.as_deref().unwrap_or_default();
        Some(Self { file, number, column: issue.column? - 1, marked: (start, (end - start).max(1)), text })
    }
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the line of the file below it, the headline need not say where.
        match self.line {
            Some(_) => f.write_str(&self.issue.headline()),
            None => write!(f, "{}: {}", self.issue.place(), self.issue.headline()),
        }
    }
}

impl std::error::Error for Picture<'_> {}

impl Diagnostic for Picture<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.issue.suggestion))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.line.as_ref().map(|line| line as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (start, length) = self.line.as_ref()?.marked;
        let label = LabeledSpan::new(self.issue.more().map(str::to_owned), start, length);
        Some(Box::new(std::iter::once(label)))
    }
}

impl SourceCode for Line<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        // Without context miette asks where the span is, and else for what to draw around it.
        let (start, column) = if context == 0 { (span.offset(), self.column) } else { (0, 0) };
        let shown = (start, self.text.len() - start).into();
        let data = &self.text.as_bytes()[start..];
        Ok(Box::new(MietteSpanContents::new_named(self.file.to_owned(), data, shown, self.number, column, 1)))
    }
}
