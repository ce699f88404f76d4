//! What the desk asks its database. Each answer is a list of labels with a number.

use super::PANELS;

/// A row of an answer.
pub(crate) type Count = (String, i64);

/// One statement with its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Its name, by which the gate knows the operation.
    pub(crate) operation: &'static str,
    /// The text, the same for both databases.
    pub(crate) sql: &'static str,
    /// The arguments, `$1` first.
    pub(crate) args: Vec<Arg>,
    /// How many times the desk's `hold` it keeps its connection.
    pub(crate) weight: u32,
}

/// A heavy aggregate keeps its connection this many times as long as a short query.
const HEAVY: u32 = 30;

/// An argument of a statement.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    /// A text.
    Text(String),
    /// A number, or none.
    Number(Option<i64>),
}

/// Signs a user in: how many open tasks wait for them.
pub(crate) fn login(user: &str) -> Ask {
    Ask {
        operation: "login",
        sql: "SELECT 'open_tasks', count(*) FROM tasks WHERE assignee = $1 AND status = 'OPEN'",
        args: vec![Arg::Text(user.to_owned())],
        weight: 1,
    }
}

/// Assigns a message, or the first one that is ready, to a user. Asked twice, it assigns twice: nothing in the
/// table forbids it, so that whoever doubles requests can be found out.
pub(crate) fn assign(message: Option<i64>, assignee: &str, request: &str) -> Ask {
    Ask {
        operation: "assign",
        sql: "INSERT INTO tasks (message_id, assignee, request_id) \
              VALUES (coalesce($1, (SELECT min(id) FROM messages WHERE status = 'READY')), $2, $3) \
              RETURNING 'task', id",
        args: vec![Arg::Number(message), Arg::Text(assignee.to_owned()), Arg::Text(request.to_owned())],
        weight: 1,
    }
}

/// One panel of the dashboard: the messages of a channel that are ready.
pub(crate) fn panel(channel: i64) -> Ask {
    debug_assert!((0..PANELS).contains(&channel));
    Ask {
        operation: "dashboard_panel",
        sql: "SELECT 'ready', count(*) FROM messages WHERE channel = $1 AND status = 'READY'",
        args: vec![Arg::Number(Some(channel))],
        weight: 1,
    }
}

/// The oldest messages that are ready, with their channels.
pub(crate) fn assistance() -> Ask {
    Ask {
        operation: "assistance",
        sql: "SELECT 'message ' || id, channel FROM messages WHERE status = 'READY' ORDER BY id LIMIT 10",
        args: Vec::new(),
        weight: 2,
    }
}

/// How many messages stand in each status.
pub(crate) fn reports() -> Ask {
    Ask {
        operation: "reports",
        sql: "SELECT status, count(*) FROM messages GROUP BY status ORDER BY status",
        args: Vec::new(),
        weight: HEAVY,
    }
}

/// How long the messages of each status are, in all.
pub(crate) fn analytics() -> Ask {
    Ask {
        operation: "analytics",
        sql: "SELECT status, CAST(sum(length(body)) AS BIGINT) FROM messages GROUP BY status ORDER BY status",
        args: Vec::new(),
        weight: HEAVY,
    }
}
