//! Plans as people read them. Must not print anything by itself.

use crate::cli::look::{Look, Table, Tone, count, escaped, shortened};
use holdpoint_control::plan::StepState;
use holdpoint_server::store::PlanRow;
use holdpoint_types::{PlanBudget, PlanCondition, PlanSeverity, PlanState, PlanStep};

/// Longest text in a cell, in characters.
const CELL_CHARS_MAX: usize = 80;

/// Many plans, one on a line.
pub(super) fn list(rows: &[PlanRow], look: &Look) -> String {
    if rows.is_empty() {
        return "no plan waits or is in force\n".to_owned();
    }
    let mut table = Table::default();
    for row in rows {
        let progress = row.progress();
        let states = progress.states(&row.plan.steps);
        table.push(vec![
            (tone(row.state), row.state.as_str().to_owned()),
            (Tone::Plain, row.plan.id.to_string()),
            (Tone::Plain, row.plan.agent.to_string()),
            how_far(row, &states),
            (Tone::Plain, shortened(&row.plan.purpose, CELL_CHARS_MAX)),
        ]);
    }
    let mut text = table.render("", look);
    let number = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    text.push_str(&format!(
        "{}; `holdpoint plan show ID` shows one in full, `holdpoint plan accept ID --because …` or \
         `holdpoint plan refuse ID --because …` decides one that waits\n",
        count(number, "plan"),
    ));
    text
}

/// How many steps are done, and whether one goes no further.
fn how_far(row: &PlanRow, states: &[StepState]) -> (Tone, String) {
    let done = states.iter().filter(|state| **state == StepState::Done).count();
    let far = format!("{done}/{} done", states.len());
    let in_force = row.state == PlanState::Accepted;
    let mut stuck = row.plan.steps.iter().zip(states).filter(|(_, state)| state.is_stuck());
    match stuck.next().filter(|_| in_force) {
        Some((step, state)) => {
            (Tone::Bad, format!("{far}, stuck at {}: {}", step.id, told(row.state, state).1))
        }
        None => (Tone::Plain, far),
    }
}

/// One plan in full.
pub(super) fn whole(row: &PlanRow, look: &Look) -> String {
    let plan = &row.plan;
    let mut text = format!(
        "plan {} of {} is {}\n  {}\n",
        plan.id,
        plan.agent,
        look.paint(tone(row.state), row.state.as_str()),
        escaped(&plan.purpose),
    );
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| {
        facts.push(vec![(Tone::Dim, name.to_owned()), (Tone::Plain, value)]);
    };
    fact("task", plan.task.to_string());
    fact("reads", plan.reads.as_str().to_owned());
    fact("ends", look.time_and_age(plan.expires));
    fact("policies", plan.basis.policy.short());
    if let Some(parent) = plan.basis.parent {
        fact("revises", parent.to_string());
    }
    text.push_str(&facts.render("  ", look));
    text.push_str("\nsteps\n");
    text.push_str(&steps(row).render("  ", look));
    let states = row.progress().states(&plan.steps);
    for (step, state) in plan.steps.iter().zip(&states) {
        text.push_str(&said(row, step, state));
    }
    text.push_str("\nnotes\n");
    text.push_str(&notes(row, look));
    text
}

fn steps(row: &PlanRow) -> Table {
    let progress = row.progress();
    let states = progress.states(&row.plan.steps);
    let mut table = Table::default();
    table.titles(&["step", "state", "calls", "class", "tool", "targets", "budget used"]);
    for (step, state) in row.plan.steps.iter().zip(&states) {
        let (tone, word) = told(row.state, state);
        let mut targets: Vec<_> = step.targets.iter().map(|target| escaped(target)).collect();
        if targets.is_empty() {
            targets.push("any".to_owned());
        }
        let saves = if step.recovery_point { " (saves)" } else { "" };
        table.push(vec![
            (Tone::Plain, format!("{}{saves}", step.id)),
            (tone, word),
            (Tone::Plain, format!("{}/{}", progress.taken(&step.id), step.calls)),
            (Tone::Plain, step.class.to_string()),
            (Tone::Plain, step.tool.to_string()),
            (Tone::Plain, shortened(&targets.join(", "), CELL_CHARS_MAX)),
            (Tone::Plain, used(step.budget, progress.used(&step.id))),
        ]);
    }
    table
}

