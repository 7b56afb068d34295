//! Command lines: options, their values and operands, as the program itself would part them.
//!
//! Owns clusters, abbreviations and `--`. It must never decide what an option means.

use crate::data::{Program, Role, Rule};
use crate::options::{Known, Takes};
use crate::words::{Arg, matches};
use std::collections::BTreeMap;

/// Options with which any program only says what it is.
const HARMLESS: &[&str] = &["--help", "--version"];
/// What programs whose options are not listed have too, as far as anybody knows.
const EXPLAINING: &[&str] = &["-h", "-V", "-v", "-version", "-help", "--verbose", "--quiet", "-q"];

/// The arguments of one program, parted.
#[derive(Debug, Default)]
pub(crate) struct Argv {
    pub(crate) options: Vec<(String, Option<Arg>)>,
    pub(crate) operands: Vec<Arg>,
    /// The arguments from the first operand on, as they are: a command that is wrapped.
    pub(crate) rest: Vec<Arg>,
    /// The first option that the tables do not list.
    pub(crate) unlisted: Option<String>,
    /// The first option with which the program does what is not seen.
    pub(crate) acting: Option<String>,
    /// Abbreviations are resolved, so that a name is only itself.
    pub(super) exact: bool,
}

/// Which options take a value: those of the program, and those of a subcommand before them.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub(crate) program: &'a Program,
    pub(crate) rule: Option<&'a Rule>,
    pub(crate) known: Option<&'a Known>,
}

// === impl Options ===

