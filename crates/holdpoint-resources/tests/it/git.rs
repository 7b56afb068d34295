//! Real repositories with a real bare remote: previews that change nothing, moves that are compared
//! first, undos that keep what came later.

use crate::peer::said;
use crate::permits::{NOW, permit};
use crate::resources::{Done, execute, nowhere, preview, revert, run, shown};
use expect_test::expect;
use holdpoint_resources::resource::{Proposed, Resource as _, ResourceFault, TargetState};
use holdpoint_resources::{Cancels, Ended, Git, GitLimits, GitSpec};
use holdpoint_types::{Disclosure, Reason, Reversibility, Timestamp, ToolRef};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SHA1: &str = "--object-format=sha1";

/// A work tree with a first commit, pushed to a bare remote.
struct World {
    folder: TempDir,
    git: Git,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (work, bare) = (folder.path().join("work"), folder.path().join("bare.git"));
        std::fs::create_dir_all(&work).unwrap();
        command(
            folder.path(),
            &["init", "-q", "--bare", SHA1, "-b", "main", bare.to_str().unwrap()],
        );
        command(&work, &["init", "-q", SHA1, "-b", "main"]);
        command(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
        std::fs::write(work.join("a.txt"), "one\n").unwrap();
        command(&work, &["add", "a.txt"]);
        command(&work, &["commit", "-q", "-m", "first"]);
        command(&work, &["push", "-q", "origin", "main"]);
        let git = Git::new(spec(work));
        Self { folder, git }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn bare(&self) -> PathBuf {
        self.folder.path().join("bare.git")
    }

    fn ask(&self, words: &[&str]) -> String {
        command(&self.work(), words)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.work().join(name), text).unwrap();
    }

    /// A commit by somebody else.
    fn human(&self, text: &str) -> String {
        self.write("a.txt", text);
        self.ask(&["commit", "-q", "-am", "by hand"]);
        self.ask(&["rev-parse", "HEAD"])
    }

    /// The same at the remote.
    fn human_at_remote(&self, text: &str) -> String {
        let clone = self.folder.path().join("clone");
        if !clone.exists() {
            let (bare, clone) = (self.bare(), clone.to_str().unwrap());
            command(self.folder.path(), &["clone", "-q", bare.to_str().unwrap(), clone]);
        }
        command(&clone, &["pull", "-q"]);
        std::fs::write(clone.join("b.txt"), text).unwrap();
        command(&clone, &["add", "b.txt"]);
        command(&clone, &["commit", "-q", "-m", "elsewhere"]);
        command(&clone, &["push", "-q", "origin", "main"]);
        command(&clone, &["rev-parse", "HEAD"])
    }

    fn remote(&self, branch: &str) -> String {
        let refs = command(&self.bare(), &["for-each-ref", "--format=%(refname) %(objectname)"]);
        let found = refs.lines().find_map(|line| {
            line.strip_prefix(&format!("refs/heads/{branch} ")).map(str::to_owned)
        });
        found.unwrap_or_default()
    }

    /// Everything that a preview must leave as it is.
    fn state(&self) -> String {
        let index = std::fs::read(self.work().join(".git/index")).unwrap();
        let refs = self.ask(&["for-each-ref"]);
        let remote = command(&self.bare(), &["for-each-ref"]);
        let head = std::fs::read_to_string(self.work().join(".git/HEAD")).unwrap();
        format!("{refs}\n{remote}\n{head}\n{index:?}")
    }

    async fn refusal(&self, name: &str, parameters: Value) -> String {
        match preview(&self.git, &tool(name), &parameters).await {
            Ok((preview, _)) => panic!("not refused: {preview:?}"),
            Err(fault) => fault.to_string(),
        }
    }
}

fn spec(repository: PathBuf) -> GitSpec {
    GitSpec {
        server: "repo".parse().unwrap(),
        place: "git://shop".to_owned(),
        repository,
        program: "git".into(),
        author: ("Holdpoint".to_owned(), "holdpoint@example.com".to_owned()),
        env: BTreeMap::new(),
        transports: vec!["file".to_owned()],
        remote_inside: true,
        programs: false,
        keep: Duration::from_secs(30 * 86_400),
        timeout: Duration::from_secs(30),
        limits: GitLimits { text_bytes_max: 40, ..GitLimits::default() },
    }
}

