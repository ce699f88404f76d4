//! What keeps the actors alive, and away from the host; and what a host holds of it all.
//!
//! [`Heal`] is the handle, made by a [`Builder`]. `wiring.rs` is the one file that knows every actor and says who
//! hears of what.
//!
//! The actors run on a thread of their own, the *control plane*, so that a host which blocks its workers cannot
//! blind them, and they cannot slow the host. A second thread, the *guardian*, watches that one: it starts the
//! tree anew when it has ended, kills an actor that hangs, and leaves a thread behind that no longer answers. When even that does not
//! help it says so once and lets the host serve on without healing: it never ends the host.

mod builder;
mod circuits;
mod control_plane;
mod guardian;
mod handle;
mod jobs;
mod operations;
mod pool;
mod pulse;
mod reading;
mod server_probe;
mod shutdown;
mod transitions;
mod wiring;

pub use builder::{Builder, StartError};
pub use guardian::{Build, Cause, Epoch, Failure, Guardian, Options, Phase, Status};
pub use handle::Heal;
pub use pulse::Watched;
pub use shutdown::{Ended, GRACE};
