//! Integration tests on a private PostgreSQL.
