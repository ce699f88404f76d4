//! PgBouncer between the service and the server.
//!
//! It pools by transaction, so two messages of one statement may meet two sessions: sqlx parses and executes in two
//! steps when it keeps no statement. So here statements are sent as text, each in one message.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use selfheal::clock::Tick;
use sqlx::{AssertSqlSafe, Executor, PgPool, postgres::PgPoolOptions};

use super::{Contender, Fault, each};
use crate::{
    SLOTS,
    fixture::{self, Fixture},
    load::{Query, Shot},
};

/// Connections of the service to PgBouncer.
const CLIENTS: u32 = 400;

/// How often it is made to open what is missing.
const WARM_ROUNDS: u32 = 30;

pub(crate) struct Bounced {
    pool: PgPool,
    process: Mutex<Child>,
    folder: PathBuf,
}

/// Where it is installed, if it is.
pub(crate) fn program() -> Option<&'static Path> {
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_file())
}

impl Bounced {
    pub(crate) async fn start(fixture: &Fixture, open: u32) -> Result<Self, Box<dyn Error>> {
        let program = program().ok_or("PgBouncer is not installed")?;
        let folder = std::env::temp_dir().join(format!("selfheal-bouncer-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (server, port) = (fixture.options(), fixture::free_port()?);
        let config = format!(
            "[databases]\nbench = host=127.0.0.1 port={} dbname={} user={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {SLOTS}\nmax_client_conn = 2000\nquery_wait_timeout = 1\n\
             ignore_startup_parameters = extra_float_digits,options\nlog_connections = 0\nlog_disconnections = 0\n\
             log_pooler_errors = 0\n",
            server.get_port(),
            server.get_database().unwrap_or_default(),
            server.get_username(),
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        if fixture::is_root() {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let process = command.arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let options = server.port(port).database("bench").statement_cache_capacity(0);
        let pool = PgPoolOptions::new()
            .max_connections(CLIENTS)
            .acquire_timeout(Duration::from_secs(30))
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let bounced = Self { pool, process: Mutex::new(process), folder };
        bounced.warm(fixture, open).await?;
        Ok(bounced)
    }

    /// Every client connects, and so many at once make it open as many sessions; it opens one after the other.
    async fn warm(&self, fixture: &Fixture, open: u32) -> Result<(), Box<dyn Error>> {
        let clients: Vec<_> =
            stream::iter(0..CLIENTS).map(|_| self.pool.acquire()).buffer_unordered(8).try_collect().await?;
        drop(clients);
        let query = Query { ms: 200, ..Query::NOTHING };
        for _ in 0..WARM_ROUNDS {
            let queries = stream::iter(0..open).map(|_| self.pool.execute(text(query)));
            // Some wait for too long, while it opens what they wait for.
            queries.buffer_unordered(open as usize).for_each(async |_| {}).await;
            if fixture.sessions().await? >= i64::from(open) {
                return Ok(());
            }
        }
        Err("PgBouncer does not open its sessions".into())
    }

    async fn run(&self, query: Query) -> Result<(), Fault> {
        self.pool.execute(text(query)).await?;
        Ok(())
    }
}

fn text(query: Query) -> AssertSqlSafe<String> {
    let seconds = query.holds().as_secs_f64();
    AssertSqlSafe(match query.writes {
        Some(id) => format!("insert into done (id) select {id} from pg_sleep({seconds})"),
        None => format!("select pg_sleep({seconds})"),
    })
}

impl Contender for Bounced {
    fn handle<'a>(&'a self, shot: &'a Shot, _: u32, _: Tick) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(each(shot, |query| self.run(query)))
    }
}

impl Drop for Bounced {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
