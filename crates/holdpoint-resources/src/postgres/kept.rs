//! What is kept to take a change back: old and new rows as texts.
//!
//! Owns the format. Must never be applied to a table that is made otherwise than the one it was
//! taken from.

use super::catalog::{self, Column, KeyColumn, Table};
use super::image::{self, Budget, Image, Key, TableDiff};
use super::link::{Failed, Link};
use super::trash::Moved;
use crate::resource::{Conflict, ResourceFault, TargetState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Kept {
    /// Old and new rows.
    Rows {
        /// By table.
        tables: Vec<KeptTable>,
    },
    /// Tables that were moved away.
    Trash {
        /// The schema that they are in.
        trash: String,
        /// The tables.
        tables: Vec<Moved>,
    },
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptTable {
    schema: String,
    name: String,
    /// Names and types.
    columns: Vec<(String, String)>,
    /// The columns of the key.
    key: Vec<usize>,
    rows: Vec<KeptRow>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptRow {
    pub(super) before: Option<Image>,
    pub(super) after: Option<Image>,
}

/// What was kept of a row, and what is there now.
#[derive(Clone, Debug)]
pub(super) struct FacedRow {
    pub(super) key: Key,
    pub(super) kept: KeptRow,
    pub(super) present: Option<Image>,
}

/// A table as it is now, and its rows.
pub(super) struct Faced {
    pub(super) table: Table,
    pub(super) rows: Vec<FacedRow>,
    /// Why nothing of it can be compared.
    pub(super) fault: Option<&'static str>,
}

// === impl Kept ===

impl Kept {
    /// What takes these changes back.
    pub(super) fn rows(diffs: &[TableDiff]) -> Self {
        Self::Rows { tables: diffs.iter().map(KeptTable::of).collect() }
    }

    /// As it is stored.
    pub(super) fn to_value(&self) -> Result<Value, ResourceFault> {
        serde_json::to_value(self).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn read(value: &Value) -> Result<Self, ResourceFault> {
        let read = serde_json::from_value(value.clone());
        read.map_err(|_| ResourceFault::Invalid("what was kept cannot be read".to_owned()))
    }
}

// === impl KeptTable ===

impl KeptTable {
    fn of(diff: &TableDiff) -> Self {
        let columns = diff.table.columns.iter();
        let rows = diff.rows.values().cloned();
        Self {
            schema: diff.table.schema.clone(),
            name: diff.table.name.clone(),
            columns: columns.map(|column| (column.name.clone(), column.kind.clone())).collect(),
            key: diff.table.key.iter().map(|key| key.column).collect(),
            rows: rows.map(|(before, after)| KeptRow { before, after }).collect(),
        }
    }

    /// What is there now, for each row.
    pub(super) async fn face(&self, link: &Link, budget: &mut Budget) -> Result<Faced, Failed> {
        let sql = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
            ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
        let asked = [(&self.schema as _, Type::TEXT), (&self.name as _, Type::TEXT)];
        let found = link.rows(sql, &asked).await?;
        let oids = found.iter().map(|row| catalog::get(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let table = catalog::describe(link, &oids).await?.pop();
        let (table, fault) = self.now(table);
        let mut rows: Vec<FacedRow> = self.rows.iter().filter_map(|row| self.faced(row)).collect();
        if fault.is_none() {
            let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
            let mut present = image::by_key(link, &table, &keys, budget).await?;
            for row in &mut rows {
                row.present = present.remove(&row.key);
            }
        }
        Ok(Faced { table, rows, fault })
    }

    fn faced(&self, row: &KeptRow) -> Option<FacedRow> {
        let image = row.before.as_ref().or(row.after.as_ref())?;
        let key = self.key.iter().map(|at| image.get(*at).cloned().flatten());
        Some(FacedRow { key: key.collect::<Option<Key>>()?, kept: row.clone(), present: None })
    }

    /// The table with just the columns that were kept, and what forbids to compare it.
    fn now(&self, table: Option<Table>) -> (Table, Option<&'static str>) {
        let Some(mut table) = table else { return (self.as_it_was(), Some("its table is gone")) };
        let find = |(name, kind): &(String, String)| -> Option<Column> {
            let known = table.columns.iter().find(|column| column.name == *name);
            known.filter(|column| column.kind == *kind).cloned()
        };
        let Some(columns) = self.columns.iter().map(find).collect::<Option<Vec<_>>>() else {
            return (self.as_it_was(), Some("a column of its table was changed"));
        };
        let place = |key: &KeyColumn| -> Option<KeyColumn> {
            let name = &table.columns.get(key.column)?.name;
            let column = self.columns.iter().position(|(known, _)| known == name)?;
            Some(KeyColumn { column, equals: key.equals.clone() })
        };
        let key: Vec<KeyColumn> = table.key.iter().filter_map(place).collect();
        let same = key.iter().map(|key| key.column).eq(self.key.iter().copied());
        (table.columns, table.key) = (columns, key);
        if !same {
            return (self.as_it_was(), Some("the key of its table was changed"));
        }
        let unreadable = (!table.readable).then_some("its table may not be read any more");
        (table, unreadable)
    }

    /// The table as far as it is known without looking; enough to name its rows.
    fn as_it_was(&self) -> Table {
        let column = |(name, kind): &(String, String)| Column {
            name: name.clone(),
            kind: kind.clone(),
            generated: false,
        };
        let key = |column: &usize| KeyColumn { column: *column, equals: String::new() };
        Table {
            oid: 0,
            schema: self.schema.clone(),
            name: self.name.clone(),
            columns: self.columns.iter().map(column).collect(),
            key: self.key.iter().map(key).collect(),
            triggers: Vec::new(),
            readable: false,
            owned: false,
            ruled: false,
        }
    }
}

// === functions ===

/// What the rows are now, all of them together.
pub(super) fn state_of(faced: &[Faced], place: &str) -> TargetState {
    let mut others = Vec::new();
    let (mut before, mut after) = (0_usize, 0_usize);
    for table in faced {
        for row in &table.rows {
            let why = match (table.fault, &row.present) {
                (Some(fault), _) => fault,
                (None, present) if *present == row.kept.after => {
                    after += 1;
                    continue;
                }
                (None, present) if *present == row.kept.before => {
                    before += 1;
                    "it is as it was before"
                }
                (None, None) => "it is gone",
                (None, Some(_)) => "it was changed since",
            };
            let resource = image::address(place, &table.table, &row.key);
            others.push(Conflict { resource, why: why.to_owned() });
        }
    }
    match (before, others.len()) {
        (_, 0) => TargetState::After,
        (_, count) if count == before && after == 0 => TargetState::Before,
        _ => TargetState::Changed(others),
    }
}
