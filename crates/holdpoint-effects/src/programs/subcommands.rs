//! Which subcommand of a program a command line names.
//!
//! Owns how well words fit. It must never take a word that is not known for a subcommand.

use crate::data::{Does, Program, Rule, SubWord};
use crate::words::{Arg, matches};
use holdpoint_types::{EffectClass, Verb};

/// Verbs that are no groups of others: what follows them is a name.
const LOOKING: &[&str] = &["describe", "list", "show", "get", "view", "inspect", "read"];
/// How much better than others a subcommand fits that begins with a known word, and one that
/// destroys and stands behind groups.
const KNOWN: usize = 1000;
const STRICT: usize = 10_000;

/// The rule of the subcommand that `operands` begin with, and of how many words it is.
pub(super) fn subcommand<'p>(program: &'p Program, operands: &[Arg]) -> (Option<&'p Rule>, usize) {
    let mut best: (Option<&Rule>, usize, usize) = (None, 0, 0);
    for (words, rule) in &program.subcommands {
        let found = match words.split_first() {
            // The verb stands behind however many groups: the first that fits is meant. But a
            // word may be a group or a verb, so one that destroys goes before others.
            Some((SubWord::Some, verb)) => (1..operands.len()).find_map(|at| {
                let (score, count) = fits(verb, operands.get(at..)?)?;
                let looks = |arg: &Arg| LOOKING.contains(&arg.text.as_str());
                let named = operands.iter().take(at).any(looks);
                let strict = if destroys(rule) && !named { STRICT } else { 0 };
                Some((score.saturating_sub(at) + strict, at + count))
            }),
            // Behind a word that is known, others are names.
            Some((SubWord::Exact(_), _)) => {
                fits(words, operands).map(|(score, count)| (score + KNOWN, count))
            }
            _ => fits(words, operands),
        };
        if let Some((score, count)) = found
            && score > best.2
        {
            best = (Some(rule), count, score);
        }
    }
    (best.0, best.1)
}

fn destroys(rule: &Rule) -> bool {
    let verb = rule.does.and_then(Does::verb).map(Verb::floor);
    rule.class.max(verb) == Some(EffectClass::Destructive)
}

/// How well `words` fit the beginning of `operands`, and how many of those they are.
fn fits(words: &[SubWord], operands: &[Arg]) -> Option<(usize, usize)> {
    let (mut score, mut count) = (0, 0);
    for (at, word) in words.iter().enumerate() {
        let given = operands.get(at);
        let given = match word {
            SubWord::End if given.is_none() => {
                score += 100;
                continue;
            }
            SubWord::End => return None,
            SubWord::Exact(_) | SubWord::Like(_) | SubWord::Any | SubWord::Some => given?,
        };
        score += match word {
            SubWord::Exact(word) if given.text == *word => 100,
            SubWord::Like(word) if !given.is_unknown() && matches(word, &given.text) => {
                20 + word.len()
            }
            SubWord::Any | SubWord::Some if !given.is_unknown() => 10,
            SubWord::Exact(_) | SubWord::Like(_) | SubWord::Any | SubWord::Some | SubWord::End => {
                return None;
            }
        };
        count = at + 1;
    }
    Some((score, count))
}
