//! Who holds a lease, and whether that process is still there.

use std::fs;

use uuid::Uuid;

use crate::record::Owner;

/// This process as an owner, with a nonce of its own.
pub fn current(nonce: Uuid) -> Owner {
    Owner {
        host: host(),
        pid: std::process::id(),
        boot: line("/proc/sys/kernel/random/boot_id"),
        nonce: nonce.simple().to_string(),
    }
}

/// Whether the owner is certainly dead: a process of this host and an earlier boot, or one whose
/// pid nobody has. Anything else is "perhaps alive": then the lease has to run out.
pub(super) fn is_dead(owner: &Owner) -> bool {
    if owner.host != host() {
        return false;
    }
    let boot = line("/proc/sys/kernel/random/boot_id");
    if !boot.is_empty() && !owner.boot.is_empty() && boot != owner.boot {
        return true;
    }
    !pid_exists(owner.pid)
}

/// Host name and, on Linux, the process namespace: two containers may share a name, not a
/// namespace.
fn host() -> String {
    let name = line("/proc/sys/kernel/hostname");
    let name = if name.is_empty() { std::env::var("HOSTNAME").unwrap_or_default() } else { name };
    match fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) => format!("{name} {}", namespace.display()),
        Err(_) => name,
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(unix)]
fn pid_exists(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    match test_kill_process(pid) {
        // A zombie still has its pid, and nothing else: it writes nothing any more.
        Ok(()) => !is_zombie(pid.as_raw_pid()),
        // It exists and belongs to somebody else.
        Err(error) => error != rustix::io::Errno::SRCH,
    }
}

#[cfg(unix)]
fn is_zombie(pid: i32) -> bool {
    // `pid (name) S …`: the name may hold anything, so the state follows its last parenthesis.
    let stat = line(&format!("/proc/{pid}/stat"));
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(not(unix))]
fn pid_exists(_pid: u32) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_is_certain_or_not_claimed() {
        let own = current(Uuid::nil());
        assert!(!is_dead(&own));
        assert!(!is_dead(&Owner { host: "elsewhere".into(), pid: 1, ..own.clone() }));
        #[cfg(target_os = "linux")]
        {
            assert!(is_dead(&Owner { boot: "another".into(), ..own.clone() }));
            // Above the largest pid Linux gives.
            assert!(is_dead(&Owner { pid: 4_194_305, ..own }));
        }
    }
}
