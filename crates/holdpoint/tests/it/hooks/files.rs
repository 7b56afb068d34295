//! What a host does to files: seen before it is told yes, kept, and put back.

use super::{after, ask, before, blocked, decision, held, of_kind, run, world};
use crate::world::{World, text};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A world whose host's changes in the `files` folder are kept.
pub(super) fn kept(mode: &str, more: &str) -> World {
    let world = world(mode, "undo = { files = [\"${files}\"] }");
    let config = fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    world.write_config(&format!("{config}\n{more}"));
    world
}

fn file(world: &World, name: &str) -> PathBuf {
    world.files().join(name)
}

fn edit(world: &World, name: &str, (old, new): (&str, &str)) -> (&'static str, Value) {
    let path = file(world, name);
    ("Edit", json!({ "file_path": path, "old_string": old, "new_string": new }))
}

fn write(world: &World, name: &str, content: &str) -> (&'static str, Value) {
    ("Write", json!({ "file_path": file(world, name), "content": content }))
}

fn allowed(world: &World, id: &str, call: (&str, Value)) -> String {
    let (said, why) = ask(world, id, call);
    assert_eq!(said, "allow", "{why}");
    let decided = of_kind(world, "decision").pop().unwrap();
    decided["action"].as_str().unwrap().to_owned()
}

fn told(world: &World, id: &str, tool: &str) {
    let told = run(world, after(world, id, tool).to_string().as_bytes());
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
}

/// What a revert says, and its exit code.
fn revert(world: &World, action: &str) -> (Option<i32>, String) {
    let run = world.run(&["revert", action, "--because", "not so"]);
    (run.status.code(), format!("{}{}", text(&run.stdout), text(&run.stderr)))
}

fn preview(world: &World) -> Value {
    of_kind(world, "decision").pop().unwrap()["facts"]["preview"].clone()
}

