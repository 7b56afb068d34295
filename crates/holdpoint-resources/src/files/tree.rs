//! Looking at files, folders and links below the roots.
//!
//! Owns the way from a path to what lies there. Must never follow a link, and never leave a root.

use crate::resource::ResourceFault;
use holdpoint_types::Digest;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// How deep folders may lie in folders.
const DEPTH: usize = 200;
/// How a folder is opened.
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How a file is opened; something that is none does not keep us waiting.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What lies at a path. A mode that is not known fits any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Node {
    File {
        digest: Digest,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mode: Option<u32>,
        /// Its contents, where they are kept.
        #[serde(with = "contents", skip_serializing_if = "Option::is_none", default)]
        content: Option<Vec<u8>>,
    },
    Folder {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mode: Option<u32>,
    },
    Link {
        target: String,
    },
}

/// What lies at and below some paths. What is not there is not in it.
pub(super) type Snapshot = BTreeMap<String, Node>;

/// One path that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) path: String,
    /// True if all that is below it counts too.
    pub(super) deep: bool,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesLimits {
    /// Most files, folders and links that one call may touch.
    pub files_max: usize,
    /// Most bytes of one file.
    pub file_bytes_max: u64,
    /// Most bytes of all files that one call touches.
    pub bytes_max: u64,
}

/// The roots, open.
pub(super) struct Grounds<'a> {
    roots: &'a [PathBuf],
    limits: FilesLimits,
}

/// A place in an open folder.
pub(super) struct Spot {
    pub(super) folder: OwnedFd,
    pub(super) name: String,
}

/// What one look has taken in.
#[derive(Default)]
struct Taken {
    snapshot: Snapshot,
    count: usize,
    bytes: u64,
    too_large: Option<u64>,
    notes: Vec<String>,
}

// === impl Node ===

impl Node {
    /// A file with these contents, whose mode is not known.
    pub(super) fn file(content: Vec<u8>) -> Self {
        let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        Self::File { digest: Digest::of(&content), bytes, mode: None, content: Some(content) }
    }

    /// The same without its contents, which only whoever restores needs.
    pub(super) fn lean(&self) -> Self {
        match self {
            Self::File { digest, bytes, mode, .. } => {
                Self::File { digest: *digest, bytes: *bytes, mode: *mode, content: None }
            }
            other => other.clone(),
        }
    }
}

/// True if two sides are the same, as far as both are known.
pub(super) fn same(one: Option<&Node>, other: Option<&Node>) -> bool {
    let modes =
        |one: &Option<u32>, other: &Option<u32>| one.is_none() || other.is_none() || one == other;
    match (one, other) {
        (None, None) => true,
        (
            Some(Node::File { digest: left, mode, .. }),
            Some(Node::File { digest: right, mode: other, .. }),
        ) => left == right && modes(mode, other),
        (Some(Node::Folder { mode }), Some(Node::Folder { mode: other })) => modes(mode, other),
        (Some(Node::Link { target }), Some(Node::Link { target: other })) => target == other,
        _ => false,
    }
}

/// True if two looks saw the same.
pub(super) fn all_same(one: &Snapshot, other: &Snapshot) -> bool {
    one.len() == other.len() && one.iter().all(|(path, node)| same(Some(node), other.get(path)))
}

// === impl FilesLimits ===

impl Default for FilesLimits {
    fn default() -> Self {
        Self { files_max: 10_000, file_bytes_max: 8 << 20, bytes_max: 32 << 20 }
    }
}

// === impl Grounds ===

impl<'a> Grounds<'a> {
    pub(super) fn new(roots: &'a [PathBuf], limits: FilesLimits) -> Self {
        Self { roots, limits }
    }

