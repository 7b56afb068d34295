//! How one validator is asked: an expression, a process, an endpoint. Must never wait longer than
//! it is waited for, leave a process behind, or read an answer without an end.

use super::{Answer, AskedBy, ValidatorFault, When, Word, told};
use cel::{Context, Program};
use holdpoint_resources::{HttpClient, Process, ProcessSpec, SecretText};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// How much of a failing validator's last words is logged, in characters.
const WORDS_CHARS_MAX: usize = 2_000;
/// How long a validator that said nothing may take to end its last words.
const WORDS_PATIENCE: Duration = Duration::from_millis(500);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How a validator is asked.
pub(super) enum Way {
    Cel(Arc<Program>, String),
    Process(ProcessSpec),
    Http(HttpClient),
}

// === impl Way ===

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cel(_, text) => f.debug_tuple("Cel").field(text).finish(),
            Self::Process(spec) => f.debug_tuple("Process").field(spec).finish(),
            Self::Http(_) => f.write_str("Http"),
        }
    }
}

impl Way {
    pub(super) fn new(name: &str, (asked, when): (AskedBy, &When)) -> Result<Self, ValidatorFault> {
        match asked {
            AskedBy::Cel(text) => match expression(&text, when) {
                Ok(program) => Ok(Self::Cel(Arc::new(program), text)),
                Err(why) => Err(ValidatorFault::Expression { name: name.to_owned(), why }),
            },
            AskedBy::Process(spec) => Ok(Self::Process(spec)),
            AskedBy::Http { url, headers } => endpoint(name, &url, &headers).map(Self::Http),
        }
    }

    /// The answer, or why there is none.
    pub(super) async fn ask(&self, told: &Value) -> Result<Answer, String> {
        match self {
            Self::Cel(program, text) => {
                // However long it takes, nobody but this call waits for it.
                let (program, text, told) = (Arc::clone(program), text.clone(), told.clone());
                let evaluating =
                    tokio::task::spawn_blocking(move || evaluate(&program, &text, &told));
                evaluating.await.map_err(|fault| fault.to_string())?
            }
            Self::Process(spec) => ask_process(spec, told).await,
            Self::Http(client) => {
                let body = client.post(told.to_string(), ANSWER_BYTES_MAX).await?;
                read(&body)
            }
        }
    }
}

/// Reads an expression. One that names something that no validator is told is refused: it would
/// fail at every call, or never be noticed.
pub(super) fn expression(text: &str, when: &When) -> Result<Program, String> {
    let program = Program::compile(text).map_err(|fault| {
        let fault = fault.to_string();
        fault.lines().next().unwrap_or_default().to_owned()
    })?;
    let references = program.references();
    let (own, told) = (iterated(text), told::names(when));
    let unknown =
        references.variables().into_iter().find(|name| !told.contains(name) && !own.contains(name));
    match unknown {
        None => Ok(program),
        Some(name) => Err(format!("`{name}` is not known; there are {}", told.join(", "))),
    }
}

/// The names that the macros of an expression give to what they go through.
fn iterated(text: &str) -> Vec<&str> {
    let macros = [".all(", ".exists(", ".exists_one(", ".map(", ".filter("];
    let each = macros.iter().flat_map(|name| text.split(name).skip(1));
    each.filter_map(|rest| rest.split_once(',')).map(|(name, _)| name.trim()).collect()
}

fn endpoint(
    name: &str,
    url: &str,
    headers: &[(String, SecretText)],
) -> Result<HttpClient, ValidatorFault> {
    HttpClient::new(url, headers)
        .map_err(|fault| ValidatorFault::Endpoint { name: name.to_owned(), why: fault.to_string() })
}

fn evaluate(program: &Program, text: &str, told: &Value) -> Result<Answer, String> {
    let mut context = Context::default();
    for (name, value) in told.as_object().into_iter().flatten() {
        let added = context.add_variable(name.as_str(), value.clone());
        added.map_err(|fault| fault.to_string())?;
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(true)) => Ok(Answer::of(Word::Pass, String::new())),
        Ok(cel::Value::Bool(false)) => Ok(Answer::of(Word::Fail, format!("not true: {text}"))),
        Ok(_) => Err(format!("neither true nor false: {text}")),
        Err(fault) => Err(format!("{fault}: {text}")),
    }
}

async fn ask_process(spec: &ProcessSpec, told: &Value) -> Result<Answer, String> {
    // Dropping the process kills all that it started, whenever this is given up.
    let (mut process, pipes) = Process::spawn(spec).map_err(|fault| fault.to_string())?;
    let mut input = pipes.stdin;
    let line = format!("{told}\n");
    let writing = async move {
        // One that answers without reading everything is not at fault.
        let _ = input.write_all(line.as_bytes()).await;
    };
    let reading = async {
        let mut answer = String::new();
        let mut output = BufReader::new(pipes.stdout.take(ANSWER_BYTES_MAX));
        output.read_line(&mut answer).await.map_err(|fault| fault.to_string())?;
        Ok::<_, String>(answer)
    };
    let written = async {
        writing.await;
        std::future::pending::<()>().await;
    };
    // What it left unread does not matter once it has answered.
    let answer = tokio::select! {
        answer = reading => answer?,
        () = written => String::new(),
    };
    if answer.trim().is_empty() {
        // Its own words are for operators: what is found here, agents read.
        let words = process.all_words(WORDS_PATIENCE).await;
        let words: String = words.chars().take(WORDS_CHARS_MAX).collect();
        // Escaped: whatever an agent or a server wrote may be in it.
        tracing::warn!(validator = ?spec.command.first(), ?words, "a validator said nothing");
        return Err("it said nothing; its last words are in the log".to_owned());
    }
    read(answer.as_bytes())
}

fn read(answer: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(answer).map_err(|fault| {
        format!("expected {{\"result\": \"pass|warn|fail|opaque\", \"evidence\": \"…\"}}: {fault}")
    })
}