#[test]
fn what_a_host_edits_is_seen_approved_kept_and_put_back() {
    for by_serve in [false, true] {
        let world = kept("approve-writes", "");
        let notes = file(&world, "notes.txt");
        fs::write(&notes, "one\ntwo\nthree\n").unwrap();
        fs::set_permissions(&notes, fs::Permissions::from_mode(0o640)).unwrap();
        let serve = by_serve.then(|| world.serve());
        let call = || edit(&world, "notes.txt", ("two", "2 $& $1"));
        let id = held(ask(&world, "toolu_1", call()));
        let shown = world.must(&["approvals", &id]);
        assert!(shown.contains("-two") && shown.contains("+2 $& $1"), "{shown}");
        world.must(&["approve", &id, "--because", "fine"]);
        // One byte of the file is another approval.
        fs::write(&notes, "one\ntwo\nthreE\n").unwrap();
        assert_ne!(held(ask(&world, "toolu_2", call())), id);
        fs::write(&notes, "one\ntwo\nthree\n").unwrap();
        let action = allowed(&world, "toolu_3", call());
        let seen = preview(&world);
        assert_eq!((&seen["exact"], &seen["guarantee"]), (&json!(true), &json!("exact")), "{seen}");
        // A host keeps the mode of a file that is there.
        assert!(!shown.contains("chooses its mode"), "{shown}");
        let why = world.must(&["why", &action]);
        assert!(!why.contains("beyond its own domain"), "{why}");
        // Sealed, before the host does anything.
        let sealed = fs::read_dir(world.store().join("archive")).unwrap();
        let sealed: Vec<_> = sealed.map(|entry| entry.unwrap().path()).collect();
        let undo = sealed.iter().find(|path| path.to_string_lossy().contains(&action));
        let undo = fs::read(undo.unwrap_or_else(|| panic!("{sealed:?}"))).unwrap();
        assert!(!text(&undo).contains("three"), "{}", text(&undo));
        fs::write(&notes, "one\n2 $& $1\nthree\n").unwrap();
        told(&world, "toolu_3", "Edit");

        let back = world.must(&["revert", &action, "--because", "not so"]);
        assert!(back.contains("restored"), "{back}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(fs::metadata(&notes).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(world.must(&["revert", &action, "--because", "again"]).contains("unchanged"));
        // What somebody wrote meanwhile is kept.
        fs::write(&notes, "mine\n").unwrap();
        let (code, said) = revert(&world, &action);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("it was changed since"), "{said}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "mine\n");
        if let Some(serve) = serve {
            serve.end();
        }
        world.must(&["verify"]);
        world.must(&["replay"]);
    }
}

#[test]
fn a_folder_that_is_not_there_is_named_to_the_agent_and_by_check() {
    let world = world("auto", "undo = { files = [\"${files}/gone\"] }");
    let gone = file(&world, "gone").display().to_string();
    let (said, why) = ask(&world, "toolu_1", write(&world, "gone/notes.txt", "one\n"));
    assert_eq!(said, "deny", "{why}");
    for part in ["preview_unavailable", &gone, "an operator has to make it", "or report"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let check = world.run(&["check"]);
    let told = text(&check.stderr);
    let expected = format!("server `claude`: there is no folder `{gone}`");
    assert!(check.status.success() && told.contains(&expected), "{told}");
    fs::create_dir(&gone).unwrap();
    assert!(!text(&world.run(&["check"]).stderr).contains("there is no folder"));
    allowed(&world, "toolu_2", write(&world, "gone/notes.txt", "one\n"));
    let mode = world.json(&["log", "--limit", "1"]);
    assert!(mode.to_string().contains("whoever writes it chooses its mode"), "{mode}");
}

#[test]
fn a_task_is_taken_back_by_its_whole_id_alone() {
    let world = kept("auto", "");
    let short = world.run(&["revert", "--task", "0b7e4e9c", "--because", "no"]);
    assert_eq!(short.status.code(), Some(2), "{}", text(&short.stderr));
    assert!(text(&short.stderr).contains("in full"), "{}", text(&short.stderr));
}

#[test]
fn new_files_of_a_host_go_with_the_folders_that_it_made() {
    let world = kept("auto", "");
    fs::create_dir(file(&world, "src")).unwrap();
    let action = allowed(&world, "toolu_1", write(&world, "src/a/b/new", "hello\n"));
    assert_eq!(preview(&world)["counts"], json!({ "created": 3, "updated": 0, "deleted": 0 }));
    fs::create_dir_all(file(&world, "src/a/b")).unwrap();
    fs::write(file(&world, "src/a/b/new"), "hello\n").unwrap();
    told(&world, "toolu_1", "Write");
    world.must(&["revert", &action, "--because", "not so"]);
    assert_eq!(fs::read_dir(file(&world, "src")).unwrap().count(), 0);

    // A folder stays in which somebody put something since, and only that is reported.
    let action = allowed(&world, "toolu_2", write(&world, "src/q/made", "hello\n"));
    fs::create_dir(file(&world, "src/q")).unwrap();
    fs::write(file(&world, "src/q/made"), "hello\n").unwrap();
    told(&world, "toolu_2", "Write");
    fs::write(file(&world, "src/q/mine"), "mine\n").unwrap();
    let (code, said) = revert(&world, &action);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.starts_with("partly "), "{said}");
    assert!(said.contains("/src/q: ") && said.matches("  kept ").count() == 1, "{said}");
    assert!(!file(&world, "src/q/made").exists() && file(&world, "src/q/mine").exists());
}

#[test]
fn a_host_that_never_tells_is_taken_back_from_what_was_foreseen() {
    let world = kept("auto", "");
    let notes = file(&world, "notes.txt");
    fs::write(&notes, "one\n").unwrap();
    let serve = world.serve();
    let action = allowed(&world, "toolu_1", write(&world, "notes.txt", "two\n"));
    // All of Holdpoint dies, and the host goes on.
    serve.kill();
    let look = world.run(&["revert", &action, "--dry-run"]);
    assert!(text(&look.stdout).contains("nothing to put back"), "{}", text(&look.stdout));
    fs::write(&notes, "two\n").unwrap();
    let back = world.must(&["revert", &action, "--because", "it crashed"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(fs::read_to_string(&notes).unwrap(), "one\n");

    // Where nothing was foreseen, nobody can tell whose change it is.
    let notebook = json!({ "notebook_path": file(&world, "n.ipynb"), "new_source": "x" });
    fs::write(file(&world, "n.ipynb"), "{}").unwrap();
    let action = allowed(&world, "toolu_2", ("NotebookEdit", notebook));
    assert_eq!(preview(&world)["exact"], false);
    fs::write(file(&world, "n.ipynb"), "{\"cells\":[]}").unwrap();
    let (code, said) = revert(&world, &action);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("what the action left there was not seen"), "{said}");
    assert_eq!(fs::read_to_string(file(&world, "n.ipynb")).unwrap(), "{\"cells\":[]}");
    told(&world, "toolu_2", "NotebookEdit");
    world.must(&["revert", &action, "--because", "now it is seen"]);
    assert_eq!(fs::read_to_string(file(&world, "n.ipynb")).unwrap(), "{}");
    world.must(&["verify"]);
}

#[test]
fn what_others_change_while_a_host_is_at_it_is_kept_and_reported() {
    let world = kept("auto", "");
    let notes = file(&world, "notes.txt");
    fs::write(&notes, "one\ntwo\n").unwrap();
    let action = allowed(&world, "toolu_1", edit(&world, "notes.txt", ("two", "2")));
    // Somebody else's line is there before the host's own look.
    fs::write(&notes, "one\n2\nmine\n").unwrap();
    told(&world, "toolu_1", "Edit");
    let (code, said) = revert(&world, &action);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("it was changed since"), "{said}");
    assert_eq!(fs::read_to_string(&notes).unwrap(), "one\n2\nmine\n");
    // A host that tells before it has done anything has left nothing that could be told.
    let notebook = json!({ "notebook_path": file(&world, "n.ipynb"), "new_source": "x" });
    fs::write(file(&world, "n.ipynb"), "{}").unwrap();
    let action = allowed(&world, "toolu_2", ("NotebookEdit", notebook));
    told(&world, "toolu_2", "NotebookEdit");
    fs::write(file(&world, "n.ipynb"), "{\"cells\":[]}").unwrap();
    let (code, said) = revert(&world, &action);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("what the action left there was not seen"), "{said}");
}

