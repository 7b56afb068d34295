//! Settings of the connection, pragmas and commands to the client program. Must never read on in
//! the same way after a setting that changes how text is read.

use super::names::Path;
use super::walk::{Batch, Walk, text_of};
use super::{Dialect, access, lists, rows};
use crate::effects::NoteCode;
use holdpoint_types::{Effect, EffectClass, Verb};
use sqlparser::ast::{
    ContextModifier, Expr, ObjectName, Reset, ResetStatement, Set,
    SetSessionAuthorizationParamKind, Use,
};

pub(super) fn set(set: &Set, walk: &mut Walk<'_, '_>) {
    match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            assigns(scope.as_ref(), variable, values, walk);
        }
        Set::MultipleAssignments { assignments } => {
            for one in assignments {
                let values = std::slice::from_ref(&one.value);
                assigns(one.scope.as_ref(), &one.name, values, walk);
            }
        }
        Set::SetRole { role_name, .. } => {
            let name = role_name.as_ref().map_or("none", |name| name.value.as_str());
            access::role(name, "`SET ROLE`", walk);
        }
        Set::SetSessionAuthorization(param) => {
            let name = match &param.kind {
                SetSessionAuthorizationParamKind::Default => "default",
                SetSessionAuthorizationParamKind::User(name) => name.value.as_str(),
            };
            access::role(name, "`SET SESSION AUTHORIZATION`", walk);
        }
        Set::SetTimeZone { .. } | Set::SetTransaction { .. } => harmless("`SET`", walk),
        // In these no sign but a quote has the byte of one.
        Set::SetNames { charset_name, .. } if is_plain(&charset_name.value) => {
            harmless("`SET NAMES`", walk);
        }
        Set::SetNames { .. } | Set::SetNamesDefault {} => {
            distrusts("`SET NAMES`", walk);
        }
        Set::ParenthesizedAssignments { .. } | Set::SetSessionParam(_) => {
            walk.batch.opaque(NoteCode::Unreadable, "a `SET` that is not known");
        }
    }
}

pub(super) fn reset(reset: &ResetStatement, walk: &mut Walk<'_, '_>) {
    if walk.dialect() != Dialect::Postgres {
        // `RESET MASTER` of MySQL deletes the log that copies and recovery live on.
        let address = walk.batch.database.address.clone();
        return walk.batch.effects.add(Effect::new(Verb::Delete, address, "`RESET`").whole());
    }
    let name = match &reset.reset {
        Reset::ALL => return restores_all(walk),
        Reset::SessionAuthorization => "session_authorization".to_owned(),
        Reset::ConfigurationParameter(name) => name.to_string().to_lowercase(),
    };
    match name.as_str() {
        "role" | "session_authorization" => access::role("default", "`RESET ROLE`", walk),
        "search_path" => {
            walk.batch.path = Path::Usual;
            harmless("`RESET`", walk);
        }
        name if lists::known(walk.dialect()).quoting.contains(name) => distrusts("`RESET`", walk),
        _ => harmless("`RESET`", walk),
    }
}

pub(super) fn discard(walk: &mut Walk<'_, '_>) {
    walk.batch.path = Path::Usual;
    walk.batch.prepared.clear();
    // Whoever logged in is who the operator let in.
    harmless("`DISCARD`", walk);
}

/// True if a character set has no sign of several bytes with a quote's or a backslash's byte in it.
fn is_plain(charset: &str) -> bool {
    let known = ["utf8mb4", "utf8", "utf8mb3", "latin1", "ascii", "binary"];
    known.iter().any(|known| charset.eq_ignore_ascii_case(known))
}

pub(super) fn use_database(target: &Use, walk: &mut Walk<'_, '_>) {
    let (Use::Object(name) | Use::Database(name) | Use::Schema(name)) = target else {
        return walk.batch.opaque(NoteCode::Unreadable, "a `USE` that is not known");
    };
    let chosen = super::names::parts(walk.dialect(), name).unwrap_or_default();
    walk.batch.path = match (walk.dialect(), chosen.as_slice()) {
        (Dialect::Mysql, [name]) => Path::Chosen(name.clone()),
        _ => Path::Unknown,
    };
    harmless("`USE`", walk);
}

