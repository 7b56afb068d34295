//! Adds an agent's section to the configuration file, and leaves everything else as it is.
//! Must never write a file that would not load.

use crate::config::{self, Config, Unusable};
use anyhow::Context as _;
use holdpoint_control::{Agent, Grant, ToolPattern};
use holdpoint_types::{AgentName, EffectClass};
use std::io::Write as _;
use std::path::Path;

/// Adds `[agent.NAME]` to the file of `config`; gives the configuration that results.
///
/// # Errors
/// When the file cannot be read or written, or would not load any more. Then it is unchanged.
pub fn add(config: &Config, name: &AgentName, agent: &Agent) -> anyhow::Result<Config> {
    // A link stays a link: its target is rewritten.
    let file = config.file.canonicalize();
    let file = file.with_context(|| format!("cannot find `{}`", config.file.display()))?;
    let text = appended(&config::read_text(&file)?, &section(name, agent));
    let shown = config.file.display().to_string();
    let (checked, report) = config::check(&shown, &config.file, &text);
    let Some(checked) = checked else {
        return Err(Unusable::Faulty { file: shown, report }.into());
    };
    replace(&file, &text).with_context(|| format!("cannot write `{shown}`"))?;
    Ok(checked)
}

/// Writes beside the file, then moves over it: nobody ever reads half of it.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let folder = file.parent().context("it lies in no folder")?;
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().set_permissions(std::fs::metadata(file)?.permissions())?;
    draft.as_file().sync_all()?;
    draft.persist(file)?;
    Ok(())
}

fn appended(text: &str, section: &str) -> String {
    let gap = match text {
        "" => "",
        _ if text.ends_with("\n\n") => "",
        _ if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}{section}")
}

fn section(name: &AgentName, agent: &Agent) -> String {
    // A bare key may not hold a dot, a name may.
    let key = match name.as_str().contains('.') {
        true => format!("\"{name}\""),
        false => name.to_string(),
    };
    let head = format!("[agent.{key}]\nowner = \"{}\"\nmode = \"{}\"\n", agent.owner, agent.mode);
    let grants = agent.grants.iter().map(|grant| {
        let tools: Vec<_> = grant.tools().iter().map(|tool| format!("\"{tool}\"")).collect();
        let tools = tools.join(", ");
        format!("\n[[agent.{key}.grant]]\nclass = \"{}\"\ntools = [{tools}]\n", grant.class())
    });
    head + &grants.collect::<String>()
}

/// One grant per class from `CLASS:PATTERN` pairs.
///
/// # Errors
/// When a destructive one does not name its tool in full.
pub fn grants(pairs: &[(EffectClass, ToolPattern)]) -> anyhow::Result<Vec<Grant>> {
    let mut grants = Vec::new();
    for class in EffectClass::ALL {
        let tools = pairs.iter().filter(|(found, _)| *found == class);
        let tools: Vec<_> = tools.map(|(_, pattern)| pattern.clone()).collect();
        if !tools.is_empty() {
            grants.push(Grant::new(class, tools)?);
        }
    }
    Ok(grants)
}

/// A `CLASS:PATTERN` pair.
///
/// # Errors
/// When it is none, or a destructive one does not name its tool in full.
pub fn parse_grant(text: &str) -> Result<(EffectClass, ToolPattern), String> {
    let form = "use CLASS:PATTERN, for example `read:fs__*`";
    let (class, pattern) = text.split_once(':').ok_or_else(|| form.to_owned())?;
    let class: EffectClass = class.parse().map_err(|fault| format!("{fault}"))?;
    let pattern = ToolPattern::parse(pattern).map_err(|fault| fault.to_string())?;
    Grant::new(class, vec![pattern.clone()]).map_err(|fault| fault.to_string())?;
    Ok((class, pattern))
}

#[cfg(test)]
mod tests {
    use super::{add, appended, grants, parse_grant, section};
    use crate::config;
    use expect_test::expect;
    use holdpoint_control::Agent;
    use holdpoint_types::Mode;
    use std::collections::BTreeSet;

    fn agent() -> Agent {
        let pairs = ["read:fs__*", "destructive:fs__rm", "read:db__query"];
        let pairs: Vec<_> = pairs.iter().map(|pair| parse_grant(pair).unwrap()).collect();
        let grants = grants(&pairs).unwrap();
        Agent {
            owner: "platform".parse().unwrap(),
            mode: Mode::ApproveWrites,
            grants,
            requesters: BTreeSet::new(),
        }
    }

    #[test]
    fn a_section_has_one_grant_per_class() {
        expect![[r#"
            [agent.coder]
            owner = "platform"
            mode = "approve-writes"

            [[agent.coder.grant]]
            class = "read"
            tools = ["fs__*", "db__query"]

            [[agent.coder.grant]]
            class = "destructive"
            tools = ["fs__rm"]
        "#]]
        .assert_eq(&section(&"coder".parse().unwrap(), &agent()));
        let dotted = section(&"coder.v2".parse().unwrap(), &agent());
        assert!(dotted.starts_with("[agent.\"coder.v2\"]\n"), "{dotted}");
    }

    #[test]
    fn a_section_begins_after_an_empty_line() {
        for (text, expected) in [("", "x"), ("a", "a\n\nx"), ("a\n", "a\n\nx"), ("a\n\n", "a\n\nx")]
        {
            assert_eq!(appended(text, "x"), expected);
        }
    }

    #[test]
    fn grants_that_mean_nothing_or_too_much_are_refused() {
        for text in ["", "read", "admin:fs__x", "read:", "destructive:fs__*", "read:a b"] {
            assert!(parse_grant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file_keeps_everything_else_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("holdpoint.toml");
        let before = "# mine\n[team.platform] # ours\n";
        std::fs::write(&file, before).unwrap();
        let config = config::load(&file).unwrap().config;
        let name = "coder.v2".parse().unwrap();
        let after = add(&config, &name, &agent()).unwrap();
        assert!(after.settings.agent(&name).is_some(), "the agent is not declared");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(before), "{text}");

        let orphan = Agent { owner: "nobody".parse().unwrap(), ..agent() };
        add(&config, &"other".parse().unwrap(), &orphan).unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
