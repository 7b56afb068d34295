//! The walk through one statement: which tables, functions and statements are in it, and what is
//! only a name of the statement's own. Must never take a table for such a name.

use super::lists::{self, Call};
use super::names::{self, Path};
use super::{Database, Dialect, statement};
use crate::effects::{Effects, NoteCode};
use holdpoint_types::{Certainty, Effect, EffectClass, Verb};
use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArguments, Ident, ObjectName, Query, SetExpr, Statement,
    TableFactor, Value, Visit, Visitor,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// How many views may stand behind one another.
const VIEWS_MAX: usize = 8;

/// What a batch has said until now.
pub(super) struct Batch<'a> {
    pub(super) database: &'a Database,
    pub(super) effects: &'a mut Effects,
    pub(super) path: Path,
    /// Statements prepared in this batch: their effects have been listed.
    pub(super) prepared: BTreeSet<String>,
    /// Why nothing that follows can be read.
    pub(super) distrust: Option<&'static str>,
}

/// The walk through one statement.
pub(super) struct Walk<'w, 'a> {
    pub(super) batch: &'w mut Batch<'a>,
    /// The named queries in sight, innermost last.
    scopes: Vec<Scope>,
    /// Names that have been dealt with: targets of a write, by where they stand.
    dealt: Vec<*const ObjectName>,
    /// How many statements are only planned around here, not run.
    pub(super) planned: usize,
}

/// The named queries of one query.
struct Scope {
    /// Where each stands, and what it is called.
    queries: Vec<(*const Query, String)>,
    /// How many of them can be seen by now. One cannot see itself, unless it is recursive.
    visible: usize,
}

// === impl Batch ===

impl<'a> Batch<'a> {
    pub(super) fn new(database: &'a Database, effects: &'a mut Effects) -> Self {
        let prepared = BTreeSet::new();
        Self { database, effects, path: Path::default(), prepared, distrust: None }
    }

    /// Adds that the database as a whole may come to anything.
    pub(super) fn opaque(&mut self, code: NoteCode, evidence: impl Into<String>) {
        self.effects.add_opaque(&self.database.address, code, evidence);
    }

    /// The resource called `name`; none if it cannot be told.
    pub(super) fn resource(&self, name: &ObjectName) -> Option<String> {
        let parts = names::parts(self.database.dialect, name)?;
        names::resource(self.database, &self.path, &parts)
    }

    /// A resource of the database that is no table: `role`, `setting`, …
    pub(super) fn thing(&self, kind: &str, name: &str) -> String {
        format!("{}/{kind}:{}", self.database.address, names::plain(name))
    }

    /// Adds `effect` as it is made for the resource of `name` and for what stands behind it.
    pub(super) fn on(&mut self, name: &ObjectName, make: impl Fn(String) -> Effect) {
        match self.resource(name) {
            Some(resource) => self.on_resource(&resource, &make, VIEWS_MAX),
            None => self.opaque(NoteCode::Unreadable, "a name that leads to no known table"),
        }
    }

    fn on_resource(&mut self, resource: &str, make: &dyn Fn(String) -> Effect, views: usize) {
        let effect = make(resource.to_owned());
        let key = resource.strip_prefix(&self.database.address).unwrap_or(resource);
        let key = key.trim_start_matches('/');
        let database = self.database;
        let secret = lists::known(database.dialect).credentials.iter().any(|table| {
            resource.strip_suffix(table.as_str()).is_some_and(|rest| rest.ends_with('/'))
        });
        if secret {
            let evidence = format!("`{key}` holds credentials");
            self.effects.note(NoteCode::CredentialTouched, evidence);
        }
        let system = ["pg_catalog.", "information_schema.", "sqlite_", "mysql/"]
            .iter()
            .any(|prefix| key.starts_with(prefix) || resource.contains("/mysql/"));
        let writes = effect.class > EffectClass::Read;
        self.effects.add(match system && writes {
            true => effect.at_least(EffectClass::Destructive),
            false => effect,
        });
        let Some(tables) = database.views.get(key) else { return };
        if views == 0 {
            return self.opaque(NoteCode::TooLarge, "views behind views behind views");
        }
        for table in tables {
            let resource = format!("{}/{table}", database.address);
            let bounded = |resource| make(resource).no_surer_than(Certainty::Bounded);
            self.on_resource(&resource, &bounded, views - 1);
        }
    }
}

// === impl Walk ===

impl Walk<'_, '_> {
    pub(super) fn dialect(&self) -> Dialect {
        self.batch.database.dialect
    }

    /// Says that the name that stands there needs no further look.
    pub(super) fn deal_with(&mut self, name: &ObjectName) {
        self.dealt.push(name);
    }

    /// Adds an effect on a table, which is only a look if the statement is not run.
    pub(super) fn on(&mut self, name: &ObjectName, make: impl Fn(String) -> Effect) {
        if self.is_only(name) {
            let evidence = "`ONLY` before the name of a table";
            return self.batch.opaque(NoteCode::Unreadable, evidence);
        }
        if self.planned > 0 {
            self.batch.on(name, |resource| {
                let evidence = make(resource.clone()).evidence;
                Effect::new(Verb::Read, resource, format!("`EXPLAIN`: {evidence}"))
            });
        } else {
            self.batch.on(name, make);
        }
    }

    /// The parser reads PostgreSQL's `DELETE FROM ONLY t` as a table called `only`.
    fn is_only(&self, name: &ObjectName) -> bool {
        let only =
            |ident: &Ident| ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("only");
        self.dialect() == Dialect::Postgres
            && name.0.len() == 1
            && name.0.iter().any(|part| part.as_ident().is_some_and(only))
    }

