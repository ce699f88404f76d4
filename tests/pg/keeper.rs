//! Makes a PostgreSQL server's directory, and keeps the server under a shell that ends it.
//!
//! The shell reads from a pipe whose other end only the test binary holds: `kill`, `stop`, `start` and `mount`, a word a
//! line.
//! However the binary ends, the pipe closes, and the shell kills the server and removes its directory.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// $1 is the directory, the rest is the server. SIGQUIT: at once, without a checkpoint. `jobs` makes the shell notice
/// that a child of its has ended.
const SHELL: &str = r#"
    trap '' INT TERM HUP
    dir=$1; shift
    start() { "$@" >>"$dir/log" 2>&1 </dev/null & server=$!; }
    end() {
        [ -f "$dir/data/postmaster.pid" ] || return 0
        kill "$1" "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null
        wait "$server" 2>/dev/null
    }
    start "$@"
    while read -r word; do
        case $word in
            kill) end -KILL ;;
            stop) end -QUIT ;;
            mount) mkdir "$dir/small" && mount -t tmpfs -o size=32m tmpfs "$dir/small" && chown --reference="$dir/data" "$dir/small" ;;
            start) jobs >/dev/null; kill -0 "$server" 2>/dev/null || start "$@" ;;
        esac
    done
    end -QUIT
    [ ! -d "$dir/small" ] || umount "$dir/small"
    rm -rf "$dir""#;

/// A server that runs, or could.
pub(crate) struct Keeper {
    dir: PathBuf,
    /// Its standard input is the pipe that keeps the server alive.
    shell: Mutex<Child>,
}

/// What a server does for what it says is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing: its data is thrown away.
    Nothing,
    /// All that it has said is committed, also when it is killed: as a server is when it is installed.
    Committed,
}

/// A directory for a server that does not run yet.
pub(crate) struct New<'a> {
    bin: &'a Path,
    dir: &'a Path,
    demotion: &'a [String],
}

impl Keeper {
    /// Makes a directory, has it filled, and starts a server in it.
    pub(crate) fn start(bin: &Path, port: u16, keeps: Keeps, fill: impl FnOnce(&New<'_>)) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("selfheal-pg-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for the server");
        let demotion = demotion(&dir);
        fill(&New { bin, dir: &dir, demotion: &demotion });
        let shell = Mutex::new(keep(bin, &dir, &demotion, port, keeps));
        Self { dir, shell }
    }

    /// Says a word to the shell.
    pub(crate) fn say(&self, word: &str) {
        let mut shell = self.shell.lock().expect("no panic");
        let pipe = shell.stdin.as_mut().expect("it is piped");
        writeln!(pipe, "{word}").expect("the shell reads");
    }

    /// A file system of 32 MB, which is there in a moment and ends with the server. `None` for whoever may not mount one.
    pub(crate) fn small_space(&self) -> Option<PathBuf> {
        (id(&["-u"])? == "0").then(|| {
            self.say("mount");
            self.dir.join("small")
        })
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl New<'_> {
    /// A cluster without data.
    pub(crate) fn initialize(&self) {
        self.run("initdb", &["-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    }

    /// What the server at `port` has, and the setting that makes it repeat what that one writes from now on.
    pub(crate) fn copy(&self, port: u16) {
        let port = port.to_string();
        let from = ["-h", "127.0.0.1", "-p", port.as_str(), "-U", "admin"];
        self.run("pg_basebackup", &[&from[..], &["-R", "-X", "stream", "-c", "fast", "--no-sync"]].concat());
    }

    /// Leaves an empty file of this name.
    pub(crate) fn signal(&self, name: &str) {
        fs::write(self.dir.join("data").join(name), "").expect("a signal");
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = command(self.demotion, &self.bin.join(program));
        let made =
            command.args(arguments).arg("-D").arg(self.dir.join("data")).current_dir(self.dir).output();
        let made = made.expect("it runs");
        assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
    }
}

/// Starts the server under the shell that ends it.
fn keep(bin: &Path, dir: &Path, demotion: &[String], port: u16, keeps: Keeps) -> Child {
    let mut settings = vec![
        format!("port={port}"),
        format!("unix_socket_directories={}", dir.display()),
        "listen_addresses=127.0.0.1".into(),
        "max_connections=100".into(),
        "superuser_reserved_connections=3".into(),
    ];
    match keeps {
        Keeps::Nothing => settings.extend([
            "fsync=off".into(),
            "synchronous_commit=off".into(),
            "full_page_writes=off".into(),
            "shared_buffers=32MB".into(),
        ]),
        Keeps::Committed => settings.push("shared_buffers=128MB".into()),
    }
    let mut keeper = Command::new("sh");
    keeper.args(["-c", SHELL, "keeper"]).arg(dir);
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
pub(crate) fn binaries() -> Option<PathBuf> {
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
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

#[expect(clippy::disallowed_methods, reason = "where PostgreSQL is, and whether this is a build server")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
