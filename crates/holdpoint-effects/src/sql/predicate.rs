//! Whether a predicate chooses rows or only pretends to. Must never call a predicate a choice
//! that does not look at a column of the table it is about.

use super::lexer::ESCAPED;
use super::subquery;
use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SetExpr,
    UnaryOperator, Value, Visit, Visitor,
};
use std::ops::ControlFlow;

/// From here on a number is taken for one that no key reaches.
const MANY: f64 = 1e9;

/// Of how many rows a predicate is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// Of all rows, as far as can be seen.
    Always,
    /// Of all or of none, and which is not known.
    Same,
    /// Of none.
    Never,
    /// It depends on the row.
    Depends,
}

/// Looks for a column of the table that a statement is about.
pub(super) struct Columns {
    /// What the table is called in the statement and, within queries, what it is still called
    /// there.
    names: Vec<Vec<String>>,
    depth: usize,
}

// === impl Truth ===

impl Truth {
    fn of(yes: bool) -> Self {
        if yes { Self::Always } else { Self::Never }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Same => Self::Same,
            Self::Depends => Self::Depends,
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Depends, _) | (_, Self::Depends) => Self::Depends,
            (Self::Same, _) | (_, Self::Same) => Self::Same,
            (Self::Always, Self::Always) => Self::Always,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            // The rest may choose, but may not have to.
            (Self::Same, _) | (_, Self::Same) => Self::Same,
            (Self::Depends, _) | (_, Self::Depends) => Self::Depends,
            (Self::Never, Self::Never) => Self::Never,
        }
    }

    /// True if it may be true of all rows.
    pub(super) fn is_all(self) -> bool {
        matches!(self, Self::Always | Self::Same)
    }
}

// === impl Columns ===

impl Columns {
    /// In an expression of the statement itself.
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: vec![names.to_vec()], depth: 0 }
    }

    /// In a query of the statement, where the table is still called `names`.
    pub(super) fn within(names: &[String]) -> Self {
        Self { names: vec![names.to_vec()], depth: 1 }
    }
}

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        let names = self.names.last().map(Vec::as_slice).unwrap_or_default();
        let names = match &*query.body {
            SetExpr::Select(select) => subquery::seen(names, select),
            _ => names.to_vec(),
        };
        self.names.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        self.names.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let found = match expr {
            Expr::Identifier(_) | Expr::MatchAgainst { .. } => self.depth == 0,
            // Within a query only a column that names the table can be one of it.
            Expr::CompoundIdentifier(parts) => {
                self.depth == 0
                    || parts.iter().rev().nth(1).is_some_and(|table| {
                        let names = self.names.last().into_iter().flatten();
                        names.into_iter().any(|name| name.eq_ignore_ascii_case(&table.value))
                    })
            }
            _ => false,
        };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

// === functions ===

/// Of how many rows of the table called `names` (its name and alias) `expr` is true.
pub(super) fn truth(expr: &Expr, names: &[String]) -> Truth {
    match expr {
        Expr::Nested(inner) => truth(inner, names),
        Expr::Value(value) => constant(&value.value),
        Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::BangNot, expr } => {
            truth(expr, names).not()
        }
        Expr::IsTrue(inner) | Expr::IsNotFalse(inner) => truth(inner, names),
        Expr::IsFalse(inner) | Expr::IsNotTrue(inner) => truth(inner, names).not(),
        Expr::IsNull(inner) => match bare(inner) {
            Expr::Value(value) => Truth::of(value.value == Value::Null),
            inner if never_null(inner) => Truth::Never,
            other => no_choice(other, names),
        },
        Expr::IsNotNull(inner) if never_null(inner) => Truth::Always,
        Expr::IsNotDistinctFrom(left, right) if same(left, right) => Truth::Always,
        Expr::IsDistinctFrom(left, right) if same(left, right) => Truth::Never,
        Expr::Between { expr: inner, negated: false, low, high } if is_key(inner) => {
            let all = number_of(low).is_some_and(|low| low <= 1.0)
                && number_of(high).is_some_and(|high| high >= MANY);
            if all { Truth::Always } else { Truth::Depends }
        }
        Expr::InList { expr: inner, list, negated: true } if is_key(inner) => {
            let none = list.iter().all(|one| number_of(one).is_some_and(|number| number <= 0.0));
            if none { Truth::Always } else { no_choice(expr, names) }
        }
        Expr::SimilarTo { negated: false, pattern, .. }
        | Expr::RLike { negated: false, pattern, .. }
            if text_of(pattern).is_some_and(finds_all) =>
        {
            Truth::Always
        }
        Expr::Case { operand: None, conditions, else_result, .. } => {
            let first = conditions.first();
            match first.map(|when| (truth(&when.condition, names), truth(&when.result, names))) {
                Some((Truth::Always, result)) => result,
                _ if conditions.iter().all(|when| truth(&when.result, names).is_all())
                    && else_result.as_ref().is_some_and(|e| truth(e, names).is_all()) =>
                {
                    Truth::Always
                }
                _ => no_choice(expr, names),
            }
        }
        Expr::BinaryOp { left, op, right } => binary(left, op, right, names),
        Expr::Like { negated: false, pattern, .. }
        | Expr::ILike { negated: false, pattern, .. } => match text_of(pattern) {
            Some(text) if matches_all(text) => Truth::Always,
            Some(_) | None => no_choice(expr, names),
        },
        Expr::InList { expr: inner, list, negated: false }
            if list.iter().any(|e| same(inner, e)) =>
        {
            Truth::Always
        }
        Expr::InSubquery { expr: inner, subquery, negated } => {
            let known = subquery::is_in(inner, subquery, *negated, names);
            known.unwrap_or_else(|| no_choice(expr, names))
        }
        Expr::Exists { subquery, negated } => subquery::exists(subquery, *negated, names),
        Expr::AnyOp { .. } | Expr::AllOp { .. } => {
            subquery::quantified(expr, names).unwrap_or_else(|| no_choice(expr, names))
        }
        other => no_choice(other, names),
    }
}

