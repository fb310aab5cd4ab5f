//! A PostgreSQL server of the test's own: its files in a temporary folder, its socket beside them,
//! no port, and writes that wait for the disk as they do in earnest.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Set to anything where a missing PostgreSQL is a failure: `.ci/full.d/dbos` does.
const REQUIRED: &str = "AGENTWIRE_POSTGRES_REQUIRED";

/// A server that runs until it is dropped.
pub(crate) struct Cluster {
    programs: Programs,
    server: Child,
    folder: TempDir,
}

/// Where PostgreSQL is, and who runs it.
struct Programs {
    folder: PathBuf,
    /// User and group that its programs run as, when the test is root, whom they refuse.
    run_as: Option<(u32, u32)>,
}

impl Cluster {
    /// Starts a server. `None`, and a line nobody overlooks, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(found) = installed() else {
            let said = "dbos: NOT RUN: there is no PostgreSQL (apt-get install postgresql)";
            assert!(std::env::var_os(REQUIRED).is_none(), "{said}");
            #[allow(clippy::explicit_write, reason = "the harness keeps `eprintln` to itself")]
            writeln!(std::io::stderr(), "{said}").unwrap();
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let run_as = (fs::metadata(folder.path()).unwrap().uid() == 0).then(unprivileged);
        if let Some((user, group)) = run_as {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let programs = Programs { folder: found, run_as };
        let data = folder.path().join("data");
        let made = programs
            .command("initdb", folder.path())
            .args(["--auth=trust", "--username=dbos", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = programs.serve(folder.path(), &data);
        Some(Self { programs, server, folder })
    }

    /// The address of a database, which DBOS makes when it is not there.
    pub(crate) fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres://dbos@localhost/{database}?host={folder}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // `immediate`: nobody needs these files again. Its processes and shared memory go with it.
        let mut stop = self.programs.command("pg_ctl", self.folder.path());
        stop.args(["stop", "-m", "immediate", "-D"]).arg(self.folder.path().join("data"));
        let stopped = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            // It may be gone already.
            let _gone = self.server.kill();
        }
        let _status = self.server.wait();
    }
}

impl Programs {
    fn command(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.folder.join(name));
        // Whoever runs them may not be allowed where the test stands.
        command.current_dir(folder).env("LC_ALL", "C");
        if let Some((user, group)) = self.run_as {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts the server and waits until it takes connections.
    fn serve(&self, folder: &Path, data: &Path) -> Child {
        let mut server = self
            .command("postgres", folder)
            .args(["-c", "listen_addresses=", "-c", "fsync=on", "-c", "logging_collector=off"])
            .arg("-k")
            .arg(folder)
            .arg("-D")
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("PostgreSQL did not start:\n{}", said.join("\n"));
            };
            if line.ends_with("database system is ready to accept connections") {
                break;
            }
            said.push(line);
        }
        // It goes on talking, and would wait for a reader once the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        server
    }
}

/// The folder of the newest PostgreSQL: Debian's first, whose programs are not on the path.
fn installed() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = versions.into_iter().rev().map(|(_, folder)| folder);
    folders.chain(std::env::split_paths(&path)).find(|folder| folder.join("initdb").is_file())
}

/// The user `postgres`, whom Debian's package makes, or else `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).expect("a user that is not root")
}
