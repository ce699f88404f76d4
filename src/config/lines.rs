//! Offsets of a text as people count them.

use std::ops::Range;

/// A text and where each line of it begins.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, starts: std::iter::once(0).chain(ends.map(|(offset, _)| offset + 1)).collect() }
    }

    /// The number of the line of the byte at `offset`, from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The line of the byte at `offset`, without its end.
    pub(super) fn text(&self, offset: usize) -> &'a str {
        let start = self.start(offset);
        self.text[start..].lines().next().unwrap_or_default()
    }

    /// Which character of its line the byte at `offset` begins, from 1.
    pub(super) fn column(&self, offset: usize) -> usize {
        characters(&self.text.as_bytes()[self.start(offset)..offset.min(self.text.len())]) + 1
    }

    /// The column after the span, or after the first line of it.
    pub(super) fn end_column(&self, span: &Range<usize>) -> usize {
        let end_of_line = self.start(span.start) + self.text(span.start).len();
        let end = span.end.min(end_of_line).max(span.start);
        self.column(span.start) + characters(&self.text.as_bytes()[span.start..end])
    }

    fn start(&self, offset: usize) -> usize {
        self.starts[self.number(offset) - 1]
    }
}

/// How many characters begin in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a = 1\r\nñ = \"é\" # x\n";
        let lines = Lines::of(text);
        let at = |offset| (lines.number(offset), lines.column(offset), lines.text(offset));
        assert_eq!(at(0), (1, 1, "a = 1"));
        assert_eq!(at(4), (1, 5, "a = 1"));
        assert_eq!(at(7), (2, 1, "ñ = \"é\" # x"));
        assert_eq!(at(text.find('#').expect("it is there")), (2, 9, "ñ = \"é\" # x"));
        assert_eq!(at(text.len()), (3, 1, ""));
    }

    #[test]
    fn a_span_of_several_lines_ends_with_its_first() {
        let text = "ab = [\n1,\n]\n";
        let lines = Lines::of(text);
        assert_eq!(lines.end_column(&(5..11)), 7);
        assert_eq!(lines.end_column(&(0..2)), 3);
        assert_eq!(lines.end_column(&(12..12)), 1);
    }
}