    /// True if `path` lies below a root.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.split(path).is_some()
    }

    /// True if something is seen to lie at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        let Ok(Some(spot)) = self.spot(path) else { return false };
        statat(&spot.folder, &*spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// What lies at and below what is watched, with what the eye misses.
    pub(super) fn look(&self, watched: &[Watch]) -> Result<(Snapshot, Vec<String>), ResourceFault> {
        let mut taken = Taken::default();
        for watch in watched {
            if let Some(spot) = self.spot(&watch.path)? {
                self.take(&spot.folder, &spot.name, watch, &mut taken)?;
            }
        }
        if taken.count > self.limits.files_max {
            return Err(ResourceFault::TooLarge(format!("{} files", taken.count)));
        }
        let total = taken.bytes > self.limits.bytes_max;
        match taken.too_large.or(total.then_some(taken.bytes)) {
            Some(bytes) => Err(ResourceFault::TooLarge(format!("{bytes} bytes"))),
            None => Ok((taken.snapshot, taken.notes)),
        }
    }

    /// The folder in which `path` lies and its name there; `None` if there is no such folder.
    pub(super) fn spot(&self, path: &str) -> Result<Option<Spot>, ResourceFault> {
        let outside = || ResourceFault::Refused(format!("`{path}` is not below a root"));
        let (root, below) = self.split(path).ok_or_else(outside)?;
        let mut names: Vec<&str> = below;
        let name = names.pop().ok_or_else(outside)?.to_owned();
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let mut folder = match openat(CWD, root, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(fault) => return Err(rootless(root, fault)),
        };
        for part in names {
            folder = match openat(&folder, part, FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(fault @ (Errno::LOOP | Errno::NOTDIR)) => {
                    return no_folder(&folder, part, (path, fault));
                }
                Err(fault) => return Err(unreadable(path, fault)),
            };
        }
        Ok(Some(Spot { folder, name }))
    }

    /// True if something lies in the folder at `path` that is not `expected`, by its path.
    pub(super) fn stranger(&self, path: &str, expected: impl Fn(&str) -> bool) -> bool {
        let Ok(Some(spot)) = self.spot(path) else { return false };
        let inner = openat(&spot.folder, &*spot.name, FOLDER, Mode::empty());
        let Ok(entries) = inner.and_then(Dir::read_from) else { return false };
        let names = entries.filter_map(Result::ok);
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .any(|name| name != "." && name != ".." && !expected(&format!("{path}/{name}")))
    }

    /// The root below which `path` lies, and the names from there.
    fn split<'p>(&self, path: &'p str) -> Option<(&'a Path, Vec<&'p str>)> {
        let plain =
            Path::new(path).components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        if !plain || !path.starts_with('/') {
            return None;
        }
        let inside = |root: &&PathBuf| Path::new(path).starts_with(root);
        let root = self.roots.iter().filter(inside).max_by_key(|root| root.as_os_str().len())?;
        let below = Path::new(path).strip_prefix(root).ok()?;
        let below: Option<Vec<&str>> =
            below.components().map(|part| part.as_os_str().to_str()).collect();
        Some((root.as_path(), below.filter(|below| !below.is_empty())?))
    }

    fn take(
        &self,
        folder: &OwnedFd,
        name: &str,
        watch: &Watch,
        taken: &mut Taken,
    ) -> Result<(), ResourceFault> {
        let path = &watch.path;
        check_depth(path)?;
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(fault) => return Err(unreadable(path, fault)),
        };
        taken.count = taken.count.saturating_add(1);
        let full = taken.count > self.limits.files_max || taken.too_large.is_some();
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if watch.deep {
                    self.enter(folder, name, path, taken)?;
                }
                Node::Folder { mode: Some(permissions(&stat)) }
            }
            FileType::Symlink => link(folder, name, path)?,
            FileType::RegularFile if full => return Ok(()),
            FileType::RegularFile => match self.read(folder, name, path, taken)? {
                Some(node) => node,
                None => return Ok(()),
            },
            _ => {
                let text = format!("`{path}` is neither a file nor a folder nor a link");
                return Err(ResourceFault::Refused(text));
            }
        };
        taken.snapshot.insert(path.clone(), node);
        Ok(())
    }

    fn enter(
        &self,
        folder: &OwnedFd,
        name: &str,
        path: &str,
        taken: &mut Taken,
    ) -> Result<(), ResourceFault> {
        let fault = |fault| unreadable(path, fault);
        let inner = openat(folder, name, FOLDER, Mode::empty()).map_err(fault)?;
        let entries = Dir::read_from(&inner).map_err(fault)?;
        for entry in entries {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_str();
            let name = name
                .map_err(|_| ResourceFault::Refused(format!("a name in `{path}` is not UTF-8")))?;
            if name != "." && name != ".." {
                let watch = Watch { path: format!("{path}/{name}"), deep: true };
                self.take(&inner, name, &watch, taken)?;
            }
        }
        Ok(())
    }

    /// The file with its contents; `None` if that is too much.
    fn read(
        &self,
        folder: &OwnedFd,
        name: &str,
        path: &str,
        taken: &mut Taken,
    ) -> Result<Option<Node>, ResourceFault> {
        let fault = |fault| unreadable(path, fault);
        let file = openat(folder, name, FILE, Mode::empty()).map_err(fault)?;
        let stat = fstat(&file).map_err(fault)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ResourceFault::Unavailable(format!("`{path}` changes while it is read")));
        }
        if stat.st_mode & BORROWED != 0 {
            let text = format!(
                "`{path}` runs with the rights of its owner or group (setuid, setgid): whoever \
                 puts it back would lend it their own; change it by hand"
            );
            return Err(ResourceFault::Refused(text));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > self.limits.file_bytes_max {
            taken.too_large = Some(size);
            return Ok(None);
        }
        taken.bytes = taken.bytes.saturating_add(size);
        if taken.bytes > self.limits.bytes_max {
            return Ok(None);
        }
        let mut content = Vec::new();
        let mut file = File::from(file).take(self.limits.file_bytes_max.saturating_add(1));
        let read = file.read_to_end(&mut content);
        read.map_err(|fault| ResourceFault::Unavailable(format!("`{path}`: {fault}")))?;
        if u64::try_from(content.len()).ok() != Some(size) {
            return Err(ResourceFault::Unavailable(format!("`{path}` changes while it is read")));
        }
        if stat.st_nlink > 1 {
            taken.notes.push(format!("`{path}` has other names, which are not looked at"));
        }
        let node = Node::file(content);
        Ok(Some(match node {
            Node::File { digest, bytes, content, .. } => {
                Node::File { digest, bytes, mode: Some(permissions(&stat)), content }
            }
            other => other,
        }))
    }
}

