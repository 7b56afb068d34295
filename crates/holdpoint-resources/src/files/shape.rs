//! What a call will leave behind, where its parameters say so.
//!
//! Owns reading parameters by JSON pointers. Must never guess: what a server might do otherwise is
//! not told.

use super::tree::{Grounds, Node, Snapshot};
use serde_json::Value;
use std::path::Path;

/// How often its edits may go through a file of the largest size.
const WORK_TIMES: usize = 64;
/// How much longer a text may be in a file than in the parameters, where it is written as JSON.
const ESCAPED_TIMES: u64 = 6;

/// Where a tool's parameters say what becomes of files, by JSON pointers (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileShape {
    /// The file at `path` gets `content`.
    Write {
        /// Where the path is.
        path: String,
        /// Where the new content is, as text.
        content: String,
    },
    /// In the file at `path`, texts are replaced.
    Edit {
        /// Where the path is.
        path: String,
        /// Where the list of edits is.
        edits: String,
        /// The members of an edit: the text that is there, and the one in its place.
        members: (String, String),
        /// Where it says that nothing is written, if it is true.
        dry_run: Option<String>,
    },
    /// What is at `from` goes to `to`.
    Move {
        /// Where the old path is.
        from: String,
        /// Where the new path is.
        to: String,
    },
    /// A folder is made at `path`, with those above it that are missing.
    Folder {
        /// Where the path is.
        path: String,
    },
    /// The file at `path` gets `content`, and the folders above it that are missing are made.
    Put {
        /// Where the path is.
        path: String,
        /// Where the new content is, as text.
        content: String,
    },
    /// In the file at `path`, each text is replaced that is there once, or wherever it is; a file
    /// that is not there is made of what takes the place of nothing.
    Replace {
        /// Where the path is.
        path: String,
        /// Where the list of edits is; empty where the parameters are the only one.
        edits: String,
        /// The members of an edit: the text that is there, the one in its place, and what is true
        /// if all of them are meant.
        members: [String; 3],
    },
    /// The file at `path` changes, and the parameters do not say to what.
    Unforeseen {
        /// Where the path is.
        path: String,
    },
}

/// What is known before a call.
pub(super) struct Known<'a> {
    pub(super) parameters: &'a Value,
    /// The paths that its effects name.
    pub(super) paths: &'a [String],
    pub(super) before: &'a Snapshot,
    /// Most bytes that a file may get.
    pub(super) bytes_max: u64,
}

/// How much may be made of the texts of a call, which an agent wrote to be looked at.
struct Room {
    text_max: usize,
    left: usize,
    full: Option<String>,
}

// === impl Room ===

impl Room {
    fn of(known: &Known<'_>) -> Self {
        let text_max = usize::try_from(known.bytes_max).unwrap_or(usize::MAX);
        Self { text_max, left: text_max.saturating_mul(WORK_TIMES), full: None }
    }

    /// Room for a text of `bytes`, to be looked through or made; `None` if there is none.
    fn take(&mut self, bytes: usize) -> Option<()> {
        if bytes > self.text_max {
            self.full = Some(format!("{bytes} bytes"));
            return None;
        }
        let Some(left) = self.left.checked_sub(bytes) else {
            self.full = Some(format!("its edits go through a text of {bytes} bytes too often"));
            return None;
        };
        self.left = left;
        Some(())
    }
}

// === impl FileShape ===

impl FileShape {
    /// The shapes of the tools of `@modelcontextprotocol/server-filesystem`.
    pub fn of_server_filesystem() -> Vec<(String, Self)> {
        let path = || "/path".to_owned();
        let edit = Self::Edit {
            path: path(),
            edits: "/edits".to_owned(),
            members: ("oldText".to_owned(), "newText".to_owned()),
            dry_run: Some("/dryRun".to_owned()),
        };
        let moved = Self::Move { from: "/source".to_owned(), to: "/destination".to_owned() };
        [
            ("write_file", Self::Write { path: path(), content: "/content".to_owned() }),
            ("edit_file", edit),
            ("move_file", moved),
            ("create_directory", Self::Folder { path: path() }),
        ]
        .map(|(name, shape)| (name.to_owned(), shape))
        .into()
    }

    /// The shapes of the tools by which Claude Code changes files.
    pub fn of_claude_code() -> Vec<(String, Self)> {
        let path = || "/file_path".to_owned();
        let replace = |edits: &str| {
            let members = ["old_string", "new_string", "replace_all"].map(str::to_owned);
            Self::Replace { path: path(), edits: edits.to_owned(), members }
        };
        [
            ("Write", Self::Put { path: path(), content: "/content".to_owned() }),
            ("Edit", replace("")),
            ("MultiEdit", replace("/edits")),
            ("NotebookEdit", Self::Unforeseen { path: "/notebook_path".to_owned() }),
        ]
        .map(|(name, shape)| (name.to_owned(), shape))
        .into()
    }

