//! What every vector suite shares: where the files are, how cases run, and the proof that a case
//! whose expectation is changed by one byte fails.

use std::path::PathBuf;

use serde_json::Value;

/// The cases of one file (or of one part of it) and how one is checked.
pub struct Suite {
    /// File name under the folder of the vectors.
    pub file: &'static str,
    /// JSON pointer to the array of cases; empty: the file is the array, or is one case.
    pub cases: &'static str,
    /// Members of a case that say what is expected; `*` stands for each item of an array. Each leaf
    /// under them is changed in turn.
    pub expected: &'static [&'static str],
    /// Compares ours with what one case expects; the error says what differs.
    pub check: fn(&Value) -> Result<(), String>,
}

impl Suite {
    /// Runs every case and then shows that the check notices a change of one byte.
    pub fn run(&self) {
        let cases = self.load();
        assert!(!cases.is_empty(), "{}{}: no cases", self.file, self.cases);
        let failures: Vec<String> = cases
            .iter()
            .filter_map(|(name, case)| {
                (self.check)(case).err().map(|error| format!("{name}: {error}"))
            })
            .collect();
        assert!(
            failures.is_empty(),
            "{}{}: {} of {} cases fail\n{}",
            self.file,
            self.cases,
            failures.len(),
            cases.len(),
            failures.join("\n")
        );
        self.changes_are_noticed(&cases);
    }

    /// Changes every leaf of every expectation by one byte, at three places each.
    fn changes_are_noticed(&self, cases: &[(String, Value)]) {
        let mut changed = 0;
        for (name, case) in cases {
            for pointer in self.expected.iter().flat_map(|member| leaves(case, member)) {
                for place in 0..3 {
                    let mut other = case.clone();
                    if !change(other.pointer_mut(&pointer).unwrap(), place) {
                        continue;
                    }
                    changed += 1;
                    assert!(
                        (self.check)(&other).is_err(),
                        "{} {name}: {pointer} changed at place {place} and nobody noticed: {}",
                        self.file,
                        other.pointer(&pointer).unwrap()
                    );
                }
            }
        }
        assert!(changed > 0, "{}{}: no expectation was ever changed", self.file, self.cases);
    }

    fn load(&self) -> Vec<(String, Value)> {
        let file = read(self.file);
        let cases = file.pointer(self.cases).cloned().unwrap_or(Value::Null);
        match cases {
            Value::Array(cases) => cases
                .into_iter()
                .enumerate()
                .map(|(i, case)| {
                    let name = case["name"].as_str().map_or_else(String::new, ToOwned::to_owned);
                    (format!("#{i} {name}"), case)
                })
                .collect(),
            Value::Null => Vec::new(),
            case => vec![("the only case".into(), case)],
        }
    }
}

/// A vector file: from the folder that `AGENTWIRE_VECTORS` names, else from our copy.
pub fn read(file: &str) -> Value {
    let folder = std::env::var_os("AGENTWIRE_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors")),
        PathBuf::from,
    );
    let path = folder.join(file);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// JSON pointers of all leaves at and under a member; empty arrays and objects are leaves too.
fn leaves(case: &Value, member: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = match member.split_once("/*/") {
        None => vec![format!("/{member}")],
        Some((array, rest)) => {
            let items = case[array].as_array().map_or(0, Vec::len);
            (0..items).map(|i| format!("/{array}/{i}/{rest}")).collect()
        }
    };
    while let Some(pointer) = open.pop() {
        let step = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        match case.pointer(&pointer) {
            None => {}
            Some(Value::Array(items)) if !items.is_empty() => {
                open.extend((0..items.len()).map(|i| step(&i.to_string())));
            }
            Some(Value::Object(map)) if !map.is_empty() => {
                open.extend(map.keys().map(|key| step(key)));
            }
            Some(_) => found.push(pointer),
        }
    }
    found
}

/// Changes a leaf a little, differently for each place; false when there is no other way left.
fn change(leaf: &mut Value, place: usize) -> bool {
    match leaf {
        Value::String(text) if text.is_empty() => *text = "0".into(),
        Value::String(text) => {
            let mut characters: Vec<char> = text.chars().collect();
            let last = characters.len() - 1;
            let at = [0, last / 2, last][place];
            characters[at] = if characters[at] == '1' { '2' } else { '1' };
            *text = characters.into_iter().collect();
        }
        _ if place > 0 => return false,
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => *leaf = (number.as_f64().unwrap() + 1.0).into(),
        Value::Null => *leaf = "1".into(),
        Value::Array(items) => items.push(Value::Null),
        Value::Object(map) => drop(map.insert("1".into(), Value::Null)),
    }
    true
}

/// `Ok` when both are the same, else both, cut to what a person can read.
pub fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &T,
    expected: &T,
) -> Result<(), String> {
    if ours == expected {
        return Ok(());
    }
    let cut = |value: &T| format!("{value:?}").chars().take(2000).collect::<String>();
    Err(format!("{what}\n  ours     {}\n  expected {}", cut(ours), cut(expected)))
}

/// The text of a member.
pub fn text<'a>(case: &'a Value, member: &str) -> Result<&'a str, String> {
    case[member].as_str().ok_or_else(|| format!("the case has no text {member}"))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of lower-case hex.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    let digit = |b: u8| (b as char).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    digits
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => digit(*a).zip(digit(*b)).map(|(a, b)| (a << 4 | b) as u8),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("not hex: {}", text.chars().take(40).collect::<String>()))
}
