//! What each kind of statement does, besides what stands inside it. Must never let a kind of
//! statement through that it does not name: the last arm is opaque.

use super::walk::{Walk, text_of};
use super::{access, alter, objects, rows, settings};
use crate::effects::NoteCode;
use holdpoint_types::{Effect, EffectClass, Verb};
use sqlparser::ast::{Expr, ObjectName, SelectInto, Statement, UtilityOption};

/// Looks at `statement` before what is inside it.
pub(super) fn enter(statement: &Statement, walk: &mut Walk<'_, '_>) {
    match statement {
        Statement::Query(_) => {}
        Statement::Insert(insert) => rows::insert(insert, walk),
        Statement::Update(update) => rows::update(update, walk),
        Statement::Delete(delete) => rows::delete(delete, walk),
        Statement::Merge(merge) => rows::merge(merge, walk),
        Statement::Truncate(truncate) => rows::truncate(truncate, walk),
        Statement::Copy { source, to, target, .. } => rows::copy(source, *to, target, walk),
        Statement::Explain { .. } if plans_only(statement) => walk.planned += 1,
        Statement::Explain { .. } => {}
        Statement::Prepare { name, .. } => {
            walk.batch.prepared.insert(name.value.to_lowercase());
        }
        Statement::Execute { name, .. } => executes(name.as_ref(), walk),
        Statement::Call(function) => walk.calls(&function.name),
        Statement::Grant(_)
        | Statement::Revoke(_)
        | Statement::CreateRole(_)
        | Statement::AlterRole { .. }
        | Statement::CreateUser(_)
        | Statement::AlterUser(_)
        | Statement::CreatePolicy(_)
        | Statement::AlterPolicy(_)
        | Statement::DropPolicy(_) => access::enter(statement, walk),
        Statement::Drop { .. }
        | Statement::DropFunction(_)
        | Statement::DropProcedure { .. }
        | Statement::DropTrigger(_)
        | Statement::DropExtension(_)
        | Statement::DropDomain(_) => objects::drop_object(statement, walk),
        Statement::AlterTable(_)
        | Statement::AlterIndex { .. }
        | Statement::AlterView { .. }
        | Statement::AlterType(_)
        | Statement::AlterSchema(_)
        | Statement::RenameTable(_)
        | Statement::Comment { .. } => alter::enter(statement, walk),
        _ => others(statement, walk),
    }
}

/// Looks at `statement` after what is inside it.
pub(super) fn leave(statement: &Statement, walk: &mut Walk<'_, '_>) {
    if plans_only(statement) {
        walk.planned = walk.planned.saturating_sub(1);
    }
}

/// `SELECT … INTO t` makes a table, in PostgreSQL.
pub(super) fn select_into(into: &SelectInto, walk: &mut Walk<'_, '_>) {
    for target in &into.targets {
        let parts = match target {
            Expr::Identifier(ident) => vec![ident.clone()],
            Expr::CompoundIdentifier(parts) => parts.clone(),
            _ => {
                let evidence = "`SELECT … INTO` something that is no table";
                walk.batch.opaque(NoteCode::Unreadable, evidence);
                continue;
            }
        };
        let name = ObjectName::from(parts);
        walk.on(&name, |resource| Effect::new(Verb::Create, resource, "`SELECT … INTO`"));
    }
}

fn others(statement: &Statement, walk: &mut Walk<'_, '_>) {
    match statement {
        Statement::CreateTable(_)
        | Statement::CreateView(_)
        | Statement::CreateIndex(_)
        | Statement::CreateSchema { .. }
        | Statement::CreateDatabase { .. }
        | Statement::CreateSequence { .. }
        | Statement::CreateType { .. }
        | Statement::CreateDomain(_)
        | Statement::CreateVirtualTable { .. }
        | Statement::CreateFunction(_)
        | Statement::CreateTrigger(_)
        | Statement::CreateExtension(_)
        | Statement::CreateServer(_) => objects::create(statement, walk),
        Statement::Set(set) => settings::set(set, walk),
        Statement::Reset(reset) => settings::reset(reset, walk),
        Statement::Discard { .. } => settings::discard(walk),
        Statement::Use(target) => settings::use_database(target, walk),
        Statement::AttachDatabase { database_file_name, .. } => {
            settings::attach(text_of(database_file_name), walk);
        }
        Statement::Vacuum(vacuum) => maintains(vacuum.table_name.as_ref(), "`VACUUM`", walk),
        Statement::Analyze(analyze) => maintains(analyze.table_name.as_ref(), "`ANALYZE`", walk),
        Statement::OptimizeTable { name, .. } => maintains(Some(name), "`OPTIMIZE`", walk),
        Statement::Lock(lock) => {
            for target in &lock.tables {
                locks(&target.name, walk);
            }
        }
        Statement::LockTables { tables } => {
            for target in tables {
                locks(&ObjectName::from(vec![target.table.clone()]), walk);
            }
        }
        Statement::NOTIFY { channel, .. } => {
            let channel = walk.batch.thing("channel", &channel.value);
            walk.batch.effects.add(Effect::new(Verb::Send, channel, "`NOTIFY`"));
        }
        Statement::Kill { .. } | Statement::Flush { .. } => {
            let address = &walk.batch.database.address;
            let effect = Effect::new(Verb::Execute, address, "`KILL` or `FLUSH`");
            walk.batch.effects.add(effect.at_least(EffectClass::Destructive));
        }
        other => looks(other, walk),
    }
}

