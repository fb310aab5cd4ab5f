//! `login`, `logout`, `status`, and a chat that uses a sign-in: against a local server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command};

use agentwire::server::Script;
use agentwire::server::serve::{Report, Server};

use crate::support::{Done, agentwire, finish};

/// A server whose sign-in goes as a script says, and an empty place for sign-ins.
struct Place {
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Place {
    fn new(script: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let builder = Server::builder().cleartext().script(Script::from_toml(script).unwrap());
        let server = Some(runtime.block_on(builder.bind()).unwrap());
        Self { server, runtime, dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = agentwire(args);
        command
            .env("AGENTWIRE_ENDPOINT", self.server.as_ref().unwrap().url())
            .env("AGENTWIRE_CONFIG_DIR", self.config())
            .env("AGENTWIRE_CACHE_DIR", self.dir.path().join("cache"));
        command
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("config")
    }

    fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args).spawn().unwrap())
    }

    fn report(mut self) -> Report {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.shutdown())
    }
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(dir).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

#[test]
fn sign_in_look_chat_and_sign_out() {
    let place = Place::new(
        "[sign_in]\nrequire = true\nuses = 1\nsubject = \"ada\"\n\
         [[rules]]\nsteps = [{ text = \"hello\" }, { turn_end = {} }]\n",
    );
    let nobody = place.run(&["status"]).expect(3);
    assert!(nobody.stdout().contains("nobody; sign in with `agentwire login`"));
    let refused = place.run(&["chat", "hi"]).expect(3);
    assert!(refused.stderr.contains("agentwire login"), "{}", refused.stderr);

    let done = place.run(&["login", "--no-browser"]).expect(0);
    let mut lines = done.stdout().lines();
    let url = place.server.as_ref().unwrap().url();
    let page = lines.next().unwrap();
    assert!(page.starts_with(&format!("{url}/loginDeepControl?challenge=")), "{page}");
    assert_eq!(lines.next(), Some(format!("Signed in as ada at {url}.").as_str()));
    assert!(done.stderr.contains("waiting for the sign-in"), "{}", done.stderr);
    assert!(!done.stderr.contains(['\r', '\u{1b}']), "no moving sign in a pipe");

    let file = only_file(&place.config());
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut tokens = ["accessToken", "refreshToken"]
        .map(|name| kept[name].as_str().unwrap().to_owned())
        .to_vec();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut said = vec![done.stdout().to_owned(), done.stderr];

    let status = place.run(&["status"]).expect(0);
    for part in ["ada", url.as_str(), "good until 2", file.to_str().unwrap()] {
        assert!(status.stdout().contains(part), "{part}: {}", status.stdout());
    }
    let json = place.run(&["status", "--json"]).expect(0);
    let lines = json.lines();
    assert_eq!((&lines[0]["signed_in"], &lines[0]["source"]), (&true.into(), &"file".into()));
    assert_eq!((&lines[0]["subject"], &lines[0]["endpoint"]), (&"ada".into(), &url.into()));
    assert!(lines[0]["expires_in_s"].as_u64().unwrap() > 3_000);
    said.extend([status.stdout().to_owned(), json.stdout().to_owned()]);

    // The token is good for one call, so the second is refused, refreshed, and made again.
    for _ in 0..2 {
        let trace = place.dir.path().join("trace");
        let chat = place.run(&["chat", "hi", "--trace", trace.to_str().unwrap()]).expect(0);
        assert!(chat.stdout().starts_with("hello"), "{}", chat.stdout());
        let traced = fs::read_to_string(trace).unwrap();
        assert!(traced.lines().count() > 2, "{traced}");
        said.extend([chat.stderr, traced]);
        // Whatever is good by now must not be in it, either.
        let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let now =
            ["accessToken", "refreshToken"].map(|name| kept[name].as_str().unwrap().to_owned());
        tokens.extend(now);
    }
    assert_ne!(fs::read_to_string(&file).unwrap(), kept.to_string());

    let lists = place.dir.path().join("cache");
    assert!(fs::read_dir(&lists).unwrap().count() > 0);
    place.run(&["logout"]).expect(0);
    assert!(!file.exists());
    assert_eq!(fs::read_dir(&lists).unwrap().count(), 0, "the list of models is gone, too");
    assert!(place.run(&["logout"]).expect(0).stderr.contains("nobody was signed in"));
    place.run(&["status"]).expect(3);
    for text in said {
        assert!(tokens.iter().all(|token| !text.contains(token)), "{text}");
    }
}

