//! Work that outlives its caller: what was accepted is written down first, and then done.

pub mod journal;
mod policy;

pub use policy::Tenure;