fn command(folder: &Path, words: &[&str]) -> String {
    let mut git = Command::new("git");
    git.current_dir(folder).args(words);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Human"),
        ("GIT_AUTHOR_EMAIL", "human@example.com"),
        ("GIT_COMMITTER_NAME", "Human"),
        ("GIT_COMMITTER_EMAIL", "human@example.com"),
        ("GIT_AUTHOR_DATE", "@1000000000 +0000"),
        ("GIT_COMMITTER_DATE", "@1000000000 +0000"),
    ] {
        git.env(name, value);
    }
    let output = git.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn tool(name: &str) -> ToolRef {
    ToolRef::new("repo".parse().unwrap(), name).unwrap()
}

fn is_ok(ended: &Ended) -> bool {
    matches!(ended, Ended::Answered { tool_error: false, .. })
}

fn moved(ended: &Ended) -> bool {
    matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. })
}

#[tokio::test]
async fn a_commit_is_seen_before_made_and_taken_back() {
    let world = World::new();
    world.write("a.txt", "two\n");
    world.write("long.txt", &"x".repeat(41));
    world.write("untold.txt", "stays out\n");
    let call = json!({ "message": "second", "paths": ["a.txt", "long.txt"] });
    let before = world.state();
    let (seen, _) = preview(&world.git, &tool("git_commit"), &call).await.unwrap();
    assert_eq!(world.state(), before, "a preview changes nothing");
    expect![[r#"
        git://shop#main {"commit":"6de9721e0ff11388e3a1f4ae28ce53cd7898d37d"} => {"tree":"982b67832444ed21afad163370c315f74ffc9ec3","parent":"6de9721e0ff11388e3a1f4ae28ce53cd7898d37d","message":"second\n","author":"Holdpoint <holdpoint@example.com>"}
        git://shop#main:a.txt {"mode":"100644","blob":"5626abf0f72e58d7a153368ba57db4c673c0e171","bytes":4,"text":"one\n"} => {"mode":"100644","blob":"f719efd430d52bcfc8566a43b2eb655688d38871","bytes":4,"text":"two\n"}
        git://shop#main:long.txt - => {"mode":"100644","blob":"936e01f427f8671a782b3ceed318d560e0bd73e7","bytes":41}
    "#]]
    .assert_eq(&shown(&seen.changes));
    let old = world.ask(&["rev-parse", "main"]);
    // Some time later the same diff still has the same digest.
    let later = Proposed {
        tool: &tool("git_commit"),
        parameters: &call,
        effects: &[],
        now: Timestamp(NOW.0 + 600_000),
    };
    let (again, _) = world.git.preview(later).await.unwrap().unwrap();
    assert_eq!(seen.digest(), again.digest());
    let Done { preview, undo, executed } = run(&world.git, &tool("git_commit"), call).await;
    assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(preview.digest(), seen.digest());
    let new = world.ask(&["rev-parse", "main"]);
    assert_eq!(world.ask(&["rev-parse", "main^"]), old);
    assert_eq!(world.ask(&["show", "-s", "--format=%an|%s", "main"]), "Holdpoint|second");
    assert_eq!(world.ask(&["status", "--porcelain"]), "?? untold.txt");
    let undo = undo.unwrap();
    assert_eq!(undo.guarantee, Reversibility::ExactUntil);
    assert_eq!(undo.until, Some(Timestamp(NOW.0 + 30 * 86_400_000)));
    assert_eq!(world.git.verify(&undo).await, Ok(TargetState::After));
    // Taken back, twice.
    for round in [1, 0] {
        let (preview, conflicts, executed) = revert(&world.git, &undo).await;
        assert_eq!(preview.changes.len(), round);
        assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
        assert_eq!(world.ask(&["rev-parse", "main"]), old);
        assert_eq!(world.ask(&["status", "--porcelain"]), " M a.txt\n?? long.txt\n?? untold.txt");
        assert_eq!(world.git.verify(&undo).await, Ok(TargetState::Before));
    }
    assert_ne!(old, new);
    // What was taken back can be made again.
    world.ask(&["update-ref", "refs/heads/main", &new]);
    let back = world.git.revert(&undo, NOW).await.unwrap();
    let forth = world.git.undo(&back.prepared).unwrap();
    execute(&world.git, (&"holdpoint__revert".parse().unwrap(), &json!({})), back.prepared).await;
    assert_eq!(world.ask(&["rev-parse", "main"]), old);
    revert(&world.git, &forth).await;
    assert_eq!(world.ask(&["rev-parse", "main"]), new);
}

#[tokio::test]
async fn a_commit_is_not_made_on_what_moved_nor_twice() {
    let world = World::new();
    world.write("b.txt", "new\n");
    let call = json!({ "message": "second", "paths": ["b.txt"] });
    let commit = tool("git_commit");
    let (_, held) = preview(&world.git, &commit, &call).await.unwrap();
    let undo = world.git.undo(&held).unwrap();
    let human = world.human("by hand\n");
    let executed = execute(&world.git, (&commit, &call), held).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.ask(&["rev-parse", "main"]), human);
    let TargetState::Changed(conflicts) = world.git.verify(&undo).await.unwrap() else { panic!() };
    assert_eq!(conflicts[0].resource, "git://shop#main");
    // Two that were prepared at one time: one is made.
    let (_, one) = preview(&world.git, &commit, &call).await.unwrap();
    let (_, two) = preview(&world.git, &commit, &call).await.unwrap();
    assert!(is_ok(&execute(&world.git, (&commit, &call), one).await.ended));
    assert!(moved(&execute(&world.git, (&commit, &call), two).await.ended));
    assert_eq!(world.ask(&["rev-parse", "main^"]), human);
}

#[tokio::test]
async fn commits_made_later_are_kept_and_reported() {
    let world = World::new();
    world.write("b.txt", "new\n");
    let call = json!({ "message": "second", "paths": ["b.txt"] });
    let undo = run(&world.git, &tool("git_commit"), call).await.undo.unwrap();
    let human = world.human("on top\n");
    for _ in 0..2 {
        let (preview, conflicts, executed) = revert(&world.git, &undo).await;
        assert!(preview.changes.is_empty() && is_ok(&executed.ended));
        assert_eq!(conflicts, ["git://shop#main: it was moved afterwards; later commits are kept"]);
        assert_eq!(world.ask(&["rev-parse", "main"]), human);
    }
}

#[tokio::test]
async fn what_else_is_staged_stays_staged() {
    let world = World::new();
    world.write("a.txt", "staged\n");
    world.write("other.txt", "other\n");
    world.ask(&["add", "a.txt", "other.txt"]);
    world.write("a.txt", "committed\n");
    let call = json!({ "message": "second", "paths": ["a.txt"] });
    let undo = run(&world.git, &tool("git_commit"), call).await.undo.unwrap();
    assert_eq!(world.ask(&["status", "--porcelain"]), "A  other.txt");
    revert(&world.git, &undo).await;
    assert_eq!(world.ask(&["status", "--porcelain"]), "MM a.txt\nA  other.txt");
    assert_eq!(world.ask(&["show", ":a.txt"]), "staged");
}

#[tokio::test]
async fn a_crash_between_ref_and_index_is_mended_by_the_revert() {
    let world = World::new();
    world.write("a.txt", "two\n");
    let call = json!({ "message": "second", "paths": ["a.txt"] });
    let commit = tool("git_commit");
    // Captured, and never executed.
    let (_, held) = preview(&world.git, &commit, &call).await.unwrap();
    let undo = world.git.undo(&held).unwrap();
    assert_eq!(world.git.verify(&undo).await, Ok(TargetState::Before));
    let (preview, conflicts, _) = revert(&world.git, &undo).await;
    assert!(preview.changes.is_empty() && conflicts.is_empty());
    // The ref moved, the index did not.
    let new = undo.data["to"].as_str().unwrap();
    world.ask(&["update-ref", "refs/heads/main", new]);
    assert_eq!(world.git.verify(&undo).await, Ok(TargetState::After));
    // And the other way: the ref is back, the index still as after the commit.
    world.ask(&["read-tree", new]);
    world.ask(&["update-ref", "refs/heads/main", undo.data["from"].as_str().unwrap()]);
    revert(&world.git, &undo).await;
    assert_eq!(world.ask(&["status", "--porcelain"]), " M a.txt");
}

#[tokio::test]
async fn a_first_commit_can_be_taken_back() {
    let world = World::new();
    let empty = world.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    command(&empty, &["init", "-q", "--object-format=sha256", "-b", "trunk"]);
    std::fs::write(empty.join("-f"), "named like an option\n").unwrap();
    let git = Git::new(spec(empty.clone()));
    let call = json!({ "message": "first", "paths": ["-f"] });
    let done = run(&git, &tool("git_commit"), call).await;
    assert!(is_ok(&done.executed.ended), "{}", said(&done.executed.ended));
    assert_eq!(command(&empty, &["ls-tree", "--name-only", "trunk"]), "-f");
    revert(&git, &done.undo.unwrap()).await;
    assert_eq!(command(&empty, &["for-each-ref", "refs/heads"]), "");
    assert_eq!(command(&empty, &["status", "--porcelain"]), "?? -f");
}

#[tokio::test]
async fn branches_are_made_and_deleted_and_both_taken_back() {
    let world = World::new();
    let main = world.ask(&["rev-parse", "main"]);
    let made = run(&world.git, &tool("git_branch"), json!({ "name": "feature/x" })).await;
    expect![[r#"
        git://shop#feature/x - => {"commit":"6de9721e0ff11388e3a1f4ae28ce53cd7898d37d"}
    "#]]
    .assert_eq(&shown(&made.preview.changes));
    assert_eq!(made.preview.guarantee, Reversibility::Exact);
    assert_eq!(world.ask(&["rev-parse", "feature/x"]), main);
    let again = world.refusal("git_branch", json!({ "name": "feature/x" })).await;
    assert_eq!(again, "refused by the target: there is a branch `feature/x`");
    let own = world.human("only there\n");
    world.ask(&["branch", "-f", "feature/x", "main"]);
    world.ask(&["reset", "-q", "--hard", "main^"]);
    // It is somebody else's now.
    let (_, conflicts, _) = revert(&world.git, made.undo.as_ref().unwrap()).await;
    assert_eq!(
        conflicts,
        ["git://shop#feature/x: it was moved afterwards; later commits are kept"]
    );
    let gone = run(&world.git, &tool("git_branch_delete"), json!({ "name": "feature/x" })).await;
    assert_eq!(
        gone.preview.notes[1],
        "1 commits are on no other branch or tag; its reflog is lost"
    );
    assert_eq!(world.ask(&["branch", "--list", "feature/x"]), "");
    // Nothing but the undo keeps the commit.
    world.ask(&["reflog", "expire", "--expire=now", "--all"]);
    world.ask(&["gc", "-q", "--prune=now"]);
    let undo = gone.undo.unwrap();
    for _ in 0..2 {
        let (_, conflicts, executed) = revert(&world.git, &undo).await;
        assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
        assert_eq!(world.ask(&["rev-parse", "feature/x"]), own);
    }
}

#[tokio::test]
async fn a_branch_in_use_is_not_deleted() {
    let world = World::new();
    let made = run(&world.git, &tool("git_branch"), json!({ "name": "next" })).await;
    world.ask(&["checkout", "-q", "next"]);
    let (preview, conflicts, _) = revert(&world.git, made.undo.as_ref().unwrap()).await;
    assert_eq!(
        (preview.changes.len(), &conflicts[..]),
        (0, &["git://shop#next: it is checked out".to_owned()][..])
    );
    let refused = world.refusal("git_branch_delete", json!({ "name": "next" })).await;
    assert_eq!(refused, "refused by the target: `next` is checked out");
    let gone = world.refusal("git_branch_delete", json!({ "name": "never" })).await;
    assert_eq!(gone, "gone: no branch `never`");
    let gone = world.refusal("git_branch", json!({ "name": "y", "start": "never" })).await;
    assert_eq!(gone, "gone: `never` is no commit");
    let invalid = world.refusal("git_branch", json!({ "name": "a..b" })).await;
    assert_eq!(invalid, "invalid: this is no name of a branch");
}

#[tokio::test]
async fn what_was_kept_is_forgotten_in_time() {
    let world = World::new();
    world.ask(&["branch", "old"]);
    let gone = run(&world.git, &tool("git_branch_delete"), json!({ "name": "old" })).await;
    let kept = world.ask(&["for-each-ref", "--format=%(refname)", "refs/holdpoint"]);
    assert!(kept.starts_with("refs/holdpoint/undo/2593000000-"), "{kept}");
    assert!(is_ok(&gone.executed.ended));
    let tool = tool("git_branch");
    let parameters = json!({ "name": "new" });
    let now = Timestamp(NOW.0 + 31 * 86_400_000);
    let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now };
    let (_, held) = world.git.preview(proposed).await.unwrap().unwrap();
    // This permit is much too old, so its call is not executed, and nothing is forgotten.
    let executed = execute(&world.git, (&tool, &parameters), held).await;
    let Ended::NotSent { reason: Reason::CouldNotDecide, .. } = executed.ended else { panic!() };
    assert_eq!(world.ask(&["for-each-ref", "--format=%(refname)", "refs/holdpoint"]), kept);
    let name = kept.replace("2593000000", "999999");
    world.ask(&["update-ref", &name, "main"]);
    run(&world.git, &tool, parameters).await;
    assert_eq!(world.ask(&["for-each-ref", "--format=%(refname)", "refs/holdpoint"]), kept);
}

#[tokio::test]
async fn a_push_is_seen_before_made_and_taken_back() {
    let world = World::new();
    let old = world.remote("main");
    let new = world.human("pushed\n");
    let call = json!({ "remote": "origin", "branch": "main" });
    let before = world.state();
    preview(&world.git, &tool("git_push"), &call).await.unwrap();
    assert_eq!(world.state(), before, "a preview changes nothing");
    let done = run(&world.git, &tool("git_push"), call).await;
    assert!(is_ok(&done.executed.ended), "{}", said(&done.executed.ended));
    expect![[r#"
        git://shop/origin#main {"commit":"6de9721e0ff11388e3a1f4ae28ce53cd7898d37d"} => {"commit":"11fb9969f1b395e38788dbad1904f30bfb6f4337"}
        git://shop/origin#main@11fb9969f1b395e38788dbad1904f30bfb6f4337 - => {"author":"Human <human@example.com>","subject":"by hand"}
    "#]].assert_eq(&shown(&done.preview.changes));
    assert_eq!(done.preview.disclosure, Disclosure::Wider);
    assert!(!done.preview.exact && done.preview.notes[0].contains("clones"));
    assert_eq!(world.remote("main"), new);
    let undo = done.undo.unwrap();
    for round in [1, 0] {
        let (preview, conflicts, executed) = revert(&world.git, &undo).await;
        assert_eq!((preview.changes.len(), conflicts.len()), (round, 0));
        assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
        assert_eq!(world.remote("main"), old);
        assert_eq!(world.git.verify(&undo).await, Ok(TargetState::Before));
    }
}

#[tokio::test]
async fn a_push_onto_what_moved_is_not_made() {
    let world = World::new();
    world.human("pushed\n");
    let (call, push) = (json!({ "remote": "origin", "branch": "main" }), tool("git_push"));
    let (_, held) = preview(&world.git, &push, &call).await.unwrap();
    let theirs = world.human_at_remote("theirs\n");
    let executed = execute(&world.git, (&push, &call), held).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.remote("main"), theirs);
    let refused = world.refusal("git_push", call.clone()).await;
    assert_eq!(refused, "refused by the target: the remote's branch would lose 1 commits");
    // The local branch moves after the preview.
    let forced = json!({ "remote": "origin", "branch": "main", "force": true });
    let (_, held) = preview(&world.git, &push, &forced).await.unwrap();
    world.human("more\n");
    let executed = execute(&world.git, (&push, &forced), held).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.remote("main"), theirs);
}

#[tokio::test]
async fn a_forced_push_says_what_is_lost_and_can_put_it_back() {
    let world = World::new();
    let theirs = world.human_at_remote("theirs\n");
    world.human("ours\n");
    let forced = json!({ "remote": "origin", "branch": "main", "force": true });
    let done = run(&world.git, &tool("git_push"), forced).await;
    assert!(is_ok(&done.executed.ended), "{}", said(&done.executed.ended));
    let lost: Vec<_> = done.preview.changes.iter().filter(|it| it.after.is_none()).collect();
    assert_eq!(lost[0].resource, format!("git://shop/origin#main@{theirs}"));
    assert_eq!(lost[0].before.as_ref().unwrap()["subject"], "elsewhere");
    // The remote collects what nothing names any more; here it was kept.
    command(&world.bare(), &["gc", "-q", "--prune=now"]);
    let undo = done.undo.unwrap();
    let (_, _, executed) = revert(&world.git, &undo).await;
    assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.remote("main"), theirs);
}

#[tokio::test]
async fn pushes_by_others_are_kept_and_reported() {
    let world = World::new();
    world.human("pushed\n");
    let call = json!({ "remote": "origin", "branch": "main" });
    let undo = run(&world.git, &tool("git_push"), call).await.undo.unwrap();
    let theirs = world.human_at_remote("on top\n");
    let (preview, conflicts, _) = revert(&world.git, &undo).await;
    assert!(preview.changes.is_empty());
    assert_eq!(
        conflicts,
        ["git://shop/origin#main: it was moved afterwards; later commits are kept"]
    );
    assert_eq!(world.remote("main"), theirs);
    // A revert that was prepared before that does not overwrite it either.
    world.ask(&["branch", "topic"]);
    let call = json!({ "remote": "origin", "branch": "topic" });
    let made = run(&world.git, &tool("git_push"), call).await.undo.unwrap();
    let held = world.git.revert(&made, NOW).await.unwrap();
    assert_eq!(held.preview.changes[0].after, None, "a branch that was made is deleted");
    command(&world.bare(), &["update-ref", "refs/heads/topic", &theirs]);
    let tool: ToolRef = "holdpoint__revert".parse().unwrap();
    let executed = execute(&world.git, (&tool, &json!({})), held.prepared).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.remote("topic"), theirs);
}

