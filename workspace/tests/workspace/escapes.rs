//! No path leads out of the root: not by its text, not by a link, not by a race.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agentwire::exec::ExecHandler;
use agentwire::proto::{DeleteArgs, WriteArgs, delete_result};
use agentwire_workspace::{Access, Workspace};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Tool, call, folder, open, read};

const SECRET: &str = "outside content";

/// A root with links of every kind to a folder beside it, all below one temporary folder.
struct Trap {
    all: tempfile::TempDir,
}

impl Trap {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        let (root, out) = (all.path().join("root"), all.path().join("out"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(out.join("deep")).unwrap();
        fs::write(out.join("secret"), SECRET).unwrap();
        fs::write(out.join("deep/secret"), SECRET).unwrap();
        fs::write(root.join("a.txt"), "one\ntwo\n").unwrap();
        let link = |target: &Path, name: &str| symlink(target, root.join(name)).unwrap();
        link(&out.join("secret"), "file");
        link(&out, "dir");
        link(Path::new("../out/secret"), "file-up");
        link(Path::new("../out"), "dir-up");
        link(Path::new("sub/../../out"), "dir-around");
        link(Path::new("dir"), "chain");
        link(Path::new("chain/deep"), "chain-deep");
        link(Path::new("/proc/self/cwd"), "proc");
        link(Path::new("/"), "slash");
        link(Path::new("/proc/self/root"), "proc-root");
        link(Path::new(".."), "up");
        link(Path::new("loop"), "loop");
        link(&root.join("../out"), "root-around");
        // What is not there yet, outside: writing through it would make it.
        link(&out.join("new"), "dangling");
        Self { all }
    }

    fn root(&self) -> PathBuf {
        self.all.path().join("root")
    }

    fn out(&self) -> PathBuf {
        self.all.path().join("out")
    }

    fn assert_untouched(&self, what: &str) {
        for path in ["secret", "deep/secret"] {
            let content = fs::read_to_string(self.out().join(path)).unwrap();
            assert_eq!(content, SECRET, "{what}: {path}");
        }
        assert_eq!(fs::read_dir(self.out()).unwrap().count(), 2, "{what}: something new");
    }
}

/// Ways out, to a file and to the folder it is in.
fn ways(trap: &Trap) -> Vec<(String, String)> {
    let out = trap.out().to_str().unwrap().to_owned();
    let root = trap.root().to_str().unwrap().to_owned();
    let pairs = [
        ("../out".to_owned(), "secret"),
        (out.clone(), "secret"),
        (format!("{root}/../out"), "secret"),
        (format!("{root}/sub/../../out"), "secret"),
        ("/workspace/../out".to_owned(), "secret"),
        ("./sub/.././../out".to_owned(), "secret"),
        ("dir".to_owned(), "secret"),
        ("dir/deep".to_owned(), "secret"),
        ("dir-up".to_owned(), "secret"),
        ("dir-around".to_owned(), "secret"),
        ("chain".to_owned(), "secret"),
        ("chain-deep".to_owned(), "secret"),
        ("root-around".to_owned(), "secret"),
        ("up/out".to_owned(), "secret"),
        (format!("slash{out}"), "secret"),
        (format!("proc-root{out}"), "secret"),
        ("proc".to_owned(), "Cargo.toml"),
        ("/proc/self/cwd".to_owned(), "Cargo.toml"),
        ("/dev/fd".to_owned(), "0"),
        ("//etc".to_owned(), "passwd"),
        ("loop".to_owned(), "secret"),
    ];
    let mut ways: Vec<_> =
        pairs.into_iter().map(|(folder, file)| (format!("{folder}/{file}"), folder)).collect();
    for file in ["file", "file-up", "dangling", "dangling/below", "loop"] {
        ways.push((file.to_owned(), "dir".to_owned()));
    }
    ways
}

#[tokio::test]
async fn no_tool_follows_a_path_or_link_out() {
    let trap = Trap::new();
    let workspace = open(&trap.root(), &[Access::Write, Access::Shell]);
    let links = fs::read_dir(trap.root()).unwrap().count();
    for (file, folder) in ways(&trap) {
        for tool in Tool::ALL {
            let path = if tool.wants_folder() { &folder } else { &file };
            // Deleting a link deletes the link: that is inside, and has a test of its own.
            if tool == Tool::Delete
                && trap.root().join(path).is_symlink()
                && !path.contains("..")
                && !path.starts_with('/')
            {
                continue;
            }
            let seen = tool.run(&workspace, path).await;
            let text = seen.as_ref().unwrap_or_else(|refusal| refusal);
            assert!(seen.is_err(), "{tool:?} of {path}: {text}");
            assert!(!text.contains(SECRET), "{tool:?} of {path}: {text}");
            trap.assert_untouched(&format!("{tool:?} of {path}"));
        }
    }
    assert_eq!(fs::read_dir(trap.root()).unwrap().count(), links, "something new inside");
}

/// A refusal repeats the path that was asked for and tells no other.
#[tokio::test]
async fn a_refusal_names_no_path_of_this_machine() {
    let trap = Trap::new();
    let workspace = open(&trap.root(), &[Access::Write]);
    let local = trap.all.path().to_str().unwrap();
    for tool in Tool::ALL {
        for path in ["file", "dir/secret", "nothing/here", "loop", "a.txt/below", "\0", ""] {
            let seen = tool.run(&workspace, path).await;
            let text = seen.unwrap_or_else(|refusal| refusal);
            assert!(!text.contains(local), "{tool:?} of {path:?}: {text}");
        }
    }
}

#[tokio::test]
async fn searching_everything_passes_links_by() {
    let trap = Trap::new();
    let workspace = open(&trap.root(), &[]);
    for tool in [Tool::Ls, Tool::PiLs, Tool::Grep, Tool::Glob, Tool::PiGrep, Tool::PiFind] {
        let seen = tool.run(&workspace, ".").await.unwrap();
        assert!(!seen.contains(SECRET) && !seen.contains("secret"), "{tool:?}: {seen}");
    }
}

#[tokio::test]
async fn deleting_a_link_deletes_the_link() {
    let trap = Trap::new();
    let workspace = open(&trap.root(), &[Access::Write]);
    for link in ["file", "dir", "chain", "dangling", "loop"] {
        let args = DeleteArgs { path: link.into(), ..DeleteArgs::default() };
        let Some(delete_result::Result::Success(deleted)) =
            workspace.delete(&call(), args).await.unwrap().result
        else {
            panic!("{link}")
        };
        assert_eq!(deleted.prev_content, "", "{link}");
        assert!(!trap.root().join(link).is_symlink(), "{link}");
        trap.assert_untouched(link);
    }
}

/// Links that stay inside are followed, also absolute ones and those over `..`.
#[tokio::test]
async fn links_inside_are_followed() {
    let folder = folder();
    let root = folder.path();
    symlink("a.txt", root.join("near")).unwrap();
    symlink(root.join("sub"), root.join("absolute")).unwrap();
    symlink("../a.txt", root.join("sub/up")).unwrap();
    symlink("absolute/../sub/up", root.join("round")).unwrap();
    let workspace = open(root, &[Access::Write]);
    for (path, text) in [
        ("near", "three"),
        ("absolute/b.txt", "more"),
        ("sub/up", "three"),
        ("absolute/up", "three"),
        ("round", "three"),
        ("sub/../a.txt", "three"),
    ] {
        assert!(read(&workspace, path).await.unwrap().contains(text), "{path}");
    }
    // Writing goes to what the link names; the link stays one.
    Tool::Write.run(&workspace, "round").await.unwrap();
    assert_eq!(fs::read_to_string(root.join("a.txt")).unwrap(), "x");
    assert!(root.join("round").is_symlink() && root.join("sub/up").is_symlink());
}

/// A hard link cannot be told from a file: writing must not reach what it shares.
#[tokio::test]
async fn a_hard_link_to_a_file_outside_keeps_it_as_it_is() {
    let trap = Trap::new();
    fs::hard_link(trap.out().join("secret"), trap.root().join("hard")).unwrap();
    let workspace = open(&trap.root(), &[Access::Write]);
    Tool::Write.run(&workspace, "hard").await.unwrap();
    assert_eq!(fs::read_to_string(trap.root().join("hard")).unwrap(), "x");
    trap.assert_untouched("hard link");
}

/// A folder that becomes a link to the outside, and a folder again, while tools use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_race_leads_out() {
    let trap = Trap::new();
    let (root, out) = (trap.root(), trap.out());
    fs::create_dir(root.join("flip")).unwrap();
    fs::write(root.join("flip/secret"), "two inside").unwrap();
    symlink(&out, root.join("link")).unwrap();
    let workspace =
        Workspace::builder(&root).allow(Access::Write).allow(Access::Shell).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flipper = std::thread::spawn({
        let (stop, root) = (Arc::clone(&stop), root.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                let (one, other) = (root.join("flip"), root.join("link"));
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let (mut served, mut refused) = (0, 0);
    for round in 0..60 {
        for tool in Tool::ALL {
            // A command each time would take too long.
            if tool.access() == Access::Shell && round % 20 > 0 {
                continue;
            }
            let path = match tool {
                tool if tool.wants_folder() => "flip",
                Tool::Write | Tool::PiWrite => "flip/new",
                _ => "flip/secret",
            };
            match tool.run(&workspace, path).await {
                Ok(seen) => {
                    assert!(!seen.contains(SECRET), "{tool:?}: {seen}");
                    served += 1;
                }
                Err(_) => refused += 1,
            }
        }
        let again =
            WriteArgs { path: "flip/secret".into(), file_text: "two".into(), ..Default::default() };
        let _either = workspace.write(&call(), again).await;
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    trap.assert_untouched("a race");
    assert!(served > 0 && refused > 0, "no race: {served} served, {refused} refused");
}