/// What does not look at a column of the table is true of all rows or of none.
fn no_choice(expr: &Expr, names: &[String]) -> Truth {
    match expr.visit(&mut Columns::new(names)) {
        ControlFlow::Break(()) => Truth::Depends,
        ControlFlow::Continue(()) => Truth::Same,
    }
}

fn constant(value: &Value) -> Truth {
    match value {
        Value::Boolean(yes) => Truth::of(*yes),
        Value::Null => Truth::Never,
        Value::Number(number, _) => Truth::of(number.parse::<f64>().ok() != Some(0.0)),
        other => match other.clone().into_string() {
            Some(text) => {
                Truth::of(!["0", "f", "false", "n", "no", "off"].contains(&text.as_str()))
            }
            None => Truth::Always,
        },
    }
}

pub(super) fn binary(left: &Expr, op: &BinaryOperator, right: &Expr, names: &[String]) -> Truth {
    use BinaryOperator::{
        And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or, PGILikeMatch, PGLikeMatch, PGRegexIMatch,
        PGRegexMatch, Regexp, Spaceship,
    };
    match op {
        And => truth(left, names).and(truth(right, names)),
        Or if complement(left, right) || complement(right, left) => Truth::Always,
        Or => truth(left, names).or(truth(right, names)),
        Eq | GtEq | LtEq | Spaceship if same(plain(left), plain(right)) => Truth::Always,
        PGRegexMatch | PGRegexIMatch | Regexp if text_of(right).is_some_and(finds_all) => {
            Truth::Always
        }
        PGLikeMatch | PGILikeMatch if text_of(right).is_some_and(matches_all) => Truth::Always,
        NotEq | Gt | Lt if same(left, right) && !is_constant(left) => Truth::Never,
        Eq | NotEq | Gt | Lt | GtEq | LtEq => match compare(left, op, right) {
            Some(yes) => Truth::of(yes),
            None if every_key(left, op, right) => Truth::Always,
            None => both(left, right, names),
        },
        _ => both(left, right, names),
    }
}

fn both(left: &Expr, right: &Expr, names: &[String]) -> Truth {
    match (no_choice(left, names), no_choice(right, names)) {
        (Truth::Same, Truth::Same) => Truth::Same,
        _ => Truth::Depends,
    }
}

