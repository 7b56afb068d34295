//! Putting rows back, in a transaction of its own that is looked at before it is committed.
//!
//! Owns the guard: a row is put back only if it is what the action left. Must never fire the
//! triggers of tables whose definition we may change, and never keep quiet about what it could not
//! put back.

use super::catalog::{IMAGES, Table};
use super::change::{Changing, Done, Pair};
use super::drawn::Drawn;
use super::image::{self, Budget, Image, Key, listed, matches, turned};
use super::kept::{Faced, KeptTable};
use super::link::{Failed, Link, Target};
use super::references;
use super::spec::PostgresLimits;
use super::text::name;
use crate::resource::{Conflict, Preview, ResourceFault};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio_postgres::types::{ToSql, Type};

/// How often it is tried again when others changed the same rows.
const TRIES: usize = 4;

/// What is to be done with one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Its table, by place in the list of tables.
    pub(super) table: usize,
    pub(super) key: Key,
    /// What is there.
    pub(super) present: Option<Image>,
    /// What it is to be.
    pub(super) wanted: Option<Image>,
}

/// A statement being written.
#[derive(Default)]
struct Writing {
    parts: Vec<String>,
    columns: Vec<Vec<Option<String>>>,
}

/// A revert that is ready to be committed.
pub(super) struct Ready {
    pub(super) preview: Preview,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) changing: Changing,
}

// === impl Writing ===

impl Writing {
    /// Adds rows `r` as parameters, and gives the list that names them.
    fn list(&mut self, count: usize, rows: impl Iterator<Item = Vec<Option<String>>>) -> String {
        let first = self.columns.len() + 1;
        self.columns.extend(turned(count, rows.map(Vec::into_iter)));
        listed(first, count)
    }

    /// Waits for all parts so far. Parts of one statement otherwise run in no promised order, and a
    /// row that is to come back may not fit in before another is gone.
    fn gate(&self) -> String {
        let done = (0..self.parts.len()).map(|at| format!("SELECT 1 FROM p{at}"));
        let done = done.collect::<Vec<_>>().join(" UNION ALL ");
        let done = if done.is_empty() { "SELECT 1".to_owned() } else { done };
        format!("(SELECT pg_catalog.count(*) FROM ({done}) AS d) AS g(n)")
    }

    fn delete(&mut self, table: &Table, steps: &[&Step]) {
        let list = self.list(table.key.len(), steps.iter().map(|step| some(&step.key)));
        let part = format!(
            "DELETE FROM ONLY {} AS t USING {list} WHERE {} RETURNING 1",
            table.sql(),
            matches(table)
        );
        self.parts.push(part);
    }

    fn update(&mut self, (table, gate): (&Table, &str), steps: &[&Step]) {
        let differs = |at: usize| {
            steps.iter().any(|step| value(&step.present, at) != value(&step.wanted, at))
        };
        let at_key = |at: usize| table.key.iter().any(|key| key.column == at);
        let columns = table.columns.iter().enumerate();
        let columns =
            columns.filter(|(at, column)| !column.generated && !at_key(*at) && differs(*at));
        let columns: Vec<_> = columns.collect();
        if columns.is_empty() {
            return;
        }
        let keys = table.key.len();
        let rows = steps.iter().map(|step| {
            let values = columns.iter().map(|(at, _)| value(&step.wanted, *at));
            some(&step.key).into_iter().chain(values).collect()
        });
        let list = self.list(keys + columns.len(), rows);
        let sets = columns.iter().enumerate().map(|(place, (_, column))| {
            format!("{} = r.c{}::{}", name(&column.name), keys + place, column.kind)
        });
        self.parts.push(format!(
            "UPDATE ONLY {} AS t SET {} FROM {list}, {gate} \
             WHERE g.n OPERATOR(pg_catalog.>=) 0 AND {} RETURNING 1",
            table.sql(),
            sets.collect::<Vec<_>>().join(", "),
            matches(table)
        ));
    }

    fn insert(&mut self, (table, gate): (&Table, &str), steps: &[&Step]) {
        let columns = table.columns.iter().enumerate().filter(|(_, column)| !column.generated);
        let columns: Vec<_> = columns.collect();
        let rows = steps
            .iter()
            .map(|step| columns.iter().map(|(at, _)| value(&step.wanted, *at)).collect());
        let list = self.list(columns.len(), rows);
        let names = columns.iter().map(|(_, column)| name(&column.name));
        let values = columns.iter().enumerate();
        let values = values.map(|(place, (_, column))| format!("r.c{place}::{}", column.kind));
        self.parts.push(format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {list}, {gate} \
             WHERE g.n OPERATOR(pg_catalog.>=) 0 RETURNING 1",
            table.sql(),
            names.collect::<Vec<_>>().join(", "),
            values.collect::<Vec<_>>().join(", ")
        ));
    }

    /// Runs it. All foreign keys are checked when the whole of it is done, so that rows that refer
    /// to each other come back together.
    async fn run(self, link: &Link) -> Result<(), Failed> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let parts = self.parts.iter().enumerate().map(|(at, part)| format!("p{at} AS ({part})"));
        let sql = format!(
            "WITH {} SELECT pg_catalog.count(*) FROM {}",
            parts.collect::<Vec<_>>().join(", "),
            format_args!("p{}", self.parts.len() - 1)
        );
        let p: Vec<(&(dyn ToSql + Sync), Type)> =
            self.columns.iter().map(|column| (column as _, Type::TEXT_ARRAY)).collect();
        link.rows(&sql, &p).await?;
        Ok(())
    }
}

