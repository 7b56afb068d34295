//! How the credentials for upstream servers stand. Must never show one.

use crate::cli::login::agent_of;
use crate::cli::look::{Look, Table, Tone, escaped, shortened};
use crate::cli::operator;
use crate::config::Config;
use crate::gateway;
use holdpoint_resources::{Standing, Vault};
use holdpoint_types::Timestamp;
use serde_json::{Value, json};
use std::path::Path;

/// Longest fault that is shown, in characters.
const FAULT_CHARS_MAX: usize = 160;

/// Every credential in the store, with the key that the configuration names, if there is one.
///
/// # Errors
/// When the folder cannot be read.
pub fn gather(store: &Path, config: Option<&Config>) -> anyhow::Result<Vec<Standing>> {
    let vault = match config {
        Some(config) => gateway::vault(store, config.credential_key.as_ref()),
        None => Ok(Vault::new(store, None)),
    };
    match vault {
        Ok(vault) => Ok(Standing::all(&vault)?),
        Err(fault) => {
            // The rest of the status is worth more than an error.
            operator::note(&format!("credentials are not shown: {fault:#}"));
            Ok(Vec::new())
        }
    }
}

/// One credential for programs.
pub fn to_json(standing: &Standing) -> Value {
    json!({
        "server": standing.server,
        "agent": agent_of(&standing.holder),
        "issuer": standing.issuer,
        "scopes": standing.scopes,
        "expires_at": standing.expires_at,
        "renewable": standing.renewable,
        "fault": standing.fault,
    })
}

/// All of them as a table.
pub fn render(standings: &[Standing], look: &Look) -> String {
    if standings.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    for standing in standings {
        let (tone, state) = state(standing, look);
        let scopes = shortened(&standing.scopes.join(" "), FAULT_CHARS_MAX);
        table.push(vec![
            (Tone::Plain, standing.server.to_string()),
            (Tone::Plain, standing.holder.to_string()),
            (tone, state),
            (Tone::Dim, scopes),
            (Tone::Dim, escaped(&standing.issuer)),
        ]);
    }
    format!("credentials\n{}", table.render("  ", look))
}

fn state(standing: &Standing, look: &Look) -> (Tone, String) {
    if let Some(fault) = &standing.fault {
        return (Tone::Bad, shortened(fault, FAULT_CHARS_MAX));
    }
    let at = standing.expires_at.and_then(|at| i64::try_from(at.checked_mul(1000)?).ok());
    match (at, standing.renewable) {
        (None, _) => (Tone::Good, "does not expire".to_owned()),
        (Some(_), true) => (Tone::Good, "renewed by itself".to_owned()),
        (Some(at), false) => (Tone::Careful, format!("expires {}", look.time(Timestamp(at)))),
    }
}

#[cfg(test)]
mod tests {
    use super::{render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_resources::{Holder, Standing};

    fn standing(fault: Option<&str>) -> Standing {
        Standing {
            server: "crm".parse().unwrap(),
            holder: Holder::Agent("coder".parse().unwrap()),
            issuer: "https://as.example".to_owned(),
            scopes: vec!["crm.read".to_owned()],
            expires_at: Some(1_753_000_100),
            renewable: false,
            fault: fault.map(str::to_owned),
        }
    }

    #[test]
    fn credentials_are_shown_without_their_tokens() {
        let renewable = Standing { renewable: true, ..standing(None) };
        let everybody = Standing {
            holder: Holder::Everybody,
            expires_at: None,
            issuer: "https://as.example\u{9b}2J".to_owned(),
            ..standing(None)
        };
        let all = [standing(None), renewable, everybody, standing(Some("it was revoked"))];
        expect![[r#"
            credentials
              crm  coder       expires 2025-07-20T08:28:20.000+00:00  crm.read  https://as.example
              crm  coder       renewed by itself                      crm.read  https://as.example
              crm  all agents  does not expire                        crm.read  https://as.example\u{9b}2J
              crm  coder       it was revoked                         crm.read  https://as.example
        "#]].assert_eq(&render(&all, &look()));
        let json: Vec<_> = all.iter().map(|one| to_json(one).to_string()).collect();
        expect![[r#"
            {"server":"crm","agent":"coder","issuer":"https://as.example","scopes":["crm.read"],"expires_at":1753000100,"renewable":false,"fault":null}
            {"server":"crm","agent":"coder","issuer":"https://as.example","scopes":["crm.read"],"expires_at":1753000100,"renewable":true,"fault":null}
            {"server":"crm","agent":null,"issuer":"https://as.example2J","scopes":["crm.read"],"expires_at":null,"renewable":false,"fault":null}
            {"server":"crm","agent":"coder","issuer":"https://as.example","scopes":["crm.read"],"expires_at":1753000100,"renewable":false,"fault":"it was revoked"}"#]].assert_eq(&json.join("\n"));
        assert_eq!(render(&[], &look()), "");
    }
}
