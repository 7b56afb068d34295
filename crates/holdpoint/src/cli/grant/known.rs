//! Whether a grant names tools that there are. Must not refuse for want of a tool that is only not
//! seen yet: servers may be down, and hosts show their tools as they use them.

use crate::config::nearest;
use holdpoint_control::{Settings, ToolPattern, ToolSet};
use holdpoint_types::{READ_REQUESTS, ServerName, ToolRef};
use std::collections::BTreeSet;

/// What is known of servers and of their tools.
pub(super) struct Known {
    servers: BTreeSet<ServerName>,
    tools: Vec<ToolRef>,
}

// === impl Known ===

impl Known {
    /// The servers of `settings`, and the `pinned` tools, whose servers `wrap` may have started
    /// undeclared.
    pub(super) fn new(settings: &Settings, pinned: Vec<ToolRef>) -> Self {
        let mut servers: BTreeSet<_> = settings.parts().servers.keys().cloned().collect();
        servers.extend(pinned.iter().map(|tool| tool.server().clone()));
        Self { servers, tools: pinned }
    }

    /// What may not be as it was meant in `patterns`, each on a line.
    ///
    /// # Errors
    /// When one of them can match nothing, whatever servers say of themselves later.
    pub(super) fn doubts(&self, patterns: &[String]) -> Result<Vec<String>, String> {
        let mut doubts = Vec::new();
        for text in patterns {
            // What is no pattern is refused by who grants.
            let Ok(pattern) = ToolPattern::parse(text) else { continue };
            doubts.extend(self.doubt(&pattern)?);
        }
        Ok(doubts)
    }

    fn doubt(&self, pattern: &ToolPattern) -> Result<Option<String>, String> {
        if !pattern.has_wildcard() && !pattern.as_str().contains("__") {
            return Err(format!("`{pattern}` matches no tool, because tools are `server__tool`"));
        }
        let server = pattern.server();
        if let Some(server) = server
            && !self.servers.iter().any(|known| known.as_str() == server)
        {
            return Err(self.no_server(pattern, server));
        }
        let Ok(set) = ToolSet::new(std::slice::from_ref(pattern)) else { return Ok(None) };
        let requests = self.servers.iter().flat_map(|server| {
            READ_REQUESTS.iter().filter_map(|name| ToolRef::new(server.clone(), name).ok())
        });
        if self.tools.iter().cloned().chain(requests).any(|tool| set.contains(&tool)) {
            return Ok(None);
        }
        Ok(Some(self.no_tool(pattern, server)))
    }

    fn no_server(&self, pattern: &ToolPattern, server: &str) -> String {
        let names = || self.servers.iter().map(ServerName::as_str);
        let known: Vec<_> = names().map(|name| format!("`{name}`")).collect();
        let near = nearest(server, names()).map(|near| format!("; did you mean `{near}`?"));
        let known = match known.as_slice() {
            [] => "none is declared".to_owned(),
            _ => format!("there are {}", known.join(", ")),
        };
        let near = near.unwrap_or_default();
        format!("`{pattern}` matches nothing: there is no server `{server}` ({known}){near}")
    }

    fn no_tool(&self, pattern: &ToolPattern, server: Option<&str>) -> String {
        let of_server = |tool: &&ToolRef| server.is_none_or(|name| tool.server().as_str() == name);
        let seen: Vec<_> = self.tools.iter().filter(of_server).map(ToolRef::to_string).collect();
        let whose = server.map(|server| format!(" of `{server}`")).unwrap_or_default();
        let hint = match seen.as_slice() {
            [] => "none was seen yet".to_owned(),
            seen => match nearest(pattern.as_str(), seen.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`holdpoint tools` lists what was seen".to_owned(),
            },
        };
        format!("`{pattern}` matches no tool{whose} that was seen so far; {hint}")
    }
}

#[cfg(test)]
mod tests {
    use super::Known;
    use holdpoint_types::ToolRef;

    fn known(servers: &[&str], tools: &[&str]) -> Known {
        let tools: Vec<ToolRef> = tools.iter().map(|tool| tool.parse().unwrap()).collect();
        Known { servers: servers.iter().map(|name| name.parse().unwrap()).collect(), tools }
    }

    fn doubts(known: &Known, pattern: &str) -> Result<String, String> {
        known.doubts(&[pattern.to_owned()]).map(|doubts| doubts.join("\n"))
    }

    #[test]
    fn a_grant_for_tools_that_are_not_there_is_refused_or_doubted() {
        let known = known(&["files", "git"], &["files__read_text", "files__write_text"]);
        for (pattern, said) in [
            ("files__*", ""),
            ("files__write_text", ""),
            ("*__read_*", ""),
            ("git__resources/*", ""),
            (
                "files__wirte_text",
                "`files__wirte_text` matches no tool of `files` that was seen so far; did you \
                 mean `files__write_text`?",
            ),
            (
                "*zzz*",
                "`*zzz*` matches no tool that was seen so far; `holdpoint tools` lists what was \
                 seen",
            ),
            (
                "git__push",
                "`git__push` matches no tool of `git` that was seen so far; none was seen yet",
            ),
        ] {
            assert_eq!(doubts(&known, pattern).as_deref(), Ok(said), "{pattern}");
        }
        for (pattern, said) in [
            (
                "file__*",
                "`file__*` matches nothing: there is no server `file` (there are `files`, `git`); \
                 did you mean `files`?",
            ),
            (
                "notthere__*",
                "`notthere__*` matches nothing: there is no server `notthere` (there are `files`, \
                 `git`)",
            ),
            ("push", "`push` matches no tool, because tools are `server__tool`"),
        ] {
            assert_eq!(doubts(&known, pattern), Err(said.to_owned()), "{pattern}");
        }
    }
}
