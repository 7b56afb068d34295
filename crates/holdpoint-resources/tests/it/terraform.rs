//! A real terraform with its built-in provider: plans that are the preview, applies of exactly that
//! file, reverts by the configuration from before. Left out, aloud, where there is no terraform.

use crate::peer::said;
use crate::permits::{NOW, permit};
use crate::resources::{Done, execute, nowhere, preview, revert, run, shown};
use expect_test::expect;
use holdpoint_resources::resource::{Proposed, Resource as _, ResourceFault, TargetState, Undo};
use holdpoint_resources::{Cancels, Ended, Terraform, TerraformLimits, TerraformSpec};
use holdpoint_types::{Reason, Reversibility, ToolRef};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const ONE: &str = "resource \"terraform_data\" \"one\" { input = \"1\" }\n";
const TWO: &str = "resource \"terraform_data\" \"two\" { input = \"2\" }\n";
const SECRET: &str = "variable \"word\" {\n  default = \"hunter2\"\n  sensitive = true\n}\n\
     resource \"terraform_data\" \"secret\" { input = var.word }\n";

/// A root module, initialised, and Holdpoint's folder beside it.
struct World {
    folder: TempDir,
    terraform: Terraform,
}

impl World {
    /// `None` where there is no terraform: CI cannot install it, for its registry is none of those
    /// that CI reaches.
    fn new(configuration: &str) -> Option<Self> {
        let there = Command::new("terraform").arg("version").stdout(Stdio::null()).status();
        if there.is_err() {
            // Past the harness, which keeps what tests that pass have printed.
            let _ = writeln!(std::io::stderr(), "left out: there is no `terraform`");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let terraform = Terraform::new(spec(&folder));
        let world = Self { folder, terraform };
        world.write(configuration);
        world.by_hand(&["init"]);
        Some(world)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, configuration: &str) {
        std::fs::write(self.root().join("main.tf"), configuration).unwrap();
    }

    /// What somebody does at a terminal.
    fn by_hand(&self, words: &[&str]) -> String {
        let mut command = Command::new("terraform");
        command.current_dir(self.root()).args(words).env("CHECKPOINT_DISABLE", "1");
        let output = command.env("TF_CLI_ARGS", "-no-color").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn state(&self) -> String {
        std::fs::read_to_string(self.root().join("terraform.tfstate")).unwrap_or_default()
    }

    /// The inputs of what there is, by name.
    fn inputs(&self) -> BTreeMap<String, String> {
        let shown: Value = serde_json::from_str(&self.by_hand(&["show", "-json"])).unwrap();
        let resources = shown["values"]["root_module"]["resources"].as_array().cloned();
        let input = |it: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&it["name"]), text(&it["values"]["input"]))
        };
        resources.unwrap_or_default().iter().map(input).collect()
    }

    async fn plan(&self, configuration: &str) -> Value {
        self.write(configuration);
        let done = run(&self.terraform, &tool("terraform_plan"), json!({})).await;
        json!({ "plan": planned(&done)["plan"] })
    }

    async fn apply(&self, configuration: &str) -> Done {
        let call = self.plan(configuration).await;
        let done = run(&self.terraform, &apply(), call).await;
        assert!(is_ok(&done.executed.ended), "{}", said(&done.executed.ended));
        done
    }

    async fn refusal(&self, call: &Value) -> String {
        match preview(&self.terraform, &apply(), call).await {
            Ok((preview, _)) => panic!("not refused: {preview:?}"),
            Err(fault) => fault.to_string(),
        }
    }

    async fn plan_refused(&self) -> String {
        let done = run(&self.terraform, &tool("terraform_plan"), json!({})).await;
        assert!(!is_ok(&done.executed.ended));
        said(&done.executed.ended)
    }
}

fn spec(folder: &TempDir) -> TerraformSpec {
    TerraformSpec {
        server: "infra".parse().unwrap(),
        place: "tf://shop".to_owned(),
        directory: folder.path().join("root"),
        folder: folder.path().join("own"),
        program: "terraform".into(),
        workspace: None,
        env: BTreeMap::new(),
        stateful: BTreeSet::new(),
        timeout: Duration::from_secs(120),
        apply_timeout: Duration::from_secs(120),
        grace: Duration::from_secs(60),
        limits: TerraformLimits::default(),
    }
}

