//! Signed notes with Ed25519 signatures (C2SP signed-note, c2sp.org/signed-note).
//!
//! Owns keys, their text, and the one way to sign and to open a note. Must not know what a note
//! says, and must never show a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The signature type of plain Ed25519 signatures.
const ED25519: u8 = 0x01;
/// What a signature line begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";
/// Longest note that is looked at.
const NOTE_BYTES_MAX: usize = 1 << 20;
/// Most signatures that a note may carry; the specification asks for at least 16.
const SIGNATURES_MAX: usize = 100;
const KEY_ID_BYTES: usize = 4;
/// What the text of a private key begins with.
const SECRET_PREFIX: &str = "PRIVATE+KEY+";

/// A private key with its name. Signs; is wiped from memory when dropped.
pub struct Signer {
    name: String,
    id: [u8; KEY_ID_BYTES],
    key: SigningKey,
}

/// A public key with its name. Its text is a C2SP verifier key, `name+hex(id)+base64(0x01 || key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; KEY_ID_BYTES],
    key: VerifyingKey,
}

/// Why a note, a checkpoint or a key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// A key's name that could not be told apart in a note.
    #[error("`{0}` is not a key name: it must not be empty nor hold spaces, controls or `+`")]
    BadName(String),
    /// Not a verifier key.
    #[error("`{0}` is not a verifier key; expected `name+hex+base64`")]
    BadVerifier(String),
    /// Not a private key; what was there instead is not shown.
    #[error("not a private key; expected `PRIVATE+KEY+name+hex+base64`")]
    BadSigner,
    /// Not the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// No signature of the key that was asked for.
    #[error("the note is not signed by `{0}`")]
    NotSigned(String),
    /// A signature of the key that was asked for, over another text.
    #[error("the signature of `{0}` does not fit the note")]
    BadSignature(String),
    /// A signed note whose text is no checkpoint.
    #[error("not a checkpoint: {0}")]
    NotACheckpoint(&'static str),
    /// A checkpoint of another log.
    #[error("the checkpoint is about the log `{0}`")]
    OtherLog(String),
}

// === impl Signer ===

impl Signer {
    /// The signer named `name` whose private key is `secret` (RFC 8032 seed). The caller wipes its
    /// copy.
    ///
    /// # Errors
    /// When the name is not allowed in notes.
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, NoteFault> {
        check_name(name)?;
        let key = SigningKey::from_bytes(secret);
        let id = key_id(name, &key.verifying_key());
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// The signer whose private key is `text`, as [`Self::secret_text`] gives it. The caller wipes
    /// its copy.
    ///
    /// # Errors
    /// When it is no private key. Never shows the text.
    pub fn from_secret_text(text: &str) -> Result<Self, NoteFault> {
        let fault = || NoteFault::BadSigner;
        let text = text.strip_prefix(SECRET_PREFIX).ok_or_else(fault)?;
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(fault());
        };
        let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| fault())?);
        let Some((&ED25519, secret)) = bytes.split_first() else { return Err(fault()) };
        let secret = <&[u8; 32]>::try_from(secret).map_err(|_| fault())?;
        let signer = Self::new(name, secret)?;
        let own = format!("{:08x}", u32::from_be_bytes(signer.id));
        if own == id { Ok(signer) } else { Err(fault()) }
    }

    /// The private key as text, `PRIVATE+KEY+name+hex(id)+base64(0x01 || key)`: the form of
    /// `golang.org/x/mod/sumdb/note`. Whoever has it can sign.
    pub fn secret_text(&self) -> Zeroizing<String> {
        let id = u32::from_be_bytes(self.id);
        let mut bytes = Zeroizing::new([ED25519; 33]);
        for (place, byte) in bytes.iter_mut().skip(1).zip(self.key.as_bytes()) {
            *place = *byte;
        }
        let key = Zeroizing::new(STANDARD.encode(*bytes));
        Zeroizing::new(format!("{SECRET_PREFIX}{}+{id:08x}+{}", self.name, key.as_str()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), id: self.id, key: self.key.verifying_key() }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Verifier ===

impl Verifier {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key (RFC 8032).
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.key.verify_strict(text.as_bytes(), &signature).is_ok()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id);
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(bytes))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({self})")
    }
}

