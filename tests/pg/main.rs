//! Integration tests on a private PostgreSQL.

#[cfg(test)]
mod server;
