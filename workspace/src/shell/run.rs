//! One command from start to end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use process_wrap::std::{CommandWrap, CommandWrapper, ProcessSession};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::ShellOptions;
use super::group::{Group, MARK};
use super::output::{Output, Stream};
use crate::write::random;

/// One read of a pipe.
const PIECE: usize = 16 << 10;
/// When all processes have ended, what is still in a pipe is read: until nothing comes for this
/// long (somebody who got away holds it open), and not more than [`REST`] for each.
const QUIET: Duration = Duration::from_millis(200);
/// The largest pipe of Linux without privileges. No option, as the times around it: a pipe holds no
/// more, and what is in one is there already.
const REST: usize = 1 << 20;
/// How long the system may take to report the end of a process that was killed.
const REAP: Duration = Duration::from_secs(1);

/// A command to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) command: String,
    /// A real path, inside the root: what the command is told.
    pub(crate) folder: PathBuf,
    /// The same, open: where it starts, even if a link stands at the path by now.
    pub(crate) open: OwnedFd,
    pub(crate) time: Duration,
    pub(crate) grace: Duration,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// As shells report it: 128 and the number for one that a signal ended.
    pub(crate) code: i32,
    /// The name of that signal, else empty.
    pub(crate) signal: String,
    pub(crate) timed_out: bool,
    pub(crate) time: Duration,
    pub(crate) pid: u32,
}

/// Runs it, and ends with it all that it started. Dropping the future ends them too.
pub(crate) async fn run(
    options: &ShellOptions,
    plan: &Plan,
    output: &mut impl Output,
) -> io::Result<End> {
    let begun = Instant::now();
    let mark = format!("{:016x}", random());
    let mut child = spawn(options, plan, &mark)?;
    let lost = || io::Error::other("the command could not be followed");
    let pid = child.id().ok_or_else(lost)?;
    let leader = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(lost)?;
    let group = Group::new(leader, mark, plan.grace, &options.running);
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(lost());
    };
    let (ended, end) = watch::channel(false);
    let pipes = Pipes { out: Pipe::new(out), err: Pipe::new(err), ended: end };
    let ((status, timed_out), ()) =
        tokio::join!(supervise(child, group, plan.time, ended), pipes.pump(output));
    let (code, signal) = status.map_or((-1, String::new()), words);
    Ok(End { code, signal, timed_out, time: begun.elapsed(), pid })
}

impl Plan {
    /// The open folder under the name that the kernel has for it, where it has one.
    fn start(&self) -> PathBuf {
        let open = PathBuf::from(format!("/proc/self/fd/{}", self.open.as_raw_fd()));
        if open.exists() { open } else { self.folder.clone() }
    }
}

fn spawn(options: &ShellOptions, plan: &Plan, mark: &str) -> io::Result<Child> {
    let program = options.program();
    let mut command = std::process::Command::new(program);
    command
        .arg("-c")
        .arg(&plan.command)
        .current_dir(plan.start())
        .env_clear()
        .envs(options.variables())
        .env("PWD", &plan.folder)
        .env(MARK, marks(mark))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A session of its own is a group of its own, without a terminal: nothing can ask for a
    // password behind our back. Only the step that prepares the command is used of this crate.
    let core = CommandWrap::with_new(program, |_| ());
    ProcessSession.pre_spawn(&mut command, &core)?;
    Command::from(command).spawn()
}

/// The mark, behind those of the commands that we run in ourselves.
fn marks(mark: &str) -> OsString {
    let mut marks = std::env::var_os(MARK).unwrap_or_default();
    if !marks.is_empty() {
        marks.push(":");
    }
    marks.push(mark);
    marks
}

/// Waits for the command or its time limit, then ends everything. Says so when all have ended.
async fn supervise(
    mut child: Child,
    mut group: Group,
    time: Duration,
    ended: watch::Sender<bool>,
) -> (Option<ExitStatus>, bool) {
    let waited = timeout(time, child.wait()).await;
    let timed_out = waited.is_err();
    let status = match waited {
        Ok(status) => {
            group.end().await;
            status.ok()
        }
        Err(_) => {
            // It is reaped while the group ends: elsewhere than on Linux a dead leader that is
            // not reaped looks alive.
            let reaped = timeout(group.longest() + REAP, child.wait());
            tokio::join!(reaped, group.end()).0.ok().and_then(Result::ok)
        }
    };
    ended.send_replace(true);
    (status, timed_out)
}

/// Exit code and signal, as shells report them.
fn words(status: ExitStatus) -> (i32, String) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (code, String::new()),
        (None, Some(signal)) => (128 + signal, signal_name(signal)),
        (None, None) => (-1, String::new()),
    }
}

fn signal_name(number: i32) -> String {
    let name = match Signal::from_named_raw(number) {
        Some(Signal::HUP) => "SIGHUP",
        Some(Signal::INT) => "SIGINT",
        Some(Signal::QUIT) => "SIGQUIT",
        Some(Signal::ILL) => "SIGILL",
        Some(Signal::ABORT) => "SIGABRT",
        Some(Signal::BUS) => "SIGBUS",
        Some(Signal::FPE) => "SIGFPE",
        Some(Signal::KILL) => "SIGKILL",
        Some(Signal::SEGV) => "SIGSEGV",
        Some(Signal::PIPE) => "SIGPIPE",
        Some(Signal::ALARM) => "SIGALRM",
        Some(Signal::TERM) => "SIGTERM",
        Some(Signal::XCPU) => "SIGXCPU",
        Some(Signal::XFSZ) => "SIGXFSZ",
        Some(Signal::SYS) => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// Both ends of output that we read.
struct Pipes {
    out: Pipe<ChildStdout>,
    err: Pipe<ChildStderr>,
    /// All processes have ended.
    ended: watch::Receiver<bool>,
}

struct Pipe<R> {
    /// Until its end was read.
    reader: Option<R>,
    /// What is still read after all processes have ended.
    rest: usize,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: R) -> Self {
        Self { reader: Some(reader), rest: REST }
    }

    /// Reads a piece; never ready when there is nothing to read from. Nothing is lost when it is
    /// dropped.
    async fn read(&mut self, piece: &mut Vec<u8>) -> usize {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        piece.clear();
        // A pipe that cannot be read is at its end.
        let filled = reader.read_buf(piece).await.unwrap_or(0);
        if filled == 0 {
            self.reader = None;
        }
        filled
    }

    /// Counts what is read after the end; closes what gives more than a pipe can hold.
    fn spend(&mut self, filled: usize) {
        self.rest = self.rest.saturating_sub(filled);
        if self.rest == 0 {
            self.reader = None;
        }
    }
}

impl Pipes {
    /// Hands output on until both pipes are at their end. While the receiver has no room nothing
    /// is read, so that the command waits.
    async fn pump(mut self, output: &mut impl Output) {
        let (mut out, mut err) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
        while self.out.reader.is_some() || self.err.reader.is_some() {
            let ended = *self.ended.borrow();
            let quiet = async {
                match ended {
                    true => sleep(QUIET).await,
                    // An error: nobody is there to tell of the end any more.
                    false => drop(self.ended.changed().await),
                }
            };
            tokio::select! {
                filled = self.out.read(&mut out) => {
                    output.take(Stream::Out, &out[..filled]).await;
                    if ended { self.out.spend(filled); }
                }
                filled = self.err.read(&mut err) => {
                    output.take(Stream::Err, &err[..filled]).await;
                    if ended { self.err.spend(filled); }
                }
                () = quiet => if ended { return },
            }
        }
    }
}
