//! SQL as text: where one statement ends, which words it uses, how a value is written into one.
//!
//! Must never be what keeps two statements apart: each piece goes to the server alone, which
//! refuses a piece that is more than one. What is found here only has to be found in every honest
//! text.

use crate::resource::ResourceFault;
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest text of one call, in bytes.
const SQL_BYTES_MAX: usize = 1 << 20;
/// Most statements of one call.
const STATEMENTS_MAX: usize = 100;

/// One statement of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The statement as it was written.
    pub(super) text: String,
    /// Its first words in upper case, without comments and brackets.
    pub(super) head: Vec<String>,
}

/// What a short statement is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A word, in lower case.
    Word(String),
    /// A quoted name, with its quotes.
    Quoted(String),
    /// Anything else.
    Sign(char),
}

/// What stands at one place of a text.
enum Part {
    Space,
    Word,
    End,
    Open,
    Close,
    Other,
}

// === impl Statement ===

impl Statement {
    /// Its word at `index`, upper case; empty if there is none.
    pub(super) fn word(&self, index: usize) -> &str {
        self.head.get(index).map_or("", String::as_str)
    }
}

// === impl Piece ===

impl Piece {
    /// The name that it is, quoted.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(name(word)),
            Self::Quoted(quoted) => Some(quoted.clone()),
            Self::Sign(_) => None,
        }
    }
}

// === functions ===

/// The statements of `sql`, at least one.
///
/// # Errors
/// When it is too long, has none or too many, or what it opens does not end.
pub(super) fn statements(sql: &str) -> Result<Vec<Statement>, ResourceFault> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(ResourceFault::TooLarge(format!("{} bytes of SQL", sql.len())));
    }
    if sql.contains('\0') {
        return Err(invalid("the SQL holds a NUL"));
    }
    let (mut found, mut head, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    let (mut start, mut at) = (0, 0);
    while at < sql.len() {
        let (part, end) = part(sql, at)?;
        match part {
            Part::Word => head.extend(sql.get(at..end).map(str::to_uppercase)),
            Part::Open => depth = depth.saturating_add(1),
            Part::Close => depth = depth.saturating_sub(1),
            Part::End if depth == 0 => {
                push(&mut found, sql.get(start..at), &mut head)?;
                start = end;
            }
            Part::End | Part::Space | Part::Other => {}
        }
        at = end;
    }
    push(&mut found, sql.get(start..), &mut head)?;
    if found.is_empty() { Err(invalid("there is no statement")) } else { Ok(found) }
}

fn push(
    found: &mut Vec<Statement>,
    text: Option<&str>,
    head: &mut Vec<String>,
) -> Result<(), ResourceFault> {
    let head = std::mem::take(head);
    if head.is_empty() {
        return Ok(());
    }
    if found.len() == STATEMENTS_MAX {
        return Err(ResourceFault::TooLarge(format!("more than {STATEMENTS_MAX} statements")));
    }
    found.push(Statement { text: text.unwrap_or_default().trim().to_owned(), head });
    Ok(())
}

/// What stands at `at`, and where it ends.
fn part(sql: &str, at: usize) -> Result<(Part, usize), ResourceFault> {
    let rest = sql.get(at..).unwrap_or_default();
    let first = rest.chars().next().unwrap_or(' ');
    let length = match first {
        ';' => return Ok((Part::End, at + 1)),
        '(' => return Ok((Part::Open, at + 1)),
        ')' => return Ok((Part::Close, at + 1)),
        '\'' => quoted(rest, '\'', opens_escapes(sql, at))?,
        '"' => quoted(rest, '"', false)?,
        '-' if rest.starts_with("--") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
        '/' if rest.starts_with("/*") => comment(rest)?,
        '$' => dollar(rest)?,
        _ if is_word(first) => {
            let end = rest.find(|c| !is_word(c) && c != '$').unwrap_or(rest.len());
            let word = !first.is_ascii_digit();
            return Ok((if word { Part::Word } else { Part::Other }, at + end));
        }
        _ if first.is_whitespace() => return Ok((Part::Space, at + first.len_utf8())),
        _ => first.len_utf8(),
    };
    Ok((Part::Other, at + length))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// True if the quote at `at` opens a string with backslash escapes: `E'…'`.
fn opens_escapes(sql: &str, at: usize) -> bool {
    let mut before = sql.get(..at).unwrap_or_default().chars().rev();
    let marked = matches!(before.next(), Some('e' | 'E'));
    marked && !before.next().is_some_and(|c| is_word(c) || c == '$')
}

/// Length of what opens with `quote`; a doubled quote does not end it.
fn quoted(rest: &str, quote: char, escapes: bool) -> Result<usize, ResourceFault> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Ok(at + 1);
        }
    }
    Err(invalid("a string or a quoted name does not end"))
}

