//! Who is connected to a PostgreSQL server, and which of them are gates.
//!
//! Every role sees of every session that it exists, whose it is, in which database and what it calls itself. What kind it
//! is ("client backend") only privileged roles see of others; workers of the server itself are left out by having no
//! database or no user.
//!
//! A gate is recognised by its control connection, which calls itself `selfheal wants 46 for desk`: how many connections
//! its pool wants, and what the sessions of that pool call themselves. It says so anew with every question. Sessions of
//! that name, role and database are taken for that pool's; so a program without a gate that bears the same name is not
//! counted as somebody else, and is only noticed by the slots that it takes.

use sqlx::{PgConnection, Row};

use super::share::{Part, Scope};

/// The server cuts names of sessions after this many bytes.
const NAME: usize = 63;

/// Who is connected to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    max: u32,
    reserved: u32,
    /// The server first; then the role and the database, if they have limits of their own.
    scopes: Vec<Scope>,
}

impl Census {
    /// Connections that the server accepts at all.
    pub(super) const fn max(&self) -> u32 {
        self.max
    }

    /// Of these, connections kept for superusers and privileged roles.
    pub(super) const fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Connections in use, by anybody.
    pub(super) fn used(&self) -> u32 {
        self.scopes.first().map_or(0, |server| server.used)
    }

    /// Other gates on the server.
    pub(super) fn peers(&self) -> usize {
        self.scopes.first().map_or(0, |server| server.peers.len())
    }

    /// What a gate may have that wants `want` and has `open` connections: the least that any limit leaves.
    pub(super) fn part(&self, want: u32, open: u32) -> Part {
        let parts = self.scopes.iter().map(|scope| scope.part(want, open));
        let least = |a: Part, b: Part| Part { limit: a.limit.min(b.limit), share: a.share.min(b.share) };
        parts.reduce(least).unwrap_or(Part { limit: 1, share: 1 })
    }
}

const LIMITS: &str = "\
    select
        set_config('application_name', $1, false),
        current_setting('max_connections')::int8 as max,
        current_setting('superuser_reserved_connections')::int8
            + coalesce(current_setting('reserved_connections', true), '0')::int8 as reserved,
        r.oid::int8 as role,
        r.rolconnlimit::int8 as role_of,
        d.oid::int8 as database,
        d.datconnlimit::int8 as database_of
    from pg_roles r, pg_database d
    where r.rolname = session_user and d.datname = current_database()";

const SESSIONS: &str = "\
    select usesysid::int8 as role, datid::int8 as database, coalesce(application_name, '') as name,
        bool_or(pid = pg_backend_pid()) as own, count(*) as sessions
    from pg_stat_activity
    where usesysid is not null and datid is not null
        and coalesce(backend_type, 'client backend') = 'client backend'
    group by 1, 2, 3, case when application_name like 'selfheal wants %' then pid end";

/// Says that the pool whose sessions are called `name` wants `want` connections, and asks who else is there.
pub(super) async fn take(conn: &mut PgConnection, name: &str, want: u32) -> Result<Census, sqlx::Error> {
    let limits = sqlx::query(LIMITS).bind(announcement(name, want)).fetch_one(&mut *conn).await?;
    let rows = sqlx::query(SESSIONS).fetch_all(conn).await?;
    let sessions = rows.iter().map(Sessions::of).collect::<Result<Vec<_>, _>>()?;
    let number = |column: &str| limits.try_get::<i64, _>(column);
    let count = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).unwrap_or(0));
    // A negative limit means that there is none.
    let limit = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).ok());
    let (max, reserved) = (count("max")?, count("reserved")?);
    let (role, database) = (number("role")?, number("database")?);
    let mut scopes = vec![scope(max.saturating_sub(reserved), &sessions, |_| true)];
    scopes.extend(limit("role_of")?.map(|of| scope(of, &sessions, |session| session.role == role)));
    scopes
        .extend(limit("database_of")?.map(|of| scope(of, &sessions, |session| session.database == database)));
    Ok(Census { max, reserved, scopes })
}

