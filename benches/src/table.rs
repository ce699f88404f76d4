//! Tables in Markdown, aligned, so that they read well in a terminal and can be pasted.

use std::fmt;

/// A table that is filled row by row.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    #[must_use]
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    /// One more row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let width = |i: usize| self.rows.iter().map(|row| cell(row, i).chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (i, &width) in widths.iter().enumerate() {
                write!(f, "| {:width$} ", cell(row, i))?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                let line: String =
                    widths.iter().map(|&width| format!("|{}", "-".repeat(width + 2))).collect();
                writeln!(f, "{line}|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["a", "long head"]);
        table.row(["wide cell", "b"]);
        assert_eq!(
            table.to_string(),
            "| a         | long head |\n|-----------|-----------|\n| wide cell | b         |\n"
        );
    }
}
