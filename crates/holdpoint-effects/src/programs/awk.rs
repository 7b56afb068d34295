//! `awk`: whether a script does more than to look at its files.
//!
//! Owns what of a script is code, and what text or pattern. It must never take a script that it
//! cannot read for one that only looks.

use super::{Call, Looks, option_values, unlisted};
use crate::place::Act;
use crate::shell::Shell;

/// Adds what one call of `awk` does.
pub(super) fn awk(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = call.options(None);
    let argv = options.part_until(call.args, 0);
    unlisted(shell, call, &argv, Looks::Only);
    option_values(shell, call, &argv, options);
    if argv.has("-f") || argv.has("--file") || argv.has("-i") || argv.has("-E") {
        return shell.opaque(&format!("runs code: {}", call.shown));
    }
    let Some((script, files)) = argv.rest.split_first() else { return };
    if script.starts_unknown() || awk_acts(&script.text) {
        shell.opaque(&format!("an awk script writes or runs: {}", call.shown));
    }
    for file in files.iter().filter(|file| !file.text.contains('=')) {
        shell.touch(Act::Read, file, &call.shown);
    }
}

/// Words behind which an expression begins.
const KEYWORDS: &[&str] =
    &["print", "printf", "return", "in", "else", "do", "case", "exit", "delete", "getline"];

/// True if an awk script may run a command, or read or write something else than its files.
fn awk_acts(script: &str) -> bool {
    let text = awk_outside(script).replace("||", " ");
    if ["system", "|", "getline", "@", "fflush"].iter().any(|act| text.contains(act)) {
        return true;
    }
    // A comparison is no redirection: only what follows `print` outside of brackets is.
    text.split([';', '{', '}', '\n']).any(|statement| {
        let Some((_, printed)) = statement.split_once("print") else { return false };
        let mut open = 0_usize;
        printed.chars().any(|c| {
            match c {
                '(' => open += 1,
                ')' => open = open.saturating_sub(1),
                _ => {}
            }
            c == '>' && open == 0
        })
    })
}

/// An awk script without what stands in strings and regular expressions.
fn awk_outside(script: &str) -> String {
    let mut kept = String::new();
    let mut chars = script.chars();
    // Whether a `/` divides: behind a value it does, elsewhere an expression begins.
    let mut value = false;
    let mut word = String::new();
    while let Some(c) = chars.next() {
        let quoted = c == '"' || c == '/' && (!value || KEYWORDS.contains(&word.as_str()));
        if quoted {
            while let Some(inner) = chars.next().filter(|inner| *inner != c) {
                if inner == '\\' {
                    chars.next();
                }
            }
            kept.push(' ');
            value = true;
            continue;
        }
        if c == '#' {
            chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
            kept.push('\n');
            continue;
        }
        match c.is_alphanumeric() || c == '_' {
            true if kept.ends_with(|c: char| c.is_alphanumeric() || c == '_') => word.push(c),
            true => word = c.to_string(),
            false if c.is_whitespace() => {}
            false => word.clear(),
        }
        if !c.is_whitespace() {
            value = c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '$' | '+' | '-');
        }
        kept.push(c);
    }
    kept
}
