//! One record on one line, for `log` and `tail`. Must not choose which records are shown.

mod plans;

use super::look::{Look, Tone, count, escaped, shortened};
use super::revert;
use holdpoint_server::store::StoredRecord;
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, ApprovalRecord, AskedRuling, Cause, CheckRecord,
    DecisionRecord, Digest, Field, FindingResult, GuardRecord, Lineage, OutcomeRecord,
    OutcomeStatus, PolicySource, RecordBody, RepliedRecord, RevertRecord, Ruling, Severity,
    TaskRecord, TimedGrant,
};
use serde_json::{Map, Value, json};

/// Longest reason, resource or detail on a line, in characters.
const PART_CHARS_MAX: usize = 80;
/// Width of the longest kind.
const KIND_WIDTH: usize = 16;
/// Width of the longest ruling or status.
const WORD_WIDTH: usize = 10;

/// A record on one line, without the line's end.
pub fn line(stored: &StoredRecord, look: &Look) -> String {
    let time = look.paint(Tone::Dim, &look.time(stored.record.at_ms));
    let seq = look.paint(Tone::Dim, &format!("#{}", stored.seq));
    let kind = stored.record.body.kind();
    format!("{time} {seq} {kind:KIND_WIDTH$} {}", said(&stored.record.body, look))
}

/// A record for programs: as the ledger has it, with its position `seq` and its `leaf` hash.
pub fn to_json(stored: &StoredRecord) -> Value {
    // Bytes from the store are the JSON of an object; anything else shows as nothing.
    let record: Option<Map<String, Value>> = serde_json::from_slice(&stored.bytes).ok();
    let mut object = Map::new();
    object.insert("seq".to_owned(), json!(stored.seq));
    object.insert("leaf".to_owned(), json!(stored.leaf));
    object.extend(record.unwrap_or_default());
    Value::Object(object)
}

fn said(body: &RecordBody, look: &Look) -> String {
    match body {
        RecordBody::Decision(decision) => decided(decision, look),
        RecordBody::Outcome(outcome) => ended(outcome, look),
        RecordBody::TaskGiven(given) => goes_on(given, look),
        RecordBody::Checked(checked) => found(checked, look),
        RecordBody::Started { version, configuration, in_doubt } => {
            started((version, *configuration), in_doubt)
        }
        RecordBody::FoundInDoubt { in_doubt } => {
            look.paint(Tone::Careful, &format!("a process died{}", doubts(in_doubt)))
        }
        RecordBody::SettingsLoaded { configuration } => {
            format!("configuration {}", configuration.short())
        }
        RecordBody::PolicyLoaded { policy, sources, guard } => {
            loaded((policy, sources), guard.as_deref())
        }
        RecordBody::ToolPinned { tool, definition, previous, by } => {
            let before = previous.map_or_else(String::new, |was| format!(", was {}", was.short()));
            format!("{tool} at {}{before}, by {}", definition.short(), escaped(by))
        }
        RecordBody::ToolQuarantined { tool, pinned, seen } => {
            let what = format!("{tool} is now {}, pinned is {}", seen.short(), pinned.short());
            look.paint(Tone::Careful, &what)
        }
        RecordBody::Stopped { stop, epoch } => {
            let what = look.paint(Tone::Bad, &format!("stop {} on {}", stop.id, stop.scope));
            let word = word(&stop.reason, &stop.by);
            format!("{what}, epoch {}{word}", epoch.0)
        }
        RecordBody::Released { id, scope, reason, by, epoch } => {
            format!("stop {id} on {scope}, epoch {}{}", epoch.0, word(reason, by))
        }
        RecordBody::KeyIssued { agent, owner, key, by, .. } => {
            format!("key {} for {agent} of {owner}, by {}", escaped(key), escaped(by))
        }
        RecordBody::KeysRevoked { agent, by } => format!("keys of {agent}, by {}", escaped(by)),
        RecordBody::CredentialIssued { agent, server, issuer, scopes, by, .. } => {
            let scopes = shortened(&scopes.join(" "), PART_CHARS_MAX);
            let issuer = shortened(issuer, PART_CHARS_MAX);
            let (whose, by) = (whose(agent.as_ref()), escaped(by));
            format!("credential of {whose} for {server} from {issuer} for {scopes}, by {by}")
        }
        RecordBody::CredentialDeleted { agent, server, by } => {
            format!("credential of {} for {server}, by {}", whose(agent.as_ref()), escaped(by))
        }
        RecordBody::Approved(_)
        | RecordBody::Disapproved(_)
        | RecordBody::Reverted(_)
        | RecordBody::Granted(_)
        | RecordBody::GrantRevoked { .. }
        | RecordBody::Expired { .. }
        | RecordBody::PlanProposed(_)
        | RecordBody::PlanAccepted(_)
        | RecordBody::PlanRefused(_)
        | RecordBody::PlanEnded(_)
        | RecordBody::PlanLooked(_) => people(body, look).unwrap_or_default(),
        RecordBody::Asked(asked) => {
            let word = look.paint(tone_of_question(asked.ruling), &in_width(asked.ruling.as_str()));
            let (agent, server) = (&asked.agent, &asked.server);
            let action = during(asked.action, look);
            format!("{word} {agent}  {server}  {}{action}", escaped(&asked.method))
        }
        RecordBody::Replied(record) => replied(record, look),
    }
}

