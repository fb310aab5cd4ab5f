//! Which processes belong to a command.

#[cfg(target_os = "linux")]
pub(super) use linux::{any, signal_strays};
#[cfg(not(target_os = "linux"))]
pub(super) use posix::{any, signal_strays};

/// Linux tells all of it in `/proc`: group, session, and the environment that a process was
/// started with. So those are found too that made a session of their own.
#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use memchr::memmem;
    use rustix::process::{
        Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process_group,
    };

    use super::super::group::{Id, MARK};

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Member {
        No,
        /// Of the process group: signals to the group reach it.
        Group,
        /// Left the group.
        Stray,
    }

    pub(in super::super) fn any(id: &Id) -> bool {
        match processes() {
            Some(mut all) => all.any(|pid| id.member(pid) != Member::No),
            // No `/proc`: the group at least can be asked. A dead leader counts until it is reaped.
            None => test_kill_process_group(id.leader).is_ok(),
        }
    }

    pub(in super::super) fn signal_strays(id: &Id, signal: Signal) {
        for pid in processes().into_iter().flatten() {
            if id.member(pid) != Member::Stray {
                continue;
            }
            // The number can be another process by now. A handle stays the same one.
            if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
                && id.member(pid) == Member::Stray
            {
                // It has just ended by itself, if this fails.
                let _ = pidfd_send_signal(handle, signal);
            }
        }
    }

    fn processes() -> Option<impl Iterator<Item = Pid>> {
        let entries = fs::read_dir("/proc").ok()?;
        Some(
            entries
                .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)),
        )
    }

    impl Id {
        fn member(&self, pid: Pid) -> Member {
            let number = pid.as_raw_nonzero();
            let Ok(stat) = fs::read_to_string(format!("/proc/{number}/stat")) else {
                return Member::No;
            };
            match place(&stat) {
                // Dead, and only waits to be reaped.
                None | Some(("Z" | "X", ..)) => Member::No,
                Some((_, group, _)) if group == self.leader => Member::Group,
                Some((_, _, session)) if session == self.leader => Member::Stray,
                Some(_) if self.marked(pid) => Member::Stray,
                Some(_) => Member::No,
            }
        }

        fn marked(&self, pid: Pid) -> bool {
            let Ok(variables) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
                return false;
            };
            variables.split(|byte| *byte == 0).any(|variable| {
                variable
                    .strip_prefix(MARK.as_bytes())
                    .is_some_and(|marks| memmem::find(marks, self.mark.as_bytes()).is_some())
            })
        }
    }

    /// State, process group and session out of the text of `/proc/PID/stat`. The name before
    /// them can hold anything, so they are looked for behind its end.
    fn place(stat: &str) -> Option<(&str, Pid, Pid)> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let mut number = fields.skip(1).map(|field| Pid::from_raw(field.parse().ok()?));
        Some((state, number.next()??, number.next()??))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_name_of_a_process_can_hold_anything() {
            let pid = |number| Pid::from_raw(number).unwrap();
            let stat = "12 (a) Z 1 (b) S 1 77 78 0 -1 4194560";
            assert_eq!(place(stat), Some(("S", pid(77), pid(78))));
            assert_eq!(place("12 (kernel) S 2 0 0 0"), None);
            assert_eq!(place(""), None);
        }
    }
}

/// Elsewhere the group is all that can be asked and signalled.
#[cfg(not(target_os = "linux"))]
mod posix {
    use rustix::process::{Signal, test_kill_process_group};

    use super::super::group::Id;

    pub(in super::super) fn any(id: &Id) -> bool {
        test_kill_process_group(id.leader).is_ok()
    }

    pub(in super::super) fn signal_strays(_: &Id, _: Signal) {}
}
