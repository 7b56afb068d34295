//! Foreign keys that would carry a revert further than the rows it is about.
//! Must never let the rows that others added go with a row that is taken away.

use super::catalog::{self, Table, get};
use super::image::{self, Image, Key, listed};
use super::link::{Failed, Link};
use super::revert::Step;
use super::text::name;
use std::collections::BTreeSet;
use tokio_postgres::types::{ToSql, Type};

/// A foreign key that does something to rows when what they refer to goes away.
struct Reference {
    child: Table,
    /// For each pair: the column that refers, the operator, the column that it refers to.
    pairs: Vec<(String, String, String)>,
}

const REFERENCES: &str = "SELECT f.conrelid, c.attname::pg_catalog.text, \
    s.nspname::pg_catalog.text, o.oprname::pg_catalog.text, p.attname::pg_catalog.text, f.oid \
    FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class k ON k.oid = f.conrelid \
    CROSS JOIN LATERAL pg_catalog.generate_subscripts(f.conkey, 1) i \
    JOIN pg_catalog.pg_attribute c ON c.attrelid = f.conrelid AND c.attnum = f.conkey[i] \
    JOIN pg_catalog.pg_attribute p ON p.attrelid = f.confrelid AND p.attnum = f.confkey[i] \
    JOIN pg_catalog.pg_operator o ON o.oid = f.conpfeqop[i] \
    JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace \
    WHERE f.contype = 'f' AND f.confrelid = $1 AND f.confdeltype IN ('c', 'n', 'd') \
    AND k.relkind = 'r' ORDER BY f.oid, i";

/// Takes out of `steps` what would take rows along that are in no step, and tells why.
pub(super) async fn keep_referred(
    link: &Link,
    tables: &[Table],
    steps: &mut Vec<Step>,
    mut tell: impl FnMut(&Step, &str),
) -> Result<(), Failed> {
    let mut references = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let deletes = steps.iter().any(|step| step.table == at && step.wanted.is_none());
        if deletes {
            references.push((at, references_to(link, table.oid).await?));
        }
    }
    // A row that stays keeps what it refers to: again until nothing more stays.
    loop {
        let mut kept: BTreeSet<(usize, Key)> = BTreeSet::new();
        for (at, references) in &references {
            for reference in references {
                for key in referred(link, (*at, tables), reference, steps).await? {
                    kept.insert((*at, key));
                }
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        steps.retain(|step| {
            let stays = kept.contains(&(step.table, step.key.clone()));
            if stays {
                tell(step, "rows that were added since refer to it");
            }
            !stays
        });
    }
}

async fn references_to(link: &Link, oid: u32) -> Result<Vec<Reference>, Failed> {
    let mut found: Vec<(u32, Reference)> = Vec::new();
    for row in link.rows(REFERENCES, &[(&oid as _, Type::OID)]).await? {
        let (child, constraint): (u32, u32) = (get(&row, 0)?, get(&row, 5)?);
        let (schema, sign): (String, String) = (get(&row, 2)?, get(&row, 3)?);
        let equals = format!("OPERATOR({}.{sign})", name(&schema));
        let pair = (get(&row, 1)?, equals, get(&row, 4)?);
        match found.last_mut().filter(|(known, _)| *known == constraint) {
            Some((_, reference)) => reference.pairs.push(pair),
            None => {
                let Some(child) = catalog::describe(link, &[child]).await?.pop() else { continue };
                found.push((constraint, Reference { child, pairs: vec![pair] }));
            }
        }
    }
    Ok(found.into_iter().map(|(_, reference)| reference).collect())
}

/// The keys of rows about to be deleted that rows in no step refer to.
async fn referred(
    link: &Link,
    (at, tables): (usize, &[Table]),
    reference: &Reference,
    steps: &[Step],
) -> Result<Vec<Key>, Failed> {
    let Some(table) = tables.get(at) else { return Ok(Vec::new()) };
    let child = &reference.child;
    let deletes = steps.iter().filter(|step| step.table == at && step.wanted.is_none());
    let deletes: Vec<&Step> = deletes.collect();
    let column = |wanted: &str| {
        let at = table.columns.iter().position(|column| column.name == wanted);
        at.and_then(|at| Some((at, &table.columns.get(at)?.kind)))
    };
    let mut lists: Vec<Vec<Option<String>>> = Vec::new();
    let mut equal = Vec::new();
    for (place, (refers, equals, to)) in reference.pairs.iter().enumerate() {
        // A column that is referred to and was not kept was added since: nothing is known of it.
        let Some((at, kind)) = column(to) else { return Ok(keys(&deletes)) };
        let value = |step: &&Step| -> Option<String> { step.present.as_ref()?.get(at)?.clone() };
        lists.push(deletes.iter().map(value).collect());
        // The operator wants what is referred to first.
        equal.push(format!("r.c{place}::{kind} {equals} t.{}", name(refers)));
    }
    lists.push((0..deletes.len()).map(|place| Some(place.to_string())).collect());
    let (count, known) = (lists.len(), tables.iter().position(|table| table.oid == child.oid));
    let sql = format!(
        "SELECT r.c{}, {} FROM ONLY {} AS t JOIN {} ON {}",
        count - 1,
        image::values(child),
        child.sql(),
        listed(1, count),
        equal.join(" AND ")
    );
    let p: Vec<(&(dyn ToSql + Sync), Type)> =
        lists.iter().map(|list| (list as _, Type::TEXT_ARRAY)).collect();
    let mut found = BTreeSet::new();
    for row in link.rows(&sql, &p).await? {
        let image = (1..=child.columns.len()).map(|at| get(&row, at));
        let image = image.collect::<Result<Image, Failed>>()?;
        let key = image::key_of(child, &image).unwrap_or_default();
        let stepped = |step: &Step| Some(step.table) == known && step.key == key;
        if key.is_empty() || !steps.iter().any(stepped) {
            let place: String = get(&row, 0)?;
            found.extend(place.parse::<usize>().ok());
        }
    }
    let found = found.into_iter().filter_map(|place| deletes.get(place));
    Ok(found.map(|step| step.key.clone()).collect())
}

fn keys(steps: &[&Step]) -> Vec<Key> {
    steps.iter().map(|step| step.key.clone()).collect()
}
