//! What a statement answers, as texts, and the result that an agent gets.
//! Must never grow beyond the limits: what is more is counted and left out.

use super::link::{Failed, Link};
use super::spec::PostgresLimits;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use std::pin::pin;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::{FromSql, Type};

/// What one statement answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    columns: Vec<String>,
    rows: Vec<Value>,
    count: u64,
    left_out: u64,
}

/// A value that is sent as the text it is.
struct Text(Option<String>);

// === impl Answer ===

impl Answer {
    /// Nothing but how many rows were concerned.
    pub(super) fn count(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// Runs what Holdpoint wrote and gives its rows.
    pub(super) async fn rows(
        link: &Link,
        sql: &str,
        limits: &PostgresLimits,
    ) -> Result<Self, Failed> {
        let mut answer = Self::default();
        let mut bytes = 0;
        let mut stream = pin!(link.timed(link.client().simple_query_raw(sql)).await?);
        while let Some(message) = link.timed(async { stream.next().await.transpose() }).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                    answer.push(values.collect(), &mut bytes, limits);
                }
                SimpleQueryMessage::RowDescription(columns) => {
                    let names = columns.iter().map(|column| column.name().to_owned());
                    answer.columns = names.collect();
                }
                SimpleQueryMessage::CommandComplete(count) => answer.count = count,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Runs a statement from outside that answers with texts.
    pub(super) async fn texts(
        link: &Link,
        sql: &str,
        limits: &PostgresLimits,
    ) -> Result<Self, Failed> {
        let mut answer = Self::default();
        let mut bytes = 0;
        for row in link.rows(sql, &[]).await? {
            let columns = row.columns();
            answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            let values = (0..columns.len()).map(|at| row.try_get::<_, Text>(at));
            let values = values.map(|value| value.ok().and_then(|value| value.0));
            answer.push(values.collect(), &mut bytes, limits);
            answer.count = answer.count.saturating_add(1);
        }
        Ok(answer)
    }

    fn push(&mut self, row: Vec<Option<String>>, bytes: &mut u64, limits: &PostgresLimits) {
        *bytes += row.iter().flatten().map(|value| value.len() as u64).sum::<u64>();
        if self.rows.len() as u64 >= limits.rows_max || *bytes > limits.preview_bytes_max {
            self.left_out = self.left_out.saturating_add(1);
        } else {
            self.rows.push(row.into_iter().map(Value::from).collect());
        }
    }

    fn to_value(&self) -> Value {
        let mut members = Map::new();
        members.insert("row_count".to_owned(), self.count.into());
        if !self.columns.is_empty() {
            members.insert("columns".to_owned(), json!(self.columns));
            members.insert("rows".to_owned(), json!(self.rows));
        }
        if self.left_out > 0 {
            members.insert("rows_left_out".to_owned(), self.left_out.into());
        }
        Value::Object(members)
    }
}

// === impl Text ===

impl<'r> FromSql<'r> for Text {
    fn from_sql(
        _type: &Type,
        raw: &'r [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(String::from_utf8_lossy(raw).into_owned())))
    }

    fn from_sql_null(_type: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(kind: &Type) -> bool {
        [Type::TEXT, Type::JSON, Type::XML, Type::VARCHAR, Type::NAME].contains(kind)
    }
}

// === functions ===

/// The result for all statements of a call.
pub(super) fn result_of(answers: &[Answer]) -> Value {
    json!({ "statements": answers.iter().map(Answer::to_value).collect::<Vec<_>>() })
}
