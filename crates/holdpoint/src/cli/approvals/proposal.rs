//! `holdpoint approvals --propose`: rules for what people approve again and again. Must not change
//! a policy, nor show a rule that was not tried on the calls that it is for.

use super::classes::{APPROVALS_MIN, Class, DAYS, Given, aims, gather};
use super::left_out::{self, LeftOut, Why};
use crate::cli::look::{Look, SHORT_CHARS_MAX, Tone, count, escaped, json_lines, shortened};
use crate::cli::operator::StoreArgs;
use crate::cli::{Exit, Format, Globals, answer};
use crate::config::Config;
use holdpoint_control::{Settings, decide};
use holdpoint_policy::{PolicySets, Rule, Suggestion};
use holdpoint_server::store::Access;
use holdpoint_types::{Cause, ChangeCounts, Decision, Facts, Reason, Request, Ruling};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most approvals that are shown to people for one class.
const SHOWN_MAX: usize = 20;
/// Digits of a class in the id of its rule.
const DIGITS: usize = 12;

/// A class, and what would have to be said so that its calls need no approval.
#[derive(Debug)]
struct Proposal {
    class: Class,
    /// The rules that hold it now.
    held_by: BTreeSet<String>,
    /// The rules, or why none can do that.
    rules: Result<Rules, Vec<String>>,
}

/// The texts.
#[derive(Debug)]
struct Rules {
    /// The rule that permits the class.
    permits: Rule,
    /// Each rule that holds it, as it is and as it is to be.
    instead: Vec<(Rule, Rule)>,
}

/// Shows what could be proposed: exit 0 whether there is anything or not.
///
/// # Errors
/// When there is no store, or it or the policies cannot be read.
pub fn run(args: &StoreArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let store = args.open(globals, Access::ReadOnly)?;
    let look = Look::of_terminal();
    let policies = config.policies.load(look.now, store.dir())?;
    let (classes, mut left_out) = gather(&store, look.now)?;
    let pins = store.pins()?.into_iter().map(|pin| (pin.tool, pin.definition));
    let pins: BTreeMap<_, _> = pins.collect();
    let mut all = Vec::new();
    for class in classes {
        let (shape, approved) = (class.shape.clone(), class.given.len());
        // Nobody said yes to what another definition of the tool may do.
        let same = pins.get(&shape.tool).copied() == class.definition;
        let proposal = match same {
            true => Proposal::of(class, (&policies, &config.settings)),
            false => Err(Why::OtherDefinition),
        };
        match proposal {
            Ok(proposal) => all.push(proposal),
            Err(why) => left_out.push(LeftOut { shape, approved, why }),
        }
    }
    answer(&match globals.format {
        Format::Json => json_lines(&json!({
            "days": DAYS,
            "approvals_min": APPROVALS_MIN,
            "proposals": all.iter().map(Proposal::to_json).collect::<Vec<_>>(),
            "left_out": left_out.iter().map(LeftOut::to_json).collect::<Vec<_>>(),
        })),
        Format::Text => render(&all, &config, &look) + &left_out::render(&left_out, &look),
    })?;
    Ok(Exit::Ok)
}

// === impl Proposal ===

impl Proposal {
    /// What could be said about `class`; nothing if its calls are permitted already, or its agent
    /// is declared no more.
    fn of(class: Class, (policies, settings): (&PolicySets, &Settings)) -> Result<Self, Why> {
        let (request, mut facts) = largest(&class);
        facts.agent = Some(settings.agent(&request.agent).ok_or(Why::NoAgent)?);
        let now = decide(&request, &facts, policies);
        if now.ruling() == Ruling::Permit {
            return Err(Why::Permitted);
        }
        let by_policy = |cause: &&Cause| cause.reason == Reason::PolicyHolds;
        let held_by = now.deciding().filter(by_policy).filter_map(|cause| cause.rule.clone());
        let held_by: BTreeSet<_> = held_by.collect();
        let rules = match now.ruling() == Ruling::Hold {
            true => rules(&class, (&request, &facts), &held_by, policies),
            false => Err(told(&now)),
        };
        Ok(Self { class, held_by, rules })
    }

