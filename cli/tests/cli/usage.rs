//! Arguments, help texts and exit codes.

use crate::support::run;

/// Every command and subcommand, as the help of the binary names them: the words of each.
fn commands() -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let help = help_of(&path);
        for name in listed(&help) {
            let path = path.iter().cloned().chain([name]).collect::<Vec<_>>();
            all.push(path.clone());
            open.push(path);
        }
    }
    all
}

fn help_of(command: &[String]) -> String {
    let done = run(command.iter().map(String::as_str).chain(["--help"])).expect(0);
    assert!(done.stderr.is_empty(), "{command:?}");
    done.stdout().to_owned()
}

/// The names under `Commands:`: what stands two blanks in, but for `help` itself.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|at| !at.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_of_each_command_has_an_example() {
    let commands = commands();
    // What is looked for below is found at all: commands of the first level and of the second.
    for known in [&["chat"][..], &["workflow"], &["models", "resolve"]] {
        assert!(commands.iter().any(|command| command == known), "{known:?}: {commands:?}");
    }
    for command in commands {
        let help = help_of(&command);
        assert!(help.contains("Example"), "{help}");
        // The usage says it, and the example shows it.
        let written = format!("agentwire {}", command.join(" "));
        assert!(help.matches(&written).count() > 1, "{written}: {help}");
    }
    assert!(help_of(&[]).contains("130"), "the exit codes are part of the help");
}

#[test]
fn help_and_errors_carry_no_colour_codes_in_a_pipe() {
    for args in [&["--help"][..], &["chat", "--help"], &["chat", "--frobnicate"]] {
        let done = run(args);
        assert!(!done.stdout.contains(&0x1b) && !done.stderr.contains('\u{1b}'), "{args:?}");
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let table: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["chat"],
        &["chat", "--local"],
        &["chat", "--frobnicate", "hi"],
        &["chat", "hi", "there"],
        &["chat", "--timeout", "0", "hi"],
        &["chat", "--timeout", "soon", "hi"],
        &["chat", "--retries", "-1", "hi"],
        &["chat", "--local", "--endpoint", "https://example.com", "hi"],
        &["chat", "--local", "--image", "a.png"],
        &["chat", "--token", "secret", "hi"],
        &["chat", "--thinking", "hard", "hi"],
        &["chat", "--param", "effort", "hi"],
        &["models", "--local", "--endpoint", "https://example.com"],
        &["models", "resolve"],
        &["models", "resolve", "m", "--thinking", "hard"],
        &["models", "map", "--json"],
        &["login", "--token", "secret"],
        &["login", "--endpoint", "http://192.0.2.1"],
        &["login", "--web-base", "javascript:alert(1)"],
        &["logout", "everybody"],
        &["status", "--endpoint", "nowhere"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--tls-cert", "cert.pem"],
        &["serve", "--cleartext", "--tls-cert", "cert.pem", "--tls-key", "key.pem"],
        &["decode"],
        &["decode", "--from", "elsewhere"],
        &["encode"],
        &["encode", "--from", "server"],
        &["encode", "--json", "-"],
        &["encode", "--context", "c.json", "--json", "-", "--from", "server"],
        &["encode", "--context", "c.json", "--history", "half"],
        &["completions", "csh"],
    ];
    for args in table {
        let done = run(*args).expect(2);
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_token_is_never_an_argument() {
    let help = run(["chat", "--help"]).expect(0);
    assert!(help.stdout().contains("--token-file"));
    assert!(!help.stdout().contains("--token "), "{}", help.stdout());
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = run(["completions", shell]).expect(0);
        assert!(done.stdout().contains("agentwire"), "{shell}");
        assert!(done.stdout().contains("allow-cleartext"), "{shell}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let done = run(["--version"]).expect(0);
    assert_eq!(done.stdout(), concat!("agentwire ", env!("CARGO_PKG_VERSION"), "\n"));
}
