//! Where credentials lie: one sealed file each, for its owner only, and the key that seals them.
//!
//! Owns the file format. Must never write a credential in plain text, and never give back one that
//! was changed, cut short, or put in the place of another.

use super::Holder;
use crate::upstream::SecretText;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdpoint_types::ServerName;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// The first line of every file: format and version.
const MAGIC: &str = "holdpoint-credential-1";
/// How the names of sealed files end.
const ENDING: &str = ".sealed";
/// What stands for everybody in a file's name; no agent is called so.
const EVERYBODY: &str = "@";
/// Largest sealed file, in bytes.
const SEALED_BYTES_MAX: u64 = 256 << 10;
/// Largest key file, in bytes.
const KEY_BYTES_MAX: u64 = 256;
/// The mode bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// The folder of the credentials. Cheap to clone; reads its files anew each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    dir: PathBuf,
    key: KeySource,
}

/// What a credential is bound to. Readable without the key, and cannot be changed without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Whose it is.
    pub holder: Holder,
    /// The authorization server that it came from.
    pub issuer: String,
    /// The upstream server that it is for.
    pub server: ServerName,
    /// That server's endpoint.
    pub url: String,
}

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

/// A credential, opened.
pub(super) struct Opened {
    pub(super) label: Label,
    pub(super) plain: Zeroizing<Vec<u8>>,
    pub(super) stamp: Stamp,
}

/// Why a credential cannot be read or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultFault {
    /// The system refused.
    #[error("`{path}`: {detail}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// It is not what was kept there.
    #[error("`{path}` is not the credential that was kept there: {detail}")]
    Altered {
        /// Which file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The key cannot be used.
    #[error("the key of the credentials cannot be used: {0}")]
    Key(String),
}

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeySource {
    /// In a file beside the log's key, made when it is first needed.
    File(PathBuf),
    /// With the operator.
    Given(SecretText),
}

// === impl Vault ===

impl Vault {
    /// The vault of the store in `store`. Its key is `given`, 64 hex digits, or lies in the store.
    pub fn new(store: &Path, given: Option<SecretText>) -> Self {
        let beside = || KeySource::File(store.join("credentials.key"));
        Self { dir: store.join("credentials"), key: given.map_or_else(beside, KeySource::Given) }
    }