// === functions ===

/// Prepares to put back what `kept` says.
///
/// # Errors
/// When it cannot be done, or would do more.
pub(super) async fn prepare(
    (target, limits): (&Target, &PostgresLimits),
    kept: &[KeptTable],
    place: &str,
) -> Result<Ready, ResourceFault> {
    for _ in 1..TRIES {
        match prepare_once((target, limits), kept, place).await {
            Err(failed) if failed.is_passing() => {}
            other => return other.map_err(Failed::fault),
        }
    }
    prepare_once((target, limits), kept, place).await.map_err(Failed::fault)
}

async fn prepare_once(
    (target, limits): (&Target, &PostgresLimits),
    kept: &[KeptTable],
    place: &str,
) -> Result<Ready, Failed> {
    let pair = Pair::begin(target, limits).await?;
    let link = &pair.now;
    link.run(IMAGES).await?;
    // What was kept was small enough once; it may have grown since, but not without end.
    let mut budget = Budget::new(limits, 0);
    let mut faced = Vec::new();
    for table in kept {
        faced.push(table.face(link, &mut budget).await?);
    }
    let (mut steps, mut conflicts) = plan(&faced, place);
    let tables: Vec<Table> = faced.into_iter().map(|faced| faced.table).collect();
    references::keep_referred(link, &tables, &mut steps, |step, why| {
        conflicts.push(conflict(&tables, place, step, why));
    })
    .await?;
    // Functions that run may want to find things where they usually do.
    link.run("SET LOCAL search_path TO DEFAULT").await?;
    let silenced = silence(link, &tables, &steps).await?;
    for step in apply(link, &tables, &mut steps).await? {
        let why = "a constraint of the database forbids it now";
        conflicts.push(conflict(&tables, place, &step, why));
    }
    let ours: &[&str] = if silenced.is_empty() { &[] } else { &["pg_trigger"] };
    link.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
    if !silenced.is_empty() {
        link.run(&silenced).await?;
    }
    let done = pair.settle(limits, ours).await?;
    conflicts.extend(check(&done, (&tables, &steps), place)?);
    conflicts.sort();
    target.rest(pair.old).await;
    let preview = done.preview(place, &Drawn::default());
    let result = result_of(&preview, &conflicts);
    Ok(Ready { preview, conflicts, changing: done.hold(pair.now, result)? })
}

fn result_of(preview: &Preview, conflicts: &[Conflict]) -> Value {
    json!({ "restored": preview.changes.len(), "kept": conflicts })
}

/// What is to be done, and what is kept because it is no longer what the action left.
fn plan(faced: &[Faced], place: &str) -> (Vec<Step>, Vec<Conflict>) {
    let (mut steps, mut conflicts) = (Vec::new(), Vec::new());
    for (table, Faced { table: of, rows, fault }) in faced.iter().enumerate() {
        for row in rows {
            let why = match (fault, &row.present) {
                (Some(fault), _) => *fault,
                (None, present) if *present == row.kept.before => continue,
                (None, present) if *present == row.kept.after => {
                    let (key, present) = (row.key.clone(), present.clone());
                    steps.push(Step { table, key, present, wanted: row.kept.before.clone() });
                    continue;
                }
                (None, None) => "somebody deleted it since",
                (None, Some(_)) => "somebody changed it since",
            };
            let resource = image::address(place, of, &row.key);
            conflicts.push(Conflict { resource, why: why.to_owned() });
        }
    }
    (steps, conflicts)
}

/// Does the steps: all at once, or, if a constraint objects, one after the other in any order that
/// works. What never works is taken out of `steps` and given back.
async fn apply(link: &Link, tables: &[Table], steps: &mut Vec<Step>) -> Result<Vec<Step>, Failed> {
    let all: Vec<&Step> = steps.iter().collect();
    if try_steps(link, tables, &all).await? {
        return Ok(Vec::new());
    }
    let mut left = std::mem::take(steps);
    loop {
        let count = left.len();
        let mut still = Vec::new();
        for step in left {
            if try_steps(link, tables, &[&step]).await? {
                steps.push(step);
            } else {
                still.push(step);
            }
        }
        if still.is_empty() || still.len() == count {
            return Ok(still);
        }
        left = still;
    }
}