fn tool(name: &str) -> ToolRef {
    ToolRef::new("infra".parse().unwrap(), name).unwrap()
}

fn apply() -> ToolRef {
    tool("terraform_apply")
}

fn is_ok(ended: &Ended) -> bool {
    matches!(ended, Ended::Answered { tool_error: false, .. })
}

fn moved(ended: &Ended) -> bool {
    matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. })
}

/// What a plan was answered with.
fn planned(done: &Done) -> Value {
    let Ended::Answered { body, tool_error: false } = &done.executed.ended else {
        panic!("{}", said(&done.executed.ended))
    };
    serde_json::from_str::<Value>(body.raw().get()).unwrap()["structuredContent"].clone()
}

/// The id of a thing is another one each time.
fn without_ids(text: &str) -> String {
    let mut parts = text.split("\"id\":\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (_, rest) = part.split_once('"').unwrap();
        format!("{text}\"id\":\"ID\"{rest}")
    })
}

#[tokio::test]
async fn a_plan_is_seen_applied_and_taken_back() {
    let Some(world) = World::new("") else { return };
    let call = world.plan(&format!("{ONE}{SECRET}")).await;
    let before = world.state();
    let (seen, _) = preview(&world.terraform, &apply(), &call).await.unwrap();
    let (again, _) = preview(&world.terraform, &apply(), &call).await.unwrap();
    assert_eq!((world.state(), seen.digest()), (before, again.digest()));
    expect![[r#"
        tf://shop/terraform_data.one - => {"id":"(known after apply)","input":"1","output":"(known after apply)","triggers_replace":null}
        tf://shop/terraform_data.secret - => {"id":"(known after apply)","input":"(sensitive)","output":"(known after apply)","triggers_replace":null}
    "#]].assert_eq(&shown(&seen.changes));
    assert_eq!(seen.notes[0], format!("plan {}", call["plan"].as_str().unwrap()));
    let Done { undo, executed, .. } = run(&world.terraform, &apply(), call).await;
    assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs().len(), 2);
    let undo = undo.unwrap();
    assert_eq!(undo.guarantee, Reversibility::Compensable);
    assert_eq!(world.terraform.verify(&undo).await, Ok(TargetState::After));
    for changes in [2, 0] {
        let (preview, conflicts, executed) = revert(&world.terraform, &undo).await;
        assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
        assert_eq!(preview.changes.len(), changes);
        assert_eq!(world.inputs(), BTreeMap::new());
        assert_eq!(world.terraform.verify(&undo).await, Ok(TargetState::Before));
    }
}

#[tokio::test]
async fn secrets_are_redacted_wherever_somebody_reads() {
    let Some(world) = World::new(SECRET) else { return };
    let done = run(&world.terraform, &tool("terraform_plan"), json!({})).await;
    let call = json!({ "plan": planned(&done)["plan"] });
    let applied = run(&world.terraform, &apply(), call).await;
    let (preview, _, reverted) = revert(&world.terraform, applied.undo.as_ref().unwrap()).await;
    let texts = [
        said(&done.executed.ended),
        format!("{:?}", applied.preview),
        said(&applied.executed.ended),
        format!("{preview:?}"),
        said(&reverted.ended),
    ];
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
    world.write(&format!("{SECRET}output \"x\" {{\n  value = nothing.at.all\n}}"));
    // A plan that fails says why, and not what the configuration holds besides.
    let failed = world.plan_refused().await;
    assert!(failed.contains("Reference to undeclared resource"), "{failed}");
    assert!(!failed.contains("hunter2"), "{failed}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let own = world.folder.path().join("own");
        assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(own).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
    }
}

#[tokio::test]
async fn updates_and_deletes_go_back_to_the_configuration_from_before() {
    let Some(world) = World::new("") else { return };
    world.apply(&format!("{ONE}{TWO}{SECRET}")).await;
    let next = "resource \"terraform_data\" \"one\" { input = \"other\" }\n\
        resource \"terraform_data\" \"two\" {\n  input = \"2\"\n  triggers_replace = \"x\"\n}\n\
        resource \"terraform_data\" \"three\" { input = \"3\" }\n";
    let done = world.apply(next).await;
    expect![[r#"
        tf://shop/terraform_data.one {"id":"ID","input":"1","output":"1","triggers_replace":null} => {"id":"ID","input":"other","output":"(known after apply)","triggers_replace":null}
        tf://shop/terraform_data.secret {"id":"ID","input":"(sensitive)","output":"(sensitive)","triggers_replace":null} => -
        tf://shop/terraform_data.three - => {"id":"ID","input":"3","output":"(known after apply)","triggers_replace":null}
        tf://shop/terraform_data.two {"id":"ID","input":"2","output":"2","triggers_replace":null} => {"id":"ID","input":"2","output":"(known after apply)","triggers_replace":"x"}
    "#]].assert_eq(&without_ids(&shown(&done.preview.changes)));
    let notes: Vec<_> = done.preview.notes[1..].to_vec();
    assert_eq!(
        notes,
        [
            "delete terraform_data.secret (delete_because_no_resource_config)",
            "replace terraform_data.two (replace_because_cannot_update)"
        ]
    );
    let undo = done.undo.unwrap();
    assert_eq!(world.terraform.verify(&undo).await, Ok(TargetState::After));
    let (preview, conflicts, first) = revert(&world.terraform, &undo).await;
    assert!(conflicts.is_empty() && is_ok(&first.ended), "{}", said(&first.ended));
    assert_eq!(preview.changes.len(), 4);
    assert!(
        preview
            .notes
            .contains(&"terraform_data.secret may come back with other: id, output".to_owned()),
        "{:?}",
        preview.notes
    );
    let back = BTreeMap::from([("one", "1"), ("two", "2"), ("secret", "hunter2")]);
    let back: BTreeMap<_, _> =
        back.into_iter().map(|(name, input)| (name.to_owned(), input.to_owned())).collect();
    assert_eq!(world.inputs(), back);
    // What was made anew is not what it was, and that is said.
    let (preview, conflicts, executed) = revert(&world.terraform, &undo).await;
    assert!(preview.changes.is_empty() && is_ok(&executed.ended));
    let anew = "it was made anew, by a revert or by somebody else";
    assert_eq!(
        conflicts,
        ["secret", "two"].map(|name| format!("tf://shop/terraform_data.{name}: {anew}"))
    );
    assert_eq!(world.inputs(), back);
    // The revert can be taken back too.
    revert(&world.terraform, &first.undo.unwrap()).await;
    let forth = BTreeMap::from([("one", "other"), ("two", "2"), ("three", "3")]);
    let forth: BTreeMap<_, _> =
        forth.into_iter().map(|(name, input)| (name.to_owned(), input.to_owned())).collect();
    assert_eq!(world.inputs(), forth);
}

#[tokio::test]
async fn what_somebody_changed_later_is_kept_and_reported() {
    let Some(world) = World::new("") else { return };
    world.apply(&format!("{ONE}{TWO}")).await;
    let changed = format!("{ONE}{TWO}").replace("\"1\"", "\"1b\"").replace("\"2\"", "\"2b\"");
    let undo = world.apply(&changed).await.undo.unwrap();
    world.write(&changed.replace("\"1b\"", "\"by hand\""));
    world.by_hand(&["apply", "-auto-approve"]);
    let TargetState::Changed(conflicts) = world.terraform.verify(&undo).await.unwrap() else {
        panic!()
    };
    assert_eq!(conflicts[0].resource, "tf://shop/terraform_data.one");
    let (preview, conflicts, executed) = revert(&world.terraform, &undo).await;
    assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(conflicts, ["tf://shop/terraform_data.one: it was changed afterwards"]);
    assert_eq!(preview.changes.len(), 1);
    let inputs = world.inputs();
    assert_eq!((inputs["one"].as_str(), inputs["two"].as_str()), ("by hand", "2"));
}

#[tokio::test]
async fn a_plan_whose_state_moved_is_not_applied() {
    let Some(world) = World::new(ONE) else { return };
    let call = world.plan(ONE).await;
    let (_, held) = preview(&world.terraform, &apply(), &call).await.unwrap();
    world.write(TWO);
    world.by_hand(&["apply", "-auto-approve"]);
    let executed = execute(&world.terraform, (&apply(), &call), held).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs().into_keys().collect::<Vec<_>>(), ["two"]);
    let stale = world.refusal(&call).await;
    assert!(stale.starts_with("refused by the target: the plan is stale"), "{stale}");
    // Two that were previewed at one time: one is applied.
    let call = world.plan(&format!("{ONE}{TWO}")).await;
    let (_, one) = preview(&world.terraform, &apply(), &call).await.unwrap();
    let (_, two) = preview(&world.terraform, &apply(), &call).await.unwrap();
    assert!(is_ok(&execute(&world.terraform, (&apply(), &call), one).await.ended));
    assert!(moved(&execute(&world.terraform, (&apply(), &call), two).await.ended));
    assert_eq!(world.inputs().len(), 2);
}

#[tokio::test]
async fn exactly_the_previewed_bytes_are_applied() {
    let Some(world) = World::new(ONE) else { return };
    let call = world.plan(ONE).await;
    let other = world.plan(TWO).await;
    let own = world.folder.path().join("own");
    let file = |call: &Value| {
        let name = call["plan"].as_str().unwrap().replace("sha256:", "");
        own.join(format!("{name}.tfplan"))
    };
    let (_, held) = preview(&world.terraform, &apply(), &call).await.unwrap();
    // Another plan under its name, which terraform itself would take.
    std::fs::copy(file(&other), file(&call)).unwrap();
    assert_eq!(world.refusal(&call).await, "refused by the target: the plan was changed");
    // What was previewed is what is applied, whatever lies there and whatever is configured by now.
    world.write(TWO);
    let executed = execute(&world.terraform, (&apply(), &call), held).await;
    assert!(is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs().into_keys().collect::<Vec<_>>(), ["one"]);
    let none = json!({ "plan": format!("sha256:{}", "0".repeat(64)) });
    let gone = world.refusal(&none).await;
    assert_eq!(gone, "gone: there is no plan with this id; plan again");
    let path = world.refusal(&json!({ "plan": "../../etc/passwd" })).await;
    assert_eq!(path, "invalid: `plan` is no id of a plan");
}

#[tokio::test]
async fn a_plan_that_destroys_everything_is_refused() {
    let Some(world) = World::new("") else { return };
    world.apply(&format!("{ONE}{TWO}")).await;
    let call = world.plan("").await;
    let refused = world.refusal(&call).await;
    assert_eq!(
        refused,
        "refused by the target: the plan destroys everything there is: 2 resources"
    );
    // One of two may go.
    world.apply(ONE).await;
    assert_eq!(world.inputs().len(), 1);
}

#[tokio::test]
async fn a_lost_or_older_or_other_state_is_refused() {
    let Some(world) = World::new("") else { return };
    world.apply(ONE).await;
    let old = world.state();
    let call = world.plan(&format!("{ONE}{TWO}")).await;
    let undo = run(&world.terraform, &apply(), call.clone()).await.undo.unwrap();
    let path = world.root().join("terraform.tfstate");
    let kept = world.state();
    std::fs::remove_file(&path).unwrap();
    let lost = world.plan_refused().await;
    assert!(lost.contains("there was a state and there is none"), "{lost}");
    assert!(world.refusal(&call).await.contains("there was a state and there is none"));
    let TargetState::Unknown(why) = world.terraform.verify(&undo).await.unwrap() else { panic!() };
    assert_eq!(why, "impossible: the state is gone");
    let gone = world.terraform.revert(&undo, NOW).await.map(drop);
    assert_eq!(gone, Err(ResourceFault::Impossible("the state is gone".to_owned())));
    std::fs::write(&path, old).unwrap();
    let older = world.plan_refused().await;
    assert!(older.contains("the state went back from serial"), "{older}");
    let lineage = serde_json::from_str::<Value>(&kept).unwrap()["lineage"].clone();
    let other = kept.replace(lineage.as_str().unwrap(), "00000000-0000-0000-0000-000000000000");
    std::fs::write(&path, other).unwrap();
    let other = world.plan_refused().await;
    assert!(other.contains("the state has another lineage"), "{other}");
    std::fs::write(&path, kept).unwrap();
    world.plan(ONE).await;
}

#[tokio::test]
async fn what_cannot_be_had_again_is_irreversible() {
    let Some(world) = World::new("") else { return };
    world.apply(&format!("{ONE}{TWO}")).await;
    let call = world.plan(ONE).await;
    let stateful = BTreeSet::from(["terraform_data".to_owned()]);
    let careful = Terraform::new(TerraformSpec { stateful, ..spec(&world.folder) });
    let (seen, held) = preview(&careful, &apply(), &call).await.unwrap();
    assert_eq!(seen.guarantee, Reversibility::Irreversible);
    assert_eq!(careful.undo(&held).unwrap().guarantee, Reversibility::Irreversible);
    let (seen, _) = preview(&world.terraform, &apply(), &call).await.unwrap();
    assert_eq!(seen.guarantee, Reversibility::Compensable);
}

#[tokio::test]
async fn what_holdpoint_never_applied_cannot_be_gone_back_to() {
    let Some(world) = World::new(ONE) else { return };
    world.by_hand(&["apply", "-auto-approve"]);
    let done = world.apply(&ONE.replace("\"1\"", "\"changed\"")).await;
    assert_eq!(done.preview.guarantee, Reversibility::Irreversible);
    assert!(done.preview.notes.iter().any(|it| it.contains("no configuration that Holdpoint")));
    let fault = world.terraform.revert(&done.undo.unwrap(), NOW).await.map(drop).unwrap_err();
    assert!(matches!(fault, ResourceFault::Impossible(_)), "{fault}");
    assert_eq!(world.inputs()["one"], "changed");
    // What is made on top can be destroyed again all the same.
    world.by_hand(&["apply", "-auto-approve"]);
    let undo = world.apply(&format!("{}{TWO}", ONE.replace("\"1\"", "\"changed\""))).await.undo;
    let (_, conflicts, executed) = revert(&world.terraform, &undo.unwrap()).await;
    assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs().into_keys().collect::<Vec<_>>(), ["one"]);
}

#[tokio::test]
async fn what_hangs_on_it_keeps_a_revert_from_happening() {
    let Some(world) = World::new("") else { return };
    let undo = world.apply(ONE).await.undo.unwrap();
    let hangs = "resource \"terraform_data\" \"hangs\" { input = terraform_data.one.id }\n";
    world.apply(&format!("{ONE}{hangs}")).await;
    let fault = world.terraform.revert(&undo, NOW).await.map(drop);
    assert!(matches!(fault, Err(ResourceFault::Impossible(_))), "{fault:?}");
    assert_eq!(world.inputs().len(), 2);
}

#[tokio::test]
async fn a_crash_before_the_look_afterwards_can_be_taken_back() {
    let Some(world) = World::new("") else { return };
    world.apply(ONE).await;
    let call = world.plan(&format!("{}{TWO}", ONE.replace("\"1\"", "\"new\""))).await;
    let (_, held) = preview(&world.terraform, &apply(), &call).await.unwrap();
    let before: Undo = world.terraform.undo(&held).unwrap();
    // Captured, and never executed.
    assert_eq!(world.terraform.verify(&before).await, Ok(TargetState::Before));
    let (preview, conflicts, _) = revert(&world.terraform, &before).await;
    assert!(preview.changes.is_empty() && conflicts.is_empty());
    // Executed, and what was left was not written down.
    execute(&world.terraform, (&apply(), &call), held).await;
    assert_eq!(world.terraform.verify(&before).await, Ok(TargetState::After));
    let (_, conflicts, executed) = revert(&world.terraform, &before).await;
    assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs(), BTreeMap::from([("one".to_owned(), "1".to_owned())]));
}

