//! The eight fields of an action's lineage, each as a title and a value or the reason why it is
//! absent. Must show all eight, in the order of the record.

use crate::cli::look::{SHORT_CHARS_MAX, bytes, shortened};
use holdpoint_types::{Field, Finding, Intent, IntentSource, Lineage, ToolOutput};

/// All eight fields, escaped; `Err` holds why one is absent.
pub fn fields(lineage: &Lineage) -> [(&'static str, Result<String, String>); 8] {
    let Lineage {
        user_intent,
        policy_version,
        retrieved_context,
        tool,
        parameters,
        target_resource,
        tool_output,
        post_validation,
    } = lineage;
    [
        ("user intent", show(user_intent, intent)),
        ("policy version", show(policy_version, ToString::to_string)),
        ("retrieved ids", show(retrieved_context, |ids| short(&ids.join(", ")))),
        ("tool", show(tool, ToString::to_string)),
        ("parameters", show(parameters, ToString::to_string)),
        ("target", show(target_resource, |target| short(target))),
        ("tool output", show(tool_output, output)),
        ("validation", show(post_validation, |findings| validation(findings))),
    ]
}

/// What the user wanted, and how we know.
pub fn intent(intent: &Intent) -> String {
    let source = match intent.source {
        IntentSource::AgentDeclared => "the agent says, which is no evidence",
        IntentSource::Operator => "an operator says",
    };
    format!("\"{}\" ({source})", short(&intent.text))
}

fn show<T>(field: &Field<T>, show: impl Fn(&T) -> String) -> Result<String, String> {
    match field {
        Field::Present(value) => Ok(show(value)),
        Field::Absent(why) => Err(short(why)),
    }
}

fn output(output: &ToolOutput) -> String {
    format!("{}, {}", output.digest, bytes(output.bytes))
}

fn validation(findings: &[Finding]) -> String {
    let each: Vec<_> = findings.iter().map(finding_word).collect();
    if each.is_empty() { "nothing to check".to_owned() } else { each.join(", ") }
}

fn finding_word(finding: &Finding) -> String {
    format!("{} {:?}", short(&finding.validator), finding.result).to_lowercase()
}

fn short(text: &str) -> String {
    shortened(text, SHORT_CHARS_MAX)
}
