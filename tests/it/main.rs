//! Integration tests on SQLite.
