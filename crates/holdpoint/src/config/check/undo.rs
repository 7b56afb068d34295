//! Checks how changes through upstream servers are seen before and taken back.
//! Must not ask a server, nor look at a folder.

use super::{Checker, hosts};
use crate::config::checked::UndoRules;
use crate::config::raw::{
    At, RawDisclosure, RawEffects, RawFamily, RawInverse, RawMapped, RawRead, RawServer,
    RawToolUndo,
};
use holdpoint_resources::{Declared, Expected, FileShape, Inverse, Mapped, MappedSource, Reading};
use holdpoint_types::Disclosure;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time that a call may wait before it is sent, in seconds.
const DELAY_S_MAX: u64 = 3600;

type RawArguments = BTreeMap<At<String>, At<RawMapped>>;

// === impl Checker ===

impl Checker<'_> {
    /// What stands beside a server, if anything does.
    pub(super) fn undo(&mut self, raw: &RawServer) -> Option<UndoRules> {
        let mut declared = BTreeMap::new();
        for (name, tool) in &raw.tool {
            let Some(undo) = &tool.get().undo else { continue };
            declared.extend(self.declared(undo).map(|one| (name.get().clone(), one)));
        }
        let roots = raw.undo.as_ref().and_then(|undo| undo.get().files.as_ref());
        match (roots, raw.undo.as_ref()) {
            (None, Some(undo)) => {
                self.missing(&undo.span(), "files", "[\"/srv/app\"]");
                None
            }
            (Some(_), Some(undo)) if !declared.is_empty() => {
                let message = "`undo` of a server and `undo` of its tools exclude each other";
                self.fault(undo.span(), message.to_owned(), None);
                None
            }
            (Some(roots), _) => {
                let roots = roots.iter().filter_map(|root| self.path(Some(root))).collect();
                Some(UndoRules::Files { roots, shapes: shapes(raw) })
            }
            (None, None) => (!declared.is_empty()).then_some(UndoRules::Declared(declared)),
        }
    }

    fn declared(&mut self, raw: &At<RawToolUndo>) -> Option<Declared> {
        let one = raw.get();
        let deletes = one.deletes.as_ref().is_some_and(|deletes| *deletes.get());
        let gives = self.mapped(&one.gives);
        let expected = match (deletes, gives.is_empty()) {
            (true, true) => Expected::Gone,
            (true, false) => {
                let message = "a call that deletes its target gives it no members".to_owned();
                self.fault(raw.span(), message, "leave out `deletes` or `gives`".to_owned());
                return None;
            }
            (false, true) => Expected::Unknown,
            (false, false) => Expected::With(gives),
        };
        let read = one.read.as_ref().and_then(|read| self.reading(read, expected));
        let inverse = one.inverse.as_ref().and_then(|inverse| self.inverse(inverse));
        if let (Some(inverse), None) = (&one.inverse, &one.read) {
            let message = "an inverse needs a `read`: else nobody could tell whether it was done";
            self.fault(inverse.span(), message.to_owned(), None);
        }
        let delay = one.delay_s.as_ref().map(|delay| {
            if *delay.get() > DELAY_S_MAX {
                let message = format!("`delay_s` must be at most {DELAY_S_MAX}");
                self.fault(delay.span(), message, None);
            }
            Duration::from_secs(*delay.get())
        });
        let disclosure = match one.discloses {
            Some(RawDisclosure::Contained) => Disclosure::Contained,
            Some(RawDisclosure::Wider) => Disclosure::Wider,
            Some(RawDisclosure::Left) | None => Disclosure::Left,
        };
        Some(Declared { read, inverse, delay, disclosure })
    }

    fn reading(&mut self, raw: &At<RawRead>, expected: Expected) -> Option<Reading> {
        let one = raw.get();
        let texts = |all: &[At<String>]| all.iter().map(|text| text.get().clone()).collect();
        let state = one.state.as_ref().map(|state| state.get().clone()).unwrap_or_default();
        Some(Reading {
            call: self.call(raw, one.tool.as_ref(), &one.arguments)?,
            state,
            error_is_absence: one.error_is_absence.as_ref().is_some_and(|flag| *flag.get()),
            volatile: texts(&one.volatile),
            redacted: texts(&one.redacted),
            expected,
        })
    }

    fn inverse(&mut self, raw: &At<RawInverse>) -> Option<Inverse> {
        let one = raw.get();
        let gives = self.mapped(&one.gives);
        let leaves = if gives.is_empty() { Expected::Unknown } else { Expected::With(gives) };
        Some(Inverse { call: self.call(raw, one.tool.as_ref(), &one.arguments)?, leaves })
    }

    fn call<T>(
        &mut self,
        raw: &At<T>,
        tool: Option<&At<String>>,
        arguments: &RawArguments,
    ) -> Option<Mapped> {
        let Some(tool) = tool else {
            self.missing(&raw.span(), "tool", "\"NAME\"");
            return None;
        };
        Some(Mapped { tool: tool.get().clone(), arguments: self.mapped(arguments) })
    }

    fn mapped(&mut self, raw: &RawArguments) -> BTreeMap<String, MappedSource> {
        let mut mapped = BTreeMap::new();
        for (name, from) in raw {
            let source = match from.get() {
                RawMapped::Constant { value } => MappedSource::Constant(value.clone()),
                RawMapped::From(text) => match source(text) {
                    Some(source) => source,
                    None => {
                        let message = format!("`{text}` names no value");
                        let write = "write `/NAME`, `before:/NAME`, `result:/NAME` or \
                                     `{ value = … }`";
                        self.fault(from.span(), message, write.to_owned());
                        continue;
                    }
                },
            };
            mapped.insert(name.get().clone(), source);
        }
        mapped
    }
}

