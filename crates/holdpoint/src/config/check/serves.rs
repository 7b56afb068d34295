//! Checks what Holdpoint serves itself, and what is known about its tools without being told.
//! Must not open a database, nor run a program.

use super::Checker;
use crate::config::checked::{Served, Serves, ValueSource};
use crate::config::raw::{At, RawServer, RawServes};
use holdpoint_control::{ResourceTemplate, ToolRules};
use holdpoint_effects::{Analyser, Database, Dialect, Family, Place, Source};
use holdpoint_types::EffectClass;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a server may serve.
const KINDS: [&str; 5] = ["sqlite", "postgres", "git", "terraform", "shell"];
/// Most rows that an operator may allow.
const ROWS_MAX: u64 = 1_000_000;
/// Longest time that statements may run, in milliseconds.
const STATEMENT_MS_MAX: u64 = 3_600_000;
/// Longest time to wait for a lock, in milliseconds.
const LOCK_MS_MAX: u64 = 600_000;

// === impl Checker ===

impl Checker<'_> {
    /// What the server `name` serves, with these variables.
    pub(super) fn serves(
        &mut self,
        name: &str,
        raw: &At<RawServes>,
        env: BTreeMap<String, ValueSource>,
    ) -> Option<Serves> {
        let one = raw.get();
        let (span, start) = (raw.span(), raw.span().start);
        let path = |checker: &mut Self, path: &At<String>| checker.path(Some(path));
        let git = one.git.as_ref().and_then(|folder| path(self, folder));
        let terraform = one.terraform.as_ref().and_then(|folder| path(self, folder));
        let sqlite = one.sqlite.as_ref().and_then(|file| path(self, file));
        let postgres = one.postgres.as_ref();
        let postgres = postgres.and_then(|url| self.value_reference(url.span(), url.get()));
        let shell = one.shell.as_ref().and_then(|folder| path(self, folder));
        let written = [&one.sqlite, &one.git, &one.terraform, &one.shell];
        let written = written.iter().filter(|there| there.is_some()).count();
        let written = written + usize::from(one.postgres.is_some());
        if written != 1 {
            if !KINDS.iter().any(|kind| self.dropped.has(start, kind)) {
                let message = "a server serves exactly one of `sqlite`, `postgres`, `git`, \
                               `terraform` and `shell`";
                self.fault(span, message.to_owned(), None);
            }
            return None;
        }
        self.refuse_foreign(one);
        let served = self.served(one, (sqlite, postgres), (git, terraform, shell))?;
        let address = match &one.address {
            Some(address) if !address.get().contains("://") => {
                let message =
                    format!("`{}` does not begin with a scheme such as `pg://`", address.get());
                self.fault(address.span(), message, None);
                return None;
            }
            Some(address) => address.get().clone(),
            None => format!("{}://{name}", served.scheme()),
        };
        let rows_max = self.usual_or(one.rows_max.as_ref(), "rows_max", (1_000, ROWS_MAX));
        let statement = one.statement_timeout_ms.as_ref();
        let statement =
            self.usual_or(statement, "statement_timeout_ms", (10_000, STATEMENT_MS_MAX));
        let lock = one.lock_timeout_ms.as_ref();
        let lock_timeout_ms = self.usual_or(lock, "lock_timeout_ms", (2_000, LOCK_MS_MAX));
        let statement_timeout_ms = statement;
        Some(Serves { served, address, rows_max, statement_timeout_ms, lock_timeout_ms, env })
    }

    /// What exactly one of these is.
    fn served(
        &mut self,
        one: &RawServes,
        (sqlite, postgres): (Option<PathBuf>, Option<ValueSource>),
        (git, terraform, shell): (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    ) -> Option<Served> {
        let program = |default: &str| match &one.program {
            Some(program) => PathBuf::from(program.get()),
            None => PathBuf::from(default),
        };
        let flag = |flag: &Option<At<bool>>| flag.as_ref().is_some_and(|flag| *flag.get());
        let transports = one.transports.as_ref().map_or_else(
            || vec!["https".to_owned(), "ssh".to_owned()],
            |all| all.iter().map(|one| one.get().clone()).collect(),
        );
        let author = self.author(one.author.as_ref());
        Some(match (sqlite, postgres, git, terraform, shell) {
            (Some(path), None, None, None, None) => Served::Sqlite { path },
            (None, Some(url), None, None, None) => Served::Postgres { url },
            (None, None, Some(repository), None, None) => Served::Git {
                repository,
                program: program("git"),
                author: author?,
                transports,
                remote_inside: flag(&one.remote_inside),
                programs: flag(&one.programs),
            },
            (None, None, None, Some(directory), None) => Served::Terraform {
                directory,
                program: program("terraform"),
                workspace: one.workspace.as_ref().map(|name| name.get().clone()),
                stateful: one.stateful.iter().map(|name| name.get().clone()).collect(),
            },
            (None, None, None, None, Some(workspace)) => Served::Shell {
                workspace,
                readable: one.readable.iter().filter_map(|one| self.path(Some(one))).collect(),
            },
            _ => return None,
        })
    }

    /// What is known about the tools of what the server serves. What the operator says wins.
    pub(super) fn known_tools(
        &self,
        name: &str,
        raw: &RawServer,
        place: &Place,
    ) -> BTreeMap<String, ToolRules> {
        let Some(serves) = raw.serves.as_ref().map(At::get) else { return BTreeMap::new() };
        let address = |scheme: &str| match &serves.address {
            Some(address) => address.get().clone(),
            None => format!("{scheme}://{name}"),
        };
        if serves.sqlite.is_some() {
            return sql_tools(Database::new(Dialect::Sqlite, address("sqlite")), place);
        }
        if serves.postgres.is_some() {
            return sql_tools(Database::new(Dialect::Postgres, address("pg")), place);
        }
        if let Some(folder) = &serves.shell {
            return shell_tools(&self.folder.join(folder.get()), place);
        }
        let (read, write, destroy) =
            (EffectClass::Read, EffectClass::Write, EffectClass::Destructive);
        let (address, tools) = if serves.git.is_some() {
            let branch = "#{/branch}";
            let tools = [
                ("git_status", read, ""),
                ("git_diff", read, ""),
                ("git_log", read, ""),
                ("git_commit", write, ""),
                ("git_branch", write, "#{/name}"),
                ("git_branch_delete", destroy, "#{/name}"),
                ("git_push", destroy, branch),
            ];
            (address("git"), tools.to_vec())
        } else {
            let tools = [("terraform_plan", read, ""), ("terraform_apply", destroy, "")];
            (address("tf"), tools.to_vec())
        };
        let rules = tools.into_iter().filter_map(|(tool, class, part)| {
            let resource = ResourceTemplate::parse(&format!("{address}{part}")).ok()?;
            let (class, resource) = (Some(class), Some(resource));
            Some((tool.to_owned(), ToolRules { class, resource, effects: Vec::new() }))
        });
        rules.collect()
    }

    /// Keys that mean nothing for what is served: somebody meant something else.
    fn refuse_foreign(&mut self, one: &RawServes) {
        let database = one.sqlite.is_some() || one.postgres.is_some();
        let (git, terraform) = (one.git.is_some(), one.terraform.is_some());
        let shell = one.shell.is_some();
        let keys = [
            ("address", one.address.as_ref().map(At::span), !shell),
            ("rows_max", one.rows_max.as_ref().map(At::span), database),
            ("statement_timeout_ms", one.statement_timeout_ms.as_ref().map(At::span), database),
            ("lock_timeout_ms", one.lock_timeout_ms.as_ref().map(At::span), database),
            ("author", one.author.as_ref().map(At::span), git),
            ("remote_inside", one.remote_inside.as_ref().map(At::span), git),
            ("programs", one.programs.as_ref().map(At::span), git),
            ("workspace", one.workspace.as_ref().map(At::span), terraform),
            ("stateful", one.stateful.first().map(At::span), terraform),
            ("readable", one.readable.first().map(At::span), shell),
            ("program", one.program.as_ref().map(At::span), git || terraform),
        ];
        for (key, span, fits) in keys {
            if let (Some(span), false) = (span, fits) {
                self.fault(span, format!("`{key}` means nothing for what this serves"), None);
            }
        }
    }

    fn author(&mut self, author: Option<&At<String>>) -> Option<(String, String)> {
        let Some(author) = author else {
            return Some(("Holdpoint".to_owned(), "holdpoint@localhost".to_owned()));
        };
        let parts = author.get().split_once('<');
        let parts = parts.and_then(|(name, rest)| Some((name.trim(), rest.strip_suffix('>')?)));
        match parts {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                Some((name.to_owned(), address.to_owned()))
            }
            Some(_) | None => {
                let message = format!("`{}` is not `NAME <ADDRESS>`", author.get());
                self.fault(author.span(), message, None);
                None
            }
        }
    }

    fn usual_or(&mut self, value: Option<&At<u64>>, key: &str, (usual, max): (u64, u64)) -> u64 {
        let Some(value) = value else { return usual };
        if !(1..=max).contains(value.get()) {
            self.fault(value.span(), format!("`{key}` must be between 1 and {max}"), None);
            return usual;
        }
        *value.get()
    }
}

