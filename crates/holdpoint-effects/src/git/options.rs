//! How the arguments of git's commands are parted. Must never say what an option does.

use crate::data::Program;
use crate::options::known;
use crate::programs::{Argv, Options};
use crate::words::Arg;

/// Parts the arguments of the command `name`; the first option that git does not have, if all of
/// the command's are listed.
pub(super) fn parted(name: &str, args: &[Arg]) -> (Argv, Option<String>) {
    let known = known(&format!("git {name}"));
    let program = Program::default();
    let argv = Options { program: &program, rule: None, known }.part(args);
    let strict = known.is_some_and(|known| !known.looking);
    let unlisted = argv.unlisted.clone().filter(|_| strict);
    (argv, unlisted)
}
