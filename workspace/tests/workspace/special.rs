//! What is no plain file, and names that no text can say.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use agentwire_workspace::Access;

use crate::support::{Tool, folder, open, read};

/// A pipe that nobody writes to would hold a reader for ever, a socket or device does worse.
#[tokio::test]
async fn pipes_and_sockets_block_nobody() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let workspace = open(folder.path(), &[Access::Write, Access::Shell]);
    let begun = Instant::now();
    for path in ["pipe", "socket"] {
        for tool in Tool::ALL {
            let seen = tool.run(&workspace, path).await;
            assert!(seen.is_err(), "{tool:?} of {path}: {seen:?}");
        }
        assert!(folder.path().join(path).exists(), "{path} was deleted");
    }
    // Searching everything passes them by, and rules are not read from them.
    fs::remove_file(folder.path().join("a.txt")).unwrap();
    fs::rename(&pipe, folder.path().join(".gitignore")).unwrap();
    for tool in [Tool::Ls, Tool::PiLs, Tool::Grep, Tool::Glob, Tool::PiGrep, Tool::PiFind] {
        tool.run(&workspace, ".").await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "something waited");
}

/// Such a file is listed with its name as far as it is text, and stops nothing.
#[tokio::test]
async fn names_that_are_not_text_stop_nothing() {
    let folder = folder();
    let odd = folder.path().join(OsStr::from_bytes(b"odd-\xff-name.txt"));
    if fs::write(&odd, "two odd\n").is_err() {
        return; // A file system that has no such names.
    }
    let workspace = open(folder.path(), &[]);
    for tool in [Tool::Ls, Tool::PiLs, Tool::Grep, Tool::Glob, Tool::PiGrep, Tool::PiFind] {
        let seen = tool.run(&workspace, ".").await.unwrap();
        assert!(seen.contains("odd-\u{fffd}-name.txt"), "{tool:?}: {seen}");
    }
    // The name that is shown is not that of a file.
    let refusal = read(&workspace, "odd-\u{fffd}-name.txt").await.unwrap_err();
    assert!(refusal.contains("FileNotFound"), "{refusal}");
}

#[tokio::test]
async fn paths_that_are_too_much_are_refused_in_words() {
    let folder = folder();
    let workspace = open(folder.path(), &[Access::Write, Access::Shell]);
    let deep = "d/".repeat(5_000);
    let long = "n".repeat(5_000);
    for path in [deep.as_str(), long.as_str(), "with\0zero", "a.txt/below", "sub/../../.."] {
        for tool in Tool::ALL {
            let seen = tool.run(&workspace, path).await;
            assert!(seen.is_err(), "{tool:?}: {seen:?}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A root on which nothing may be read, and a folder that may not be entered.
#[tokio::test]
async fn what_the_system_forbids_is_told_as_that() {
    let folder = folder();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("c.txt"), "two\n").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let privileged = fs::read_dir(&closed).is_ok();
    let workspace = open(folder.path(), &[Access::Write]);
    if !privileged {
        let refusal = read(&workspace, "closed/c.txt").await.unwrap_err();
        assert!(refusal.contains("PermissionDenied"), "{refusal}");
    }
    // One such folder does not end a search.
    let seen = Tool::Grep.run(&workspace, ".").await.unwrap();
    assert!(seen.contains("b.txt"), "{seen}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}
