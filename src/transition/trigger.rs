//! The same table, held to by PostgreSQL itself.
//!
//! A guard holds for those who use it. A script, a console or another service writes past it, and then only the
//! database can object. The trigger is one function with the table written out in it, and it looks at rows *after*
//! they were changed: whatever other triggers made of a row before, it sees what would be kept. It objects to the whole
//! statement, because whoever writes past the guard expects every row to be written; a guard's own statement never
//! meets an objection unless the two tables differ. A row whose status stays what it was costs nothing.
//!
//! The function bears the table's version in its comment, so that [`Trigger::installed`] tells what is in force from
//! what the config says. Its text is compared, too: a comment alone proves nothing.
//!
//! Changing an installed table replaces the function and locks nothing; only the first installation takes a lock on
//! the table (`SHARE ROW EXCLUSIVE`: writers wait), for a moment, and waits for it five seconds at most.

use std::fmt::{self, Write as _};

use selfheal_actors::transition::Table;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::target::{LONGEST, Target, quoted};

/// What the constraint is called in the error with which a change is refused.
pub(crate) const CONSTRAINT: &str = "selfheal_transitions";

/// The SQLSTATE of that error: a check was violated.
pub(crate) const REFUSED: &str = "23514";

/// Two installations at once wait for each other here.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310579624)";

/// How long an installation waits for the table.
const PATIENCE: &str = "SET LOCAL lock_timeout = '5s'";

const COMMENT: &str = "selfheal: transitions of ";
const VERSION: &str = ", version ";

/// The trigger of one table, on one target.
#[derive(Clone, Copy, Debug)]
pub struct Trigger<'a> {
    table: &'a Table,
    target: &'a Target,
}

/// What of it is in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing.
    Absent,
    /// What the table says.
    AsDeclared,
    /// What another table says, or an older one.
    Drifted {
        /// Its version, if the comment tells it.
        version: Option<String>,
    },
    /// It says it was this table, and is not.
    Altered,
    /// It is there, and switched off.
    Disabled,
}

impl Installed {
    /// The state in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::AsDeclared => "installed",
            Self::Drifted { .. } => "drifted",
            Self::Altered => "altered",
            Self::Disabled => "disabled",
        }
    }

    /// Whether the database does something else than what was declared.
    #[must_use]
    pub const fn has_drifted(&self) -> bool {
        match self {
            Self::Absent | Self::AsDeclared => false,
            Self::Drifted { .. } | Self::Altered | Self::Disabled => true,
        }
    }
}

impl<'a> Trigger<'a> {
    /// The trigger that holds `target` to `table`.
    #[must_use]
    pub const fn new(table: &'a Table, target: &'a Target) -> Self {
        Self { table, target }
    }

    /// What of it is in the database.
    ///
    /// # Errors
    /// [`TriggerError`]: there is no such table or column, or the database failed.
    pub async fn installed(&self, connection: &mut PgConnection) -> Result<Installed, TriggerError> {
        let place = self.place(connection).await?;
        self.look(connection, &place).await
    }

