//! Commands, in the words of both families.

use std::time::Duration;

use agentwire::exec::{ExecCall, ShellSink};
use agentwire::proto::{
    PiBashExecArgs, PiBashExecError, PiBashExecResult, PiBashExecSuccess, SandboxPolicy,
    SandboxPolicyType, ShellAbortReason, ShellArgs, ShellFailure, ShellPermissionDenied,
    ShellRejected, ShellResult, ShellSpawnError, ShellStreamExit, ShellStreamStart, ShellSuccess,
    pi_bash_exec_result, shell_result, shell_stream,
};

use crate::approval::Scope;
use crate::clip::Clipped;
use crate::fault::Fault;
use crate::pi::truncation;
use crate::root::{Kind, Last};
use crate::serve::number;
use crate::shell::{Collected, Collector, End, Output, Plan, Streamer, run};
use crate::tools::Asker;
use crate::{Access, Workspace};

/// Why a command came to nothing.
enum NotRun {
    Fault(Fault),
    Spawn(Fault),
}

/// A command that may run, and has its place among those that do.
struct Ready<'a> {
    plan: Plan,
    /// The folder as the service knows it.
    folder: String,
    _place: tokio::sync::SemaphorePermit<'a>,
}

impl Workspace {
    /// Permission, folder, approval, place. What the service says about the command (that it is
    /// harmless, that no approval is needed) decides nothing.
    async fn ready(
        &self,
        asker: Asker<'_>,
        (command, folder): (&str, &str),
        time: Option<Duration>,
    ) -> Result<Ready<'_>, Fault> {
        self.permit(Access::Shell)?;
        if command.contains('\0') {
            return Err(Fault::Invalid("the command holds a zero byte".into()));
        }
        let place = self.find(folder, Last::Follow).await?;
        match place.kind {
            Kind::Folder => {}
            Kind::Absent => return Err(Fault::NotFound),
            kind => return Err(Fault::Kind { is: kind.words(), wanted: "a folder" }),
        }
        let description = format!("run in the folder `{}`:\n{command}", place.relative());
        let folder = self.shared().root.show(&place.names);
        let scope = Scope::Command { command: command.to_owned(), folder: folder.clone() };
        self.ask(asker, (Access::Shell, scope), &place, description, None).await?;
        let limits = &self.shared().limits;
        let real = self.shared().root.real(&place);
        let names = place.names;
        let open = self.job(move |shared, _| shared.root.open_folder(&names)).await?;
        let plan = Plan {
            command: command.to_owned(),
            folder: real,
            open: open.into_std_file().into(),
            time: time.unwrap_or(limits.shell_time).min(limits.shell_time_max),
            grace: limits.shell_grace,
        };
        let closed = |_| Fault::Failed("no more commands are run".into());
        let _place = self.shared().shells.acquire().await.map_err(closed)?;
        Ok(Ready { plan, folder, _place })
    }

    async fn run(&self, ready: &Ready<'_>, output: &mut impl Output) -> Result<End, NotRun> {
        let ended = run(&self.shared().shell, &ready.plan, output).await;
        ended.map_err(|error| NotRun::Spawn(error.into()))
    }

    async fn collect(
        &self,
        asker: Asker<'_>,
        command: (&str, &str),
        time: Option<Duration>,
    ) -> Result<(End, Collected, String), NotRun> {
        let ready = self.ready(asker, command, time).await.map_err(NotRun::Fault)?;
        let mut collector = Collector::new(self.shared().limits.answer_bytes);
        let end = self.run(&ready, &mut collector).await?;
        Ok((end, collector.finish(), ready.folder))
    }

    pub(crate) async fn serve_shell(&self, asker: Asker<'_>, args: ShellArgs) -> ShellResult {
        use shell_result::Result as R;
        let (command, working_directory) = (args.command.clone(), args.working_directory.clone());
        let time = time(&args);
        let ran = match foreground(&args) {
            Ok(()) => self.collect(asker, (&command, &working_directory), time).await,
            Err(fault) => Err(NotRun::Fault(fault)),
        };
        let mut sandbox_policy = None;
        let result = match ran {
            Ok((end, output, folder)) => {
                sandbox_policy = Some(no_sandbox());
                ended(command, folder, &end, output)
            }
            Err(NotRun::Fault(fault)) => match refusal(fault, command, working_directory) {
                Refused::Denied(denied) => R::PermissionDenied(denied),
                Refused::Rejected(rejected) => R::Rejected(rejected),
                Refused::Failed(error) => R::SpawnError(error),
            },
            Err(NotRun::Spawn(fault)) => R::SpawnError(ShellSpawnError {
                command,
                working_directory,
                error: format!("the shell could not be started: {fault}"),
            }),
        };
        ShellResult { result: Some(result), sandbox_policy, ..ShellResult::default() }
    }

    /// Sends start, output and exit; or the refusal as the only event.
    pub(crate) async fn serve_shell_stream(
        &self,
        asker: Asker<'_>,
        args: ShellArgs,
        sink: &mut dyn ShellSink,
    ) {
        use shell_stream::Event as E;
        let time = time(&args);
        let ready = match foreground(&args) {
            Ok(()) => self.ready(asker, (&args.command, &args.working_directory), time).await,
            Err(fault) => Err(fault),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(fault) => {
                let event = match refusal(fault, args.command, args.working_directory) {
                    Refused::Denied(denied) => E::PermissionDenied(denied),
                    Refused::Rejected(rejected) => E::Rejected(rejected),
                    // The stream has no case of its own for it.
                    Refused::Failed(failed) => E::Rejected(ShellRejected {
                        command: failed.command,
                        working_directory: failed.working_directory,
                        reason: failed.error,
                        is_readonly: false,
                    }),
                };
                return sink.send(event).await;
            }
        };
        sink.send(E::Start(ShellStreamStart { sandbox_policy: Some(no_sandbox()) })).await;
        let limits = &self.shared().limits;
        let mut streamer = Streamer::new(sink, limits.stream_bytes, limits.answer_bytes);
        let ran = self.run(&ready, &mut streamer).await;
        let sink = streamer.finish().await;
        let event = match ran {
            Ok(end) => E::Exit(ShellStreamExit {
                code: u32::try_from(end.code).unwrap_or(1),
                cwd: ready.folder,
                output_location: None,
                aborted: end.timed_out,
                abort_reason: abort_reason(&end),
                local_execution_time_ms: Some(milliseconds(end.time)),
            }),
            Err(NotRun::Fault(fault) | NotRun::Spawn(fault)) => E::Rejected(ShellRejected {
                command: args.command,
                working_directory: args.working_directory,
                reason: format!("the shell could not be started: {fault}"),
                is_readonly: false,
            }),
        };
        sink.send(event).await;
    }

    pub(crate) async fn serve_pi_bash(
        &self,
        call: &ExecCall,
        args: PiBashExecArgs,
    ) -> PiBashExecResult {
        use pi_bash_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_bash_args" };
        // Seconds, with a fraction.
        let time = args.timeout.and_then(|time| Duration::try_from_secs_f64(time).ok());
        let time = time.filter(|time| !time.is_zero());
        let result = match self.collect(asker, (&args.command, ""), time).await {
            Ok((end, output, _)) => {
                let (text, truncation) = self.pi_text(output);
                match outcome(&end) {
                    None => R::Success(PiBashExecSuccess {
                        output: text,
                        truncation,
                        full_output_path: None,
                    }),
                    Some(outcome) => R::Error(PiBashExecError {
                        error: format!("{text}\n\n{outcome}"),
                        truncation,
                        full_output_path: None,
                    }),
                }
            }
            Err(NotRun::Fault(fault) | NotRun::Spawn(fault)) => {
                R::Error(PiBashExecError { error: fault.to_string(), ..PiBashExecError::default() })
            }
        };
        PiBashExecResult { result: Some(result) }
    }

    fn pi_text(&self, output: Collected) -> (String, Option<agentwire::proto::PiTruncation>) {
        let cut = output.both.elided > 0;
        let text = match output.both.into_text() {
            text if text.is_empty() => "(no output)".to_owned(),
            text => text,
        };
        let max = self.shared().limits.answer_bytes;
        let truncation = cut.then(|| truncation(&text, max, output.lines));
        (text, truncation)
    }
}