fn replied(record: &RepliedRecord, look: &Look) -> String {
    let word = in_width(record.status.as_str());
    let (agent, server, asked) = (&record.agent, &record.server, record.asked);
    format!("{word} {agent}  {server}  to #{asked}{}", during(record.action, look))
}

fn loaded((policy, sources): (&Digest, &[PolicySource]), guard: Option<&GuardRecord>) -> String {
    let files = u64::try_from(sources.len()).unwrap_or(u64::MAX);
    let signed = guard.map(|guard| escaped(&guard.signed_by.join(", ")));
    let signed = signed.map_or_else(String::new, |by| format!(", signed by {by}"));
    format!("policy {}, {}{signed}", policy.short(), count(files, "file"))
}

fn goes_on(given: &ActionRecord<TaskRecord>, look: &Look) -> String {
    let word = look.paint(Tone::Careful, &in_width("goes on"));
    format!("{word} {}{}", who_and_what(given), during(Some(given.action), look))
}

/// What people said about approvals, grants and plans.
fn people(body: &RecordBody, look: &Look) -> Option<String> {
    Some(match body {
        RecordBody::Approved(said) => {
            let names = said.counts_for.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let word = look.paint(Tone::Good, &in_width("yes"));
            let (agent, names) = (&said.agent, escaped(&names));
            let action = during(Some(said.approval), look);
            format!("{word} {agent}  as {names}{action}{}", said_why(said))
        }
        RecordBody::Disapproved(said) => {
            let word = look.paint(Tone::Bad, &in_width("no"));
            let action = during(Some(said.approval), look);
            format!("{word} {}{action}{}", said.agent, said_why(said))
        }
        RecordBody::Reverted(reverted) => {
            let RevertRecord { of, agent, status, restored, conflicts, by, because, .. } =
                &**reverted;
            let status = look.paint(revert::tone(*status), &in_width(status.as_str()));
            let kept = match conflicts.len() {
                0 => String::new(),
                some => format!(", kept {some}"),
            };
            let of = during(Some(*of), look);
            let put_back = restored.total();
            format!("{status} {agent}  put back {put_back}{kept}{of}{}", word(because, by))
        }
        RecordBody::Granted(grant) => {
            let TimedGrant { id, agent, class, tools, until_ms, by, because } = &**grant;
            let tools = shortened(&tools.join(", "), PART_CHARS_MAX);
            let until = look.time(*until_ms);
            format!("grant {id}: {agent} {class} {tools} until {until}{}", word(because, by))
        }
        RecordBody::GrantRevoked { id, agent, because, by } => {
            format!("grant {id} of {agent}{}", word(because, by))
        }
        RecordBody::Expired { server, resource } => {
            format!("{} of {server} is deleted", escaped(resource))
        }
        other => return plans::said(other, look),
    })
}