    /// The paths that the parameters name and effects may not: folders on the way.
    pub(super) fn missing(&self, known: &Known<'_>, grounds: &Grounds<'_>) -> Vec<String> {
        let (Self::Folder { path } | Self::Put { path, .. } | Self::Replace { path, .. }) = self
        else {
            return Vec::new();
        };
        let Some(path) = known.path(path) else { return Vec::new() };
        let above = Path::new(&path).ancestors().skip(1).filter_map(Path::to_str);
        let above = above.take_while(|path| grounds.covers(path));
        let made = |path: &&str| matches!(self, Self::Folder { .. }) || !grounds.has(path);
        above.filter(made).map(str::to_owned).collect()
    }

    /// What will lie at all that was looked at; `None` if that cannot be told.
    ///
    /// # Errors
    /// When a file would get larger than what is looked at, or telling would take too long; says
    /// which.
    pub(super) fn predict(&self, known: &Known<'_>) -> Result<Option<Snapshot>, String> {
        let mut room = Room::of(known);
        let after = self.foreseen(known, &mut room);
        if let Some(why) = room.full {
            return Err(why);
        }
        let bytes = match &after {
            Some(after) => after.values().filter_map(bytes_of).max(),
            None => self.grows_to(known),
        };
        match bytes.filter(|bytes| *bytes > known.bytes_max) {
            Some(bytes) => Err(format!("a file of up to {bytes} bytes")),
            None => Ok(after),
        }
    }

    /// How large the file may become of which only that is known, at most.
    fn grows_to(&self, known: &Known<'_>) -> Option<u64> {
        let Self::Unforeseen { path } = self else { return None };
        let bytes = known.before.get(&known.path(path)?).and_then(bytes_of).unwrap_or(0);
        let said = u64::try_from(known.parameters.to_string().len()).unwrap_or(u64::MAX);
        Some(bytes.saturating_add(said.saturating_mul(ESCAPED_TIMES)))
    }

    fn foreseen(&self, known: &Known<'_>, room: &mut Room) -> Option<Snapshot> {
        let mut after: Snapshot =
            known.before.iter().map(|(path, node)| (path.clone(), node.clone())).collect();
        match self {
            Self::Write { path, content } => {
                let path = known.path(path)?;
                let content = known.parameters.pointer(content)?.as_str()?;
                fill(&mut after, path, content.as_bytes().to_vec())?;
            }
            Self::Edit { path, edits, members, dry_run } => {
                if known.flag(dry_run.as_deref())? {
                    return Some(after);
                }
                let path = known.path(path)?;
                let Node::File { content: Some(content), .. } = known.before.get(&path)? else {
                    return None;
                };
                let text = std::str::from_utf8(content).ok()?;
                let edits = known.parameters.pointer(edits)?.as_array()?;
                let text = edited(text, (edits, members), room)?;
                fill(&mut after, path, text.into_bytes())?;
            }
            Self::Move { from, to } => moved(&mut after, &known.path(from)?, &known.path(to)?)?,
            Self::Folder { path } => folder(&mut after, known, &known.path(path)?)?,
            Self::Put { path, content } => {
                let path = known.path(path)?;
                let content = known.parameters.pointer(content)?.as_str()?;
                put(&mut after, known, (path, content))?;
            }
            Self::Replace { path, edits, members } => {
                let path = known.path(path)?;
                let edits = known.parameters.pointer(edits)?;
                let edits = edits.as_array().map_or(std::slice::from_ref(edits), Vec::as_slice);
                let text = match known.before.get(&path) {
                    None => String::new(),
                    Some(Node::File { content: Some(content), .. }) => {
                        String::from_utf8(content.clone()).ok().filter(|text| !text.is_empty())?
                    }
                    Some(_) => return None,
                };
                let text = replaced(text, (edits, members), room)?;
                put(&mut after, known, (path, &text))?;
            }
            Self::Unforeseen { .. } => return None,
        }
        Some(after)
    }
}

// === impl Known ===

impl Known<'_> {
    /// The path at a pointer, as the effects name it.
    fn path(&self, pointer: &str) -> Option<String> {
        let text = self.parameters.pointer(pointer)?.as_str()?;
        let named = Path::new(text.trim_start_matches("./"));
        let fits = |path: &&String| match named.is_absolute() {
            true => Path::new(path) == named,
            false => Path::new(path).ends_with(named),
        };
        let mut found = self.paths.iter().filter(fits);
        let path = found.next()?.clone();
        found.next().is_none().then_some(path)
    }

    fn flag(&self, pointer: Option<&str>) -> Option<bool> {
        match pointer.and_then(|pointer| self.parameters.pointer(pointer)) {
            None | Some(Value::Null) => Some(false),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => None,
        }
    }
}