    fn to_json(&self) -> Value {
        let Class { digest, shape, definition, given, .. } = &self.class;
        let rule = |rule: &Rule| json!({ "id": rule.id, "file": rule.file, "text": rule.text });
        let (permits, instead) = match &self.rules {
            Ok(rules) => {
                let instead = rules.instead.iter().map(|(before, after)| {
                    let mut told = rule(after);
                    told["line"] = json!(before.line);
                    told
                });
                (Some(rule(&rules.permits)), instead.collect())
            }
            Err(_) => (None, Vec::new()),
        };
        json!({
            "class": digest,
            "agent": shape.agent,
            "tool": shape.tool,
            "definition": definition,
            "effects": aims(shape),
            "guarantee": shape.guarantee,
            "disclosure": shape.disclosure,
            "changes_max": shape.counts,
            "approvals": given.iter().map(Given::to_json).collect::<Vec<_>>(),
            "held_by": self.held_by,
            "rule": permits,
            "instead": instead,
            "impossible": self.rules.as_ref().err(),
        })
    }

    fn render(&self, config: &Config, look: &Look) -> String {
        let Class { shape, given, .. } = &self.class;
        let times = u64::try_from(given.len()).unwrap_or(u64::MAX);
        let title = format!("{} calling {}", shape.agent, shape.tool);
        let mut text = format!(
            "{}: {} in {DAYS} days\n",
            look.paint(Tone::Strong, &title),
            count(times, "approved call")
        );
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<9} {value}\n"));
        for aim in &shape.aims {
            let what = format!("{} {} ({}, {})", aim.verb, aim.resource, aim.class, aim.extent);
            let what = format!("{what} in {}", aim.environment);
            line("would", &shortened(&what, SHORT_CHARS_MAX));
        }
        let ChangeCounts { created, updated, deleted } = shape.counts;
        let (back, shows) = (shape.guarantee.as_str(), shape.disclosure.as_str());
        let most = format!("make {created}, change {updated}, delete {deleted}");
        line("at most", &format!("{most}; to be taken back: {back}; disclosure: {shows}"));
        let skipped = given.len().saturating_sub(SHOWN_MAX);
        for one in given.iter().skip(skipped) {
            line("approval", &one.line(look));
        }
        let held_by: Vec<_> = self.held_by.iter().map(|rule| escaped(rule)).collect();
        line("held by", &held_by.join(", "));
        match &self.rules {
            Ok(rules) => text.push_str(&rules.render(config)),
            Err(why) => {
                let why = shortened(&why.join("; "), SHORT_CHARS_MAX);
                line("no rule", &look.paint(Tone::Careful, &why));
            }
        }
        text
    }
}

// === impl Rules ===

impl Rules {
    fn render(&self, config: &Config) -> String {
        let place = |file: &str| match &config.policies.ordinary {
            Some(folder) => escaped(&folder.join(file).display().to_string()),
            None => format!("the starter pack's {} (see below)", escaped(file)),
        };
        let mut text = format!("  new, in {}:\n", place(&self.permits.file));
        text.push_str(&indented(&self.permits.text));
        for (before, after) in &self.instead {
            let place = place(&before.file);
            let title = format!("instead of `{}`, {place} line {}", before.id, before.line);
            text.push_str(&format!("  {title}:\n{}", indented(&after.text)));
        }
        text
    }
}

// === impl Given ===

impl Given {
    fn to_json(&self) -> Value {
        let said = self.words.iter().map(
            |word| json!({ "by": word.said.by, "at_ms": word.at, "because": word.said.because }),
        );
        json!({ "id": self.approval, "action": self.action, "said": said.collect::<Vec<_>>() })
    }

    fn line(&self, look: &Look) -> String {
        let said = self.words.iter().map(|word| {
            let because = shortened(&word.said.because, SHORT_CHARS_MAX);
            format!("by {} at {}: {because}", word.said.by, look.time(word.at))
        });
        let said: Vec<_> = said.collect();
        format!("{} {}", self.approval, said.join(", "))
    }
}

