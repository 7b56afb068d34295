//! rmcp as a client that takes a job and tells what each step gave, as the client programs do.
#![expect(deprecated, reason = "legacy servers still ask for roots and sampling")]

use super::Opens;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
    CreateMessageResult, ElicitRequestParams, ElicitResult, GetPromptRequestParams, Implementation,
    ListRootsResult, ProgressNotificationParam, ReadResourceRequestParams,
};
use rmcp::service::{
    NotificationContext, RequestContext, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, ClientServiceExt, ErrorData};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long progress may come after its answer: rmcp gives both to whoever is free.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(5);

/// Answers what servers ask, and remembers what that was.
#[derive(Clone, Default)]
struct Person {
    asked: Arc<std::sync::Mutex<Vec<&'static str>>>,
    progress: Arc<watch::Sender<u64>>,
}

// === impl Person ===

impl Person {
    fn says<T: DeserializeOwned>(&self, method: &'static str, answer: Value) -> T {
        self.asked.lock().unwrap().push(method);
        serde_json::from_value(answer).unwrap()
    }
}

impl ClientHandler for Person {
    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
        Ok(self.says("elicitation/create", answer))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let content = json!({ "type": "text", "text": "sampled" });
        let answer = json!({ "role": "assistant", "content": content, "model": "none" });
        Ok(self.says("sampling/createMessage", answer))
    }

    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        let roots = json!({ "roots": [{ "uri": "file:///root-of-the-client" }] });
        Ok(self.says("roots/list", roots))
    }

    async fn on_progress(
        &self,
        _params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.send_modify(|seen| *seen += 1);
    }

    fn get_info(&self) -> ClientConfig {
        let all = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
        let capabilities: ClientCapabilities = serde_json::from_value(all).unwrap();
        ClientConfig::new(capabilities, Implementation::new("holdpoint-tests", "1.0.0"))
    }
}

/// Takes every step of a job.
pub async fn run(job: &Value, opens: Opens) -> Result<Value, String> {
    let person = Person::default();
    let client = connect(person.clone(), job, opens).await?;
    let mut answers = Vec::new();
    for step in job["steps"].as_array().unwrap() {
        let before = *person.progress.borrow();
        let mut answer = take(&client, step).await.unwrap_or_else(|fault| match fault {
            ServiceError::McpError(fault) => {
                let reason = fault.data.map(|data| data["reason"].clone());
                json!({ "fault": fault.message, "code": fault.code, "reason": reason })
            }
            other => json!({ "fault": other.to_string() }),
        });
        if step["do"] == "call" {
            if step["progress"] == true {
                let mut seen = person.progress.subscribe();
                let more = seen.wait_for(|seen| *seen > before);
                let _ = tokio::time::timeout(PROGRESS_PATIENCE, more).await;
            }
            answer["progress"] = (*person.progress.borrow() - before).into();
        }
        answers.push(answer);
    }
    client.cancel().await.map_err(|fault| fault.to_string())?;
    let asked = person.asked.lock().unwrap().clone();
    Ok(json!({ "answers": answers, "asked": asked }))
}

async fn connect(
    person: Person,
    job: &Value,
    opens: Opens,
) -> Result<RunningService<RoleClient, Person>, String> {
    let client = if let Some(url) = job["url"].as_str() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned())
            .auth_header(job["key"].as_str().unwrap());
        let transport = StreamableHttpClientTransport::from_config(config);
        person.serve_with_lifecycle(transport, opens.mode()).await
    } else {
        let words: Vec<_> =
            job["command"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
        let mut command = tokio::process::Command::new(words[0]);
        command.args(&words[1..]).current_dir(job["cwd"].as_str().unwrap());
        let child = TokioChildProcess::new(command).map_err(|fault| fault.to_string())?;
        person.serve_with_lifecycle(child, opens.mode()).await
    };
    client.map_err(|fault| fault.to_string())
}

async fn take(
    client: &RunningService<RoleClient, Person>,
    step: &Value,
) -> Result<Value, ServiceError> {
    let word = |key: &str| step[key].as_str().unwrap().to_owned();
    let names = |all: Vec<String>| Ok(json!(all));
    let arguments = || step["arguments"].as_object().unwrap().clone();
    match step["do"].as_str().unwrap() {
        "tools" => {
            let tools = client.list_all_tools().await?;
            names(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
        }
        "call" => {
            let params = CallToolRequestParams::new(word("name")).with_arguments(arguments());
            Ok(told(&json!(client.call_tool(params).await?)))
        }
        "resources" => {
            let all = client.list_all_resources().await?;
            names(all.into_iter().map(|resource| resource.uri.clone()).collect())
        }
        "read" => {
            let found = client.read_resource(ReadResourceRequestParams::new(word("uri"))).await?;
            Ok(json!(texts(&json!(found.contents))))
        }
        "prompts" => {
            let all = client.list_all_prompts().await?;
            names(all.into_iter().map(|prompt| prompt.name).collect())
        }
        _ => {
            let params = GetPromptRequestParams::new(word("name")).with_arguments(arguments());
            let found = json!(client.get_prompt(params).await?.messages);
            let contents = found.as_array().unwrap().iter().map(|one| one["content"].clone());
            Ok(json!(texts(&contents.collect())))
        }
    }
}

fn told(result: &Value) -> Value {
    let causes = result["_meta"]["io.holdpoint/decision"]["causes"].as_array();
    let reasons: Vec<_> =
        causes.into_iter().flatten().map(|cause| cause["reason"].clone()).collect();
    let failed = result["isError"] == true;
    json!({ "text": texts(&result["content"]), "failed": failed, "reasons": reasons })
}

fn texts(contents: &Value) -> String {
    let texts = contents.as_array().into_iter().flatten().filter_map(|one| one["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}