impl FromStr for Verifier {
    type Err = NoteFault;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || NoteFault::BadVerifier(text.chars().take(200).collect());
        // Base64 may hold `+`, names and hex may not: only the first two signs separate.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(fault());
        };
        check_name(name)?;
        let bytes = STANDARD.decode(key).map_err(|_| fault())?;
        let key = match bytes.split_first() {
            Some((&ED25519, key)) => VerifyingKey::try_from(key).map_err(|_| fault())?,
            Some(_) | None => return Err(fault()),
        };
        let verifier = Self { name: name.to_owned(), id: key_id(name, &key), key };
        // The text must be the only one for this key: this also checks the key id.
        let same = verifier.to_string() == text && id.len() == 2 * KEY_ID_BYTES;
        if same { Ok(verifier) } else { Err(fault()) }
    }
}

/// Signs `text`, which must end in a newline.
///
/// # Errors
/// When no reader could accept the note: the text is empty, does not end in a newline, is too
/// long, or holds control characters.
pub fn sign_note(text: &str, signer: &Signer) -> Result<String, NoteFault> {
    check_text(text)?;
    let mut bytes = signer.id.to_vec();
    bytes.extend_from_slice(&signer.key.sign(text.as_bytes()).to_bytes());
    let note = format!("{text}\n{SIGNATURE_PREFIX}{} {}\n", signer.name, STANDARD.encode(bytes));
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteFault::Malformed("it is too long"));
    }
    Ok(note)
}

/// `note` with one more signature.
///
/// # Errors
/// When the note is malformed, or would be too long.
pub fn cosign_note(note: &str, signer: &Signer) -> Result<String, NoteFault> {
    let (text, lines) = split_note(note)?;
    if lines.len() >= SIGNATURES_MAX {
        return Err(NoteFault::Malformed("it has too many signatures"));
    }
    let own = sign_note(text, signer)?;
    let line = own.strip_prefix(text).and_then(|rest| rest.strip_prefix('\n')).unwrap_or_default();
    let note = format!("{note}{line}");
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteFault::Malformed("it is too long"));
    }
    Ok(note)
}

/// The text of `note`, if `verifier` signed it. Signatures of other keys are ignored.
///
/// # Errors
/// When the note is malformed, not signed by `verifier`, or any signature of `verifier` is wrong.
pub fn open_note<'a>(note: &'a str, verifier: &Verifier) -> Result<&'a str, NoteFault> {
    let (text, signers) = open_note_of_some(note, std::slice::from_ref(verifier))?;
    if signers.is_empty() { Err(NoteFault::NotSigned(verifier.name.clone())) } else { Ok(text) }
}

/// The text of `note`, and which of `verifiers` signed it, each key once. Signatures of other keys
/// are ignored.
///
/// # Errors
/// When the note is malformed, or any signature of one of `verifiers` is wrong.
pub fn open_note_of_some<'a, 'v>(
    note: &'a str,
    verifiers: &'v [Verifier],
) -> Result<(&'a str, Vec<&'v Verifier>), NoteFault> {
    let (text, lines) = split_note(note)?;
    let mut signers: Vec<&Verifier> = Vec::new();
    for verifier in verifiers {
        let mut signed = false;
        for line in &lines {
            signed |= check_signature(text, line, verifier)?;
        }
        // INVARIANT: a key has one voice, under however many names.
        let known = signers.iter().any(|one| one.public_key() == verifier.public_key());
        signers.extend(Some(verifier).filter(|_| signed && !known));
    }
    Ok((text, signers))
}

/// The text and the signature lines of `note`.
fn split_note(note: &str) -> Result<(&str, Vec<&str>), NoteFault> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteFault::Malformed("it is too long"));
    }
    // The last empty line separates: a text may hold others.
    let middle = note.rfind("\n\n").ok_or(NoteFault::Malformed("it has no signatures"))?;
    let (text, signatures) = note.split_at(middle + 1);
    check_text(text)?;
    let signatures = signatures.strip_prefix('\n').unwrap_or(signatures);
    let signatures = signatures.strip_suffix('\n');
    let signatures = signatures.ok_or(NoteFault::Malformed("it does not end in a newline"))?;
    let lines: Vec<_> = signatures.split('\n').take(SIGNATURES_MAX.saturating_add(1)).collect();
    if lines.len() > SIGNATURES_MAX {
        return Err(NoteFault::Malformed("it has too many signatures"));
    }
    lines.iter().try_for_each(|line| signature_of(line).map(drop))?;
    Ok((text, lines))
}

/// True if `line` is a good signature of `verifier`, false if it is one of another key.
fn check_signature(text: &str, line: &str, verifier: &Verifier) -> Result<bool, NoteFault> {
    let (name, id, signature) = signature_of(line)?;
    if name != verifier.name || id != verifier.id {
        return Ok(false);
    }
    if verifier.verify(text, &signature) {
        return Ok(true);
    }
    Err(NoteFault::BadSignature(verifier.name.clone()))
}

