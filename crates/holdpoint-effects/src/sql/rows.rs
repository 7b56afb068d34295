//! Statements that change rows. Must never take a predicate that chooses nothing for a choice.

use super::Dialect;
use super::names;
use super::predicate::{Truth, truth};
use super::walk::{Walk, text_of};
use crate::effects::NoteCode;
use holdpoint_types::{Certainty, Effect, EffectClass, Reversibility, Verb};
use sqlparser::ast::{
    CascadeOption, CopySource, CopyTarget, Delete, Expr, FromTable, Insert, Merge, MergeAction,
    ObjectName, OnConflictAction, OnInsert, SelectItem, SetExpr, SqliteOnConflict, TableFactor,
    TableObject, TableWithJoins, Truncate, Update, Value,
};

/// A change of at most so many rows is no mass change whatever its predicate says.
const FEW_ROWS: u64 = 1000;

/// A table in a statement, with its alias.
struct Target<'s> {
    name: &'s ObjectName,
    alias: Option<&'s str>,
}

pub(super) fn insert(insert: &Insert, walk: &mut Walk<'_, '_>) {
    let TableObject::TableName(table) = &insert.table else {
        let evidence = "`INSERT` into what is no table";
        return walk.batch.opaque(NoteCode::Unreadable, evidence);
    };
    walk.deal_with(table);
    row_effect(table, Verb::Create, "`INSERT`", walk);
    let replaces = insert.replace_into || insert.or == Some(SqliteOnConflict::Replace);
    let updates = match &insert.on {
        Some(OnInsert::DuplicateKeyUpdate(_)) => true,
        Some(OnInsert::OnConflict(conflict)) => {
            matches!(conflict.action, OnConflictAction::DoUpdate(_))
        }
        Some(_) => true,
        None => false,
    };
    if replaces || updates {
        row_effect(table, Verb::Update, "overwrites rows with the same key", walk);
    }
    if walk.dialect() == Dialect::Sqlite {
        full_text(insert, table, walk);
    }
    if insert.overwrite || insert.multi_table_insert_type.is_some() {
        walk.batch.opaque(NoteCode::Unreadable, "an `INSERT` that is not known");
    }
}

/// A full-text table of SQLite takes commands: rows that name it as a column.
fn full_text(insert: &Insert, table: &ObjectName, walk: &mut Walk<'_, '_>) {
    let own = table.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
    let column = |name: &ObjectName| {
        let last = name.0.last().and_then(|part| part.as_ident());
        last.is_some_and(|last| own.is_some_and(|own| last.value.eq_ignore_ascii_case(own)))
    };
    let Some(at) = insert.columns.iter().position(column) else { return };
    let body = insert.source.as_ref().map(|source| &*source.body);
    let commands: Option<Vec<&str>> = match body {
        Some(SetExpr::Values(values)) => {
            values.rows.iter().map(|row| row.get(at).and_then(text_of)).collect()
        }
        Some(SetExpr::Select(select)) => match select.projection.get(at) {
            Some(SelectItem::UnnamedExpr(expr)) => text_of(expr).map(|text| vec![text]),
            _ => None,
        },
        _ => None,
    };
    let harmless = |command: &str| {
        let known = ["rebuild", "optimize", "integrity-check", "merge", "automerge", "rank"];
        let known =
            known.iter().chain(&["crisismerge", "usermerge", "pgsz", "flush", "secure-delete"]);
        let (command, _) = command.split_once('=').unwrap_or((command, ""));
        known.into_iter().any(|known| known.eq_ignore_ascii_case(command))
    };
    match commands {
        Some(commands) if commands.iter().all(|command| harmless(command)) => {}
        Some(commands) if commands.iter().all(|one| one.eq_ignore_ascii_case("delete")) => {
            row_effect(table, Verb::Delete, "the command `delete` of a full-text table", walk);
        }
        Some(_) | None => {
            let evidence = "a command of a full-text table";
            walk.on(table, |resource| Effect::new(Verb::Delete, resource, evidence).whole());
            walk.batch.effects.note(NoteCode::MassChange, evidence);
        }
    }
}

pub(super) fn update(update: &Update, walk: &mut Walk<'_, '_>) {
    let targets = targets(&update.table, walk);
    changes(Verb::Update, &targets, update.selection.as_ref(), update.limit.as_ref(), walk);
}

pub(super) fn delete(delete: &Delete, walk: &mut Walk<'_, '_>) {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let mut all = Vec::new();
    for table in from {
        all.extend(targets(table, walk));
    }
    for table in delete.using.iter().flatten() {
        if !delete.tables.is_empty() {
            all.extend(targets(table, walk));
        }
    }
    // MySQL: `DELETE a FROM t a JOIN u …` deletes from what is named first.
    let chosen: Vec<_> = match delete.tables.is_empty() {
        true => all,
        false => delete.tables.iter().map(|name| behind(name, &all)).collect(),
    };
    for name in &delete.tables {
        walk.deal_with(name);
    }
    changes(Verb::Delete, &chosen, delete.selection.as_ref(), delete.limit.as_ref(), walk);
}

pub(super) fn merge(merge: &Merge, walk: &mut Walk<'_, '_>) {
    let TableFactor::Table { name, .. } = &merge.table else {
        return walk.batch.opaque(NoteCode::Unreadable, "`MERGE` into what is no table");
    };
    walk.deal_with(name);
    for clause in &merge.clauses {
        let verb = match &clause.action {
            MergeAction::Insert(_) => Verb::Create,
            MergeAction::Update(_) => Verb::Update,
            MergeAction::Delete { .. } => Verb::Delete,
            MergeAction::DoNothing { .. } => continue,
        };
        row_effect(name, verb, "`MERGE`", walk);
    }
}

