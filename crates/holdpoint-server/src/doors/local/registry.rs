//! Which processes govern on this store, and where their sockets are.
//!
//! Owns `<store>/run/<gateway>.json`. A registration outlives a crash; whoever reads it connects to
//! the socket to see if somebody is there. Must never trust a file of another user.

use holdpoint_types::GatewayId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Longest path that a Unix socket address holds on every system we run on, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// How a process governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `holdpoint serve`.
    Serve,
    /// `holdpoint wrap` on its own.
    Wrap,
}

/// One governing process, as it registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Its id in records.
    pub gateway: GatewayId,
    /// Its process id.
    pub pid: u32,
    /// How it governs.
    pub kind: Kind,
    /// Its operator's socket.
    pub socket: PathBuf,
    /// Where a `serve` takes over `wrap`s.
    pub wrap_socket: PathBuf,
}

/// A registration in force; withdrawn when dropped.
#[derive(Debug)]
pub struct Registered {
    /// What was registered.
    pub registration: Registration,
    file: PathBuf,
}

// === impl Registered ===

impl Drop for Registered {
    fn drop(&mut self) {
        for path in [&self.file, &self.registration.socket, &self.registration.wrap_socket] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes the socket and writes the registration, in this order: who reads it can connect.
pub(super) fn register(
    dir: &Path,
    gateway: GatewayId,
    kind: Kind,
) -> io::Result<(Registered, UnixListener)> {
    let run = dir.join("run");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&run)?;
    let sockets = socket_dir(&run, gateway)?;
    let socket = sockets.join(format!("{gateway}.sock"));
    let wrap_socket = sockets.join(format!("{gateway}.wrap"));
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let registration = Registration { gateway, pid: std::process::id(), kind, socket, wrap_socket };
    let file = run.join(format!("{gateway}.json"));
    let draft = run.join(format!("{gateway}.json.new"));
    fs::write(&draft, serde_json::to_vec(&registration)?)?;
    fs::rename(&draft, &file)?;
    Ok((Registered { registration, file }, listener))
}

/// The registrations whose process still runs, and removes what dead ones left behind.
///
/// # Errors
/// When the folder cannot be read. A store without one has no governing process.
pub fn live(dir: &Path) -> io::Result<Vec<Registration>> {
    let entries = match fs::read_dir(dir.join("run")) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(fault),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(registration) = read(&path) else { continue };
        match is_running(&registration) {
            true => found.push(registration),
            false => drop(Registered { registration, file: path }),
        }
    }
    found.sort_by_key(|registration: &Registration| registration.gateway);
    Ok(found)
}

fn read(path: &Path) -> Option<Registration> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A process is there if somebody accepts connections on its socket, or if it exists at all.
fn is_running(registration: &Registration) -> bool {
    let pid = i32::try_from(registration.pid).ok().and_then(rustix::process::Pid::from_raw);
    let exists = |pid| rustix::process::test_kill_process(pid).is_ok();
    std::os::unix::net::UnixStream::connect(&registration.socket).is_ok() || pid.is_some_and(exists)
}

/// Where the sockets go: beside the registration, or, if that path is too long for a socket
/// address, a private folder for temporary files.
fn socket_dir(run: &Path, gateway: GatewayId) -> io::Result<PathBuf> {
    let longest = run.join(format!("{gateway}.sock"));
    if longest.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(run.to_owned());
    }
    let uid = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("holdpoint-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let metadata = fs::symlink_metadata(&dir)?;
    let own = std::os::unix::fs::MetadataExt::uid(&metadata) == uid;
    if !own || !metadata.is_dir() || metadata.permissions().mode() & 0o077 != 0 {
        let what = format!("`{}` is not a private folder of this user", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(dir)
}