/// The name, the key's id and the signature in a signature line.
fn signature_of(line: &str) -> Result<(&str, [u8; KEY_ID_BYTES], Vec<u8>), NoteFault> {
    let fault = || NoteFault::Malformed("a signature line is not `\u{2014} name base64`");
    let line = line.strip_prefix(SIGNATURE_PREFIX).ok_or_else(fault)?;
    let (name, signature) = line.split_once(' ').ok_or_else(fault)?;
    check_name(name).map_err(|_| fault())?;
    let bytes = STANDARD.decode(signature).map_err(|_| fault())?;
    let (id, signature) = bytes.split_first_chunk::<KEY_ID_BYTES>().ok_or_else(fault)?;
    if signature.is_empty() {
        return Err(fault());
    }
    Ok((name, *id, signature.to_vec()))
}

fn check_text(text: &str) -> Result<(), NoteFault> {
    if text.len() < 2 || !text.ends_with('\n') {
        return Err(NoteFault::Malformed("its text is empty or does not end in a newline"));
    }
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteFault::Malformed("it holds control characters"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), NoteFault> {
    let bad = |sign: char| sign.is_whitespace() || sign == '+' || sign < ' ';
    if name.is_empty() || name.contains(bad) {
        return Err(NoteFault::BadName(name.chars().take(200).collect()));
    }
    Ok(())
}

fn key_id(name: &str, key: &VerifyingKey) -> [u8; KEY_ID_BYTES] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]);
    let hash: [u8; 32] = hash.chain_update(key.as_bytes()).finalize().into();
    let [one, two, three, four, ..] = hash;
    [one, two, three, four]
}

#[cfg(test)]
mod tests {
    use super::{
        NoteFault, Signer, Verifier, cosign_note, open_note, open_note_of_some, sign_note,
    };
    use proptest::prelude::*;

    /// The example of c2sp.org/signed-note.
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VY\
        RlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn signer() -> Signer {
        Signer::new("holdpoint.test/log", &[7; 32]).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_opens() {
        let verifier: Verifier = KEY.parse().unwrap();
        assert_eq!(verifier.to_string(), KEY);
        assert_eq!(open_note(NOTE, &verifier), Ok("This is an example message.\n"));
    }

    #[test]
    fn the_example_of_the_go_package_signs_to_the_same_bytes() {
        // golang.org/x/mod/sumdb/note: the private key of its `Sign` example.
        let secret = "gQoUAtUUbI2E8kQzMPVAgOv5juF9nHT2JS/F1ccoMXM";
        let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
        let secret = base64::Engine::decode(&engine, secret).unwrap();
        let signer = Signer::new("PeterNeumann", &secret.try_into().unwrap()).unwrap();
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(signer.verifier().to_string(), key);
        let text = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n";
        let signature = "\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuG\
            UgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert_eq!(sign_note(text, &signer).unwrap(), format!("{text}{signature}"));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let upper = KEY.replace("530d903a", "530D903A");
        let other = KEY.replace("530d903a", "530d903b");
        let algorithm = "x+00000000+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        for text in ["", "a", "a+b", "a+b+c", "+530d903a+AA==", algorithm, &upper, &other] {
            assert!(text.parse::<Verifier>().is_err(), "{text}");
        }
        for name in ["", "a b", "a+b", "a\n", "a\u{a0}b", "a\0"] {
            assert!(matches!(Signer::new(name, &[1; 32]), Err(NoteFault::BadName(_))), "{name}");
        }
    }

    #[test]
    fn other_signatures_are_ignored_and_wrong_ones_are_not() {
        let verifier: Verifier = KEY.parse().unwrap();
        let other = sign_note("This is an example message.\n", &signer()).unwrap();
        let line = other.lines().last().unwrap();
        let both = format!("{NOTE}{line}\n");
        assert!(open_note(&both, &verifier).is_ok());
        assert!(open_note(&both, &signer().verifier()).is_ok());
        assert!(matches!(open_note(&other, &verifier), Err(NoteFault::NotSigned(_))));
        let wrong = sign_note("Another message.\n", &signer()).unwrap();
        let wrong = wrong.lines().last().unwrap();
        let bad = format!("{both}{wrong}\n");
        let result = open_note(&bad, &signer().verifier());
        assert!(matches!(result, Err(NoteFault::BadSignature(_))));
    }

