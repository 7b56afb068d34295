//! `holdpoint policy`: keys for signers of guard sets, what a set's digest is, and signatures.
//!
//! A private key is only ever read from a file that nobody else may read. Must never show one, nor
//! sign policies that would not load.

use super::look::json_lines;
use super::{Exit, Format, Globals, WrongUsage, answer, operator};
use crate::cli::print_report;
use crate::config::{Config, guard_report};
use anyhow::{Context as _, bail};
use holdpoint_ledger::{Signer, cosign_note, open_note_of_some, sign_note};
use holdpoint_policy::{Guard, Manifest, PolicySet};
use holdpoint_server::policies::{GuardSpec, NOTE_NAME, SignedFault, in_force, replace_file};
use holdpoint_types::{GuardRecord, Timestamp};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The mode bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// Longest private key with its name, in bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// Make keys for signers, show digests of policy sets, and sign guard sets.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a signer's key: the private one into a file, the public one to standard output.
    Keygen {
        /// The signer's name, as notes show it.
        name: String,
        /// The file for the private key; must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the digest of every set, and what keeps a guard set from counting.
    Digest {
        /// Only this guard set, with the text that its signers sign.
        set: Option<String>,
    },
    /// Sign the files of a guard set as they are now, or add a signature to those that are there.
    Sign(SignArgs),
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// The guard set.
    set: String,
    /// The file with the signer's private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// When the set stops to permit anything: `90 days`, or RFC 3339 [default: never].
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expires: Option<Timestamp>,
    /// Sign as this version [default: what others signed, else one more than before].
    #[arg(long, value_name = "NUMBER")]
    as_version: Option<u64>,
}

/// What is to be signed.
struct Draft {
    manifest: Manifest,
    /// The note that says just that, with the signatures that it has.
    note: Option<String>,
}

/// Runs `holdpoint policy`.
///
/// # Errors
/// When the configuration, a set or a key cannot be read, or a file cannot be written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Keygen { name, out } => keygen((name, out), globals.format),
        Command::Digest { set } => digest(set.as_deref(), globals),
        Command::Sign(args) => sign(args, globals),
    }
}

fn keygen((name, out): (&str, &Path), format: Format) -> anyhow::Result<Exit> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).context("the system gives no randomness")?;
    let signer = Signer::new(name, &secret).map_err(|fault| WrongUsage(fault.to_string()))?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = file.with_context(|| format!("cannot make `{}`", out.display()))?;
    let text = Zeroizing::new(format!("{}\n", signer.secret_text().as_str()));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write `{}`", out.display()))?;
    operator::note(&format!(
        "the private key is in `{}`: keep it where no agent and no gateway can read it",
        out.display()
    ));
    let public = signer.verifier().to_string();
    answer(&match format {
        Format::Json => json_lines(&json!({ "name": name, "public": public })),
        Format::Text => format!("{public}\n"),
    })?;
    Ok(Exit::Ok)
}

fn digest(set: Option<&str>, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    if let Some(name) = set {
        return digest_of_guard(&config, name, globals.format);
    }
    let sources = crate::config::policy_sources(&config)?;
    let ordinary = PolicySet::load(&sources);
    let ordinary = ordinary.map_err(|_| WrongUsage("see `holdpoint check`".to_owned()))?;
    let guards = config.policies.guards.iter();
    let guards: Vec<_> = guards.map(|spec| (spec, spec.load(operator::now()))).collect();
    let all = guards.iter().all(|(_, loaded)| loaded.is_ok());
    answer(&match globals.format {
        Format::Json => json_lines(&json!({
            "ordinary": ordinary.digest(),
            "guards": guards.iter().map(|(spec, loaded)| told_json(spec, loaded))
                .collect::<Vec<_>>(),
        })),
        Format::Text => {
            let lines = guards.iter().map(|(spec, loaded)| told(spec, loaded));
            format!("ordinary: {}\n{}", ordinary.digest(), lines.collect::<String>())
        }
    })?;
    Ok(if all { Exit::Ok } else { Exit::Usage })
}

