//! Database clients: what they are told to run goes to the analyser of SQL.
//!
//! Owns where a client's SQL stands. It must never judge SQL itself.

use super::{Argv, Call, Looks, option_values, unlisted};
use crate::shell::{Feed, Shell};
use crate::sql::{Database, Dialect, sql};
use crate::words::Arg;
use crate::{Effects, NoteCode};
use holdpoint_types::{Effect, Verb};
use std::collections::{BTreeMap, BTreeSet};

/// Adds what a database client does.
pub(super) fn run(shell: &mut Shell<'_>, call: &Call<'_>) {
    let argv = call.options(None).part(call.args);
    unlisted(shell, call, &argv, Looks::Only);
    option_values(shell, call, &argv, call.options(None));
    let database = database(shell, call, &argv);
    let mut texts: Vec<Arg> = Vec::new();
    for (name, value) in &argv.options {
        match (name.as_str(), value) {
            ("-c" | "--command" | "-e" | "--execute" | "-cmd", Some(text)) => {
                texts.push(text.clone());
            }
            ("-f" | "--file" | "-init", _) => return unseen(shell, call, &database),
            ("-l" | "--list", _) if database.dialect == Dialect::Postgres => {
                let address = database.address.clone();
                return shell.add(Effect::new(Verb::Read, address, call.shown.clone()));
            }
            _ => {}
        }
    }
    if database.dialect == Dialect::Sqlite {
        texts.extend(argv.operands.iter().skip(1).cloned());
    }
    if texts.is_empty() {
        match call.feed {
            Feed::Text(text) => texts.push(text.clone()),
            Feed::Inherited | Feed::Unknown | Feed::File(_) => {
                return unseen(shell, call, &database);
            }
        }
    }
    let mut effects = Effects::default();
    for text in texts {
        match text.is_unknown() {
            true => unseen(shell, call, &database),
            false => client_text(&text.text, &database, &mut effects),
        }
    }
    shell.take(effects);
}

fn unseen(shell: &mut Shell<'_>, call: &Call<'_>, database: &Database) {
    let mut effects = Effects::default();
    effects.add_opaque(&database.address, NoteCode::UnseenCode, call.shown.clone());
    shell.take(effects);
}

/// Clients have commands of their own besides SQL: a few only look, the others can do anything.
fn client_text(text: &str, database: &Database, effects: &mut Effects) {
    let looks = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.strip_prefix('\\').is_some_and(|word| word.starts_with('d') || word == "l")
            && database.dialect == Dialect::Postgres
            && !line.contains(['|', '`'])
            || matches!(
                word,
                ".tables" | ".schema" | ".indexes" | ".databases" | ".mode" | ".headers"
            )
    };
    let mut rest = Vec::new();
    for line in text.lines() {
        let start = line.trim_start();
        if !start.starts_with(['\\', '.']) {
            rest.push(line);
        } else if looks(start) {
            effects.add(Effect::new(Verb::Read, database.address.clone(), start));
        } else {
            return effects.add_opaque(&database.address, NoteCode::UnseenCode, start);
        }
    }
    let rest = rest.join("\n");
    if database.dialect == Dialect::Postgres && rest.contains('\\') {
        return effects.add_opaque(&database.address, NoteCode::Unreadable, rest);
    }
    if !rest.trim().is_empty() {
        sql(&rest, database, effects);
    }
}

fn database(shell: &Shell<'_>, call: &Call<'_>, argv: &Argv) -> Database {
    let option = |names: &[&str]| names.iter().find_map(|name| argv.value(name)).map(Arg::shown);
    let operand = argv.operands.first();
    let here = shell.state.host.clone().unwrap_or_else(|| "localhost".to_owned());
    let variable = |names: &[&str]| {
        let mut set = names.iter().filter_map(|name| shell.state.variables.get(*name));
        set.next_back().map(Arg::shown).filter(|value| !value.is_empty())
    };
    let named = if call.name == "psql" { ["PGHOST", "PGHOSTADDR"] } else { ["MYSQL_HOST"; 2] };
    let host = option(&["-h", "--host"]).or_else(|| variable(&named)).unwrap_or(here);
    let (dialect, address) = match call.name {
        "sqlite3" => {
            let address = match operand {
                Some(file) if file.text != ":memory:" => {
                    format!("sqlite://{}", shell.spot().path(file).text)
                }
                _ => "sqlite://memory".to_owned(),
            };
            (Dialect::Sqlite, address)
        }
        "mysql" | "mariadb" => {
            let name = option(&["-D", "--database"]).or_else(|| operand.map(Arg::shown));
            let name = name.unwrap_or_else(|| "*".to_owned());
            (Dialect::Mysql, format!("mysql://{host}/{name}"))
        }
        _ => {
            let name = option(&["-d", "--dbname"]).or_else(|| operand.map(Arg::shown));
            let name = name.or_else(|| variable(&["PGDATABASE"])).unwrap_or_else(|| "*".to_owned());
            // `host=… dbname=…`: what it names goes before options and variables.
            let pair = |key: &str| {
                let mut pairs = name.split_whitespace().filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
            };
            let service = variable(&["PGSERVICE"]).is_some() || pair("service").is_some();
            let host = pair("hostaddr").or_else(|| pair("host")).unwrap_or(host);
            let host = if service { "*".to_owned() } else { host };
            let name = match name.contains('=') && !name.contains("://") {
                true => pair("dbname").unwrap_or_else(|| "*".to_owned()),
                false => name.clone(),
            };
            let url =
                name.split_once("://").map(|(_, rest)| rest.split('?').next().unwrap_or(rest));
            let address = match url {
                Some(url) => format!("pg://{}", url.rsplit('@').next().unwrap_or(url)),
                None => format!("pg://{host}/{name}"),
            };
            (Dialect::Postgres, address)
        }
    };
    Database { dialect, address, views: BTreeMap::new(), read_functions: BTreeSet::new() }
}
