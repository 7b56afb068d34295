//! `holdpoint release`: takes a stop back.
//! Must never release more than what was named: `--all` is the stop on everything, not every stop.

use super::look::{Look, Tone, json_lines};
use super::operator::{self, StoreArgs};
use super::stop::{ScopeArgs, describe, render_gateways};
use super::{Exit, Format, Globals, WrongUsage, answer};
use clap::ArgGroup;
use holdpoint_server::operate;
use holdpoint_server::store::{Access, ReleaseOf};
use holdpoint_server::wire::Acknowledgement;
use holdpoint_types::{Stop, StopId};
use serde_json::json;

/// Release a stop. `--all` releases the stop on everything, not every stop.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true)
    .args(["id", "agent", "tool", "server", "all"])))]
pub struct Args {
    /// The number of the stop.
    #[arg(value_name = "ID")]
    id: Option<StopId>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why. It is recorded.
    #[arg(long, value_name = "TEXT", value_parser = operator::parse_reason)]
    reason: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint release`: exit 1 if there is no such stop.
///
/// # Errors
/// When the release cannot be written: then everything stays stopped.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let what = args.id.map(ReleaseOf::Id).or_else(|| args.scope.scope().map(ReleaseOf::Scope));
    let Some(what) = what else {
        return Err(WrongUsage("say what to release".to_owned()).into());
    };
    let store = args.store.open(globals, Access::Operate)?;
    let word = operator::word(&store, &args.reason)?;
    let released =
        operator::wait(async { Ok(operate::release((store.dir(), &store), what, word).await?) })?;
    let in_force = store.control()?.stops;
    match globals.format {
        Format::Json => answer(&to_json(&released, &in_force)?)?,
        Format::Text => answer(&render(&released, &in_force, &Look::of_terminal()))?,
    }
    Ok(if released.stops.is_empty() { Exit::Fault } else { Exit::Ok })
}

/// The acknowledgement, and the stops `in_force` afterwards.
fn to_json(released: &Acknowledgement, in_force: &[Stop]) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(released)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("in_force".to_owned(), json!(in_force));
    }
    Ok(json_lines(&value))
}

fn render(released: &Acknowledgement, in_force: &[Stop], look: &Look) -> String {
    let mut text = String::new();
    for stop in &released.stops {
        let title = format!("stop {} on {} is released", stop.id, stop.scope);
        text.push_str(&format!("{}\n", look.paint(Tone::Good, &title)));
        text.push_str(&describe(stop, look));
    }
    match released.stops.is_empty() {
        true => text.push_str("nothing is released: there is no such stop\n"),
        false => {
            text.push_str(&format!("  epoch    {}\n", released.epoch));
            text.push_str(&render_gateways(released, look));
        }
    }
    text.push_str(&render_in_force(in_force, look));
    text
}

/// The stops in force, for people.
pub fn render_in_force(stops: &[Stop], look: &Look) -> String {
    if stops.is_empty() {
        return "no stop is in force\n".to_owned();
    }
    let each = stops.iter().map(|stop| {
        let title = look.paint(Tone::Bad, &format!("stop {} on {}", stop.id, stop.scope));
        format!("{title}\n{}", describe(stop, look))
    });
    format!("in force:\n{}", each.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_server::wire::Acknowledgement;
    use holdpoint_types::{Stop, Timestamp};

    fn stop(id: u64, scope: &str) -> Stop {
        Stop {
            id,
            scope: scope.parse().unwrap(),
            reason: "look first".to_owned(),
            by: "ada".to_owned(),
            since: Timestamp(1_753_000_000_000),
        }
    }

    fn acknowledgement(stops: Vec<Stop>) -> Acknowledgement {
        Acknowledgement { stops, epoch: 3, gateways: vec![], unreachable: vec![] }
    }

    #[test]
    fn a_release_says_what_is_still_stopped() {
        let released = acknowledgement(vec![stop(1, "all")]);
        expect![[r#"
            stop 1 on all is released
              reason   look first
              by       ada, 2025-07-20T08:26:40.000+00:00 (10 s ago)
              epoch    3
            no process governs now; this is in the store and binds whoever starts
            in force:
            stop 2 on tool:fs__x
              reason   look first
              by       ada, 2025-07-20T08:26:40.000+00:00 (10 s ago)
        "#]]
        .assert_eq(&render(&released, &[stop(2, "tool:fs__x")], &look()));
    }

    #[test]
    fn releasing_nothing_lists_what_could_be_released() {
        let released = acknowledgement(vec![]);
        expect![[r#"
            nothing is released: there is no such stop
            in force:
            stop 2 on tool:fs__x
              reason   look first
              by       ada, 2025-07-20T08:26:40.000+00:00 (10 s ago)
        "#]]
        .assert_eq(&render(&released, &[stop(2, "tool:fs__x")], &look()));
        expect![[r#"
            nothing is released: there is no such stop
            no stop is in force
        "#]]
        .assert_eq(&render(&released, &[], &look()));
        expect![[r#"
            {
              "stops": [],
              "epoch": 3,
              "gateways": [],
              "unreachable": [],
              "in_force": [
                {
                  "id": 2,
                  "scope": "agent:a",
                  "reason": "look first",
                  "by": "ada",
                  "since": 1753000000000
                }
              ]
            }
        "#]]
        .assert_eq(&to_json(&released, &[stop(2, "agent:a")]).unwrap());
    }
}
