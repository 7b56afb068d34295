//! The tools of the demo's server: how each is listed, and what it is handed to.
//!
//! Owns names, schemas and hints. Must hold no work of its own.

use super::{Kit, Shop, ToolFault, database, desk, notes, shell};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest report, in seconds; the schema says so too.
const REPORT_SECONDS_MAX: u64 = 600;

/// One tool: how it is listed and what it does.
pub struct Offer {
    pub kit: Kit,
    pub name: &'static str,
    about: &'static str,
    effect: Effect,
    /// Each parameter with its kind; all are required.
    parameters: &'static [(&'static str, Is)],
    /// What it does.
    pub run: fn(&Shop, JsonObject) -> Result<String, ToolFault>,
}

/// What a tool says about itself in its annotations.
#[derive(Clone, Copy)]
enum Effect {
    Reads,
    Adds,
    Destroys,
}

/// What a parameter is.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Sql,
    Table,
    Rows,
    Seconds,
    NoteName,
    NoteText,
    Texts,
    Ids,
    Headers,
}

pub const OFFERS: &[Offer] = &[
    Offer {
        kit: Kit::Database,
        name: "query",
        about: "Runs one SQL query and returns its rows. The database is opened read-only.",
        effect: Effect::Reads,
        parameters: &[("sql", Is::Sql)],
        run: |shop, parameters| shop.database()?.query(&read::<Sql>(parameters)?.sql),
    },
    Offer {
        kit: Kit::Database,
        name: "insert_rows",
        about: "Inserts rows into one table, all or none.",
        effect: Effect::Adds,
        parameters: &[("table", Is::Table), ("rows", Is::Rows)],
        run: |shop, parameters| {
            let insert: Insert = read(parameters)?;
            shop.database()?.insert(&insert.table, &insert.rows)
        },
    },
    Offer {
        kit: Kit::Database,
        name: "execute_sql",
        about: "Executes any SQL statements, one after the other.",
        effect: Effect::Destroys,
        parameters: &[("sql", Is::Sql)],
        run: |shop, parameters| shop.database()?.execute(&read::<Sql>(parameters)?.sql),
    },
    Offer {
        kit: Kit::Database,
        name: "slow_report",
        about: "Computes a report for as many seconds as asked. It does not stop when cancelled.",
        effect: Effect::Reads,
        parameters: &[("seconds", Is::Seconds)],
        run: |shop, parameters| match read::<Report>(parameters)?.seconds {
            seconds @ 1..=REPORT_SECONDS_MAX => shop.database()?.report(seconds),
            seconds => Err(ToolFault::Unfit(format!("`{seconds}` is not 1 to 600 seconds"))),
        },
    },
    Offer {
        kit: Kit::Notes,
        name: "read_note",
        about: "Reads one note of the workspace.",
        effect: Effect::Reads,
        parameters: &[("name", Is::NoteName)],
        run: |shop, parameters| shop.notes.read(&read::<NoteName>(parameters)?.name),
    },
    Offer {
        kit: Kit::Notes,
        name: "write_note",
        about: "Writes a new note to the workspace. It never replaces a note.",
        effect: Effect::Adds,
        parameters: &[("name", Is::NoteName), ("text", Is::NoteText)],
        run: |shop, parameters| {
            let note: Note = read(parameters)?;
            shop.notes.write(&note.name, &note.text)
        },
    },
    Offer {
        kit: Kit::Shell,
        name: "run",
        about: "Runs a command of bash in the workspace.",
        effect: Effect::Destroys,
        parameters: &[("command", Is::Text)],
        run: |shop, parameters| shell::run(&shop.workspace, &read::<Run>(parameters)?.command),
    },
    Offer {
        kit: Kit::Files,
        name: "write_file",
        about: "Writes a file, in place of what is there.",
        effect: Effect::Destroys,
        parameters: &[("path", Is::Text), ("text", Is::Text)],
        run: |shop, parameters| {
            let file: Written = read(parameters)?;
            shop.files.write(&file.path, &file.text)
        },
    },
    Offer {
        kit: Kit::Files,
        name: "move_file",
        about: "Moves a file into a folder, or onto a name.",
        effect: Effect::Destroys,
        parameters: &[("from", Is::Text), ("to", Is::Text)],
        run: |shop, parameters| {
            let moved: Moved = read(parameters)?;
            shop.files.shift(&moved.from, &moved.to)
        },
    },
    Offer {
        kit: Kit::Files,
        name: "delete_files",
        about: "Deletes files.",
        effect: Effect::Destroys,
        parameters: &[("paths", Is::Texts)],
        run: |shop, parameters| shop.files.delete(&read::<Paths>(parameters)?.paths),
    },
    Offer {
        kit: Kit::Web,
        name: "http_request",
        about: "Sends an HTTP request.",
        effect: Effect::Destroys,
        parameters: &[
            ("method", Is::Text),
            ("url", Is::Text),
            ("headers", Is::Headers),
            ("body", Is::Text),
        ],
        run: |shop, parameters| {
            let request: Request = read(parameters)?;
            let body = Some(request.body).filter(|body| !body.is_empty());
            shop.web.request((&request.method, &request.url), &request.headers, body)
        },
    },
    Offer {
        kit: Kit::Web,
        name: "set_variable",
        about: "Sets a variable of one environment of the API.",
        effect: Effect::Adds,
        parameters: &[("environment", Is::Text), ("name", Is::Text), ("value", Is::Text)],
        run: |shop, parameters| {
            let set: Variable = read(parameters)?;
            shop.web.set_variable(&set.environment, &set.name, &set.value)
        },
    },
    Offer {
        kit: Kit::Web,
        name: "get_variable",
        about: "Reads a variable of one environment of the API.",
        effect: Effect::Reads,
        parameters: &[("environment", Is::Text), ("name", Is::Text)],
        run: |shop, parameters| {
            let named: Named = read(parameters)?;
            shop.web.variable(&named.environment, &named.name)
        },
    },
    Offer {
        kit: Kit::Terraform,
        name: "terraform_state",
        about: "Lists the resources of the state.",
        effect: Effect::Reads,
        parameters: &[],
        run: |shop, _parameters| desk::state(shop.database()?),
    },
    Offer {
        kit: Kit::Terraform,
        name: "terraform_apply",
        about: "Applies a plan, as `terraform show -json` prints it.",
        effect: Effect::Destroys,
        parameters: &[("plan", Is::Text)],
        run: |shop, parameters| desk::apply(shop.database()?, &read::<Plan>(parameters)?.plan),
    },
    Offer {
        kit: Kit::Mail,
        name: "list_messages",
        about: "Lists the messages of the mailbox.",
        effect: Effect::Reads,
        parameters: &[],
        run: |shop, _parameters| desk::messages(shop.database()?),
    },
    Offer {
        kit: Kit::Mail,
        name: "label_messages",
        about: "Puts a label on messages.",
        effect: Effect::Adds,
        parameters: &[("ids", Is::Ids), ("label", Is::Text)],
        run: |shop, parameters| {
            let labelled: Labelled = read(parameters)?;
            desk::label_messages(shop.database()?, &labelled.ids, &labelled.label)
        },
    },
    Offer {
        kit: Kit::Mail,
        name: "batch_delete",
        about: "Deletes messages for good.",
        effect: Effect::Destroys,
        parameters: &[("ids", Is::Ids)],
        run: |shop, parameters| {
            desk::delete_messages(shop.database()?, &read::<Ids>(parameters)?.ids)
        },
    },
    Offer {
        kit: Kit::Forge,
        name: "list_issues",
        about: "Lists the issues of a repository.",
        effect: Effect::Reads,
        parameters: &[("repository", Is::Text)],
        run: |shop, parameters| {
            desk::issues(shop.database()?, &read::<Repository>(parameters)?.repository)
        },
    },
    Offer {
        kit: Kit::Forge,
        name: "get_file",
        about: "Reads a file of a repository.",
        effect: Effect::Reads,
        parameters: &[("repository", Is::Text), ("path", Is::Text)],
        run: |shop, parameters| {
            let wanted: Wanted = read(parameters)?;
            desk::file(shop.database()?, &wanted.repository, &wanted.path)
        },
    },
    Offer {
        kit: Kit::Forge,
        name: "create_pull_request",
        about: "Opens a pull request, for all who may see the repository.",
        effect: Effect::Adds,
        parameters: &[("repository", Is::Text), ("title", Is::Text), ("body", Is::Text)],
        run: |shop, parameters| {
            let request: PullRequest = read(parameters)?;
            let text = (request.title.as_str(), request.body.as_str());
            desk::pull_request(shop.database()?, &request.repository, text)
        },
    },
];

