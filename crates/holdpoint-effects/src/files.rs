//! Files and folders: what it means that one is read, written, moved or deleted.
//!
//! Owns what a path stands for: a credential, a device, a state file, something that runs later.
//! It must never look at a disk: whether a file is there, or is a link, is not known here.

use crate::data::paths;
use crate::deferred;
use crate::kept;
use crate::place::{Act, Path, Place, Spot};
use crate::words::{Arg, Pattern};
use crate::{Effects, NoteCode};
use holdpoint_types::{Certainty, Effect, EffectClass, Reversibility, Verb};

/// What a path stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Meaning {
    device: bool,
    credential: bool,
    account: bool,
    startup: bool,
    pipeline: bool,
    build: bool,
    state: bool,
    system: bool,
    /// Everything below it is the host's own.
    host: bool,
    /// Deleting it deletes the workspace, a home or the whole host.
    root: bool,
    /// It lies in the workspace, or among what is temporary.
    own: bool,
}

/// Adds that a tool reads the file at `path`.
pub fn file_read(path: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Read, path, place, effects);
}

/// Adds that a tool makes the folder at `path`.
pub fn folder_create(path: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Create, path, place, effects);
}

/// Adds that a tool writes `contents` to the file at `path`.
pub fn file_write(path: &str, contents: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Write(Some(Arg::known(contents))), path, place, effects);
}

/// Adds that a tool puts `inserted` into the file at `path`, in place of a part of it that is not
/// told.
pub fn file_edit(path: &str, inserted: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Append(Some(Arg::known(inserted))), path, place, effects);
    kept::edited(&place.spot(), &place.spot().path(&named(path, place)), None, effects);
}

/// Adds that a tool puts texts into the file at `path`: each pair is what is replaced, and by what.
pub fn file_replace(path: &str, edits: &[(&str, &str)], place: &Place, effects: &mut Effects) {
    let inserted: Vec<&str> = edits.iter().map(|(_, new)| *new).collect();
    tool(Act::Append(Some(Arg::known(inserted.join("\n")))), path, place, effects);
    kept::edited(&place.spot(), &place.spot().path(&named(path, place)), Some(edits), effects);
}

/// Adds that a tool deletes the file at `path`.
pub fn file_delete(path: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Delete, path, place, effects);
}

/// Adds that a tool deletes the folder at `path` with everything in it.
pub fn folder_delete(path: &str, place: &Place, effects: &mut Effects) {
    tool(Act::DeleteTree, path, place, effects);
}

/// Adds that a tool moves `from` to `to`, which replaces what is there.
pub fn file_move(from: &str, to: &str, place: &Place, effects: &mut Effects) {
    tool(Act::Update, from, place, effects);
    tool(Act::Replace, to, place, effects);
    tool(Act::Write(None), to, place, effects);
}

fn tool(act: Act, path: &str, place: &Place, effects: &mut Effects) {
    place.spot().touch(act, &named(path, place), "named by the call", effects);
}

/// A tool takes a path as it is, but some of them expand `~`.
fn named(path: &str, place: &Place) -> Arg {
    let home = place.home.as_deref().filter(|_| path == "~" || path.starts_with("~/"));
    Arg::known(home.map_or_else(|| path.to_owned(), |home| path.replacen('~', home, 1)))
}

/// Adds what `act` on `file` is.
pub(crate) fn touch(spot: &Spot<'_>, act: Act, file: &Arg, evidence: &str, effects: &mut Effects) {
    let nothing = file.text == "-" || file.text.is_empty();
    let device = file.text.starts_with("/dev/") && !file.text.contains("/..");
    if nothing || device && paths().nothing.iter().any(|pattern| pattern.fits(&file.text)) {
        return;
    }
    if let Some(peer) = file.text.strip_prefix("/dev/tcp/").or(file.text.strip_prefix("/dev/udp/"))
    {
        let address = format!("tcp://{}", peer.replace('/', ":"));
        effects.note(NoteCode::HostNotAllowed, address.clone());
        return effects
            .add(Effect::new(Verb::Send, address, evidence).at_least(EffectClass::Destructive));
    }
    let path = spot.path(file);
    kept::touched(spot, &act, &path, effects);
    let changes = act != Act::Read;
    let meaning = meaning(spot, &path, &act);
    if changes {
        spot.note_outside(&path, effects);
    }
    if meaning.credential {
        effects.note(NoteCode::CredentialTouched, path.text.clone());
    }
    let effect = effect(spot, &act, &path, evidence);
    let effect = if changes { weigh(effect, &act, meaning, &path, effects) } else { effect };
    effects.add(effect);
    if let Act::Write(contents) | Act::Append(contents) = &act
        && (meaning.startup || meaning.pipeline)
    {
        later(spot, &path, contents.as_ref(), meaning, effects);
    }
}

