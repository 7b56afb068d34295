//! Values that are others each time though nobody wants another thing: numbers drawn from
//! sequences, and the time of the transaction.
//!
//! Owns how a preview shows them, so that it is the same when it is looked at again. Must never
//! take a value for drawn that was there before, and never touch what undo keeps.

use super::catalog::{Table, get};
use super::image::{Image, Key, TableDiff, escaped, typed};
use super::link::{Failed, Link};
use crate::resource::Change;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

/// Sequences that could be drawn from, and the last number of each.
pub(super) type Sequences = BTreeMap<u32, (String, Option<i64>)>;

/// What was drawn.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// The sequence of a column of new rows, by table.
    columns: BTreeMap<(u32, String), u32>,
    /// The column that another one refers to.
    references: BTreeMap<(u32, String), (u32, String)>,
    /// Of each drawn number, which one it was.
    ranks: BTreeMap<(u32, i64), usize>,
    names: BTreeMap<u32, String>,
    /// The time of the transaction, for types with and without a time zone.
    times: Vec<(&'static str, String)>,
}

/// Sequences that these words name, or that belong to relations that they name.
const SEQUENCES: &str = "SELECT c.oid, pg_catalog.concat(n.nspname, '.', c.relname), \
    CASE WHEN c.relkind <> 'S' THEN NULL \
    WHEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE') \
    THEN pg_catalog.pg_sequence_last_value(c.oid) END FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' \
    AND CASE c.relkind WHEN 'S' THEN \
    pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE') END \
    AND (pg_catalog.lower(c.relname) = ANY ($1) OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid WHERE d.objid = c.oid \
    AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid \
    AND d.deptype IN ('a', 'i') AND pg_catalog.lower(t.relname) = ANY ($1)))";

const LAST: &str = "SELECT s.oid, pg_catalog.pg_sequence_last_value(s.oid) \
    FROM pg_catalog.unnest($1) AS s(oid)";

/// Columns of tables that are filled from a sequence, and columns that refer to one other.
const COLUMNS: &str = "SELECT a.attrelid, a.attname::pg_catalog.text, d.refobjid, NULL \
    FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid \
    AND a.attnum = f.adnum JOIN pg_catalog.pg_depend d ON d.objid = f.oid \
    AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ($2) \
    WHERE a.attrelid = ANY ($1) \
    UNION ALL SELECT a.attrelid, a.attname::pg_catalog.text, d.objid, NULL \
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid \
    AND a.attnum = d.refobjsubid WHERE d.deptype = 'i' AND d.objid = ANY ($2) \
    AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attrelid = ANY ($1) \
    UNION ALL SELECT k.conrelid, a.attname::pg_catalog.text, k.confrelid, \
    p.attname::pg_catalog.text FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] \
    JOIN pg_catalog.pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[1] \
    WHERE k.contype = 'f' AND k.conrelid = ANY ($1) \
    AND pg_catalog.array_length(k.conkey, 1) = 1";

const TIMES: &str = "SELECT pg_catalog.format('%s', pg_catalog.now()), \
    pg_catalog.format('%s', pg_catalog.timezone($1, pg_catalog.now()))";

// === impl Drawn ===

impl Drawn {
    /// What these diffs drew, since the last numbers were `before`. `zone` is the time zone in
    /// which the statements ran.
    pub(super) async fn find(
        now: &Link,
        (before, zone): (&Sequences, &str),
        diffs: &[TableDiff],
    ) -> Result<Self, Failed> {
        let mut drawn = Self::default();
        let row = now.row(TIMES, &[(&zone as _, Type::TEXT)]).await?;
        drawn.times.push(("timestamp with time zone", get(&row, 0)?));
        drawn.times.push(("timestamp without time zone", get(&row, 1)?));
        let oids: Vec<u32> = before.keys().copied().collect();
        let tables: Vec<u32> = diffs.iter().map(|diff| diff.table.oid).collect();
        if oids.is_empty() || tables.is_empty() {
            return Ok(drawn);
        }
        let sequences = (&oids as _, Type::OID_ARRAY);
        let mut last = BTreeMap::new();
        for row in now.rows(LAST, std::slice::from_ref(&sequences)).await? {
            let (oid, value): (u32, Option<i64>) = (get(&row, 0)?, get(&row, 1)?);
            last.insert(oid, value);
        }
        for row in now.rows(COLUMNS, &[(&tables as _, Type::OID_ARRAY), sequences]).await? {
            let column: (u32, String) = (get(&row, 0)?, get(&row, 1)?);
            let (of, to): (u32, Option<String>) = (get(&row, 2)?, get(&row, 3)?);
            match to {
                None => drawn.columns.insert(column, of).is_some(),
                Some(to) => drawn.references.insert(column, (of, to)).is_some(),
            };
        }
        drawn.rank((before, &last), diffs);
        Ok(drawn)
    }

