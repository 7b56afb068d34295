//! The text of a first configuration. Must always pass `holdpoint check`.

use super::Args;
use super::client::{Endpoint, Imported, Kept};
use std::fmt::Write as _;

const HEAD: &str = r#"# Holdpoint's configuration.
# Every key with its default is in docs/configuration.md.
# `holdpoint check` reports everything that is wrong with this file.

[store]
path = ".holdpoint"              # records, pins, keys and stops; relative to this file

[listen]
http = "127.0.0.1:4747"          # MCP over HTTP: /mcp for all servers, /mcp/NAME for one
# anonymous_agent = "visitor"    # the declared agent as which requests without a key act
"#;

const LIMITS: &str = r"
# [limits]
# message_bytes_max = 4194304        # longest message, in bytes
# output_stored_bytes_max = 65536    # longest output kept word for word, in bytes
# calls_in_flight_max = 256
# call_timeout_ms = 60000
# stop_grace_ms = 2000               # then a stopped call's process is killed
";

const SERVER_EXAMPLE: &str = r#"
# An upstream server: either a command that speaks MCP on its standard input and output, or a URL.
#
# [server.fs]
# command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/srv/app"]
# environment = "dev"                # without it, everything here counts as prod
# # Tools are classified by their own names. A tool in no list is destructive.
# read = ["read_*", "list_*", "get_*", "search_*", "directory_tree"]
# write = ["write_file", "edit_file", "create_directory", "move_file"]
#
# [server.fs.tool.write_file]
# resource = "file://{/path}"        # what a call is aimed at, by JSON Pointer
#
# [server.tickets]
# url = "https://mcp.example.com/mcp"
# headers = { Authorization = { from_env = "TICKETS_AUTHORIZATION" } }
"#;

const PLACES: &str = r#"
# Where resources live. What no rule names counts as prod.
#
# [[environment]]
# name = "prod"
# resources = ["file:///srv/prod/**"]
# servers = []

# Sets of resources with shared danger. The starter pack holds changes to these names: prod, auth,
# network, billing, ci, secrets.
#
# [[surface]]
# name = "secrets"
# resources = ["file:///**/.env", "file:///**/secrets/**"]

# Spans of time in which the starter pack permits nothing but reads.
#
# [[freeze]]
# name = "year-end"
# from = 2026-12-18T00:00:00Z
# until = 2027-01-04T00:00:00Z
#
# Or every weekend, but for what two operators approve:
#
# [[freeze]]
# name = "weekends"
# every = ["fri 16:00 - mon 08:00"]
# time_zone = "Europe/Berlin"
# exception = "freeze-exception"
#
# [approval.freeze-exception]
# count = 2
"#;

const PATTERNS: &str = r#"# Review these: a name promises nothing. A tool in no list is destructive.
read = ["read_*", "list_*", "get_*", "search_*", "find_*", "describe_*", "directory_tree"]
write = ["write_*", "create_*", "add_*", "edit_*", "update_*"]
destructive = ["delete_*", "remove_*", "drop_*"]
"#;

/// The configuration for what was asked, with the imported servers.
pub(super) fn config_text(args: &Args, servers: &[Imported]) -> String {
    let mut text = HEAD.to_owned();
    text.push_str(if args.policies {
        "\n[policies]\npath = \"policies\"                # the *.cedar files\n"
    } else {
        "\n# [policies]\n# path = \"policies\"              # absent: the built-in starter pack\n"
    });
    text.push_str(LIMITS);
    // Writing into a string cannot fail.
    let _ = write_agent(args, servers, &mut text);
    if servers.is_empty() {
        text.push_str(SERVER_EXAMPLE);
    }
    for server in servers {
        // Writing into a string cannot fail.
        let _ = write_server(server, &mut text);
    }
    text.push_str(PLACES);
    text
}

fn write_agent(args: &Args, servers: &[Imported], text: &mut String) -> std::fmt::Result {
    let (team, agent) = (key(args.team.as_str()), key(args.agent.as_str()));
    writeln!(text, "\n[team.{team}]")?;
    writeln!(text, "# on_call = \"https://example.com/on-call\"   # how to reach whoever answers")?;
    writeln!(text, "\n[agent.{agent}]")?;
    writeln!(text, "owner = {}", quoted(args.team.as_str()))?;
    writeln!(
        text,
        "mode = \"auto\"                    # or approve-writes, plan-only, read-only, quarantined"
    )?;
    text.push_str(
        "# Patterns over `server__tool`. Destructive tools are granted one by one, by full name.\n",
    );
    text.push_str("grants = [\n  { class = \"read\", tools = [\"*\"] },\n");
    if servers.is_empty() {
        text.push_str("  # { class = \"write\", tools = [\"fs__*\"] },\n");
    } else {
        let tools: Vec<_> = servers.iter().map(|s| quoted(&format!("{}__*", s.name))).collect();
        writeln!(text, "  {{ class = \"write\", tools = [{}] }},", tools.join(", "))?;
    }
    text.push_str("]\n");
    Ok(())
}

fn write_server(server: &Imported, text: &mut String) -> std::fmt::Result {
    writeln!(text, "\n[server.{}]", key(server.name.as_str()))?;
    let values = match &server.endpoint {
        Endpoint::Command { words, cwd } => {
            if server.hidden > 0 {
                text.push_str("# Arguments that look like secrets were not copied: use `env`.\n");
            }
            let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
            writeln!(text, "command = [{}]", words.join(", "))?;
            if let Some(cwd) = cwd {
                writeln!(text, "cwd = {}", quoted(cwd))?;
            }
            "env"
        }
        Endpoint::Url { url } => {
            writeln!(text, "url = {}", quoted(url))?;
            "headers"
        }
    };
    text.push_str(
        "# environment = \"dev\"              # without it, everything here counts as prod\n",
    );
    text.push_str(PATTERNS);
    if server.values.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n[server.{}.{values}]", key(server.name.as_str()))?;
    if server.references().next().is_some() {
        text.push_str(
            "# Values were not copied; they are read from these environment variables.\n",
        );
    }
    for (name, kept) in &server.values {
        match kept {
            Kept::Literal(value) => writeln!(text, "{} = {}", key(name), quoted(value))?,
            Kept::Env(variable) => {
                writeln!(text, "{} = {{ from_env = {} }}", key(name), quoted(variable))?;
            }
        }
    }
    Ok(())
}

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A text as a TOML key: bare if it may be.
fn key(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(bare) { text.to_owned() } else { quoted(text) }
}
