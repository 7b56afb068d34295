//! The options that programs have, by the table in `programs/options.txt`.
//!
//! Owns the form of that table, and which option an abbreviation stands for. It must never take an
//! option that is not listed for a harmless one.

use crate::data::Role;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// No value.
    Nothing,
    /// A value that stands right behind it, or none.
    Joined(Role),
    /// A value, if need be the next argument.
    Value(Role),
    /// No value; with it the program writes, runs or deletes what is not seen.
    Acts,
}

/// The options of one program.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Sorted by name.
    options: Vec<(&'static str, Takes)>,
    /// Options that are not listed are parameters of what changes something: only what looks has
    /// all of its options here.
    pub(crate) looking: bool,
    /// Options that are not listed are parameters of a service.
    pub(crate) open: bool,
    /// Any number is an option.
    numbers: bool,
}

static OPTIONS: LazyLock<BTreeMap<&'static str, Known>> =
    LazyLock::new(|| load(include_str!("../programs/options.txt")));

/// The options of the program `name`, if they are listed.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    OPTIONS.get(name)
}

/// Reads the table. A line that begins with a space goes on with the one before; names of programs
/// with the same options stand before the colon; `-#` is any number.
fn load(text: &'static str) -> BTreeMap<&'static str, Known> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut loaded: BTreeMap<&'static str, Known> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let options = match line.split_once(": ").or(line.strip_suffix(':').map(|name| (name, "")))
        {
            Some((programs, options)) if !line.starts_with(' ') => {
                names = programs.split(", ").collect();
                options
            }
            _ => line,
        };
        for name in &names {
            let known = loaded.entry(name).or_default();
            options.split_whitespace().for_each(|word| known.add(word));
        }
    }
    loaded.values_mut().for_each(|known| known.options.sort_by_key(|(name, _)| *name));
    loaded
}

#[expect(clippy::panic, reason = "the text is part of the program, and the tests read all of it")]
fn role(word: &str) -> Role {
    if word.is_empty() {
        return Role::Plain;
    }
    let word = IntoDeserializer::<Error>::into_deserializer(word);
    Role::deserialize(word).unwrap_or_else(|fault| panic!("a table is broken: {fault}"))
}

// === impl Known ===

impl Known {
    fn add(&mut self, word: &'static str) {
        match word {
            "**" => self.open = true,
            "*" => self.looking = true,
            "-#" => self.numbers = true,
            word => {
                let at = word.get(1..).and_then(|rest| rest.find(['=', '?', '!']));
                let at = at.map_or(word.len(), |at| at + 1);
                // `-?` and `-!` are options themselves.
                let at = if at == 1 { word.len() } else { at };
                let (name, takes) = word.split_at_checked(at).unwrap_or((word, ""));
                let value = takes.get(1..).unwrap_or_default();
                let takes = match takes.chars().next() {
                    None => Takes::Nothing,
                    Some('?') => Takes::Joined(role(value)),
                    Some('!') => Takes::Acts,
                    Some(_) => Takes::Value(role(value)),
                };
                self.options.push((name, takes));
            }
        }
    }

    /// What the option `name` takes, if it is listed.
    pub(crate) fn get(&self, name: &str) -> Option<Takes> {
        let found = self.options.binary_search_by_key(&name, |(known, _)| known).ok();
        let listed = found.and_then(|at| self.options.get(at)).map(|(_, takes)| *takes);
        let number = |c: char| c.is_ascii_digit() || c == crate::words::UNKNOWN;
        listed.or_else(|| {
            let digits = name.strip_prefix('-').filter(|rest| !rest.is_empty());
            let digits = digits.is_some_and(|rest| rest.chars().all(number));
            (self.numbers && digits).then_some(Takes::Nothing)
        })
    }

    /// The long option that `given` is, or is short for: one, or several that are the same to us.
    pub(crate) fn long(&self, given: &str) -> Option<(&'static str, Takes)> {
        let from = self.options.partition_point(|(name, _)| *name < given);
        let mut fitting = self
            .options
            .iter()
            .skip(from)
            .take_while(|(name, _)| name.starts_with(given) && given.len() > 2)
            .copied();
        let first = fitting.next()?;
        let harmless = |takes: Takes| {
            matches!(takes, Takes::Nothing | Takes::Joined(Role::Plain) | Takes::Value(Role::Plain))
        };
        let same = |(_, takes): (&str, Takes)| takes == first.1 && harmless(takes);
        (first.0 == given || fitting.all(same)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::{OPTIONS, Takes, known};
    use crate::data::{Role, programs};

    #[test]
    fn every_line_is_of_a_known_program_and_lists_an_option_once() {
        for (name, known) in OPTIONS.iter() {
            let program = name.split(' ').next().unwrap();
            assert!(programs().get(program).is_some(), "{name} is no program of the tables");
            for pair in known.options.windows(2) {
                assert_ne!(pair[0].0, pair[1].0, "{name}");
            }
            for (option, _) in &known.options {
                assert!(option.starts_with(['-', '+']), "{name} {option}");
            }
        }
    }

    #[test]
    fn abbreviations_are_resolved_as_getopt_does() {
        let sort = known("sort").unwrap();
        assert_eq!(sort.long("--out").unwrap().0, "--output");
        assert_eq!(
            sort.long("--compress").unwrap(),
            ("--compress-program", Takes::Value(Role::Shell))
        );
        assert_eq!(sort.long("--re").unwrap().0, "--reverse");
        assert!(sort.long("--r").is_none(), "reverse or random");
        assert!(sort.long("--").is_none() && sort.long("--x").is_none());
    }

    #[test]
    fn numbers_are_options_where_a_program_takes_them() {
        assert_eq!(known("head").unwrap().get("-20"), Some(Takes::Nothing));
        assert_eq!(known("sort").unwrap().get("-20"), None);
    }
}
