//! Tables for a terminal: columns as wide as what is in them, numbers to the right.

use std::fmt;

use serde_json::Value;

/// Rows of `N` columns below their names.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub(crate) fn new(names: [&str; N]) -> Self {
        Self { rows: vec![names.map(str::to_uppercase)] }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let fill = " ".repeat(width - cell.chars().count());
                let is_number = cell.starts_with(|c: char| c.is_ascii_digit()) && cell.ends_with(" s")
                    || cell.chars().all(|c| c.is_ascii_digit());
                line.push_str(&if is_number { format!("{fill}{cell}  ") } else { format!("{cell}{fill}  ") });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value as a cell: text without its quotes, nothing as a dash.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A number of seconds as a cell.
pub(crate) fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_and_numbers_stand_to_the_right() {
        let mut table = Table::new(["pool", "in use"]);
        table.row(["main".to_owned(), "7".to_owned()]);
        table.row(["reporting".to_owned(), "100".to_owned()]);
        assert_eq!(table.to_string(), "POOL       IN USE\nmain            7\nreporting     100\n");
    }
}
