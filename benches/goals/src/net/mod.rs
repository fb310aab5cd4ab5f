//! Streaming over loopback: a canned server in a process of its own, and the clients that read from
//! it, ours and the rivals.

pub mod clients;
mod delay;
pub mod floor;
pub mod plan;
mod serve;
mod wire;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub use plan::{Answer, Plan};

/// The word on the command line that makes a program a server.
const SERVE: &str = "--serve";

/// The line behind the certificate.
const CERTIFICATE_ENDS: &str = "serving";

/// Where requests go.
pub const PATH: &str = "/agent.v1.AgentService/Run";

/// First thing in `main`: becomes the server when the program was started as one.
pub fn serve_if_asked() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [word, plan] = &words[..]
        && word == SERVE
    {
        let plan = plan.parse().expect("the parent writes plans that can be read");
        stay_on_core(false);
        serve::serve(plan).expect("a server can listen on loopback");
    }
}

/// A thread that moves between cores loses its caches on the way. Clients stay on the last core that
/// is allowed, servers on the first.
pub fn stay_on_core(last: bool) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    if let Some(cpu) = if last { cores.next_back() } else { cores.next() } {
        let mut one = CpuSet::new();
        one.set(cpu);
        // Not allowed here: then the scheduler decides, as it would have.
        let _ = sched_setaffinity(None, &one);
    }
}

/// A server; it ends with this.
pub struct Server {
    child: Child,
    _input: ChildStdin,
    pub port: u16,
    /// What it shows, where it speaks TLS.
    pub certificate: String,
}

impl Server {
    pub fn start(plan: Plan) -> Self {
        let program = std::env::current_exe().expect("a program knows where it lies");
        // The child inherits this thread's core; it has to be free to choose another.
        let child = every_core(|| {
            Command::new(program)
                .args([SERVE, &plan.word()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        });
        let mut child = child.expect("this program can be started again");
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let port =
            lines.next().and_then(|line| line.parse().ok()).expect("the server says its port");
        let certificate = lines
            .take_while(|line| line != CERTIFICATE_ENDS)
            .fold(String::new(), |all, line| all + &line + "\n");
        Self { child, _input: input, port, certificate }
    }

    pub fn url(&self) -> String {
        if self.certificate.is_empty() {
            format!("http://127.0.0.1:{}", self.port)
        } else {
            format!("https://localhost:{}", self.port)
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about any other reason.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `work` with the affinity that the process began with.
fn every_core<T>(work: impl FnOnce() -> T) -> T {
    let now = sched_getaffinity(None);
    let mut all = CpuSet::new();
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = cores.trim().rsplit(['-', ',']).next().and_then(|cpu| cpu.parse().ok()).unwrap_or(0);
    (0..=last).for_each(|cpu: usize| all.set(cpu));
    // Not allowed: then the server shares a core with its clients, and the table is worse for it.
    let _ = sched_setaffinity(None, &all);
    let done = work();
    if let Ok(now) = now {
        let _ = sched_setaffinity(None, &now);
    }
    done
}
