//! Where statuses stand in a database.
//!
//! Names of tables and columns cannot be arguments of a statement; they become part of its text. So only names are
//! taken that could not be anything else, and even they are quoted.

use std::fmt;

/// The longest name that PostgreSQL keeps; it cuts longer ones.
pub(super) const LONGEST: usize = 63;

/// A table, its column of statuses, and the column by which its rows are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    schema: Option<String>,
    table: String,
    status: String,
    status_type: Option<String>,
    key: String,
}

impl Target {
    /// The column `status` of `table` ("messages" or "support.messages"), whose rows are found by `id`. Names are
    /// written as the database has them: case makes a difference.
    ///
    /// # Errors
    /// [`BadIdentifier`], as for all names here: each is 1 to 63 letters (of ASCII), digits and underscores, and
    /// does not begin with a digit.
    pub fn new(table: &str) -> Result<Self, BadIdentifier> {
        let (schema, table) = match table.split_once('.') {
            Some((schema, table)) => (Some(identifier(schema)?), table),
            None => (None, table),
        };
        let (status, key) = ("status".to_owned(), "id".to_owned());
        Ok(Self { schema, table: identifier(table)?, status, status_type: None, key })
    }

    /// The same, with its statuses in `column`.
    ///
    /// # Errors
    /// [`BadIdentifier`].
    pub fn status(self, column: &str) -> Result<Self, BadIdentifier> {
        Ok(Self { status: identifier(column)?, ..self })
    }

    /// The same, with statuses of a type that text does not become by itself: an enum of PostgreSQL.
    ///
    /// # Errors
    /// [`BadIdentifier`].
    pub fn status_type(self, name: &str) -> Result<Self, BadIdentifier> {
        Ok(Self { status_type: Some(identifier(name)?), ..self })
    }

    /// The same, with rows that are found by `column`, which must be unique.
    ///
    /// # Errors
    /// [`BadIdentifier`].
    pub fn key(self, column: &str) -> Result<Self, BadIdentifier> {
        Ok(Self { key: identifier(column)?, ..self })
    }

    pub(super) fn table_name(&self) -> &str {
        &self.table
    }

    pub(super) fn status_name(&self) -> &str {
        &self.status
    }

    /// The table, quoted.
    pub(super) fn quoted_table(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }

    pub(super) fn quoted_status(&self) -> String {
        quoted(&self.status)
    }

    pub(super) fn quoted_key(&self) -> String {
        quoted(&self.key)
    }

    /// How a text becomes a status, after the text.
    pub(super) fn cast(&self) -> String {
        self.status_type.as_deref().map_or_else(String::new, |name| format!("::{}", quoted(name)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}.{}", self.table, self.status)
    }
}

/// A text that is no name of a table or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadIdentifier(String);

impl fmt::Display for BadIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(
            f,
            "{name:?} is no name of a table or a column: 1 to {LONGEST} letters, digits and underscores"
        )
    }
}

impl std::error::Error for BadIdentifier {}

fn identifier(name: &str) -> Result<String, BadIdentifier> {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let fits = (1..=LONGEST).contains(&name.len())
        && name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
    if fits { Ok(name.to_owned()) } else { Err(BadIdentifier(name.chars().take(LONGEST).collect())) }
}

/// A name in the text of a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_only_if_it_could_be_nothing_else() {
        for name in ["messages", "support.messages", "_m", "Message2"] {
            assert_eq!(Target::new(name).map(|target| target.to_string()), Ok(format!("{name}.status")));
        }
        let long = "x".repeat(64);
        for name in ["", "a b", "a\"b", "m;DROP TABLE x", "2nd", "a.b.c", ".m", "m.", "größe", &long] {
            assert!(Target::new(name).is_err(), "{name:?}");
        }
        let target = Target::new("messages").expect("a name");
        assert!(target.clone().status("a-b").is_err() && target.clone().key("'id'").is_err());
        assert!(target.status_type("text; DROP").is_err());
    }

    #[test]
    fn names_are_quoted_as_they_are() {
        let target = Target::new("Support.Messages").and_then(|target| target.key("Id")).expect("names");
        assert_eq!(target.quoted_table(), r#""Support"."Messages""#);
        assert_eq!((target.quoted_status(), target.quoted_key()), (r#""status""#.into(), r#""Id""#.into()));
        assert_eq!(quoted(r#"a"b"#), r#""a""b""#);
    }
}
