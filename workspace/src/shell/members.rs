//! Which processes belong to a command.

#[cfg(target_os = "linux")]
pub(super) use linux::{any, strays};
#[cfg(not(target_os = "linux"))]
pub(super) use posix::{any, strays};

/// One process, so that another with its number is not taken for it: the number and the time when
/// it began, in the ticks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Known {
    number: i32,
    begun: u64,
}

/// Linux tells all of it in `/proc`: group, session, parent, and the environment that a process
/// was started with. So those are found too that made a session of their own, or that cleared
/// their environment while a parent of theirs is still there.
#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::fs;
    use std::sync::PoisonError;

    use memchr::memmem;
    use rustix::process::{
        Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process_group,
    };

    use super::super::group::{Id, MARK};
    use super::Known;

    /// A process that is not dead.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Process {
        known: Known,
        parent: i32,
        group: i32,
        session: i32,
    }

    pub(in super::super) fn any(id: &Id) -> bool {
        match members(id) {
            Some(all) => !all.is_empty(),
            // No `/proc`: the group at least can be asked. A dead leader counts until it is reaped.
            None => test_kill_process_group(id.leader).is_ok(),
        }
    }

    /// Those that a signal to the group does not reach.
    pub(in super::super) fn strays(id: &Id) -> Vec<Known> {
        let leader = id.leader.as_raw_nonzero().get();
        let all = members(id).unwrap_or_default();
        all.iter().filter(|process| process.group != leader).map(|process| process.known).collect()
    }

    impl Known {
        pub(in super::super) fn signal(self, signal: Signal) {
            // The number can be another process by now. A handle stays the same one.
            if let Some(pid) = Pid::from_raw(self.number)
                && let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
                && Process::read(self.number).is_some_and(|process| process.known == self)
            {
                // It has just ended by itself, if this fails.
                let _ = pidfd_send_signal(handle, signal);
            }
        }
    }

    /// All processes of a command. What they start while we look is found by the next look.
    fn members(id: &Id) -> Option<Vec<Process>> {
        let leader = id.leader.as_raw_nonzero().get();
        let mut strays = id.strays.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut others): (Vec<_>, Vec<_>) = processes()?.partition(|process| {
            process.group == leader
                || process.session == leader
                || strays.contains(&process.known)
                || id.marks(process.known.number)
        });
        // Their children, and the children of those.
        let mut parents: HashSet<_> = found.iter().map(|process| process.known.number).collect();
        while !parents.is_empty() {
            let (children, rest): (Vec<_>, _) =
                others.into_iter().partition(|process| parents.contains(&process.parent));
            parents = children.iter().map(|process| process.known.number).collect();
            found.extend(children);
            others = rest;
        }
        // Once its parent has ended nothing else would tell whose one of them is.
        *strays = found.iter().map(|process| process.known).collect();
        Some(found)
    }

    fn processes() -> Option<impl Iterator<Item = Process>> {
        let entries = fs::read_dir("/proc").ok()?;
        Some(
            entries
                .filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?.parse().ok()?)),
        )
    }

    impl Process {
        fn read(number: i32) -> Option<Self> {
            Self::parse(number, &fs::read_to_string(format!("/proc/{number}/stat")).ok()?)
        }

        /// Out of the text of `/proc/PID/stat`. The name of the program, which comes before what
        /// is read, can hold anything: it ends with the last bracket.
        fn parse(number: i32, stat: &str) -> Option<Self> {
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
            // Dead, and only waits to be reaped.
            if matches!(fields.next()?, "Z" | "X") {
                return None;
            }
            let mut next = || fields.next()?.parse().ok();
            let (parent, group, session) = (next()?, next()?, next()?);
            // The 22nd of all fields, as proc(5) counts them; the session is the 6th.
            let begun = fields.nth(15)?.parse().ok()?;
            Some(Self { known: Known { number, begun }, parent, group, session })
        }
    }

    impl Id {
        /// Whether a process was started with our mark in its environment.
        fn marks(&self, number: i32) -> bool {
            let Ok(variables) = fs::read(format!("/proc/{number}/environ")) else { return false };
            variables.split(|byte| *byte == 0).any(|variable| {
                variable
                    .strip_prefix(MARK.as_bytes())
                    .is_some_and(|marks| memmem::find(marks, self.mark.as_bytes()).is_some())
            })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_name_of_a_process_can_hold_anything() {
            let stat = "12 (a) Z 1 (b) S 1 77 78 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9";
            let known = Known { number: 12, begun: 4711 };
            let process = Process { known, parent: 1, group: 77, session: 78 };
            assert_eq!(Process::parse(12, stat), Some(process));
            assert_eq!(Process::parse(12, "12 (dead) Z 1 77 78 0 -1"), None);
            assert_eq!(Process::parse(12, ""), None);
        }
    }
}

/// Elsewhere the group is all that can be asked and signalled.
#[cfg(not(target_os = "linux"))]
mod posix {
    use rustix::process::{Signal, test_kill_process_group};

    use super::super::group::Id;
    use super::Known;

    pub(in super::super) fn any(id: &Id) -> bool {
        test_kill_process_group(id.leader).is_ok()
    }

    pub(in super::super) fn strays(_: &Id) -> Vec<Known> {
        Vec::new()
    }

    impl Known {
        pub(in super::super) fn signal(self, _: Signal) {}
    }
}
