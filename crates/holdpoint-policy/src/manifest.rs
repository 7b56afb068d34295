//! What the signers of a guard set sign: its name and version, until when it is good, what it
//! guards, and the digest of every file, as one text.
//!
//! INVARIANT: one manifest has one text, and a text that is not exactly that is no manifest. Must
//! not know who signed it.

use holdpoint_types::{Digest, PolicySource, TargetFacts, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The first line: no other text that somebody signs begins like this.
const TITLE: &str = "holdpoint guard set v1";

/// What a guard set guards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardScope {
    /// Surfaces.
    pub surfaces: BTreeSet<String>,
    /// Environments.
    pub environments: BTreeSet<String>,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The set's name.
    pub name: String,
    /// Counts what was signed under this name; never goes back.
    pub version: u64,
    /// From when on the set permits nothing; absent if it does not expire.
    pub expires: Option<Timestamp>,
    /// What it guards.
    pub scope: GuardScope,
    /// The digest of every file, by name.
    pub files: BTreeMap<String, Digest>,
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is signed is no manifest of a guard set: {0}")]
pub struct ManifestFault(String);

// === impl GuardScope ===

impl GuardScope {
    /// True if `target` lies in what is guarded.
    pub fn covers(&self, target: &TargetFacts) -> bool {
        self.environments.contains(&target.environment)
            || target.surfaces.iter().any(|name| self.surfaces.contains(name))
    }
}

// === impl Manifest ===

impl Manifest {
    /// The digests of `sources`, as a manifest lists them.
    pub fn digests(sources: &[PolicySource]) -> BTreeMap<String, Digest> {
        let each = sources.iter();
        each.map(|one| (one.name.clone(), Digest::of(one.text.as_bytes()))).collect()
    }

    /// The text that is signed. Ends in a newline.
    pub fn text(&self) -> String {
        let mut text = format!("{TITLE}\nname {}\nversion {}\n", self.name, self.version);
        let mut line = |word: &str, value: &dyn std::fmt::Display| {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{word} {value}");
        };
        if let Some(expires) = self.expires {
            line("expires-ms", &expires.0);
        }
        self.scope.surfaces.iter().for_each(|name| line("surface", name));
        self.scope.environments.iter().for_each(|name| line("environment", name));
        for (name, digest) in &self.files {
            line("file", &format_args!("{digest} {name}"));
        }
        text
    }

    /// The manifest in `text`.
    ///
    /// # Errors
    /// When the text is not exactly what [`Self::text`] gives for it.
    pub fn parse(text: &str) -> Result<Self, ManifestFault> {
        let fault = |what: &str| ManifestFault(what.to_owned());
        let rest = text.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or_else(|| fault("it begins otherwise"))?;
        let (name, scope, files) = Default::default();
        let mut found = Self { name, version: 0, expires: None, scope, files };
        for line in rest.lines() {
            let (word, value) = line.split_once(' ').ok_or_else(|| fault("a line has no value"))?;
            let number = || fault("a number is none");
            match word {
                "name" => value.clone_into(&mut found.name),
                "version" => found.version = value.parse().map_err(|_| number())?,
                "expires-ms" => {
                    found.expires = Some(Timestamp(value.parse().map_err(|_| number())?));
                }
                "surface" => found.scope.surfaces.extend([value.to_owned()]),
                "environment" => found.scope.environments.extend([value.to_owned()]),
                "file" => {
                    let (digest, name) = value.split_once(' ').ok_or_else(|| fault("a file"))?;
                    let digest = digest.parse().map_err(|_| fault("a file has no digest"))?;
                    found.files.insert(name.to_owned(), digest);
                }
                _ => return Err(ManifestFault(format!("it has a line `{}`", word.escape_debug()))),
            }
        }
        if found.text() == text { Ok(found) } else { Err(fault("its lines are not in order")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{GuardScope, Manifest};
    use expect_test::expect;
    use holdpoint_types::{PolicySource, Timestamp};
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let source =
            |name: &str| PolicySource { name: name.to_owned(), text: format!("// {name}\n") };
        Manifest {
            name: "crown".to_owned(),
            version: 3,
            expires: Some(Timestamp(1_800_000_000_000)),
            scope: GuardScope {
                surfaces: ["prod".to_owned(), "auth".to_owned()].into(),
                environments: ["prod".to_owned()].into(),
            },
            files: Manifest::digests(&[source("b c.cedar"), source("a.cedar")]),
        }
    }

    #[test]
    fn what_is_signed_is_one_text() {
        let text = manifest().text();
        expect![[r#"
            holdpoint guard set v1
            name crown
            version 3
            expires-ms 1800000000000
            surface auth
            surface prod
            environment prod
            file sha256:8903e4f5ae798f4192d9561d885346929b0f51ac8215551adb19af8462838883 a.cedar
            file sha256:4ac45e11cdc1729b1daac9fb263090ba069e35870e202a96f78f204601f7102f b c.cedar
        "#]]
        .assert_eq(&text);
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        let swapped = text.replace("surface auth\nsurface prod", "surface prod\nsurface auth");
        let others = [
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}surface x\n"),
            text.replace("version 3", "version 03"),
            text.replace("version 3", "version"),
            text.replace("v1", "v2"),
            text.replace("name crown\n", ""),
            text.replace("name crown", "name crown\nname crown"),
            text.replace("sha256:", "sha1:"),
            swapped,
        ];
        for other in others {
            assert!(Manifest::parse(&other).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_result(text in "(holdpoint guard set v1\n)?((name|file|version) [a-z:0-9 ]*\n){0,4}\\PC{0,9}") {
            if let Ok(found) = Manifest::parse(&text) {
                prop_assert_eq!(found.text(), text);
            }
        }
    }
}
