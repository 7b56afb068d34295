//! Laws of previews and reverts, on generated schemas and statements with other writers around.

use super::cluster::{Database, execute, preview, revert};
use holdpoint_resources::resource::{Change, Resource as _, ResourceFault, TargetState};
use holdpoint_resources::{Ended, Postgres};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Worlds that are tried at one time, and what happens in each.
const WORLDS: u64 = 4;
const STATEMENTS: usize = 255;

/// A row as texts, by column.
type Row = BTreeMap<String, Option<String>>;
/// All rows of all tables, by address.
type State = BTreeMap<String, Row>;

/// Old and new rows, by address.
type Difference = BTreeMap<String, (Option<Row>, Option<Row>)>;

/// Draws numbers, the same ones for the same seed.
struct Dice(u64);

/// One generated table.
struct Table {
    name: String,
    key: Vec<&'static str>,
    /// The table that `parent` refers to.
    parent: Option<usize>,
}

/// A generated schema with rows.
struct World {
    database: Database,
    postgres: Postgres,
    /// Another writer.
    other: Client,
    tables: Vec<Table>,
    dice: Dice,
    counts: Counts,
}

/// What happened.
#[derive(Debug, Default)]
struct Counts {
    refused: usize,
    void: usize,
    committed: usize,
    changes: usize,
    reverted: usize,
    conflicts: usize,
}

// === impl Dice ===

