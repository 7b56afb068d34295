//! Grants for a limited time: what is listed follows from the records.

use super::{note, open, verify};
use crate::store::NewGrant;
use holdpoint_types::{EffectClass, Timestamp};

fn new(agent: &str, until: i64) -> NewGrant {
    NewGrant {
        agent: agent.parse().unwrap(),
        class: EffectClass::Write,
        tools: vec!["fs__*".to_owned()],
        until: Timestamp(until),
        by: "ada".to_owned(),
        because: "a release".to_owned(),
    }
}

#[tokio::test]
async fn so_many_grants_of_an_agent_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(note(10)).await.unwrap();
    let mut first = None;
    for number in 0..100 {
        let until = if number == 0 { 200 } else { 1_000 };
        let granted = store.grant(new("coder", until), Timestamp(20)).await.unwrap();
        first.get_or_insert(granted.unwrap().id);
    }
    assert_eq!(store.grant(new("coder", 1_000), Timestamp(30)).await, Ok(None));
    assert!(store.grant(new("other", 1_000), Timestamp(30)).await.unwrap().is_some());
    // One that is over counts for nothing, and cannot be revoked.
    let word = || ("ada".to_owned(), "over".to_owned());
    let over = store.revoke_grant(first.unwrap(), word(), Timestamp(200)).await;
    assert_eq!(over, Ok(None));
    let more = store.grant(new("coder", 1_000), Timestamp(200)).await.unwrap().unwrap();
    assert_eq!(store.grants().unwrap().len(), 101);
    assert_eq!(store.grant(new("coder", 1_000), Timestamp(210)).await, Ok(None));
    let revoked = store.revoke_grant(more.id, word(), Timestamp(220)).await.unwrap();
    assert_eq!(revoked, Some(more.clone()));
    assert_eq!(store.revoke_grant(more.id, word(), Timestamp(220)).await, Ok(None));
    assert!(store.grant(new("coder", 1_000), Timestamp(230)).await.unwrap().is_some());
    drop(store);
    assert_eq!(verify(dir.path()), Ok(105));
}
