//! The checks that are due after actions: a list that follows from the records, so that no process
//! needs to remember anything. Must not ask a validator, nor know what one would say.

use super::fault::StoreFault;
use super::query::{self, text, whole};
use super::rows::{CheckRow, DueQuery};
use super::schema;
use holdpoint_types::{
    ActionId, CheckDue, CheckPlan, DecisionRecord, GatewayId, Record, RecordBody, Ruling, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// The list as it follows from the records that were read so far.
#[derive(Default)]
pub(super) struct Derived {
    open: BTreeMap<(CheckDue, ActionId), GatewayId>,
    /// What actions that have not ended will need, and when they were decided.
    plans: BTreeMap<ActionId, (Vec<CheckPlan>, Timestamp)>,
}

// === impl Derived ===

impl Derived {
    pub(super) fn apply(&mut self, record: &Record) {
        match &record.body {
            RecordBody::Decision(decided) => {
                let plans = plans(&decided.more);
                if !plans.is_empty() {
                    self.plans.insert(decided.action, (plans.to_vec(), record.at_ms));
                }
            }
            RecordBody::Outcome(ended) => {
                self.plans.remove(&ended.action);
                self.note(ended.action, ended.more.checks.iter().cloned(), record);
            }
            RecordBody::Started { in_doubt, .. } | RecordBody::FoundInDoubt { in_doubt } => {
                for action in in_doubt {
                    let Some((plans, at)) = self.plans.remove(action) else { continue };
                    self.note(*action, plans.iter().flat_map(|plan| plan.due_after(at)), record);
                }
            }
            RecordBody::Checked(checked) => {
                let validator = query::checked_by(checked).unwrap_or_default().to_owned();
                let due = CheckDue { due_ms: checked.more.due_ms, validator };
                self.open.remove(&(due, checked.action));
            }
            _ => {}
        }
    }

    fn note(&mut self, action: ActionId, due: impl Iterator<Item = CheckDue>, record: &Record) {
        for due in due {
            self.open.entry((due, action)).or_insert(record.gateway);
        }
    }

    /// True if the list is what follows from the records.
    pub(super) fn fits(&self, connection: &Connection) -> Result<bool, StoreFault> {
        let rows = open(connection)?.into_iter();
        let listed: BTreeMap<_, _> = rows.map(|row| ((row.due, row.action), row.gateway)).collect();
        Ok(listed == self.open)
    }
}

/// Notes what `record` means for the list.
pub(super) fn note(connection: &Connection, record: &Record) -> Result<(), StoreFault> {
    match &record.body {
        RecordBody::Outcome(ended) => {
            for due in &ended.more.checks {
                insert(connection, &row(ended.action, due.clone(), record))?;
            }
            Ok(())
        }
        // Nobody will say how or when these ended: it was not before they were decided.
        RecordBody::Started { in_doubt, .. } | RecordBody::FoundInDoubt { in_doubt } => {
            in_doubt.iter().try_for_each(|action| adopt(connection, *action, record))
        }
        RecordBody::Checked(checked) => {
            let validator = query::checked_by(checked).unwrap_or_default();
            let sql =
                "DELETE FROM open_checks WHERE due_ms = ?1 AND action = ?2 AND validator = ?3";
            let key = params![checked.more.due_ms.0, checked.action.to_string(), validator];
            connection.prepare_cached(sql)?.execute(key)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn adopt(connection: &Connection, action: ActionId, record: &Record) -> Result<(), StoreFault> {
    let (mut plans_of_it, mut decided_at) = (Vec::new(), record.at_ms);
    for stored in query::of_action_in(connection, action)? {
        match stored.record.body {
            RecordBody::Decision(decided) => {
                plans_of_it = plans(&decided.more).to_vec();
                decided_at = stored.record.at_ms;
            }
            RecordBody::Checked(_) => return Ok(()),
            _ => {}
        }
    }
    let sql = "SELECT 1 FROM open_checks WHERE action = ?1";
    let listed = connection.prepare_cached(sql)?.query_row([action.to_string()], |_| Ok(()));
    if listed.optional()?.is_some() {
        return Ok(());
    }
    let due = plans_of_it.iter().flat_map(|plan| plan.due_after(decided_at));
    due.map(|due| row(action, due, record)).try_for_each(|row| insert(connection, &row))
}

fn plans(decided: &DecisionRecord) -> &[CheckPlan] {
    match decided.decision.ruling() {
        Ruling::Permit => &decided.checks,
        Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => &[],
    }
}

fn row(action: ActionId, due: CheckDue, record: &Record) -> CheckRow {
    CheckRow { due, action, gateway: record.gateway }
}

fn insert(connection: &Connection, row: &CheckRow) -> Result<(), StoreFault> {
    let sql = "INSERT OR IGNORE INTO open_checks (due_ms, action, validator, gateway) \
               VALUES (?1, ?2, ?3, ?4)";
    let CheckRow { due: CheckDue { due_ms, validator }, action, gateway } = row;
    let values = params![due_ms.0, action.to_string(), validator, gateway.to_string()];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// True if the check is still open.
pub(super) fn is_open(connection: &Connection, row: &CheckRow) -> Result<bool, StoreFault> {
    let sql = "SELECT 1 FROM open_checks WHERE due_ms = ?1 AND action = ?2 AND validator = ?3";
    let key = params![row.due.due_ms.0, row.action.to_string(), row.due.validator];
    Ok(connection.prepare_cached(sql)?.query_row(key, |_| Ok(())).optional()?.is_some())
}

/// The checks that `wanted` wants, the longest overdue first.
pub(super) fn due(connection: &Connection, wanted: &DueQuery) -> Result<Vec<CheckRow>, StoreFault> {
    let list = |names: &BTreeSet<String>| serde_json::json!(names).to_string();
    let living = wanted.living.iter().map(ToString::to_string).collect();
    let values = params![
        wanted.now.0,
        wanted.most,
        wanted.own.to_string(),
        list(&living),
        list(&wanted.able),
        list(&wanted.busy),
        wanted.overdue.0,
    ];
    let which = "WHERE due_ms <= ?1 \
        AND validator NOT IN (SELECT value FROM json_each(?6)) \
        AND (gateway = ?3 OR due_ms <= ?7 \
            OR (gateway NOT IN (SELECT value FROM json_each(?4)) \
                AND validator IN (SELECT value FROM json_each(?5)))) \
        ORDER BY due_ms, action, validator LIMIT ?2";
    rows(connection, which, values)
}

/// Whose checks are open.
pub(super) fn gateways(connection: &Connection) -> Result<Vec<GatewayId>, StoreFault> {
    if !schema::lists_checks(connection)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT DISTINCT gateway FROM open_checks";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(text(row, 0)?);
    }
    Ok(found)
}

/// All open checks, the first one due first.
pub(super) fn open(connection: &Connection) -> Result<Vec<CheckRow>, StoreFault> {
    rows(connection, "ORDER BY due_ms, action, validator", params![])
}

/// How many checks are open, and when the first is due.
pub(super) fn count(connection: &Connection) -> Result<(u64, Option<Timestamp>), StoreFault> {
    if !schema::lists_checks(connection)? {
        return Ok((0, None));
    }
    let sql = "SELECT count(*), min(due_ms) FROM open_checks";
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?));
    let (count, first) = connection.prepare_cached(sql)?.query_row([], row)?;
    Ok((whole(count)?, first.map(Timestamp)))
}

fn rows(
    connection: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<CheckRow>, StoreFault> {
    if !schema::lists_checks(connection)? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT due_ms, action, validator, gateway FROM open_checks {which}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let due = CheckDue { due_ms: Timestamp(row.get(0)?), validator: row.get(2)? };
        found.push(CheckRow { due, action: text(row, 1)?, gateway: text(row, 3)? });
    }
    Ok(found)
}
