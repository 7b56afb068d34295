//! What makes a guard set count, and everything that keeps it from counting.

use super::{GuardSpec, NOTE_NAME, PoliciesFault, PolicySpec, keep, recorded_guard, replace_file};
use holdpoint_ledger::{Signer, cosign_note, sign_note};
use holdpoint_policy::{GuardScope, Manifest};
use holdpoint_types::Timestamp;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_000_000);
const READS: &str = r#"@id("reads") @reason("fine") permit (principal, action, resource);"#;

/// A guard set in a folder, of which two of ada, bob and carol must have signed.
struct Place {
    dir: TempDir,
    spec: GuardSpec,
}

fn signer(name: &str) -> Signer {
    Signer::new(name, &[name.len().try_into().unwrap(); 32]).unwrap()
}

// === impl Place ===

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crown");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.cedar"), READS).unwrap();
        fs::write(folder.join("README.md"), "no policy").unwrap();
        let surfaces = ["prod".to_owned()].into();
        let scope = GuardScope { surfaces, environments: Default::default() };
        let signers = ["ada", "bobby", "carol-"].map(|name| signer(name).verifier());
        let (name, signers) = ("crown".to_owned(), signers.to_vec());
        Self { dir, spec: GuardSpec { name, folder, scope, signers, signatures_min: 2 } }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.spec.folder.join(name)
    }

    fn manifest(&self, version: u64) -> Manifest {
        let files = Manifest::digests(&self.spec.sources().unwrap());
        let (name, scope) = (self.spec.name.clone(), self.spec.scope.clone());
        Manifest { name, version, expires: None, scope, files }
    }

    fn sign(&self, manifest: &Manifest, by: &[&Signer]) {
        let first = sign_note(&manifest.text(), by[0]).unwrap();
        let all = by[1..].iter().fold(first, |note, signer| cosign_note(&note, signer).unwrap());
        replace_file(&self.file(NOTE_NAME), all.as_bytes()).unwrap();
    }

    fn sign_well(&self, version: u64) {
        self.sign(&self.manifest(version), &[&signer("ada"), &signer("carol-")]);
    }

    fn store(&self) -> &Path {
        self.dir.path()
    }

    fn load(&self) -> Result<holdpoint_policy::PolicySets, PoliciesFault> {
        let spec = PolicySpec { ordinary: None, guards: vec![self.spec.clone()] };
        spec.load(NOW, self.store())
    }

    #[track_caller]
    fn refused(&self, why: &str) {
        let fault = self.load().expect_err(why).to_string();
        assert!(fault.starts_with("the guard set `crown`: ") && fault.contains(why), "{fault}");
    }
}

#[test]
fn enough_signatures_over_exactly_these_files_count() {
    let place = Place::new();
    place.sign_well(1);
    let sets = place.load().unwrap();
    let guard = sets.guards().next().unwrap();
    assert_eq!(guard.record().signed_by, ["ada", "carol-"]);
    assert_eq!(guard.set().len(), 1);
    // What the ledger keeps is enough to check it again, and nothing else is.
    let (record, sources) = (guard.record(), guard.set().sources());
    assert_eq!(recorded_guard(record, sources).unwrap().digest(), guard.digest());
    let mut forged = record.clone();
    forged.signed_by.push("bobby".to_owned());
    assert!(recorded_guard(&forged, sources).is_err());
    let mut forged = record.clone();
    forged.signers.remove(0);
    assert!(recorded_guard(&forged, sources).is_err());
    let mut forged = record.clone();
    forged.note = forged.note.replace("version 1", "version 2");
    assert!(recorded_guard(&forged, sources).is_err());
    let mut forged = record.clone();
    (forged.signers, forged.signed_by, forged.signatures_min) = (vec![], vec![], 0);
    assert!(recorded_guard(&forged, sources).is_err());
    assert!(recorded_guard(record, &[]).is_err());
}

#[test]
fn too_few_signatures_do_not_count() {
    let place = Place::new();
    place.refused("it is not signed: there is no");
    let (ada, manifest) = (signer("ada"), place.manifest(1));
    place.sign(&manifest, &[&ada]);
    place.refused("1 of its signers signed it, 2 must: not yet bobby, carol-");
    place.sign(&manifest, &[&ada, &ada]);
    place.refused("1 of its signers signed it, 2 must: not yet bobby, carol-");
    // Nobody that was named, though under a name that was.
    let mallory = Signer::new("bobby", &[99; 32]).unwrap();
    place.sign(&manifest, &[&ada, &mallory]);
    place.refused("1 of its signers signed it, 2 must");
    place.sign(&manifest, &[&mallory, &signer("a-stranger")]);
    place.refused("0 of its signers signed it, 2 must: not yet ada, bobby, carol-");
}

#[test]
fn a_key_under_two_names_has_one_voice() {
    let mut place = Place::new();
    let alias = Signer::new("ada-too", &[3; 32]).unwrap();
    place.spec.signers.push(alias.verifier());
    place.sign(&place.manifest(1), &[&signer("ada"), &alias]);
    place.refused("1 of its signers signed it, 2 must");
}

