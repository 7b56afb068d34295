//! What tests of resources share: calls previewed, permitted and executed as the server would.

use crate::permits::{NOW, permit};
use holdpoint_resources::Cancels;
use holdpoint_resources::resource::{
    Change, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, Undo,
};
use holdpoint_types::ToolRef;
use serde_json::{Value, json};

/// What came of one call.
pub struct Done {
    pub preview: Preview,
    pub undo: Option<Undo>,
    pub executed: Executed,
}

/// A forward for resources that serve their tools themselves.
pub fn nowhere() -> Forward {
    Box::new(|_| panic!("nothing is forwarded"))
}

/// Previews a call of a tool that the resource has.
pub async fn preview<R: Resource>(
    resource: &R,
    tool: &ToolRef,
    parameters: &Value,
) -> Result<(Preview, R::Prepared), ResourceFault> {
    let proposed = Proposed { tool, parameters, effects: &[], now: NOW };
    Ok(resource.preview(proposed).await?.expect("the tool is one of the resource"))
}

/// Executes what was previewed.
pub async fn execute<R: Resource>(
    resource: &R,
    (tool, parameters): (&ToolRef, &Value),
    prepared: R::Prepared,
) -> Executed {
    let around = (Cancels::default(), nowhere());
    resource.execute(permit(tool, parameters), prepared, around).await
}

/// Previews and executes.
pub async fn run<R: Resource>(resource: &R, tool: &ToolRef, parameters: Value) -> Done {
    let (preview, prepared) = preview(resource, tool, &parameters).await.unwrap();
    let undo = resource.undo(&prepared);
    let executed = execute(resource, (tool, &parameters), prepared).await;
    let undo = executed.undo.clone().or(undo);
    Done { preview, undo, executed }
}

/// Prepares a revert, and executes it with a permit for a revert.
pub async fn revert<R: Resource>(resource: &R, undo: &Undo) -> (Preview, Vec<String>, Executed) {
    let Reverting { preview, conflicts, prepared } = resource.revert(undo, NOW).await.unwrap();
    let tool: ToolRef = "holdpoint__revert".parse().unwrap();
    let executed = execute(resource, (&tool, &json!({"action": "x"})), prepared).await;
    let conflicts = conflicts.iter().map(|it| format!("{}: {}", it.resource, it.why));
    (preview, conflicts.collect(), executed)
}

/// Changes, one a line, with ids of objects cut so that snapshots are the same each time.
pub fn shown(changes: &[Change]) -> String {
    let text = |side: &Option<Value>| side.as_ref().map_or("-".to_owned(), Value::to_string);
    let line =
        |it: &Change| format!("{} {} => {}\n", it.resource, text(&it.before), text(&it.after));
    changes.iter().map(line).collect()
}
