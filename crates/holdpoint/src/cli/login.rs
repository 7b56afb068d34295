//! `holdpoint login`: gets a credential for an upstream server that wants OAuth.
//! Must never show or log the credential, and never wait for a person without an end.

mod redirect;

use super::look::json_line;
use super::{Exit, Format, Globals, WrongUsage, answer, operator};
use crate::config::{self, Config, Transport};
use crate::gateway;
use anyhow::Context as _;
use holdpoint_resources::{GrantKind, Holder, Issued, Login, OAuthSpec, Sharing};
use holdpoint_server::store::{Access, NewCredential};
use holdpoint_types::{AgentName, ServerName};
use redirect::Redirect;
use serde_json::json;
use std::time::Duration;

/// Get a credential for an upstream server that wants OAuth.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// A scope to ask for on top of what is configured and granted. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = parse_scope)]
    scopes: Vec<String>,
    /// How long to wait for the consent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

/// Whose credential, and for which server.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The server's name in the configuration.
    server: ServerName,
    /// The agent whose credential it is, unless all agents share one.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
}

/// Runs `holdpoint login`.
///
/// # Errors
/// When the server wants no such credential, nobody consents in time, or the authorization server
/// refuses.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let (spec, holder) = find(&args.target, &config)?;
    let port = redirect_port(&args.target.server, &config);
    // Before anybody consents to what could not be recorded.
    let store = operator::open(&config.store, Access::Operate)?;
    let issued = operator::wait(async {
        let issued = match spec.grant {
            GrantKind::AuthorizationCode => {
                with_person(args, (&spec, &holder), (port, globals.format)).await?
            }
            GrantKind::ClientCredentials => {
                holdpoint_resources::log_in_alone(&spec, &holder).await?
            }
        };
        let word = operator::word(&store, "a new credential")?;
        let new = NewCredential {
            agent: agent_of(&holder),
            server: spec.server.clone(),
            issuer: issued.issuer.clone(),
            client: issued.client.clone(),
            scopes: issued.scopes.clone(),
        };
        store.credential_issued(new, word.by, word.at).await?;
        Ok(issued)
    })?;
    answer(&match globals.format {
        Format::Json => json_line(&json!({
            "server": spec.server,
            "agent": agent_of(&holder),
            "issuer": issued.issuer,
            "client": issued.client,
            "scopes": issued.scopes,
            "expires_at": issued.expires_at,
        })),
        Format::Text => told(&issued, (&spec, &holder)),
    })?;
    Ok(Exit::Ok)
}

/// The server and the holder that are meant.
///
/// # Errors
/// When the configuration knows no such server, agent or sharing, or a secret cannot be read.
pub fn find(target: &Target, config: &Config) -> anyhow::Result<(OAuthSpec, Holder)> {
    let Target { server, agent } = target;
    let wrong = |text: String| anyhow::Error::from(WrongUsage(text));
    let endpoint = match config.servers.get(server).map(|found| &found.transport) {
        None => return Err(wrong(format!("no server is called `{server}`"))),
        Some(Transport::Command(_) | Transport::Serves(_)) => {
            return Err(wrong(format!("`{server}` is a command; only a `url` wants credentials")));
        }
        Some(Transport::Url(endpoint)) => endpoint,
    };
    let vault = gateway::vault(&config.store, config.credential_key.as_ref())?;
    let spec = gateway::oauth_spec(server, endpoint, &vault)?;
    let spec = spec.ok_or_else(|| wrong(format!("add `[server.{server}.oauth]` first")))?;
    let holder = match (spec.sharing, agent) {
        (Sharing::Shared, None) => Holder::Everybody,
        (Sharing::Shared, Some(_)) => {
            let why = format!("all agents share one credential for `{server}`; omit --agent");
            return Err(wrong(why));
        }
        (Sharing::PerAgent, None) => {
            let why = format!("each agent has its own credential for `{server}`; add --agent NAME");
            return Err(wrong(why));
        }
        (Sharing::PerAgent, Some(agent)) => {
            if config.settings.agent(agent).is_none() {
                return Err(wrong(format!("no agent is called `{agent}`")));
            }
            Holder::Agent(agent.clone())
        }
    };
    Ok((spec, holder))
}

/// The agent in records; none if all share the credential.
pub fn agent_of(holder: &Holder) -> Option<AgentName> {
    match holder {
        Holder::Agent(agent) => Some(agent.clone()),
        Holder::Everybody => None,
    }
}

async fn with_person(
    args: &Args,
    (spec, holder): (&OAuthSpec, &Holder),
    (port, format): (Option<u16>, Format),
) -> anyhow::Result<Issued> {
    let redirect = Redirect::listen(port).await?;
    let login = Login::start(spec, holder, &args.scopes, redirect.url()).await?;
    match format {
        Format::Json => answer(&json_line(&json!({ "open": login.url() })))?,
        Format::Text => answer(&format!(
            "open this in a browser, as whoever `{holder}` may act for:\n\n{}\n\n",
            login.url(),
        ))?,
    }
    let back = redirect.wait_for(|url| login.is_ours(url));
    let patience = Duration::from_secs(args.wait);
    let back = tokio::time::timeout(patience, back).await;
    let (url, page) =
        back.with_context(|| format!("nobody consented within {} s", args.wait))??;
    let issued = login.complete(spec, &url).await;
    page.say(match &issued {
        Ok(_) => "Holdpoint has the credential. You can close this page.\n",
        Err(_) => "The login failed. The terminal says why.\n",
    })
    .await;
    Ok(issued?)
}

fn redirect_port(server: &ServerName, config: &Config) -> Option<u16> {
    match config.servers.get(server).map(|found| &found.transport) {
        Some(Transport::Url(endpoint)) => endpoint.oauth.as_ref()?.redirect_port,
        Some(Transport::Command(_) | Transport::Serves(_)) | None => None,
    }
}

fn told(issued: &Issued, (spec, holder): (&OAuthSpec, &Holder)) -> String {
    let scopes = match issued.scopes.as_slice() {
        [] => "what its server grants by default".to_owned(),
        scopes => scopes.join(" "),
    };
    let text = format!(
        "{holder} has a credential for `{}` from {}, for {scopes}",
        spec.server, issued.issuer
    );
    // The scopes and the issuer are the authorization server's words.
    config::printable(&text) + "\n"
}

fn parse_scope(text: &str) -> Result<String, String> {
    match config::is_scope(text) {
        true => Ok(text.to_owned()),
        false => Err("a scope has no spaces, quotes or backslashes".to_owned()),
    }
}