#[tokio::test]
async fn a_remote_that_refuses_is_heard() {
    let world = World::new();
    world.human("pushed\n");
    let hook = world.bare().join("hooks/update");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    script(&hook, "echo protected >&2; exit 1");
    let call = json!({ "remote": "origin", "branch": "main" });
    let done = run(&world.git, &tool("git_push"), call).await;
    let Ended::Answered { tool_error: true, body } = &done.executed.ended else { panic!() };
    assert!(body.raw().get().contains("hook declined"), "{}", body.raw());
    assert_eq!(world.git.verify(&done.undo.unwrap()).await, Ok(TargetState::Before));
}

#[tokio::test]
async fn remotes_are_configured_names_of_allowed_transports() {
    let world = World::new();
    let push = |remote: &str| json!({ "remote": remote, "branch": "main" });
    let gone = world.refusal("git_push", push("upstream")).await;
    assert_eq!(gone, "gone: no remote `upstream` is configured");
    let flag = world.folder.path().join("flag");
    let url = format!("ext::sh -c touch% {}", flag.display());
    world.ask(&["remote", "add", "evil", &url]);
    let refused = world.refusal("git_push", push("evil")).await;
    assert!(refused.contains("transport 'ext' not allowed"), "{refused}");
    assert!(!flag.exists());
    let same = world.refusal("git_push", push("origin")).await;
    assert_eq!(same, "refused by the target: the remote's branch is there already");
    let missing = world.folder.path().join("missing.git");
    let url = format!("file://user:hunter2@localhost{}", missing.display());
    world.ask(&["remote", "add", "missing", &url]);
    let unavailable = world.refusal("git_push", push("missing")).await;
    assert!(unavailable.starts_with("unavailable: git ls-remote"), "{unavailable}");
    assert!(!unavailable.contains("hunter2"), "{unavailable}");
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn no_hook_of_the_repository_runs() {
    let world = World::new();
    let flag = world.folder.path().join("flag");
    let hooks = world.work().join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for name in
        ["pre-commit", "post-commit", "reference-transaction", "pre-push", "post-index-change"]
    {
        script(&hooks.join(name), &format!("echo {name} >> {}", flag.display()));
    }
    world.write("a.txt", "two\n");
    let call = json!({ "message": "second", "paths": ["a.txt"] });
    let undo = run(&world.git, &tool("git_commit"), call).await.undo.unwrap();
    let call = json!({ "remote": "origin", "branch": "main" });
    assert!(is_ok(&run(&world.git, &tool("git_push"), call).await.executed.ended));
    revert(&world.git, &undo).await;
    assert!(!flag.exists(), "{}", std::fs::read_to_string(&flag).unwrap());
    // Only if the operator says so.
    let trusting = Git::new(GitSpec { programs: true, ..spec(world.work()) });
    let call = json!({ "name": "with-hooks" });
    assert!(is_ok(&run(&trusting, &tool("git_branch"), call).await.executed.ended));
    assert!(std::fs::read_to_string(&flag).unwrap().contains("reference-transaction"));
}

#[tokio::test]
async fn a_configuration_that_runs_programs_is_refused() {
    let world = World::new();
    let flag = world.folder.path().join("flag");
    let touch = format!("touch {}", flag.display());
    world.write("a.txt", "two\n");
    let commit = json!({ "message": "second", "paths": ["a.txt"] });
    for key in [
        "core.fsmonitor",
        "core.hooksPath",
        "core.sshCommand",
        "core.worktree",
        "filter.x.clean",
        "diff.x.textconv",
        "credential.helper",
        "include.path",
        "url.ext::sh.insteadOf",
        "remote.origin.receivepack",
        "alias.status",
    ] {
        let (_, held) = preview(&world.git, &tool("git_commit"), &commit).await.unwrap();
        let folder = world.folder.path().to_str().unwrap();
        let value = if key == "core.worktree" { folder } else { touch.as_str() };
        world.ask(&["config", key, value]);
        for (name, call) in [
            ("git_status", json!({})),
            ("git_commit", commit.clone()),
            ("git_push", json!({ "remote": "origin", "branch": "main" })),
        ] {
            let refused = world.refusal(name, call).await;
            assert!(refused.contains(&key.to_lowercase()[..8]), "{key}: {refused}");
            assert!(!refused.contains(&touch), "{refused}");
        }
        // Also if it came after the preview.
        let executed = execute(&world.git, (&tool("git_commit"), &commit), held).await;
        assert!(moved(&executed.ended), "{key}: {}", said(&executed.ended));
        let config = world.work().join(".git/config");
        command(&world.work(), &["config", "--file", config.to_str().unwrap(), "--unset", key]);
    }
    world.write(".gitattributes", "a.txt filter=lfs\n");
    let filtered = world.refusal("git_commit", commit).await;
    assert_eq!(filtered, "refused by the target: a file goes through a filter, which is a program");
    assert!(!flag.exists());
}

#[tokio::test]
async fn what_is_under_way_or_not_understood_is_not_committed() {
    let world = World::new();
    let commit = |path: &str| json!({ "message": "m", "paths": [path] });
    let none = world.refusal("git_commit", commit("a.txt")).await;
    assert_eq!(none, "refused by the target: there is nothing to commit");
    let gone = world.refusal("git_commit", commit("never.txt")).await;
    assert!(gone.contains("did not match any files"), "{gone}");
    world.write("a.txt", "two\n");
    world.ask(&["checkout", "-q", "--detach"]);
    let detached = world.refusal("git_commit", commit("a.txt")).await;
    assert_eq!(detached, "refused by the target: no branch is checked out");
    world.ask(&["checkout", "-q", "main"]);
    std::fs::write(world.work().join(".git/MERGE_HEAD"), world.ask(&["rev-parse", "main"]))
        .unwrap();
    let merging = world.refusal("git_commit", commit("a.txt")).await;
    assert_eq!(merging, "refused by the target: something else is under way: MERGE_HEAD");
}

#[tokio::test]
async fn previews_have_a_size() {
    let world = World::new();
    let limits = GitLimits { files_max: 2, commits_max: 2, ..GitLimits::default() };
    let small = Git::new(GitSpec { limits, ..spec(world.work()) });
    for n in 0..3 {
        world.write(&format!("{n}.txt"), "x");
    }
    let call = json!({ "message": "m", "paths": ["0.txt", "1.txt", "2.txt"] });
    let fault = preview(&small, &tool("git_commit"), &call).await.err();
    assert_eq!(fault, Some(ResourceFault::TooLarge("3 files".to_owned())));
    for n in 0..3 {
        world.human(&format!("{n}\n"));
    }
    let call = json!({ "remote": "origin", "branch": "main" });
    let fault = preview(&small, &tool("git_push"), &call).await.err();
    assert_eq!(fault, Some(ResourceFault::TooLarge("more than 2 commits".to_owned())));
    let limits = GitLimits { output_bytes_max: 100, ..GitLimits::default() };
    let small = Git::new(GitSpec { limits, ..spec(world.work()) });
    let done = run(&small, &tool("git_log"), json!({})).await;
    let Ended::NotSent { reason: Reason::UpstreamInvalid, .. } = done.executed.ended else {
        panic!("{}", said(&done.executed.ended))
    };
}

#[tokio::test]
async fn reads_are_served_and_have_nothing_to_undo() {
    let world = World::new();
    world.write("a.txt", "two\n");
    let before = world.state();
    for (name, call, expected) in [
        ("git_status", json!({}), "a.txt"),
        ("git_diff", json!({ "paths": ["a.txt"] }), "+two"),
        ("git_diff", json!({ "from": "HEAD", "staged": true }), ""),
        ("git_log", json!({ "limit": 1 }), "first"),
    ] {
        let done = run(&world.git, &tool(name), call).await;
        assert!(is_ok(&done.executed.ended) && done.undo.is_none());
        assert!(said(&done.executed.ended).contains(expected), "{}", said(&done.executed.ended));
        assert_eq!(done.preview.guarantee, Reversibility::NoEffect);
    }
    assert_eq!(world.state(), before);
    let other = ToolRef::new("other".parse().unwrap(), "git_status").unwrap();
    let proposed = Proposed { tool: &other, parameters: &json!({}), effects: &[], now: NOW };
    assert!(world.git.preview(proposed).await.unwrap().is_none());
    let names: Vec<_> = Git::tools().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names.len(), 7);
}

