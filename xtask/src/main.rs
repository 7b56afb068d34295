//! Repository chores that need no shell: `cargo xtask tidy` checks the house style, `cargo xtask
//! bench` measures, `cargo xtask fuzz` looks for inputs that break something, `cargo xtask soak`
//! watches a long run.
//!
//! Owns the command line of the chores. Must never change a file: a chore says what to do.

use anyhow::bail;
use std::path::{Path, PathBuf};

mod bench;
mod fuzz;
mod soak;
mod tidy;

const USAGE: &str = "usage: cargo xtask tidy | bench [--quick] [--built] [--only PART] \
    | fuzz [--seconds N] [--target NAME] [--input FILE] \
    | soak [--minutes N | --seconds N] [--rate CALLS] [--profile NAME]";

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("tidy") if words.next().is_none() => run_tidy(),
        Some("bench") => bench::run(&root(), &bench::Plan::parse(words)?),
        Some("fuzz") => fuzz::run(&root(), &fuzz::Plan::parse(words)?),
        Some("soak") => soak::run(&root(), &soak::Plan::parse(words)?),
        _ => bail!("{USAGE}"),
    }
}

fn run_tidy() -> anyhow::Result<()> {
    let report = tidy::check(&root())?;
    println!("{report}");
    match report.broken.len() {
        0 => Ok(()),
        count => bail!("{count} house rules broken"),
    }
}

/// The workspace: the folder above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_follows_the_house_style() {
        let report = crate::tidy::check(&crate::root()).unwrap();
        assert!(report.broken.is_empty(), "{report}");
    }
}
