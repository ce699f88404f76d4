//! How many connections of a pool are in use, from two numbers that are read one after the other.
//!
//! In use is `size − min(idle, size)`, because the size may have changed between the two reads. And sqlx frees a
//! connection's slot before it counts the connection as idle, while whoever takes it counts down at once: for an
//! instant the count can be less than zero, which reads as 1.8 · 10¹⁹. That is no idle connection, not all of
//! them.

/// Connections of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Connections that are open or being opened.
    pub size: u32,
    /// Of these, connections that somebody uses or opens.
    pub in_use: u32,
}

impl Usage {
    /// What `size` and `idle`, as sqlx reports them, say together.
    #[must_use]
    pub fn of(size: u32, idle: usize) -> Self {
        let below_zero = isize::try_from(idle).is_err();
        let idle = if below_zero { 0 } else { u32::try_from(idle).unwrap_or(u32::MAX) };
        Self { size, in_use: size - idle.min(size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_idle_connections_that_wrapped_around_means_that_none_is_idle() {
        let wrapped = 0_usize.wrapping_sub(1);
        assert_eq!(Usage::of(10, wrapped), Usage { size: 10, in_use: 10 });
    }

    #[test]
    fn a_size_that_fell_between_the_two_reads_does_not_wrap_ours() {
        assert_eq!(Usage::of(0, 3), Usage { size: 0, in_use: 0 });
        assert_eq!(Usage::of(10, 4), Usage { size: 10, in_use: 6 });
    }
}
