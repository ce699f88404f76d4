//! The end of a part's transaction on PostgreSQL: how far its job is, and the commit, in one round trip.
//!
//! A part is `begin`, what the host does, the update of the job's row, and `commit`. The last two need nothing of each
//! other but that the commit must not happen if the update finds that the lease is lost. So they are sent as one simple
//! query, whose statements the server does one after the other until one fails:
//!
//! - **The lease is lost**: the update finds no row, and what reads its result fails, because the words that say so are no
//!   number. The rest of the query is skipped and the transaction has failed; it is rolled back with the connection's
//!   return.
//! - **`commit and chain`**, because sqlx counts transactions by what it has sent itself: it does not see a commit in the
//!   middle of a query, and would end the transaction once more when the connection goes back; for a rollback outside of
//!   any the server writes a warning, for each part. With `chain` there is one, which is empty, holds nothing, and is rolled
//!   back together with the ping that each return makes anyway: no round trip more.
//! - **A connection that ends under way** is, as with every commit, nobody's knowledge: the journal is asked.
//!
//! Simple queries have no parameters. What is put into the text is written here: numbers, and bytes as hexadecimal digits;
//! nothing that anybody else has worded. The server plans the update anew each time, which is cheaper than a round trip
//! even to the same machine.

use std::fmt::Write as _;

use selfheal_actors::batch_executor::journal::{Lease, Progress};

use super::dialect::count;

/// What a lost lease is told by: the server says it back.
const LOST: &str = "the lease of this job is lost";

/// Writes how far a job is, and commits; or fails, if the lease is lost.
pub(super) fn statements(lease: Lease, Progress { cursor, counts }: &Progress) -> String {
    let Lease { job, token } = lease;
    let [total, done, blocked, failed] =
        [counts.total, counts.done, counts.blocked, counts.failed].map(count);
    let cursor = cursor.as_deref().map_or_else(|| "null::bytea".to_owned(), bytes);
    let (job, settled) = (job.0, done.saturating_add(blocked).saturating_add(failed));
    format!(
        "with held as (
            update selfheal_jobs set progress = {cursor}, total = {total}, done = {done}, blocked = {blocked},
                failed = {failed}, losses = 0
            where id = {job} and token = {token} and state = 1
                and (done + blocked + failed < {settled}
                    or done + blocked + failed = {settled} and progress is distinct from {cursor})
            returning 1
        )
        select (case when exists (select from held) then '1' else '{LOST}' end)::int;
        commit and chain"
    )
}

/// Whether they failed because of that, and nothing else.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    let told = error.as_database_error();
    told.is_some_and(|told| told.code().as_deref() == Some("22P02") && told.message().contains(LOST))
}

/// In digits, not escaped: what a backslash means is a setting.
fn bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 16);
    text.push_str("decode('");
    for byte in bytes {
        // A `String` takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("', 'hex')");
    text
}

#[cfg(test)]
mod tests {
    use selfheal_actors::batch_executor::journal::{Counts, JobId};

    use super::*;

    #[test]
    fn what_somebody_else_has_worded_is_there_in_digits_only() {
        let counts = Counts { total: 9, done: 3, blocked: 2, failed: 1 };
        let cursor = Some(b"'); drop table selfheal_jobs; --".to_vec());
        let text = statements(Lease { job: JobId(-7), token: 4 }, &Progress { cursor, counts });
        assert!(!text.contains("drop") && text.contains("27293b2064726f70"), "{text}");
        assert!(text.contains("id = -7 and token = 4") && text.contains("failed < 6"), "{text}");
        assert!(statements(Lease { job: JobId(1), token: 1 }, &Progress::default()).contains("null::bytea"));
    }
}
