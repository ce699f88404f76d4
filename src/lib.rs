//! A service that heals itself.