/// What a step says in words.
fn said(row: &PlanRow, step: &PlanStep, state: &StepState) -> String {
    let mut text = String::new();
    let mut line = |what: &str, words: &str| {
        text.push_str(&format!("  {} {what}: {}\n", step.id, escaped(words)));
    };
    let surfaces: Vec<_> = step.surfaces.iter().map(String::as_str).collect();
    if !surfaces.is_empty() {
        line("touches the surfaces", &surfaces.join(", "));
    }
    if let Some(schema) = &step.parameters {
        line("takes parameters that fit", &schema.to_string());
    }
    if let Some(call) = &step.call {
        line("is exactly the call", &serde_json::Value::from(call.clone()).to_string());
    }
    if let Some(seen) = row.plan.basis.targets.get(&step.id) {
        let exact = if seen.exact { "exactly" } else { "at least" };
        let back = seen.guarantee.as_str();
        let would = format!("{}; to be taken back: {back}", seen.counts);
        line(&format!("would do {exact}"), &would);
    }
    let wanted = [("precondition", &step.preconditions), ("postcondition", &step.postconditions)];
    for (which, conditions) in wanted {
        for (number, condition) in (1..).zip(conditions) {
            text.push_str(&wants(&format!("{} {which} {number}", step.id), condition));
        }
    }
    match state {
        StepState::Unmet(unmet) => {
            text.push_str(&format!("  {} goes no further: {}\n", step.id, escaped(unmet)));
        }
        StepState::Unlooked if row.state == PlanState::Accepted => {
            text.push_str(&format!(
                "  {} was not looked at yet, or could not be: its reads, if any, are in `holdpoint \
                 log --agent {}`, and `holdpoint why` of the newest says what came of it. It is \
                 looked at again once a call wants to begin a step behind it, or the agent asks \
                 for the plan's status\n",
                step.id, row.plan.agent,
            ));
        }
        _ => {}
    }
    text
}

/// A condition, and below it how it is looked at.
fn wants(name: &str, condition: &PlanCondition) -> String {
    let mut text = format!("  {name}: {}\n", escaped(condition.says()));
    if let Some(check) = condition.check() {
        let arguments = serde_json::Value::from(check.arguments.clone());
        let read = escaped(&format!("{} {arguments}", check.tool));
        let result = escaped(&check.result.to_string());
        text.push_str(&format!("    looked at with: {read}\n    must find: {result}\n"));
    }
    text
}

fn notes(row: &PlanRow, look: &Look) -> String {
    if row.notes.is_empty() {
        return "  none\n".to_owned();
    }
    let mut table = Table::default();
    for note in &row.notes {
        let tone = match note.severity {
            PlanSeverity::Blocking => Tone::Bad,
            PlanSeverity::Advisory => Tone::Careful,
        };
        let step = note.step.as_ref().map_or_else(|| "plan".to_owned(), ToString::to_string);
        table.push(vec![
            (tone, note.severity.as_str().to_owned()),
            (Tone::Plain, note.code.to_string()),
            (Tone::Plain, step),
            (Tone::Plain, escaped(&note.text)),
        ]);
    }
    table.render("  ", look)
}

fn told(plan: PlanState, state: &StepState) -> (Tone, String) {
    if plan == PlanState::Proposed {
        return (Tone::Dim, "-".to_owned());
    }
    match state {
        StepState::Waiting(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            (Tone::Dim, format!("waits for {}", names.join(", ")))
        }
        StepState::Open(_) => (Tone::Careful, "open".to_owned()),
        StepState::Running => (Tone::Careful, "running".to_owned()),
        StepState::Done => (Tone::Good, "done".to_owned()),
        StepState::Spent => (Tone::Bad, "spent".to_owned()),
        StepState::Unlooked => (Tone::Careful, "not looked at".to_owned()),
        StepState::Unmet(_) => (Tone::Bad, "unmet".to_owned()),
        StepState::InDoubt(action) => (Tone::Bad, format!("in doubt: {action}")),
    }
}