    #[test]
    fn a_note_is_signed_by_some_and_each_key_has_one_voice() {
        let named = |name: &str, key: u8| Signer::new(name, &[key; 32]).unwrap();
        let (ada, bob, alias) = (named("ada", 1), named("bob", 2), named("ada-too", 1));
        let note = sign_note("text\n", &ada).unwrap();
        let note = cosign_note(&note, &bob).unwrap();
        let note = cosign_note(&note, &alias).unwrap();
        let note = cosign_note(&note, &signer()).unwrap();
        let all = [&ada, &bob, &alias].map(Signer::verifier);
        let (text, signers) = open_note_of_some(&note, &all).unwrap();
        let names: Vec<_> = signers.iter().map(|one| one.name()).collect();
        assert_eq!((text, names), ("text\n", vec!["ada", "bob"]));
        // The same line twice is one voice, too.
        let line = note.lines().nth(2).unwrap();
        let twice = open_note_of_some(&note, &all[..1]).unwrap().1.len();
        assert_eq!(
            open_note_of_some(&format!("{note}{line}\n"), &all[..1]).unwrap().1.len(),
            twice
        );
        // A good signature does not outweigh a wrong one.
        let wrong = sign_note("other\n", &bob).unwrap();
        let wrong = format!("{note}{}\n", wrong.lines().last().unwrap());
        assert!(open_note_of_some(&wrong, &all).is_err());
        assert!(open_note_of_some(&format!("{note}junk\n"), &[]).is_err());
    }

    #[test]
    fn a_private_key_survives_its_text() {
        // golang.org/x/mod/sumdb/note: the private key of its `Sign` example.
        let text = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let signer = Signer::from_secret_text(text).unwrap();
        assert_eq!(signer.name(), "PeterNeumann");
        assert_eq!(*signer.secret_text(), text);
        let cut = text.trim_end_matches('z');
        let other = text.replace("c74f20a3", "c74f20a4");
        for text in ["", "PRIVATE+KEY+", cut, &other, text.trim_start_matches("PRIVATE+")] {
            let fault = Signer::from_secret_text(text).unwrap_err();
            assert!(!fault.to_string().contains("AYEKFA"), "{fault}");
        }
    }

    #[test]
    fn malformed_notes_are_refused() {
        let verifier: Verifier = KEY.parse().unwrap();
        let line = NOTE.lines().last().unwrap();
        let many = format!("text\n\n{}", format!("{line}\n").repeat(101));
        let notes = [
            String::new(),
            "\n\n".to_owned(),
            "text\n\n".to_owned(),
            NOTE.trim_end().to_owned(),
            NOTE.replace('\u{2014}', "-"),
            NOTE.replace("message.\n", "message.\r\n"),
            NOTE.replace("aQM=", "aQM"),
            NOTE.replace("aQM=\n", "aQN=\n"),
            format!("{NOTE}\n"),
            format!("{NOTE}trailing\n"),
            "text\n\n\u{2014} a b\n".to_owned(),
            format!("\n\n{line}\n"),
            many,
        ];
        for note in notes {
            assert!(open_note(&note, &verifier).is_err(), "{note:?}");
        }
        for text in ["", "\n", "no newline", "tab\there\n"] {
            assert!(sign_note(text, &signer()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_note_has_a_size() {
        let text = |bytes: usize| format!("{}\n", "x".repeat(bytes));
        let note = sign_note(&text(1000), &signer()).unwrap();
        assert!(open_note(&note, &signer().verifier()).is_ok());
        let too_long = Err(NoteFault::Malformed("it is too long"));
        assert_eq!(sign_note(&text(1 << 20), &signer()), too_long);
        let long = note.replace('x', &"x".repeat(1100));
        let too_long = Err(NoteFault::Malformed("it is too long"));
        assert_eq!(open_note(&long, &signer().verifier()), too_long);
    }

    #[test]
    fn secrets_stay_hidden() {
        assert_eq!(format!("{:?}", signer()), r#"Signer { name: "holdpoint.test/log", .. }"#);
    }

    proptest! {
        #[test]
        fn what_is_signed_opens_and_what_is_changed_does_not(
            text in "[ -~]{1,40}(\n{1,2}[ -~]{1,9}){0,3}\n",
            at in any::<prop::sample::Index>(),
        ) {
            let note = sign_note(&text, &signer()).unwrap();
            let verifier = signer().verifier();
            prop_assert_eq!(open_note(&note, &verifier), Ok(text.as_str()));
            let mut bytes = note.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 0x02;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(open_note(&changed, &verifier).is_err());
            }
        }

        #[test]
        fn any_text_gives_a_result(note in "(\n|\u{2014} |[a-zA+/= ]|\\PC){0,60}") {
            let _ = open_note(&note, &signer().verifier());
            let _ = note.parse::<Verifier>();
        }
    }
}