fn source(text: &str) -> Option<MappedSource> {
    let pointer = |text: &str| (text.is_empty() || text.starts_with('/')).then(|| text.to_owned());
    if let Some(rest) = text.strip_prefix("before:") {
        return pointer(rest).map(MappedSource::Before);
    }
    if let Some(rest) = text.strip_prefix("result:") {
        return pointer(rest).map(MappedSource::Result);
    }
    text.starts_with('/').then(|| MappedSource::Parameter(text.to_owned()))
}

/// What the parameters of tools say about files, as their analyses say.
fn shapes(raw: &RawServer) -> BTreeMap<String, FileShape> {
    let known = match &raw.host {
        Some(host) => hosts::known_shapes(*host.get()),
        None => FileShape::of_server_filesystem(),
    };
    let mut shapes: BTreeMap<_, _> = known.into_iter().collect();
    for (name, tool) in &raw.tool {
        let shape = tool.get().effects.iter().find_map(|one| shape(one.get()));
        if let Some(shape) = shape {
            shapes.insert(name.get().clone(), shape);
        }
    }
    shapes
}

fn shape(effects: &RawEffects) -> Option<FileShape> {
    if effects.family.as_ref().map(At::get) != Some(&RawFamily::File) {
        return None;
    }
    let pointer = |text: Option<&At<String>>| {
        text.map(At::get).filter(|text| text.starts_with('/') && !text.contains('{')).cloned()
    };
    let path = pointer(effects.path.as_ref())?;
    match effects.act.as_ref()?.get().as_str() {
        "write" => Some(FileShape::Write { path, content: pointer(effects.contents.as_ref())? }),
        "edit" => Some(FileShape::Edit {
            path,
            edits: pointer(effects.contents.as_ref())?,
            members: ("oldText".to_owned(), "newText".to_owned()),
            dry_run: Some("/dryRun".to_owned()),
        }),
        "move" => Some(FileShape::Move { from: path, to: pointer(effects.to.as_ref())? }),
        "create_folder" => Some(FileShape::Folder { path }),
        _ => None,
    }
}