impl Options<'_> {
    /// What the value of the option `name` is, if it takes one.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        match self.takes(name) {
            Takes::Nothing | Takes::Acts => None,
            Takes::Joined(role) | Takes::Value(role) => Some(role),
        }
    }

    /// True if every option of the program is listed, so that abbreviations can be resolved.
    fn exact(&self) -> bool {
        self.known.is_some_and(|known| !known.looking && !known.open)
    }

    /// What the option `name` takes: the subcommand says so first, then the list of options.
    fn takes(&self, name: &str) -> Takes {
        let by_role = |role| match role {
            Role::Flag => Takes::Nothing,
            Role::Joined => Takes::Joined(Role::Plain),
            role => Takes::Value(role),
        };
        let own = self.rule.and_then(|rule| self.role_in(&rule.values, name));
        if let Some(own) = own {
            return by_role(own);
        }
        let shared = || self.role_in(&self.program.values, name);
        match self.known.and_then(|known| known.get(name)) {
            // A list for several subcommands knows less of each than the table of the program.
            Some(takes) if !self.exact() => shared().map_or(takes, by_role),
            Some(Takes::Value(Role::Plain)) => Takes::Value(shared().unwrap_or(Role::Plain)),
            Some(takes) => takes,
            None if self.exact() => Takes::Nothing,
            None => shared().map_or(Takes::Nothing, by_role),
        }
    }

    fn role_in(&self, roles: &BTreeMap<String, Role>, name: &str) -> Option<Role> {
        let exact = roles.get(name).copied();
        exact.or_else(|| {
            let mut short = roles.iter().filter(|_| !self.exact());
            short.find(|(known, _)| same(name, known)).map(|(_, role)| *role)
        })
    }

    /// True if the tables say what the option `name` does.
    fn lists(&self, name: &str) -> bool {
        let rule = self.rule;
        // Programs that share an entry do not share its options, if each has a list of its own.
        let shared = Some(&self.program.values).filter(|_| !self.exact());
        let values = rule.map(|rule| &rule.values).into_iter().chain(shared);
        let flags = rule.map(|rule| &rule.flags).into_iter().chain([&self.program.flags]);
        let like = |listed: &str| {
            let bare = listed.split('=').next().unwrap_or_default();
            bare == name || !self.exact() && same(name, bare) || matches(listed, name)
        };
        let negated = name.strip_prefix("--no-").map(|rest| format!("--{rest}"));
        let known = |name: &str| self.known.is_some_and(|known| known.get(name).is_some());
        known(name)
            || negated.is_some_and(|name| known(&name))
            || HARMLESS.contains(&name)
            || self.known.is_none() && EXPLAINING.contains(&name)
            || values.flat_map(BTreeMap::keys).any(|listed| like(listed))
            || flags.flat_map(BTreeMap::keys).any(|listed| like(listed))
            || self.program.dry.iter().any(|listed| like(listed))
    }

    /// Takes in one option.
    fn push(&self, argv: &mut Argv, name: String, value: Option<Arg>) {
        if self.takes(&name) == Takes::Acts {
            argv.acting.get_or_insert_with(|| name.clone());
        } else if argv.unlisted.is_none() && !self.lists(&name) {
            argv.unlisted = Some(name.clone());
        }
        argv.options.push((name, value));
    }

    /// Parts all arguments.
    pub(crate) fn part(&self, args: &[Arg]) -> Argv {
        self.part_until(args, usize::MAX)
    }

    /// Parts the arguments up to the operand after the first `words`; what follows is another
    /// program's.
    pub(crate) fn part_until(&self, args: &[Arg], words: usize) -> Argv {
        let mut argv = Argv { exact: self.exact(), ..Argv::default() };
        let mut rest = args;
        while let Some((arg, others)) = rest.split_first() {
            let text = arg.text.as_str();
            if text == "--" {
                match argv.operands.len() >= words {
                    true => argv.rest = others.to_vec(),
                    false => argv.operands.extend_from_slice(others),
                }
                break;
            }
            if !text.starts_with('-') || text == "-" {
                if argv.operands.len() >= words {
                    argv.rest = rest.to_vec();
                    break;
                }
                argv.operands.push(arg.clone());
                rest = others;
                continue;
            }
            rest = match text.starts_with("--") || self.program.one_dash {
                true => self.long(arg, others, &mut argv),
                false => self.cluster(arg, others, &mut argv),
            };
        }
        argv
    }

    /// `--name`, `--name=value`, `--name value`; what is left after it.
    fn long<'r>(&self, arg: &Arg, rest: &'r [Arg], argv: &mut Argv) -> &'r [Arg] {
        let (name, joined) = match arg.text.split_once('=') {
            Some((name, value)) => (name, Some(Arg { text: value.to_owned(), ..arg.clone() })),
            None => (arg.text.as_str(), None),
        };
        let full = self
            .known
            .filter(|_| self.exact() && name.starts_with("--"))
            .and_then(|known| known.long(name));
        let name = full.map_or(name, |(full, _)| full).to_owned();
        match (joined, rest.split_first()) {
            (None, Some((value, rest))) if matches!(self.takes(&name), Takes::Value(_)) => {
                self.push(argv, name, Some(value.clone()));
                return rest;
            }
            (joined, _) => self.push(argv, name, joined),
        }
        rest
    }

    /// `-rf`, `-ofile`, `-o file`; what is left after it.
    fn cluster<'r>(&self, arg: &Arg, rest: &'r [Arg], argv: &mut Argv) -> &'r [Arg] {
        let mut chars = arg.text.chars();
        chars.next();
        while let Some(c) = chars.next() {
            let name = format!("-{c}");
            let takes = self.takes(&name);
            if matches!(takes, Takes::Nothing | Takes::Acts) {
                self.push(argv, name, None);
                continue;
            }
            let own = chars.as_str();
            if !own.is_empty() {
                self.push(argv, name, Some(Arg { text: own.to_owned(), ..arg.clone() }));
                return rest;
            }
            if matches!(takes, Takes::Joined(_)) {
                self.push(argv, name, None);
                return rest;
            }
            self.push(argv, name, rest.first().cloned());
            return rest.get(1..).unwrap_or_default();
        }
        rest
    }
}

// === impl Argv ===

impl Argv {
    /// True if the option `name`, or what may be an abbreviation of it, is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        let wanted = name.split_once('=');
        self.options.iter().any(|(given, value)| match wanted {
            Some((name, wanted)) => {
                let fits = |value: &Arg| value.text.eq_ignore_ascii_case(wanted);
                self.same(given, name) && value.as_ref().is_some_and(fits)
            }
            None => self.same(given, name),
        })
    }

    pub(crate) fn has_any(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    /// The value of the option `name`; of several the last one counts.
    pub(crate) fn value(&self, name: &str) -> Option<&Arg> {
        let mut found = self.options.iter().rev().filter(|(given, _)| self.same(given, name));
        found.find_map(|(_, value)| value.as_ref())
    }

    fn same(&self, given: &str, name: &str) -> bool {
        given == name || !self.exact && same(given, name)
    }
}

/// True if `given` is `name` or short for it, as GNU programs and git allow.
fn same(given: &str, name: &str) -> bool {
    let short = given.len() >= 4 && given.starts_with("--") && name.starts_with(given);
    given == name || short
}
