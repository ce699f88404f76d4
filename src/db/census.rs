//! Who is connected to a PostgreSQL server, and which of them are gates.
//!
//! Every role sees of every session that it exists, whose it is, in which database and what it calls itself. What kind it
//! is ("client backend") only privileged roles see of others; workers of the server itself are left out by having no
//! database or no user.
//!
//! A gate is recognised by its control connection, which calls itself `selfheal wants 46 #7f3a19 @456789 for desk`: how
//! many connections its pool wants, which pool that is, when it said so by the server's clock, and what the sessions of
//! that pool call themselves. It says so anew with every question. Sessions of that name, role and database are taken
//! for that pool's; so a program without a gate that bears the same name is not counted as somebody else, and is only
//! noticed by the slots that it takes.
//!
//! A control connection can outlive its gate: behind a broken network a server keeps it for hours. So who has not said
//! anything for [`SILENCE`] is no gate any more, and its sessions are somebody else's; and an older connection of the same
//! pool, whose watcher was restarted, is not another gate.

use std::fmt;

use sqlx::{PgConnection, Row};

use super::share::{Part, Scope};

/// The server cuts names of sessions after this many bytes.
const NAME: usize = 63;
/// Seconds after which a gate that says nothing is none: a healthy one speaks twice a second.
const SILENCE: i64 = 5;
/// The clock in a name has this many seconds, which is eleven days.
const ROUND: i64 = 1_000_000;

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
        set_config('application_name', format($1, extract(epoch from clock_timestamp())::int8 % 1000000), false),
        extract(epoch from clock_timestamp())::int8 % 1000000 as now,
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
        count(*) as sessions
    from pg_stat_activity
    where usesysid is not null and datid is not null
        and coalesce(backend_type, 'client backend') = 'client backend'
    group by 1, 2, 3, case when application_name like 'selfheal wants %' then pid end";

/// What a gate says of its pool.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which pool it is.
    pub(super) pool: u32,
    /// How many connections it wants.
    pub(super) connections: u32,
}

/// Says what is `wanted` for the pool whose sessions are called `name`, and asks who else is there.
pub(super) async fn take(conn: &mut PgConnection, name: &str, wanted: Wanted) -> Result<Census, sqlx::Error> {
    // The server puts its own time in.
    let announcement = announcement(&name.replace('%', "%%"), wanted, "%s");
    let limits = sqlx::query(LIMITS).bind(announcement).fetch_one(&mut *conn).await?;
    let rows = sqlx::query(SESSIONS).fetch_all(conn).await?;
    let sessions = rows.iter().map(Sessions::of).collect::<Result<Vec<_>, _>>()?;
    let number = |column: &str| limits.try_get::<i64, _>(column);
    let count = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).unwrap_or(0));
    // A negative limit means that there is none.
    let limit = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).ok());
    let (max, reserved) = (count("max")?, count("reserved")?);
    let (role, database) = (number("role")?, number("database")?);
    let asked = Asked { pool: wanted.pool & POOL, now: number("now")? };
    let mut scopes = vec![asked.scope(max.saturating_sub(reserved), &sessions, |_| true)];
    scopes.extend(limit("role_of")?.map(|of| asked.scope(of, &sessions, |session| session.role == role)));
    scopes.extend(
        limit("database_of")?.map(|of| asked.scope(of, &sessions, |session| session.database == database)),
    );
    Ok(Census { max, reserved, scopes })
}

/// So much of a pool's number is in the name.
const POOL: u32 = 0xff_ffff;

/// What a control connection calls itself; the server cuts it.
fn announcement(name: &str, wanted: Wanted, at: impl fmt::Display) -> String {
    format!("selfheal wants {} #{:06x} @{at} for {name}", wanted.connections, wanted.pool & POOL)
}

/// What a control connection says.
struct Announcement<'a> {
    want: u32,
    pool: u32,
    at: i64,
    name: &'a str,
}

impl<'a> Announcement<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (want, text) = text.strip_prefix("selfheal wants ")?.split_once(" #")?;
        let (pool, text) = text.split_once(" @")?;
        let (at, name) = text.split_once(" for ")?;
        let pool = u32::from_str_radix(pool, 16).ok()?;
        Some(Self { want: want.parse().ok()?, pool, at: at.parse().ok()?, name })
    }
}

/// Sessions that are alike.
#[derive(Clone, Debug)]
struct Sessions {
    role: i64,
    database: i64,
    name: String,
    count: u32,
}

