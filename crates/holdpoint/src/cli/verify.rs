//! `holdpoint verify`: checks a store offline, with nothing but the public key.
//! Must never open the store for writing, nor call something verified that it could not read.

use super::look::{Look, Tone, count, escaped, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, WrongUsage, answer};
use crate::config::read_text;
use anyhow::Context as _;
use holdpoint_ledger::{Verified, Verifier};
use holdpoint_server::store::{Store, StoreFault, VerifyFault};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The public key that lies beside the log.
const KEY_FILE: &str = "ledger.pub";

/// Verify every record, the tree and every signed checkpoint. Needs no running server.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The public key, or a file that holds it [default: the one beside the log].
    #[arg(long, value_name = "FILE|TEXT")]
    key: Option<String>,
    /// An earlier checkpoint that was kept elsewhere, which the log must continue.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Runs `holdpoint verify`: exit 5 if the log is not what was written and signed.
///
/// # Errors
/// When the key or the store cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let dir = args.store.dir(globals)?;
    let key = key(args.key.as_deref(), &dir);
    let key = key.map_err(|fault| WrongUsage(format!("{fault:#}")))?;
    let against = args.against.as_deref().map(read_text).transpose()?;
    let verdict = Store::verify(&dir, &key, against.as_deref());
    let verdict = match verdict {
        // Damage is what is looked for; anything else means that nothing could be looked at.
        Err(VerifyFault::Store(fault)) if !matches!(fault, StoreFault::Corrupt { .. }) => {
            return Err(fault.into());
        }
        verdict => verdict,
    };
    answer(&match globals.format {
        Format::Json => json_lines(&to_json(&verdict)),
        Format::Text => render(&verdict, &key, &Look::of_terminal()),
    })?;
    if args.key.is_none() {
        operator::note(
            "the key lies beside the log: whoever could change one could change both. Keep the \
             key elsewhere and give it with --key",
        );
    }
    Ok(if verdict.is_ok() { Exit::Ok } else { Exit::Unverified })
}

fn key(given: Option<&str>, dir: &Path) -> anyhow::Result<Verifier> {
    let beside = dir.join(KEY_FILE);
    let file = match given {
        None => Some(beside.as_path()),
        Some(given) => Some(Path::new(given)).filter(|file| file.is_file()),
    };
    let text = match (file, given) {
        (Some(file), _) => read_text(file)?,
        (None, given) => given.unwrap_or_default().to_owned(),
    };
    text.trim().parse().with_context(|| match file {
        Some(file) => format!("no public key in `{}`", file.display()),
        None => "neither a file nor a public key".to_owned(),
    })
}

fn to_json(verdict: &Result<Verified, VerifyFault>) -> Value {
    match verdict {
        Ok(verified) => json!({
            "verified": true,
            "records": verified.records,
            "root": verified.root,
            "checkpoints": verified.checkpoints,
            "fault": null,
        }),
        Err(fault) => json!({ "verified": false, "fault": fault.to_string() }),
    }
}

fn render(verdict: &Result<Verified, VerifyFault>, key: &Verifier, look: &Look) -> String {
    match verdict {
        Ok(verified) => {
            let title = look.paint(Tone::Good, "verified");
            let records = count(verified.records, "record");
            let (root, checkpoints) = (verified.root, verified.checkpoints);
            format!(
                "{title}: {records} as written and signed\n  root         {root}\n  \
                 checkpoints  {checkpoints}\n  key          {key}\n"
            )
        }
        Err(fault) => {
            let title = look.paint(Tone::Bad, "NOT VERIFIED");
            format!("{title}: {}\n", escaped(&fault.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{key, render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_ledger::{LogFault, Signer, Verified};
    use holdpoint_types::Digest;

    #[test]
    fn a_verdict_says_what_and_where() {
        let key = Signer::new("log", &[7; 32]).unwrap().verifier();
        let good = Ok(Verified { records: 3, root: Digest::of(b""), checkpoints: 2 });
        let bad = Err(LogFault::Altered { seq: 2 }.into());
        let shown = [&good, &bad].map(|verdict| render(verdict, &key, &look()));
        expect![[r#"
            verified: 3 records as written and signed
              root         sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
              checkpoints  2
              key          log+d0ef8fb5+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs
            NOT VERIFIED: record 2 was altered: its bytes do not fit its hash
        "#]]
        .assert_eq(&shown.concat());
        let json = [&good, &bad].map(|verdict| to_json(verdict).to_string());
        expect![[r#"
            {"verified":true,"records":3,"root":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","checkpoints":2,"fault":null}
            {"verified":false,"fault":"record 2 was altered: its bytes do not fit its hash"}"#]].assert_eq(&json.join("\n"));
    }

    #[test]
    fn a_key_is_a_text_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let found = Signer::new("log", &[7; 32]).unwrap().verifier();
        let text = found.to_string();
        assert_eq!(key(Some(&text), folder.path()).unwrap(), found);
        let file = folder.path().join("ledger.pub");
        std::fs::write(&file, format!("{text}\n")).unwrap();
        assert_eq!(key(None, folder.path()).unwrap(), found);
        assert_eq!(key(file.to_str(), std::path::Path::new("/")).unwrap(), found);
        for bad in ["", "log+0+AAAA", "/no/such/file"] {
            assert!(key(Some(bad), folder.path()).is_err(), "{bad}");
        }
    }
}
