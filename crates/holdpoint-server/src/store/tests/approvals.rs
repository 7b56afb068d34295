//! What is told of approvals is found in a bounded part of the log.

use super::{decided, note, open};
use crate::store::Store;
use holdpoint_types::Ruling;
use std::os::unix::fs::PermissionsExt as _;

/// Where the looks from `from` on go, and what each finds.
fn looks(store: &Store, mut from: u64) -> Vec<(u64, Vec<u64>)> {
    let mut looks = Vec::new();
    loop {
        let (found, next) = store.about_approvals(from).unwrap();
        let found: Vec<_> = found.iter().map(|stored| stored.seq).collect();
        if next == from && found.is_empty() {
            return looks;
        }
        looks.push((next, found));
        from = next;
    }
}

#[tokio::test]
async fn records_about_approvals_are_found_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for at in 0..1_002 {
        store.append_later(note(10_000 + at)).unwrap();
    }
    for number in 0..20 {
        let ruling = if number == 7 { Ruling::Deny } else { Ruling::Hold };
        store.append_later(decided(number, ruling, 20_000)).unwrap();
    }
    store.flush().await.unwrap();
    let held = |seqs: std::ops::Range<u64>| seqs.filter(|seq| *seq != 1_009).collect::<Vec<_>>();
    let expected = [(1_000, vec![]), (1_019, held(1_002..1_019)), (1_022, held(1_019..1_022))];
    assert_eq!(looks(&store, 0), expected);
    assert_eq!(looks(&store, 1_022), []);
    // A log that was cut back is gone on with from its end.
    assert_eq!(looks(&store, 5_000), [(1_022, vec![])]);
}

#[tokio::test]
async fn the_key_for_links_is_one_and_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    assert!(store.known_link_key().unwrap().is_none());
    let key = store.link_key().unwrap();
    assert_eq!(*store.link_key().unwrap(), *key);
    assert_eq!(store.known_link_key().unwrap().as_deref(), Some(&*key));
    let path = dir.path().join("links.key");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(store.link_key().is_err() && store.known_link_key().is_err());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "short").unwrap();
    assert!(store.link_key().is_err() && store.known_link_key().is_err());
}
