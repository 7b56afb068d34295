//! Who may do what: grants, roles and row policies. Must never call a change of rights harmless.

use super::walk::Walk;
use crate::effects::NoteCode;
use holdpoint_types::{Effect, Verb};
use sqlparser::ast::{
    CreateRole, Grant, GrantObjects, Grantee, GranteesType, ObjectName, Privileges, Revoke,
    Statement,
};

pub(super) fn enter(statement: &Statement, walk: &mut Walk<'_, '_>) {
    match statement {
        Statement::Grant(grant) => grants(grant, walk),
        Statement::Revoke(revoke) => revokes(revoke, walk),
        Statement::CreateRole(role) => create_role(role, walk),
        Statement::AlterRole { name, .. } => role(&name.value, "`ALTER ROLE`", walk),
        Statement::CreateUser(user) => role(&user.name.value, "`CREATE USER`", walk),
        Statement::AlterUser(user) => role(&user.name.value, "`ALTER USER`", walk),
        Statement::CreatePolicy(policy) => row_policy(&policy.table_name, walk),
        Statement::AlterPolicy(policy) => row_policy(&policy.table_name, walk),
        Statement::DropPolicy(policy) => row_policy(&policy.table_name, walk),
        _ => walk.batch.opaque(NoteCode::Unreadable, "a change of rights that is not known"),
    }
}

/// A change of what the role called `name` may do.
pub(super) fn role(name: &str, evidence: &str, walk: &mut Walk<'_, '_>) {
    let resource = walk.batch.thing("role", &name.to_lowercase());
    walk.batch.effects.add(Effect::new(Verb::Grant, resource, evidence));
    walk.batch.effects.note(NoteCode::PrivilegeWidened, evidence);
}

fn grants(grant: &Grant, walk: &mut Walk<'_, '_>) {
    on_objects(grant.objects.as_ref(), "`GRANT`", walk);
    to_roles(&grant.grantees, "`GRANT`", walk);
    walk.batch.effects.note(NoteCode::PrivilegeWidened, "`GRANT`");
    let wide_objects = grant.objects.as_ref().is_some_and(is_wide);
    let all = matches!(grant.privileges, Privileges::All { .. });
    let everybody = grant.grantees.iter().any(is_everybody);
    if all || everybody || wide_objects {
        let evidence = "`GRANT` of all, on all or to everybody";
        walk.batch.effects.note(NoteCode::WildcardPrivilege, evidence);
    }
    if grant.objects.is_none()
        && let Privileges::Actions(roles) = &grant.privileges
    {
        for granted in roles {
            role(&granted.to_string(), "`GRANT` of a role", walk);
        }
    }
}

fn revokes(revoke: &Revoke, walk: &mut Walk<'_, '_>) {
    on_objects(revoke.objects.as_ref(), "`REVOKE`", walk);
    to_roles(&revoke.grantees, "`REVOKE`", walk);
}

fn to_roles(grantees: &[Grantee], evidence: &str, walk: &mut Walk<'_, '_>) {
    for grantee in grantees {
        let name = match &grantee.name {
            Some(name) if !is_everybody(grantee) => name.to_string().to_lowercase(),
            Some(_) | None => "public".to_owned(),
        };
        let resource = walk.batch.thing("role", &name);
        walk.batch.effects.add(Effect::new(Verb::Grant, resource, evidence));
    }
}

fn is_everybody(grantee: &Grantee) -> bool {
    grantee.grantee_type == GranteesType::Public
        || grantee.name.as_ref().is_some_and(|name| name.to_string().eq_ignore_ascii_case("public"))
}

fn is_wide(objects: &GrantObjects) -> bool {
    match objects {
        GrantObjects::Tables(names) => names.iter().any(has_star),
        GrantObjects::AllTablesInSchema { .. }
        | GrantObjects::AllSequencesInSchema { .. }
        | GrantObjects::AllFunctionsInSchema { .. } => true,
        _ => false,
    }
}

fn has_star(name: &ObjectName) -> bool {
    name.to_string().contains('*')
}

fn on_objects(objects: Option<&GrantObjects>, evidence: &str, walk: &mut Walk<'_, '_>) {
    let make = |resource: String| Effect::new(Verb::Grant, resource, evidence);
    match objects {
        None => {}
        Some(GrantObjects::Tables(names)) => {
            for name in names {
                walk.deal_with(name);
                if has_star(name) {
                    let all = format!("{}/*", walk.batch.database.address);
                    walk.batch.effects.add(make(all).whole());
                } else {
                    walk.on(name, make);
                }
            }
        }
        Some(GrantObjects::Sequences(names)) => {
            for name in names {
                walk.deal_with(name);
                walk.on(name, make);
            }
        }
        Some(
            GrantObjects::AllTablesInSchema { schemas }
            | GrantObjects::AllSequencesInSchema { schemas }
            | GrantObjects::AllFunctionsInSchema { schemas }
            | GrantObjects::Schemas(schemas),
        ) => {
            for schema in schemas {
                walk.deal_with(schema);
                let schema = schema.to_string().to_lowercase();
                let all = format!("{}/{schema}.*", walk.batch.database.address);
                walk.batch.effects.add(make(all).whole());
            }
        }
        Some(_) => walk.batch.effects.add(make(walk.batch.database.address.clone()).whole()),
    }
}

fn create_role(create: &CreateRole, walk: &mut Walk<'_, '_>) {
    for name in &create.names {
        role(&name.to_string(), "`CREATE ROLE`", walk);
    }
    let wide = [create.superuser, create.bypassrls, create.create_role, create.replication];
    if wide.contains(&Some(true)) {
        let evidence = "a role that stands above the rules";
        walk.batch.effects.note(NoteCode::WildcardPrivilege, evidence);
    }
}

fn row_policy(table: &ObjectName, walk: &mut Walk<'_, '_>) {
    walk.deal_with(table);
    walk.on(table, |resource| Effect::new(Verb::Grant, resource, "a row policy"));
    walk.batch.effects.note(NoteCode::PrivilegeWidened, "who may see which rows is changed");
}
