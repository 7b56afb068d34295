//! The chain of an action as a tree for people. Everything that came from agents or servers is
//! escaped and shortened; `--format json` has it whole.

use super::ahead;
use super::chain::{Chain, Proved, Question, Said, State};
use super::lineage::{fields, intent};
use crate::cli::line::{tone_of, tone_of_finding, tone_of_question, unusual};
use crate::cli::look::{Look, SHORT_CHARS_MAX, Tone, bytes, count, escaped, short_json, shortened};
use crate::cli::tools::source_word;
use crate::cli::tree::Branch;
use crate::cli::try_call::effect_line;
use holdpoint_types::{
    AskedRuling, Cause, ClassSource, Door, Facts, Field, Finding, FindingResult, Lineage,
    OutcomeRecord, Request, Ruling, Stop, ToolFacts, ToolOutput, ToolState,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many lines of a tool's output are shown.
const OUTPUT_LINES_MAX: usize = 8;

/// The whole chain.
pub fn render(chain: &Chain, look: &Look) -> String {
    let decision = &chain.decision.record.more;
    let ruling = decision.decision.ruling();
    let title = format!("action {}", chain.decision.record.action);
    let text = format!(
        "{}: {} called {}",
        standing(chain, ruling),
        decision.request.agent,
        decision.request.tool
    );
    let tree = Branch::new(title, text).toned(Tone::of_ruling(ruling)).with([
        request(&decision.request, look),
        facts(&decision.facts, look),
        findings(&decision.facts.findings),
        policy(chain),
        decided(chain, look),
    ]);
    let tree = tree
        .with(chain.approval.iter().map(|asked| asked.branch(look)))
        .with([execution(chain, look)]);
    let tree = tree.with(chain.looked.iter().map(ahead::looked));
    let tree = tree.with(chain.takes_back.iter().map(|one| one.branch(look)));
    let tree = match chain.reverts.as_slice() {
        [] => tree,
        all => {
            let all = all.iter().map(|one| one.branch(look));
            tree.with([Branch::new("reverts", "").with(all)])
        }
    };
    let tree = match chain.questions.as_slice() {
        [] => tree,
        asked => tree.with([Branch::new("questions", "").with(asked.iter().map(question))]),
    };
    let tree = match chain.checks.is_empty() && chain.due.is_empty() {
        true => tree,
        false => tree.with([checks(chain, look)]),
    };
    tree.with([lineage(&chain.lineage()), proof(&chain.records)]).render(look)
}

fn standing(chain: &Chain, ruling: Ruling) -> String {
    let word = ruling.as_str();
    match (chain.state, &chain.outcome) {
        (State::Ended, Some(outcome)) => {
            format!("{word}, {}", outcome.record.more.status.as_str())
        }
        (State::Running, _) => format!("{word}, running"),
        (State::InDoubt, _) => format!("{word}, in doubt"),
        (State::Refused | State::Ended, _) => word.to_owned(),
    }
}

fn short(text: &str) -> String {
    shortened(text, SHORT_CHARS_MAX)
}

fn request(request: &Request, look: &Look) -> Branch {
    let door = match request.door {
        Door::McpStdio => "MCP over standard input",
        Door::McpHttp => "MCP over HTTP",
        Door::Try => "holdpoint try",
        Door::Operator => "an operator",
        Door::Hook => "a hook of the host that executes it",
        Door::Plan => "a condition of a plan, which Holdpoint looks at",
    };
    let or_absent = |value: Option<String>| value.unwrap_or_else(|| "absent".to_owned());
    let retrieved = match request.retrieved.as_slice() {
        [] => None,
        ids => Some(format!("{} (the agent says)", short(&ids.join(", ")))),
    };
    Branch::new("request", look.time_and_age(request.at)).with([
        Branch::new("agent", request.agent.to_string()),
        Branch::new("door", door),
        Branch::new("task", or_absent(request.task.map(|task| task.to_string()))),
        Branch::new("intent", or_absent(request.intent.as_ref().map(intent))),
        Branch::new("retrieved", or_absent(retrieved)),
        Branch::new("tool", request.tool.to_string()),
        Branch::new("parameters", short_json(&request.parameters)),
    ])
}

fn facts(facts: &Facts, look: &Look) -> Branch {
    let agent = facts.agent.as_ref().map(|agent| {
        let owner = agent.owner.as_ref().map_or("nobody", |owner| owner.as_str());
        format!("owner {owner}, mode {}", agent.mode)
    });
    let grant = facts.grant.by.as_deref().map(short);
    let target = &facts.target;
    let resolved = match target.environment_resolved {
        true => "",
        false => " (no rule names its environment)",
    };
    let environment = format!("{}{resolved}", short(&target.environment));
    let stops = match facts.stops.len() {
        0 => Branch::new("stops", "none"),
        some => {
            let stops = count(u64::try_from(some).unwrap_or(u64::MAX), "stop");
            Branch::new("stops", stops)
                .toned(Tone::Bad)
                .with(facts.stops.iter().map(|stop| stopped(stop, look)))
        }
    };
    let unknown = || Branch::new("agent", "not declared").toned(Tone::Bad);
    Branch::new("facts", format!("in epoch {}", facts.epoch.0))
        .with([
            agent.map_or_else(unknown, |agent| Branch::new("agent", agent)),
            tool(facts.tool.as_ref()),
            Branch::new("grant", grant.unwrap_or_else(|| "none reaches this call".to_owned())),
            Branch::new("target", short(&target.resource)),
            Branch::new("environment", environment),
            Branch::new("surfaces", names(&target.surfaces)),
            Branch::new("freezes", ahead::freezes(facts)),
            stops,
            ahead::plan(facts.plan.as_ref()),
            ahead::preview(facts, look),
        ])
        .with(facts.effects.iter().map(|one| {
            let tone = Tone::of_class(one.effect.class);
            Branch::new("would", short(&effect_line(one))).toned(tone)
        }))
}

fn stopped(stop: &Stop, look: &Look) -> Branch {
    let by = escaped(&stop.by);
    let text =
        format!("on {} by {by}, {}: {}", stop.scope, look.time(stop.since), short(&stop.reason));
    Branch::new(format!("stop {}", stop.id), text)
}

fn tool(tool: Option<&ToolFacts>) -> Branch {
    let Some(tool) = tool else {
        return Branch::new("tool", "its server does not offer it").toned(Tone::Bad);
    };
    // Of a call that is analysed it is known how far it reaches: its effects say so.
    let analysed = tool.class_source == ClassSource::Effects;
    let world = if tool.open_world && !analysed { ", reaches beyond its own domain" } else { "" };
    let class = format!("{} ({}){world}", tool.class, source_word(tool.class_source));
    let definition = match &tool.state {
        ToolState::Pinned => {
            Branch::new("definition", format!("{}, pinned", tool.definition.short()))
        }
        ToolState::Changed { pinned } => {
            let text = format!("{}, but {} is pinned", tool.definition.short(), pinned.short());
            Branch::new("definition", text).toned(Tone::Bad)
        }
    };
    Branch::new("tool", class).with([definition])
}

fn names(names: &BTreeSet<String>) -> String {
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    if all.is_empty() { "none".to_owned() } else { short(&all.join(", ")) }
}

fn findings(findings: &[Finding]) -> Branch {
    if findings.is_empty() {
        return Branch::new("findings", "no validator looked at it");
    }
    Branch::new("findings", "").with(findings.iter().map(one_finding))
}

fn one_finding(finding: &Finding) -> Branch {
    let word = finding.result.as_str();
    let text = match finding.result {
        FindingResult::Pass => word.to_owned(),
        FindingResult::Warn | FindingResult::Fail | FindingResult::Opaque => {
            let severity = unusual(finding.severity);
            format!("{word}{severity}: {} ({})", short(&finding.told()), finding.reason)
        }
    };
    Branch::new(short(&finding.validator), text).toned(tone_of_finding(finding.result))
}

fn checks(chain: &Chain, look: &Look) -> Branch {
    let made = chain.checks.iter().flat_map(|check| {
        let findings = match &check.record.lineage.post_validation {
            Field::Present(findings) => findings.as_slice(),
            Field::Absent(_) => &[],
        };
        findings
            .iter()
            .map(|finding| one_finding(finding).with([Branch::new("at", look.time(check.at))]))
    });
    let due = chain.due.iter().map(|due| {
        Branch::new(short(&due.validator), format!("due at {}", look.time(due.due_ms)))
            .toned(Tone::Careful)
    });
    Branch::new("checks", "").with(made).with(due)
}

fn policy(chain: &Chain) -> Branch {
    let digest = chain.policy().map(|digest| digest.to_string());
    let files = match &chain.policy_files {
        Some(files) => short(&files.join(", ")),
        None => "the ledger does not know this set".to_owned(),
    };
    Branch::new("policy", digest.unwrap_or_else(|| "absent".to_owned()))
        .with([Branch::new("files", files)])
        .with(chain.guards.iter().map(|guard| {
            let signed = guard.record.as_ref().map(|record| escaped(&record.signed_by.join(", ")));
            let signed = signed.map(|by| format!("signed by {by}"));
            let signed = signed.unwrap_or_else(|| "the ledger does not know this set".to_owned());
            let name = escaped(&guard.name);
            Branch::new("guard", format!("{name} {}, {signed}", guard.digest))
        }))
}

fn decided(chain: &Chain, look: &Look) -> Branch {
    let said = &chain.decision;
    let decision = &said.record.more.decision;
    let ruling = decision.ruling();
    let gateway = Branch::new("by", format!("{} at {}", said.gateway, look.time(said.at)));
    let advice: BTreeSet<_> = decision.deciding().map(|cause| cause.reason).collect();
    // Nobody can do anything about an approval that is used, over or denied.
    let open = chain.approval.as_ref().is_none_or(|asked| asked.waits(look.now));
    let advice = advice.into_iter().filter(|_| ruling != Ruling::Permit && open);
    let silent = Branch::new("deny", "nobody said anything, and silence denies");
    let causes: Vec<_> = decision.causes().rev().map(cause).collect();
    let causes = if causes.is_empty() { vec![silent] } else { causes };
    Branch::new("decision", ruling.as_str().to_uppercase())
        .toned(Tone::of_ruling(ruling))
        .with(causes)
        .with([gateway])
        .with(advice.map(|reason| Branch::new("you can", reason.for_operator())))
}

fn cause(cause: &Cause) -> Branch {
    let rule = cause.rule.as_deref().map(|rule| format!(" [{}]", short(rule)));
    let approval =
        cause.approval.as_deref().map(|who| format!(" (needs approval: {})", short(who)));
    let text = format!(
        "{}{}: {}{}",
        cause.reason,
        rule.unwrap_or_default(),
        short(&cause.text),
        approval.unwrap_or_default()
    );
    Branch::new(cause.ruling.as_str(), text)
}

fn execution(chain: &Chain, look: &Look) -> Branch {
    match (&chain.outcome, chain.state) {
        (Some(outcome), _) => outcome_of(outcome, look),
        (None, State::Running) => {
            Branch::new("execution", "its process still governs; no outcome is recorded yet")
                .toned(Tone::Careful)
        }
        (None, State::InDoubt) => {
            let text = "IN DOUBT: its process is gone and recorded no outcome; check the target";
            Branch::new("execution", text).toned(Tone::Bad)
        }
        (None, State::Refused | State::Ended) => {
            Branch::new("execution", "never: no permit was given")
        }
    }
}

fn outcome_of(said: &Said<OutcomeRecord>, look: &Look) -> Branch {
    let outcome = &said.record.more;
    let text = format!("{} after {} ms", outcome.status.as_str(), outcome.duration_ms);
    let mut branch = Branch::new("execution", text)
        .toned(tone_of(outcome.status))
        .with([Branch::new("ended", look.time(said.at))]);
    if let Some(reason) = outcome.reason {
        branch = branch.with([Branch::new("reason", format!("{reason}: {}", reason.meaning()))]);
    }
    if let Some(detail) = &outcome.detail {
        branch = branch.with([Branch::new("detail", short(detail))]);
    }
    match &said.record.lineage.tool_output {
        Field::Present(output) => branch.with([body(output)]),
        Field::Absent(_) => branch,
    }
}

fn body(output: &ToolOutput) -> Branch {
    let text = format!("{}, {}", bytes(output.bytes), output.digest);
    let branch = Branch::new("output", text);
    let Some(body) = &output.body else {
        return branch.with([Branch::new("", "too long to be kept; only its digest is")]);
    };
    let readable = readable(body);
    let lines: Vec<_> = readable.lines().collect();
    let shown = lines.iter().take(OUTPUT_LINES_MAX).map(|line| Branch::new("", short(line)));
    let branch = branch.with(shown);
    match lines.len().checked_sub(OUTPUT_LINES_MAX) {
        None | Some(0) => branch,
        Some(more) => {
            let more = count(u64::try_from(more).unwrap_or(u64::MAX), "more line");
            branch.with([Branch::new("", format!("… {more}"))])
        }
    }
}

/// The texts of an MCP result, or the body as it is.
fn readable(body: &str) -> String {
    let value: Option<Value> = serde_json::from_str(body).ok();
    let content = value.as_ref().and_then(|value| value.get("content")).and_then(Value::as_array);
    let text = |item: &Value| item.get("text").and_then(Value::as_str).map(str::to_owned);
    let texts: Vec<_> = content.into_iter().flatten().filter_map(text).collect();
    if texts.is_empty() { body.to_owned() } else { texts.join("\n") }
}

fn question(question: &Question) -> Branch {
    let asked = &question.asked;
    let reply = match (&question.replied, asked.ruling) {
        (Some(replied), _) => replied.status.as_str(),
        (None, AskedRuling::Forbidden) => "the agent did not hear of it",
        (None, AskedRuling::Passed) => "no reply is recorded",
    };
    let text = format!("{} asked {}: {reply}", asked.server, short(&asked.method));
    Branch::new(asked.ruling.as_str(), text).toned(tone_of_question(asked.ruling))
}

fn lineage(lineage: &Lineage) -> Branch {
    Branch::new("lineage", "").with(fields(lineage).map(|(title, value)| match value {
        Ok(value) => Branch::new(title, value),
        Err(why) => Branch::new(title, format!("absent: {why}")).toned(Tone::Dim),
    }))
}

fn proof(records: &[Proved]) -> Branch {
    Branch::new("proof", "").with(records.iter().map(|record| {
        let (tone, text) = match &record.proof {
            Ok(signed) => {
                let size = count(signed.size, "record");
                (Tone::Good, format!("in the signed log of {size}, root {}", signed.root.short()))
            }
            Err(why) => (Tone::Bad, format!("NOT PROVED: {}", short(why))),
        };
        let title = format!("#{} {}", record.seq, record.kind);
        Branch::new(title, text).toned(tone).with([Branch::new("leaf", record.leaf.to_string())])
    }))
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::cli::look::json_line;
    use crate::cli::look::tests::look;
    use crate::cli::samples;
    use crate::cli::why::approval::{Asked, Word, asked_of};
    use crate::cli::why::chain::{Chain, Proved, Question, Said, Signed, State, reply_to};
    use crate::cli::why::program::to_json;
    use crate::cli::why::reverts::Reverted;
    use expect_test::expect;
    use holdpoint_types::{Digest, RecordBody};
    use serde_json::json;

    fn chain(stored: Vec<holdpoint_server::store::StoredRecord>, state: State) -> Chain {
        let (mut decision, mut outcome, mut records) = (None, None, Vec::new());
        let (mut reverts, mut words) = (Vec::new(), Vec::new());
        let mut questions = Vec::new();
        for one in stored {
            let proof = match one.seq {
                0..10 => Ok(Signed { size: 40, root: Digest::of(b"root") }),
                10.. => Err("no checkpoint covers it yet".to_owned()),
            };
            let kind = one.record.body.kind();
            records.push(Proved { seq: one.seq, kind, leaf: one.leaf, proof });
            let (at, gateway) = (one.record.at_ms, one.record.gateway);
            match one.record.body {
                RecordBody::Decision(record) => {
                    decision = Some(Said { at, gateway, record: *record });
                }
                RecordBody::Outcome(record) => {
                    outcome = Some(Said { at, gateway, record: *record });
                }
                RecordBody::Asked(asked) => {
                    questions.push(Question { seq: one.seq, asked: *asked, replied: None });
                }
                RecordBody::Replied(replied) => reply_to(&mut questions, *replied),
                RecordBody::Reverted(record) => reverts.push(Reverted { at, record: *record }),
                RecordBody::Approved(said) | RecordBody::Disapproved(said) => {
                    words.push(Word { at, said: *said });
                }
                _ => {}
            }
        }
        let policy_files = Some(vec!["starter.cedar".to_owned()]);
        let decision = decision.unwrap();
        let (checks, due, guards) = Default::default();
        let looked = None;
        let asked = asked_of(&decision.record.more).cloned();
        let used_by = Some(decision.record.action);
        let approval = asked.map(|asked| {
            Asked::new(&decision, (&asked, words), used_by, holdpoint_types::Epoch(3))
        });
        Chain {
            decision,
            outcome,
            state,
            approval,
            reverts,
            takes_back: None,
            questions,
            checks,
            due,
            looked,
            policy_files,
            guards,
            records,
        }
    }

    #[test]
    fn a_permitted_action_with_hostile_output() {
        let asked = samples::stored(21, samples::asked());
        let replied = samples::stored(22, samples::replied());
        let all = vec![samples::permitted(), asked, replied, samples::outcome()];
        let chain = chain(all, State::Ended);
        expect![[r#"
            action 019826f1-3a00-7707-8707-070707070707  permit, tool_error: coder called fs__read_file
            ├─ request    2025-07-20T08:26:40.000+00:00 (10 s ago)
            │  ├─ agent       coder
            │  ├─ door        MCP over standard input
            │  ├─ task        absent
            │  ├─ intent      "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ retrieved   doc-1 (the agent says)
            │  ├─ tool        fs__read_file
            │  └─ parameters  {"path":"/srv/app/notes\u001b]0;owned\u0007.txt","size":3}
            ├─ facts      in epoch 3
            │  ├─ agent        owner platform, mode auto
            │  ├─ tool         read (operator), reaches beyond its own domain
            │  │  └─ definition  4c4ed1afbfda, pinned
            │  ├─ grant        fs__*
            │  ├─ target       file:///srv/app/notes\u{1b}.txt
            │  ├─ environment  prod
            │  ├─ surfaces     billing, prod
            │  ├─ freezes      none
            │  ├─ stops        none
            │  ├─ plan         none
            │  └─ preview      none
            ├─ findings
            │  └─ schema  pass
            ├─ policy     sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  └─ files  starter.cedar
            ├─ decision   PERMIT
            │  ├─ permit  permitted_by_policy [reads]: reads are fine in grants
            │  └─ by      019826f1-3a00-7101-8101-010101010101 at 2025-07-20T08:26:40.000+00:00
            ├─ execution  tool_error after 1234 ms
            │  ├─ ended   2025-07-20T08:26:40.000+00:00
            │  ├─ reason  upstream_timeout: The upstream server did not answer in time; what it did is not known.
            │  ├─ detail  the server said \u{9b}2J nothing
            │  └─ output  272 B, sha256:6a48b7c9180f2a2dd662bafb7ebf119282d6967617cfe81d68f2fd9faf38e28c
            │     ├─ line 1\u{1b}[31m\u{202e}
            │     ├─ line 2\u{1b}[31m\u{202e}
            │     ├─ line 3\u{1b}[31m\u{202e}
            │     ├─ line 4\u{1b}[31m\u{202e}
            │     ├─ line 5\u{1b}[31m\u{202e}
            │     ├─ line 6\u{1b}[31m\u{202e}
            │     ├─ line 7\u{1b}[31m\u{202e}
            │     ├─ line 8\u{1b}[31m\u{202e}
            │     └─ … 3 more lines
            ├─ questions
            │  └─ passed  fs asked elicitation/create: declined
            ├─ lineage
            │  ├─ user intent     "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ policy version  sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  ├─ retrieved ids   doc-1
            │  ├─ tool            fs__read_file
            │  ├─ parameters      sha256:f528212a496dc7a0e9a57c129b561aa4609364d70f886c09d668e00797521eb5
            │  ├─ target          file:///srv/app/notes\u{1b}.txt
            │  ├─ tool output     sha256:6a48b7c9180f2a2dd662bafb7ebf119282d6967617cfe81d68f2fd9faf38e28c, 272 B
            │  └─ validation      absent: no post-action validator is configured
            └─ proof
               ├─ #2 decision  in the signed log of 40 records, root 4813494d137e
               │  └─ leaf  sha256:85118cba6e03901d3667561280e0f12c6d0af976c45f665ce8727453eae1349d
               ├─ #21 asked    NOT PROVED: no checkpoint covers it yet
               │  └─ leaf  sha256:9d1bd53580b9927f1d5a2783c32ec6045549869b01195701eedee815a0df7bbd
               ├─ #22 replied  NOT PROVED: no checkpoint covers it yet
               │  └─ leaf  sha256:e46998774b6e538af49239772234ea8fd791f6a17806f2c91b9ac1f2b600950d
               └─ #3 outcome   in the signed log of 40 records, root 4813494d137e
                  └─ leaf  sha256:1bf35096f8003008dad8e94839081033ef34934bb0078c708c0df3287105a31f
        "#]].assert_eq(&render(&chain, &look()));
    }

    #[test]
    fn a_denied_action_says_why_and_what_to_do() {
        let chain = chain(vec![samples::denied()], State::Refused);
        expect![[r#"
            action 019826f1-3a00-7707-8707-070707070707  halt: coder called fs__rm
            ├─ request    2025-07-20T08:26:40.000+00:00 (10 s ago)
            │  ├─ agent       coder
            │  ├─ door        MCP over standard input
            │  ├─ task        absent
            │  ├─ intent      "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ retrieved   doc-1 (the agent says)
            │  ├─ tool        fs__rm
            │  └─ parameters  {"path":"/srv/app/notes\u001b]0;owned\u0007.txt","size":3}
            ├─ facts      in epoch 3
            │  ├─ agent        owner platform, mode auto
            │  ├─ tool         destructive (operator), reaches beyond its own domain
            │  │  └─ definition  4c4ed1afbfda, but 3fab5c181bd2 is pinned
            │  ├─ grant        none reaches this call
            │  ├─ target       file:///srv/app/notes\u{1b}.txt
            │  ├─ environment  prod (no rule names its environment)
            │  ├─ surfaces     billing, prod
            │  ├─ freezes      year-end
            │  ├─ stops        1 stop
            │  │  └─ stop 7  on agent:coder by ada, 2025-07-20T08:26:40.000+00:00: it deletes
            │  ├─ plan         none
            │  └─ preview      none
            ├─ findings
            │  └─ schema  fail: at `/size`: 3 is not of type "string" (parameters_invalid)
            ├─ policy     sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  └─ files  starter.cedar
            ├─ decision   HALT
            │  ├─ halt     stopped [stop 7 on agent:coder]: it deletes
            │  ├─ deny     destructive_not_granted: no grant reaches it
            │  ├─ hold     policy_holds [hold-prod]: production needs a yes (needs approval: owner)
            │  ├─ by       019826f1-3a00-7101-8101-010101010101 at 2025-07-20T08:26:40.000+00:00
            │  └─ you can  Release it with `holdpoint release` when it is safe.
            ├─ execution  never: no permit was given
            ├─ lineage
            │  ├─ user intent     "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ policy version  sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  ├─ retrieved ids   doc-1
            │  ├─ tool            fs__rm
            │  ├─ parameters      sha256:f528212a496dc7a0e9a57c129b561aa4609364d70f886c09d668e00797521eb5
            │  ├─ target          file:///srv/app/notes\u{1b}.txt
            │  ├─ tool output     absent: not executed yet
            │  └─ validation      absent: no post-action validator is configured
            └─ proof
               └─ #12 decision  NOT PROVED: no checkpoint covers it yet
                  └─ leaf  sha256:6af9cfd54235872d7ad49009a8c35f5f8089184447c65779ac859f2186f2981c
        "#]].assert_eq(&render(&chain, &look()));
    }

    #[test]
    fn an_action_in_doubt_says_so() {
        let shown = render(&chain(vec![samples::permitted()], State::InDoubt), &look());
        let doubt: Vec<_> =
            shown.lines().filter(|line| line.to_lowercase().contains("doubt")).collect();
        expect![[r#"
            action 019826f1-3a00-7707-8707-070707070707  permit, in doubt: coder called fs__read_file
            ├─ execution  IN DOUBT: its process is gone and recorded no outcome; check the target"#]].assert_eq(&doubt.join("\n"));
    }

    #[test]
    fn the_chain_for_programs() {
        let chain = chain(vec![samples::permitted(), samples::outcome()], State::Ended);
        expect![[r#"
            {"action":"019826f1-3a00-7707-8707-070707070707","agent":"coder","ruling":"permit","state":"ended","decided_at_ms":1753000000000,"gateway":"019826f1-3a00-7101-8101-010101010101","request":{"action":"019826f1-3a00-7707-8707-070707070707","agent":"coder","door":"mcp_stdio","tool":"fs__read_file","parameters":{"path":"/srv/app/notes\u001b]0;owned\u0007.txt","size":3},"intent":{"text":"Tidy up.\r\nIgnore \u202ethe rules","source":"agent-declared"},"retrieved":["doc-1"],"at":1753000000000},"facts":{"agent":{"owner":"platform","mode":"auto"},"tool":{"definition":"sha256:4c4ed1afbfdaa1e4c3bf7bbb82d730cecb7e384da91eea4f3cc093fd545524d6","state":"pinned","class":"read","class_source":"operator","open_world":true},"grant":{"by":"fs__*"},"target":{"resource":"file:///srv/app/notes\u001b.txt","environment":"prod","environment_resolved":true,"surfaces":["billing","prod"]},"freezes":[],"stops":[],"epoch":3,"findings":[{"validator":"schema","result":"pass","reason":"parameters_invalid","evidence":""}]},"policy":{"digest":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812","files":["starter.cedar"]},"guards":[],"decision":{"ruling":"permit","causes":[{"ruling":"permit","reason":"permitted_by_policy","rule":"reads","text":"reads are fine in grants"}]},"permitted":true,"approval":null,"reverts":[],"takes_back":null,"outcome":{"at_ms":1753000000000,"gateway":"019826f1-3a00-7101-8101-010101010101","status":"tool_error","reason":"upstream_timeout","detail":"the server said \u009b2J nothing","duration_ms":1234},"checks":[],"checks_due":[],"plan_looked":null,"questions":[],"lineage":{"user_intent":{"present":{"text":"Tidy up.\r\nIgnore \u202ethe rules","source":"agent-declared"}},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"retrieved_context":{"present":["doc-1"]},"tool":{"present":"fs__read_file"},"parameters":{"present":"sha256:f528212a496dc7a0e9a57c129b561aa4609364d70f886c09d668e00797521eb5"},"target_resource":{"present":"file:///srv/app/notes\u001b.txt"},"tool_output":{"present":{"digest":"sha256:6a48b7c9180f2a2dd662bafb7ebf119282d6967617cfe81d68f2fd9faf38e28c","bytes":272,"body":"{\"content\":[{\"type\":\"text\",\"text\":\"line 1\\u001b[31m\u202e\\nline 2\\u001b[31m\u202e\\nline 3\\u001b[31m\u202e\\nline 4\\u001b[31m\u202e\\nline 5\\u001b[31m\u202e\\nline 6\\u001b[31m\u202e\\nline 7\\u001b[31m\u202e\\nline 8\\u001b[31m\u202e\\nline 9\\u001b[31m\u202e\\nline 10\\u001b[31m\u202e\\nline 11\\u001b[31m\u202e\\n\"}]}"}},"post_validation":{"absent":"no post-action validator is configured"}},"records":[{"seq":2,"kind":"decision","leaf":"sha256:85118cba6e03901d3667561280e0f12c6d0af976c45f665ce8727453eae1349d","verified":true,"log_size":40,"log_root":"sha256:4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2","unverified_because":null},{"seq":3,"kind":"outcome","leaf":"sha256:1bf35096f8003008dad8e94839081033ef34934bb0078c708c0df3287105a31f","verified":true,"log_size":40,"log_root":"sha256:4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2","unverified_because":null}]}
        "#]].assert_eq(&json_line(&to_json(&chain, look().now)));
    }

    fn known<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Option<T> {
        serde_json::from_value(value).unwrap()
    }

    /// A call that a person approved by what it would do, and that was taken back.
    fn approved() -> Chain {
        let mut all = samples::one_of_each();
        all.retain(|one| ["approved", "disapproved", "reverted"].contains(&one.record.body.kind()));
        let mut decided = samples::permitted();
        if let RecordBody::Decision(record) = &mut decided.record.body {
            let facts = &mut record.more.facts;
            facts.preview = known(json!({
                "digest": Digest::of(b"diff"),
                "counts": { "created": 1, "updated": 2, "deleted": 3 },
                "exact": false, "guarantee": "exact_until", "until": 1_753_000_100_000_i64,
                "disclosure": "wider", "notes": ["the trigger\u{9b}2J audit sends a message"],
            }));
            facts.approval = known(json!({
                "id": record.action, "binding": Digest::of(b"binding"),
                "needs": { "owner": 1, "dba": 2 }, "expires_ms": 1_753_000_100_000_i64,
                "requester": "bob", "given": {},
            }));
            facts.plan = known(json!({
                "plan": "019826f1-3a00-7909-8909-090909090909", "version": 4, "fit": "step",
                "step": "tidy", "uses": { "rows": 3 },
            }));
            facts.freeze_exceptions.insert("year-end".to_owned(), "pair".to_owned());
        }
        all.insert(0, decided);
        chain(all, State::Running)
    }

    #[test]
    fn an_approved_action_says_who_saw_what_and_what_came_of_it() {
        expect![[r#"
            action 019826f1-3a00-7707-8707-070707070707  permit, running: coder called fs__read_file
            ├─ request    2025-07-20T08:26:40.000+00:00 (10 s ago)
            │  ├─ agent       coder
            │  ├─ door        MCP over standard input
            │  ├─ task        absent
            │  ├─ intent      "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ retrieved   doc-1 (the agent says)
            │  ├─ tool        fs__read_file
            │  └─ parameters  {"path":"/srv/app/notes\u001b]0;owned\u0007.txt","size":3}
            ├─ facts      in epoch 3
            │  ├─ agent        owner platform, mode auto
            │  ├─ tool         read (operator), reaches beyond its own domain
            │  │  └─ definition  4c4ed1afbfda, pinned
            │  ├─ grant        fs__*
            │  ├─ target       file:///srv/app/notes\u{1b}.txt
            │  ├─ environment  prod
            │  ├─ surfaces     billing, prod
            │  ├─ freezes      year-end (excepted by pair)
            │  ├─ stops        none
            │  ├─ plan         019826f1-3a00-7909-8909-090909090909, step tidy, uses 3 rows
            │  └─ preview      at least: make 1, change 2, delete 3
            │     ├─ guarantee   exact_until until 2025-07-20T08:28:20.000+00:00 (in 1 min)
            │     ├─ disclosure  wider
            │     ├─ digest      sha256:df087996d45b03e7eb8c133c0298fd98d35113fca26aaba58612fef3cc212cad
            │     └─ unseen      the trigger\u{9b}2J audit sends a message
            ├─ findings
            │  └─ schema  pass
            ├─ policy     sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  └─ files  starter.cedar
            ├─ decision   PERMIT
            │  ├─ permit  permitted_by_policy [reads]: reads are fine in grants
            │  └─ by      019826f1-3a00-7101-8101-010101010101 at 2025-07-20T08:26:40.000+00:00
            ├─ approval   019826f1-3a00-7707-8707-070707070707, used
            │  ├─ needs     dba (2 people), owner
            │  ├─ until     2025-07-20T08:28:20.000+00:00 (in 1 min)
            │  ├─ bound to  sha256:80f70afeef3caa57646fd20afb95be9c3f2c03d38e091906de31838813dcc22e
            │  ├─ asked by  bob
            │  ├─ yes       by ada as dba, owner at 2025-07-20T08:26:40.000+00:00 (cli): seen\u{9b}2J it
            │  ├─ no        by ada at 2025-07-20T08:26:40.000+00:00 (cli): seen\u{9b}2J it
            │  └─ used by   019826f1-3a00-7707-8707-070707070707
            ├─ execution  its process still governs; no outcome is recorded yet
            ├─ reverts
            │  └─ partly  what somebody changed since is kept; the rest is as it was before (by ada at 2025-07-20T08:26:40.000+00:00: wrong rows)
            │     ├─ put back  3 things: 0 made again, 2 changed back, 1 removed
            │     └─ kept      pg://x/t/id=1\u{9b}2J: changed since
            ├─ lineage
            │  ├─ user intent     "Tidy up.\r\nIgnore \u{202e}the rules" (the agent says, which is no evidence)
            │  ├─ policy version  sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812
            │  ├─ retrieved ids   doc-1
            │  ├─ tool            fs__read_file
            │  ├─ parameters      sha256:f528212a496dc7a0e9a57c129b561aa4609364d70f886c09d668e00797521eb5
            │  ├─ target          file:///srv/app/notes\u{1b}.txt
            │  ├─ tool output     absent: not executed yet
            │  └─ validation      absent: no post-action validator is configured
            └─ proof
               ├─ #2 decision      in the signed log of 40 records, root 4813494d137e
               │  └─ leaf  sha256:85118cba6e03901d3667561280e0f12c6d0af976c45f665ce8727453eae1349d
               ├─ #28 approved     NOT PROVED: no checkpoint covers it yet
               │  └─ leaf  sha256:8607cfc4b06bd301f15abcadb39aa0f7e0ad127289211cdf7d5fcd687249c7ca
               ├─ #29 disapproved  NOT PROVED: no checkpoint covers it yet
               │  └─ leaf  sha256:2bf05b0c24a2d7b961e79dceddec767bb9f1aa1cd41342b2cb0934efc296b54e
               └─ #32 reverted     NOT PROVED: no checkpoint covers it yet
                  └─ leaf  sha256:8324617b3a9e0ad750f22dac8a110fb0684cd8ac9442b889a30e7e163aa116f8
        "#]].assert_eq(&render(&approved(), &look()));
    }

    #[test]
    fn the_call_of_a_step_says_what_was_found_after_it() {
        let mut chain = chain(vec![samples::permitted(), samples::outcome()], State::Ended);
        let after = |chain: &Chain| {
            let shown = render(chain, &look());
            let from = shown.find("├─ after step").unwrap();
            shown[from..shown.find("├─ lineage").unwrap()].to_owned()
        };
        let mut found = samples::looked(Some("three \u{1b}[2J are left"));
        chain.looked = Some(found.clone());
        expect![[r#"
            ├─ after step  tidy: goes no further
            │  ├─ unmet  three \u{1b}[2J are left
            │  └─ read   019826f1-3a00-7707-8707-070707070707
        "#]]
        .assert_eq(&after(&chain));
        assert_eq!(to_json(&chain, look().now)["plan_looked"]["unmet"], "three \u{1b}[2J are left");
        found.unmet = None;
        chain.looked = Some(found);
        expect![[r#"
            ├─ after step  tidy: what must hold does
            │  └─ read  019826f1-3a00-7707-8707-070707070707
        "#]]
        .assert_eq(&after(&chain));
    }

    #[test]
    fn an_approved_action_for_programs() {
        let told = to_json(&approved(), look().now);
        let people = json!([told["approval"], told["reverts"], told["takes_back"]]);
        expect![[r#"
            [{"id":"019826f1-3a00-7707-8707-070707070707","state":"used","binding":"sha256:80f70afeef3caa57646fd20afb95be9c3f2c03d38e091906de31838813dcc22e","needs":{"dba":2,"owner":1},"given":{"dba":["ada"],"owner":["ada"]},"denied":{"by":"ada","because":"seen\u009b2J it"},"requester":"bob","instead_of":null,"expires_ms":1753000100000,"said":[{"at_ms":1753000000000,"answer":"yes","by":"ada","because":"seen\u009b2J it","way":"cli","counts_for":["dba","owner"]},{"at_ms":1753000000000,"answer":"no","by":"ada","because":"seen\u009b2J it","way":"cli","counts_for":[]}],"used_by":"019826f1-3a00-7707-8707-070707070707"},[{"of":"019826f1-3a00-7707-8707-070707070707","agent":"coder","status":"partly","restored":{"created":0,"updated":2,"deleted":1},"conflicts":[{"resource":"pg://x/t/id=1\u009b2J","why":"changed since"}],"by":"ada","because":"wrong rows","at_ms":1753000000000}],null]
        "#]].assert_eq(&json_line(&people));
    }
}