/// What only looks, or only concerns the connection; and everything that is not known.
fn looks(statement: &Statement, walk: &mut Walk<'_, '_>) {
    let evidence = match statement {
        Statement::ExplainTable { table_name, .. } => {
            walk.deal_with(table_name);
            return walk.on(table_name, |resource| Effect::new(Verb::Read, resource, "describes"));
        }
        Statement::ShowVariable { .. }
        | Statement::ShowStatus { .. }
        | Statement::ShowVariables { .. }
        | Statement::ShowCreate { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowProcessList { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowCharset(_)
        | Statement::ShowTables { .. }
        | Statement::ShowViews { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowCollation { .. } => "`SHOW`",
        Statement::StartTransaction { .. } => "begins a transaction",
        Statement::Commit { .. } | Statement::Rollback { .. } => "ends a transaction",
        Statement::Savepoint { .. } | Statement::ReleaseSavepoint { .. } => "a savepoint",
        Statement::UnlockTables => "unlocks tables",
        Statement::Deallocate { .. } => "forgets a prepared statement",
        Statement::Declare { .. } | Statement::Fetch { into: None, .. } => "a cursor",
        Statement::Close { .. } => "closes a cursor",
        Statement::LISTEN { .. } | Statement::UNLISTEN { .. } => "listens",
        Statement::Load { .. } | Statement::Install { .. } => {
            let evidence = "loads code into the server";
            return walk.batch.opaque(NoteCode::UnseenCode, evidence);
        }
        _ => {
            let evidence = "a statement of a kind that is not known";
            return walk.batch.opaque(NoteCode::Unreadable, evidence);
        }
    };
    let address = &walk.batch.database.address;
    walk.batch.effects.add(Effect::new(Verb::Read, address, evidence));
}

/// True for an `EXPLAIN` that does not run what it explains.
fn plans_only(statement: &Statement) -> bool {
    match statement {
        Statement::Explain { analyze: false, options, .. } => {
            !options.iter().flatten().any(analyzes)
        }
        _ => false,
    }
}

fn analyzes(option: &UtilityOption) -> bool {
    let off = option.arg.as_ref().is_some_and(|arg| {
        let text = match arg {
            Expr::Value(value) => value.value.to_string(),
            Expr::Identifier(ident) => ident.value.clone(),
            _ => String::new(),
        };
        ["false", "off", "0"].contains(&text.trim_matches('\'').to_lowercase().as_str())
    });
    option.name.value.eq_ignore_ascii_case("analyze") && !off
}

fn executes(name: Option<&ObjectName>, walk: &mut Walk<'_, '_>) {
    let name = name.map(|name| name.to_string().to_lowercase()).unwrap_or_default();
    if !walk.batch.prepared.contains(&name) {
        let evidence = "`EXECUTE` of what was prepared elsewhere";
        walk.batch.opaque(NoteCode::UnseenCode, evidence);
    }
}

fn maintains(table: Option<&ObjectName>, evidence: &str, walk: &mut Walk<'_, '_>) {
    let make = |resource: String| Effect::new(Verb::Update, resource, evidence);
    match table {
        Some(table) if !table.0.is_empty() => {
            walk.deal_with(table);
            walk.on(table, make);
        }
        Some(_) | None => walk.batch.effects.add(make(walk.batch.database.address.clone())),
    }
}

fn locks(table: &ObjectName, walk: &mut Walk<'_, '_>) {
    walk.deal_with(table);
    walk.on(table, |resource| Effect::new(Verb::Execute, resource, "`LOCK`"));
}
