//! Tables, views, functions and other objects that are made and dropped. Must never call code
//! that will run later harmless because it does not run now.

use super::walk::Walk;
use super::{lists, names, rows};
use crate::effects::NoteCode;
use holdpoint_types::{Effect, EffectClass, Verb};
use sqlparser::ast::{
    CreateFunction, CreateTrigger, DropBehavior, FunctionSecurity, Ident, ObjectName, ObjectType,
    ReferentialAction, SchemaName, Statement,
};

pub(super) fn create(statement: &Statement, walk: &mut Walk<'_, '_>) {
    match statement {
        Statement::CreateTable(table) => {
            walk.deal_with(&table.name);
            let verb = if table.or_replace { Verb::Delete } else { Verb::Create };
            walk.on(&table.name, |resource| Effect::new(verb, resource, "`CREATE TABLE`"));
            for parent in table.inherits.iter().flatten().chain(&table.partition_of) {
                walk.deal_with(parent);
                walk.on(parent, |resource| Effect::new(Verb::Update, resource, "gets a child"));
            }
        }
        Statement::CreateView(view) => {
            walk.deal_with(&view.name);
            let verb = if view.or_replace { Verb::Update } else { Verb::Create };
            walk.on(&view.name, |resource| Effect::new(verb, resource, "`CREATE VIEW`"));
        }
        Statement::CreateIndex(index) => {
            walk.deal_with(&index.table_name);
            walk.on(&index.table_name, |resource| {
                Effect::new(Verb::Update, resource, "`CREATE INDEX`")
            });
        }
        Statement::CreateSchema { schema_name, .. } => {
            let name = match schema_name {
                SchemaName::Simple(name) | SchemaName::NamedAuthorization(name, _) => {
                    name.to_string()
                }
                SchemaName::UnnamedAuthorization(owner) => owner.value.clone(),
            };
            made(walk.batch.thing("schema", &name), "`CREATE SCHEMA`", walk);
        }
        Statement::CreateDatabase { db_name, .. } => {
            let other = names::other_database(walk.batch.database, &db_name.to_string());
            made(other, "`CREATE DATABASE`", walk);
        }
        Statement::CreateSequence { name, .. } | Statement::CreateType { name, .. } => {
            walk.deal_with(name);
            walk.on(name, |resource| Effect::new(Verb::Create, resource, "`CREATE`"));
        }
        Statement::CreateDomain(domain) => {
            walk.on(&domain.name, |resource| Effect::new(Verb::Create, resource, "`CREATE`"));
        }
        Statement::CreateVirtualTable { name, module_name, .. } => {
            virtual_table(name, module_name, walk);
        }
        Statement::CreateFunction(function) => create_function(function, walk),
        Statement::CreateTrigger(trigger) => create_trigger(trigger, walk),
        _ => walk.batch.opaque(NoteCode::UnseenCode, "brings foreign code or servers in"),
    }
}

pub(super) fn drop_object(statement: &Statement, walk: &mut Walk<'_, '_>) {
    let cascade = match statement {
        Statement::Drop { object_type, names, cascade, .. } => {
            drop_named(object_type, names, walk);
            *cascade
        }
        Statement::DropFunction(function) => {
            for desc in &function.func_desc {
                drop_one(&desc.name, "()", walk);
            }
            function.drop_behavior == Some(DropBehavior::Cascade)
        }
        Statement::DropProcedure { proc_desc, drop_behavior, .. } => {
            for desc in proc_desc {
                drop_one(&desc.name, "()", walk);
            }
            *drop_behavior == Some(DropBehavior::Cascade)
        }
        Statement::DropTrigger(trigger) => {
            let on = trigger.table_name.as_ref().unwrap_or(&trigger.trigger_name);
            walk.deal_with(on);
            walk.on(on, |resource| Effect::new(Verb::Delete, resource, "`DROP TRIGGER`"));
            trigger.option == Some(ReferentialAction::Cascade)
        }
        Statement::DropExtension(extension) => {
            for name in &extension.names {
                let resource = walk.batch.thing("extension", &name.value);
                let effect = Effect::new(Verb::Delete, resource, "`DROP EXTENSION`");
                walk.batch.effects.add(effect);
            }
            extension.cascade_or_restrict == Some(ReferentialAction::Cascade)
        }
        Statement::DropDomain(domain) => {
            drop_one(&domain.name, "", walk);
            domain.drop_behavior == Some(DropBehavior::Cascade)
        }
        _ => return walk.batch.opaque(NoteCode::Unreadable, "a `DROP` that is not known"),
    };
    if cascade {
        rows::cascades(walk);
    }
}

fn made(resource: String, evidence: &str, walk: &mut Walk<'_, '_>) {
    walk.batch.effects.add(Effect::new(Verb::Create, resource, evidence));
}

