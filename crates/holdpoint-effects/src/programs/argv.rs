//! Command lines: options, their values and operands, as the program itself would part them.
//!
//! Owns clusters, abbreviations and `--`. It must never decide what an option means.

use crate::data::{Program, Role, Rule};
use crate::words::Arg;

/// The arguments of one program, parted.
#[derive(Debug, Default)]
pub(crate) struct Argv {
    pub(crate) options: Vec<(String, Option<Arg>)>,
    pub(crate) operands: Vec<Arg>,
    /// The arguments from the first operand on, as they are: a command that is wrapped.
    pub(crate) rest: Vec<Arg>,
}

/// Which options take a value: those of the program, and those of a subcommand before them.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub(crate) program: &'a Program,
    pub(crate) rule: Option<&'a Rule>,
}

// === impl Options ===

impl Options<'_> {
    /// What the value of the option `name` is, if it takes one.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        let own = self.rule.and_then(|rule| role_in(&rule.values, name));
        own.or_else(|| role_in(&self.program.values, name)).filter(|role| *role != Role::Flag)
    }

    /// Parts all arguments.
    pub(crate) fn part(&self, args: &[Arg]) -> Argv {
        self.part_until(args, usize::MAX)
    }

    /// Parts the arguments up to the operand after the first `words`; what follows is another
    /// program's.
    pub(crate) fn part_until(&self, args: &[Arg], words: usize) -> Argv {
        let mut argv = Argv::default();
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
                true => self.long(arg, others, &mut argv.options),
                false => self.cluster(arg, others, &mut argv.options),
            };
        }
        argv
    }

    /// `--name`, `--name=value`, `--name value`; what is left after it.
    fn long<'r>(
        &self,
        arg: &Arg,
        rest: &'r [Arg],
        options: &mut Vec<(String, Option<Arg>)>,
    ) -> &'r [Arg] {
        if let Some((name, value)) = arg.text.split_once('=') {
            let value = Arg { text: value.to_owned(), ..arg.clone() };
            options.push((name.to_owned(), Some(value)));
            return rest;
        }
        match rest.split_first() {
            Some((value, rest))
                if self.role(&arg.text).is_some_and(|role| role != Role::Joined) =>
            {
                options.push((arg.text.clone(), Some(value.clone())));
                rest
            }
            _ => {
                options.push((arg.text.clone(), None));
                rest
            }
        }
    }

    /// `-rf`, `-ofile`, `-o file`; what is left after it.
    fn cluster<'r>(
        &self,
        arg: &Arg,
        rest: &'r [Arg],
        options: &mut Vec<(String, Option<Arg>)>,
    ) -> &'r [Arg] {
        let mut chars = arg.text.chars().skip(1);
        while let Some(c) = chars.next() {
            let name = format!("-{c}");
            if self.role(&name).is_none() {
                options.push((name, None));
                continue;
            }
            let own: String = chars.collect();
            if !own.is_empty() {
                options.push((name, Some(Arg { text: own, ..arg.clone() })));
                return rest;
            }
            if self.role(&name) == Some(Role::Joined) {
                options.push((name, None));
                return rest;
            }
            options.push((name, rest.first().cloned()));
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
                same(given, name) && value.as_ref().is_some_and(fits)
            }
            None => same(given, name),
        })
    }

    pub(crate) fn has_any(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Arg> {
        let found = self.options.iter().find(|(given, _)| same(given, name));
        found.and_then(|(_, value)| value.as_ref())
    }
}

fn role_in(roles: &std::collections::BTreeMap<String, Role>, name: &str) -> Option<Role> {
    let exact = roles.get(name).copied();
    exact.or_else(|| roles.iter().find(|(known, _)| same(name, known)).map(|(_, role)| *role))
}

/// True if `given` is `name` or short for it, as GNU programs and git allow.
fn same(given: &str, name: &str) -> bool {
    let short = given.len() >= 4 && given.starts_with("--") && name.starts_with(given);
    given == name || short
}