/// A file gets new contents, and keeps its mode if it is there. Through a link nobody writes here.
fn bytes_of(node: &Node) -> Option<u64> {
    match node {
        Node::File { bytes, .. } => Some(*bytes),
        Node::Folder { .. } | Node::Link { .. } => None,
    }
}

fn fill(after: &mut Snapshot, path: String, content: Vec<u8>) -> Option<()> {
    match after.get(&path) {
        None | Some(Node::File { .. }) => {
            after.insert(path, Node::file(content));
            Some(())
        }
        Some(Node::Folder { .. } | Node::Link { .. }) => None,
    }
}

/// The text after the edits, each of which replaces the first place where its text is. `None`
/// where servers differ: other line ends, a text that is only nearly there, signs that some take
/// for more.
fn edited(
    text: &str,
    (edits, (old, new)): (&[Value], &(String, String)),
    room: &mut Room,
) -> Option<String> {
    let mut text = text.to_owned();
    for edit in edits {
        let (old, new) = (edit.get(old)?.as_str()?, edit.get(new)?.as_str()?);
        room.take(text.len().saturating_add(new.len()))?;
        let odd = text.contains('\r') || old.contains('\r') || new.contains(['\r', '$']);
        if odd || old.is_empty() || !text.contains(old) {
            return None;
        }
        text = text.replacen(old, new, 1);
    }
    Some(text)
}

/// The same with the folders on the way. `None` where what is there has a mark of its encoding,
/// which stays.
fn put(after: &mut Snapshot, known: &Known<'_>, (path, content): (String, &str)) -> Option<()> {
    const MARK: char = '\u{feff}';
    if let Some(Node::File { content: Some(old), .. }) = after.get(&path) {
        let marked = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"];
        if marked.into_iter().any(|mark| old.starts_with(mark)) {
            return None;
        }
    }
    if content.starts_with(MARK) {
        return None;
    }
    let above = Path::new(&path).parent()?.to_str()?;
    folder(after, known, above)?;
    fill(after, path, content.as_bytes().to_vec())
}

/// The text after the edits. `None` where the host refuses, or does more than it was told: other
/// line ends, a text that is only nearly there, a line that goes with its text.
fn replaced(
    text: String,
    (edits, members): (&[Value], &[String; 3]),
    room: &mut Room,
) -> Option<String> {
    let [old, new, all] = members;
    let mut text = text;
    for edit in edits {
        let (old, new) = (edit.get(old)?.as_str()?, edit.get(new)?.as_str()?);
        room.take(text.len())?;
        let all = match edit.get(all) {
            None | Some(Value::Null) => false,
            Some(flag) => flag.as_bool()?,
        };
        if [&text, old, new].into_iter().any(|text| text.contains('\r')) {
            return None;
        }
        if old.is_empty() {
            if !text.is_empty() {
                return None;
            }
            text = new.to_owned();
            continue;
        }
        let takes_line = new.is_empty() && !old.ends_with('\n');
        let odd = takes_line && text.contains(&format!("{old}\n"));
        let places = text.matches(old).count();
        match places {
            1 if !odd => {}
            2.. if all && !odd => {}
            _ => return None,
        }
        // What it would become is counted before it is made.
        let rest = text.len().saturating_sub(places.saturating_mul(old.len()));
        room.take(rest.saturating_add(places.saturating_mul(new.len())))?;
        text = text.replace(old, new);
    }
    Some(text)
}

fn moved(after: &mut Snapshot, from: &str, to: &str) -> Option<()> {
    let clear = match (after.get(from)?, after.get(to)) {
        (_, None) => true,
        (Node::File { .. }, Some(Node::File { .. })) => true,
        (_, Some(_)) => false,
    };
    let inside = Path::new(to).starts_with(from);
    if !clear || inside {
        return None;
    }
    let moving: Vec<String> =
        after.keys().filter(|path| Path::new(path).starts_with(from)).cloned().collect();
    for path in moving {
        let node = after.remove(&path)?;
        let rest = path.strip_prefix(from)?;
        after.insert(format!("{to}{rest}"), node);
    }
    Some(())
}

fn folder(after: &mut Snapshot, known: &Known<'_>, path: &str) -> Option<()> {
    let above = Path::new(path).ancestors().filter_map(Path::to_str);
    let watched = above.filter(|above| known.paths.iter().any(|known| known == above));
    for path in watched {
        match after.get(path) {
            Some(Node::Folder { .. }) => {}
            Some(Node::File { .. } | Node::Link { .. }) => return None,
            None => {
                after.insert(path.to_owned(), Node::Folder { mode: None });
            }
        }
    }
    Some(())
}