fn drop_named(kind: &ObjectType, names: &[ObjectName], walk: &mut Walk<'_, '_>) {
    let evidence = format!("`DROP {kind}`");
    for name in names {
        walk.deal_with(name);
        let thing = match kind {
            ObjectType::Table
            | ObjectType::View
            | ObjectType::MaterializedView
            | ObjectType::Sequence
            | ObjectType::Type
            | ObjectType::Collation
            | ObjectType::Index => None,
            ObjectType::Schema if walk.dialect() == super::Dialect::Mysql => {
                Some(names::other_database(walk.batch.database, &plain_name(name)) + "/*")
            }
            ObjectType::Schema => {
                let schema = names::plain(&plain_name(name));
                Some(format!("{}/{schema}.*", walk.batch.database.address))
            }
            ObjectType::Database => {
                Some(names::other_database(walk.batch.database, &plain_name(name)) + "/*")
            }
            ObjectType::Role | ObjectType::User => {
                Some(walk.batch.thing("role", &plain_name(name)))
            }
            ObjectType::Stage | ObjectType::Stream | ObjectType::Warehouse => {
                Some(walk.batch.database.address.clone())
            }
        };
        let make = |resource| Effect::new(Verb::Delete, resource, evidence.clone()).whole();
        match thing {
            Some(resource) => walk.batch.effects.add(make(resource)),
            None => walk.on(name, make),
        }
    }
    if matches!(kind, ObjectType::Table | ObjectType::Schema | ObjectType::Database) {
        walk.batch.effects.note(NoteCode::StatefulDelete, evidence);
    }
}

fn plain_name(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(|ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    })
    .unwrap_or_default()
}

fn drop_one(name: &ObjectName, suffix: &str, walk: &mut Walk<'_, '_>) {
    walk.on(name, |resource| {
        Effect::new(Verb::Delete, format!("{resource}{suffix}"), "`DROP`").whole()
    });
}

fn virtual_table(name: &ObjectName, module: &Ident, walk: &mut Walk<'_, '_>) {
    walk.deal_with(name);
    let known = lists::known(walk.dialect());
    if !known.modules.contains(&module.value.to_lowercase()) {
        let evidence = "a virtual table of a module that is not known";
        return walk.batch.opaque(NoteCode::UnseenCode, evidence);
    }
    walk.on(name, |resource| Effect::new(Verb::Create, resource, "`CREATE VIRTUAL TABLE`"));
}

/// A function does nothing until it is called, and a call of it is opaque. But who replaces one,
/// or takes the name of one that is trusted, changes what others call.
fn create_function(function: &CreateFunction, walk: &mut Walk<'_, '_>) {
    let name = plain_name(&function.name);
    let trusted = walk
        .batch
        .database
        .read_functions
        .iter()
        .any(|known| known.rsplit('.').next() == Some(name.as_str()));
    let replaces = function.or_replace || function.or_alter || trusted;
    let language = function.language.as_ref().map(|ident| ident.value.to_lowercase());
    if language.is_some_and(|name| name == "c" || name == "internal" || name.ends_with('u')) {
        let evidence = "a function in a language that reaches out of the database";
        walk.batch.opaque(NoteCode::UnseenCode, evidence);
    }
    walk.on(&function.name, |resource| {
        let resource = format!("{resource}()");
        match replaces {
            true => {
                let effect = Effect::new(Verb::Update, resource, "replaces what others may call");
                effect.at_least(EffectClass::Destructive)
            }
            false => Effect::new(Verb::Create, resource, "`CREATE FUNCTION`"),
        }
    });
    if replaces {
        let evidence = format!("function `{name}` is replaced");
        walk.batch.effects.note(NoteCode::UnseenCode, evidence);
    }
    if function.security == Some(FunctionSecurity::Definer) {
        let evidence = "`SECURITY DEFINER`: runs as its owner";
        walk.batch.effects.note(NoteCode::PrivilegeWidened, evidence);
        walk.on(&function.name, |resource| {
            Effect::new(Verb::Grant, format!("{resource}()"), evidence)
        });
    }
}

/// What a trigger does counts as if it were done now; what it calls is unseen.
fn create_trigger(trigger: &CreateTrigger, walk: &mut Walk<'_, '_>) {
    walk.deal_with(&trigger.table_name);
    walk.on(&trigger.table_name, |resource| {
        Effect::new(Verb::Schedule, resource, "`CREATE TRIGGER`")
    });
    walk.batch.effects.note(NoteCode::DeferredExecution, "a trigger runs on a change of a table");
    if let Some(body) = &trigger.exec_body {
        walk.calls(&body.func_desc.name);
    }
    if trigger.exec_body.is_none() && trigger.statements.is_none() {
        walk.batch.opaque(NoteCode::UnseenCode, "a trigger whose body cannot be read");
    }
}
