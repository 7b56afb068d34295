//! Shell commands in the box: real namespaces, a real overlay.

use crate::permits::{NOW, permit};
use holdpoint_resources::resource::{
    Forward, Preview, Proposed, Resource, ResourceFault, TargetState, Undo,
};
use holdpoint_resources::{Cancels, Ended, FilesLimits, Shell, ShellPrepared, ShellSpec};
use holdpoint_types::{Reason, Reversibility, ToolRef};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

struct Ground {
    shell: Shell,
    workspace: PathBuf,
    outside: PathBuf,
    _folder: TempDir,
}

// === impl Ground ===

impl Ground {
    fn new() -> Self {
        Self::named("work", |spec| spec)
    }

    fn named(name: &str, change: impl FnOnce(ShellSpec) -> ShellSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().canonicalize().unwrap();
        let workspace = outside.join(name);
        fs::create_dir_all(workspace.join("src/deep")).unwrap();
        fs::write(workspace.join("a.txt"), "one\ntwo\n").unwrap();
        fs::write(workspace.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(workspace.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(workspace.join("src/deep/c"), [0, 159]).unwrap();
        symlink("a.txt", workspace.join("link")).unwrap();
        let shell = Shell::new(change(ShellSpec {
            server: "sh".parse().unwrap(),
            workspace: workspace.clone(),
            readable: Vec::new(),
            env: [("GREETING".to_owned(), "hello".to_owned())].into(),
            files: FilesLimits::default(),
            timeout: Duration::from_secs(30),
            output_bytes_max: 10_000,
        }));
        Self { shell, workspace, outside, _folder: folder }
    }

    async fn preview(&self, parameters: &Value) -> Result<(Preview, ShellPrepared), ResourceFault> {
        let tool = tool();
        let proposed = Proposed { tool: &tool, parameters, effects: &[], now: NOW };
        self.shell.preview(proposed).await.map(Option::unwrap)
    }

    async fn execute(&self, parameters: &Value, prepared: ShellPrepared) -> Ended {
        let permit = permit(&tool(), parameters);
        self.shell.execute(permit, prepared, unused()).await.ended
    }

    /// Runs a command for what it says.
    async fn said(&self, command: &str) -> Value {
        let parameters = json!({ "command": command });
        let (_, prepared) = self.preview(&parameters).await.unwrap();
        answer(&self.execute(&parameters, prepared).await)
    }

    async fn revert(&self, undo: &Undo) -> (usize, usize) {
        let reverting = self.shell.revert(undo, NOW).await.unwrap();
        let counts = (reverting.preview.changes.len(), reverting.conflicts.len());
        answer(&self.execute(&json!({}), reverting.prepared).await);
        counts
    }
}

fn all(folder: &Path) -> Vec<String> {
    let listed = Command::new("sh")
        .args([
            "-c",
            "find . -printf '%p %m %y %l\\n' | sort; find . -type f | sort | xargs sha256sum",
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn tool() -> ToolRef {
    ToolRef::new("sh".parse().unwrap(), "shell_execute").unwrap()
}

fn unused() -> (Cancels, Forward) {
    (Cancels::default(), Box::new(|_| panic!("there is no server")))
}

fn answer(ended: &Ended) -> Value {
    let Ended::Answered { body, tool_error: false } = ended else { panic!("{ended:?}") };
    let body: Value = serde_json::from_str(body.raw().get()).unwrap();
    body["structuredContent"].clone()
}

/// False, outside of CI, where the system allows no box.
async fn boxes() -> bool {
    match Ground::new().preview(&json!({ "command": "true" })).await {
        Ok(_) => true,
        Err(fault) => {
            assert!(std::env::var_os("CI").is_none(), "{fault}");
            println!("left out: {fault}");
            false
        }
    }
}

const MANY: &str = "echo 2 >> a.txt; chmod 700 run.sh; rm -r src; mkdir src; echo new > src/c; \
                    rm link; ln -s run.sh link; mv run.sh moved.sh; mkdir -p x/y; touch x/y/z; \
                    echo \"$GREETING\"; echo oh >&2; exit 3";

#[tokio::test]
async fn a_command_is_seen_before_it_changes_anything_and_comes_back() {
    if !boxes().await {
        return;
    }
    let ground = Ground::new();
    let before = all(&ground.workspace);
    let parameters = json!({ "command": MANY });
    let (preview, prepared) = ground.preview(&parameters).await.unwrap();
    assert_eq!(all(&ground.workspace), before);
    assert!(preview.exact && preview.guarantee == Reversibility::Exact, "{preview:?}");
    let root = format!("file://{}/", ground.workspace.display());
    let side = |side: &Option<Value>| {
        side.as_ref().map_or("-".to_owned(), |side| side["kind"].as_str().unwrap().to_owned())
    };
    let changes = preview.changes.iter().map(|change| {
        let name = change.resource.strip_prefix(&root).unwrap();
        format!("{name}: {} => {}", side(&change.before), side(&change.after))
    });
    assert_eq!(
        changes.collect::<Vec<_>>(),
        [
            "a.txt: file => file",
            "link: link => link",
            "moved.sh: - => file",
            "run.sh: file => -",
            "src/c: - => file",
            "src/deep: folder => -",
            "src/deep/c: file => -",
            "x: - => folder",
            "x/y: - => folder",
            "x/y/z: - => file",
        ]
    );
    let diff = preview.changes[0].after.as_ref().unwrap()["diff"].as_str().unwrap();
    assert!(diff.ends_with("@@ -1,2 +1,3 @@\n one\n two\n+2\n"), "{diff}");
    assert!(preview.notes[1].starts_with("the command failed"), "{:?}", preview.notes);
    // The same diff has the same digest.
    let (again, other) = ground.preview(&parameters).await.unwrap();
    assert_eq!(again.digest(), preview.digest());
    drop(other);

    let undo = ground.shell.undo(&prepared).unwrap();
    assert_eq!(ground.shell.verify(&undo).await, Ok(TargetState::Before));
    let told = answer(&ground.execute(&parameters, prepared).await);
    assert_eq!(told, json!({ "exit_code": 3, "stdout": "hello\n", "stderr": "oh\n" }));
    assert_eq!(ground.shell.verify(&undo).await, Ok(TargetState::After));
    // What the box left is what the command does outside of it.
    let twin = Ground::new();
    let plain = Command::new("sh").args(["-c", MANY]).current_dir(&twin.workspace).output();
    assert_eq!(plain.unwrap().status.code(), Some(3));
    assert_eq!(all(&ground.workspace), all(&twin.workspace));

    assert_eq!(ground.revert(&undo).await, (10, 0));
    assert_eq!(all(&ground.workspace), before);
    assert_eq!(ground.revert(&undo).await, (0, 0));
    assert_eq!(all(&ground.workspace), before);
}

#[tokio::test]
async fn a_command_reaches_nothing_outside_of_its_box() {
    if !boxes().await {
        return;
    }
    let ground = Ground::new();
    let secret = ground.outside.join("secret");
    fs::write(&secret, "s3cret").unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    web.set_nonblocking(true).unwrap();
    let port = web.local_addr().unwrap().port();
    let socket = UnixListener::bind(ground.workspace.join("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let secret = secret.display();
    let probes = format!(
        "cat {secret} && echo BAD; echo x > {secret}; touch /usr/x /etc/x && echo BAD; \
         mount -o remount,bind,rw /usr && echo BAD; umount \"$HOME\" && echo BAD; \
         unshare -Urm true && echo BAD; kill -9 {} && echo BAD; ls / /dev; cat /proc/net/dev; \
         env; echo done",
        std::process::id(),
    );
    let told = ground.said(&probes).await;
    let said = told["stdout"].as_str().unwrap();
    assert!(
        said.ends_with("done\n") && !said.contains("BAD") && !said.contains("s3cret"),
        "{said}"
    );
    let lines: Vec<&str> = said.lines().collect();
    for hidden in ["home", "root", "var", "run", "srv", "sda", "vda", "kmsg", "tty"] {
        assert!(!lines.contains(&hidden), "{hidden}: {said}");
    }
    assert!(!said.contains("eth0") && !said.contains("CARGO_"), "{said}");
    let program = "import socket,sys
for kind, at in ((socket.AF_INET, ('127.0.0.1', int(sys.argv[1]))), (socket.AF_UNIX, 'socket')):
    try:
        socket.socket(kind).connect(at)
        print('BAD')
    except OSError as fault:
        print('refused')
";
    fs::write(ground.workspace.join("probe.py"), program).unwrap();
    let python = "if command -v python3 >/dev/null; then python3 probe.py";
    let told = ground.said(&format!("{python} {port}; else echo refused; fi")).await;
    assert!(!told["stdout"].as_str().unwrap().contains("BAD"), "{told}");
    assert!(web.accept().is_err() && socket.accept().is_err());
    assert_eq!(fs::read_to_string(ground.outside.join("secret")).unwrap(), "s3cret");
    assert!(!Path::new("/usr/x").exists() && !Path::new("/etc/x").exists());
}

#[tokio::test]
async fn what_a_command_leaves_is_not_put_over_later_work() {
    if !boxes().await {
        return;
    }
    let ground = Ground::new();
    let parameters = json!({ "command": "echo agent > a.txt; echo b > b; rm -r src" });
    for change in 0..3 {
        let (_, prepared) = ground.preview(&parameters).await.unwrap();
        match change {
            0 => fs::write(ground.workspace.join("a.txt"), "human\n").unwrap(),
            1 => fs::write(ground.workspace.join("b"), "human\n").unwrap(),
            _ => fs::write(ground.workspace.join("src/new"), "human\n").unwrap(),
        }
        let before = all(&ground.workspace);
        let ended = ground.execute(&parameters, prepared).await;
        let moved = matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. });
        assert!(moved, "{ended:?}");
        assert_eq!(all(&ground.workspace), before);
    }
    let (_, prepared) = ground.preview(&parameters).await.unwrap();
    let other = json!({ "command": "echo agent > a.txt; echo b > b; rm -r srC" });
    let ended = ground.execute(&other, prepared).await;
    assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
    let (_, prepared) = ground.preview(&parameters).await.unwrap();
    let undo = ground.shell.undo(&prepared).unwrap();
    answer(&ground.execute(&parameters, prepared).await);
    fs::write(ground.workspace.join("a.txt"), "human again\n").unwrap();
    let (_, kept) = ground.revert(&undo).await;
    assert_eq!(kept, 1);
    assert_eq!(fs::read(ground.workspace.join("a.txt")).unwrap(), b"human again\n");
    assert_eq!(fs::read(ground.workspace.join("src/new")).unwrap(), b"human\n");
    assert_eq!(fs::read(ground.workspace.join("b")).unwrap(), b"human\n");
}

#[tokio::test]
async fn a_command_beyond_its_limits_leaves_nothing() {
    if !boxes().await {
        return;
    }
    let files = FilesLimits { files_max: 20, file_bytes_max: 1_000, bytes_max: 5_000 };
    let ground =
        Ground::named("work", |spec| ShellSpec { files, timeout: Duration::from_secs(2), ..spec });
    let before = all(&ground.workspace);
    for (command, why) in [
        (
            "i=0; while [ $i -lt 30 ]; do touch f$i; i=$((i+1)); done",
            "too large: more than 20 files",
        ),
        ("head -c 2000 /dev/zero > big", "too large: 2000 bytes"),
        ("yes", "too large: "),
        ("echo x > a.txt; sleep 600", "did not end in time"),
        ("mkfifo pipe", "neither a file nor a folder nor a link"),
    ] {
        let fault = ground.preview(&json!({ "command": command })).await.unwrap_err().to_string();
        assert!(fault.contains(why), "{command}: {fault}");
    }
    for parameters in [
        json!({}),
        json!({ "command": 1 }),
        json!({ "command": "true", "cwd": ".." }),
        json!({ "command": "true", "cwd": "/etc" }),
        json!({ "command": "true", "cwd": "nowhere" }),
        json!({ "command": "true", "cwd": 7 }),
        json!({ "command": "tr\u{0}ue" }),
    ] {
        let fault = ground.preview(&parameters).await.unwrap_err();
        assert!(matches!(fault, ResourceFault::Invalid(_)), "{parameters}: {fault}");
    }
    // What was started in the background does not live on.
    let told = ground.said("(sleep 600; echo late > late) & echo $!").await;
    assert_eq!(told["exit_code"], json!(0));
    assert_eq!(all(&ground.workspace), before);
    let parameters = json!({ "command": "pwd", "cwd": "src/deep" });
    let (_, prepared) = ground.preview(&parameters).await.unwrap();
    let told = answer(&ground.execute(&parameters, prepared).await);
    assert_eq!(told["stdout"], json!(format!("{}/src/deep\n", ground.workspace.display())));
}

#[tokio::test]
async fn where_no_box_can_be_there_is_no_preview() {
    let ground = Ground::named("a:b", |spec| spec);
    let fault = ground.preview(&json!({ "command": "touch x" })).await.unwrap_err();
    assert!(fault.to_string().starts_with("unavailable: no preview: "), "{fault}");
    let ground = Ground::named("gone", |spec| spec);
    fs::remove_dir_all(&ground.workspace).unwrap();
    let fault = ground.preview(&json!({ "command": "touch x" })).await.unwrap_err();
    assert!(fault.to_string().starts_with("unavailable: no preview: "), "{fault}");
}

#[tokio::test]
async fn what_else_may_be_read_can_lie_among_what_is_temporary() {
    if !boxes().await {
        return;
    }
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::write(folder.path().join("told"), "told\n").unwrap();
    let readable = vec![folder.path().to_owned()];
    let ground = Ground::named("work", |spec| ShellSpec { readable, ..spec });
    let folder = folder.path().display();
    let command = format!("cat {folder}/told; echo x > {folder}/told; echo y > /tmp/y; cat /tmp/y");
    let told = ground.said(&command).await;
    assert_eq!(told["stdout"], json!("told\ny\n"), "{told}");
    assert_eq!(fs::read_to_string(format!("{folder}/told")).unwrap(), "told\n");
    // The place for what is temporary must be the box's own.
    let readable = vec![PathBuf::from("/tmp/../tmp/")];
    let ground = Ground::named("work", |spec| ShellSpec { readable, ..spec });
    let fault = ground.preview(&json!({ "command": "true" })).await.unwrap_err();
    assert!(fault.to_string().starts_with("unavailable: no preview: "), "{fault}");
}

#[tokio::test]
async fn an_ordinary_user_gets_a_box_too() {
    if !boxes().await || !rustix::process::getuid().is_root() {
        // Then all other tests ran as one.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = include_str!("../../src/files/shell/box.sh");
    let command = "cd \"$1\"; mkdir ws root upper work; echo a > ws/a; chown -R 65534:65534 .; \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups unshare --user --map-root-user \
        --mount --net --ipc --uts --pid --fork --kill-child --propagation=private \
        sh -c \"$2\" sh \"$1/ws\" \"$1\" \"$1/ws\" /bin /lib /lib64 /usr /etc -- \
        sh -c 'rm a; echo b > b; touch /usr/x; echo done'";
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().to_str().unwrap();
    let ran = Command::new("sh").args(["-c", command, "sh", path, script]).output().unwrap();
    let (said, fault) =
        (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said, "holdpoint: ready\ndone\n", "{fault}");
    assert_eq!(fs::read(folder.path().join("upper/b")).unwrap(), b"b\n");
    assert_eq!(fs::read(folder.path().join("ws/a")).unwrap(), b"a\n");
    assert!(!folder.path().join("ws/b").exists() && !Path::new("/usr/x").exists());
}
