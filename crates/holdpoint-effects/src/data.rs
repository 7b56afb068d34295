//! The tables that are compiled in: programs, paths and variables.
//!
//! Owns their form. It must never hold a program or a path itself: those are data.

use crate::options::{Known, known};
use crate::words::Pattern;
use holdpoint_types::{EffectClass, Verb};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// What is known of one program.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Program {
    /// Other names of it.
    pub(crate) aliases: Vec<String>,
    /// Options that take a value, and what the value is.
    pub(crate) values: BTreeMap<String, Role>,
    /// Options are long with one dash.
    pub(crate) one_dash: bool,
    /// Subcommands may be written in any case; in the table they are upper case.
    pub(crate) upper: bool,
    /// Options with which it only says what it would do.
    pub(crate) dry: Vec<String>,
    /// Options with which an operand is everything below it, too; `*` if that is always so.
    pub(crate) deep: Vec<String>,
    /// An argument that ends with this sign ends one command and begins another.
    pub(crate) separator: Option<char>,
    /// A reader of its own in the code.
    pub(crate) reader: Option<Reader>,
    /// What it does, if it has no subcommands.
    pub(crate) run: Option<Rule>,
    /// What it does without any operand, if it has subcommands.
    pub(crate) bare: Option<Rule>,
    /// What its subcommands do, by their words; `*` stands for any ending.
    pub(crate) sub: BTreeMap<String, Rule>,
    /// Options that change what is done, whatever the subcommand.
    pub(crate) flags: BTreeMap<String, Rule>,
    /// The subcommands again, each word of them read.
    #[serde(skip)]
    pub(crate) subcommands: Vec<(Vec<SubWord>, Rule)>,
}

/// A word of a subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubWord {
    /// This very word.
    Exact(String),
    /// A word that this pattern matches.
    Like(String),
    /// Any word.
    Any,
    /// However many words, at least one.
    Some,
    /// The end of the line.
    End,
}

/// What a program or a subcommand does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rule {
    pub(crate) does: Option<Does>,
    /// The address to which it is done: `{1}` is the first operand, `{each}` every one, `{*}` all,
    /// `{-n|--namespace|default}` the value of an option or a word.
    pub(crate) on: Option<String>,
    pub(crate) class: Option<EffectClass>,
    pub(crate) whole: bool,
    pub(crate) note: Option<String>,
    /// What its operands are.
    pub(crate) operands: Option<Role>,
    /// How many operands come before those.
    pub(crate) from: Option<usize>,
    /// What it does is done only if it has none of those operands.
    pub(crate) if_none: bool,
    pub(crate) values: BTreeMap<String, Role>,
    pub(crate) flags: BTreeMap<String, Rule>,
    pub(crate) wraps: Option<Wraps>,
}

/// How a program runs another.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wraps {
    /// Operands before the command.
    pub(crate) skip: usize,
    /// The operands are joined to a text that a shell reads.
    pub(crate) text: bool,
    /// `NAME=value` may stand before the command.
    pub(crate) assignments: bool,
    /// What it reads becomes more arguments.
    pub(crate) feeds: bool,
    /// The first operand, or this word, is where the command runs.
    pub(crate) elsewhere: Option<String>,
    /// What happens if no command follows.
    pub(crate) alone: Option<Does>,
}

/// What is done, in the words of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Does {
    Nothing,
    Read,
    Create,
    Update,
    Delete,
    Grant,
    Send,
    Execute,
    Schedule,
    Opaque,
}

/// What an operand or the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Words that do nothing by themselves.
    Plain,
    /// Not a value at all, though other subcommands have one.
    Flag,
    /// A word that does nothing, if it stands right behind the option; the next argument is none.
    Joined,
    Read,
    Create,
    Write,
    Append,
    Update,
    Delete,
    DeleteTree,
    Grant,
    /// Read, and the last one written.
    Copy,
    /// The same, and what was read is gone.
    Move,
    /// The same as a copy, and what else is in the target is gone.
    Mirror,
    /// The first one read; the second one, if there is one, written.
    Filter,
    /// A folder to start from.
    Folder,
    /// The folder into which operands go.
    Target,
    /// A folder in which anything may be written.
    Into,
    /// A file that is written, or behind a `|` a text for a shell.
    Pipe,
    /// A text for a shell.
    Shell,
    /// A command that gets files for its last arguments.
    Program,
    /// A program that runs, by its name or command line.
    Command,
    /// A file or text of code that cannot be read here.
    Code,
    /// A part of the host that a container sees.
    Mount,
}

/// Programs whose arguments are a language of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reader {
    Shell,
    Find,
    Git,
    Curl,
    Wget,
    Sed,
    Awk,
    Tar,
    Dd,
    Chmod,
    Sql,
    Kubectl,
    Interpreter,
    Make,
    Httpie,
}

