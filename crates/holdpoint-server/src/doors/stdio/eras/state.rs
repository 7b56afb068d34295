//! The `requestState` of calls that wait for their agent: which call, which round, until when.
//!
//! INVARIANT: a state opens only for the agent, the server and the parameters that it was made for,
//! in the process that made it. Must never carry anything that the agent could use.

use holdpoint_types::{AgentName, Digest, ServerName};
use ring::hmac;
use std::sync::LazyLock;

/// How many bytes say which call it is: its number, its round, its end.
const BYTES: usize = 24;
/// What the seal is for, so that it fits nothing else.
const PURPOSE: &[u8] = b"holdpoint requestState 1\n";

/// The key of this process; none if there is no randomness.
static KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(|| {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
});

/// What a state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parking {
    /// The number of the call on its line.
    pub(super) call: u64,
    /// How often it was parked.
    pub(super) round: u64,
    /// When it ends, in milliseconds since 1970.
    pub(super) until_ms: u64,
}

/// What a state is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding(Digest);

// === impl Binding ===

impl Binding {
    pub(super) fn new(agent: &AgentName, server: &ServerName, asked: Digest) -> Self {
        // Names hold no line ends.
        Self(Digest::of(format!("{agent}\n{server}\n{asked}").as_bytes()))
    }
}

// === impl Parking ===

impl Parking {
    /// The text for the agent; none if it cannot be sealed.
    pub(super) fn seal(self, binding: Binding) -> Option<String> {
        let said = self.bytes();
        let tag = hmac::sign(KEY.as_ref()?, &sealed(&said, binding));
        Some(format!("{}{}", hex::encode(said), hex::encode(tag)))
    }

    /// Reads a text that came back; none if it is not one of ours for `binding`.
    pub(super) fn open(text: &str, binding: Binding) -> Option<Self> {
        let bytes = hex::decode(text).ok()?;
        let (said, tag) = bytes.split_at_checked(BYTES)?;
        // In constant time.
        hmac::verify(KEY.as_ref()?, &sealed(said, binding), tag).ok()?;
        let mut numbers = said.chunks_exact(8).map(|part| part.try_into().map(u64::from_be_bytes));
        let mut next = || numbers.next()?.ok();
        Some(Self { call: next()?, round: next()?, until_ms: next()? })
    }

    fn bytes(self) -> Vec<u8> {
        [self.call, self.round, self.until_ms].map(u64::to_be_bytes).concat()
    }
}

fn sealed(said: &[u8], binding: Binding) -> Vec<u8> {
    [PURPOSE, binding.0.to_string().as_bytes(), said].concat()
}

#[cfg(test)]
mod tests {
    use super::{Binding, Parking};
    use holdpoint_types::Digest;
    use proptest::prelude::*;

    fn binding(agent: &str, server: &str, asked: &[u8]) -> Binding {
        Binding::new(&agent.parse().unwrap(), &server.parse().unwrap(), Digest::of(asked))
    }

    #[test]
    fn a_state_opens_only_what_it_was_made_for() {
        let own = binding("coder", "fs", b"x");
        let parking = Parking { call: 7, round: 2, until_ms: 1 << 50 };
        let state = parking.seal(own).unwrap();
        assert_eq!(Parking::open(&state, own), Some(parking));
        for other in [
            binding("other", "fs", b"x"),
            binding("coder", "other", b"x"),
            binding("coder", "fs", b"y"),
        ] {
            assert_eq!(Parking::open(&state, other), None);
        }
        for text in ["", "00", "no hex", &state[2..], &format!("{state}00")] {
            assert_eq!(Parking::open(text, own), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_state_opens_nothing(at in 0..112_usize, change in 1..16_u8) {
            let own = binding("coder", "fs", b"x");
            let state = Parking { call: 7, round: 2, until_ms: 9 }.seal(own).unwrap();
            prop_assert_eq!(state.len(), 112);
            let mut digits: Vec<u8> = state.into_bytes();
            let digit = (digits[at] as char).to_digit(16).unwrap() ^ u32::from(change);
            digits[at] = char::from_digit(digit, 16).unwrap() as u8;
            prop_assert_eq!(Parking::open(&String::from_utf8(digits).unwrap(), own), None);
        }
    }
}
