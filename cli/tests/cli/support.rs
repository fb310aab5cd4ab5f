//! Runs the binary: output collected, a hang ends the test instead of holding it.
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Generous: a loaded machine is slow, a hang is for ever.
const HANG: Duration = Duration::from_secs(120);

/// What a finished process left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The lines of `--json`.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {:?}\nstderr: {}", self.stdout(), self.stderr);
        self
    }
}

/// The binary with `args`, in an environment of its own.
pub(crate) fn agentwire<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentwire"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AGENTWIRE_") {
            command.env_remove(name);
        }
    }
    // No test leaves anything in the cache of whoever runs it.
    command.env("AGENTWIRE_CACHE_DIR", "");
    // Nobody is signed in there, whatever the machine of the test is used for.
    command.env("AGENTWIRE_CONFIG_DIR", std::env::temp_dir().join("agentwire-no-sign-ins"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end without input.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Done {
    finish(agentwire(args).spawn().unwrap())
}

/// Runs to the end with `input` on stdin.
pub(crate) fn run_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Done {
    let mut child = agentwire(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        // A command that ends early does not read everything: not this side's business.
        let _unread = stdin.write_all(&input);
    });
    finish(child)
}

/// Collects the rest of a running process.
pub(crate) fn finish(mut child: Child) -> Done {
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let mut take = |stream: &mpsc::Receiver<Vec<u8>>| match stream.recv_timeout(HANG) {
        Ok(bytes) => bytes,
        Err(_) => {
            let _gone = child.kill();
            panic!("the command hangs");
        }
    };
    let (stdout, stderr) = (take(&stdout), take(&stderr));
    let status = wait(&mut child);
    Done {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Waits for the end of a process whose output is closed or not wanted.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    // Both pipes are closed: the process is at its end, so this wait is short.
    child.wait().unwrap()
}

fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _cut = stream.read_to_end(&mut bytes);
        }
        let _gone = sender.send(bytes);
    });
    receiver
}

/// Runs at a terminal and gives these answers, each after the question for it: what the screen
/// shows, and what is on stdout.
#[cfg(unix)]
pub(crate) fn at_terminal(mut command: Command, answers: &[&str]) -> (String, String) {
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::OwnedFd;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let open = || {
        let path = std::str::from_utf8(name.as_bytes()).unwrap();
        OwnedFd::from(fs::File::options().read(true).write(true).open(path).unwrap())
    };
    command.stdin(Stdio::from(open())).stderr(Stdio::from(open())).env("NO_COLOR", "1");
    let child = command.spawn().unwrap();
    // Our copies of the other end, or the end of the program would not end our reading.
    drop(command);
    let mut terminal = fs::File::from(main);
    let mut reader = BufReader::new(terminal.try_clone().unwrap());
    let answers: Vec<_> = answers.iter().map(|answer| format!("{answer}\n")).collect();
    let screen = thread::spawn(move || {
        let (mut screen, mut answers) = (String::new(), answers.into_iter());
        let mut piece = Vec::new();
        // A question ends with a colon and a blank, and no line end.
        while reader.read_until(b' ', &mut piece).is_ok_and(|read| read > 0) {
            screen.push_str(&String::from_utf8_lossy(&piece));
            piece.clear();
            if screen.ends_with("): ")
                && let Some(answer) = answers.next()
            {
                terminal.write_all(answer.as_bytes()).unwrap();
            }
        }
        screen
    });
    let done = finish(child).expect(0);
    (screen.join().unwrap(), done.stdout().to_owned())
}