/// Something that runs a script when it is made.
fn provisioned(script: &str) -> String {
    format!(
        "resource \"terraform_data\" \"runs\" {{\n  input = terraform_data.one.id\n  \
         provisioner \"local-exec\" {{\n    command = \"{script}\"\n  }}\n}}\n"
    )
}

#[tokio::test]
async fn an_apply_that_fails_halfway_can_be_taken_back() {
    let Some(world) = World::new("") else { return };
    let call = world.plan(&format!("{ONE}{}", provisioned("exit 3"))).await;
    let done = run(&world.terraform, &apply(), call).await;
    assert_eq!(done.preview.guarantee, Reversibility::Irreversible, "programs do what they do");
    assert!(done.preview.notes.iter().any(|it| it.contains("by provisioners")));
    let Ended::Answered { tool_error: true, .. } = done.executed.ended else {
        panic!("{}", said(&done.executed.ended))
    };
    assert!(!world.inputs().is_empty());
    let undo = done.undo.unwrap();
    for _ in 0..2 {
        let (_, conflicts, executed) = revert(&world.terraform, &undo).await;
        assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
        assert_eq!(world.inputs(), BTreeMap::new());
    }
}

#[tokio::test]
async fn a_stop_lets_terraform_end_in_good_order() {
    let Some(world) = World::new("") else { return };
    let flag = world.folder.path().join("flag");
    let script = format!("echo up > {}; exec sleep 60", flag.display());
    let call = world.plan(&format!("{ONE}{}", provisioned(&script))).await;
    let (_, held) = preview(&world.terraform, &apply(), &call).await.unwrap();
    let cancels = Cancels::default();
    let stop = cancels.stop.clone();
    let watch = tokio::spawn(async move {
        while !flag.exists() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    let around = (cancels, nowhere());
    let executed = world.terraform.execute(permit(&apply(), &call), held, around).await;
    watch.await.unwrap();
    let Ended::InDoubt { reason: Reason::CancelledByStop, .. } = executed.ended else {
        panic!("{}", said(&executed.ended))
    };
    // The state is written and not locked, so what there is can be destroyed again.
    assert!(world.inputs().contains_key("one"));
    let (_, conflicts, executed) = revert(&world.terraform, &executed.undo.unwrap()).await;
    assert!(conflicts.is_empty() && is_ok(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.inputs(), BTreeMap::new());
}

#[tokio::test]
async fn plans_have_a_size_and_a_number() {
    let Some(world) = World::new(ONE) else { return };
    let limits = TerraformLimits { changes_max: 1, plans_max: 2, ..TerraformLimits::default() };
    let small = Terraform::new(TerraformSpec { limits, ..spec(&world.folder) });
    let first = world.plan(&format!("{ONE}{TWO}")).await;
    let fault = preview(&small, &apply(), &first).await.err();
    assert_eq!(fault, Some(ResourceFault::TooLarge("2 changes".to_owned())));
    world.write(ONE);
    for _ in 0..2 {
        run(&small, &tool("terraform_plan"), json!({})).await;
    }
    let own = std::fs::read_dir(world.folder.path().join("own")).unwrap();
    let plans =
        own.filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|end| end == "tfplan"));
    assert_eq!(plans.count(), 2);
    let limits = TerraformLimits { configuration_bytes_max: 10, ..TerraformLimits::default() };
    let small = Terraform::new(TerraformSpec { limits, ..spec(&world.folder) });
    let done = run(&small, &tool("terraform_plan"), json!({})).await;
    let call = json!({ "plan": planned(&done)["plan"] });
    let (seen, _) = preview(&small, &apply(), &call).await.unwrap();
    assert_eq!(seen.guarantee, Reversibility::Irreversible);
    std::os::unix::fs::symlink("/etc", world.root().join("elsewhere")).unwrap();
    let done = run(&world.terraform, &tool("terraform_plan"), json!({})).await;
    let call = json!({ "plan": planned(&done)["plan"] });
    let (seen, _) = preview(&world.terraform, &apply(), &call).await.unwrap();
    assert_eq!(seen.guarantee, Reversibility::Irreversible, "what a link leads to is not kept");
}

#[tokio::test]
async fn a_permit_for_something_else_applies_no_plan() {
    let Some(world) = World::new(ONE) else { return };
    let call = world.plan(ONE).await;
    for other in [permit(&apply(), &json!({})), permit(&tool("terraform_plan"), &call)] {
        let (_, held) = preview(&world.terraform, &apply(), &call).await.unwrap();
        let executed = world.terraform.execute(other, held, (Cancels::default(), nowhere())).await;
        let Ended::NotSent { reason: Reason::CouldNotDecide, .. } = executed.ended else {
            panic!()
        };
    }
    let other = ToolRef::new("other".parse().unwrap(), "terraform_apply").unwrap();
    let proposed = Proposed { tool: &other, parameters: &call, effects: &[], now: NOW };
    assert!(world.terraform.preview(proposed).await.unwrap().is_none());
    assert_eq!(world.inputs(), BTreeMap::new());
    assert_eq!(Terraform::tools().len(), 2);
}