impl Dice {
    fn below(&mut self, max: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % max as u64).unwrap()
    }

    fn one_of<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.below(choices.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

// === impl World ===

impl World {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (mut setup, mut tables) = (COMMON.to_owned(), Vec::new());
        for at in 0..4 {
            let (table, sql) = new_table(at, &mut dice);
            setup.push_str(&sql);
            tables.push(table);
        }
        for (name, key) in [("log", vec!["id"]), ("counts", vec!["what"])] {
            tables.push(Table { name: name.to_owned(), key, parent: None });
        }
        let database = Database::new(&setup).await;
        let (postgres, other) = (database.postgres(), database.client().await);
        other.batch_execute("SET lock_timeout = '3ms'").await.unwrap();
        Self { database, postgres, other, tables, dice, counts: Counts::default() }
    }

    /// Everything that is there.
    async fn look(&self) -> State {
        let mut state = State::new();
        let names = self
            .tables
            .iter()
            .map(|table| format!("SELECT tableoid::regclass AS part, * FROM {}", table.name));
        let all = names.collect::<Vec<_>>().join("; ");
        let (mut tables, mut at) = (self.tables.iter(), None);
        for message in self.other.simple_query(&all).await.unwrap() {
            match message {
                SimpleQueryMessage::RowDescription(_) => at = tables.next(),
                SimpleQueryMessage::Row(row) => {
                    let table: &Table = at.unwrap();
                    let names = row.columns().iter().map(|column| column.name().to_owned());
                    let values = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                    let mut row: Row = names.zip(values).collect();
                    let part = row.remove("part").flatten().unwrap();
                    let key = table.key.iter();
                    let key = key.map(|name| format!("{name}={}", row[*name].as_ref().unwrap()));
                    let key = key.collect::<Vec<_>>().join(",");
                    state.insert(format!("pg://shop/public.{part}/{key}"), row);
                }
                _ => {}
            }
        }
        state
    }

    /// Somebody else writes, if nothing is in the way.
    async fn interfere(&mut self) {
        let sql = self.statement();
        let _ = self.other.batch_execute(&sql).await;
    }

    async fn step(&mut self) {
        let sql = self.statement();
        let (mut seen, mut prepared) = match preview(&self.postgres, &sql).await {
            Ok(found) => found,
            Err(ResourceFault::Refused(_)) => {
                self.counts.refused += 1;
                return;
            }
            Err(fault) => panic!("{fault}: {sql}"),
        };
        assert!(seen.exact, "{seen:?}: {sql}");
        if self.dice.chance(30) {
            drop(prepared);
            self.interfere().await;
            let again = preview(&self.postgres, &sql).await;
            match again {
                Ok((again, fresh)) if again.digest() == seen.digest() => {
                    (seen, prepared) = (again, fresh);
                }
                _ => {
                    self.counts.void += 1;
                    return;
                }
            }
        }
        if self.dice.chance(30) {
            self.interfere().await;
        }
        let before = self.look().await;
        let undo = self.postgres.undo(&prepared);
        match execute(&self.postgres, &sql, prepared).await.ended {
            Ended::Answered { tool_error: false, .. } => {}
            other => panic!("{other:?}: {sql}"),
        }
        let after = self.look().await;
        let changed = difference(&before, &after);
        assert_eq!(told(&seen.changes), ranked(changed.clone()), "{sql}");
        self.counts.committed += 1;
        self.counts.changes += seen.changes.len();
        if let Some(undo) = undo.filter(|_| self.dice.chance(60)) {
            assert_eq!(self.postgres.verify(&undo).await.unwrap(), TargetState::After, "{sql}");
            self.take_back(&sql, &undo, changed).await;
        }
    }

    async fn take_back(
        &mut self,
        sql: &str,
        undo: &holdpoint_resources::resource::Undo,
        changed: Difference,
    ) {
        if self.dice.chance(30) {
            self.interfere().await;
        }
        if self.dice.chance(30) {
            let (_, (_, row)) = changed.iter().nth(self.dice.below(changed.len())).unwrap();
            let id = row.as_ref().and_then(|row| row.get("id").cloned().flatten());
            let name = format!("t{}", self.dice.below(4));
            let sql =
                format!("UPDATE {name} SET s = 'other' WHERE id = {}", id.unwrap_or_default());
            let _ = self.other.batch_execute(&sql).await;
        }
        let present = self.look().await;
        let reverted = revert(&self.postgres, undo).await;
        let found = self.look().await;
        let kept: Vec<&String> = reverted.conflicts.iter().map(|kept| &kept.resource).collect();
        let mut expected = present.clone();
        for (resource, (was, left)) in &changed {
            let is = present.get(resource);
            let own = is == was.as_ref() || is == left.as_ref();
            assert!(own || kept.contains(&resource), "{resource}: {sql}");
            match was {
                _ if kept.contains(&resource) => None,
                Some(row) => expected.insert(resource.clone(), row.clone()),
                None => expected.remove(resource),
            };
        }
        assert_eq!(difference(&expected, &found), BTreeMap::new(), "{sql}: {reverted:?}");
        assert_eq!(told(&reverted.preview.changes), difference(&present, &found), "{sql}");
        self.counts.reverted += 1;
        self.counts.conflicts += reverted.conflicts.len();
        if self.dice.chance(20) {
            let again = revert(&self.postgres, undo).await;
            assert_eq!(again.preview.changes, [], "{sql}");
            assert_eq!(again.conflicts, reverted.conflicts, "{sql}");
            assert_eq!(self.look().await, found, "{sql}");
        }
    }

    /// A statement, or a few.
    fn statement(&mut self) -> String {
        let count = if self.dice.chance(20) { 2 + self.dice.below(2) } else { 1 };
        let statements = (0..count).map(|_| self.single());
        statements.collect::<Vec<_>>().join("; ")
    }

    fn single(&mut self) -> String {
        let at = self.dice.below(4);
        let other = self.dice.below(4);
        let (name, other) = (self.tables[at].name.clone(), self.tables[other].name.clone());
        let filter = self.filter();
        let value = self.value();
        let row = self.row(at);
        let columns = if self.tables[at].parent.is_some() {
            "(id, k, n, s, x, u, parent)"
        } else {
            "(id, k, n, s, x, u)"
        };
        match self.dice.below(13) {
            0..=2 => format!("UPDATE {name} SET {value} WHERE {filter}"),
            3 | 4 => format!("DELETE FROM {name} WHERE {filter}"),
            5 => format!("INSERT INTO {name} {columns} VALUES {row}, {}", self.row(at)),
            6 => {
                let set = "n = excluded.n, s = excluded.s";
                let conflict = if self.tables[at].key.len() == 1 { "id" } else { "id, k" };
                format!(
                    "INSERT INTO {name} {columns} VALUES {row} ON CONFLICT ({conflict}) \
                     DO UPDATE SET {set}"
                )
            }
            7 => format!("INSERT INTO {name} {columns} VALUES {row} ON CONFLICT DO NOTHING"),
            8 => format!(
                "UPDATE {name} AS t SET s = o.s, n = o.n FROM {other} o WHERE o.id = t.id + 1 \
                 AND o.k = t.k"
            ),
            9 => format!(
                "WITH gone AS (DELETE FROM {name} WHERE {filter} RETURNING n) \
                 UPDATE {other} SET n = (SELECT count(*) FROM gone) WHERE {}",
                self.filter()
            ),
            10 => {
                let all =
                    if self.tables[at].key.len() == 1 { "m.id" } else { "m.id AND t.k = m.k" };
                format!(
                    "MERGE INTO {name} t USING (SELECT DISTINCT ON (id) * FROM {other}) m \
                     ON t.id = {all} WHEN MATCHED AND t.n > m.n THEN DELETE \
                     WHEN MATCHED THEN UPDATE SET x = m.x + 1"
                )
            }
            11 => format!(
                "DO $$ BEGIN BEGIN UPDATE {name} SET {value} WHERE {filter}; \
                 DELETE FROM {other} WHERE {}; IF {} THEN RAISE EXCEPTION 'no'; END IF; \
                 EXCEPTION WHEN OTHERS THEN UPDATE {name} SET s = 'caught' WHERE {filter}; END; \
                 END $$",
                self.filter(),
                self.dice.chance(50)
            ),
            _ => format!("UPDATE {name} SET id = id + 100 WHERE {filter} AND id < 100"),
        }
    }

    fn filter(&mut self) -> String {
        let n = self.dice.below(25);
        match self.dice.below(6) {
            0 => format!("n % 3 = {}", n % 3),
            1 => format!("id BETWEEN {n} AND {}", n + 3),
            2 => format!("s LIKE '%{}%'", n % 10),
            3 => "u IS NULL".to_owned(),
            _ => format!("id = {n}"),
        }
    }

    fn value(&mut self) -> String {
        let n = self.dice.below(50);
        match self.dice.below(7) {
            0 => format!("n = n + {n}"),
            1 => format!("n = {n}, s = NULL"),
            2 => format!("s = s || '{n}'"),
            3 => "x = x * 1.10".to_owned(),
            4 => format!("u = {}", self.dice.one_of(&["NULL", "u + 1", "-u", "id"])),
            5 => "s = s".to_owned(),
            _ => format!("s = E'\\t''\"{n}\\\\', x = 'NaN'"),
        }
    }

    fn row(&mut self, at: usize) -> String {
        let (id, n, p) = (self.dice.below(40), self.dice.below(9), self.dice.below(22));
        let k = self.dice.one_of(&["a", "b"]);
        let u = if self.dice.chance(50) { "NULL".to_owned() } else { format!("{}", id + n) };
        let parent = match self.tables[at].parent {
            None => String::new(),
            Some(_) if self.dice.chance(20) => ", NULL".to_owned(),
            Some(_) => format!(", {p}"),
        };
        format!("({id}, '{k}', {n}, 'row {n}', {n}.50, {u}{parent})")
    }
}