fn said_why(said: &ApprovalRecord) -> String {
    word(&said.because, said.by.as_str())
}

fn started((version, configuration): (&str, Digest), in_doubt: &[ActionId]) -> String {
    let doubts = doubts(in_doubt);
    format!("version {}, configuration {}{doubts}", escaped(version), configuration.short())
}

fn doubts(in_doubt: &[ActionId]) -> String {
    match in_doubt.len() {
        0 => String::new(),
        some => format!(", {some} in doubt"),
    }
}

fn in_width(word: &str) -> String {
    format!("{word:WORD_WIDTH$}")
}

fn during(action: Option<ActionId>, look: &Look) -> String {
    let action = action.map(|action| look.paint(Tone::Dim, &action.to_string()));
    action.map(|action| format!("  {action}")).unwrap_or_default()
}

/// The tone of a question.
pub fn tone_of_question(ruling: AskedRuling) -> Tone {
    match ruling {
        AskedRuling::Passed => Tone::Good,
        AskedRuling::Forbidden => Tone::Careful,
    }
}

fn whose(agent: Option<&AgentName>) -> &str {
    agent.map_or("all agents", AgentName::as_str)
}

fn word(reason: &str, by: &str) -> String {
    format!(", by {}: {}", escaped(by), shortened(reason, PART_CHARS_MAX))
}

fn decided(decision: &ActionRecord<DecisionRecord>, look: &Look) -> String {
    let ruling = decision.more.decision.ruling();
    let word = look.paint(Tone::of_ruling(ruling), &format!("{:WORD_WIDTH$}", ruling.as_str()));
    let who = who_and_what(decision);
    let why = match ruling {
        Ruling::Permit => String::new(),
        Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => {
            let first = decision.more.decision.deciding().next();
            first.map(because).unwrap_or_default()
        }
    };
    format!("{word} {who}{why}  {}", look.paint(Tone::Dim, &decision.action.to_string()))
}

fn because(cause: &Cause) -> String {
    let rule = cause.rule.as_deref().map(|rule| format!(" [{}]", shortened(rule, PART_CHARS_MAX)));
    format!("  {}{}", cause.reason, rule.unwrap_or_default())
}

fn ended(outcome: &ActionRecord<OutcomeRecord>, look: &Look) -> String {
    let more = &outcome.more;
    let word = look.paint(tone_of(more.status), &format!("{:WORD_WIDTH$}", more.status.as_str()));
    let reason = more.reason.map(|reason| format!("  {reason}")).unwrap_or_default();
    let who = who_and_what(outcome);
    let took = more.duration_ms;
    let action = look.paint(Tone::Dim, &outcome.action.to_string());
    format!("{word} {who}  {took} ms{reason}  {action}")
}

