//! Links by which one operator looks at one approval and says yes or no.
//!
//! INVARIANT: a link is good for one operator and one approval with one binding, until that ends;
//! who does not have the store's key cannot make one. Must never compare in a time that tells how
//! much of a link is right.

use crate::store::{Store, StoreFault};
use holdpoint_types::{ActionId, ApprovalAsked, Digest, OperatorName, Timestamp};
use ring::hmac;
use std::fmt;

/// What is signed begins like this, so that the key signs nothing else by accident.
const MAGIC: &str = "holdpoint-approval-link-1";

/// The store's key for links.
pub struct LinkKey(hmac::Key);

/// What a link is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The approval.
    pub approval: ActionId,
    /// What exactly it approves.
    pub binding: Digest,
    /// Whose link it is.
    pub operator: OperatorName,
    /// When it ends.
    pub until: Timestamp,
}

// === impl LinkKey ===

impl LinkKey {
    /// The key of `store`; made if there is none.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn of(store: &Store) -> Result<Self, StoreFault> {
        Ok(Self::new(&*store.link_key()?))
    }

    /// The key of `store`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn known(store: &Store) -> Result<Option<Self>, StoreFault> {
        Ok(store.known_link_key()?.map(|key| Self::new(&key)))
    }

    fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// What proves that `link` was made here.
    pub fn mac(&self, link: &Link) -> String {
        hex::encode(hmac::sign(&self.0, link.signed().as_bytes()))
    }

    /// True if `mac` was made for exactly `link`.
    pub fn fits(&self, link: &Link, mac: &str) -> bool {
        let Ok(mac) = hex::decode(mac) else { return false };
        hmac::verify(&self.0, link.signed().as_bytes(), &mac).is_ok()
    }

    /// Where `link` leads, below `base`.
    pub fn url(&self, base: &str, link: &Link) -> String {
        let Link { approval, binding, operator, until } = link;
        let (base, until, mac) = (base.trim_end_matches('/'), until.0, self.mac(link));
        let which = format!("id={approval}&binding={binding}&by={operator}&until={until}");
        format!("{base}/approve?{which}&mac={mac}")
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

// === impl Link ===

impl Link {
    /// The link to what was `asked`, for `operator`.
    pub fn of(asked: &ApprovalAsked, operator: OperatorName) -> Self {
        let (approval, binding, until) = (asked.id, asked.binding, asked.expires_ms);
        Self { approval, binding, operator, until }
    }

    fn signed(&self) -> String {
        let Self { approval, binding, operator, until } = self;
        format!("{MAGIC}\n{approval}\n{binding}\n{operator}\n{}", until.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, LinkKey};
    use holdpoint_types::{ActionId, Digest, Timestamp};

    #[test]
    fn a_link_fits_what_it_was_made_for_and_nothing_else() {
        let key = LinkKey::new(&[7; 32]);
        let link = Link {
            approval: ActionId::new(Timestamp(1_000), [1; 10]),
            binding: Digest::of(b"this call"),
            operator: "ada".parse().unwrap(),
            until: Timestamp(2_000),
        };
        let url = key.url("https://hold.example.com/", &link);
        assert!(url.starts_with("https://hold.example.com/approve?id="), "{url}");
        let mac = url.split_once("mac=").unwrap().1;
        assert!(key.fits(&link, mac));
        assert!(!LinkKey::new(&[8; 32]).fits(&link, mac));
        let other = |change: fn(&mut Link)| {
            let mut link = link.clone();
            change(&mut link);
            link
        };
        for other in [
            other(|link| link.approval = ActionId::new(Timestamp(1_000), [2; 10])),
            other(|link| link.binding = Digest::of(b"another call")),
            other(|link| link.operator = "bob".parse().unwrap()),
            other(|link| link.until = Timestamp(2_001)),
        ] {
            assert!(!key.fits(&other, mac), "{other:?}");
        }
        let first = &mac[..1];
        let flipped = mac.replacen(first, if first == "0" { "1" } else { "0" }, 1);
        for wrong in ["", "00", "zz", &mac[1..], &format!("{mac}00"), &flipped] {
            assert!(!key.fits(&link, wrong), "{wrong}");
        }
        assert_eq!(format!("{key:?}"), "LinkKey(…)");
    }
}