/// What lies in an open folder, without what is below it and without contents.
pub(super) fn glance(folder: impl AsFd, name: &str) -> Result<Option<Node>, Errno> {
    let stat = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Some(Node::Folder { mode: Some(permissions(&stat)) }),
        FileType::Symlink => {
            let target = readlinkat(&folder, name, Vec::new())?;
            Some(Node::Link { target: target.to_string_lossy().into_owned() })
        }
        FileType::RegularFile => {
            let file = openat(&folder, name, FILE, Mode::empty())?;
            let mut content = Vec::new();
            let read = File::from(file).read_to_end(&mut content);
            read.map_err(|fault| Errno::from_io_error(&fault).unwrap_or(Errno::IO))?;
            let (digest, bytes) = (Digest::of(&content), content.len());
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            Some(Node::File { digest, bytes, mode: Some(permissions(&stat)), content: None })
        }
        _ => return Err(Errno::INVAL),
    })
}

fn link(folder: &OwnedFd, name: &str, path: &str) -> Result<Node, ResourceFault> {
    let target = readlinkat(folder, name, Vec::new()).map_err(|fault| unreadable(path, fault))?;
    let target = target.into_string();
    let odd = |_| ResourceFault::Refused(format!("where `{path}` leads is not UTF-8"));
    Ok(Node::Link { target: target.map_err(odd)? })
}

/// Something else than a folder lies on the way: a link is not followed, below a file is nothing.
fn no_folder(
    folder: &OwnedFd,
    part: &str,
    (path, fault): (&str, Errno),
) -> Result<Option<Spot>, ResourceFault> {
    let stat = statat(folder, part, AtFlags::SYMLINK_NOFOLLOW);
    match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Symlink) => {
            let text = format!("`{path}` leads through the link `{part}`; name the file itself");
            Err(ResourceFault::Refused(text))
        }
        Ok(FileType::Directory) | Err(_) => Err(unreadable(path, fault)),
        Ok(_) => Ok(None),
    }
}

/// Agents cannot help it, so it says who can.
fn rootless(root: &Path, fault: Errno) -> ResourceFault {
    ResourceFault::Unavailable(format!(
        "the folder `{}`, which the configuration names, cannot be opened ({fault}): an operator \
         has to make it, or to change `undo` or `serves`",
        root.display()
    ))
}

fn unreadable(path: &str, fault: Errno) -> ResourceFault {
    ResourceFault::Unavailable(format!("`{path}`: {fault}"))
}

/// Whoever walks trees goes no deeper.
pub(super) fn check_depth(path: &str) -> Result<(), ResourceFault> {
    if path.bytes().filter(|byte| *byte == b'/').count() <= DEPTH {
        return Ok(());
    }
    let begin: String = path.chars().take(80).collect();
    Err(ResourceFault::Refused(format!("`{begin}…` lies deeper than {DEPTH} folders")))
}

/// The bits of a mode that lend the rights of a file's owner or group to whoever runs it.
pub(super) const BORROWED: u32 = 0o6000;

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Contents as text.
mod contents {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        content: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match content {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let decode = |text: String| STANDARD.decode(text).map_err(serde::de::Error::custom);
        text.map(decode).transpose()
    }
}