/// The newest call of the class, as large as the largest, before anybody said yes to it.
fn largest(class: &Class) -> (Request, Facts) {
    let mut facts = class.newest.facts.clone();
    facts.approval = None;
    (class.newest.request.clone(), with_counts(facts, class.shape.counts))
}

fn with_counts(mut facts: Facts, counts: ChangeCounts) -> Facts {
    if let Some(seen) = &mut facts.preview {
        seen.counts = counts;
    }
    facts
}

/// The rules that let the class pass, tried: the largest call that was approved is permitted, and
/// of whatever is larger the same is said as before.
fn rules(
    class: &Class,
    (request, facts): (&Request, &Facts),
    held_by: &BTreeSet<String>,
    policies: &PolicySets,
) -> Result<Rules, Vec<String>> {
    let digits: String = class.digest.short().chars().take(DIGITS).collect();
    let id = format!("approved-{digits}");
    let reason = format!("People approved {} such calls in {DAYS} days.", class.given.len());
    let holds = held_by.iter().map(String::as_str).collect();
    let found = class.shape.lift(policies.ordinary(), &holds, (&id, &reason));
    let Suggestion { permits, instead, set } = found.map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        if faults.is_empty() { told(&decide(request, facts, policies)) } else { faults }
    })?;
    let with = policies.with_ordinary(set);
    let now = decide(request, facts, &with);
    if now.ruling() != Ruling::Permit {
        return Err(told(&now));
    }
    for counts in larger(class.shape.counts) {
        let facts = with_counts(facts.clone(), counts);
        let (before, after) = (decide(request, &facts, policies), decide(request, &facts, &with));
        if before.ruling() != after.ruling() {
            return Err(vec!["the rule would let larger calls pass".to_owned()]);
        }
    }
    let before = |rule: &Rule| policies.ordinary().rule(&rule.id).cloned();
    let instead = instead.into_iter().filter_map(|after| Some((before(&after)?, after)));
    Ok(Rules { permits, instead: instead.collect() })
}

fn larger(counts: ChangeCounts) -> [ChangeCounts; 3] {
    let more = |count: u64| count.saturating_add(1);
    [
        ChangeCounts { created: more(counts.created), ..counts },
        ChangeCounts { updated: more(counts.updated), ..counts },
        ChangeCounts { deleted: more(counts.deleted), ..counts },
    ]
}

/// What still stands in the way.
fn told(decision: &Decision) -> Vec<String> {
    let each = decision.deciding().map(|cause| {
        let rule = cause.rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
        format!("{}{rule}: {}", cause.reason, cause.text)
    });
    each.collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {}\n", escaped(line))).collect()
}

fn render(all: &[Proposal], config: &Config, look: &Look) -> String {
    if all.is_empty() {
        return format!(
            "no class of calls was approved {APPROVALS_MIN} times in {DAYS} days, without a no or \
             a revert among them, and is held still\n"
        );
    }
    let mut text: String = all.iter().map(|one| one.render(config, look)).collect();
    if all.iter().all(|one| one.rules.is_err()) {
        return text;
    }
    text.push_str(
        "nothing was changed. With these texts the calls that were approved are permitted, and \
         larger ones\nheld as before: that was tried here, on the recorded calls. Values are no \
         part of a rule: it permits\nwhatever the agent does to just these resources within these \
         counts.\n",
    );
    if config.policies.ordinary.is_none() {
        text.push_str(
            "first copy the starter pack with `holdpoint init --policies`, name its folder in \
             `[policies] path`, and\nrestart what governs: from then on changes are taken up\n",
        );
    }
    text.push_str(
        "`holdpoint check` says whether the files load, `holdpoint policy digest` what is in force \
         then; processes\nthat govern take them up by themselves. `holdpoint try` sees no preview, \
         so it still says `hold`.\n",
    );
    text
}