// === functions ===

const COMMON: &str = "
    CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, n int);
    CREATE TABLE counts (what text PRIMARY KEY, n int DEFAULT 0);
    INSERT INTO counts VALUES ('t0'), ('t1'), ('t2'), ('t3');
    CREATE FUNCTION write_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO log (what, n) VALUES (TG_TABLE_NAME || TG_OP, coalesce(NEW.n, OLD.n));
      RETURN NULL; END $$;
    CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      UPDATE counts SET n = n + 1 WHERE what = TG_ARGV[0]; RETURN NULL; END $$;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      NEW.s := coalesce(NEW.s, '') || '!'; RETURN NEW; END $$;
    CREATE FUNCTION try() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      BEGIN UPDATE counts SET n = n + 1000 WHERE what = TG_ARGV[0];
        IF OLD.n > 3 THEN RAISE EXCEPTION 'no'; END IF;
      EXCEPTION WHEN OTHERS THEN UPDATE counts SET n = n - 1 WHERE what = TG_ARGV[0]; END;
      RETURN OLD; END $$;";

/// A table, and what makes it.
fn new_table(at: usize, dice: &mut Dice) -> (Table, String) {
    let name = format!("t{at}");
    let wide = dice.chance(30);
    let key = if wide { vec!["id", "k"] } else { vec!["id"] };
    // What is referred to has a key of one column.
    let parent = (at > 0 && dice.chance(80)).then(|| dice.below(at));
    let split = dice.chance(20);
    let unique = if dice.chance(50) && !split { " UNIQUE" } else { "" };
    let late = if dice.chance(50) { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
    let mut sql = format!(
        "CREATE TABLE {name} (id int, k text, n int, s text, x numeric, u int{unique}, \
         twice int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY ({}))",
        key.join(", ")
    );
    if split {
        sql.push_str(" PARTITION BY RANGE (id)");
    }
    sql.push(';');
    if split {
        for (part, from, to) in [("a", "MINVALUE", "12"), ("b", "12", "MAXVALUE")] {
            sql.push_str(&format!(
                "CREATE TABLE {name}{part} PARTITION OF {name} FOR VALUES FROM ({from}) TO ({to});"
            ));
        }
    }
    sql.push_str(&format!(
        "INSERT INTO {name} SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, n % 7, 's' || n, \
         n + 0.10, NULLIF(n % 20, 3) * 100 FROM generate_series(0, 19) n;"
    ));
    if let Some(parent) = parent {
        let delete = dice.one_of(&["CASCADE", "CASCADE", "SET NULL", "NO ACTION", "RESTRICT"]);
        let update = dice.one_of(&["CASCADE", "CASCADE", "NO ACTION"]);
        sql.push_str(&format!(
            "ALTER TABLE {name} ADD parent int; UPDATE {name} SET parent = (id * 7) % 20; \
             CREATE UNIQUE INDEX IF NOT EXISTS t{parent}_id ON t{parent} (id); \
             ALTER TABLE {name} ADD FOREIGN KEY (parent) REFERENCES t{parent} (id) \
             ON DELETE {delete} ON UPDATE {update}{late};"
        ));
    }
    let each = "FOR EACH ROW EXECUTE FUNCTION";
    if dice.chance(40) {
        let when = "AFTER INSERT OR UPDATE OR DELETE";
        sql.push_str(&format!("CREATE TRIGGER log {when} ON {name} {each} write_log();"));
    }
    if dice.chance(30) {
        sql.push_str(&format!("CREATE TRIGGER touch BEFORE UPDATE ON {name} {each} touch();"));
    }
    if dice.chance(30) {
        sql.push_str(&format!("CREATE TRIGGER try BEFORE DELETE ON {name} {each} try('{name}');"));
    }
    if dice.chance(30) {
        sql.push_str(&format!(
            "CREATE CONSTRAINT TRIGGER count AFTER UPDATE ON {name} DEFERRABLE INITIALLY DEFERRED \
             {each} tally('{name}');"
        ));
    }
    (Table { name, key, parent }, sql)
}

/// What is different, by address.
fn difference(before: &State, after: &State) -> Difference {
    let keys = before.keys().chain(after.keys());
    let pairs = keys.map(|key| (key.clone(), (before.get(key).cloned(), after.get(key).cloned())));
    pairs.filter(|(_, (before, after))| before != after).collect()
}

/// The same, where numbers that were drawn for new rows of the log are told by their order.
fn ranked(mut changed: Difference) -> Difference {
    let log = "pg://shop/public.log/id=";
    let new = changed.iter().filter(|(_, (before, _))| before.is_none());
    let ids = new.filter_map(|(resource, _)| resource.strip_prefix(log)?.parse::<u64>().ok());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    for (nth, id) in (1..).zip(ids) {
        let (_, row) = changed.remove(&format!("{log}{id}")).unwrap();
        let mut row = row.unwrap();
        let number = format!("{{\"next_of\":\"public.log_id_seq\",\"nth\":{nth}}}");
        row.insert("id".to_owned(), Some(number));
        changed.insert(format!("{log}*{nth}"), (None, Some(row)));
    }
    changed
}

/// The same, as a preview tells it.
fn told(changes: &[Change]) -> Difference {
    let row = |value: &Value| -> Row {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::Bool(true) => Some("t".to_owned()),
            Value::Bool(false) => Some("f".to_owned()),
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let members = value.as_object().unwrap().iter();
        members.map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let pairs = changes.iter().map(|change| {
        let rows = (change.before.as_ref().map(row), change.after.as_ref().map(row));
        (change.resource.clone(), rows)
    });
    let mut told = BTreeMap::new();
    for (resource, rows) in pairs {
        assert!(told.insert(resource.clone(), rows).is_none(), "{resource} is told twice");
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_seen_is_what_is_done_and_what_is_taken_back_is_what_was() {
    let seed = std::env::var("HOLDPOINT_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or(1);
    let worlds = (first..first + WORLDS).map(|seed| {
        tokio::spawn(async move {
            let mut world = World::new(seed).await;
            println!("seed {seed}");
            let (mut done, mut tried) = (0, 0);
            while done < STATEMENTS {
                let refused = world.counts.refused;
                world.step().await;
                done += usize::from(world.counts.refused == refused);
                tried += 1;
                assert!(tried < 20 * STATEMENTS, "everything is refused: seed {seed}");
            }
            println!("seed {seed}: {:?}", world.counts);
            (world.counts, world.database)
        })
    });
    let (mut committed, mut reverted, mut conflicts, mut void, mut changes) = (0, 0, 0, 0, 0);
    for world in worlds.collect::<Vec<_>>() {
        let (counts, _database) = world.await.unwrap();
        committed += counts.committed;
        reverted += counts.reverted;
        conflicts += counts.conflicts;
        void += counts.void;
        changes += counts.changes;
    }
    assert!(committed + void >= 1000, "{committed} committed, {void} void");
    assert!(reverted > 100 && conflicts > 5 && void > 2 && changes > 1000);
}
