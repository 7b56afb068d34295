//! What is measured without a network, and the agent's key: `bench-inside decide POLICIES`,
//! `bench-inside effects FAMILY`, `bench-inside ledger WAY WAITERS SECONDS FOLDER`, `bench-inside keys STORE AGENT…`.
//!
//! Prints JSON, or keys, one a line. Must never measure anything but release builds.

mod decide;
mod effects;
mod ledger;

use anyhow::bail;
use futures::{StreamExt, TryStreamExt};
use holdpoint_server::doors::http::AgentKey;
use holdpoint_server::store::{Access, NewKey, Store, StoreOptions};
use holdpoint_types::{GatewayId, Timestamp};
use std::path::Path;

/// The product's allocator, so that what is measured is what the product does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["decide", policies] => println!("{}", decide::measure(policies.parse()?)?),
        ["effects", family] => println!("{}", effects::measure(family)?),
        ["ledger", way, waiters, seconds, folder] => {
            let plan = (waiters.parse()?, seconds.parse()?);
            println!("{}", ledger::measure(way, plan, Path::new(folder))?);
        }
        ["keys", store, agents @ ..] => {
            for key in issue_keys(Path::new(store), agents)? {
                println!("{key}");
            }
        }
        _ => bail!("usage: bench-inside decide … | effects … | ledger … | keys …"),
    }
    Ok(())
}

fn issue_keys(store: &Path, agents: &[&str]) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = StoreOptions::new(GatewayId::new(Timestamp(1), [9; 10]), Access::Operate);
        let store = Store::open(store, options)?;
        let issue = async |agent: &str| {
            let key = AgentKey::generate()?;
            let row = NewKey {
                key_id: key.id().to_owned(),
                hash: key.digest(),
                agent: agent.parse()?,
                owner: "bench".parse()?,
            };
            store.issue_key(row, "bench".to_owned(), Timestamp(1)).await?;
            anyhow::Ok(key.reveal().to_owned())
        };
        futures::stream::iter(agents).map(|agent| issue(agent)).buffered(256).try_collect().await
    })
}
