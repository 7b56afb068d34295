//! `cargo xtask soak`: builds the product for release, and lets it work under load and trouble for
//! a bounded time.
//!
//! Owns where a run happens and what is left of it: nothing, unless a promise was broken. What is
//! checked is in `benches/src/bin/soak/`.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long a run takes, unless said otherwise.
const SECONDS_DEFAULT: f64 = 60.0;

/// How long, how hard, and with which programs.
pub struct Plan {
    seconds: f64,
    rate: Option<String>,
    profile: String,
}

// === impl Plan ===

impl Plan {
    /// Reads `[--minutes N | --seconds N] [--rate CALLS] [--profile NAME]`.
    ///
    /// # Errors
    /// On any other word.
    pub fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut plan = Self { seconds: SECONDS_DEFAULT, rate: None, profile: "release".to_owned() };
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("`{word}` needs a value"))?;
            let number = || value.parse::<f64>().with_context(|| format!("`{value}`"));
            match word.as_str() {
                "--minutes" => plan.seconds = 60.0 * number()?,
                "--seconds" => plan.seconds = number()?,
                "--rate" => plan.rate = Some(number()?.to_string()),
                "--profile" => plan.profile = value,
                _ => bail!(
                    "usage: cargo xtask soak [--minutes N | --seconds N] [--rate CALLS] \
                     [--profile NAME]; `{word}` is unknown"
                ),
            }
        }
        Ok(plan)
    }
}

/// Builds, runs, cleans up.
///
/// # Errors
/// When something cannot be built or run, and when a promise was broken.
pub fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--profile", &plan.profile]);
    cargo.args(["-p", "holdpoint", "-p", "holdpoint-bench"]).current_dir(root);
    if !cargo.status().context("cargo")?.success() {
        bail!("the programs do not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let folder = if plan.profile == "dev" { "debug" } else { plan.profile.as_str() };
    let programs = target.join(folder);
    let scratch = target.join("soak").join(std::process::id().to_string());
    let mut soak = Command::new(programs.join("bench-soak"));
    soak.arg(&programs).arg(&scratch).arg(plan.seconds.to_string()).args(&plan.rate);
    if !soak.status().context("bench-soak")?.success() {
        bail!("the soak failed; its store and logs are in {}", scratch.display());
    }
    Ok(std::fs::remove_dir_all(scratch)?)
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn minutes_are_seconds_and_unknown_words_are_refused() {
        let parse = |words: &[&str]| Plan::parse(words.iter().map(|word| (*word).to_owned()));
        let plan = parse(&["--minutes", "1.5", "--profile", "dev"]).unwrap();
        assert_eq!((plan.seconds, plan.profile.as_str()), (90.0, "dev"));
        assert!(parse(&["--hours", "1"]).is_err());
        assert!(parse(&["--minutes", "many"]).is_err());
    }
}
