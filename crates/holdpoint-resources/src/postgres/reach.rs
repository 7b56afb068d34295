//! What a call could reach besides rows: functions, of triggers and defaults too, whose effects do
//! not end with the transaction. Found by names, before anything runs.
//!
//! Owns the lists of what escapes. Must take a name that could be meant for one that is: an
//! accidental match costs a preview, a missed one would be an effect that nobody permitted.
//! Names that are only put together while something runs cannot be found, so what puts statements
//! together escapes itself.

use super::catalog::get;
use super::link::{Failed, Link};
use super::text::words;
use crate::resource::ResourceFault;
use std::collections::BTreeSet;
use tokio_postgres::types::Type;

/// How far functions that call functions are followed.
const ROUNDS: usize = 20;
/// Most bytes of definitions that are read.
const DEFINITIONS_BYTES_MAX: usize = 4 << 20;

/// Extensions whose functions do nothing but compute, or change rows.
const TAME: &str = "amcheck,autoinc,bloom,btree_gin,btree_gist,citext,cube,dict_int,dict_xsyn,\
    earthdistance,fuzzystrmatch,hstore,insert_username,intagg,intarray,isn,lo,ltree,moddatetime,\
    pg_stat_statements,pg_trgm,pgcrypto,pgrowlocks,pgstattuple,plpgsql,postgis,postgis_topology,\
    refint,seg,sslinfo,tsm_system_rows,tsm_system_time,unaccent,uuid-ossp,vector";

/// Functions of the server itself that do what no rollback takes back.
const WILD: &str = "setval,lo_export,pg_terminate_backend,pg_cancel_backend,pg_reload_conf,\
    pg_rotate_logfile,pg_switch_wal,pg_create_restore_point,pg_promote,pg_wal_replay_pause,\
    pg_wal_replay_resume,pg_create_physical_replication_slot,pg_create_logical_replication_slot,\
    pg_copy_physical_replication_slot,pg_copy_logical_replication_slot,pg_drop_replication_slot,\
    pg_replication_slot_advance,pg_logical_slot_get_changes,pg_logical_slot_get_binary_changes,\
    pg_logical_emit_message,pg_replication_origin_advance,pg_replication_origin_create,\
    pg_replication_origin_drop,pg_backup_start,pg_backup_stop,pg_start_backup,pg_stop_backup,\
    pg_stat_reset,pg_stat_reset_shared,pg_stat_reset_single_table_counters,pg_stat_reset_slru,\
    pg_log_backend_memory_contexts,pg_import_system_collations,query_to_xml,query_to_xmlschema,\
    query_to_xml_and_xmlschema,cursor_to_xml,cursor_to_xmlschema,table_to_xml,\
    table_to_xml_and_xmlschema,schema_to_xml,schema_to_xml_and_xmlschema,database_to_xml,\
    database_to_xml_and_xmlschema,ts_stat,ts_rewrite";

/// Wrappers of other servers that follow the transaction, or only read.
const WRAPPERS: &str = "postgres_fdw,file_fdw";

/// Words for values that are others each time.
const VOLATILE: &[&str] = &[
    "clock_timestamp",
    "current_date",
    "current_time",
    "current_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "localtime",
    "localtimestamp",
    "now",
    "random",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "uuid_generate_v1",
    "uuid_generate_v4",
];

/// What could be reached.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// What does not end with the transaction.
    pub(super) escapes: Vec<String>,
    /// True if listeners may be told something.
    pub(super) notifies: bool,
    /// What is another value each time.
    pub(super) volatile: Vec<&'static str>,
    /// Everything that is named anywhere.
    pub(super) words: Vec<String>,
}

/// What is known so far.
#[derive(Default)]
struct Search {
    words: BTreeSet<String>,
    /// Words of definitions, and of statements that run whatever they hold.
    run: BTreeSet<String>,
    bytes: usize,
    /// Functions, and statements, that run what they put together.
    dynamic: BTreeSet<String>,
}

// === impl Search ===

impl Search {
    /// Takes the definitions of all that these words name into account; the words that are new.
    async fn follow(&mut self, link: &Link, new: &[String]) -> Result<Vec<String>, Failed> {
        let mut found = BTreeSet::new();
        for row in link.rows(DEFINITIONS, &[(&new as _, Type::TEXT_ARRAY)]).await? {
            let text: Option<String> = get(&row, 0)?;
            let text = text.unwrap_or_default();
            self.bytes = self.bytes.saturating_add(text.len());
            if self.bytes > DEFINITIONS_BYTES_MAX {
                let what = format!("more than {DEFINITIONS_BYTES_MAX} bytes of definitions");
                return Err(ResourceFault::TooLarge(what).into());
            }
            let mut words = words(&text);
            let function: Option<String> = get(&row, 1)?;
            if let Some(function) = function.filter(|_| words.contains("execute")) {
                self.dynamic.insert(format!("execute in {function}"));
            }
            found.append(&mut words);
        }
        self.run.extend(found.iter().cloned());
        let new = found.into_iter().filter(|word| self.words.insert(word.clone()));
        Ok(new.collect())
    }
}

// === functions ===