/// Compares two constants of one kind.
fn compare(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<bool> {
    let order = match (number_of(left), number_of(right)) {
        (Some(left), Some(right)) => left.partial_cmp(&right)?,
        _ => match (text_of(left)?, text_of(right)?) {
            (left, right) if left.contains(ESCAPED) || right.contains(ESCAPED) => return None,
            // Some collations do not look at case, or at blanks behind.
            (left, right) if left.trim_end().eq_ignore_ascii_case(right.trim_end()) => {
                std::cmp::Ordering::Equal
            }
            (left, right) => left.cmp(right),
        },
    };
    Some(match op {
        BinaryOperator::Eq => order.is_eq(),
        BinaryOperator::NotEq => order.is_ne(),
        BinaryOperator::Gt => order.is_gt(),
        BinaryOperator::Lt => order.is_lt(),
        BinaryOperator::GtEq => order.is_ge(),
        BinaryOperator::LtEq => order.is_le(),
        _ => return None,
    })
}

/// `id > 0`, `id >= 1`, `id <> 0`: every key there is.
fn every_key(left: &Expr, op: &BinaryOperator, right: &Expr) -> bool {
    use BinaryOperator::{Gt, GtEq, Lt, LtEq, NotEq};
    let (key, bound, op) = match (number_of(left), number_of(right)) {
        (None, Some(bound)) => (left, bound, op.clone()),
        (Some(bound), None) => {
            let op = match op {
                Lt => Gt,
                LtEq => GtEq,
                NotEq => NotEq,
                _ => return false,
            };
            (right, bound, op)
        }
        _ => return false,
    };
    let least = if is_length(key) { 0.0 } else { 1.0 };
    (is_key(key) || is_length(key))
        && match op {
            Gt | NotEq => bound < least,
            GtEq => bound <= least,
            Lt | LtEq => bound >= MANY,
            _ => false,
        }
}

/// True if `expr` counts something: it is never less than nothing.
fn is_length(expr: &Expr) -> bool {
    let Expr::Function(function) = bare(expr) else { return false };
    let name = function.name.0.last().and_then(|part| part.as_ident());
    let known = ["length", "char_length", "octet_length", "cardinality", "abs"];
    name.is_some_and(|name| known.iter().any(|known| name.value.eq_ignore_ascii_case(known)))
}

/// True if `expr` has a value in every row: a key, or `coalesce` with a constant.
fn never_null(expr: &Expr) -> bool {
    let constant = |arg: &FunctionArg| {
        matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(value))
            if is_constant(value) && is_key(value))
    };
    match bare(expr) {
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident());
            let fills = ["coalesce", "ifnull"];
            let FunctionArguments::List(list) = &function.args else { return false };
            name.is_some_and(|name| fills.iter().any(|f| name.value.eq_ignore_ascii_case(f)))
                && list.args.iter().any(constant)
        }
        inner => is_key(inner),
    }
}

/// `expr` without what adds nothing to it.
fn plain(expr: &Expr) -> &Expr {
    match bare(expr) {
        Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, right }
            if number_of(right) == Some(0.0) =>
        {
            plain(left)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Multiply | BinaryOperator::Divide, right }
            if number_of(right) == Some(1.0) =>
        {
            plain(left)
        }
        inner => inner,
    }
}

/// True if a regular expression finds something in every text.
fn finds_all(pattern: &str) -> bool {
    let inner = pattern.trim_start_matches('^').trim_end_matches('$');
    pattern.contains(ESCAPED)
        || matches_all(pattern)
        || inner.is_empty()
        || [".*", ".+", ".", "(.*)", "(?:.*)", ".*?", ".{0,}"].contains(&inner)
}

/// True if `expr` looks like what every row has one of.
fn is_key(expr: &Expr) -> bool {
    let name = match bare(expr) {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(ident) => ident,
            None => return false,
        },
        Expr::Value(value) => return value.value != Value::Null,
        _ => return false,
    };
    let keys = ["id", "rowid", "_rowid_", "oid", "ctid", "uuid", "pk"];
    keys.iter().any(|key| name.value.eq_ignore_ascii_case(key))
}

/// True if `other` is what `one` is not: `x = 1 OR x <> 1`.
fn complement(one: &Expr, other: &Expr) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    match (bare(one), bare(other)) {
        (Expr::IsNull(one), Expr::IsNotNull(other)) => same(one, other),
        (one, Expr::UnaryOp { op: UnaryOperator::Not, expr }) => same(one, expr),
        (
            Expr::BinaryOp { left: a, op, right: b },
            Expr::BinaryOp { left: c, op: opposite, right: d },
        ) => {
            matches!(
                (op, opposite),
                (Eq, NotEq) | (Lt, GtEq) | (LtEq, Gt) | (LtEq, GtEq) | (Gt, LtEq)
            ) && same(a, c)
                && same(b, d)
        }
        _ => false,
    }
}

pub(super) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::Collate { expr: inner, .. } => bare(inner),
        other => other,
    }
}

/// True if both always have the same value, unless that is null.
pub(super) fn same(left: &Expr, right: &Expr) -> bool {
    match (bare(left), bare(right)) {
        (Expr::Identifier(left), Expr::Identifier(right)) => {
            left.value.eq_ignore_ascii_case(&right.value)
        }
        (Expr::Identifier(one), Expr::CompoundIdentifier(many))
        | (Expr::CompoundIdentifier(many), Expr::Identifier(one)) => {
            many.last().is_some_and(|last| last.value.eq_ignore_ascii_case(&one.value))
        }
        (Expr::CompoundIdentifier(left), Expr::CompoundIdentifier(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(a, b)| a.value.eq_ignore_ascii_case(&b.value))
        }
        (Expr::Value(left), Expr::Value(right)) => left.value == right.value,
        (left, right) => left == right,
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(bare(expr), Expr::Value(_))
}

fn number_of(expr: &Expr) -> Option<f64> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number_of(expr).map(|number| -number),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => number_of(expr),
        _ => None,
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn matches_all(pattern: &str) -> bool {
    pattern.contains(['%', ESCAPED]) && pattern.chars().all(|c| c == '%' || c == ESCAPED)
}