fn told(spec: &GuardSpec, loaded: &Result<Guard, SignedFault>) -> String {
    match loaded {
        Ok(guard) => format!("{}: {}, {}\n", spec.name, guard.digest(), signed_line(guard)),
        Err(fault) => format!("{}: does not count: {fault}\n", spec.name),
    }
}

fn told_json(spec: &GuardSpec, loaded: &Result<Guard, SignedFault>) -> Value {
    match loaded {
        Ok(guard) => json!({
            "name": spec.name,
            "digest": guard.digest(),
            "version": guard.manifest().version,
            "signed_by": guard.record().signed_by,
        }),
        Err(fault) => json!({ "name": spec.name, "fault": fault.to_string() }),
    }
}

/// Which version a set is, and who signed it.
fn signed_line(guard: &Guard) -> String {
    let signed_by = guard.record().signed_by.join(", ");
    format!("version {}, signed by {signed_by}", guard.manifest().version)
}

fn digest_of_guard(config: &Config, name: &str, format: Format) -> anyhow::Result<Exit> {
    let spec = spec(config, name)?;
    let draft = Draft::of(spec, config, None, None)?;
    let note = draft.note.unwrap_or_default();
    let guard = load(spec, &draft.manifest, &note)?;
    print_signed(spec, &guard, format)?;
    Ok(Exit::Ok)
}