    /// Orders the numbers that new rows hold and that were not given out before.
    fn rank(
        &mut self,
        (before, last): (&Sequences, &BTreeMap<u32, Option<i64>>),
        diffs: &[TableDiff],
    ) {
        let mut numbers: BTreeMap<u32, BTreeSet<i64>> = BTreeMap::new();
        for diff in diffs {
            let table = &diff.table;
            for (at, column) in table.columns.iter().enumerate() {
                let Some(sequence) = self.columns.get(&(table.oid, column.name.clone())) else {
                    continue;
                };
                let first = before.get(sequence).and_then(|(_, first)| *first);
                let Some(Some(end)) = last.get(sequence) else { continue };
                let rows = diff.rows.values().filter(|(before, _)| before.is_none());
                let values = rows.filter_map(|(_, after)| after.as_ref()?.get(at)?.as_ref());
                let values = values.filter_map(|text| text.parse::<i64>().ok());
                let fresh = values.filter(|value| match first {
                    Some(first) if first <= *end => first < *value && value <= end,
                    Some(first) => end <= value && *value < first,
                    None => value <= end,
                });
                numbers.entry(*sequence).or_default().extend(fresh);
            }
        }
        for (sequence, numbers) in numbers {
            self.names.extend(before.get(&sequence).map(|(name, _)| (sequence, name.clone())));
            let ranked = numbers.into_iter().zip(1..);
            self.ranks.extend(ranked.map(|(number, nth)| ((sequence, number), nth)));
        }
    }

    /// Which number of which sequence a value is.
    fn number(&self, table: &Table, column: &str, text: &str) -> Option<(u32, usize)> {
        let own = (table.oid, column.to_owned());
        let source = self.references.get(&own).unwrap_or(&own);
        // A column that refers to another may have numbers of its own.
        let sequence = self.columns.get(source).or_else(|| self.columns.get(&own))?;
        let nth = self.ranks.get(&(*sequence, text.parse().ok()?))?;
        Some((*sequence, *nth))
    }

    /// A new value as people read it.
    fn shown(&self, table: &Table, at: usize, (old, text): (Option<&str>, &str)) -> Value {
        let Some(column) = table.columns.get(at) else { return Value::Null };
        if old == Some(text) {
            return typed(&column.kind, text);
        }
        if let Some((sequence, nth)) = self.number(table, &column.name, text) {
            let name = self.names.get(&sequence);
            return json!({ "next_of": name, "nth": nth });
        }
        let time = |(kind, now): &(&str, String)| column.kind == *kind && now == text;
        if self.times.iter().any(time) {
            return json!({ "time_of": "execution" });
        }
        typed(&column.kind, text)
    }

    fn row(&self, table: &Table, (old, new): (Option<&Image>, &Image)) -> Value {
        let values = table.columns.iter().zip(new).enumerate();
        let pairs = values.map(|(at, (column, text))| {
            let old = old.and_then(|old| old.get(at)?.as_deref());
            let text = text.as_deref();
            let value = text.map_or(Value::Null, |text| self.shown(table, at, (old, text)));
            (column.name.clone(), value)
        });
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    /// The address of a new row, and what orders it among others.
    fn address(&self, place: &str, table: &Table, key: &Key) -> (String, Vec<(usize, String)>) {
        let (mut parts, mut order) = (Vec::new(), Vec::new());
        for ((_, column), value) in table.key_columns().zip(key) {
            let number = self.number(table, &column.name, value);
            let text = number.map_or_else(|| escaped(value), |(_, nth)| format!("*{nth}"));
            parts.push(format!("{}={text}", column.name));
            let nth = number.map_or(0, |(_, nth)| nth);
            order.push((nth, if nth == 0 { value.clone() } else { String::new() }));
        }
        (format!("{place}/{}/{}", table.shown(), parts.join(",")), order)
    }

    /// The changes of a table, for people and for the digest.
    pub(super) fn changes(&self, place: &str, diff: &TableDiff) -> Vec<Change> {
        let blank = Self::default();
        let rows = diff.rows.iter().map(|(key, (before, after))| {
            let known = if before.is_none() { self } else { &blank };
            let (resource, order) = known.address(place, &diff.table, key);
            let after = after.as_ref().map(|row| self.row(&diff.table, (before.as_ref(), row)));
            let before = before.as_ref().map(|row| blank.row(&diff.table, (None, row)));
            (order, Change { resource, before, after })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        rows.into_iter().map(|(_, change)| change).collect()
    }
}

// === functions ===

/// Sequences that statements with these words could draw from, and where they are.
pub(super) async fn sequences(link: &Link, words: &[String]) -> Result<Sequences, Failed> {
    let mut found = Sequences::new();
    for row in link.rows(SEQUENCES, &[(&words as _, Type::TEXT_ARRAY)]).await? {
        found.insert(get(&row, 0)?, (get(&row, 1)?, get(&row, 2)?));
    }
    Ok(found)
}