impl Sessions {
    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            role: row.try_get("role")?,
            database: row.try_get("database")?,
            name: row.try_get("name")?,
            count: u32::try_from(row.try_get::<i64, _>("sessions")?).unwrap_or(u32::MAX),
        })
    }

    /// Whether these sessions are of the pool of `gate`, which is a control connection that says `said`.
    fn are_of(&self, gate: &Self, said: &Announcement<'_>) -> bool {
        let cut = gate.name.len() >= NAME;
        let named = self.name == said.name || cut && self.name.starts_with(said.name);
        named && self.role == gate.role && self.database == gate.database
    }
}

/// Who asks, and when.
#[derive(Clone, Copy)]
struct Asked {
    pool: u32,
    now: i64,
}

impl Asked {
    /// Who is within a limit, of those of whom it speaks.
    fn scope(self, of: u32, all: &[Sessions], which: impl Fn(&Sessions) -> bool) -> Scope {
        let sessions: Vec<_> = all.iter().filter(|session| which(session)).collect();
        let gates: Vec<_> =
            sessions.iter().filter_map(|session| Some((*session, self.hear(session)?))).collect();
        let guarded = |session: &Sessions| {
            self.hear(session).is_some() || gates.iter().any(|(gate, said)| session.are_of(gate, said))
        };
        let count = |sum: u32, session: &&Sessions| sum.saturating_add(session.count);
        let others: Vec<_> = sessions.iter().copied().filter(|session| !guarded(session)).collect();
        Scope {
            of,
            used: sessions.iter().fold(0, count),
            others: others.iter().fold(0, count),
            peers: gates
                .iter()
                .filter(|(_, said)| said.pool != self.pool)
                .map(|(_, said)| said.want)
                .collect(),
        }
    }

    /// What a session says of its gate, if it is a control connection and has said so lately.
    fn hear(self, session: &Sessions) -> Option<Announcement<'_>> {
        let said = Announcement::read(&session.name)?;
        ((self.now - said.at).rem_euclid(ROUND) <= SILENCE).then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 3;
    const ASKED: Asked = Asked { pool: 1, now: NOW };

    fn sessions(role: i64, name: &str, count: u32) -> Sessions {
        Sessions { role, database: 1, name: name.into(), count }
    }

    fn gate(name: &str, pool: u32, want: u32, at: i64) -> Sessions {
        sessions(1, &announcement(name, Wanted { pool, connections: want }, at), 1)
    }

    #[test]
    fn gates_are_found_by_what_they_announce_and_their_sessions_by_name_and_role() {
        let all = [
            gate("desk", 1, 40, NOW),
            sessions(1, "desk", 60),
            gate("desk", 2, 100, NOW - 1),
            gate("jobs", 3, 8, ROUND - 2),
            sessions(1, "jobs", 5),
            sessions(2, "desk", 3),
            sessions(1, "psql", 2),
            sessions(1, "selfheal wants a rest for ever", 1),
        ];
        let server = ASKED.scope(97, &all, |_| true);
        assert_eq!(server, Scope { of: 97, used: 74, others: 6, peers: vec![100, 8] });
        let role = ASKED.scope(30, &all, |session| session.role == 2);
        assert_eq!(role, Scope { of: 30, used: 3, others: 3, peers: vec![] });
    }

    #[test]
    fn a_gate_that_has_gone_silent_is_none_and_an_older_connection_of_ours_is_no_other() {
        let all = [
            gate("desk", 1, 40, NOW),
            gate("desk", 1, 40, NOW - SILENCE),
            sessions(1, "desk", 9),
            gate("jobs", 2, 100, NOW - SILENCE - 1 + ROUND),
            sessions(1, "jobs", 20),
        ];
        let server = ASKED.scope(97, &all, |_| true);
        assert_eq!(server, Scope { of: 97, used: 32, others: 21, peers: vec![] });
    }

    #[test]
    fn a_name_that_the_server_cuts_is_still_known() {
        let name = "a-service-with-a-name-that-is-as-long-as-the-server-lets-it-be";
        let mut cut = gate(name, 2, 12, NOW);
        cut.name.truncate(NAME);
        let all = [cut, sessions(1, name, 7), sessions(1, "a-service", 2)];
        assert_eq!(ASKED.scope(97, &all, |_| true).others, 2);
    }
}