/// Paths that mean more than a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paths {
    pub(crate) nothing: Vec<Pattern>,
    pub(crate) devices: Vec<Pattern>,
    pub(crate) credentials: Vec<Pattern>,
    pub(crate) accounts: Vec<Pattern>,
    pub(crate) startup: Vec<Pattern>,
    pub(crate) pipeline: Vec<Pattern>,
    pub(crate) build: Vec<Pattern>,
    pub(crate) state: Vec<Pattern>,
    pub(crate) system: Vec<Pattern>,
    pub(crate) roots: Vec<String>,
}

/// Variables that change what programs are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Environment {
    pub(crate) loaders: BTreeSet<String>,
    pub(crate) commands: BTreeSet<String>,
    pub(crate) plain: BTreeSet<String>,
    pub(crate) loading: Vec<String>,
    pub(crate) code: BTreeSet<String>,
    pub(crate) path: Vec<String>,
    pub(crate) sourced: Vec<Pattern>,
}

/// Programs by every name of theirs.
pub(crate) struct Programs {
    programs: Vec<Program>,
    names: BTreeMap<String, (usize, Option<&'static Known>)>,
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(Programs::load);
static PATHS: LazyLock<Paths> = LazyLock::new(|| read(include_str!("../programs/paths.toml")));
static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| read(include_str!("../programs/environment.toml")));

/// The tables of programs.
const TABLES: &[&str] = &[
    include_str!("../programs/files.toml"),
    include_str!("../programs/reading.toml"),
    include_str!("../programs/running.toml"),
    include_str!("../programs/system.toml"),
    include_str!("../programs/network.toml"),
    include_str!("../programs/packages.toml"),
    include_str!("../programs/cloud.toml"),
    include_str!("../programs/databases.toml"),
];

pub(crate) fn programs() -> &'static Programs {
    &PROGRAMS
}

pub(crate) fn paths() -> &'static Paths {
    &PATHS
}

pub(crate) fn environment() -> &'static Environment {
    &ENVIRONMENT
}

#[expect(clippy::panic, reason = "the text is part of the program, and the tests read all of it")]
fn read<T: for<'de> Deserialize<'de>>(text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|fault| panic!("a table is broken: {fault}"))
}

fn sub_words(words: String) -> Vec<SubWord> {
    let word = |word: &str| match word {
        "**" => SubWord::Some,
        "*" => SubWord::Any,
        "$" => SubWord::End,
        word if word.contains('*') => SubWord::Like(word.to_owned()),
        word => SubWord::Exact(word.to_owned()),
    };
    words.split(' ').map(word).collect()
}

// === impl Programs ===

impl Programs {
    fn load() -> Self {
        let mut loaded = Self { programs: Vec::new(), names: BTreeMap::new() };
        for table in TABLES {
            let table: BTreeMap<String, Program> = read(table);
            for (name, mut program) in table {
                let read = |(words, rule)| (sub_words(words), rule);
                program.subcommands =
                    std::mem::take(&mut program.sub).into_iter().map(read).collect();
                let at = loaded.programs.len();
                let listed = known(&name);
                loaded.names.insert(name, (at, listed));
                for alias in &program.aliases {
                    loaded.names.insert(alias.clone(), (at, known(alias)));
                }
                loaded.programs.push(program);
            }
        }
        loaded
    }

    /// The program that is called `name`, and its options, if they are listed.
    pub(crate) fn get(&self, name: &str) -> Option<(&Program, Option<&'static Known>)> {
        let (at, known) = self.names.get(name)?;
        Some((self.programs.get(*at)?, *known))
    }

    /// The names under which the tables list programs, without aliases.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let alias = |name: &&String| self.programs.iter().any(|known| known.aliases.contains(name));
        self.names.keys().filter(move |name| !alias(name)).map(String::as_str)
    }
}

// === impl Rule ===

impl Rule {
    /// The same without what other options would change.
    pub(crate) fn without_flags(&self) -> Self {
        Self {
            does: self.does,
            on: self.on.clone(),
            class: self.class,
            whole: self.whole,
            note: self.note.clone(),
            operands: self.operands,
            from: self.from,
            if_none: self.if_none,
            wraps: self.wraps.clone(),
            values: self.values.clone(),
            flags: BTreeMap::new(),
        }
    }
}

// === impl Does ===

impl Does {
    /// The verb; `None` where nothing happens or nothing is known.
    pub(crate) fn verb(self) -> Option<Verb> {
        Some(match self {
            Self::Nothing | Self::Opaque => return None,
            Self::Read => Verb::Read,
            Self::Create => Verb::Create,
            Self::Update => Verb::Update,
            Self::Delete => Verb::Delete,
            Self::Grant => Verb::Grant,
            Self::Send => Verb::Send,
            Self::Execute => Verb::Execute,
            Self::Schedule => Verb::Schedule,
        })
    }
}
