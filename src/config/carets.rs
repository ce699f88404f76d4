//! The report with the lines of the file and carets under the mistakes, for a terminal.

use std::fmt::{self, Write};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
    ThemeCharacters, ThemeStyles,
};

use super::report::{Issue, Report};

impl Report {
    /// The mistakes, each with its line of the file and a caret below it; `coloured` or not.
    ///
    /// Secrets are shown as asterisks.
    #[must_use]
    pub fn with_carets(&self, coloured: bool) -> String {
        let styles = if coloured { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme {
            characters: ThemeCharacters::unicode(),
            styles,
        })
        .with_context_lines(0)
        .with_width(110)
        .without_syntax_highlighting();
        let source = NamedSource::new(self.file.clone().unwrap_or_default(), self.text.clone());
        let mut out = String::new();
        for issue in &self.errors {
            // Writing to a string does not fail; a picture that cannot be drawn is told in words.
            if handler.render_report(&mut out, &Picture { issue, source: &source }).is_err() {
                let _ = writeln!(out, "{issue}");
            }
            out.push('\n');
        }
        if self.further > 0 {
            let _ = writeln!(out, "and {} more", self.further);
        }
        out
    }
}

/// An issue as miette draws it.
#[derive(Debug)]
struct Picture<'a> {
    issue: &'a Issue,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a line of the file below it, the headline need not say where.
        match self.issue.span {
            Some(_) => f.write_str(&self.issue.headline()),
            None => write!(f, "{}: {}", self.issue.place(), self.issue.headline()),
        }
    }
}

impl std::error::Error for Picture<'_> {}

impl Diagnostic for Picture<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.issue.suggestion.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.issue.span.as_ref().map(|_| self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.issue.span.clone()?;
        // A table can be many lines long: its first one is enough to find it.
        let first =
            self.source.inner().get(span.clone()).and_then(|text| text.lines().next()).map_or(0, str::len);
        let label = self.issue.more().unwrap_or("here");
        Some(Box::new(std::iter::once(LabeledSpan::new(Some(label.to_owned()), span.start, first))))
    }
}