    /// All credentials that are kept, by server and holder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<(ServerName, Holder)>, VaultFault> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file_fault(&self.dir, &error)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter_map(|name| place_of(&name)).collect();
        found.sort();
        Ok(found)
    }

    /// Deletes a credential. False if there was none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, server: &ServerName, holder: &Holder) -> Result<bool, VaultFault> {
        let path = self.path(server, holder);
        match std::fs::remove_file(&path) {
            Ok(()) => sync(&self.dir).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_fault(&path, &error)),
        }
    }

    /// The stamp of the file, if there is one.
    pub(super) fn stamp(&self, server: &ServerName, holder: &Holder) -> Option<Stamp> {
        let metadata = std::fs::symlink_metadata(self.path(server, holder)).ok()?;
        Some(Stamp::of(&metadata))
    }

    /// Opens the credential of `holder` for `server`, if there is one.
    pub(super) fn read(
        &self,
        server: &ServerName,
        holder: &Holder,
    ) -> Result<Option<Opened>, VaultFault> {
        let path = self.path(server, holder);
        let Some((text, stamp)) = read_limited(&path, SEALED_BYTES_MAX)? else { return Ok(None) };
        let altered = |detail: &str| altered(&path, detail);
        let text = std::str::from_utf8(&text).map_err(|_| altered("it is no text"))?;
        let (head, sealed) = split(text).ok_or_else(|| altered("it is cut short"))?;
        let label: Label = head
            .lines()
            .nth(1)
            .and_then(|label| serde_json::from_str(label).ok())
            .ok_or_else(|| altered("its label cannot be read"))?;
        if label.server != *server || label.holder != *holder {
            return Err(altered("it belongs to another agent or server"));
        }
        let sealed = STANDARD.decode(sealed).map_err(|_| altered("it is cut short"))?;
        let key = self.key(&path)?;
        let plain = open(&key, head.as_bytes(), sealed);
        let plain = plain.ok_or_else(|| altered("it was changed, or sealed with another key"))?;
        Ok(Some(Opened { label, plain, stamp }))
    }

    /// Seals `plain` in the place that `label` names; whoever reads it meanwhile gets what was
    /// before, or this.
    pub(super) fn write(&self, label: &Label, plain: &[u8]) -> Result<(), VaultFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| file_fault(&self.dir, &error))?;
        let path = self.path(&label.server, &label.holder);
        let label =
            serde_json::to_string(label).map_err(|error| altered(&path, &error.to_string()));
        let head = format!("{MAGIC}\n{}\n", label?);
        self.make_key()?;
        let key = self.key(&path)?;
        let sealed = seal(&key, head.as_bytes(), plain)?;
        let text = format!("{head}{}\n", STANDARD.encode(sealed));
        let draft = draft(&path);
        let written = write_new(&draft, text.as_bytes());
        let written = written.and_then(|()| std::fs::rename(&draft, &path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&draft);
            return Err(file_fault(&path, &error));
        }
        sync(&self.dir)
    }

    /// Seals `plain` under the vault's key, which is made if there is none. `head` is not hidden,
    /// and cannot be changed without the key.
    pub(crate) fn seal(&self, head: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultFault> {
        self.make_key()?;
        seal(&self.key(&self.dir)?, head, plain)
    }

    /// Opens what [`Self::seal`] gave; nothing if it, or its head, was changed.
    pub(crate) fn open(
        &self,
        head: &[u8],
        sealed: Vec<u8>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, VaultFault> {
        Ok(open(&self.key(&self.dir)?, head, sealed))
    }

    /// Waits until no other process changes this credential. Blocks; let go by dropping it.
    pub(super) fn lock(&self, server: &ServerName, holder: &Holder) -> Result<File, VaultFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| file_fault(&self.dir, &error))?;
        let path = self.path(server, holder).with_extension("lock");
        let mut how = OpenOptions::new();
        how.create(true).truncate(false).write(true).mode(0o600);
        how.custom_flags(no_follow());
        let file = how.open(&path).map_err(|error| file_fault(&path, &error))?;
        let locked = flock(&file, FlockOperation::LockExclusive);
        locked.map_err(|error| file_fault(&path, &error.into()))?;
        Ok(file)
    }

    fn path(&self, server: &ServerName, holder: &Holder) -> PathBuf {
        let holder = match holder {
            Holder::Agent(agent) => agent.as_str(),
            Holder::Everybody => EVERYBODY,
        };
        self.dir.join(format!("{server}@{holder}{ENDING}"))
    }

    /// Makes the key if it lies in the store and nothing was sealed with one before.
    fn make_key(&self) -> Result<(), VaultFault> {
        let KeySource::File(path) = &self.key else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        if !self.list()?.is_empty() {
            return Err(VaultFault::Key(format!(
                "`{}` is gone, and credentials are sealed with it; bring it back, or delete `{}`",
                path.display(),
                self.dir.display(),
            )));
        }
        let mut secret = Zeroizing::new([0; 32]);
        fill(secret.as_mut_slice())?;
        let digits = secret.iter().map(|byte| format!("{byte:02x}"));
        let text = Zeroizing::new(digits.collect::<String>() + "\n");
        let draft = draft(path);
        // Another process may be quicker; then its key stays.
        let linked = write_new(&draft, text.as_bytes())
            .and_then(|()| std::fs::hard_link(&draft, path))
            .or_else(|error| if path.exists() { Ok(()) } else { Err(error) });
        let _ = std::fs::remove_file(&draft);
        linked.map_err(|error| file_fault(path, &error))
    }

    fn key(&self, sealed: &Path) -> Result<LessSafeKey, VaultFault> {
        let unusable =
            |path: &Path, what: &str| VaultFault::Key(format!("`{}` {what}", path.display()));
        match &self.key {
            KeySource::Given(text) => parse_key(text.expose()).ok_or_else(|| {
                VaultFault::Key("what `store.credential_key` names is not 64 hex digits".to_owned())
            }),
            KeySource::File(path) => {
                let Some((text, _)) = read_limited(path, KEY_BYTES_MAX)? else {
                    let sealed = sealed.display();
                    return Err(unusable(path, &format!("is gone; `{sealed}` was sealed with it")));
                };
                let text = Zeroizing::new(text);
                let metadata = std::fs::symlink_metadata(path);
                let metadata = metadata.map_err(|error| file_fault(path, &error))?;
                if metadata.mode() & OTHERS != 0 {
                    return Err(unusable(path, "may be read by others; set its mode to 0600"));
                }
                let key = std::str::from_utf8(&text).ok().and_then(parse_key);
                key.ok_or_else(|| unusable(path, "does not hold 64 hex digits"))
            }
        }
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), changed, bytes: metadata.len() }
    }
}