    /// Has the database hold to the table, and says what was there before. Nothing is done where all is as declared.
    /// All of it or nothing; on a connection with an open transaction it is part of that.
    ///
    /// # Errors
    /// [`TriggerError`]: there is no such table or column, the role may not do this, or the table could not be locked
    /// within five seconds.
    pub async fn install(&self, connection: &mut PgConnection) -> Result<Installed, TriggerError> {
        let mut transaction = connection.begin().await?;
        let place = self.prepare(&mut transaction).await?;
        let before = self.look(&mut transaction, &place).await?;
        if before != Installed::AsDeclared {
            for statement in self.statements(&place, &before) {
                // Its names are quoted and its texts are literals.
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(before)
    }

    /// Takes it away, and says what was there before.
    ///
    /// # Errors
    /// As for [`install`](Self::install).
    pub async fn remove(&self, connection: &mut PgConnection) -> Result<Installed, TriggerError> {
        let mut transaction = connection.begin().await?;
        let place = self.prepare(&mut transaction).await?;
        let before = self.look(&mut transaction, &place).await?;
        let statements = format!(
            "DROP TRIGGER IF EXISTS {} ON {}; DROP FUNCTION IF EXISTS {}()",
            quoted(&self.name()),
            place.table,
            place.function
        );
        // As above.
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(before)
    }

    async fn prepare(&self, connection: &mut PgConnection) -> Result<Place, TriggerError> {
        sqlx::query(PATIENCE).execute(&mut *connection).await?;
        sqlx::query(LOCK).execute(&mut *connection).await?;
        self.place(connection).await
    }

    /// Where the table is, whatever the search path.
    async fn place(&self, connection: &mut PgConnection) -> Result<Place, TriggerError> {
        let find = "SELECT quote_ident(n.nspname) AS schema, quote_ident(c.relname) AS name, \
                    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2 \
                    AND NOT a.attisdropped) AS has_column \
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
        let found = sqlx::query(find)
            .bind(self.target.quoted_table())
            .bind(self.target.status_name())
            .fetch_optional(&mut *connection)
            .await?;
        let missing = || TriggerError::NoColumn { target: self.target.to_string() };
        let row = found.ok_or_else(missing)?;
        if !row.try_get::<bool, _>("has_column")? {
            return Err(missing());
        }
        let (schema, name): (String, String) = (row.try_get("schema")?, row.try_get("name")?);
        let function = format!("{schema}.{}", quoted(&self.function_name()));
        Ok(Place { table: format!("{schema}.{name}"), function })
    }

    async fn look(&self, connection: &mut PgConnection, place: &Place) -> Result<Installed, TriggerError> {
        let find = "SELECT t.tgenabled::text AS enabled, p.prosrc AS body, obj_description(p.oid, 'pg_proc') AS comment \
                    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
                    WHERE t.tgrelid = to_regclass($1) AND t.tgname = $2 AND NOT t.tgisinternal";
        let found =
            sqlx::query(find).bind(&place.table).bind(self.name()).fetch_optional(&mut *connection).await?;
        let Some(row) = found else { return Ok(Installed::Absent) };
        let (enabled, body, comment): (String, String, Option<String>) =
            (row.try_get("enabled")?, row.try_get("body")?, row.try_get("comment")?);
        let version = comment.as_deref().and_then(version_in);
        Ok(match version {
            Some(version) if version == self.version() && body != self.body() => Installed::Altered,
            Some(version) if version != self.version() => {
                Installed::Drifted { version: Some(version.into()) }
            }
            None => Installed::Drifted { version: None },
            // "O" and "A": for all who write, but for replication, or even then.
            Some(_) if !["O", "A"].contains(&enabled.as_str()) => Installed::Disabled,
            Some(_) => Installed::AsDeclared,
        })
    }

    fn statements(&self, place: &Place, before: &Installed) -> Vec<String> {
        let Place { table, function } = place;
        let (name, status, body) = (quoted(&self.name()), self.target.quoted_status(), self.body());
        let tag = tag(&body);
        let replace = format!(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql \
             SET search_path = pg_catalog, pg_temp AS {tag}{body}{tag}"
        );
        let comment = format!("COMMENT ON FUNCTION {function}() IS {}", literal(&self.comment()));
        let last = match before {
            Installed::Absent => format!(
                "CREATE TRIGGER {name} AFTER UPDATE ON {table} FOR EACH ROW \
                 WHEN (OLD.{status} IS DISTINCT FROM NEW.{status}) EXECUTE FUNCTION {function}()"
            ),
            Installed::AsDeclared | Installed::Drifted { .. } | Installed::Altered | Installed::Disabled => {
                format!("ALTER TABLE {table} ENABLE TRIGGER {name}")
            }
        };
        vec![replace, comment, last]
    }

    /// The function's text: the edges, and what to say of any other.
    fn body(&self) -> String {
        let status = self.target.quoted_status();
        let edges: Vec<_> =
            self.table.edges().map(|(from, to)| format!("({}, {})", literal(from), literal(to))).collect();
        let is_listed = match edges.as_slice() {
            [] => "false".to_owned(),
            edges => format!("(OLD.{status}::text, NEW.{status}::text) IN ({})", edges.join(", ")),
        };
        format!(
            "\nBEGIN\n  IF ({is_listed}) IS NOT TRUE THEN\n    \
             RAISE EXCEPTION USING ERRCODE = '{REFUSED}',\n      \
             MESSAGE = {} || coalesce(OLD.{status}::text, 'NULL') || ' → ' || coalesce(NEW.{status}::text, 'NULL'),\n      \
             DETAIL = {},\n      \
             CONSTRAINT = '{CONSTRAINT}', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = {};\n  \
             END IF;\n  RETURN NULL;\nEND\n",
            literal(&format!("invalid transition of {}: ", self.table.machine())),
            self.detail(),
            literal(self.target.status_name()),
        )
    }

    fn detail(&self) -> String {
        let mut cases = String::new();
        for state in self.table.states() {
            let allowed = self.table.allowed_from(state);
            if !allowed.is_empty() {
                let text = format!("{state} may become {}", allowed.join(" or "));
                // Writing to a string cannot fail.
                let _ = write!(cases, " WHEN {} THEN {}", literal(state), literal(&text));
            }
        }
        let otherwise = "'nothing leads on from there'";
        match cases.as_str() {
            "" => otherwise.to_owned(),
            cases => format!("CASE OLD.{}::text{cases} ELSE {otherwise} END", self.target.quoted_status()),
        }
    }

    fn comment(&self) -> String {
        format!("{COMMENT}{}{VERSION}{}", self.table.machine(), self.version())
    }

    fn version(&self) -> String {
        format!("{:016x}", self.table.version())
    }

    /// The trigger's name. Names of triggers are local to their table.
    fn name(&self) -> String {
        short(format!("{CONSTRAINT}_{}", self.target.status_name()))
    }

    fn function_name(&self) -> String {
        short(format!("{CONSTRAINT}_{}_{}", self.target.table_name(), self.target.status_name()))
    }
}

/// A table and the trigger's function, qualified and quoted.
struct Place {
    table: String,
    function: String,
}

/// A name that PostgreSQL would cut keeps its beginning, and a sum of all of it.
fn short(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let sum =
        name.bytes().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}_{sum:08x}", &name[..LONGEST - 9])
}

fn version_in(comment: &str) -> Option<&str> {
    comment.strip_prefix(COMMENT)?.rsplit_once(VERSION).map(|(_, version)| version)
}

/// A text as a literal of SQL, whatever is in it and however the server is set.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A dollar quote that does not occur in `body`.
fn tag(body: &str) -> String {
    let mut tag = "$selfheal$".to_owned();
    while body.contains(&tag) {
        tag.insert(tag.len() - 1, '_');
    }
    tag
}

/// Why a trigger could not be looked at, installed or removed.
#[derive(Debug)]
pub enum TriggerError {
    /// There is no such table, or it has no such column.
    NoColumn {
        /// What was looked for.
        target: String,
    },
    /// The database failed, or its role may not do this.
    Sqlx(sqlx::Error),
}

impl fmt::Display for TriggerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColumn { target } => write!(f, "there is no {target} in the database"),
            Self::Sqlx(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TriggerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoColumn { .. } => None,
            Self::Sqlx(error) => error.source(),
        }
    }
}

