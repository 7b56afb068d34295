//! The trouble of a soak: servers that crash, stops and releases, new settings and policies.
//! Must never stop for longer than it takes to see that the stop holds.

use crate::Whistle;
use crate::agents::Agent;
use crate::proc;
use crate::stage::{Stage, json};
use anyhow::{Context as _, ensure};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long between two troubles of each kind. There are four servers: each lives longer than the
/// 30 s after which its back-off begins anew, or most of a run would be back-off.
const CRASH_EVERY: Duration = Duration::from_secs(8);
const STOP_EVERY: Duration = Duration::from_secs(4);
const RELOAD_EVERY: Duration = Duration::from_secs(3);
/// How often an operator tries.
const ATTEMPTS: usize = 3;

/// Starts all of it, for a run of `time`.
pub fn start(
    stage: &Arc<Stage>,
    whistle: &Whistle,
    time: Duration,
) -> Vec<JoinHandle<anyhow::Result<()>>> {
    // A short run has its crashes, too.
    let pause = CRASH_EVERY.min(time / 8);
    vec![
        tokio::spawn(crash_on(Arc::clone(stage), whistle.clone(), pause)),
        tokio::spawn(stop_on(Arc::clone(stage), whistle.clone())),
        tokio::spawn(reload_on(Arc::clone(stage), whistle.clone())),
    ]
}

/// Kills one server after the other: the gateway's children, and those over HTTP.
async fn crash_on(stage: Arc<Stage>, whistle: Whistle, pause: Duration) -> anyhow::Result<()> {
    let mut number = 0;
    loop {
        whistle.pause(pause).await;
        if whistle.blown() {
            return Ok(());
        }
        number += 1;
        if number % 2 == 0 {
            stage.crash_remote(number / 2)?;
            continue;
        }
        let children = proc::children(stage.pid())?;
        if let Some(child) = children.get((number / 2) % children.len().max(1)) {
            // It may have ended meanwhile.
            Command::new("kill").args(["-KILL", &child.to_string()]).output()?;
        }
    }
}

/// Stops an agent, a server or everything; sees that nothing covered runs; releases.
async fn stop_on(stage: Arc<Stage>, whistle: Whistle) -> anyhow::Result<()> {
    let scopes: [(&[&str], &str, &str); 3] = [
        (&["--agent", "a0"], "a0", "modern"),
        (&["--server", "pipe0"], "a1", "pipe0"),
        (&["--all"], "a2", "legacy"),
    ];
    let mut number = 0;
    loop {
        whistle.pause(STOP_EVERY).await;
        if whistle.blown() {
            return Ok(());
        }
        let (scope, agent, server) = scopes[number % scopes.len()];
        number += 1;
        operate(&stage, "stop", scope).await?;
        let agent = Agent::new(&stage, agent);
        for _ in 0..4 {
            agent.call_stopped(server).await?;
        }
        operate(&stage, "release", scope).await?;
    }
}

/// `holdpoint stop` or `release`, acknowledged by the gateway. As an operator would, tries again
/// what found no answer, and says so: a machine that stands still is no reason to stop no more.
async fn operate(
    stage: &Arc<Stage>,
    verb: &'static str,
    scope: &'static [&'static str],
) -> anyhow::Result<()> {
    for _ in 1..ATTEMPTS {
        match attempt(stage, verb, scope).await {
            Ok(()) => return Ok(()),
            Err(error) => println!("again: {error:#}"),
        }
    }
    attempt(stage, verb, scope).await
}

async fn attempt(
    stage: &Arc<Stage>,
    verb: &'static str,
    scope: &'static [&'static str],
) -> anyhow::Result<()> {
    let mut command = stage.command();
    command.arg(verb).args(scope).args(["--reason", "soak"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let told = json(&output).with_context(|| verb)?;
    let one = |name: &str| told[name].as_array().is_some_and(|found| !found.is_empty());
    ensure!(one("stops") && one("gateways"), "{verb}: {told}");
    Ok(())
}

async fn reload_on(stage: Arc<Stage>, whistle: Whistle) -> anyhow::Result<()> {
    let mut number = 0;
    loop {
        whistle.pause(RELOAD_EVERY).await;
        if whistle.blown() {
            return Ok(());
        }
        number += 1;
        stage.reload(48 + number % 16)?;
        // Each set that comes into force is a record with its sources.
        if number % 10 == 0 {
            stage.touch_policies(number)?;
        }
    }
}