/// The effect itself, without what the path means.
fn effect(spot: &Spot<'_>, act: &Act, path: &Path, evidence: &str) -> Effect {
    let verb = match act {
        Act::Read => Verb::Read,
        Act::Create => Verb::Create,
        Act::Write(_) | Act::Append(_) | Act::Update => Verb::Update,
        Act::Delete | Act::DeleteTree | Act::Replace => Verb::Delete,
        Act::Grant => Verb::Grant,
    };
    let mut effect = Effect::new(verb, spot.address(path), evidence);
    if *act == Act::DeleteTree || path.bounded {
        effect = effect.whole();
    }
    if spot.host.is_none() && verb != Verb::Read && path.rooted {
        effect = effect.reversible(Reversibility::Exact);
    }
    match (path.rooted, verb) {
        (false, Verb::Read | Verb::Create) => effect.no_surer_than(Certainty::Bounded),
        (false, _) => effect.no_surer_than(Certainty::Opaque),
        (true, _) if path.bounded || *act == Act::Replace => {
            effect.no_surer_than(Certainty::Bounded)
        }
        (true, _) => effect,
    }
}

/// The same effect, as grave as what the path stands for.
fn weigh(
    effect: Effect,
    act: &Act,
    meaning: Meaning,
    path: &Path,
    effects: &mut Effects,
) -> Effect {
    let mut effect = effect;
    let deletes = matches!(act, Act::Delete | Act::DeleteTree);
    if matches!(act, Act::Write(Some(contents)) if contents.text.is_empty()) && !meaning.own {
        // What is emptied outside of the workspace was there before.
        effect.verb = Verb::Delete;
        effect = effect.no_surer_than(Certainty::Bounded).at_least(EffectClass::Destructive);
    }
    if meaning.device {
        effects.note(NoteCode::StatefulDelete, path.text.clone());
        effect.verb = Verb::Delete;
        effect = effect.whole().reversible(Reversibility::Irreversible);
    }
    if meaning.state {
        effects.note(NoteCode::StateFileWritten, path.text.clone());
        effect = effect.at_least(EffectClass::Destructive);
    }
    if meaning.account {
        effects.note(NoteCode::PrivilegeWidened, path.text.clone());
        effect.verb = if deletes { Verb::Delete } else { Verb::Grant };
    }
    if meaning.pipeline {
        effects.note(NoteCode::PipelineChanged, path.text.clone());
    }
    if meaning.build || meaning.startup {
        effects.note(NoteCode::DeferredExecution, path.text.clone());
    }
    if meaning.system || meaning.credential || meaning.host {
        effect = effect.at_least(EffectClass::Destructive);
    }
    if deletes && meaning.root {
        effects.note(NoteCode::MassChange, path.text.clone());
        effect = effect.whole().reversible(Reversibility::Irreversible);
    }
    let floor = effect.verb.floor();
    effect.at_least(floor)
}

/// What is written runs later, so what it would do then counts now.
fn later(
    spot: &Spot<'_>,
    path: &Path,
    contents: Option<&Arg>,
    meaning: Meaning,
    effects: &mut Effects,
) {
    let address = spot.address(path);
    let effect = Effect::new(Verb::Schedule, address.clone(), "what is written here runs later");
    effects.add(effect);
    match contents.filter(|contents| !contents.is_unknown()) {
        Some(contents) => {
            let pipeline = meaning.pipeline.then_some(path.text.as_str());
            deferred::contents(&contents.text, pipeline, *spot, effects);
        }
        None => effects.add_opaque(&address, NoteCode::UnseenCode, "what runs later is not seen"),
    }
}

fn meaning(spot: &Spot<'_>, path: &Path, act: &Act) -> Meaning {
    if !path.rooted {
        return Meaning::default();
    }
    let paths = paths();
    let home = spot.place.home.as_deref().unwrap_or("/nowhere");
    let under_home = path.text.strip_prefix(home).filter(|rest| rest.starts_with('/'));
    let relative = under_home.map(|rest| format!("~{rest}"));
    // Most paths hold no such name, and most patterns ask for one.
    let dotted = path.text.contains("/.");
    let any = |patterns: &[Pattern]| {
        let mut able = patterns.iter().filter(|pattern| dotted || !pattern.is_dotted());
        able.any(|pattern| match (pattern.is_home(), &relative) {
            (true, Some(relative)) => pattern.fits(relative),
            (true, None) => false,
            (false, _) => pattern.fits(&path.text),
        })
    };
    if *act == Act::Read {
        // Only a change makes something of the other meanings.
        return Meaning { credential: any(&paths.credentials), ..Meaning::default() };
    }
    let workspace = spot.place.workspace.as_deref().map(|folder| folder.trim_end_matches('/'));
    let stripped = path.text.trim_end_matches("/**").trim_end_matches("/*");
    let stripped = if stripped.is_empty() { "/" } else { stripped };
    let above = |folder: &str| {
        folder == stripped || stripped == "/" || folder.starts_with(&format!("{stripped}/"))
    };
    let temporary = ["/tmp/", "/var/tmp/"].iter().any(|folder| path.text.starts_with(folder));
    Meaning {
        own: temporary || spot.in_workspace(path).is_some(),
        device: any(&paths.devices),
        credential: any(&paths.credentials),
        account: any(&paths.accounts),
        startup: any(&paths.startup),
        pipeline: any(&paths.pipeline),
        build: any(&paths.build),
        state: any(&paths.state),
        system: any(&paths.system),
        host: path.bounded && paths.roots.iter().any(|root| root == stripped),
        root: workspace.is_some_and(above)
            || spot.host.is_none() && above(home)
            || paths.roots.iter().any(|root| root == stripped),
    }
}