#[test]
fn other_files_than_the_signed_ones_are_refused() {
    let place = Place::new();
    place.sign_well(1);
    assert!(place.load().is_ok());
    fs::write(place.file("b.cedar"), "").unwrap();
    place.refused("`b.cedar` was added");
    fs::rename(place.file("a.cedar"), place.file("b.cedar")).unwrap();
    place.refused("`b.cedar` was added, `a.cedar` is missing");
    fs::remove_file(place.file("b.cedar")).unwrap();
    place.refused("`a.cedar` is missing");
    fs::write(place.file("a.cedar"), format!("{READS} ")).unwrap();
    place.refused("`a.cedar` was changed");
    fs::write(place.file("a.cedar"), READS).unwrap();
    assert!(place.load().is_ok());
    let note = fs::read_to_string(place.file(NOTE_NAME)).unwrap();
    fs::write(place.file(NOTE_NAME), note.replace("version 1", "version 2")).unwrap();
    place.refused("the signature of `ada` does not fit the note");
    fs::write(place.file(NOTE_NAME), "junk").unwrap();
    place.refused("not a signed note");
    fs::write(place.file(NOTE_NAME), [0xff]).unwrap();
    place.refused("is not UTF-8");
    fs::write(place.file("a.cedar"), "permit (").unwrap();
    place.sign_well(2);
    place.refused("the policies are not valid: a.cedar:1:");
}

#[test]
fn a_link_out_of_the_folder_is_refused() {
    let place = Place::new();
    place.sign_well(1);
    let elsewhere = place.dir.path().join("a.cedar");
    fs::rename(place.file("a.cedar"), &elsewhere).unwrap();
    symlink(&elsewhere, place.file("a.cedar")).unwrap();
    place.refused("leads out of its folder");
    fs::remove_file(place.file("a.cedar")).unwrap();
    fs::rename(&elsewhere, place.file("real")).unwrap();
    // As the folders look that Kubernetes mounts.
    symlink("real", place.file("a.cedar")).unwrap();
    assert!(place.load().is_ok());
    let note = place.dir.path().join(NOTE_NAME);
    fs::rename(place.file(NOTE_NAME), &note).unwrap();
    symlink(&note, place.file(NOTE_NAME)).unwrap();
    place.refused("leads out of its folder");
    fs::remove_file(place.file("a.cedar")).unwrap();
    fs::create_dir(place.file("a.cedar")).unwrap();
    place.refused("is no file");
}

#[test]
fn a_signature_is_about_one_set_and_what_it_guards() {
    let place = Place::new();
    let by = [&signer("ada"), &signer("bobby")];
    let other = Manifest { name: "other".to_owned(), ..place.manifest(1) };
    place.sign(&other, &by);
    place.refused("what is signed is the set `other`");
    let scope = GuardScope { environments: ["dev".to_owned()].into(), ..Default::default() };
    place.sign(&Manifest { scope, ..place.manifest(1) }, &by);
    place.refused("what is signed guards environment `dev`, the configuration says surface `prod`");
    place.sign(&Manifest { expires: Some(NOW), ..place.manifest(1) }, &by);
    place.refused("it expired on 1970-01-01T00:16:40Z");
    place.sign(&Manifest { expires: Some(Timestamp(NOW.0 + 1)), ..place.manifest(1) }, &by);
    assert!(place.load().is_ok());
    replace_file(
        &place.file(NOTE_NAME),
        cosign_note(&sign_note("something else\n", by[0]).unwrap(), by[1]).unwrap().as_bytes(),
    )
    .unwrap();
    place.refused("what is signed is no manifest of a guard set");
}

#[test]
fn a_change_is_noticed_whatever_size_and_time_a_file_claims_to_have() {
    let place = Place::new();
    let file = place.file("a.cedar");
    let spec = PolicySpec { ordinary: None, guards: vec![place.spec.clone()] };
    let age = |file: &Path| {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    age(&file);
    let before = spec.fingerprint();
    assert_eq!(spec.fingerprint(), before);
    let text = fs::read_to_string(&file).unwrap().replace("permit", "forbid");
    fs::write(&file, text).unwrap();
    age(&file);
    assert_ne!(spec.fingerprint(), before);
}

#[test]
fn an_older_set_does_not_come_back() {
    let place = Place::new();
    place.sign_well(3);
    let old = fs::read_to_string(place.file(NOTE_NAME)).unwrap();
    let sets = place.load().unwrap();
    keep(place.store(), &sets).unwrap();
    assert!(place.load().is_ok(), "the same again is no way back");
    fs::write(place.file("a.cedar"), format!("{READS}\n")).unwrap();
    place.sign_well(3);
    place.refused("version 3 is not newer than version 3, which was in force");
    place.sign_well(4);
    keep(place.store(), &place.load().unwrap()).unwrap();
    // Whoever loaded it before something newer came does not bring it into force either.
    assert!(keep(place.store(), &sets).is_err());
    fs::write(place.file("a.cedar"), READS).unwrap();
    fs::write(place.file(NOTE_NAME), old).unwrap();
    place.refused("version 3 is not newer than version 4, which was in force");
    place.sign_well(5);
    assert!(place.load().is_ok());
    // What was in force cannot be told: then nothing comes into force.
    fs::write(place.store().join("guards/crown.signed"), "junk").unwrap();
    place.refused("what is signed is no manifest of a guard set");
}
