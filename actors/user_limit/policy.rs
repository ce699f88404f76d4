//! What a user may have at once.

/// The limits for one user, and for how many users they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests in flight, and connections held, while the pool is pressed. Default 5.
    pub concurrent_under_pressure: u32,
    /// Acquisitions that wait for the user's own connections; one more is refused. What an admitted request
    /// asks for is not counted: it was promised. Default 256.
    pub parked: u32,
    /// Users that are counted at once; one more is not limited. Default 65,536.
    pub users: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { concurrent_under_pressure: 5, parked: 256, users: 65_536 }
    }
}
