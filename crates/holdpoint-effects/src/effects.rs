//! The result of an analysis: a bounded set of effects, and notes about what is wrong with them.
//! Must never lose an effect silently: what does not fit makes the whole opaque.

use holdpoint_types::{Certainty, Effect, EffectClass};
use std::collections::BTreeSet;

/// Most effects of one call. A call that does more is opaque as a whole.
pub const EFFECTS_MAX: usize = 64;
/// Longest text that is analysed, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// How deep one language may be nested in another: `ssh host "sh -c '…'"`.
pub const NESTING_MAX: usize = 8;
/// Longest evidence, in characters.
const EVIDENCE_CHARS_MAX: usize = 160;

/// How bad something is that an analysis noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look.
    Warn,
    /// Breaks an invariant.
    Fail,
}

/// Something that an analysis noticed besides the effects, by a stable code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What.
    pub code: NoteCode,
    /// How bad.
    pub severity: Severity,
    /// Where and why, for people.
    pub evidence: String,
}

macro_rules! notes {
    ($($variant:ident, $code:literal, $severity:ident, $meaning:literal;)*) => {
        /// What an analysis can notice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum NoteCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl NoteCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

notes! {
    Unreadable, "unreadable", Fail, "The text could not be read as its target would read it.";
    TooLarge, "too_large", Fail, "The text is too long, too deep or does too much to be judged.";
    MassChange, "mass_change", Fail, "Every row, file or object is changed, with no predicate.";
    StatefulDelete, "stateful_delete", Fail, "Something that holds data is deleted.";
    WildcardPrivilege, "wildcard_privilege", Fail, "A privilege for everything or everybody.";
    PrivilegeWidened, "privilege_widened", Fail, "Somebody may do more than before.";
    NetworkWidened, "network_widened", Fail, "More of the network can be reached than before.";
    StateLossSuspected, "state_loss_suspected", Fail, "Everything is created: the state is lost.";
    StateFileWritten, "state_file_written", Fail, "A state file is written by hand.";
    HistoryRewritten, "history_rewritten", Fail, "Published history is rewritten or removed.";
    PipelineChanged, "pipeline_changed", Warn, "What runs on the build system is changed.";
    CredentialInCall, "credential_in_call", Fail, "The call carries a credential of its own.";
    CredentialTouched, "credential_touched", Warn, "A file that holds credentials is touched.";
    OutsideWorkspace, "outside_workspace", Warn, "Something outside the workspace is changed.";
    HostNotAllowed, "host_not_allowed", Fail, "A host that is not on the list is addressed.";
    DeferredExecution, "deferred_execution", Warn, "Something is made to run later.";
    CheckRemoved, "check_removed", Fail, "Code that must stay is taken away, or may be.";
    UnseenCode, "unseen_code", Warn, "Code runs that was not seen here.";
}

/// What a call would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    effects: BTreeSet<Effect>,
    notes: BTreeSet<Note>,
    overflowed: bool,
}

// === impl Effects ===

impl Effects {
    /// Adds one effect.
    pub fn add(&mut self, mut effect: Effect) {
        shorten(&mut effect.evidence);
        if self.effects.len() >= EFFECTS_MAX && !self.effects.contains(&effect) {
            self.overflow(&effect.resource);
            return;
        }
        self.effects.insert(effect);
    }

    /// Adds what cannot be told, and says why.
    pub fn add_opaque(&mut self, resource: &str, code: NoteCode, evidence: impl Into<String>) {
        let evidence = evidence.into();
        self.note(code, evidence.clone());
        self.add(Effect::opaque(resource, evidence));
    }

    /// Notes something about the call.
    pub fn note(&mut self, code: NoteCode, evidence: impl Into<String>) {
        let mut evidence = evidence.into();
        shorten(&mut evidence);
        let room = self.notes.len() < EFFECTS_MAX;
        if room || !self.notes.iter().any(|note| note.code == code) {
            self.notes.insert(Note { code, severity: code.severity(), evidence });
        }
    }

    /// Takes in everything of `other`.
    pub fn extend(&mut self, other: Self) {
        for effect in other.effects {
            self.add(effect);
        }
        for note in other.notes {
            self.note(note.code, note.evidence);
        }
        self.overflowed |= other.overflowed;
    }

    /// The same with each effect changed.
    pub(crate) fn map(self, change: impl FnMut(Effect) -> Effect) -> Self {
        Self { effects: self.effects.into_iter().map(change).collect(), ..self }
    }

    /// Every effect, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter()
    }

    /// Every note, in a fixed order.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter()
    }

    /// The strictest class of all effects; `None` if nothing was found to happen at all.
    pub fn class(&self) -> Option<EffectClass> {
        self.effects.iter().map(|effect| effect.class).max()
    }

    /// True if something in it could not be told.
    pub fn is_opaque(&self) -> bool {
        self.effects.iter().any(|effect| effect.certainty == Certainty::Opaque)
    }

    /// True if there is neither effect nor note.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.notes.is_empty()
    }

    fn overflow(&mut self, resource: &str) {
        if std::mem::replace(&mut self.overflowed, true) {
            return;
        }
        let evidence = format!("more than {EFFECTS_MAX} effects in one call");
        self.note(NoteCode::TooLarge, evidence.clone());
        // One beyond the limit: what says that the set is not complete must always fit.
        self.effects.insert(Effect::opaque(resource, evidence));
    }
}

fn shorten(text: &mut String) {
    if text.len() <= EVIDENCE_CHARS_MAX {
        return;
    }
    if let Some((at, _)) = text.char_indices().nth(EVIDENCE_CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::{EFFECTS_MAX, Effects, NoteCode};
    use holdpoint_types::{Effect, Verb};

    #[test]
    fn too_many_effects_are_opaque() {
        let mut effects = Effects::default();
        for at in 0..=EFFECTS_MAX {
            effects.add(Effect::new(Verb::Read, format!("x://{at}"), "reads"));
        }
        assert!(effects.is_opaque());
        assert!(effects.notes().any(|note| note.code == NoteCode::TooLarge));
    }

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::BTreeSet<_> =
            NoteCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), NoteCode::ALL.len());
    }
}
