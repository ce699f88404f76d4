//! Offsets of a text as people count them.

/// Where each line of a text begins.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(offset, _)| offset + 1)).collect())
    }

    /// The line of the byte at `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// The character of its line that the byte at `offset` begins, from 1.
    pub(super) fn column(&self, text: &str, offset: usize) -> usize {
        let start = self.0[self.line(offset) - 1];
        text.as_bytes()[start..offset.min(text.len())].iter().filter(|byte| !is_continuation(**byte)).count()
            + 1
    }
}

/// Whether a byte of UTF-8 is not the first of its character.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a = 1\nñ = \"é\" # x\n";
        let lines = Lines::of(text);
        let at = |offset| (lines.line(offset), lines.column(text, offset));
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(4), (1, 5));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(text.find('#').expect("it is there")), (2, 9));
        assert_eq!(at(text.len()), (3, 1));
    }
}
