//! What is measured without a network, and the agent's key: `bench-inside decide POLICIES`,
//! `bench-inside ledger WAY WAITERS SECONDS FOLDER`, `bench-inside key STORE AGENT`.
//!
//! Prints JSON, or the key. Must never measure anything but release builds.

mod decide;
mod ledger;

use anyhow::bail;
use holdpoint_server::doors::http::AgentKey;
use holdpoint_server::store::{Access, NewKey, Store, StoreOptions};
use holdpoint_types::{GatewayId, Timestamp};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["decide", policies] => println!("{}", decide::measure(policies.parse()?)?),
        ["ledger", way, waiters, seconds, folder] => {
            let plan = (waiters.parse()?, seconds.parse()?);
            println!("{}", ledger::measure(way, plan, Path::new(folder))?);
        }
        ["key", store, agent] => println!("{}", issue_key(Path::new(store), agent)?),
        _ => bail!("usage: bench-inside decide … | ledger … | key …"),
    }
    Ok(())
}

fn issue_key(store: &Path, agent: &str) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = StoreOptions::new(GatewayId::new(Timestamp(1), [9; 10]), Access::Operate);
        let store = Store::open(store, options)?;
        let key = AgentKey::generate()?;
        let row = NewKey {
            key_id: key.id().to_owned(),
            hash: key.digest(),
            agent: agent.parse()?,
            owner: "bench".parse()?,
        };
        store.issue_key(row, "bench".to_owned(), Timestamp(1)).await?;
        Ok(key.reveal().to_owned())
    })
}
