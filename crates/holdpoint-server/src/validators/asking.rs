//! How one validator is asked: an expression, a process, an endpoint. Must never wait longer than
//! it is waited for, leave a process behind, or read an answer without an end.

use super::{Answer, AskedBy, ValidatorFault, Word};
use cel::{Context, Program};
use holdpoint_resources::{HttpClient, Process, ProcessSpec, SecretText};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How a validator is asked.
pub(super) enum Way {
    Cel(Box<Program>, String),
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
    pub(super) fn new(name: &str, asked: AskedBy) -> Result<Self, ValidatorFault> {
        match asked {
            AskedBy::Cel(text) => match Program::compile(&text) {
                Ok(program) => Ok(Self::Cel(Box::new(program), text)),
                Err(fault) => Err(ValidatorFault::Expression {
                    name: name.to_owned(),
                    why: fault.to_string(),
                }),
            },
            AskedBy::Process(spec) => Ok(Self::Process(spec)),
            AskedBy::Http { url, headers } => endpoint(name, &url, &headers).map(Self::Http),
        }
    }

    /// The answer, or why there is none.
    pub(super) async fn ask(&self, told: &Value) -> Result<Answer, String> {
        match self {
            Self::Cel(program, text) => evaluate(program, text, told),
            Self::Process(spec) => ask_process(spec, told).await,
            Self::Http(client) => {
                let body = client.post(told.to_string(), ANSWER_BYTES_MAX).await?;
                read(&body)
            }
        }
    }
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
        Ok(cel::Value::Bool(true)) => Ok(Answer { result: Word::Pass, evidence: String::new() }),
        Ok(cel::Value::Bool(false)) => {
            Ok(Answer { result: Word::Fail, evidence: format!("not true: {text}") })
        }
        Ok(_) => Err(format!("neither true nor false: {text}")),
        Err(fault) => Err(format!("{fault}: {text}")),
    }
}

async fn ask_process(spec: &ProcessSpec, told: &Value) -> Result<Answer, String> {
    // Dropping the process kills all that it started, whenever this is given up.
    let (process, pipes) = Process::spawn(spec).map_err(|fault| fault.to_string())?;
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
    let (_, answer) = tokio::join!(writing, reading);
    let answer = answer?;
    if answer.trim().is_empty() {
        let words = process.last_words();
        let last = words.lines().next_back().unwrap_or("nothing on standard error, either");
        return Err(format!("it said nothing: {last}"));
    }
    read(answer.as_bytes())
}

fn read(answer: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(answer).map_err(|fault| {
        format!("expected {{\"result\": \"pass|warn|fail|opaque\", \"evidence\": \"…\"}}: {fault}")
    })
}
