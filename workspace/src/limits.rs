//! What a service can make grow here, and how far.

use std::time::Duration;

/// Limits of a workspace. Sizes are bytes. Change what you need and hand it to the builder:
///
/// ```
/// let mut limits = agentwire_workspace::Limits::default();
/// limits.shell_time_max = std::time::Duration::from_secs(60);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Text in one answer: a file's content, the output of a command, the lines of a search. What
    /// is longer keeps its head and its tail. 256 KiB: some 60,000 tokens, more than a model reads
    /// with profit.
    pub answer_bytes: usize,
    /// A binary file is answered whole up to this, and refused above: half a picture is of no use.
    /// 8 MiB: a large screenshot.
    pub binary_bytes: u64,
    /// How much of one file is looked through for line numbers. 256 MiB: a tenth of a second from
    /// memory. In a larger file, lines beyond it are reached from the end or with grep.
    pub scan_bytes: u64,
    /// The largest file that is written or edited. 16 MiB: it is held in memory twice.
    pub write_bytes: u64,
    /// Replacements in one edit. 1,000: each is a pass over the file, and a model makes a handful.
    pub edits: usize,
    /// One line in an answer of a search; the rest is cut. 2,000: a line of minified code is not
    /// read by anybody.
    pub line_bytes: usize,
    /// Entries in the answer of a listing. 2,000: some 20,000 tokens; more is a search, not a look.
    pub entries: usize,
    /// Entries that one listing or search looks at. 200,000: a large repository without what it
    /// ignores; two seconds on a cold disk.
    pub walk_entries: u64,
    /// How deep a listing or search descends. 64: each level holds a file handle, of which a process has
    /// 1,024 as a rule, and sources are a quarter as deep.
    pub depth: usize,
    /// Matching lines after which a search stops. 10,000: more than an answer holds, and enough to say
    /// that a pattern is too wide.
    pub grep_matches: u64,
    /// How much of one file is searched. 64 MiB: what is larger is data.
    pub grep_file_bytes: u64,
    /// The longest line that a search holds in memory, and in multi-line mode the longest file. 16 MiB:
    /// as the largest file that is written here.
    pub search_bytes: usize,
    /// The longest pattern or glob. 4 KiB: longer than any that somebody writes.
    pub pattern_bytes: usize,
    /// The memory of a compiled pattern, and the same again for its cache. 8 MiB: `a{1000}{1000}` is
    /// short and would take a gigabyte.
    pub pattern_memory: usize,
    /// Globs that one listing leaves out. 256: ignore files hold the others.
    pub globs: usize,
    /// Time of one piece of work on files; a listing or search answers with what it has. 20 s: ten
    /// times what a large repository takes on a cold disk, and a model waits for it.
    pub file_time: Duration,
    /// Pieces of work on files at the same time; others wait. 4: they hold a thread each.
    pub file_jobs: usize,
    /// Time of a command when the service names none. 2 min: a build of a small project; for a longer
    /// one the service asks.
    pub shell_time: Duration,
    /// The longest time that the service can ask for. 9 min: a run gives an exec 10, and the command
    /// is to be ended and its output told within them.
    pub shell_time_max: Duration,
    /// What a command may do between SIGTERM and SIGKILL. 2 s: to remove what it began; whoever stopped
    /// it waits.
    pub shell_grace: Duration,
    /// Output of a streaming command that is sent as it comes, for each of its two streams; of the
    /// rest the tail is sent at the end. 4 MiB: as much as a run queues for its consumer.
    pub stream_bytes: u64,
    /// Commands at the same time; others wait. 8: a build each would take all cores already.
    pub shells: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_bytes: 256 << 10,
            binary_bytes: 8 << 20,
            scan_bytes: 256 << 20,
            write_bytes: 16 << 20,
            edits: 1_000,
            line_bytes: 2_000,
            entries: 2_000,
            walk_entries: 200_000,
            depth: 64,
            grep_matches: 10_000,
            grep_file_bytes: 64 << 20,
            search_bytes: 16 << 20,
            pattern_bytes: 4 << 10,
            pattern_memory: 8 << 20,
            globs: 256,
            file_time: Duration::from_secs(20),
            file_jobs: 4,
            shell_time: Duration::from_secs(120),
            shell_time_max: Duration::from_secs(540),
            shell_grace: Duration::from_secs(2),
            stream_bytes: 4 << 20,
            shells: 8,
        }
    }
}
