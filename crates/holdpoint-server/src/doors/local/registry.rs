//! Which processes govern on this store, and where their sockets are.
//!
//! Owns `<store>/run/<gateway>.json`. A registration outlives a crash; whoever reads it connects to
//! the socket to see if somebody is there. Must never trust a file of another user.

use holdpoint_types::GatewayId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Largest registration, in bytes.
const REGISTRATION_BYTES_MAX: u64 = 64 << 10;
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
    /// `holdpoint revert`, for a moment.
    Revert,
    /// `holdpoint hook`, for a moment.
    Hook,
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
    run: PathBuf,
}

// === impl Registered ===

impl Drop for Registered {
    fn drop(&mut self) {
        remove(&self.run, &self.registration);
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
    let own = rustix::process::geteuid().as_raw();
    let (socket, wrap_socket) = sockets(&run, (gateway, own))?;
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let registration = Registration { gateway, pid: std::process::id(), kind, socket, wrap_socket };
    let file = run.join(format!("{gateway}.json"));
    let draft = run.join(format!("{gateway}.json.new"));
    fs::write(&draft, serde_json::to_vec(&registration)?)?;
    fs::rename(&draft, &file)?;
    Ok((Registered { registration, run }, listener))
}

/// The registrations whose process still runs; removes what dead ones of this user left behind.
///
/// Where the sockets are follows from the gateway's id and the owner of the folder, never from what
/// a file says: a forged file leads nowhere.
///
/// # Errors
/// When the folder cannot be read. A store without one has no governing process.
pub fn live(dir: &Path) -> io::Result<Vec<Registration>> {
    let run = dir.join("run");
    let entries = match fs::read_dir(&run) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(fault),
    };
    let owner = fs::symlink_metadata(&run)?.uid();
    let mut found = Vec::new();
    for entry in entries {
        let Some(registration) = read(&run, &entry?.path(), owner) else { continue };
        if is_running(&registration) {
            found.push(registration);
        } else if owner == rustix::process::geteuid().as_raw() {
            remove(&run, &registration);
        }
    }
    found.sort_by_key(|registration: &Registration| registration.gateway);
    Ok(found)
}

/// Reads `RUN/GATEWAY.json`, if it is a plain file of the folder's owner and says what its name
/// says.
fn read(run: &Path, path: &Path, owner: u32) -> Option<Registration> {
    let gateway: GatewayId = path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()?;
    let metadata = fs::symlink_metadata(path).ok()?;
    let plain = metadata.is_file() && metadata.uid() == owner;
    if !plain || metadata.len() > REGISTRATION_BYTES_MAX {
        return None;
    }
    let said: Registration = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let (socket, wrap_socket) = sockets(run, (gateway, owner)).ok()?;
    (said.gateway == gateway).then_some(Registration { socket, wrap_socket, ..said })
}

fn remove(run: &Path, registration: &Registration) {
    let file = run.join(format!("{}.json", registration.gateway));
    for path in [&file, &registration.socket, &registration.wrap_socket] {
        let _ = fs::remove_file(path);
    }
}

/// A process is there if somebody accepts connections on its socket, or if it exists at all.
fn is_running(registration: &Registration) -> bool {
    let pid = i32::try_from(registration.pid).ok().and_then(rustix::process::Pid::from_raw);
    let exists = |pid| rustix::process::test_kill_process(pid).is_ok();
    std::os::unix::net::UnixStream::connect(&registration.socket).is_ok() || pid.is_some_and(exists)
}

/// Where a gateway's sockets are: beside the registration, or, if that path is too long for a
/// socket address, in its user's private folder for temporary files.
fn sockets(run: &Path, (gateway, user): (GatewayId, u32)) -> io::Result<(PathBuf, PathBuf)> {
    let named =
        |dir: &Path| (dir.join(format!("{gateway}.sock")), dir.join(format!("{gateway}.wrap")));
    let (socket, wrap_socket) = named(run);
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((socket, wrap_socket));
    }
    let dir = Path::new("/tmp").join(format!("holdpoint-{user}"));
    if user == rustix::process::geteuid().as_raw() {
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
            Ok(()) | Err(_) => {}
        }
    }
    let metadata = fs::symlink_metadata(&dir)?;
    let private = metadata.permissions().mode() & 0o077 == 0;
    if metadata.uid() != user || !metadata.is_dir() || !private {
        let what = format!("`{}` is not a private folder of user {user}", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(named(&dir))
}

#[cfg(test)]
mod tests {
    use super::{
        Kind, REGISTRATION_BYTES_MAX, Registration, SOCKET_PATH_BYTES_MAX, live, register,
    };
    use holdpoint_types::{GatewayId, Timestamp};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn gateway(number: u8) -> GatewayId {
        GatewayId::new(Timestamp(1), [number; 10])
    }

    #[tokio::test]
    async fn a_forged_registration_leads_nowhere_and_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (registered, _listener) = register(dir.path(), gateway(1), Kind::Serve).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        // A process that is gone, and sockets that are somebody else's file.
        let forged = Registration {
            gateway: gateway(2),
            pid: 0,
            kind: Kind::Serve,
            socket: victim.clone(),
            wrap_socket: victim.clone(),
        };
        let run = dir.path().join("run");
        let text = serde_json::to_vec(&forged).unwrap();
        fs::write(run.join(format!("{}.json", gateway(2))), &text).unwrap();
        fs::write(run.join(format!("{}.json", gateway(3))), &text).unwrap();
        fs::write(run.join("notes.json"), "{}").unwrap();
        let found = live(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].socket, registered.registration.socket);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_giant_registration_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (_registered, _listener) = register(dir.path(), gateway(1), Kind::Wrap).unwrap();
        let file = dir.path().join("run").join(format!("{}.json", gateway(1)));
        let text = fs::read_to_string(&file).unwrap();
        let most = usize::try_from(REGISTRATION_BYTES_MAX).unwrap();
        for (bytes, found) in [(most, 1), (most + 1, 0)] {
            fs::write(&file, text.clone() + &" ".repeat(bytes - text.len())).unwrap();
            assert_eq!(live(dir.path()).unwrap().len(), found, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_long_path_has_its_socket_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(SOCKET_PATH_BYTES_MAX));
        for (store, elsewhere) in [(dir.path(), false), (&deep, true)] {
            let (registered, _listener) = register(store, gateway(9), Kind::Wrap).unwrap();
            let socket = registered.registration.socket.clone();
            assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
            assert_eq!(!socket.starts_with(dir.path()), elsewhere, "{socket:?}");
            let folder = socket.parent().unwrap().metadata().unwrap();
            assert_eq!(folder.permissions().mode() & 0o777, 0o700);
            assert_eq!(live(store).unwrap()[0].socket, socket);
            assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
            drop(registered);
            assert!(!socket.exists());
        }
    }
}