fn sql_tools(database: Database, place: &Place) -> BTreeMap<String, ToolRules> {
    let tools = ["sql_query", "sql_execute"].into_iter().filter_map(|tool| {
        let text = Source::parse("/sql").ok()?;
        let resource = ResourceTemplate::parse(&database.address).ok();
        let family = Family::Sql { text, database: database.clone() };
        let effects = vec![Analyser { place: place.clone(), family }];
        Some((tool.to_owned(), ToolRules { class: None, resource, effects }))
    });
    tools.collect()
}

/// A command is judged where it runs: in the workspace, which is its home too.
fn shell_tools(workspace: &Path, place: &Place) -> BTreeMap<String, ToolRules> {
    let folder = workspace.to_string_lossy().into_owned();
    let here = Some(folder.clone());
    let place = Place { cwd: here.clone(), home: here.clone(), workspace: here, ..place.clone() };
    let (text, cwd) = (Source::parse("/command").ok(), Source::parse("/cwd").ok());
    let family = text.map(|text| Family::Shell { text, cwd });
    let resource = ResourceTemplate::parse(&format!("file://{folder}")).ok();
    let tool = family.map(|family| {
        let effects = vec![Analyser { place, family }];
        ("shell_execute".to_owned(), ToolRules { class: None, resource, effects })
    });
    tool.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::config::check::check;
    use crate::config::fault::Colour;
    use crate::config::{Served, Transport};
    use expect_test::expect;
    use std::path::Path;

    const SLIPS: &str = r#"
            [server.a]
            serves = {}
            [server.b]
            serves = { sqlite = "b.db", git = "b" }
            [server.c]
            serves = { sqlite = "c.db", author = "me", rows_max = 0 }
            [server.d]
            command = ["x"]
            serves = { git = "d" }
            [server.e]
            serves = { git = "e", author = "nobody" }
            [server.f]
            serves = { sqlite = "f.db", lock_timeout_ms = 600001, statement_timeout_ms = 3600001 }
            [server.g]
            serves = { sqlite = "g.db", rows_max = 1000001, address = "shop" }
            [server.i]
            serves = { shell = "i", address = "file://i", rows_max = 5 }
            [server.j]
            serves = { git = "j", readable = ["x"] }
            [server.h]
            command = ["x"]
            undo = {}
            [server.h.tool.x.undo]
            inverse = { tool = "y", arguments = { id = "id" } }
            delay_s = 3601
        "#;

    #[test]
    fn what_is_served_is_declared_without_slips() {
        let read = |text: &str| check("holdpoint.toml", Path::new("/etc/hp/holdpoint.toml"), text);
        let good = r#"
            [server.a]
            serves = { sqlite = "a.db", rows_max = 5 }
            [server.b]
            serves = { postgres = { from_env = "B" }, address = "pg://shop" }
            [server.c]
            serves = { git = "c", author = "Ada <ada@x.test>" }
            [server.d]
            serves = { terraform = "d", stateful = ["aws_db_instance"] }
            [server.g]
            serves = { shell = "g", readable = ["/srv/data"] }
            [server.e]
            command = ["server"]
            undo = { files = ["/srv/e"] }
            [server.f]
            command = ["server"]
            [server.f.tool.close.undo]
            read = { tool = "get", arguments = { id = "/id" } }
            gives = { "/state" = { value = "closed" } }
            inverse = { tool = "open", arguments = { id = "/id", as = "before:/state" } }
            discloses = "contained"
        "#;
        let (config, report) = read(good);
        assert_eq!(report.render(Colour::Never), "");
        let servers = config.unwrap().servers;
        let Transport::Serves(serves) = &servers[&"a".parse().unwrap()].transport else {
            panic!("it is served")
        };
        assert_eq!((serves.address.as_str(), serves.rows_max), ("sqlite://a", 5));
        assert!(matches!(&serves.served, Served::Sqlite { path } if path.starts_with("/etc/hp")));
        let Transport::Serves(serves) = &servers[&"g".parse().unwrap()].transport else {
            panic!("it is served")
        };
        let (workspace, readable) = (Path::new("/etc/hp/g").into(), vec!["/srv/data".into()]);
        assert_eq!(serves.served, Served::Shell { workspace, readable });
        let (_, report) = read(SLIPS);
        let lines = report.render(Colour::Never);
        let heads = lines.lines().filter(|line| line.starts_with("error"));
        let heads: String = heads.map(|line| format!("{line}\n")).collect();
        expect![[r#"
            error: a server serves exactly one of `sqlite`, `postgres`, `git`, `terraform` and `shell`
            error: a server serves exactly one of `sqlite`, `postgres`, `git`, `terraform` and `shell`
            error: `author` means nothing for what this serves
            error: `me` is not `NAME <ADDRESS>`
            error: `rows_max` must be between 1 and 1000000
            error: a server has only one of `command`, `url` and `serves`
            error: `nobody` is not `NAME <ADDRESS>`
            error: `lock_timeout_ms` must be between 1 and 600000
            error: `statement_timeout_ms` must be between 1 and 3600000
            error: `shop` does not begin with a scheme such as `pg://`
            error: `address` means nothing for what this serves
            error: `rows_max` means nothing for what this serves
            error: `readable` means nothing for what this serves
            error: the key `files` is missing
            error: an inverse needs a `read`: else nobody could tell whether it was done
            error: `id` names no value
            error: `delay_s` must be at most 3600
        "#]]
        .assert_eq(&heads);
    }
}