/// Does these steps, or nothing: false if a constraint objects.
async fn try_steps(link: &Link, tables: &[Table], steps: &[&Step]) -> Result<bool, Failed> {
    link.run("SAVEPOINT holdpoint_steps; SET CONSTRAINTS ALL DEFERRED").await?;
    let tried = async {
        write(tables, steps).run(link).await?;
        link.run("SET CONSTRAINTS ALL IMMEDIATE").await
    };
    match tried.await {
        Ok(()) => link.run("RELEASE SAVEPOINT holdpoint_steps").await.map(|()| true),
        Err(failed) if failed.is_constraint() => {
            let back = "ROLLBACK TO SAVEPOINT holdpoint_steps; \
                        RELEASE SAVEPOINT holdpoint_steps";
            link.run(back).await.map(|()| false)
        }
        Err(failed) => Err(failed),
    }
}

fn write(tables: &[Table], steps: &[&Step]) -> Writing {
    let mut writing = Writing::default();
    let mut by_table: BTreeMap<(u8, usize), Vec<&Step>> = BTreeMap::new();
    for step in steps {
        let order = match (&step.present, &step.wanted) {
            (Some(_), None) => 0,
            (Some(_), Some(_)) => 1,
            (None, _) => 2,
        };
        by_table.entry((order, step.table)).or_default().push(step);
    }
    let mut gate = (0, writing.gate());
    for ((order, table), steps) in by_table {
        let Some(table) = tables.get(table) else { continue };
        if order != gate.0 {
            gate = (order, writing.gate());
        }
        match order {
            0 => writing.delete(table, &steps),
            1 => writing.update((table, &gate.1), &steps),
            _ => writing.insert((table, &gate.1), &steps),
        }
    }
    writing
}

/// Keeps the triggers of users from firing, where we may. Gives what wakes them again.
async fn silence(link: &Link, tables: &[Table], steps: &[Step]) -> Result<String, Failed> {
    let mut wake = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        if !table.owned || !steps.iter().any(|step| step.table == at) {
            continue;
        }
        for (trigger, always) in &table.triggers {
            let (table, trigger) = (table.sql(), name(trigger));
            link.run(&format!("ALTER TABLE ONLY {table} DISABLE TRIGGER {trigger}")).await?;
            let how = if *always { "ENABLE ALWAYS" } else { "ENABLE" };
            wake.push(format!("ALTER TABLE ONLY {table} {how} TRIGGER {trigger}"));
        }
    }
    Ok(wake.join("; "))
}

/// What is not as it was to be. Nothing else may have changed, unless triggers ran that are not
/// ours to silence.
fn check(
    done: &Done,
    (tables, steps): (&[Table], &[Step]),
    place: &str,
) -> Result<Vec<Conflict>, Failed> {
    let mut found: BTreeMap<(u32, &Key), Option<Image>> = BTreeMap::new();
    for diff in &done.diffs {
        let table = tables.iter().find(|table| table.oid == diff.table.oid);
        let after = |image: &Image| narrowed(&diff.table, table.unwrap_or(&diff.table), image);
        let rows = diff.rows.iter();
        found.extend(rows.map(|(key, (_, row))| ((diff.table.oid, key), row.as_ref().map(after))));
    }
    let (mut conflicts, mut loud) = (Vec::new(), false);
    for step in steps {
        let Some(table) = tables.get(step.table) else { continue };
        loud |= !table.is_quiet();
        let after = found.remove(&(table.oid, &step.key));
        if after.unwrap_or_else(|| step.present.clone()) != step.wanted {
            let why = "a trigger or rule made something else of it";
            conflicts.push(conflict(tables, place, step, why));
        }
    }
    if !found.is_empty() && !loud {
        let why = format!("putting it back would change {} other rows", found.len());
        return Err(ResourceFault::Impossible(why).into());
    }
    Ok(conflicts)
}

/// An image of `whole` with just the columns of `part`.
fn narrowed(whole: &Table, part: &Table, image: &Image) -> Image {
    let place = |name: &str| whole.columns.iter().position(|column| column.name == name);
    let places = part.columns.iter().map(|column| place(&column.name));
    places.map(|at| image.get(at?).cloned().flatten()).collect()
}

fn conflict(tables: &[Table], place: &str, step: &Step, why: &str) -> Conflict {
    let address = tables.get(step.table).map(|table| image::address(place, table, &step.key));
    Conflict { resource: address.unwrap_or_default(), why: why.to_owned() }
}

fn value(image: &Option<Image>, at: usize) -> Option<String> {
    image.as_ref().and_then(|image| image.get(at).cloned().flatten())
}

fn some(key: &Key) -> Vec<Option<String>> {
    key.iter().cloned().map(Some).collect()
}
