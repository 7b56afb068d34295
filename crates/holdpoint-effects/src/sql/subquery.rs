//! Predicates with a query in them: whether the query makes a choice among the rows of the table
//! around it. Must never take a column of the query's own tables for one of that table.

use super::predicate::{Columns, Truth, bare, binary, same, truth};
use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArguments, LimitClause, Query, Select, SelectItem, SetExpr,
    SetOperator, TableFactor, Value, Visit,
};

/// `EXISTS (…)`.
pub(super) fn exists(query: &Query, negated: bool, names: &[String]) -> Truth {
    let found = found(query, names);
    if negated { found.not() } else { found }
}

/// `x IN (SELECT …)`.
pub(super) fn is_in(
    column: &Expr,
    query: &Query,
    negated: bool,
    names: &[String],
) -> Option<Truth> {
    match (takes_all(column, &query.body, query, names), negated) {
        (true, false) => Some(Truth::Always),
        (true, true) => Some(Truth::Never),
        (false, true) if is_empty(query, names) => Some(Truth::Always),
        (false, _) => None,
    }
}

/// `x = ANY (…)` and `x = ALL (…)`.
pub(super) fn quantified(expr: &Expr, names: &[String]) -> Option<Truth> {
    let (left, op, right, quantifier) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, Quantifier::Any),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, Quantifier::All),
        _ => return None,
    };
    let query = match bare(right) {
        Expr::Subquery(query) => Some(query.as_ref()),
        Expr::Function(function) => match &function.args {
            FunctionArguments::Subquery(query) => Some(query.as_ref()),
            FunctionArguments::None | FunctionArguments::List(_) => None,
        },
        _ => None,
    };
    if let (Some(query), BinaryOperator::Eq, Quantifier::Any) = (query, op, quantifier) {
        return is_in(left, query, false, names);
    }
    if let (Some(query), Quantifier::All) = (query, quantifier)
        && is_empty(query, names)
    {
        return Some(Truth::Always);
    }
    let elements: Vec<&Expr> = match (bare(right), query) {
        (Expr::Array(array), _) => array.elem.iter().collect(),
        (_, Some(query)) => constants(query)?,
        _ => return None,
    };
    let each = elements.iter().map(|element| binary(left, op, element, names));
    match quantifier {
        Quantifier::All => each.reduce(Truth::and).or(Some(Truth::Always)),
        Quantifier::Any => {
            // `x <> ANY ('{0,1}')`: whatever it is, it is not both.
            let differ = elements.iter().any(|one| !same(one, elements.first().unwrap_or(one)));
            match op {
                BinaryOperator::NotEq if differ => Some(Truth::Always),
                _ => each.reduce(Truth::or).or(Some(Truth::Never)),
            }
        }
    }
}

/// Which elements a comparison must hold for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    Any,
    All,
}

/// For which rows of the table around it a query finds something.
fn found(query: &Query, names: &[String]) -> Truth {
    if is_empty(query, names) {
        return Truth::Never;
    }
    let mut columns = Columns::new(names);
    let SetExpr::Select(select) = &*query.body else {
        return if query.visit(&mut columns).is_break() { Truth::Depends } else { Truth::Same };
    };
    let inner = seen(names, select);
    if select.from.is_empty() {
        return match &select.selection {
            None => Truth::Always,
            Some(selection) => truth(selection, names),
        };
    }
    if finds_itself(select, names, &inner) {
        return Truth::Always;
    }
    // What is chosen from the rows does not matter, only which rows there are.
    let mut columns = Columns::within(&inner);
    let looks = select.from.visit(&mut columns).is_break()
        || select.selection.visit(&mut columns).is_break()
        || select.having.visit(&mut columns).is_break()
        || query.limit_clause.visit(&mut columns).is_break();
    if looks { Truth::Depends } else { Truth::Same }
}