/// How much of each bound is gone.
fn used(budget: PlanBudget, used: PlanBudget) -> String {
    let each = budget.bounds().into_iter().zip(used.bounds());
    let told = each.filter_map(|((name, bound), (_, used))| {
        Some(format!("{}/{} {name}", used.unwrap_or(0), bound?))
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

fn tone(state: PlanState) -> Tone {
    match state {
        PlanState::Proposed => Tone::Careful,
        PlanState::Accepted => Tone::Good,
        PlanState::Refused => Tone::Bad,
        PlanState::Ended(_) => Tone::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::{list, whole};
    use crate::cli::look::tests::look;
    use crate::cli::samples;
    use expect_test::expect;
    use holdpoint_control::plan::{CallState, PlanCall};
    use holdpoint_server::store::PlanRow;
    use holdpoint_types::{
        ActionId, PlanBudget, PlanCondition, PlanEnd, PlanLooked, PlanState, RecordBody, Timestamp,
    };
    use serde_json::json;

    fn row() -> PlanRow {
        let RecordBody::PlanProposed(proposed) = samples::plan_proposed() else { unreachable!() };
        let action = ActionId::new(Timestamp(1_753_000_000_000), [7; 10]);
        let uses = PlanBudget { files: Some(1), ..PlanBudget::default() };
        let call =
            PlanCall { action, step: "tidy".parse().unwrap(), uses, state: CallState::InDoubt };
        PlanRow {
            plan: proposed.plan,
            notes: proposed.notes,
            state: PlanState::Accepted,
            was_in_force: true,
            version: 3,
            calls: vec![call],
            looks: Vec::new(),
        }
    }

    /// A plan whose second condition was found to be as `unmet` says, or by nobody.
    fn looked(unmet: Option<&str>) -> PlanRow {
        let mut row = row();
        row.calls[0].state = CallState::Succeeded;
        let check = json!({ "says": "no \u{1b} is left", "tool": "fs__list",
                            "arguments": { "path": "/srv/app/old" }, "result": { "const": [] } });
        row.plan.steps[0].preconditions = vec![PlanCondition::Words("a copy".to_owned())];
        row.plan.steps[0].postconditions = vec![
            PlanCondition::Words("all is well".to_owned()),
            serde_json::from_value(check).unwrap(),
        ];
        if let Some(unmet) = unmet {
            let (plan, agent) = (row.plan.id, row.plan.agent.clone());
            let (step, reads) = ("tidy".parse().unwrap(), vec![row.calls[0].action]);
            let unmet = Some(unmet.to_owned());
            row.looks = vec![PlanLooked { plan, agent, step, reads, unmet }];
        }
        row
    }

    #[test]
    fn conditions_have_numbers_and_a_step_that_goes_no_further_says_so() {
        let said = |row: &PlanRow| {
            let lines = whole(row, &look());
            let after = lines.split_once("budget used\n").unwrap().1.to_owned();
            let notes = after.find("\nnotes").unwrap();
            format!("{}{}", &after[..notes], list(std::slice::from_ref(row), &look()))
        };
        expect![[r#"
              tidy  unmet  1/1    destructive  fs__rm  file:///srv/app/old/*  1/3 files
              tidy precondition 1: a copy
              tidy postcondition 1: all is well
              tidy postcondition 2: no \u{1b} is left
                looked at with: fs__list {"path":"/srv/app/old"}
                must find: {"const":[]}
              tidy goes no further: postcondition 2 does not hold
            accepted  019826f1-3a00-7909-8909-090909090909  coder  0/1 done, stuck at tidy: unmet  tidy \u{1b}[2J up
            1 plan; `holdpoint plan show ID` shows one in full, `holdpoint plan accept ID --because …` or `holdpoint plan refuse ID --because …` decides one that waits
        "#]].assert_eq(&said(&looked(Some("postcondition 2 does not hold"))));
        expect![[r#"
              tidy  not looked at  1/1    destructive  fs__rm  file:///srv/app/old/*  1/3 files
              tidy precondition 1: a copy
              tidy postcondition 1: all is well
              tidy postcondition 2: no \u{1b} is left
                looked at with: fs__list {"path":"/srv/app/old"}
                must find: {"const":[]}
              tidy was not looked at yet, or could not be: its reads, if any, are in `holdpoint log --agent coder`, and `holdpoint why` of the newest says what came of it. It is looked at again once a call wants to begin a step behind it, or the agent asks for the plan's status
            accepted  019826f1-3a00-7909-8909-090909090909  coder  0/1 done  tidy \u{1b}[2J up
            1 plan; `holdpoint plan show ID` shows one in full, `holdpoint plan accept ID --because …` or `holdpoint plan refuse ID --because …` decides one that waits
        "#]].assert_eq(&said(&looked(None)));
        // Of what is over, nobody is told that it goes on.
        let mut over = looked(None);
        over.state = PlanState::Ended(PlanEnd::Revised);
        expect![[r#"
              tidy  not looked at  1/1    destructive  fs__rm  file:///srv/app/old/*  1/3 files
              tidy precondition 1: a copy
              tidy postcondition 1: all is well
              tidy postcondition 2: no \u{1b} is left
                looked at with: fs__list {"path":"/srv/app/old"}
                must find: {"const":[]}
            revised  019826f1-3a00-7909-8909-090909090909  coder  0/1 done  tidy \u{1b}[2J up
            1 plan; `holdpoint plan show ID` shows one in full, `holdpoint plan accept ID --because …` or `holdpoint plan refuse ID --because …` decides one that waits
        "#]].assert_eq(&said(&over));
    }

    #[test]
    fn a_plan_is_a_table_that_nothing_hostile_gets_out_of() {
        expect![[r#"
            plan 019826f1-3a00-7909-8909-090909090909 of coder is accepted
              tidy \u{1b}[2J up
              task      019826f1-3a00-7505-8505-050505050505
              reads     free
              ends      2025-07-20T09:26:40.000+00:00 (in 59 min)
              policies  823412d1eacb
              revises   019826f1-3a00-7808-8808-080808080808

            steps
              step  state                                           calls  class        tool    targets                budget used
              tidy  in doubt: 019826f1-3a00-7707-8707-070707070707  1/1    destructive  fs__rm  file:///srv/app/old/*  1/3 files

            notes
              blocking  recovery_missing  tidy  nothing is saved
        "#]].assert_eq(&whole(&row(), &look()));
        expect![[r#"
            accepted  019826f1-3a00-7909-8909-090909090909  coder  0/1 done, stuck at tidy: in doubt: 019826f1-3a00-7707-8707-070707070707  tidy \u{1b}[2J up
            1 plan; `holdpoint plan show ID` shows one in full, `holdpoint plan accept ID --because …` or `holdpoint plan refuse ID --because …` decides one that waits
        "#]].assert_eq(&list(&[row()], &look()));
    }
}
