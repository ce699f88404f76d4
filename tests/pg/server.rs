//! A private PostgreSQL that the tests start themselves: one for the whole binary, one fresh database a test.
//!
//! It needs no service, no container and no network: the cluster lives in a new directory under the temporary
//! one, is reachable over loopback and over a socket in that directory, trusts everybody, and does not sync
//! (its data is thrown away). PostgreSQL refuses to run as root, so under root it runs as `postgres` or
//! `nobody`.
//!
//! **No server outlives the test binary.** A static is never dropped, and a killed process drops nothing, so
//! the server is the child of a small shell that reads from a pipe whose other end only the test binary holds.
//! However the binary ends, the pipe closes, and the shell kills the server and removes its directory.
//!
//! The server has 100 slots of which 3 are reserved for superusers, as installed by default, so that the tests'
//! role (`app`, which is none) may have 97. A test that takes many of them asks for the server
//! [alone](Server::alone).

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Slots that a role without privileges can get.
pub(crate) const SLOTS: u32 = 97;

/// One test at a time may have the whole server.
static USE: RwLock<()> = RwLock::const_new(());

/// A server of this test binary.
pub(crate) struct Server {
    port: u16,
    bin: PathBuf,
    databases: AtomicU32,
    /// Holds the pipe that keeps the server alive.
    _keeper: Child,
}

/// A fresh database, owned by the role `app`.
pub(crate) struct Database {
    name: String,
    port: u16,
    _use: Use,
}

/// Whether a server takes writes.
enum Role {
    Primary,
    Standby,
}

/// For how much of the server a test has asked. Held, never read.
enum Use {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// The server, started by whoever asks first. `None`, said loudly, where there is no PostgreSQL; on a build
/// server (`CI=true`) that is a failure instead, because there the tests must not be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match binaries() {
        Some(bin) => {
            let server = Server::start(bin, Role::Primary);
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
        self.create(Use::Shared { _guard: USE.read().await }).await
    }

    /// A fresh database, on a server that no other test uses meanwhile.
    pub(crate) async fn alone(&self) -> Database {
        self.create(Use::Alone { _guard: USE.write().await }).await
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
        Self::start(self.bin.clone(), Role::Standby)
    }

    /// How the superuser connects.
    pub(crate) fn admin_options(&self) -> PgConnectOptions {
        options(self.port, "admin", "postgres")
    }

    fn start(bin: PathBuf, role: Role) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("selfheal-pg-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for the server");
        let demotion = demotion(&dir);
        initialize(&bin, &dir, &demotion);
        if matches!(role, Role::Standby) {
            // Cut off from any primary: it stays as it is.
            fs::write(dir.join("data/standby.signal"), "").expect("a signal");
        }
        let port = free_port();
        let keeper = keep(&bin, &dir, &demotion, port);
        let server = Self { port, bin, databases: AtomicU32::new(0), _keeper: keeper };
        let answers = server.ask(async |admin| drop(admin.ping().await));
        assert!(answers, "no answer: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
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

fn options(port: u16, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(user).database(database)
}

fn initialize(bin: &Path, dir: &Path, demotion: &[String]) {
    let made = command(demotion, &bin.join("initdb"))
        .args(["-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(dir.join("data"))
        .current_dir(dir)
        .output()
        .expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
}

/// Starts the server under the shell that ends it.
fn keep(bin: &Path, dir: &Path, demotion: &[String], port: u16) -> Child {
    // $1 is the directory, the rest is the server. SIGQUIT: at once, the data is thrown away.
    const KEEPER: &str = r#"
        trap '' INT TERM HUP
        dir=$1; shift
        "$@" >"$dir/log" 2>&1 </dev/null & server=$!
        read -r _
        kill -QUIT "$server"; wait "$server"
        rm -rf "$dir""#;
    let settings = [
        format!("port={port}"),
        format!("unix_socket_directories={}", dir.display()),
        "listen_addresses=127.0.0.1".into(),
        "max_connections=100".into(),
        "superuser_reserved_connections=3".into(),
        "fsync=off".into(),
        "synchronous_commit=off".into(),
        "full_page_writes=off".into(),
        "shared_buffers=32MB".into(),
    ];
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(dir);
    keeper.args(demotion).arg(bin.join("postgres")).arg("-D").arg(dir.join("data"));
    for setting in settings {
        keeper.args(["-c".into(), setting]);
    }
    keeper.current_dir(dir).stdin(Stdio::piped()).spawn().expect("a shell")
}

fn command(demotion: &[String], program: &Path) -> Command {
    match demotion.split_first() {
        Some((demote, arguments)) => {
            let mut command = Command::new(demote);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The words before a command that run it as somebody else, to whom `dir` then belongs. None if we are not
/// root.
fn demotion(dir: &Path) -> Vec<String> {
    if id(&["-u"]).as_deref() != Some("0") {
        return Vec::new();
    }
    let user = ["postgres", "nobody"].into_iter().find(|user| id(&["-u", user]).is_some());
    let user = user.expect("a user that is not root");
    let given = Command::new("chown").arg(user).arg(dir).status().expect("chown runs");
    assert!(given.success(), "chown {user}");
    let ids = (id(&["-u", user]).expect("a uid"), id(&["-g", user]).expect("a gid"));
    let words = if in_path("setpriv").is_some() {
        format!("setpriv --reuid={} --regid={} --clear-groups --", ids.0, ids.1)
    } else {
        assert!(in_path("runuser").is_some(), "neither setpriv nor runuser to leave root with");
        format!("runuser -u {user} --")
    };
    words.split(' ').map(str::to_owned).collect()
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The folder with `initdb` and `postgres`: the one that was asked for, else the newest.
fn binaries() -> Option<PathBuf> {
    let asked = env("PG_BIN").map(PathBuf::from);
    let packaged = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
        let newest = versions.flatten().map(|entry| entry.path()).max_by_key(version)?;
        Some(newest.join("bin"))
    };
    let candidates = [asked, packaged(), in_path("initdb")];
    candidates.into_iter().flatten().find(|bin| ["initdb", "postgres"].iter().all(|p| bin.join(p).is_file()))
}

/// The folder of the search path that has `program`.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = env("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join(program).is_file())
}

/// Another process may take it before the server does; then the server does not start, and its log says so.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

#[expect(clippy::disallowed_methods, reason = "where PostgreSQL is, and whether this is a build server")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
