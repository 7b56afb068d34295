//! `cargo xtask fuzz`: builds the fuzz targets with the stable toolchain and runs each for a
//! bounded time.
//!
//! Owns how libFuzzer is driven: seeds and dictionaries come from `fuzz/`, what it finds out stays
//! under `target/fuzz`. Must never pass when a target found something or did not run.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What makes the compiler count which edges ran, as `cargo fuzz` does, without a sanitizer: the
/// code has no `unsafe`, so there is nothing that one would find.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing";
/// How long each target runs, unless said otherwise.
const SECONDS_DEFAULT: u64 = 20;
/// Longest input, in bytes; longest run of one, in seconds; most memory, in MiB.
const BOUNDS: [&str; 3] = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"];

/// What is run, and for how long.
pub struct Plan {
    seconds: u64,
    seed: u32,
    target: Option<String>,
    input: Option<PathBuf>,
}

/// Where everything is.
struct Places {
    fuzz: PathBuf,
    target: PathBuf,
    programs: PathBuf,
}

/// What one target did.
struct Ran {
    target: String,
    executions: u64,
    coverage: u64,
    features: u64,
    corpus: u64,
    find: Option<String>,
}

// === impl Plan ===

impl Plan {
    /// Reads `[--seconds N] [--seed N] [--target NAME] [--input FILE]`.
    ///
    /// # Errors
    /// On any other word.
    pub fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (seconds, seed) = (SECONDS_DEFAULT, 0);
        let mut plan = Self { seconds, seed, target: None, input: None };
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("`{word}` needs a value"))?;
            match word.as_str() {
                "--seconds" => plan.seconds = value.parse().context("--seconds needs a number")?,
                // Of libFuzzer: 0 is another one each time.
                "--seed" => plan.seed = value.parse().context("--seed needs a number")?,
                "--target" => plan.target = Some(value),
                "--input" => plan.input = Some(value.into()),
                _ => bail!(
                    "usage: cargo xtask fuzz [--seconds N] [--seed N] [--target NAME] \
                     [--input FILE]; `{word}` is unknown"
                ),
            }
        }
        if plan.input.is_some() && plan.target.is_none() {
            bail!("--input needs the --target that reads it");
        }
        Ok(plan)
    }

    /// The targets to run.
    fn targets(&self, places: &Places) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(places.fuzz.join("fuzz_targets"))? {
            let path = entry?.path();
            all.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        all.sort();
        match &self.target {
            None => Ok(all),
            Some(target) if all.contains(target) => Ok(vec![target.clone()]),
            Some(target) => bail!("a target is one of {}, not `{target}`", all.join(", ")),
        }
    }
}

// === impl Ran ===

impl Ran {
    /// Reads what libFuzzer printed.
    fn read(target: &str, printed: &str) -> anyhow::Result<Self> {
        let stat = printed.lines().find_map(|line| {
            line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
        });
        let word = |name: &str| {
            let line = printed.lines().rev().find(|line| line.contains(name));
            let rest = line.and_then(|line| line.split(name).nth(1));
            let digits = rest.and_then(|rest| rest.split([' ', '/']).find(|word| !word.is_empty()));
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            target: target.to_owned(),
            executions: stat.with_context(|| format!("`{target}` printed no statistics"))?,
            coverage: word(" cov: "),
            features: word(" ft: "),
            corpus: word(" corp: "),
            find: None,
        })
    }
}

/// Builds and runs.
///
/// # Errors
/// When something cannot be built or run, and when a target found something.
pub fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    let host = host()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let target = target.join("fuzz");
    let programs = target.join(&host).join("release");
    let places = Places { fuzz: root.join("fuzz"), target, programs };
    let targets = plan.targets(&places)?;
    build(&places, &host)?;
    if let (Some(input), Some(target)) = (&plan.input, &plan.target) {
        return again(&places, target, input);
    }
    println!(
        "{:<18} {:>12} {:>9} {:>9} {:>7}  finds",
        "target", "executions", "edges", "features", "corpus"
    );
    let mut finds = 0;
    for target in targets {
        let ran = fuzz(&places, &target, plan)?;
        let Ran { target, executions, coverage, features, corpus, find } = ran;
        let found = usize::from(find.is_some());
        println!("{target:<18} {executions:>12} {coverage:>9} {features:>9} {corpus:>7}  {found}");
        if let Some(find) = find {
            println!("{find}");
        }
        finds += found;
    }
    match finds {
        0 => Ok(()),
        finds => bail!("{finds} targets found something"),
    }
}

fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let said = Command::new(rustc).arg("-vV").output().context("rustc")?.stdout;
    let said = String::from_utf8(said)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn build(places: &Places, host: &str) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--release", "--bins", "--target", host]);
    // Naming a target keeps build scripts and macros free of instrumentation.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", INSTRUMENTATION);
    cargo.env("CARGO_TARGET_DIR", &places.target).current_dir(&places.fuzz);
    match cargo.status().context("cargo")?.success() {
        true => Ok(()),
        false => bail!("the fuzz targets do not build"),
    }
}

/// Runs one target, from its seeds and what earlier runs learnt.
fn fuzz(places: &Places, target: &str, plan: &Plan) -> anyhow::Result<Ran> {
    let corpus = places.target.join("corpus").join(target);
    let finds = places.target.join("finds").join(target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&finds)?;
    let dictionary = places.fuzz.join("dictionaries").join(format!("{target}.dict"));
    let mut program = Command::new(places.programs.join(target));
    program
        .arg(format!("-max_total_time={}", plan.seconds))
        .arg(format!("-seed={}", plan.seed))
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/", finds.display()))
        .arg("-print_final_stats=1")
        .args(BOUNDS)
        .arg(corpus)
        .arg(places.fuzz.join("seeds").join(target));
    let output = program.stdin(Stdio::null()).output().with_context(|| target.to_owned())?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let ran = Ran::read(target, &printed);
    if output.status.success() {
        return ran;
    }
    let told: Vec<&str> = printed.lines().filter(|line| tells(line)).collect();
    let find = Some(format!(
        "{}\nrun it again: cargo xtask fuzz --target {target} --input FILE",
        told.join("\n")
    ));
    let target = target.to_owned();
    let nothing = Ran { target, executions: 0, coverage: 0, features: 0, corpus: 0, find: None };
    Ok(Ran { find, ..ran.unwrap_or(nothing) })
}

/// Runs one input, showing everything.
fn again(places: &Places, target: &str, input: &Path) -> anyhow::Result<()> {
    let status = Command::new(places.programs.join(target)).arg(input).status()?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{}` makes `{target}` fail", input.display()),
    }
}

/// True for the lines of libFuzzer that say what was found.
fn tells(line: &str) -> bool {
    let told = [
        "panicked at",
        "assertion",
        "left:",
        "right:",
        "ERROR:",
        "SUMMARY:",
        "Test unit",
        // The input itself: where CI found it, nothing else of it is left.
        "Base64:",
    ];
    told.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::{Plan, Ran};

    #[test]
    fn what_libfuzzer_prints_is_read() {
        let printed = "#8\tINITED cov: 12 ft: 13 corp: 4/1Kb exec/s: 0 rss: 30Mb\n\
            #99\tREDUCE cov: 45 ft: 67 corp: 8/2Kb lim: 4 exec/s: 9 rss: 31Mb L: 1/2 MS: 1 X-\n\
            Done 99 runs in 1 second(s)\nstat::number_of_executed_units: 99\n";
        let ran = Ran::read("ledger", printed).unwrap();
        assert_eq!((ran.executions, ran.coverage, ran.features, ran.corpus), (99, 45, 67, 8));
        assert!(Ran::read("ledger", "cannot start").is_err());
    }

    #[test]
    fn an_input_needs_its_target() {
        let parse = |words: &[&str]| Plan::parse(words.iter().map(|word| (*word).to_owned()));
        assert!(parse(&["--input", "x"]).is_err());
        assert!(parse(&["--seconds"]).is_err());
        assert_eq!(parse(&["--seconds", "5", "--target", "policy"]).unwrap().seconds, 5);
    }
}