/// What a control connection calls itself; the server cuts it.
fn announcement(name: &str, want: u32) -> String {
    format!("selfheal wants {want} for {name}")
}

/// Sessions that are alike.
#[derive(Clone, Debug)]
struct Sessions {
    role: i64,
    database: i64,
    name: String,
    /// The asking one.
    own: bool,
    count: u32,
}

impl Sessions {
    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            role: row.try_get("role")?,
            database: row.try_get("database")?,
            name: row.try_get("name")?,
            own: row.try_get("own")?,
            count: u32::try_from(row.try_get::<i64, _>("sessions")?).unwrap_or(u32::MAX),
        })
    }

    /// How many connections it wants, and what its pool's sessions are called, if it is a gate's control connection.
    fn announced(&self) -> Option<(u32, &str)> {
        let (want, name) = self.name.strip_prefix("selfheal wants ")?.split_once(" for ")?;
        Some((want.parse().ok()?, name))
    }

    /// Whether these sessions are of the pool of `gate`, which is a control connection.
    fn are_of(&self, gate: &Self) -> bool {
        let alike = self.role == gate.role && self.database == gate.database;
        let Some((_, name)) = gate.announced().filter(|_| alike) else { return false };
        let cut = gate.name.len() >= NAME;
        self.name == name || cut && self.name.starts_with(name)
    }
}

/// Who is within a limit, of those of whom it speaks.
fn scope(of: u32, all: &[Sessions], which: impl Fn(&Sessions) -> bool) -> Scope {
    let sessions: Vec<_> = all.iter().filter(|session| which(session)).collect();
    let gates: Vec<_> = sessions.iter().filter(|session| session.announced().is_some()).collect();
    let guarded =
        |session: &Sessions| session.announced().is_some() || gates.iter().any(|gate| session.are_of(gate));
    let count = |sum: u32, session: &&Sessions| sum.saturating_add(session.count);
    Scope {
        of,
        used: sessions.iter().copied().fold(0, |sum, session| count(sum, &session)),
        others: sessions
            .iter()
            .copied()
            .filter(|session| !guarded(session))
            .fold(0, |sum, session| count(sum, &session)),
        peers: gates.iter().filter(|gate| !gate.own).filter_map(|gate| Some(gate.announced()?.0)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(role: i64, name: &str, count: u32) -> Sessions {
        Sessions { role, database: 1, name: name.into(), own: false, count }
    }

    #[test]
    fn gates_are_found_by_what_they_announce_and_their_sessions_by_name_and_role() {
        let all = [
            Sessions { own: true, ..sessions(1, &announcement("desk", 40), 1) },
            sessions(1, "desk", 60),
            sessions(1, &announcement("desk", 100), 1),
            sessions(1, &announcement("jobs", 8), 1),
            sessions(1, "jobs", 5),
            sessions(2, "desk", 3),
            sessions(1, "psql", 2),
            sessions(1, "selfheal wants a rest for ever", 1),
        ];
        let server = scope(97, &all, |_| true);
        assert_eq!(server, Scope { of: 97, used: 74, others: 6, peers: vec![100, 8] });
        let role = scope(30, &all, |session| session.role == 2);
        assert_eq!(role, Scope { of: 30, used: 3, others: 3, peers: vec![] });
    }

    #[test]
    fn a_name_that_the_server_cuts_is_still_known() {
        let name = "a-service-with-a-name-that-is-as-long-as-the-server-lets-it-be";
        let mut gate = announcement(name, 12);
        gate.truncate(NAME);
        let all = [sessions(1, &gate, 1), sessions(1, name, 7), sessions(1, "a-service", 2)];
        assert_eq!(scope(97, &all, |_| true).others, 2);
    }
}