/// The server and holder that a file's name names.
fn place_of(name: &str) -> Option<(ServerName, Holder)> {
    let (server, holder) = name.strip_suffix(ENDING)?.split_once('@')?;
    let holder = match holder {
        EVERYBODY => Holder::Everybody,
        agent => Holder::Agent(agent.parse().ok()?),
    };
    Some((server.parse().ok()?, holder))
}

/// The first two lines, and the third.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
    let label = rest.find('\n')?;
    let at = MAGIC.len() + 1 + label + 1;
    let (head, sealed) = text.split_at_checked(at)?;
    Some((head, sealed.strip_suffix('\n')?))
}

fn seal(key: &LessSafeKey, head: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultFault> {
    // Random nonces: after 2^32 writes under one key two are equal with less than 2^-32.
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce)?;
    let mut sealed = plain.to_vec();
    let unique = Nonce::assume_unique_for_key(nonce);
    let done = key.seal_in_place_append_tag(unique, Aad::from(head), &mut sealed);
    done.map_err(|_| VaultFault::Key("a credential cannot be sealed".to_owned()))?;
    Ok(nonce.into_iter().chain(sealed).collect())
}

fn open(key: &LessSafeKey, head: &[u8], sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length = key.open_in_place(nonce, Aad::from(head), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

fn parse_key(text: &str) -> Option<LessSafeKey> {
    let text = text.trim_end();
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = digits.then(|| (0..32).map(|at| text.get(2 * at..2 * at + 2)))?;
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<_>>>()?;
    let bytes = Zeroizing::new(bytes);
    UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok().map(LessSafeKey::new)
}

fn fill(bytes: &mut [u8]) -> Result<(), VaultFault> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| VaultFault::Key("the system gives no randomness".to_owned()))
}

/// The bytes of a file that is no link, and its stamp; nothing if there is none.
pub(crate) fn read_limited(path: &Path, max: u64) -> Result<Option<(Vec<u8>, Stamp)>, VaultFault> {
    let opened = OpenOptions::new().read(true).custom_flags(no_follow()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_fault(path, &error)),
    };
    let metadata = file.metadata().map_err(|error| file_fault(path, &error))?;
    if !metadata.is_file() || metadata.len() > max {
        return Err(altered(path, "it is no file, or too large"));
    }
    let mut bytes = Vec::new();
    let read = file.take(max).read_to_end(&mut bytes);
    read.map_err(|error| file_fault(path, &error))?;
    Ok(Some((bytes, Stamp::of(&metadata))))
}

fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed()
}

/// A name for a file that is being written, which no other write uses.
pub(crate) fn draft(path: &Path) -> PathBuf {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("{}-{number}.draft", std::process::id()))
}

/// Writes a file that is not there, for its owner only, and waits until it is durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A draft of a process that died under the same number is in nobody's way.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until what was made in `dir` is durable.
pub(crate) fn sync(dir: &Path) -> Result<(), VaultFault> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| file_fault(dir, &error))
}

fn file_fault(path: &Path, error: &std::io::Error) -> VaultFault {
    VaultFault::File { path: path.display().to_string(), detail: error.to_string() }
}

