//! Asking a person: what they see, what their answer covers, what happens between the two.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agentwire_workspace::{Access, ApprovalRequest, Builder, Decision, Workspace};

use crate::support::{Tool, folder, read};

/// Permits everything, and asks.
fn all(builder: Builder) -> Builder {
    builder.allow(Access::Write).allow(Access::Shell)
}

/// A workspace whose person always gives this answer, and what they were asked.
fn answering(
    folder: &tempfile::TempDir,
    answer: Decision,
) -> (Workspace, Arc<Mutex<Vec<ApprovalRequest>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let workspace = all(Workspace::builder(folder.path()))
        .approve(move |request| {
            log.lock().unwrap().push(request);
            std::future::ready(answer.clone())
        })
        .build()
        .unwrap();
    (workspace, asked)
}

fn path(tool: Tool) -> &'static str {
    if tool.wants_folder() { "sub" } else { "a.txt" }
}

#[tokio::test]
async fn every_tool_asks_and_a_no_is_a_no() {
    let folder = folder();
    let (workspace, asked) = answering(&folder, Decision::Deny);
    for tool in Tool::ALL {
        let refusal = tool.run(&workspace, path(tool)).await.unwrap_err();
        assert!(refusal.contains("said no"), "{tool:?}: {refusal}");
        let request = asked.lock().unwrap().pop().unwrap();
        assert_eq!(request.access, tool.access(), "{tool:?}");
        assert!(request.tool.ends_with("_args"), "{tool:?}: {}", request.tool);
        assert!(request.description.contains(path(tool)), "{tool:?}: {}", request.description);
        assert!(asked.lock().unwrap().is_empty(), "{tool:?} asks twice");
    }
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "one\ntwo\nthree\n");
    let because = Decision::DenyBecause("not on a Friday".into());
    let (workspace, _) = answering(&folder, because);
    assert!(read(&workspace, "a.txt").await.unwrap_err().contains("not on a Friday"));
}

#[tokio::test]
async fn allow_holds_once_and_allow_for_this_run_for_the_run() {
    for (answer, times) in [(Decision::Allow, 2), (Decision::AllowForRun, 1)] {
        for tool in Tool::ALL {
            let folder = folder();
            let (workspace, asked) = answering(&folder, answer.clone());
            let repair = || fs::write(folder.path().join("a.txt"), "one\ntwo\n").unwrap();
            for _ in 0..2 {
                tool.run(&workspace, path(tool)).await.unwrap();
                repair();
            }
            assert_eq!(asked.lock().unwrap().len(), times, "{tool:?} {answer:?}");
            // Another run asks again.
            tool.run(&workspace.new_run(), path(tool)).await.unwrap();
            assert_eq!(asked.lock().unwrap().len(), times + 1, "{tool:?} {answer:?}");
        }
    }
}

/// A yes to reads is none to writes, one to writes none to deletions, one command none to another.
#[tokio::test]
async fn a_yes_for_the_run_covers_what_it_said_and_no_more() {
    let folder = folder();
    let (workspace, asked) = answering(&folder, Decision::AllowForRun);
    let count = || asked.lock().unwrap().len();
    for (tool, path, questions) in [
        (Tool::Read, "a.txt", 1),
        (Tool::Grep, ".", 1),
        (Tool::Ls, "sub", 1),
        (Tool::Write, "a.txt", 2),
        (Tool::PiWrite, "new", 2),
        (Tool::Delete, "new", 3),
        (Tool::Delete, "a.txt", 3),
        (Tool::Shell, "sub", 4),
        (Tool::ShellStream, "sub", 4),
        (Tool::Shell, "", 5),
    ] {
        tool.run(&workspace, path).await.unwrap();
        assert_eq!(count(), questions, "{tool:?} of {path}");
    }
}

/// What is not permitted is not even asked.
#[tokio::test]
async fn nobody_is_asked_for_what_is_not_permitted() {
    let folder = folder();
    let workspace = Workspace::builder(folder.path())
        .forbid(Access::Read)
        .approve(|_| async { unreachable!("asked for what is not permitted") })
        .build()
        .unwrap();
    for tool in Tool::ALL {
        assert!(tool.run(&workspace, path(tool)).await.is_err(), "{tool:?}");
    }
}

/// The path that is shown is the one behind all links, and a terminal cannot be deceived by it.
#[tokio::test]
async fn a_person_sees_what_would_be_touched() {
    let folder = folder();
    std::os::unix::fs::symlink("a.txt", folder.path().join("harmless")).unwrap();
    let (workspace, asked) = answering(&folder, Decision::Deny);
    let _refused = Tool::Write.run(&workspace, "harmless").await;
    let request = asked.lock().unwrap().pop().unwrap();
    assert!(request.description.contains("overwrite the file `a.txt`"), "{}", request.description);
    assert_eq!(request.preview.as_deref(), Some("x"));
    let _refused = Tool::PiEdit.run(&workspace, "harmless").await;
    let request = asked.lock().unwrap().pop().unwrap();
    assert!(request.preview.unwrap().contains("-two\n+x\n"));
    let _refused = Tool::Write.run(&workspace, "a\u{1b}[2K\u{202e}b").await;
    let request = asked.lock().unwrap().pop().unwrap();
    assert!(request.description.contains("create"), "{}", request.description);
    assert!(!request.description.contains(['\u{1b}', '\u{202e}']));
    assert!(!format!("{request:?}").contains("create"), "the texts are not for logs");
}

