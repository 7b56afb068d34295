//! `holdpoint docs`: writes the generated documentation, or checks that it is current.
//! Must not hold documentation itself.

use super::{Exit, Globals, answer};
use crate::config::{config_reference, config_schema, errors_reference};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// Write or check the generated documentation.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the files into this folder.
    #[arg(long, value_name = "DIR", required_unless_present = "check", conflicts_with = "check")]
    write: Option<PathBuf>,
    /// Check the files in this folder.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
}

/// Runs `holdpoint docs`.
///
/// # Errors
/// When a file cannot be written.
pub fn run(args: &Args, _: &Globals) -> anyhow::Result<Exit> {
    if let Some(folder) = &args.write {
        return write(folder);
    }
    let stale = args.check.as_deref().map(stale).unwrap_or_default();
    for file in &stale {
        answer(&format!(
            "{}: stale; refresh with `cargo run -- docs --write docs`\n",
            file.display()
        ))?;
    }
    Ok(if stale.is_empty() { Exit::Ok } else { Exit::Fault })
}

fn files() -> [(&'static str, String); 3] {
    [
        ("configuration.md", config_reference()),
        ("errors.md", errors_reference()),
        ("holdpoint.schema.json", config_schema()),
    ]
}

fn write(folder: &Path) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    for (name, text) in files() {
        let file = folder.join(name);
        std::fs::write(&file, text)
            .with_context(|| format!("cannot write `{}`", file.display()))?;
        answer(&format!("{}\n", file.display()))?;
    }
    Ok(Exit::Ok)
}

/// The files that are not what they should be.
fn stale(folder: &Path) -> Vec<PathBuf> {
    let each = files().into_iter().filter_map(|(name, text)| {
        let file = folder.join(name);
        let current = std::fs::read_to_string(&file).is_ok_and(|found| found == text);
        (!current).then_some(file)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::stale;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_documentation_is_current() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let stale = stale(&folder);
        let none: Vec<PathBuf> = Vec::new();
        assert_eq!(stale, none, "refresh with `cargo run -- docs --write docs`");
    }
}