fn altered(path: &Path, detail: &str) -> VaultFault {
    VaultFault::Altered { path: path.display().to_string(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Holder, KEY_BYTES_MAX, Label, SEALED_BYTES_MAX, Vault, VaultFault};
    use crate::upstream::SecretText;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    const PLAIN: &[u8] = b"the token of coder";

    fn agent(name: &str) -> Holder {
        Holder::Agent(name.parse().unwrap())
    }

    fn label(server: &str, holder: Holder) -> Label {
        let (issuer, url) = ("https://as.example".into(), "https://crm.example/mcp".into());
        Label { holder, issuer, server: server.parse().unwrap(), url }
    }

    fn filled(dir: &Path) -> Vault {
        let vault = Vault::new(dir, None);
        for holder in [agent("coder"), agent("other"), Holder::Everybody] {
            vault.write(&label("crm", holder.clone()), PLAIN).unwrap();
        }
        vault
    }

    /// What reading `coder`'s credential gives: the length, or the fault.
    fn read(vault: &Vault) -> Result<usize, VaultFault> {
        let opened = vault.read(&"crm".parse().unwrap(), &agent("coder"))?;
        Ok(opened.map_or(0, |opened| opened.plain.len()))
    }

    #[test]
    fn what_is_kept_comes_back_and_lies_there_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let opened = vault.read(&"crm".parse().unwrap(), &agent("coder")).unwrap().unwrap();
        assert_eq!(opened.plain.as_slice(), PLAIN);
        assert_eq!(opened.label, label("crm", agent("coder")));
        assert_eq!(vault.list().unwrap().len(), 3);
        let mut files = vec![dir.path().join("credentials.key")];
        let sealed = std::fs::read_dir(dir.path().join("credentials")).unwrap();
        files.extend(sealed.map(|entry| entry.unwrap().path()));
        assert_eq!(files.len(), 4, "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(PLAIN.len()).any(|part| part == PLAIN), "{file:?}");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        let folder = dir.path().join("credentials").metadata().unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        assert!(vault.remove(&"crm".parse().unwrap(), &agent("coder")).unwrap());
        assert!(!vault.remove(&"crm".parse().unwrap(), &agent("coder")).unwrap());
        assert_eq!(read(&vault), Ok(0));
    }

    #[test]
    fn no_changed_byte_and_no_cut_passes() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let path = dir.path().join("credentials/crm@coder.sealed");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, changed).unwrap();
            assert!(matches!(read(&vault), Err(VaultFault::Altered { .. })), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&vault), Err(VaultFault::Altered { .. })), "cut at {at}");
        }
        std::fs::write(&path, [whole.as_slice(), b"\n"].concat()).unwrap();
        assert!(matches!(read(&vault), Err(VaultFault::Altered { .. })));
        std::fs::write(&path, whole).unwrap();
        assert_eq!(read(&vault), Ok(PLAIN.len()));
    }

    #[test]
    fn another_ones_credential_is_refused_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        vault.write(&label("wiki", agent("coder")), PLAIN).unwrap();
        let folder = dir.path().join("credentials");
        let own = folder.join("crm@coder.sealed");
        for other in ["crm@other", "crm@@", "wiki@coder"] {
            std::fs::copy(folder.join(format!("{other}.sealed")), &own).unwrap();
            assert!(matches!(read(&vault), Err(VaultFault::Altered { .. })), "{other}");
        }
        std::fs::remove_file(&own).unwrap();
        std::os::unix::fs::symlink(folder.join("crm@other.sealed"), &own).unwrap();
        assert!(matches!(read(&vault), Err(VaultFault::File { .. })), "a link");
    }

    #[test]
    fn a_stolen_file_is_worth_nothing_without_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let other = Vault::new(dir.path(), Some(SecretText::new("5".repeat(64))));
        assert!(matches!(read(&other), Err(VaultFault::Altered { .. })));
        let none = Vault::new(dir.path(), Some(SecretText::new("no key")));
        assert!(matches!(read(&none), Err(VaultFault::Key(_))));

        let key = dir.path().join("credentials.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&vault), Err(VaultFault::Key(_))), "others may read the key");
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(read(&vault), Err(VaultFault::Key(_))));
        let new = vault.write(&label("crm", agent("new")), PLAIN);
        assert!(matches!(new, Err(VaultFault::Key(_))), "no new key beside sealed credentials");
    }

    #[test]
    fn giant_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let vault = filled(dir.path());
        let too_large = |found: &Result<usize, VaultFault>| {
            let fault = found.as_ref().err().map(VaultFault::to_string);
            fault.is_some_and(|fault| fault.contains("too large"))
        };
        let grow = |file: &str, with: u8, max: u64| {
            let path = dir.path().join(file);
            let whole = std::fs::read(&path).unwrap();
            let max = usize::try_from(max).unwrap();
            let mut found = Vec::new();
            for bytes in [max, max + 1] {
                let mut grown = whole.clone();
                grown.resize(bytes, with);
                std::fs::write(&path, grown).unwrap();
                found.push(read(&vault));
            }
            std::fs::write(&path, whole).unwrap();
            found
        };
        // A key may have space behind it.
        let key = grow("credentials.key", b' ', KEY_BYTES_MAX);
        assert_eq!(key[0], Ok(PLAIN.len()));
        assert!(too_large(&key[1]), "{key:?}");
        let sealed = grow("credentials/crm@coder.sealed", b'x', SEALED_BYTES_MAX);
        assert!(sealed[0].is_err() && !too_large(&sealed[0]), "read: {sealed:?}");
        assert!(too_large(&sealed[1]), "{sealed:?}");
        assert_eq!(read(&vault), Ok(PLAIN.len()));
    }
}
