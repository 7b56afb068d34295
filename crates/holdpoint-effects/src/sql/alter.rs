//! Objects that are altered. Must never call an alteration harmless that it does not name.

use super::walk::Walk;
use crate::effects::NoteCode;
use holdpoint_types::{Effect, EffectClass, Reversibility, Verb};
use sqlparser::ast::{
    AlterColumnOperation, AlterSchemaOperation, AlterTable, AlterTableOperation, ObjectName,
    Statement,
};

/// What one alteration comes to.
enum Change {
    /// Changed back by another one.
    Mild,
    /// Loses something that is no data, or cannot be told.
    Strict(&'static str),
    /// Loses data.
    Loses(&'static str),
    /// Somebody may do more, or a protection ends.
    Widens(&'static str),
}

pub(super) fn enter(statement: &Statement, walk: &mut Walk<'_, '_>) {
    match statement {
        Statement::AlterTable(table) => alter_table(table, walk),
        Statement::AlterIndex { name, .. } | Statement::Comment { object_name: name, .. } => {
            mild(name, walk);
        }
        Statement::AlterView { name, .. } => mild(name, walk),
        Statement::AlterType(alter) => mild(&alter.name, walk),
        Statement::AlterSchema(schema) => {
            let widens = schema
                .operations
                .iter()
                .any(|operation| matches!(operation, AlterSchemaOperation::OwnerTo { .. }));
            let resource = walk.batch.thing("schema", &schema.name.to_string());
            let verb = if widens { Verb::Grant } else { Verb::Update };
            let effect = Effect::new(verb, resource, "`ALTER SCHEMA`");
            walk.batch.effects.add(effect.at_least(EffectClass::Destructive));
        }
        Statement::RenameTable(renames) => {
            for rename in renames {
                mild(&rename.old_name, walk);
                mild(&rename.new_name, walk);
            }
        }
        _ => walk.batch.opaque(NoteCode::Unreadable, "an `ALTER` that is not known"),
    }
}

fn mild(name: &ObjectName, walk: &mut Walk<'_, '_>) {
    walk.deal_with(name);
    walk.on(name, |resource| Effect::new(Verb::Update, resource, "`ALTER`"));
}

fn alter_table(table: &AlterTable, walk: &mut Walk<'_, '_>) {
    walk.deal_with(&table.name);
    for operation in &table.operations {
        match change(operation) {
            Change::Mild => mild(&table.name, walk),
            Change::Strict(why) => walk.on(&table.name, |resource| {
                Effect::new(Verb::Update, resource, why).at_least(EffectClass::Destructive)
            }),
            Change::Loses(why) => {
                walk.on(&table.name, |resource| Effect::new(Verb::Delete, resource, why));
                walk.batch.effects.note(NoteCode::StatefulDelete, why);
            }
            Change::Widens(why) => {
                walk.on(&table.name, |resource| {
                    let effect = Effect::new(Verb::Grant, resource, why);
                    effect.reversible(Reversibility::Compensable)
                });
                walk.batch.effects.note(NoteCode::PrivilegeWidened, why);
            }
        }
    }
}

fn change(operation: &AlterTableOperation) -> Change {
    use AlterTableOperation as Op;
    match operation {
        Op::AddColumn { .. }
        | Op::AddConstraint { .. }
        | Op::RenameColumn { .. }
        | Op::RenameConstraint { .. }
        | Op::RenameTable { .. }
        | Op::EnableRowLevelSecurity
        | Op::ForceRowLevelSecurity
        | Op::ValidateConstraint { .. }
        | Op::AddPartitions { .. }
        | Op::AttachPartition { .. }
        | Op::ReplicaIdentity { .. }
        | Op::Algorithm { .. }
        | Op::Lock { .. }
        | Op::AutoIncrement { .. } => Change::Mild,
        Op::AlterColumn { op, .. } => match op {
            AlterColumnOperation::SetNotNull
            | AlterColumnOperation::DropNotNull
            | AlterColumnOperation::SetDefault { .. }
            | AlterColumnOperation::DropDefault
            | AlterColumnOperation::AddGenerated { .. } => Change::Mild,
            AlterColumnOperation::SetDataType { .. } => {
                Change::Strict("values are converted to another type")
            }
        },
        Op::ChangeColumn { .. } | Op::ModifyColumn { .. } => {
            Change::Strict("values may be converted to another type")
        }
        Op::DropColumn { .. } => Change::Loses("`DROP COLUMN`"),
        Op::DropPartitions { .. } => Change::Loses("`DROP PARTITION`"),
        Op::DropConstraint { .. }
        | Op::DropPrimaryKey { .. }
        | Op::DropForeignKey { .. }
        | Op::DropIndex { .. } => Change::Strict("drops a constraint or index"),
        Op::DisableRowLevelSecurity | Op::NoForceRowLevelSecurity => {
            Change::Widens("row level security ends")
        }
        Op::DisableTrigger { .. } | Op::DisableRule { .. } => {
            Change::Strict("a trigger or rule is disabled")
        }
        Op::OwnerTo { .. } => Change::Widens("another owner"),
        _ => Change::Strict("an alteration that is not known"),
    }
}