#[test]
fn what_cannot_be_kept_of_a_hosts_files_is_no_yes() {
    let world = kept("auto", "");
    let (outside, inside) = (world.path().join("outside"), file(&world, "sub"));
    fs::create_dir(&inside).unwrap();
    fs::write(&outside, "x\n").unwrap();
    symlink(&outside, file(&world, "link")).unwrap();
    symlink(world.path(), file(&world, "way")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        file(&world, "pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let refused = |call: (&str, Value), part: &str| {
        let (said, why) = ask(&world, "toolu_1", call);
        assert_eq!(said, "deny", "{why}");
        assert!(why.contains(part), "{why}");
    };
    refused(write(&world, "link", "y\n"), "is a link; name the file itself");
    refused(write(&world, "way/outside", "y\n"), "leads through the link `way`");
    refused(write(&world, "pipe", "y\n"), "neither a file nor a folder nor a link");
    // Put back, it would be ours, and lend our rights to whoever runs it.
    fs::write(file(&world, "tool"), "x\n").unwrap();
    fs::set_permissions(file(&world, "tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    refused(write(&world, "tool", "y\n"), "(setuid, setgid)");
    // What is too large to be kept is for a person to decide.
    fs::File::create(file(&world, "large")).unwrap().set_len(9 << 20).unwrap();
    let (said, why) = ask(&world, "toolu_2", write(&world, "large", "y\n"));
    assert_eq!(said, "deny", "{why}");
    assert!(why.contains("too large: ") && why.contains("The approval "), "{why}");
    // Where nothing can be kept, nothing is allowed.
    let call = write(&world, "sub/made", "y\n");
    let archive = world.store().join("archive");
    if archive.exists() {
        fs::remove_dir_all(&archive).unwrap();
    }
    fs::write(&archive, "no folder").unwrap();
    let event = before(&world, "toolu_3", call.clone()).to_string();
    let (said, why) = decision(&run(&world, event.as_bytes()));
    assert_eq!(said, "deny", "{why}");
    assert!(why.contains("cannot be kept"), "{why}");
    assert_eq!(of_kind(&world, "outcome")[0]["status"], "not_sent");
    blocked(
        &run(&world, after(&world, "toolu_3", "Write").to_string().as_bytes()),
        "no permitted call is open",
    );
    fs::remove_file(&archive).unwrap();
    allowed(&world, "toolu_4", call);
}

#[test]
fn edits_that_would_make_too_much_of_a_file_are_held_before_any_of_it_is_made() {
    let world = kept("auto", "");
    let config = fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    world
        .write_config(&config.replace("message_bytes_max = 65536", "message_bytes_max = 16777216"));
    fs::write(file(&world, "many"), "a".repeat(1 << 20)).unwrap();
    let large = |id: &str, call: (&str, Value), part: &str| {
        let (said, why) = ask(&world, id, call);
        assert_eq!(said, "deny", "{why}");
        assert!(why.contains("too large: ") && why.contains(part), "{why}");
    };
    let path = file(&world, "many");
    let new = "b".repeat(1 << 18);
    let all = json!({ "old_string": "a", "new_string": new, "replace_all": true });
    let all = json!({ "file_path": path, "edits": [all] });
    large("toolu_1", ("MultiEdit", all), &format!("{} bytes", 1_u64 << 38));
    // Each doubles the text; nobody goes through it for ever either.
    let doubled = json!({ "old_string": "a", "new_string": "aa", "replace_all": true });
    let twice = json!({ "file_path": path, "edits": vec![doubled; 40] });
    large("toolu_2", ("MultiEdit", twice), "bytes");
    let same = json!({ "old_string": "a", "new_string": "a", "replace_all": true });
    let often = json!({ "file_path": path, "edits": vec![same; 1000] });
    large("toolu_3", ("MultiEdit", often), "too often");
    large("toolu_4", write(&world, "new", &"x".repeat(9 << 20)), "bytes");
    fs::write(file(&world, "n.ipynb"), "{}").unwrap();
    let source = "x".repeat(2 << 20);
    let notebook = json!({ "notebook_path": file(&world, "n.ipynb"), "new_source": source });
    large("toolu_5", ("NotebookEdit", notebook), "bytes");
}

#[test]
fn a_revert_of_a_session_passes_over_what_cannot_be_taken_back() {
    let world = kept("auto", "");
    fs::write(file(&world, "a.txt"), "one\n").unwrap();
    fs::write(file(&world, "b.txt"), "one\n").unwrap();
    let first = allowed(&world, "toolu_1", edit(&world, "a.txt", ("one", "two")));
    fs::write(file(&world, "a.txt"), "two\n").unwrap();
    told(&world, "toolu_1", "Edit");
    allowed(&world, "toolu_2", edit(&world, "b.txt", ("one", "two")));
    fs::write(file(&world, "b.txt"), "two\n").unwrap();
    told(&world, "toolu_2", "Edit");
    allowed(&world, "toolu_3", ("Bash", json!({ "command": "touch made" })));
    told(&world, "toolu_3", "Bash");

    let session = "0b7e4e9c-30a5-4d8e-9d0b-2c6f8f0f8f11";
    let back = || {
        let run = world.run(&["revert", "--task", session, "--because", "not so"]);
        (run.status.code(), text(&run.stdout))
    };
    // What somebody changed since is kept, and then nothing before it is touched.
    fs::write(file(&world, "b.txt"), "mine\n").unwrap();
    let (code, said) = back();
    assert_eq!(code, Some(5), "{said}");
    for part in ["impossible ", "of claude__Bash, ", "nothing was put back", "of claude__Edit, "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains(&format!("not tried, because they came before it: {first}")), "{said}");
    assert_eq!(fs::read_to_string(file(&world, "a.txt")).unwrap(), "two\n");
    fs::write(file(&world, "b.txt"), "two\n").unwrap();
    let (code, said) = back();
    assert_eq!((code, said.matches("restored ").count()), (Some(5), 2), "{said}");
    for name in ["a.txt", "b.txt"] {
        assert_eq!(fs::read_to_string(file(&world, name)).unwrap(), "one\n");
    }
}

#[test]
fn what_lies_outside_of_a_hosts_roots_is_as_before() {
    let world = kept("auto", "");
    let outside = world.path().join("outside");
    let call = || ("Write", json!({ "file_path": outside, "content": "y\n" }));
    let (said, _) = ask(&world, "toolu_1", call());
    let plain = super::world("auto", "");
    assert_eq!(ask(&plain, "toolu_1", call()).0, said);
    assert_eq!(preview(&world), Value::Null);
    // Neither is what a shell does: it may go on after the host told of it.
    let action = allowed(&world, "toolu_2", ("Bash", json!({ "command": "touch made" })));
    assert_eq!(preview(&world), Value::Null);
    told(&world, "toolu_2", "Bash");
    let (code, why) = revert(&world, &action);
    assert_eq!(code, Some(5), "{why}");
    assert!(why.contains("nothing was captured"), "{why}");
}

#[test]
fn policies_see_how_well_a_hosts_call_can_be_taken_back() {
    let world = kept("auto", "[policies]\npath = \"policies\"");
    let starter = include_str!("../../../../../policies/starter.cedar");
    let more = r#"
@id("only-what-was-seen")
@reason("Only what the arguments say in full.")
forbid (principal, action, resource)
when { context.door == "hook" && context.guarantee == "exact" && !context.exact };
"#;
    fs::create_dir(world.path().join("policies")).unwrap();
    fs::write(world.path().join("policies/all.cedar"), format!("{starter}{more}")).unwrap();
    fs::write(file(&world, "a.txt"), "one\none\n").unwrap();
    allowed(&world, "toolu_1", write(&world, "b.txt", "y\n"));
    // Which of them is meant is not said.
    let (said, why) = ask(&world, "toolu_2", edit(&world, "a.txt", ("one", "two")));
    assert_eq!(said, "deny", "{why}");
    assert!(why.contains("only-what-was-seen"), "{why}");
}