#[tokio::test]
async fn a_permit_for_something_else_moves_no_ref() {
    let world = World::new();
    let (call, branch) = (json!({ "name": "x" }), tool("git_branch"));
    for other in [permit(&branch, &json!({ "name": "y" })), permit(&tool("git_push"), &call)] {
        let (_, held) = preview(&world.git, &branch, &call).await.unwrap();
        let around = (Cancels::default(), nowhere());
        let executed = world.git.execute(other, held, around).await;
        let Ended::NotSent { reason: Reason::CouldNotDecide, .. } = executed.ended else {
            panic!()
        };
    }
    let cancels = Cancels::default();
    cancels.stop.cancel();
    let (_, held) = preview(&world.git, &branch, &call).await.unwrap();
    let executed = world.git.execute(permit(&branch, &call), held, (cancels, nowhere())).await;
    let Ended::NotSent { reason: Reason::CancelledByStop, .. } = executed.ended else { panic!() };
    assert_eq!(world.ask(&["branch", "--list", "x"]), "");
}

#[tokio::test]
async fn an_index_in_use_keeps_no_branch_from_moving() {
    let world = World::new();
    world.write("a.txt", "two\n");
    let lock = world.work().join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    let call = json!({ "message": "second", "paths": ["a.txt"] });
    let done = run(&world.git, &tool("git_commit"), call).await;
    let told = said(&done.executed.ended);
    assert!(is_ok(&done.executed.ended), "{told}");
    assert!(told.contains("the index was left as it is"), "{told}");
    std::fs::remove_file(lock).unwrap();
    let undo = done.undo.unwrap();
    assert_eq!(world.git.verify(&undo).await, Ok(TargetState::After));
    revert(&world.git, &undo).await;
    assert_eq!(world.ask(&["status", "--porcelain"]), " M a.txt");
}

