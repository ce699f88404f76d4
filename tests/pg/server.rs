//! A private PostgreSQL that the tests start themselves: one for the whole binary, one fresh database a test.
//!
//! It needs no service, no container and no network: the cluster lives in a new directory under the temporary
//! one, is reachable over loopback and over a socket in that directory, trusts everybody, and does not sync
//! (its data is thrown away). PostgreSQL refuses to run as root, so under root it runs as `postgres` or
//! `nobody`.
//!
//! **No server outlives the test binary.** A static is never dropped, and a killed process drops nothing, so
//! the server is the child of a small shell that reads from a pipe whose other end only the test binary holds.
//! However the binary ends, the pipe closes, and the shell kills the server and removes its directory (`keeper.rs`).
//!
//! The server has 100 slots of which 3 are reserved for superusers, as installed by default, so that the tests'
//! role (`app`, which is none) may have 97. A test that takes many of them asks for the server
//! [alone](Server::alone).

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::keeper::{Keeper, Keeps, binaries, env, free_port};

/// Slots that a role without privileges can get.
pub(crate) const SLOTS: u32 = 97;

/// A server of this test binary.
pub(crate) struct Server {
    port: u16,
    bin: PathBuf,
    databases: AtomicU32,
    /// One test at a time may have all of it.
    used: Arc<RwLock<()>>,
    keeper: Keeper,
}

/// A fresh database, owned by the role `app`.
pub(crate) struct Database {
    name: String,
    port: u16,
    _use: Use,
}

/// How a server begins.
enum Role {
    /// It takes writes.
    Primary,
    /// It refuses writes, and is cut off from any primary: it stays as it is.
    Standby,
    /// It repeats what the server at this port writes.
    Replica(u16),
}

/// For how much of the server a test has asked. Held, never read.
enum Use {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

/// The server, started by whoever asks first. `None`, said loudly, where there is no PostgreSQL; on a build
/// server (`CI=true`) that is a failure instead, because there the tests must not be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match binaries() {
        Some(bin) => {
            let server = Server::start(bin, Role::Primary, Keeps::Nothing);
            server.create_role();
            Some(server)
        }
        None => {
            assert_ne!(env("CI").as_deref(), Some("true"), "PostgreSQL is not installed");
            None
        }
    });
    if server.is_none() {
        eprintln!("SKIPPED: PostgreSQL is not installed (PATH, $PG_BIN, /usr/lib/postgresql/*/bin)");
    }
    server.as_ref()
}

impl Server {
    /// A fresh database, on a server that other tests use too.
    pub(crate) async fn database(&self) -> Database {
        self.create(Use::Shared { _guard: Arc::clone(&self.used).read_owned().await }).await
    }

    /// A fresh database, on a server that no other test uses meanwhile.
    pub(crate) async fn alone(&self) -> Database {
        self.create(Use::Alone { _guard: Arc::clone(&self.used).write_owned().await }).await
    }

    async fn create(&self, held: Use) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.admin().await;
        let create = format!("create database {name} owner app");
        admin.execute(AssertSqlSafe(create)).await.expect("a new database");
        admin.close().await.expect("it closes");
        Database { name, port: self.port, _use: held }
    }

    /// A superuser's connection.
    pub(crate) async fn admin(&self) -> PgConnection {
        PgConnection::connect_with(&self.admin_options()).await.expect("a superuser slot")
    }

    /// Another server, which is a standby: it refuses writes. It ends when dropped.
    pub(crate) fn standby(&self) -> Self {
        Self::start(self.bin.clone(), Role::Standby, Keeps::Nothing)
    }

    /// Another server, for a test that kills it, or would keep others from being alone on this one. It ends when dropped.
    pub(crate) fn another(&self) -> Self {
        let server = Self::start(self.bin.clone(), Role::Primary, Keeps::Nothing);
        server.create_role();
        server
    }

    /// Another server, which keeps what it has committed. It ends when dropped.
    pub(crate) fn durable(&self) -> Self {
        let server = Self::start(self.bin.clone(), Role::Primary, Keeps::Committed);
        server.create_role();
        server
    }

    /// A server that repeats what this one writes, until it is promoted. It ends when dropped.
    pub(crate) fn replica(&self) -> Self {
        Self::start(self.bin.clone(), Role::Replica(self.port), Keeps::Nothing)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server as a crash of the machine would: with SIGKILL to its first process.
    pub(crate) fn kill(&self) {
        self.keeper.say("kill");
    }

    /// Ends the server at once, without a checkpoint.
    pub(crate) fn stop_at_once(&self) {
        self.keeper.say("stop");
    }

    /// Starts it again, if it does not run. What is left of a killed one can keep it from starting: then say it again.
    pub(crate) fn start_again(&self) {
        self.keeper.say("start");
    }

    /// Where there is little room, in a moment. `None` for whoever may not make such a place.
    pub(crate) fn small_space(&self) -> Option<PathBuf> {
        self.keeper.small_space()
    }

    /// How the superuser connects.
    pub(crate) fn admin_options(&self) -> PgConnectOptions {
        options(self.port, "admin", "postgres")
    }

    fn start(bin: PathBuf, role: Role, keeps: Keeps) -> Self {
        let port = free_port();
        let keeper = match role {
            Role::Primary => Keeper::start(&bin, port, keeps, |new| new.initialize()),
            Role::Standby => Keeper::start(&bin, port, keeps, |new| {
                new.initialize();
                new.signal("standby.signal");
            }),
            Role::Replica(primary) => Keeper::start(&bin, port, keeps, |new| new.copy(primary)),
        };
        let server = Self { port, bin, databases: AtomicU32::new(0), used: Arc::default(), keeper };
        let answers = server.ask(async |admin| drop(admin.ping().await));
        assert!(answers, "no answer: {}", server.keeper.log());
        server
    }

    fn create_role(&self) {
        let created = self.ask(async |admin| {
            admin.execute("create role app login").await.expect("a role");
        });
        assert!(created, "no answer");
    }

    /// Says something to the server once it answers, on a thread with a runtime of its own, because the test that
    /// comes first is on one already. False if it does not answer within 30 seconds.
    fn ask(&self, say: impl AsyncFnOnce(&mut PgConnection) + Send) -> bool {
        let options = self.admin_options();
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                for _ in 0..600 {
                    if let Ok(mut admin) = PgConnection::connect_with(&options).await {
                        say(&mut admin).await;
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                false
            })
        };
        std::thread::scope(|scope| scope.spawn(ask).join().expect("no panic"))
    }
}

impl Database {
    /// How the role `app` connects to it.
    pub(crate) fn options(&self) -> PgConnectOptions {
        options(self.port, "app", &self.name)
    }

    /// The same as a URL.
    pub(crate) fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/{}", self.port, self.name)
    }
}

pub(crate) fn options(port: u16, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(user).database(database)
}

#[tokio::test]
async fn the_server_gives_a_normal_role_97_slots() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let mut conn = PgConnection::connect(&database.url()).await.expect("it connects");
    let slots: i32 = sqlx::query_scalar(
        "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int",
    )
    .fetch_one(&mut conn)
    .await
    .expect("a number");
    assert_eq!(slots, i32::try_from(SLOTS).expect("it is small"));
    let superuser: bool = sqlx::query_scalar("select usesuper from pg_user where usename = current_user")
        .fetch_one(&mut conn)
        .await
        .expect("our role");
    assert!(!superuser);
}