/// What statements could reach. `link` must look with an empty `search_path`; of each text it is
/// told whether all of it is run, whatever it holds.
pub(super) async fn reach(link: &Link, texts: &[(&str, bool)]) -> Result<Reach, Failed> {
    let mut search = Search::default();
    for (text, run) in texts {
        if text.to_lowercase().contains("u&\"") {
            let why = "write names as they are, without `U&`".to_owned();
            return Err(ResourceFault::Refused(why).into());
        }
        let words = words(text);
        // What it puts together while it runs has no name that could be found.
        if *run && words.contains("execute") {
            search.dynamic.insert("execute".to_owned());
        }
        if *run {
            search.run.extend(words.iter().cloned());
        }
        search.words.extend(words);
    }
    let mut new: Vec<String> = search.words.iter().cloned().collect();
    for round in 0.. {
        if round == ROUNDS {
            let what = "functions that call functions that call functions".to_owned();
            return Err(ResourceFault::TooLarge(what).into());
        }
        new = search.follow(link, &new).await?;
        if new.is_empty() {
            break;
        }
    }
    if search.run.contains("execute") {
        search.run.extend(search.words.iter().cloned());
    }
    let words: Vec<String> = search.words.iter().cloned().collect();
    let mut escapes = Vec::new();
    for row in link.rows(&escaping(), &[(&words as _, Type::TEXT_ARRAY)]).await? {
        escapes.push(get(&row, 0)?);
    }
    let runs = |word: &str| search.run.contains(word);
    escapes.extend(search.dynamic);
    if runs("copy") {
        escapes.push("copy".to_owned());
    }
    let volatile = VOLATILE.iter().copied().filter(|word| search.words.contains(*word));
    let notifies = search.words.contains("pg_notify") || runs("notify");
    let volatile = volatile.collect();
    Ok(Reach { escapes, notifies, volatile, words })
}

/// The text of everything that a name can lead to, and of functions their name: what they do;
/// triggers, rules, defaults,
/// checks and policies of relations; relations that refer to them or are parts of them. Operators
/// and casts have no names that a statement must say, so all that somebody made count.
const DEFINITIONS: &str = "WITH r AS (SELECT c.oid FROM pg_catalog.pg_class c \
    WHERE pg_catalog.lower(c.relname) = ANY ($1) \
    AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace) \
    SELECT pg_catalog.concat(p.prosrc, ' ', pg_catalog.pg_get_function_sqlbody(p.oid), ' ', \
    pg_catalog.pg_get_expr(p.proargdefaults, 0)), p.proname::pg_catalog.text \
    FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
    WHERE pg_catalog.lower(p.proname) = ANY ($1) AND l.lanname NOT IN ('c', 'internal') \
    AND p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace \
    UNION ALL SELECT d.told, NULL FROM (\
    SELECT pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t \
    JOIN r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal \
    UNION ALL SELECT pg_catalog.pg_get_ruledef(w.oid) FROM pg_catalog.pg_rewrite w \
    JOIN r ON r.oid = w.ev_class \
    UNION ALL SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d \
    JOIN r ON r.oid = d.adrelid \
    UNION ALL SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k \
    JOIN r ON r.oid = k.conrelid WHERE k.contype = 'c' \
    UNION ALL SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_attribute a ON a.atttypid = k.contypid JOIN r ON r.oid = a.attrelid \
    WHERE k.contypid <> 0 \
    UNION ALL SELECT pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i \
    JOIN r ON r.oid = i.indrelid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL \
    UNION ALL SELECT pg_catalog.concat(pg_catalog.pg_get_expr(y.polqual, y.polrelid), ' ', \
    pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid)) FROM pg_catalog.pg_policy y \
    JOIN r ON r.oid = y.polrelid \
    UNION ALL SELECT pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_constraint k \
    JOIN r ON r.oid = k.confrelid JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
    UNION ALL SELECT pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_inherits h \
    JOIN r ON r.oid = h.inhparent JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid \
    UNION ALL SELECT pg_catalog.quote_ident(p.proname) FROM pg_catalog.pg_operator o \
    JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
    WHERE p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND NOT EXISTS (SELECT \
    FROM pg_catalog.pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e') \
    UNION ALL SELECT pg_catalog.quote_ident(p.proname) FROM pg_catalog.pg_cast k \
    JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc \
    WHERE p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND NOT EXISTS (SELECT \
    FROM pg_catalog.pg_depend d WHERE d.objid = k.oid AND d.deptype = 'e')) AS d(told)";

/// Asks which of the names escape.
fn escaping() -> String {
    let list = |names: &str| format!("pg_catalog.string_to_array('{names}', ',')");
    format!(
        "SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p \
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         LEFT JOIN pg_catalog.pg_depend d ON d.objid = p.oid AND d.deptype = 'e' \
         AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
         LEFT JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid \
         WHERE pg_catalog.lower(p.proname) = ANY ($1) AND CASE \
         WHEN p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND x.oid IS NULL \
         THEN p.proname = ANY ({wild}) \
         WHEN l.lanname IN ('c', 'internal') THEN x.extname IS NULL OR x.extname <> ALL ({tame}) \
         ELSE NOT l.lanpltrusted OR l.lanname NOT IN ('sql', 'plpgsql') END \
         UNION SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid \
         JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver \
         JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw \
         WHERE pg_catalog.lower(c.relname) = ANY ($1) AND w.fdwname <> ALL ({wrappers}) \
         ORDER BY 1",
        wild = list(WILD),
        tame = list(TAME),
        wrappers = list(WRAPPERS)
    )
}
