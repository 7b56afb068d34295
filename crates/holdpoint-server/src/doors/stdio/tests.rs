//! One line between an agent and a real process, and the limits of what waits on it.

use super::calls::Calls;
use super::eras::{Eras, Move};
use super::questions::Questions;
use super::{AfterKill, Between, PAGES_MAX, REFUSALS_MAX, Wrap};
use crate::doors::asks;
use crate::runtime::Runtime;
use holdpoint_resources::mcp::RpcId;
use holdpoint_resources::mcp::era::Era;
use holdpoint_resources::{Passage, PassageReceiver, ProcessSpec};
use holdpoint_types::{Door, JsonLimits, Reason};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A line, held by the test where its agent and its tasks would be.
pub(super) struct Line {
    pub(super) door: Between,
    pub(super) child: PassageReceiver,
    pub(super) moves: mpsc::Receiver<Move>,
    _agent: mpsc::Receiver<Vec<u8>>,
    runtime: Runtime,
}

/// A line of `coder` to what a shell makes of `script`.
pub(super) async fn line(dir: &Path, script: &str) -> Line {
    let runtime = crate::tests::runtime(dir).await;
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let spec = ProcessSpec { command, ..ProcessSpec::default() };
    let (server, child) = Passage::spawn(&spec, 1 << 20).unwrap();
    let wrap = Wrap {
        agent: "coder".parse().unwrap(),
        server: "fs".parse().unwrap(),
        json: JsonLimits::default(),
        timeout: Duration::from_secs(20),
        grace: Duration::from_millis(100),
    };
    let (tell, _agent) = mpsc::channel(8);
    let (inbox, moves) = mpsc::channel(8);
    let door = Between {
        governor: runtime.governor().clone(),
        eras: Eras::new(wrap.agent.clone(), wrap.server.clone(), None),
        inbox,
        wrap: Arc::new(wrap),
        server,
        agent: tell,
        calls: Calls::default(),
        questions: Questions::default(),
        tasks: TaskTracker::new(),
        kill: CancellationToken::new(),
        refusals: TaskTracker::new(),
        wrap_door: Door::McpStdio,
        after_kill: AfterKill::End,
    };
    Line { door, child, moves, _agent, runtime }
}

impl Line {
    pub(super) async fn end(self) {
        let Self { door, mut child, runtime, .. } = self;
        drop(door);
        child.kill_tree(Duration::from_millis(100)).await;
        runtime.shut_down().await;
    }
}

#[tokio::test]
async fn refusals_do_not_pile_up_before_a_server_that_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let line = line(dir.path(), "sleep 60").await;
    for number in 0..5_000 {
        let id = RpcId::Text(format!("{number:01000}"));
        line.door.refuse(asks::refusal(id, (Reason::QuestionForbidden, "no")));
        // Whoever can still write does.
        tokio::task::yield_now().await;
    }
    assert_eq!(line.door.refusals.len(), REFUSALS_MAX);
    line.end().await;
}

#[tokio::test]
async fn a_list_of_tools_without_end_leaves_no_tools() {
    let dir = tempfile::tempdir().unwrap();
    // Every page names another one after it; until the `flag` is gone there is but one.
    let answer = r#"{"jsonrpc":"2.0","id":\1,"result":{"tools":[{"name":"t","inputSchema":{}}]"#;
    let flag = dir.path().join("flag");
    let script = format!(
        r#"while read -r line; do
            next=',"nextCursor":\1'
            if [ -e '{}' ]; then next=''; fi
            printf '%s\n' "$line" | sed 's/^{{"jsonrpc":"2.0","id":\("[^"]*"\).*/{answer}'"$next"'}}}}/'
        done"#,
        flag.display()
    );
    let mut line = line(dir.path(), &script).await;
    std::fs::write(&flag, "").unwrap();
    let door = line.door.clone();
    let known = || door.governor.catalog().all().len();
    let found = during(&mut line, async {
        door.look(Era::Legacy).await;
        assert_eq!(known(), 1);
        std::fs::remove_file(&flag).unwrap();
        let found = door.list_all(Era::Legacy).await;
        door.look(Era::Legacy).await;
        found
    })
    .await;
    let fault = format!("the server's list of tools has more than {PAGES_MAX} pages");
    assert_eq!(found, Err(fault));
    assert_eq!(known(), 0);
    drop(door);
    line.end().await;
}

/// Reads what the server says while something else is done.
async fn during<T>(line: &mut Line, work: impl Future<Output = T>) -> T {
    let door = line.door.clone();
    tokio::select! {
        _ = door.read_server(&mut line.child) => panic!("the server ended"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it never ends"),
        done = work => done,
    }
}
