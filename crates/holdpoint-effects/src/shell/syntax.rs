//! The tree of a shell text. Owns what a command line is made of; must never run or judge it.

use std::cell::OnceCell;
use std::rc::Rc;

/// A list of commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(pub(super) Vec<AndOr>);

/// Pipelines joined by `&&` and `||`.
#[derive(Clone, Debug)]
pub(super) struct AndOr(pub(super) Vec<(Joint, Vec<Command>)>);

/// How a pipeline follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    First,
    And,
    Or,
}

/// A command and where its input and output go.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) body: Body,
    pub(super) redirects: Vec<Redirect>,
}

/// What a command is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Simple {
        assignments: Vec<Assignment>,
        words: Vec<Word>,
    },
    Group(Script),
    Subshell(Script),
    /// Conditions and branches in the order of the text.
    Branches(Vec<Script>),
    Loop(Script),
    For {
        name: String,
        words: Option<Vec<Word>>,
        body: Script,
    },
    Case {
        subject: Word,
        patterns: Vec<Word>,
        arms: Vec<Script>,
    },
    Function {
        name: String,
        body: Rc<Command>,
    },
    /// `((…))` and `[[ … ]]`: words that are expanded, and nothing else.
    Words(Vec<Word>),
}

/// `name=value` before a command.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) append: bool,
    /// Element assignments and arrays are no plain text.
    pub(super) plain: bool,
    pub(super) values: Vec<Word>,
}

/// Where a file descriptor goes.
#[derive(Clone, Debug)]
pub(super) struct Redirect {
    pub(super) kind: RedirectKind,
    pub(super) word: Word,
    /// The text of a here-document.
    pub(super) body: Rc<OnceCell<Word>>,
}

/// The operators of redirections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedirectKind {
    Read,
    Write,
    Append,
    ReadWrite,
    /// `>&word` and `<&word`: a descriptor or, for output, a file.
    Duplicate,
    HereDocument,
    HereString,
}

/// What becomes one or more arguments.
pub(super) type Word = Vec<Piece>;

/// A part of a word.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text {
        text: String,
        quoted: bool,
    },
    Parameter {
        name: String,
        change: Change,
        quoted: bool,
    },
    Substitution {
        script: Script,
        quoted: bool,
    },
    /// `<(…)` and `>(…)`.
    Process(Script),
    Arithmetic(Word),
    /// `~` and `~user`.
    Tilde(String),
}

/// What is done to a parameter's value.
#[derive(Clone, Debug)]
pub(super) enum Change {
    None,
    /// `:-` and `:=`; the flag says that it is assigned.
    Default {
        word: Word,
        assigned: bool,
    },
    /// `:+`.
    Alternative(Word),
    /// Anything else: the result is not worked out, the words in it are still expanded.
    Other(Word),
}