/// The parameters of a tool, read strictly.
macro_rules! parameters {
    ($($name:ident { $($field:ident: $kind:ty),+ })+) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($field: $kind,)+
        }
    )+};
}

parameters! {
    Sql { sql: String }
    Insert { table: String, rows: Vec<JsonObject> }
    Report { seconds: u64 }
    NoteName { name: String }
    Note { name: String, text: String }
    Run { command: String }
    Written { path: String, text: String }
    Moved { from: String, to: String }
    Paths { paths: Vec<String> }
    Request { method: String, url: String, headers: BTreeMap<String, String>, body: String }
    Variable { environment: String, name: String, value: String }
    Named { environment: String, name: String }
    Plan { plan: String }
    Ids { ids: Vec<i64> }
    Labelled { ids: Vec<i64>, label: String }
    Repository { repository: String }
    Wanted { repository: String, path: String }
    PullRequest { repository: String, title: String, body: String }
}

// === impl Offer ===

impl Offer {
    /// How it is listed.
    pub fn definition(&self) -> Tool {
        let schema = match self.schema() {
            Value::Object(schema) => schema,
            _ => JsonObject::new(),
        };
        Tool::new(self.name, self.about, schema).with_annotations(self.effect.annotations())
    }

    fn schema(&self) -> Value {
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| *name).collect();
        let properties = self.parameters.iter().map(|(name, is)| ((*name).to_owned(), is.schema()));
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties.collect::<JsonObject>(),
            "required": names,
            "additionalProperties": false,
        })
    }
}

