//! The walk: every command that may run, with what is known when it runs.
//!
//! Owns branches, loops, pipelines, functions and redirections. It must never walk for ever:
//! steps and depth are bounded, and what lies beyond is opaque.

use super::syntax::{
    AndOr, Assignment, Body, Command, Joint, Redirect, RedirectKind, Script, Word,
};
use crate::data::paths;
use crate::effects::{Effects, NoteCode};
use crate::place::{Act, Place, Spot};
use crate::words::Arg;
use holdpoint_types::{Certainty, Effect, Verb};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Most commands that are looked at in one call.
const COMMANDS_MAX: usize = 4096;
/// How deep functions may call functions.
const CALLS_MAX: usize = 8;
/// How deep programs that run programs may be nested: `env nice timeout 5 …`.
const WITHIN_MAX: usize = 32;
/// How much text variables may make, in bytes: one that doubles itself would fill any memory.
pub(super) const EXPANDED_BYTES_MAX: usize = 1 << 20;

/// A shell while it is followed through a text.
pub(crate) struct Shell<'a> {
    pub(crate) place: &'a Place,
    pub(crate) effects: &'a mut Effects,
    pub(crate) state: State,
    pub(crate) depth: usize,
    commands_left: usize,
    calls: usize,
    /// How many programs run the one that is looked at.
    within: usize,
    /// How much text variables have made.
    pub(super) expanded: usize,
}

/// What a subshell gets a copy of.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) variables: BTreeMap<String, Arg>,
    functions: BTreeMap<String, Rc<Command>>,
    pub(crate) aliases: BTreeMap<String, Arg>,
    pub(crate) positional: Vec<Arg>,
    pub(crate) cwd: Option<String>,
    pub(crate) host: Option<String>,
    /// What `<(…)` printed, where that is known.
    pub(crate) processes: Vec<Arg>,
    /// Why no program is what its name says: `PATH` or the loader was changed.
    pub(crate) tainted: Option<&'static str>,
    /// True in a branch that may not be taken.
    pub(crate) bounded: bool,
    /// True where what is touched is a folder with everything below it.
    deep: bool,
}

/// What a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// The input of the whole text.
    Inherited,
    /// This text, as far as it is known.
    Text(Arg),
    /// The output of another command.
    Unknown,
    /// A file.
    File(Arg),
}

// === impl Shell ===

impl<'a> Shell<'a> {
    pub(crate) fn new(place: &'a Place, effects: &'a mut Effects) -> Self {
        let state = State {
            cwd: place.cwd.clone(),
            host: place.host.clone(),
            // Whatever the text is given as arguments is not known.
            positional: vec![Arg::unknown_many()],
            ..State::default()
        };
        Self {
            place,
            effects,
            state,
            depth: 0,
            commands_left: COMMANDS_MAX,
            calls: 0,
            within: 0,
            expanded: 0,
        }
    }