    fn is_own(&self, name: &ObjectName) -> bool {
        let [part] = name.0.as_slice() else { return false };
        let Some(ident) = part.as_ident() else { return false };
        let folded = names::fold(self.dialect(), ident);
        self.scopes
            .iter()
            .any(|scope| scope.queries.iter().take(scope.visible).any(|(_, name)| *name == folded))
    }

    fn reads(&mut self, name: &ObjectName) {
        if !self.is_own(name) {
            self.on(name, |resource| Effect::new(Verb::Read, resource, "reads"));
        }
    }

    /// A function call: harmless, with an effect of its own, or unseen.
    pub(super) fn calls(&mut self, name: &ObjectName) {
        let dialect = self.dialect();
        let parts = names::parts(dialect, name).unwrap_or_default();
        let (schema, last) = match parts.as_slice() {
            [last] => ("", last.as_str()),
            [schema, last] => (schema.as_str(), last.as_str()),
            _ => ("?", ""),
        };
        let builtin = schema.is_empty() || (schema == "pg_catalog" && dialect == Dialect::Postgres);
        let own = &self.batch.database.read_functions;
        if own.contains(last) && builtin || own.contains(&parts.join(".")) {
            return;
        }
        let path = if builtin { Path::Usual } else { self.batch.path.clone() };
        let resource = names::resource(self.batch.database, &path, &parts).map_or_else(
            || self.batch.database.address.clone(),
            |resource| format!("{resource}()"),
        );
        match lists::function(dialect, last) {
            Call::Harmless if builtin => {}
            Call::Does(verb) if builtin => {
                self.batch.effects.add(Effect::new(verb, resource, format!("calls `{last}`")));
            }
            Call::Harmless | Call::Does(_) | Call::Unknown => {
                let evidence = format!("calls `{}`, which is not known", parts.join("."));
                self.batch.effects.add_opaque(&resource, NoteCode::UnseenCode, evidence);
            }
        }
    }

    fn enter(&mut self, query: &Query) {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        let dialect = self.dialect();
        let queries: Vec<_> = named
            .map(|named| (&raw const *named.query, names::fold(dialect, &named.alias.name)))
            .collect();
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        let visible = if recursive { queries.len() } else { 0 };
        self.scopes.push(Scope { queries, visible });
        self.enter_body(&query.body);
        if !query.locks.is_empty() {
            self.locks(query);
        }
    }

    /// `SELECT … INTO` and `TABLE t`, which the parser shows as neither statement nor relation.
    fn enter_body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.enter_body(left);
                self.enter_body(right);
            }
            // The parser swallows what follows the name.
            SetExpr::Table(_) => self.batch.opaque(NoteCode::Unreadable, "`TABLE` in a query"),
            SetExpr::Select(select) => {
                if let Some(into) = &select.into {
                    statement::select_into(into, self);
                }
            }
            SetExpr::Query(_)
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_) => {}
        }
    }

    /// `FOR UPDATE` and the like: nobody else can change the rows for the time being.
    fn locks(&mut self, query: &Query) {
        let make = |resource| {
            let effect = Effect::new(Verb::Read, resource, "locks rows with `FOR UPDATE` or alike");
            effect.at_least(EffectClass::Write)
        };
        let mut tables = Vec::new();
        if let SetExpr::Select(select) = &*query.body {
            let joined = select.from.iter().flat_map(|from| {
                std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
            });
            tables.extend(joined.filter_map(|factor| match factor {
                TableFactor::Table { name, args: None, .. } => Some(name),
                _ => None,
            }));
        }
        if tables.is_empty() {
            let effect = make(self.batch.database.address.clone());
            return self.batch.effects.add(effect);
        }
        for table in tables {
            if !self.is_own(table) {
                self.on(table, make);
            }
        }
    }
}

impl Visitor for Walk<'_, '_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        statement::enter(statement, self);
        ControlFlow::Continue(())
    }

    fn post_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        statement::leave(statement, self);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut() {
            let at = scope.queries.iter().position(|(named, _)| std::ptr::eq(*named, query));
            scope.visible = scope.visible.max(at.map_or(0, |at| at + 1));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let at = self.dealt.iter().position(|dealt| std::ptr::eq(*dealt, relation));
        match at {
            Some(at) => drop(self.dealt.swap_remove(at)),
            None => self.reads(relation),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            // A table with arguments is a function.
            TableFactor::Table { name, args: Some(_), .. } => {
                self.deal_with(name);
                self.calls(name);
            }
            TableFactor::Function { name, .. } => self.calls(name),
            TableFactor::Table { .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::XmlTable { .. } => {}
            _ => self.batch.opaque(NoteCode::Unreadable, "a source of rows that is not known"),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            // `ARRAY(SELECT …)` has the form of a call.
            Expr::Function(function)
                if matches!(function.args, FunctionArguments::Subquery(_))
                    && function.name.to_string().eq_ignore_ascii_case("array") => {}
            Expr::Function(function) => self.calls(&function.name),
            // An operator of somebody's own is a function of somebody's own.
            Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(_), .. }
            | Expr::BinaryOp { op: BinaryOperator::Custom(_), .. } => {
                let evidence = "an operator that is not known";
                self.batch.opaque(NoteCode::UnseenCode, evidence);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

// === functions ===

/// Lists everything that `statement` does.
pub(super) fn walk(statement: &Statement, batch: &mut Batch<'_>) {
    let mut walk = Walk { batch, scopes: Vec::new(), dealt: Vec::new(), planned: 0 };
    // The walk never breaks off, so there is nothing to be told at its end.
    let _ = statement.visit(&mut walk);
}

/// The text of a constant string.
pub(super) fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Identifier(ident) => Some(&ident.value),
        _ => None,
    }
}
