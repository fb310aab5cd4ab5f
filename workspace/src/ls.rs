//! A folder as a tree: the top first, as much as fits, and counts of the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::Path;

use agentwire::proto::{LsDirectoryTreeNode, LsDirectoryTreeNodeFile};

use crate::fault::Fault;
use crate::root::{Kind, Root};
use crate::walk::{Budget, Entry, Rules, list};

/// Different endings that are counted for one folder; the others are one sum. No option: the answer
/// has a limit of its own.
const ENDINGS: usize = 64;
const OTHER_ENDINGS: &str = "(other)";

/// A folder that is part of the answer.
#[derive(Debug, Default)]
struct Node {
    names: Vec<OsString>,
    up: Option<usize>,
    files: Vec<String>,
    folders: Vec<usize>,
    /// All its entries are in the answer.
    whole: bool,
    endings: BTreeMap<String, i32>,
    count: i32,
}

/// A folder that is still to be looked into.
struct Ahead {
    names: Vec<OsString>,
    rules: Rules,
    /// The node it is, or the nearest one above that is part of the answer.
    node: usize,
    /// Part of the answer, not only counted.
    shown: bool,
}

/// Lists the folder at `names`, with at most `room` entries in the answer, whose names and paths
/// take about `bytes`: the entries of the folder that passes it are still given.
///
/// Breadth first, so that a large folder does not hide its neighbours. `num_files` and the counts
/// of endings are of the whole subtree, also where its entries do not fit; they are lower bounds
/// when the budget runs out.
pub(crate) fn tree(
    root: &Root,
    names: &[OsString],
    globs: &[String],
    (room, bytes): (usize, usize),
    budget: &mut Budget<'_>,
) -> Result<LsDirectoryTreeNode, Fault> {
    let above = match names.split_last() {
        Some((_, above)) => Rules::of(root, above)?,
        None => Rules::default(),
    };
    let mut tree = Tree { nodes: Vec::new(), ahead: VecDeque::new(), room, bytes };
    tree.nodes.push(Node { names: names.to_vec(), ..Node::default() });
    let top = Ahead { names: names.to_vec(), rules: above, node: 0, shown: true };
    tree.folder(root, top, globs, budget)?;
    while let Some(next) = tree.ahead.pop_front() {
        if budget.spent() {
            break;
        }
        // A folder that cannot be opened stays in the answer as not processed.
        let _ = tree.folder(root, next, &[], budget);
    }
    Ok(tree.finish(root))
}

struct Tree {
    nodes: Vec<Node>,
    ahead: VecDeque<Ahead>,
    /// Entries that still fit into the answer, and bytes of their names and paths.
    room: usize,
    bytes: usize,
}

impl Tree {
    #[allow(clippy::needless_pass_by_value, reason = "what lies ahead is used up")]
    fn folder(
        &mut self,
        root: &Root,
        at: Ahead,
        globs: &[String],
        budget: &mut Budget<'_>,
    ) -> Result<(), Fault> {
        if at.names.len() >= budget.depth {
            return Ok(());
        }
        let dir = root.open_folder(&at.names)?;
        // The caller's globs are stronger than all files of rules above; those below it win, as
        // with git.
        let rules = at.rules.enter(&dir, &at.names).with_globs(globs)?;
        let keep = if at.shown && self.bytes > 0 { self.room } else { 0 };
        let mut folders = BTreeSet::new();
        let node = &mut self.nodes[at.node];
        let listing = list(&dir, &at.names, &rules, keep, budget, |entry| match entry.kind() {
            Kind::Folder => {
                folders.insert(entry.name.clone());
            }
            _ => node.add(ending(&entry.name), 1),
        })?;
        self.room -= listing.entries.len();
        if at.shown {
            self.nodes[at.node].whole = listing.complete;
        }
        for entry in listing.entries {
            folders.remove(&entry.name);
            self.entry(entry, &at, &rules);
        }
        // Those that do not fit are counted.
        for name in folders {
            let names = [&at.names[..], &[name]].concat();
            self.ahead.push_back(Ahead {
                names,
                rules: rules.clone(),
                node: at.node,
                shown: false,
            });
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, at: &Ahead, rules: &Rules) {
        if entry.kind() != Kind::Folder {
            let name = entry.name.to_string_lossy().into_owned();
            self.bytes = self.bytes.saturating_sub(name.len());
            return self.nodes[at.node].files.push(name);
        }
        let names = [&at.names[..], &[entry.name]].concat();
        self.bytes = self.bytes.saturating_sub(names.iter().map(|name| name.len() + 1).sum());
        let node = self.nodes.len();
        self.nodes[at.node].folders.push(node);
        self.nodes.push(Node { names: names.clone(), up: Some(at.node), ..Node::default() });
        self.ahead.push_back(Ahead { names, rules: rules.clone(), node, shown: true });
    }

    /// Adds up from the leaves and puts the tree together.
    fn finish(mut self, root: &Root) -> LsDirectoryTreeNode {
        // A node comes after the one above it, so backwards each is complete when it is taken.
        let mut done: BTreeMap<usize, LsDirectoryTreeNode> = BTreeMap::new();
        while let Some(node) = self.nodes.pop() {
            if let Some(up) = node.up.and_then(|up| self.nodes.get_mut(up)) {
                for (ending, count) in &node.endings {
                    up.add(ending.clone(), *count);
                }
            }
            let children = node.folders.iter().filter_map(|child| done.remove(child)).collect();
            done.insert(self.nodes.len(), node.finish(root, children));
        }
        done.remove(&0).unwrap_or_default()
    }
}

impl Node {
    fn add(&mut self, ending: String, count: i32) {
        self.count = self.count.saturating_add(count);
        let known = self.endings.len() < ENDINGS || self.endings.contains_key(&ending);
        let ending = if known { ending } else { OTHER_ENDINGS.to_owned() };
        let sum = self.endings.entry(ending).or_default();
        *sum = sum.saturating_add(count);
    }

    fn finish(self, root: &Root, children: Vec<LsDirectoryTreeNode>) -> LsDirectoryTreeNode {
        LsDirectoryTreeNode {
            abs_path: root.show(&self.names),
            children_dirs: children,
            children_files: self
                .files
                .into_iter()
                .map(|name| LsDirectoryTreeNodeFile { name, terminal_metadata: None })
                .collect(),
            children_were_processed: self.whole,
            full_subtree_extension_counts: self.endings,
            num_files: self.count,
        }
    }
}

/// `.rs` for `main.rs`; empty for a name without an ending.
fn ending(name: &OsString) -> String {
    let ending = Path::new(name).extension();
    ending.map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy()))
}
