//! From the checked configuration to who is told of approvals. The URLs, which are secrets, are
//! read here. Must never print one.

use super::{Rest, value, values};
use crate::config;
use anyhow::{Context as _, bail};
use holdpoint_resources::{HttpClient, SecretText};
use holdpoint_server::doors::http::oauth::is_loopback;
use holdpoint_server::notify::NotifySpec;
use holdpoint_types::OperatorName;
use std::collections::BTreeSet;

// === impl Rest ===

impl Rest {
    /// Who is told of approvals.
    ///
    /// # Errors
    /// When a secret cannot be read or is no URL; names where it should be, never the secret.
    pub fn notify(&self) -> anyhow::Result<Vec<NotifySpec>> {
        let each = self.notify.iter().map(|one| {
            spec(one).with_context(|| format!("`notify.{}` cannot be told anything", one.name))
        });
        each.collect()
    }

    /// The operators who may decide by links.
    pub fn linked(&self) -> BTreeSet<OperatorName> {
        let links = self.notify.iter().filter_map(|one| one.links.as_ref());
        links.map(|links| links.operator.clone()).collect()
    }
}

fn spec(one: &config::Notify) -> anyhow::Result<NotifySpec> {
    let config::Notify { name, url, headers, shape, parameters, links } = one;
    let url = value(url)?;
    let Ok(parsed) = url.trim().parse::<reqwest::Url>() else { bail!("its URL is none") };
    if parsed.scheme() == "http" && !is_loopback(&parsed) {
        bail!("its URL is plain `http`: use `https`");
    }
    let headers = values(headers)?.into_iter();
    let headers: Vec<_> = headers.map(|(name, value)| (name, SecretText::new(value))).collect();
    Ok(NotifySpec {
        name: name.clone(),
        client: HttpClient::new(parsed.as_str(), &headers)?,
        shape: *shape,
        parameters: *parameters,
        links: links.as_ref().map(|links| (links.base.clone(), links.operator.clone())),
    })
}