fn found(checked: &ActionRecord<CheckRecord>, look: &Look) -> String {
    let findings = match &checked.lineage.post_validation {
        Field::Present(findings) => findings.as_slice(),
        Field::Absent(_) => &[],
    };
    let each = findings.iter().map(|finding| {
        let word = look.paint(tone_of_finding(finding.result), &in_width(finding.result.as_str()));
        let evidence = match finding.told() {
            told if told.is_empty() => told,
            told => format!(": {}", shortened(&told, PART_CHARS_MAX)),
        };
        let evidence = format!("{}{evidence}", unusual(finding.severity));
        let validator = shortened(&finding.validator, PART_CHARS_MAX);
        format!("{word} {}  {validator}{evidence}", who_and_what(checked))
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("{each}{}", during(Some(checked.action), look))
}

/// A severity in brackets, if it is not the usual one.
pub fn unusual(severity: Severity) -> String {
    match severity {
        Severity::High => String::new(),
        Severity::Low | Severity::Medium | Severity::Critical => {
            format!(" ({})", severity.as_str())
        }
    }
}

/// The tone of a finding.
pub fn tone_of_finding(result: FindingResult) -> Tone {
    match result {
        FindingResult::Pass => Tone::Good,
        FindingResult::Warn => Tone::Careful,
        FindingResult::Fail | FindingResult::Opaque => Tone::Bad,
    }
}

/// The tone of an outcome.
pub fn tone_of(status: OutcomeStatus) -> Tone {
    match status {
        OutcomeStatus::Succeeded => Tone::Good,
        OutcomeStatus::ToolError | OutcomeStatus::NotSent => Tone::Careful,
        OutcomeStatus::InDoubt => Tone::Bad,
    }
}

fn who_and_what<T>(record: &ActionRecord<T>) -> String {
    let Lineage { tool, target_resource, .. } = &record.lineage;
    let tool = match tool {
        Field::Present(tool) => tool.to_string(),
        Field::Absent(_) => "no tool".to_owned(),
    };
    let resource = match target_resource {
        Field::Present(resource) => shortened(resource, PART_CHARS_MAX),
        Field::Absent(_) => "no target".to_owned(),
    };
    format!("{}  {tool}  {resource}", record.agent)
}

#[cfg(test)]
mod tests {
    use super::{line, to_json};
    use crate::cli::look::json_line;
    use crate::cli::look::tests::look;
    use crate::cli::samples;
    use expect_test::expect;

    #[test]
    fn every_kind_has_its_line() {
        let lines: Vec<_> =
            samples::one_of_each().iter().map(|stored| line(stored, &look())).collect();
        expect![[r#"
            2025-07-20T08:26:40.000+00:00 #0 started          version 0.1.0, configuration b7d64a922100, 1 in doubt
            2025-07-20T08:26:40.000+00:00 #1 policy_loaded    policy 823412d1eacb, 1 file
            2025-07-20T08:26:40.000+00:00 #2 decision         permit     coder  fs__read_file  file:///srv/app/notes\u{1b}.txt  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #3 outcome          tool_error coder  fs__read_file  file:///srv/app/notes\u{1b}.txt  1234 ms  upstream_timeout  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #12 decision         halt       coder  fs__rm  file:///srv/app/notes\u{1b}.txt  stopped [stop 7 on agent:coder]  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #13 tool_pinned      fs__write_file at 7692c3ad3540, by first-sight
            2025-07-20T08:26:40.000+00:00 #14 tool_pinned      fs__write_file at 3fc4ccfe7458, was 7692c3ad3540, by first-sight
            2025-07-20T08:26:40.000+00:00 #15 tool_quarantined fs__write_file is now 8b5b9db0c13d, pinned is 3fc4ccfe7458
            2025-07-20T08:26:40.000+00:00 #16 stopped          stop 7 on agent:coder, epoch 4, by ada: it deletes
            2025-07-20T08:26:40.000+00:00 #17 released         stop 7 on agent:coder, epoch 5, by ada: looked at
            2025-07-20T08:26:40.000+00:00 #18 key_issued       key 0a0b for coder of platform, by ada
            2025-07-20T08:26:40.000+00:00 #19 keys_revoked     keys of coder, by ada
            2025-07-20T08:26:40.000+00:00 #20 settings_loaded  configuration b7d64a922100
            2025-07-20T08:26:40.000+00:00 #21 asked            passed     coder  fs  elicitation/create  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #22 replied          declined   coder  fs  to #21  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #23 credential_issued credential of coder for crm from https://as.example\u{9b}2J for crm.read crm.write, by ada
            2025-07-20T08:26:40.000+00:00 #24 credential_deleted credential of all agents for crm, by ada
            2025-07-20T08:26:40.000+00:00 #25 task_given       goes on    coder  fs__read_file  file:///srv/app/notes\u{1b}.txt  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #26 checked          fail       coder  fs__read_file  file:///srv/app/notes\u{1b}.txt  rows (critical): rows_gone: three\u{1b}[31m rows are gone  019826f1-3a00-7707-8707-070707070707
            2025-07-20T08:26:40.000+00:00 #27 found_in_doubt   a process died, 1 in doubt
            2025-07-20T08:26:40.000+00:00 #28 approved         yes        coder  as dba, owner  019826f1-3a00-7707-8707-070707070707, by ada: seen\u{9b}2J it
            2025-07-20T08:26:40.000+00:00 #29 disapproved      no         coder  019826f1-3a00-7707-8707-070707070707, by ada: seen\u{9b}2J it
            2025-07-20T08:26:40.000+00:00 #30 granted          grant 30: coder write fs__* until 2025-07-20T08:26:40.000+00:00, by ada: tonight
            2025-07-20T08:26:40.000+00:00 #31 grant_revoked    grant 30 of coder, by ada: done
            2025-07-20T08:26:40.000+00:00 #32 reverted         partly     coder  put back 3, kept 1  019826f1-3a00-7707-8707-070707070707, by ada: wrong rows
            2025-07-20T08:26:40.000+00:00 #33 plan_proposed    blocked    coder  019826f1-3a00-7909-8909-090909090909, revises 019826f1-3a00-7808-8808-080808080808, by ada, 1 step, 1 note: tidy \u{1b}[2J up
            2025-07-20T08:26:40.000+00:00 #34 plan_accepted    accepted   coder  019826f1-3a00-7909-8909-090909090909, by ada: it is fine
            2025-07-20T08:26:40.000+00:00 #35 plan_refused     refused    coder  019826f1-3a00-7909-8909-090909090909, by ada: not \u{1b}[2J now
            2025-07-20T08:26:40.000+00:00 #36 plan_ended       void       coder  019826f1-3a00-7909-8909-090909090909: the policies moved
            2025-07-20T08:26:40.000+00:00 #37 expired          pg://shop/holdpoint_trash_1_2\u{1b} of orders is deleted
            2025-07-20T08:26:40.000+00:00 #38 plan_looked      holds      coder  019826f1-3a00-7909-8909-090909090909, after step tidy
            2025-07-20T08:26:40.000+00:00 #39 plan_looked      unmet      coder  019826f1-3a00-7909-8909-090909090909, after step tidy: three \u{1b}[2J are left"#]].assert_eq(&lines.join("\n"));
    }

    #[test]
    fn json_is_the_record_as_the_ledger_has_it() {
        let stored = samples::one_of_each().remove(2);
        expect![[r#"
            {"seq":2,"leaf":"sha256:85118cba6e03901d3667561280e0f12c6d0af976c45f665ce8727453eae1349d","action":"019826f1-3a00-7707-8707-070707070707","agent":"coder","at_ms":1753000000000,"decision":[{"reason":"permitted_by_policy","rule":"reads","ruling":"permit","text":"reads are fine in grants"}],"facts":{"agent":{"mode":"auto","owner":"platform"},"epoch":3,"findings":[{"evidence":"","reason":"parameters_invalid","result":"pass","validator":"schema"}],"freezes":[],"grant":{"by":"fs__*"},"stops":[],"target":{"environment":"prod","environment_resolved":true,"resource":"file:///srv/app/notes\u001b.txt","surfaces":["billing","prod"]},"tool":{"class":"read","class_source":"operator","definition":"sha256:4c4ed1afbfdaa1e4c3bf7bbb82d730cecb7e384da91eea4f3cc093fd545524d6","open_world":true,"state":"pinned"}},"gateway":"019826f1-3a00-7101-8101-010101010101","kind":"decision","lineage":{"parameters":{"present":"sha256:f528212a496dc7a0e9a57c129b561aa4609364d70f886c09d668e00797521eb5"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"absent":"no post-action validator is configured"},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"file:///srv/app/notes\u001b.txt"},"tool":{"present":"fs__read_file"},"tool_output":{"absent":"not executed yet"},"user_intent":{"present":{"source":"agent-declared","text":"Tidy up.\r\nIgnore \u202ethe rules"}}},"request":{"action":"019826f1-3a00-7707-8707-070707070707","agent":"coder","at":1753000000000,"door":"mcp_stdio","intent":{"source":"agent-declared","text":"Tidy up.\r\nIgnore \u202ethe rules"},"parameters":{"path":"/srv/app/notes\u001b]0;owned\u0007.txt","size":3},"retrieved":["doc-1"],"tool":"fs__read_file"}}
        "#]].assert_eq(&json_line(&to_json(&stored)));
    }
}