/// `PRAGMA schema.name`, `PRAGMA name = value`, `PRAGMA name(value)`, of which the parser knows
/// only some.
pub(super) fn pragma(text: &str, batch: &mut Batch<'_>) {
    let text = text.trim_start().get("PRAGMA".len()..).unwrap_or("").trim();
    let (name, value) =
        text.split_at_checked(text.find(['=', '(']).unwrap_or(text.len())).unwrap_or((text, ""));
    let name = name.trim().rsplit('.').next().unwrap_or("").to_lowercase();
    let name = name.trim_matches(['"', ' ']);
    let known = lists::known(batch.database.dialect);
    let lookup = known.lookups.contains(name) && !value.starts_with('=');
    if lookup || (value.is_empty() && known.settings.contains(name)) {
        let effect = Effect::new(Verb::Read, &batch.database.address, "`PRAGMA` that looks");
        return batch.effects.add(effect);
    }
    let effect = Effect::new(Verb::Update, batch.thing("pragma", name), "`PRAGMA`");
    let bare = value.trim_matches(['=', '(', ')', '\'', '"', ' ', ';']).to_lowercase();
    let safe = match name {
        "journal_mode" => ["wal", "delete", "truncate", "persist"].contains(&bare.as_str()),
        "synchronous" => ["normal", "full", "extra", "1", "2", "3"].contains(&bare.as_str()),
        "foreign_keys" | "cell_size_check" => ["on", "1", "true", "yes"].contains(&bare.as_str()),
        "optimize" => true,
        name => known.session.contains(name) && !value.is_empty(),
    };
    batch.effects.add(match safe {
        true => effect,
        false => effect.at_least(EffectClass::Destructive),
    });
}

/// SQLite opens, and makes if need be, any file that its process can open.
pub(super) fn attach(file: Option<&str>, walk: &mut Walk<'_, '_>) {
    match file {
        Some("" | ":memory:") => harmless("`ATTACH` of nothing that is stored", walk),
        Some(path) => {
            let file = rows::server_file(path, walk);
            walk.batch.effects.add_opaque(&file, NoteCode::UnseenCode, "`ATTACH` of a file");
        }
        None => walk.batch.opaque(NoteCode::Unreadable, "`ATTACH` of what is computed"),
    }
}

/// A line that the client program takes for itself: it can run programs and read files.
pub(super) fn client_line(line: &str, batch: &mut Batch<'_>) {
    let known = lists::known(batch.database.dialect);
    let word = line.split([' ', '\t', ';']).next().unwrap_or("");
    let word = word.strip_prefix('\\').unwrap_or(word);
    let more = line.get(1..).unwrap_or("");
    if known.client_harmless.contains(word) && !more.contains(['`', '\\', '|']) {
        let address = &batch.database.address;
        let effect = Effect::new(Verb::Read, address, format!("client command `{word}`"));
        return batch.effects.add(effect);
    }
    batch.opaque(NoteCode::UnseenCode, "a command to the client program");
}

fn assigns(
    scope: Option<&ContextModifier>,
    variable: &ObjectName,
    values: &[Expr],
    walk: &mut Walk<'_, '_>,
) {
    let name = variable.to_string().to_lowercase().replace(['"', '`'], "");
    let own = name.starts_with('@') && !name.starts_with("@@");
    let global = scope == Some(&ContextModifier::Global)
        || ["@@global.", "@@persist", "persist"].iter().any(|start| name.starts_with(start));
    let name = ["@@session.", "@@local.", "@@"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(&name);
    let known = lists::known(walk.dialect());
    match name {
        _ if own => harmless("a variable of the session", walk),
        "role" | "session_authorization" => access::role("set", "`SET ROLE`", walk),
        "search_path" => {
            walk.batch.path = match values {
                [value] => text_of(value)
                    .filter(|text| !text.is_empty() && !text.contains([',', ' ', '$']))
                    .map_or(Path::Unknown, |text| Path::Chosen(text.to_lowercase())),
                _ => Path::Unknown,
            };
            harmless("`SET search_path`", walk);
        }
        name if known.quoting.contains(name) => distrusts("`SET`", walk),
        name if known.settings.contains(name) && !global => harmless("`SET`", walk),
        name => {
            let resource = walk.batch.thing("setting", name);
            let effect = Effect::new(Verb::Update, resource, "a setting that is not known");
            walk.batch.effects.add(effect.at_least(EffectClass::Destructive));
        }
    }
}

fn restores_all(walk: &mut Walk<'_, '_>) {
    walk.batch.path = Path::Usual;
    harmless("`RESET ALL`", walk);
}

fn harmless(evidence: &str, walk: &mut Walk<'_, '_>) {
    let address = &walk.batch.database.address;
    walk.batch.effects.add(Effect::new(Verb::Read, address, evidence));
}

fn distrusts(what: &str, walk: &mut Walk<'_, '_>) {
    walk.batch.distrust = Some("a setting that changes how text is read");
    let resource = walk.batch.thing("setting", "quoting");
    let effect = Effect::new(Verb::Update, resource, what);
    walk.batch.effects.add(effect.at_least(EffectClass::Destructive));
}