/// `EXISTS (SELECT 1 FROM t o WHERE o.id = t.id)`: every row finds itself.
fn finds_itself(select: &Select, names: &[String], outer: &[String]) -> bool {
    let [from] = select.from.as_slice() else { return false };
    let TableFactor::Table { name, .. } = &from.relation else { return false };
    let table = name.0.last().and_then(|part| part.as_ident());
    let own = table.is_some_and(|table| is_one(names, &table.value));
    own && from.joins.is_empty()
        && select.having.is_none()
        && select.selection.as_ref().is_some_and(|selection| is_itself(selection, outer))
}

fn is_itself(selection: &Expr, outer: &[String]) -> bool {
    match bare(selection) {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            is_itself(left, outer) && is_itself(right, outer)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let column = |expr: &Expr| match bare(expr) {
                Expr::Identifier(ident) => Some(ident.value.to_lowercase()),
                Expr::CompoundIdentifier(parts) => parts.last().map(|i| i.value.to_lowercase()),
                _ => None,
            };
            column(left).is_some() && column(left) == column(right)
        }
        other => truth(other, outer).is_all(),
    }
}

/// Those of `names` that the tables of a query do not hide.
pub(super) fn seen(names: &[String], select: &Select) -> Vec<String> {
    let factors = select.from.iter().flat_map(|from| {
        std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
    });
    let own: Vec<String> = factors
        .filter_map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.value.clone()),
            TableFactor::Table { name, alias: None, .. } => {
                name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone())
            }
            _ => None,
        })
        .collect();
    names.iter().filter(|name| !is_one(&own, name)).cloned().collect()
}

fn is_one(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// True if a query certainly finds nothing.
fn is_empty(query: &Query, names: &[String]) -> bool {
    let none = |limit: &Expr| {
        matches!(bare(limit), Expr::Value(value)
        if matches!(&value.value, Value::Number(number, _) if number.parse() == Ok(0_u64)))
    };
    if let Some(LimitClause::LimitOffset { limit: Some(limit), .. }) = &query.limit_clause
        && none(limit)
    {
        return true;
    }
    let SetExpr::Select(select) = &*query.body else { return false };
    let never = |selection| truth(selection, names) == Truth::Never;
    select.selection.as_ref().is_some_and(never)
}

/// True if a query gives every `column` of the table itself: `id IN (SELECT id FROM t)`.
fn takes_all(column: &Expr, body: &SetExpr, query: &Query, names: &[String]) -> bool {
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return false;
    }
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::SetOperation { left, right, op: SetOperator::Union, .. } => {
            return takes_all(column, left, query, names) || takes_all(column, right, query, names);
        }
        SetExpr::Query(inner) => return takes_all(column, &inner.body, inner, names),
        _ => return false,
    };
    let [SelectItem::UnnamedExpr(chosen) | SelectItem::ExprWithAlias { expr: chosen, .. }] =
        select.projection.as_slice()
    else {
        return false;
    };
    let [from] = select.from.as_slice() else { return false };
    let TableFactor::Table { name, .. } = &from.relation else { return false };
    let table = name.0.last().and_then(|part| part.as_ident());
    let own = table.is_some_and(|table| is_one(names, &table.value));
    let all = select.selection.as_ref().is_none_or(|selection| truth(selection, names).is_all());
    own && all && select.having.is_none() && from.joins.is_empty() && same_column(column, chosen)
}

/// The same column, whatever its table is called here and there.
fn same_column(one: &Expr, other: &Expr) -> bool {
    match (bare(one), bare(other)) {
        (Expr::CompoundIdentifier(one), Expr::CompoundIdentifier(other)) => {
            match (one.last(), other.last()) {
                (Some(one), Some(other)) => one.value.eq_ignore_ascii_case(&other.value),
                _ => false,
            }
        }
        _ => same(one, other),
    }
}

/// The constants of a query that looks at no table.
fn constants(query: &Query) -> Option<Vec<&Expr>> {
    let rows = match &*query.body {
        SetExpr::Select(select) if select.from.is_empty() && select.selection.is_none() => {
            let [SelectItem::UnnamedExpr(one)] = select.projection.as_slice() else { return None };
            vec![one]
        }
        SetExpr::Values(values) => {
            values.rows.iter().map(|row| row.first()).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(rows)
}
