//! The catalog cache on a real disk: FAULTS M92 and M94, BEHAVIOUR 12 C036.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use agentwire::models::{
    CacheKey, CacheNote, CacheOptions, Catalog, Entry, Loaded, load_cache, remove_cache, save_cache,
};

const NOW: u64 = 1_767_225_600_000;

fn key() -> CacheKey {
    CacheKey::new("user", "https://example.invalid")
}

fn load(dir: &Path) -> Loaded {
    load_cache(dir, &key(), NOW, &CacheOptions::default())
}

fn catalog(name: &str) -> Catalog {
    let entry = |n| Entry { name: Some(name.to_owned()), ..Entry::new(format!("m-{n}")) };
    Catalog::live((0..50).map(entry).collect(), NOW)
}

#[test]
fn c036_a_catalog_is_kept_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("cache");
    assert_eq!(load(&inner), Loaded::default());
    assert!(save_cache(&inner, &key(), &catalog("x")).unwrap());
    assert_eq!(load(&inner), Loaded { catalog: Some(catalog("x")), ..Loaded::default() });
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);

    let estimated = Catalog::estimated(Default::default(), NOW);
    assert!(!save_cache(&inner, &key(), &estimated).unwrap());
    assert_eq!(load(&inner).catalog, Some(catalog("x")));

    let other = CacheKey::new("somebody else", "https://example.invalid");
    assert_eq!(load_cache(&inner, &other, NOW, &CacheOptions::default()), Loaded::default());

    remove_cache(&inner, &key()).unwrap();
    remove_cache(&inner, &key()).unwrap();
    assert_eq!(load(&inner), Loaded::default());
}

#[test]
fn m92_what_cannot_be_read_is_ignored_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(key().file_name());
    for damaged in [&b""[..], b"{not json", b"\xff\xfe\x00\x01", &[b'['; 100_000]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(load(dir.path()).note, Some(CacheNote::Damaged));
    }
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    assert_eq!(load(dir.path()).note, Some(CacheNote::TooLarge));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(load(dir.path()).note, Some(CacheNote::NotAFile));
    assert!(save_cache(dir.path(), &key(), &catalog("x")).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
}

#[cfg(unix)]
#[test]
fn m92_links_and_pipes_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(key().file_name());
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert_eq!(load(dir.path()).note, Some(CacheNote::NotAFile));
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert_eq!(load(dir.path()).note, Some(CacheNote::NotAFile));
}

/// FAULTS M93 for real: the system kills the process in the middle of the write.
#[cfg(unix)]
#[test]
fn m93_killed_in_the_middle_of_a_save() {
    let dir = tempfile::tempdir().unwrap();
    save_cache(dir.path(), &key(), &catalog("old")).unwrap();
    let status = Command::new("sh")
        .args(["-c", r#"ulimit -f 1 && exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "cache::a_writer", "--ignored", "--quiet"])
        .env("WRITER_DIR", dir.path())
        .env("WRITER_NAME", "new")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    // Where the signal is ignored the write fails instead, and the temporary file is removed.
    let killed = std::os::unix::process::ExitStatusExt::signal(&status).is_some();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1 + usize::from(killed));
    assert_eq!(load(dir.path()), Loaded { catalog: Some(catalog("old")), ..Loaded::default() });
    save_cache(dir.path(), &key(), &catalog("new")).unwrap();
    assert_eq!(load(dir.path()).catalog, Some(catalog("new")));
}

/// Eight processes save a hundred times each while this one reads: there is always one whole catalog.
#[test]
fn m94_many_writers_at_once() {
    let dir = tempfile::tempdir().unwrap();
    save_cache(dir.path(), &key(), &catalog("start")).unwrap();
    let mut writers: Vec<_> = (0..8)
        .map(|n| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "cache::a_writer", "--ignored", "--quiet"])
                .env("WRITER_DIR", dir.path())
                .env("WRITER_NAME", format!("writer {n}"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut running = true;
    while running {
        running = writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none());
        let loaded = load(dir.path());
        let found = loaded.catalog.unwrap_or_else(|| panic!("{:?}", loaded.note));
        let name = found.entries[0].name.clone().unwrap();
        assert_eq!(found, catalog(&name));
        seen.insert(name);
    }
    assert!(writers.into_iter().all(|mut writer| writer.wait().unwrap().success()));
    assert!(seen.iter().any(|name| name.starts_with("writer")), "{seen:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
#[ignore = "one of the processes of m94_many_writers_at_once"]
fn a_writer() {
    let (Some(dir), Ok(name)) = (std::env::var_os("WRITER_DIR"), std::env::var("WRITER_NAME"))
    else {
        return;
    };
    for _ in 0..100 {
        save_cache(Path::new(&dir), &key(), &catalog(&name)).unwrap();
    }
}