    /// Where relative paths start now.
    pub(crate) fn spot(&self) -> Spot<'_> {
        let (host, cwd) = (self.state.host.as_deref(), self.state.cwd.as_deref());
        Spot { place: self.place, host, cwd }
    }

    /// Adds an effect, no surer than this branch is.
    pub(crate) fn add(&mut self, effect: Effect) {
        let effect = match self.state.bounded {
            true => effect.no_surer_than(Certainty::Bounded),
            false => effect,
        };
        self.effects.add(effect);
    }

    /// Adds that something is done to a file.
    pub(crate) fn touch(&mut self, act: Act, file: &Arg, evidence: &str) {
        if !self.state.deep && !self.state.bounded {
            let (host, cwd) = (self.state.host.as_deref(), self.state.cwd.as_deref());
            return Spot { place: self.place, host, cwd }.touch(act, file, evidence, self.effects);
        }
        let mut effects = Effects::default();
        let path = self.spot().path(file);
        if self.state.deep && act != Act::Read && paths().roots.contains(&path.text) {
            // All that is the host's own lies there.
            let text = format!("{}/**", path.text.trim_end_matches('/'));
            let below = Arg { text, glob: true, loose: false };
            self.spot().touch(act.clone(), &below, evidence, &mut effects);
        }
        self.spot().touch(act, file, evidence, &mut effects);
        match self.state.deep {
            true => self.take(effects.map(Effect::whole)),
            false => self.take(effects),
        }
    }

    /// Runs `run` where whatever is touched is touched with everything below it.
    pub(crate) fn below(&mut self, run: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.state.deep, true);
        run(self);
        self.state.deep = before;
    }

    /// Takes in the effects of another analysis, no surer than this branch is.
    pub(crate) fn take(&mut self, effects: Effects) {
        match self.state.bounded {
            true => {
                let bounded = |effect: Effect| effect.no_surer_than(Certainty::Bounded);
                self.effects.extend(effects.map(bounded));
            }
            false => self.effects.extend(effects),
        }
    }

    /// Code runs that is not seen.
    pub(crate) fn opaque(&mut self, evidence: &str) {
        self.note_opaque(NoteCode::UnseenCode, evidence);
    }

    pub(crate) fn note_opaque(&mut self, code: NoteCode, evidence: &str) {
        let host = self.state.host.as_deref().unwrap_or("localhost");
        let resource = format!("host://{host}");
        self.effects.note(code, evidence);
        let effect = Effect::new(Verb::Execute, resource, evidence);
        self.effects.add(effect.whole().no_surer_than(Certainty::Opaque));
    }

    /// Runs `run` as a subshell: what it changes in the shell is gone afterwards.
    pub(crate) fn apart<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.state.clone();
        let result = run(self);
        self.state = before;
        result
    }

    /// Runs `run` as a branch: what it changes is not known afterwards.
    pub(crate) fn maybe<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.state.clone();
        self.state.bounded = true;
        let result = run(self);
        self.state.bounded = before.bounded;
        let missing: Vec<&String> = before
            .variables
            .keys()
            .filter(|name| !self.state.variables.contains_key(*name))
            .collect();
        for name in missing {
            self.state.variables.insert(name.clone(), Arg::unknown());
        }
        for (name, value) in &mut self.state.variables {
            if before.variables.get(name) != Some(value) {
                *value = Arg::unknown();
            }
        }
        if self.state.cwd != before.cwd {
            self.state.cwd = None;
        }
        result
    }

    pub(super) fn script(&mut self, script: &Script) {
        for list in &script.0 {
            self.and_or(list);
        }
    }

    fn and_or(&mut self, list: &AndOr) {
        for (joint, commands) in &list.0 {
            match joint {
                Joint::First | Joint::And => self.pipeline(commands),
                Joint::Or => self.maybe(|shell| shell.pipeline(commands)),
            };
        }
    }

    /// Runs a pipeline; its output, if that is known.
    fn pipeline(&mut self, commands: &[Command]) -> Option<Arg> {
        if let [command] = commands {
            return self.command(command, Feed::Inherited);
        }
        let mut feed = Feed::Inherited;
        let mut output = None;
        for command in commands {
            output = self.apart(|shell| shell.command(command, feed));
            feed = output.clone().map_or(Feed::Unknown, Feed::Text);
        }
        output
    }

    /// Runs `$(…)`; its output, if that is known.
    pub(super) fn substitution(&mut self, script: &Script) -> Option<Arg> {
        let output = self.apart(|shell| match script.0.as_slice() {
            [AndOr(parts)] => match parts.as_slice() {
                [(_, commands)] => shell.pipeline(commands),
                _ => {
                    shell.script(script);
                    None
                }
            },
            _ => {
                shell.script(script);
                None
            }
        });
        output.map(|mut output| {
            let kept = output.text.trim_end_matches('\n').len();
            output.text.truncate(kept);
            output
        })
    }

    fn command(&mut self, command: &Command, feed: Feed) -> Option<Arg> {
        match self.commands_left.checked_sub(1) {
            Some(left) => self.commands_left = left,
            None => {
                self.note_opaque(NoteCode::TooLarge, "too many commands in one call");
                return None;
            }
        }
        let mut feed = feed;
        for redirect in &command.redirects {
            feed = self.input(redirect).unwrap_or(feed);
        }
        let output = match &command.body {
            Body::Simple { assignments, words } => self.simple(assignments, words, &feed),
            Body::Group(_)
            | Body::Subshell(_)
            | Body::Branches(_)
            | Body::Loop(_)
            | Body::For { .. }
            | Body::Case { .. }
            | Body::Function { .. }
            | Body::Words(_) => {
                self.compound(&command.body);
                None
            }
        };
        let mut sent = false;
        for redirect in &command.redirects {
            sent |= self.output(redirect, output.as_ref());
        }
        output.filter(|_| !sent)
    }

    fn compound(&mut self, body: &Body) {
        match body {
            Body::Simple { .. } => {}
            Body::Group(script) => self.script(script),
            Body::Subshell(script) => self.apart(|shell| shell.script(script)),
            Body::Branches(scripts) => {
                for (at, script) in scripts.iter().enumerate() {
                    match at {
                        0 => self.script(script),
                        _ => self.maybe(|shell| shell.script(script)),
                    }
                }
            }
            Body::Loop(script) => self.repeat(script),
            Body::For { name, words, body } => self.for_each(name, words.as_deref(), body),
            Body::Case { subject, patterns, arms } => {
                self.value(subject);
                for pattern in patterns {
                    self.value(pattern);
                }
                for arm in arms {
                    self.maybe(|shell| shell.script(arm));
                }
            }
            Body::Function { name, body } => {
                self.state.functions.insert(name.clone(), Rc::clone(body));
            }
            Body::Words(words) => {
                let arguments = self.arguments(words);
                self.array_indexes(&arguments);
            }
        }
    }

    /// The second turn starts with what the first one left behind.
    fn repeat(&mut self, script: &Script) {
        for _ in 0..2 {
            self.maybe(|shell| shell.script(script));
        }
    }

    fn for_each(&mut self, name: &str, words: Option<&[Word]>, body: &Script) {
        let values = match words {
            Some(words) => self.arguments(words),
            None => self.state.positional.clone(),
        };
        let certain = values.len() <= 8 && values.iter().all(|value| !value.loose);
        if !certain || name.is_empty() {
            self.state.variables.insert(name.to_owned(), Arg::unknown());
            return self.repeat(body);
        }
        for value in values {
            self.state.variables.insert(name.to_owned(), value.clone());
            self.maybe(|shell| shell.script(body));
        }
    }

    /// What a redirection makes a command read.
    fn input(&mut self, redirect: &Redirect) -> Option<Feed> {
        match redirect.kind {
            RedirectKind::Read => {
                let processes = self.state.processes.len();
                let file = self.value(&redirect.word);
                if file.text.starts_with("/dev/fd/") && !file.text.contains("/..") {
                    let known = self.state.processes.get(processes).cloned();
                    return Some(known.map_or(Feed::Unknown, Feed::Text));
                }
                self.touch(Act::Read, &file, "`<`");
                Some(Feed::File(file))
            }
            RedirectKind::HereString => {
                let mut text = self.value(&redirect.word);
                text.text.push('\n');
                Some(Feed::Text(text))
            }
            RedirectKind::HereDocument => {
                let text = redirect.body.get().map(|word| self.value(word));
                Some(Feed::Text(text.unwrap_or_default()))
            }
            RedirectKind::Write
            | RedirectKind::Append
            | RedirectKind::ReadWrite
            | RedirectKind::Duplicate => None,
        }
    }

    /// Where a redirection sends the output; true if that is a place other than the next command.
    fn output(&mut self, redirect: &Redirect, output: Option<&Arg>) -> bool {
        let act = match redirect.kind {
            RedirectKind::Write | RedirectKind::ReadWrite => Act::Write(output.cloned()),
            RedirectKind::Append => Act::Append(output.cloned()),
            RedirectKind::Duplicate => {
                let target = self.value(&redirect.word);
                let number = |c: char| c.is_ascii_digit() || c == '-';
                if target.is_unknown() || target.text.chars().all(number) {
                    return false;
                }
                Act::Write(output.cloned())
            }
            RedirectKind::Read | RedirectKind::HereDocument | RedirectKind::HereString => {
                return false;
            }
        };
        let file = self.value(&redirect.word);
        if !file.text.starts_with("/dev/fd/") || file.text.contains("/..") {
            let evidence = format!("output goes to {}", file.shown());
            self.touch(act, &file, &evidence);
        }
        true
    }

    fn simple(&mut self, assignments: &[Assignment], words: &[Word], feed: &Feed) -> Option<Arg> {
        let arguments = self.arguments(words);
        if arguments.is_empty() {
            for assignment in assignments {
                let value = self.assigned(assignment);
                self.assign(&assignment.name, value);
            }
            // Nothing runs, and nothing is printed.
            return Some(Arg::default());
        }
        if assignments.is_empty() {
            return self.run(&arguments, feed);
        }
        // Variables before a command are there for this command only.
        let tainted = self.state.tainted;
        let mut before = Vec::new();
        for assignment in assignments {
            let value = self.assigned(assignment);
            before.push((&assignment.name, self.state.variables.get(&assignment.name).cloned()));
            self.assign(&assignment.name, value);
        }
        let output = self.run(&arguments, feed);
        for (name, value) in before.into_iter().rev() {
            match value {
                Some(value) => self.state.variables.insert(name.clone(), value),
                None => self.state.variables.remove(name),
            };
        }
        self.state.tainted = tainted;
        output
    }

    fn assigned(&mut self, assignment: &Assignment) -> Arg {
        let mut value = Arg::default();
        for word in &assignment.values {
            let part = self.value(word);
            value.text.push_str(&part.text);
        }
        match (assignment.plain, assignment.append) {
            (true, false) => value,
            (true, true) => match self.state.variables.get(&assignment.name) {
                Some(before) => Arg::known(format!("{}{}", before.text, value.text)),
                None => Arg::unknown(),
            },
            (false, _) => Arg::unknown(),
        }
    }

    /// Runs one command with its arguments; its output, if that is known.
    pub(crate) fn run(&mut self, arguments: &[Arg], feed: &Feed) -> Option<Arg> {
        if self.within >= WITHIN_MAX {
            self.note_opaque(NoteCode::TooLarge, "too many programs that run programs");
            return None;
        }
        self.within += 1;
        let output = self.run_one(arguments, feed);
        self.within -= 1;
        output
    }

    fn run_one(&mut self, arguments: &[Arg], feed: &Feed) -> Option<Arg> {
        let (first, rest) = arguments.split_first()?;
        let Some(name) = first.exact() else {
            let evidence = format!("what runs is not known: {}", crate::words::line(arguments));
            self.opaque(&evidence);
            return None;
        };
        if let Some(alias) = self.state.aliases.get(name).cloned() {
            self.alias(name, &alias, rest);
        }
        if let Some(body) = self.state.functions.get(name).cloned() {
            self.call(&body, rest);
            return None;
        }
        self.dispatch(name, arguments, feed)
    }

    /// An alias may or may not be expanded, so both readings count.
    fn alias(&mut self, name: &str, alias: &Arg, rest: &[Arg]) {
        let Some(text) = alias.exact() else { return self.opaque("an alias that is not known") };
        let text = format!("{text} {}", crate::words::line(rest));
        self.apart(|shell| {
            shell.state.aliases.remove(name);
            shell.text(&text);
        });
    }

    fn call(&mut self, body: &Command, rest: &[Arg]) {
        if self.calls >= CALLS_MAX {
            return self.note_opaque(NoteCode::TooLarge, "a function calls itself");
        }
        self.calls += 1;
        let positional = std::mem::replace(&mut self.state.positional, rest.to_vec());
        self.command(body, Feed::Inherited);
        self.state.positional = positional;
        self.calls -= 1;
    }
}
