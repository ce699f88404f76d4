//! What keeps the actors alive, and away from the host.
//!
//! The actors run on a thread of their own, the *control plane*, so that a host which blocks its workers cannot
//! blind them, and they cannot slow the host. A second thread, the *guardian*, watches that one: it starts the
//! tree anew when it has ended, and leaves a thread behind that no longer answers. When even that does not
//! help it says so once and lets the host serve on without healing: it never ends the host.

mod control_plane;
mod guardian;

pub use guardian::{Build, Cause, Epoch, Failure, Guardian, Options, Phase, Status};