impl From<sqlx::Error> for TriggerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

/// Whether `error` is a trigger's objection to a change.
pub(crate) fn refused(error: &(dyn sqlx::error::DatabaseError + 'static)) -> bool {
    error.code().as_deref() == Some(REFUSED) && error.constraint() == Some(CONSTRAINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(rows: &[(&str, &[&str])]) -> String {
        let rows = rows.iter().map(|(state, next)| (*state, next.iter().copied()));
        let table = Table::new("message", rows).expect("it is sound");
        Trigger::new(&table, &Target::new("messages").expect("a name")).body()
    }

    #[test]
    fn the_table_is_written_out_in_the_function() {
        let body = body(&[("READY", &["SPAM_REVIEW", "PROMOTED"]), ("PROMOTED", &["COMPLETED"])]);
        let edges =
            "IN (('PROMOTED', 'COMPLETED'), ('READY', 'SPAM_REVIEW'), ('READY', 'PROMOTED'))) IS NOT TRUE";
        assert!(body.contains(edges), "{body}");
        assert!(body.contains("WHEN 'READY' THEN 'READY may become SPAM_REVIEW or PROMOTED'"), "{body}");
    }

    #[test]
    fn where_nothing_is_allowed_nothing_is() {
        assert!(body(&[("DONE", &[])]).contains("IF (false) IS NOT TRUE"));
    }

    #[test]
    fn a_state_cannot_end_a_literal_or_the_function() {
        assert_eq!((literal("it's"), literal(r"a\'b")), ("'it''s'".into(), r"E'a\\''b'".into()));
        let body = body(&[("a'$selfheal$", &["b"])]);
        assert_eq!(tag(&body), "$selfheal_$");
    }

    #[test]
    fn long_names_stay_different() {
        let names = ["a", "b"].map(|end| short(format!("{}{end}", "x".repeat(70))));
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() == LONGEST), "{names:?}");
    }

    #[test]
    fn a_comment_tells_its_version() {
        assert_eq!(version_in("selfheal: transitions of a, version b, version 00ff"), Some("00ff"));
        assert_eq!(version_in("something else"), None);
    }
}