/// How a command failed, if it did.
fn outcome(end: &End) -> Option<String> {
    match end {
        End { timed_out: true, time, .. } => Some(format!(
            "the command was ended after {:.1} s, which was its time limit",
            time.as_secs_f64()
        )),
        End { code: 0, .. } => None,
        End { code, signal, .. } if signal.is_empty() => Some(format!("exit code {code}")),
        End { signal, .. } => Some(format!("ended by {signal}")),
    }
}

/// The time limit that the service asks for, in milliseconds; the harder of its two.
fn time(args: &ShellArgs) -> Option<Duration> {
    let own = [Some(args.timeout), args.hard_timeout];
    let own = own.into_iter().flatten().filter_map(|time| u64::try_from(time).ok());
    own.filter(|time| *time > 0).min().map(Duration::from_millis)
}

fn foreground(args: &ShellArgs) -> Result<(), Fault> {
    if args.is_background { Err(Fault::Refused(NO_BACKGROUND.into())) } else { Ok(()) }
}

/// Why nothing is left in the background.
pub(crate) const NO_BACKGROUND: &str = "commands are not left in the background here: nobody would \
    end them or read what they say. Run it in the foreground, with a time limit that it keeps to";

/// What the exec is told about how it ran: as the user, held by nothing.
fn no_sandbox() -> SandboxPolicy {
    SandboxPolicy { r#type: SandboxPolicyType::TypeInsecureNone as i32, ..SandboxPolicy::default() }
}

fn abort_reason(end: &End) -> Option<i32> {
    end.timed_out.then_some(ShellAbortReason::Timeout as i32)
}

fn milliseconds(time: Duration) -> i32 {
    number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The three ways to say no.
enum Refused {
    Denied(ShellPermissionDenied),
    Rejected(ShellRejected),
    Failed(ShellSpawnError),
}

#[allow(clippy::needless_pass_by_value, reason = "the fault ends here")]
fn refusal(fault: Fault, command: String, working_directory: String) -> Refused {
    let text = fault.to_string();
    match fault {
        Fault::Missing(_) => Refused::Denied(ShellPermissionDenied {
            command,
            working_directory,
            error: text,
            is_readonly: true,
        }),
        Fault::Outside | Fault::Refused(_) => Refused::Rejected(ShellRejected {
            command,
            working_directory,
            reason: text,
            is_readonly: false,
        }),
        fault => {
            let error = match fault {
                Fault::Invalid(_) => text,
                _ => format!("the working directory cannot be used: {text}"),
            };
            Refused::Failed(ShellSpawnError { command, working_directory, error })
        }
    }
}

fn ended(
    command: String,
    working_directory: String,
    end: &End,
    output: Collected,
) -> shell_result::Result {
    let time = milliseconds(end.time);
    let Both { interleaved, head, tail, elided } = Both::of(&output);
    let (stdout, stderr) = (output.out.into_text(), output.err.into_text());
    if end.code == 0 && !end.timed_out {
        return shell_result::Result::Success(ShellSuccess {
            command,
            working_directory,
            stdout,
            stderr,
            execution_time: time,
            interleaved_output: interleaved,
            local_execution_time_ms: Some(time),
            output_head: head,
            output_tail: tail,
            elided_chars: elided,
            ..ShellSuccess::default()
        });
    }
    shell_result::Result::Failure(ShellFailure {
        command,
        working_directory,
        exit_code: end.code,
        signal: end.signal.clone(),
        stdout,
        stderr,
        execution_time: time,
        interleaved_output: interleaved,
        abort_reason: abort_reason(end),
        aborted: end.timed_out,
        local_execution_time_ms: Some(time),
        output_head: head,
        output_tail: tail,
        elided_chars: elided,
        ..ShellFailure::default()
    })
}

/// Both streams as one: whole where it fits, else its head and its tail.
#[derive(Default)]
struct Both {
    interleaved: Option<String>,
    head: Option<String>,
    tail: Option<String>,
    elided: Option<u32>,
}

impl Both {
    fn of(output: &Collected) -> Self {
        let Clipped { head, tail, elided } = output.both.clone();
        let mixed = !output.out.head.is_empty() && !output.err.head.is_empty();
        match elided {
            0 => Self { interleaved: mixed.then_some(head), ..Self::default() },
            elided => Self {
                head: Some(head),
                tail: Some(tail),
                elided: Some(u32::try_from(elided).unwrap_or(u32::MAX)),
                interleaved: None,
            },
        }
    }
}