/// Length of a comment; they nest.
fn comment(rest: &str) -> Result<usize, ResourceFault> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        let (step, next) = match here {
            _ if here.starts_with("/*") => (2, depth + 1),
            _ if here.starts_with("*/") => (2, depth.saturating_sub(1)),
            _ => (here.chars().next().map_or(1, char::len_utf8), depth),
        };
        (at, depth) = (at + step, next);
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(invalid("a comment does not end"))
}

/// Length of a dollar-quoted string, or of the sign alone.
fn dollar(rest: &str) -> Result<usize, ResourceFault> {
    let tag = rest.get(1..).unwrap_or_default();
    let end = tag.find(|c| !is_word(c)).unwrap_or(tag.len());
    let marks = tag.get(end..).is_some_and(|after| after.starts_with('$'));
    if !marks || tag.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(1);
    }
    let mark = rest.get(..end + 2).unwrap_or_default();
    let body = rest.get(mark.len()..).unwrap_or_default();
    let closed = body.find(mark).ok_or_else(|| invalid("a `$` string does not end"))?;
    Ok(mark.len() + closed + mark.len())
}

/// What `sql` is made of, without space and comments; `None` if something in it does not end.
pub(super) fn tokens(sql: &str) -> Option<Vec<Piece>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < sql.len() {
        let (part, end) = part(sql, at).ok()?;
        let text = sql.get(at..end)?;
        let first = text.chars().next()?;
        match part {
            Part::Space => {}
            Part::Other if text.starts_with("--") || text.starts_with("/*") => {}
            Part::Word => found.push(Piece::Word(text.to_lowercase())),
            Part::Other if first == '"' => found.push(Piece::Quoted(text.to_owned())),
            Part::Other | Part::End | Part::Open | Part::Close => found.push(Piece::Sign(first)),
        }
        at = end;
    }
    Some(found)
}

/// Every word of `text`, in lower case, wherever it stands: in strings and comments too, because
/// what is there may be run.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    let pieces = text.split(|c| !is_word(c) && c != '$').filter(|word| !word.is_empty());
    // A quoted name may hold anything.
    pieces.chain(text.split('"')).map(str::to_lowercase).collect()
}

/// A value as a literal of no type yet, which no setting of the server can make end early.
///
/// # Errors
/// When it holds a NUL, which no PostgreSQL text can.
pub(super) fn literal(value: &Value) -> Result<String, ResourceFault> {
    let text = match value {
        Value::Null => return Ok("NULL".to_owned()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains('\0') {
        return Err(invalid("a parameter holds a NUL"));
    }
    Ok(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// A name, quoted.
pub(super) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn invalid(text: &str) -> ResourceFault {
    ResourceFault::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{literal, statements, words};
    use serde_json::json;

    fn cut(sql: &str) -> Vec<String> {
        statements(sql).unwrap().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        assert_eq!(cut("select 1; select 2 ;; "), ["select 1", "select 2"]);
        assert_eq!(
            cut("select ';', E'\\';', \"a;\"\"\", $x$;$x$ -- ;\n"),
            ["select ';', E'\\';', \"a;\"\"\", $x$;$x$ --"].map(|text| format!("{text} ;"))
        );
        assert_eq!(
            cut("/* ; /* ; */ ; */ select '\\'; select 2"),
            ["/* ; /* ; */ ; */ select '\\'", "select 2"]
        );
        assert_eq!(cut("select (1; 2); select $1;"), ["select (1; 2)", "select $1"]);
        assert_eq!(cut("select 1$x$; select 2"), ["select 1$x$", "select 2"]);
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for sql in ["", " ;; -- x", "select '", "select E'\\'", "\"", "/* /* */", "$a$ $b$", "\0"] {
            assert!(statements(sql).is_err(), "{sql}");
        }
        assert!(statements(&"select 1;".repeat(101)).is_err());
        assert!(statements(&" ".repeat((1 << 20) + 1)).is_err());
    }

    #[test]
    fn the_head_skips_comments_and_brackets() {
        let found = statements("/* insert */ -- update\n ((with x as (select 1) delete").unwrap();
        assert_eq!(found[0].word(0), "WITH");
        assert_eq!(found[0].word(99), "");
    }

    #[test]
    fn words_are_found_in_strings_and_values_cannot_leave_theirs() {
        let found = words("do $$ begin perform DBLINK_exec('x y'); end $$");
        assert!(words("delete from \"My table\"").contains("my table"));
        for word in ["dblink_exec", "x", "y", "perform"] {
            assert!(found.contains(word), "{word}");
        }
        assert_eq!(literal(&json!("a'\\'; drop")).unwrap(), "E'a''\\\\''; drop'");
        assert_eq!(literal(&json!(null)).unwrap(), "NULL");
        assert_eq!(literal(&json!({"a": 1})).unwrap(), "E'{\"a\":1}'");
        assert!(literal(&json!("\0")).is_err());
    }
}