pub(super) fn truncate(truncate: &Truncate, walk: &mut Walk<'_, '_>) {
    for target in &truncate.table_names {
        walk.deal_with(&target.name);
        walk.on(&target.name, |resource| Effect::new(Verb::Delete, resource, "`TRUNCATE`").whole());
    }
    walk.batch.effects.note(NoteCode::MassChange, "`TRUNCATE` empties a table");
    if truncate.cascade == Some(CascadeOption::Cascade) {
        cascades(walk);
    }
}

pub(super) fn copy(source: &CopySource, to: bool, target: &CopyTarget, walk: &mut Walk<'_, '_>) {
    if let CopySource::Table { table_name, .. } = source {
        walk.deal_with(table_name);
        let verb = if to { Verb::Read } else { Verb::Create };
        row_effect(table_name, verb, "`COPY`", walk);
    }
    match target {
        CopyTarget::Stdin | CopyTarget::Stdout => {}
        CopyTarget::Program { .. } => {
            let evidence = "`COPY` runs a program on the server";
            walk.batch.opaque(NoteCode::UnseenCode, evidence);
        }
        CopyTarget::File { filename } => {
            let verb = if to { Verb::Create } else { Verb::Read };
            let file = server_file(filename, walk);
            let effect = Effect::new(verb, file, "`COPY` with a file of the server");
            walk.batch.effects.add(effect.at_least(EffectClass::Destructive));
        }
    }
}

/// What hangs on something that is dropped or emptied goes too, whatever it is.
pub(super) fn cascades(walk: &mut Walk<'_, '_>) {
    let all = format!("{}/*", walk.batch.database.address);
    let effect = Effect::new(Verb::Delete, all, "`CASCADE`").whole();
    walk.batch.effects.add(effect.no_surer_than(Certainty::Bounded));
}

/// A file of the machine that the database runs on.
pub(super) fn server_file(path: &str, walk: &Walk<'_, '_>) -> String {
    format!("{}/file:{}", walk.batch.database.address, names::plain(path))
}

/// An effect on some rows: what they were can be captured before.
fn row_effect(table: &ObjectName, verb: Verb, evidence: &str, walk: &mut Walk<'_, '_>) {
    let ceiling = match verb {
        Verb::Read => Reversibility::NoEffect,
        _ => Reversibility::Exact,
    };
    walk.on(table, |resource| Effect::new(verb, resource, evidence).reversible(ceiling));
}

fn changes(
    verb: Verb,
    targets: &[Target<'_>],
    selection: Option<&Expr>,
    limit: Option<&Expr>,
    walk: &mut Walk<'_, '_>,
) {
    if targets.is_empty() {
        let evidence = format!("a {verb} of what is no table");
        return walk.batch.opaque(NoteCode::Unreadable, evidence);
    }
    let mut names = Vec::new();
    for target in targets {
        names
            .extend(target.name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.clone()));
        names.extend(target.alias.map(str::to_owned));
    }
    let chosen = selection.map(|selection| truth(selection, &names));
    let evidence = match (chosen, few(limit)) {
        (Some(Truth::Depends), _) | (_, true) => None,
        (Some(Truth::Never), _) => None,
        (Some(Truth::Always | Truth::Same), false) => Some("a predicate that chooses nothing"),
        (None, false) => Some("no predicate"),
    };
    for target in targets {
        walk.deal_with(target.name);
        let Some(why) = evidence else {
            row_effect(target.name, verb, "changes rows", walk);
            continue;
        };
        walk.on(target.name, |resource| {
            let effect = Effect::new(verb, resource, why).whole();
            effect.reversible(Reversibility::Exact).at_least(EffectClass::Destructive)
        });
        if walk.planned == 0 {
            walk.batch.effects.note(NoteCode::MassChange, format!("a {verb} with {why}"));
        }
    }
}

fn few(limit: Option<&Expr>) -> bool {
    let Some(Expr::Value(value)) = limit else { return false };
    match &value.value {
        Value::Number(number, _) => number.parse::<u64>().is_ok_and(|limit| limit <= FEW_ROWS),
        _ => false,
    }
}

/// The tables of a joined table: any of them may be what is changed.
fn targets<'s>(tables: &'s TableWithJoins, walk: &mut Walk<'_, '_>) -> Vec<Target<'s>> {
    let joined = tables.joins.iter().map(|join| &join.relation);
    let mut targets = Vec::new();
    for factor in std::iter::once(&tables.relation).chain(joined) {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let alias = alias.as_ref().map(|alias| alias.name.value.as_str());
                targets.push(Target { name, alias });
            }
            TableFactor::Derived { .. } => {}
            _ => {
                let evidence = "a change of what is no table";
                walk.batch.opaque(NoteCode::Unreadable, evidence);
            }
        }
    }
    targets
}

/// The table that `name` is, if it is an alias.
fn behind<'s>(name: &'s ObjectName, all: &[Target<'s>]) -> Target<'s> {
    let last = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
    let found = all.iter().find(|target| {
        target.alias.is_some_and(|alias| last.is_some_and(|last| alias.eq_ignore_ascii_case(last)))
    });
    found.map_or(Target { name, alias: None }, |target| Target {
        name: target.name,
        alias: target.alias,
    })
}
