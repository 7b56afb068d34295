//! Shell texts: any text has an answer, what cannot be told is destructive, and another command
//! never makes it milder. Must never run one.

#![no_main]

use holdpoint_effects::{Effects, Place, file_write, shell};
use holdpoint_types::EffectClass;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let place = Place {
        cwd: Some("/work/app".to_owned()),
        workspace: Some("/work/app".to_owned()),
        home: Some("/home/agent".to_owned()),
        protected_branches: ["main".to_owned()].into(),
        ..Place::default()
    };
    let read = |text: &str| {
        let mut effects = Effects::default();
        shell(text, &place, &mut effects);
        effects
    };
    let alone = read(&text);
    assert!(!alone.is_opaque() || alone.class() == Some(EffectClass::Destructive));
    assert_eq!(alone, read(&text), "read twice, and differently");
    assert!(read(&format!("true; {text}")).class() >= alone.class(), "hidden by what comes before");
    let deletes = read(&format!("rm -rf /srv/data\n{text}"));
    assert_eq!(deletes.class(), Some(EffectClass::Destructive), "a deletion is hidden");
    // The same text where it would run later.
    let mut later = Effects::default();
    file_write(".git/hooks/pre-commit", &text, &place, &mut later);
    file_write(".github/workflows/x.yml", &text, &place, &mut later);
    assert!(later.class() >= Some(EffectClass::Write));
});