#[test]
fn accounts_have_names_and_a_token_of_the_environment_wins() {
    let place = Place::new("");
    place.run(&["login", "--no-browser", "--account", "work"]).expect(0);
    place.run(&["status"]).expect(3);
    place.run(&["status", "--account", "work"]).expect(0);
    let mut command = place.command(&["status", "--json"]);
    let done = finish(command.env("AGENTWIRE_TOKEN", "tok-of-the-environment").spawn().unwrap());
    let line = &done.expect(0).lines()[0];
    assert_eq!((&line["source"], &line["subject"]), (&"environment".into(), &().into()));
    assert!(!line.to_string().contains("tok-of"));
}

#[test]
fn a_damaged_sign_in_says_so_and_can_be_replaced() {
    let place = Place::new("");
    place.run(&["login", "--no-browser"]).expect(0);
    let file = only_file(&place.config());
    fs::write(&file, "{\"version\": 1, \"accessToken\": \"zz9\"").unwrap();
    for command in [&["status"][..], &["chat", "hi"]] {
        let done = place.run(command).expect(3);
        assert!(done.stderr.contains("damaged") && !done.stderr.contains("zz9"), "{}", done.stderr);
        assert!(done.stderr.contains(file.to_str().unwrap()), "{}", done.stderr);
    }
    place.run(&["login", "--no-browser"]).expect(0);
    place.run(&["status"]).expect(0);
}

#[test]
fn a_login_that_fails_says_why() {
    let place = Place::new(
        "[sign_in.poll]\nstatus = { status = 302, headers = { location = \"http://127.0.0.1:9/\" } }",
    );
    let done = place.run(&["login", "--no-browser"]).expect(1);
    assert!(done.stderr.contains("redirect, which is not followed"), "{}", done.stderr);
    let place = Place::new(
        "[sign_in.poll]\nstatus = { status = 200, headers = { content-type = \"text/html\" }, body = \"x\" }",
    );
    let done = place.run(&["login", "--no-browser"]).expect(1);
    assert!(done.stderr.contains("content type"), "{}", done.stderr);
    assert_eq!(fs::read_dir(place.config()).unwrap().count(), 0, "nothing is kept");
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_the_page() {
    let place = Place::new("");
    fs::write(place.dir.path().join("file"), "").unwrap();
    let mut command = place.command(&["login", "--no-browser"]);
    let below = place.dir.path().join("file/config");
    let done = finish(command.env("AGENTWIRE_CONFIG_DIR", &below).spawn().unwrap()).expect(1);
    assert_eq!(done.stdout(), "", "no page is shown");
    let told = ["cannot be kept in", below.to_str().unwrap(), "read and write"];
    assert!(told.iter().all(|text| done.stderr.contains(text)), "{}", done.stderr);
    assert!(!done.stderr.contains("(unknown)"), "{}", done.stderr);
    place.run(&["login", "--account", " "]).expect(2);
    let mut command = place.command(&["status"]);
    let done = finish(command.env("AGENTWIRE_TOKEN_STORE", "drawer").spawn().unwrap()).expect(2);
    assert!(done.stderr.contains("neither `file` nor `keyring`"), "{}", done.stderr);
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// The page's address, once it is printed.
#[cfg(unix)]
fn page(child: &mut Child) -> (String, impl std::any::Any) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (line, stdout)
}

#[cfg(unix)]
#[test]
fn ctrl_c_gives_up() {
    let place = Place::new("[sign_in.poll]\nsilence = true");
    let mut child = place.command(&["login", "--no-browser"]).spawn().unwrap();
    let (line, _stdout) = page(&mut child);
    assert!(line.starts_with("http://"), "{line}");
    interrupt(&child);
    finish(child).expect(130);
    assert_eq!(fs::read_dir(place.config()).unwrap().count(), 0, "nothing is kept");
}

/// The platform's opener gets the address; a stand-in writes it down.
#[cfg(target_os = "linux")]
#[test]
fn the_page_is_opened() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("[sign_in]\npending = 1");
    let (bin, seen) = (place.dir.path().join("bin"), place.dir.path().join("seen"));
    fs::create_dir(&bin).unwrap();
    // Reading a pipe waits for the stand-in, which nobody else waits for.
    assert!(Command::new("mkfifo").arg(&seen).status().unwrap().success());
    let opener = bin.join("xdg-open");
    let script = format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", seen.display());
    fs::write(&opener, script).unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    let (sender, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(fs::read_to_string(&seen)));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let done = finish(place.command(&["login"]).env("PATH", path).spawn().unwrap()).expect(0);
    let opened = opened.recv_timeout(std::time::Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(Some(opened.as_str()), done.stdout().lines().next());
    assert!(place.report().requests >= 2);
}