// === impl Effect ===

impl Effect {
    fn annotations(self) -> ToolAnnotations {
        let closed = ToolAnnotations::new().open_world(false);
        match self {
            Self::Reads => closed.read_only(true).idempotent(true),
            Self::Adds => closed.read_only(false).destructive(false).idempotent(false),
            Self::Destroys => closed.read_only(false).destructive(true).idempotent(false),
        }
    }
}

// === impl Is ===

impl Is {
    fn schema(self) -> Value {
        let scalar = || json!({ "type": ["string", "number", "boolean", "null"] });
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Sql => {
                json!({ "type": "string", "minLength": 1, "description": "SQL of SQLite" })
            }
            Self::Table => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,62}$" }),
            Self::Rows => json!({
                "type": "array",
                "minItems": 1,
                "maxItems": database::ROWS_MAX,
                "items": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": scalar(),
                },
                "description": "Each row as an object: column name to value",
            }),
            Self::Seconds => {
                json!({ "type": "integer", "minimum": 1, "maximum": REPORT_SECONDS_MAX })
            }
            Self::NoteName => {
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$" })
            }
            Self::NoteText => json!({ "type": "string", "maxLength": notes::NOTE_BYTES_MAX }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Self::Ids => json!({
                "type": "array",
                "maxItems": desk::ITEMS_MAX,
                "items": { "type": "integer" },
            }),
            Self::Headers => {
                json!({ "type": "object", "additionalProperties": { "type": "string" } })
            }
        }
    }
}

// === functions ===

fn read<T: DeserializeOwned>(parameters: JsonObject) -> Result<T, ToolFault> {
    Ok(serde_json::from_value(Value::Object(parameters))?)
}