#[tokio::test]
async fn a_stopped_push_is_in_doubt_and_told_by_the_remote() {
    let world = World::new();
    let old = world.remote("main");
    world.human("pushed\n");
    let flag = world.folder.path().join("flag");
    let hook = world.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    script(&hook, &format!("echo up > {}; exec sleep 60", flag.display()));
    let (call, push) = (json!({ "remote": "origin", "branch": "main" }), tool("git_push"));
    let (_, held) = preview(&world.git, &push, &call).await.unwrap();
    let undo = world.git.undo(&held).unwrap();
    let cancels = Cancels::default();
    let (stop, gone) = (cancels.stop.clone(), cancels.gone.clone());
    let watch = tokio::spawn(async move {
        while !flag.exists() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    let executed = world.git.execute(permit(&push, &call), held, (cancels, nowhere())).await;
    watch.await.unwrap();
    let Ended::InDoubt { reason: Reason::CancelledByStop, .. } = executed.ended else {
        panic!("{}", said(&executed.ended))
    };
    assert!(gone.is_cancelled(), "nothing of it runs any more");
    assert_eq!(world.remote("main"), old);
    assert_eq!(world.git.verify(&undo).await, Ok(TargetState::Before));
    let (preview, conflicts, _) = revert(&world.git, &undo).await;
    assert!(preview.changes.is_empty() && conflicts.is_empty());
}