fn sign(args: &SignArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let spec = spec(&config, &args.set)?;
    let signer = read_key(&args.key)?;
    if !spec.signers.contains(&signer.verifier()) {
        let (name, set) = (signer.name(), &spec.name);
        let text = format!("the key of `{name}` is not among the signers of `{set}`");
        return Err(WrongUsage(text).into());
    }
    let draft = Draft::of(spec, &config, args.expires, args.as_version)?;
    let note = match draft.note {
        None => sign_note(&draft.manifest.text(), &signer)?,
        Some(note) if spec.signed_by(&note)?.contains(&&signer.verifier()) => note,
        Some(note) => cosign_note(&note, &signer)?,
    };
    let guard = load(spec, &draft.manifest, &note)?;
    let path = spec.folder.join(NOTE_NAME);
    replace_file(&path, note.as_bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    print_signed(spec, &guard, globals.format)?;
    Ok(Exit::Ok)
}

// === impl Draft ===

impl Draft {
    /// What is there now: as others signed it, if it is just that, else the next version.
    fn of(
        spec: &GuardSpec,
        config: &Config,
        expires: Option<Timestamp>,
        version: Option<u64>,
    ) -> anyhow::Result<Self> {
        let files = Manifest::digests(&spec.sources()?);
        let note = spec.note()?;
        let opened = note.as_deref().map(|note| open_note_of_some(note, &spec.signers));
        let before = match opened {
            Some(Ok((text, _))) => Manifest::parse(text).ok(),
            Some(Err(fault)) => {
                operator::note(&format!("the signatures that are there are dropped: {fault}"));
                None
            }
            None => None,
        };
        let (name, scope) = (spec.name.clone(), spec.scope.clone());
        let known = in_force(&config.store, &spec.name)?;
        let in_force_now = known.as_ref().map_or(0, |known| known.version);
        if let Some(before) = &before {
            let current = known
                .as_ref()
                .is_none_or(|known| before == known || before.version > known.version);
            let wanted = current
                && expires.is_none_or(|at| before.expires == Some(at))
                && version.is_none_or(|number| before.version == number);
            let same = (&before.files, &before.scope, &before.name) == (&files, &scope, &name);
            if current && same && !wanted && version.is_none() && before.version > in_force_now {
                bail!(
                    "version {} of `{name}` is being signed with another expiry: leave out \
                     `--expires` to add a signature, or begin anew with `--as-version`",
                    before.version
                );
            }
            if wanted && (&before.files, &before.scope, &before.name) == (&files, &scope, &name) {
                return Ok(Self { manifest: before.clone(), note });
            }
        }
        let known = known.iter().chain(&before).map(|one| one.version).max().unwrap_or(0);
        let version = version.unwrap_or(known.saturating_add(1));
        Ok(Self { manifest: Manifest { name, version, expires, scope, files }, note: None })
    }
}

/// The set as it would load with this note, however many signed it.
fn load(spec: &GuardSpec, manifest: &Manifest, note: &str) -> anyhow::Result<Guard> {
    let signed_by = match note.is_empty() {
        true => Vec::new(),
        false => spec.signed_by(note)?.iter().map(|one| one.name().to_owned()).collect(),
    };
    let record = GuardRecord {
        note: note.to_owned(),
        signers: spec.signers.iter().map(ToString::to_string).collect(),
        signatures_min: u64::try_from(spec.signatures_min)?,
        signed_by,
    };
    Guard::load(&manifest.text(), &spec.sources()?, record).map_err(|fault| {
        print_report(&guard_report(spec, &SignedFault::Set(fault)));
        WrongUsage(format!("the guard set `{}` would not load", spec.name)).into()
    })
}

fn print_signed(spec: &GuardSpec, guard: &Guard, format: Format) -> anyhow::Result<()> {
    let signed_by = &guard.record().signed_by;
    let lacking = spec.signers.iter().map(|one| one.name().to_owned());
    let lacking: Vec<_> = lacking.filter(|name| !signed_by.contains(name)).collect();
    let enough = signed_by.len() >= spec.signatures_min;
    let (text, need) = (guard.manifest().text(), spec.signatures_min);
    let who = if signed_by.is_empty() { "nobody".to_owned() } else { signed_by.join(", ") };
    let still = match enough {
        true => "enough".to_owned(),
        false => format!("{need} must sign, not yet {}", lacking.join(", ")),
    };
    answer(&match format {
        Format::Json => json_lines(&json!({
            "set": spec.name,
            "version": guard.manifest().version,
            "digest": guard.digest(),
            "signed_by": signed_by,
            "signatures_min": need,
            "enough": enough,
            "text": text,
        })),
        Format::Text => {
            format!("{text}\ndigest     {}\nsigned by  {who}: {still}\n", guard.digest())
        }
    })
}

fn spec<'a>(config: &'a Config, name: &str) -> Result<&'a GuardSpec, WrongUsage> {
    let guards = &config.policies.guards;
    guards.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let known: Vec<_> = guards.iter().map(|spec| format!("`{}`", spec.name)).collect();
        let known = match known.is_empty() {
            true => "the configuration declares none".to_owned(),
            false => format!("there is {}", known.join(", ")),
        };
        WrongUsage(format!("no guard set is called `{name}`: {known}"))
    })
}

/// Reads a private key from a file that nobody else may read.
fn read_key(path: &Path) -> anyhow::Result<Signer> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read `{name}`"))?;
    let metadata = file.metadata().with_context(|| format!("cannot read `{name}`"))?;
    if metadata.mode() & OTHERS != 0 {
        bail!("others may read `{name}`; set its mode to 0600, and think of a new key");
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read `{name}`"))?;
    Signer::from_secret_text(text.trim_end()).with_context(|| format!("`{name}` is no key"))
}

/// A point in time that is still to come.
fn parse_expiry(text: &str) -> Result<Timestamp, String> {
    let now = jiff::ZonedDateTime::now();
    let text = text.trim();
    let span = text.parse::<jiff::Span>().ok();
    let later = span.filter(|span| span.is_positive()).and_then(|span| now.checked_add(span).ok());
    let at = match later {
        Some(later) => later.timestamp().as_millisecond(),
        None => text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond),
    };
    if at > now.timestamp().as_millisecond() {
        return Ok(Timestamp(at));
    }
    Err("use how long from now (`90 days`) or a time to come (`2027-07-18T09:00:00Z`)".to_owned())
}
