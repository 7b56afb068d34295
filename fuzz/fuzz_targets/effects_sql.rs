//! SQL in every dialect: any text has an answer, and another statement never makes it milder.
//! The first byte says which dialect. Must never open a database.

#![no_main]

use holdpoint_effects::{Database, Dialect, Effects, sql};
use holdpoint_types::EffectClass;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let dialects = [Dialect::Postgres, Dialect::Sqlite, Dialect::Mysql];
    let database = Database::new(dialects[usize::from(*kind) % 3], "db://shop/shop");
    let text = String::from_utf8_lossy(text);
    let read = |text: &str| {
        let mut effects = Effects::default();
        sql(text, &database, &mut effects);
        effects
    };
    let alone = read(&text);
    assert!(alone.class().is_some(), "SQL that does nothing at all");
    assert!(!alone.is_opaque() || alone.class() == Some(EffectClass::Destructive));
    assert_eq!(alone, read(&text), "read twice, and differently");
    let more = read(&format!("{text}\n;\nSELECT 1"));
    assert!(alone.is_opaque() || more.class() >= alone.class(), "a statement hides another");
});
