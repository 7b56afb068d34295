//! Who a token's bearer is, and what a refusal says.

use super::{OauthSettings, Scopes, Unadmitted};
use crate::doors::http::oauth::access_token::Claims;
use crate::doors::http::oauth::jwk::Algorithm;
use holdpoint_types::EffectClass;

fn settings() -> OauthSettings {
    let name = |name: &str| name.parse().unwrap();
    OauthSettings {
        base: "https://holdpoint.example.com".to_owned(),
        audiences: vec![],
        scopes: Scopes {
            read: "mcp:read".to_owned(),
            write: "mcp:write".to_owned(),
            destructive: "mcp:destructive".to_owned(),
        },
        algorithms: Algorithm::ALL.into(),
        leeway_s: 30,
        clients: [("client-1".to_owned(), name("coder")), ("client-2".to_owned(), name("both"))]
            .into(),
        subjects: [("ada".to_owned(), name("reviewer")), ("bob".to_owned(), name("both"))].into(),
    }
}

fn admit(client: Option<&str>, subject: Option<&str>, scopes: &str) -> Result<String, Unadmitted> {
    let claims = Claims {
        client: client.map(str::to_owned),
        subject: subject.map(str::to_owned),
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
    };
    settings().admit(&claims).map(|caller| format!("{} {}", caller.agent, caller.reach))
}

#[test]
fn a_token_acts_as_exactly_one_declared_agent() {
    let read = "mcp:read";
    assert_eq!(admit(Some("client-1"), None, read).unwrap(), "coder read");
    assert_eq!(admit(Some("client-1"), Some("eve"), read).unwrap(), "coder read");
    assert_eq!(admit(Some("other"), Some("ada"), read).unwrap(), "reviewer read");
    assert_eq!(admit(Some("client-2"), Some("bob"), read).unwrap(), "both read");
    // A claim of one kind is never looked up among those of the other.
    assert_eq!(admit(Some("ada"), Some("client-1"), read), Err(Unadmitted::NoAgent));
    assert_eq!(admit(Some("client"), Some("Ada"), read), Err(Unadmitted::NoAgent));
    assert_eq!(admit(None, None, read), Err(Unadmitted::NoAgent));
    assert_eq!(admit(Some("client-1"), Some("ada"), read), Err(Unadmitted::TwoAgents));
}

#[test]
fn a_scope_reaches_its_class_and_the_milder_ones() {
    let reach = |scopes| settings().scopes.reach(&settings_scopes(scopes));
    assert_eq!(reach("mcp:read"), Some(EffectClass::Read));
    assert_eq!(reach("mcp:write"), Some(EffectClass::Write));
    assert_eq!(reach("mcp:read mcp:destructive"), Some(EffectClass::Destructive));
    assert_eq!(reach("openid mcp:readwrite MCP:READ"), None);
    assert_eq!(admit(Some("client-1"), None, "openid"), Err(Unadmitted::NoScope));
}

fn settings_scopes(scopes: &str) -> std::collections::BTreeSet<String> {
    scopes.split(' ').map(str::to_owned).collect()
}