/// Whatever was there when the person said yes must still be there.
#[tokio::test]
async fn what_changed_since_the_question_is_not_written() {
    for tool in [Tool::Write, Tool::PiWrite, Tool::PiEdit] {
        let folder = folder();
        let root = folder.path().to_owned();
        let name = if tool == Tool::PiEdit { "a.txt" } else { "new" };
        let workspace = all(Workspace::builder(folder.path()))
            .approve(move |_| {
                // While the person thinks, somebody else writes.
                fs::write(root.join(name), "somebody's two, longer than before\n").unwrap();
                async { Decision::Allow }
            })
            .build()
            .unwrap();
        let refusal = tool.run(&workspace, name).await.unwrap_err();
        assert!(refusal.contains("somebody else changed it"), "{tool:?}: {refusal}");
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.starts_with("somebody's"), "{tool:?}: {text}");
    }
}

/// A link that is put in the place of what was approved is not followed.
#[tokio::test]
async fn a_link_put_there_since_the_question_is_not_followed() {
    for tool in Tool::ALL {
        let (folder, outside) = (folder(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("b.txt"), "outside two\n").unwrap();
        fs::create_dir(folder.path().join("sub/deep")).unwrap();
        fs::write(folder.path().join("sub/deep/b.txt"), "two\n").unwrap();
        let (root, out) = (folder.path().to_owned(), outside.path().to_owned());
        let workspace = all(Workspace::builder(folder.path()))
            .approve(move |_| {
                fs::rename(root.join("sub"), root.join("was")).unwrap();
                std::os::unix::fs::symlink(&out, root.join("sub")).unwrap();
                async { Decision::Allow }
            })
            .build()
            .unwrap();
        let path = if tool.wants_folder() { "sub" } else { "sub/b.txt" };
        let seen = tool.run(&workspace, path).await;
        // The list of names that a glob takes is the name itself, which was approved.
        assert!(seen.is_err() || tool == Tool::Glob, "{tool:?}: {seen:?}");
        assert!(!format!("{seen:?}").contains("outside"), "{tool:?}: {seen:?}");
        let text = fs::read_to_string(outside.path().join("b.txt")).unwrap();
        assert_eq!(text, "outside two\n", "{tool:?}");
    }
}

/// An edit that fails says what is in the file, and a deletion gives its text: that is reading.
#[tokio::test]
async fn changing_is_no_way_to_read_what_was_not_allowed() {
    let folder = folder();
    let workspace = all(Workspace::builder(folder.path()))
        .approve(|request| async move {
            match request.access {
                Access::Read => Decision::Deny,
                _ => Decision::Allow,
            }
        })
        .build()
        .unwrap();
    fs::write(folder.path().join("other.txt"), "the word is not there\n").unwrap();
    let refusal = Tool::PiEdit.run(&workspace, "other.txt").await.unwrap_err();
    assert!(refusal.contains("said no") && !refusal.contains("not in the file"), "{refusal}");
    let deleted = Tool::Delete.run(&workspace, "a.txt").await.unwrap();
    assert!(!deleted.contains("three"), "{deleted}");
    // Who may read everything is told.
    fs::write(folder.path().join("a.txt"), "three\n").unwrap();
    let (workspace, _) = answering(&folder, Decision::AllowForRun);
    read(&workspace, "a.txt").await.unwrap();
    assert!(Tool::Delete.run(&workspace, "a.txt").await.unwrap().contains("three"));
}

/// Questions come one at a time, and a yes for the run answers those that wait.
#[tokio::test]
async fn one_question_at_a_time() {
    let folder = folder();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let asked = Arc::new(AtomicUsize::new(0));
    let (now, high, count) = (Arc::clone(&open), Arc::clone(&most), Arc::clone(&asked));
    let workspace = Arc::new(
        all(Workspace::builder(folder.path()))
            .approve(move |_| {
                let (now, high) = (Arc::clone(&now), Arc::clone(&high));
                count.fetch_add(1, Ordering::SeqCst);
                async move {
                    high.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    Decision::AllowForRun
                }
            })
            .build()
            .unwrap(),
    );
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let workspace = Arc::clone(&workspace);
            tokio::spawn(async move { read(&workspace, "a.txt").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!((most.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 1));
}

/// A service that says that no approval is needed is asked about all the same.
#[tokio::test]
async fn the_service_cannot_wave_itself_through() {
    use agentwire::exec::ExecHandler;
    use agentwire::proto::ShellArgs;

    let folder = folder();
    let (workspace, asked) = answering(&folder, Decision::Deny);
    let args =
        ShellArgs { command: "touch new".into(), skip_approval: true, ..ShellArgs::default() };
    let answer = workspace.shell(&crate::support::call(), args).await.unwrap();
    assert!(format!("{answer:?}").contains("said no"), "{answer:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(!folder.path().join("new").exists());
}
