//! `holdpoint effects -- COMMAND`: what a call would do, and why; for whoever writes grants and
//! policies. Must never execute anything, nor need a store: it reads the text, and for a call the
//! configuration.

use super::look::{Look, Table, Tone, escaped, shortened};
use super::{Exit, Format, Globals, WrongUsage, answer, try_call};
use anyhow::Context as _;
use holdpoint_effects::{
    Cluster, Database, Dialect, Effects, HttpRules, Note, Place, Severity, graphql, iam,
    kubernetes_manifest, shell, sql, terraform,
};
use holdpoint_types::{
    AgentName, EffectClass, EffectFacts, FindingResult, GrantFacts, TargetFacts, Verb,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest text that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Show what a command, a text or a call would do, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the text is.
    #[arg(long, value_enum, default_value_t = Kind::Shell)]
    family: Kind,
    /// Read a call instead, as `holdpoint try` takes it, as the configuration says of its tool.
    #[arg(long, value_name = "CALL.json", conflicts_with_all = ["text", "family"])]
    call: Option<PathBuf>,
    /// A command with its arguments, or one text; `-` for standard input.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    text: Vec<String>,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A command of a shell.
    Shell,
    /// SQL for PostgreSQL.
    Postgres,
    /// SQL for SQLite.
    Sqlite,
    /// SQL for MySQL or MariaDB.
    Mysql,
    /// A plan, as `terraform show -json` prints it.
    Terraform,
    /// A manifest.
    Kubernetes,
    /// An access policy as JSON.
    Iam,
    /// A GraphQL document or body.
    Graphql,
}

/// Runs `holdpoint effects`.
///
/// # Errors
/// When the text, the call or the configuration cannot be read, or the tool is not analysed.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let (effects, facts, words) = match &args.call {
        Some(file) => of_call(file, globals)?,
        None => {
            let effects = of_text(args)?;
            let facts = effects.iter().map(|effect| EffectFacts {
                effect: effect.clone(),
                grant: GrantFacts::default(),
                target: TargetFacts {
                    resource: effect.resource.clone(),
                    environment: String::new(),
                    environment_resolved: false,
                    surfaces: BTreeSet::new(),
                },
            });
            let mut facts: Vec<_> = facts.collect();
            facts.sort_by_key(|one| std::cmp::Reverse(one.effect.class));
            let words = effects.notes().map(|note| severity(note.severity)).collect();
            (effects, facts, words)
        }
    };
    let notes: Vec<_> = effects.notes().zip(words).collect();
    match globals.format {
        Format::Json => {
            let told = to_json(&facts, &notes, args.call.is_some());
            answer(&format!("{}\n", serde_json::to_string_pretty(&told)?))?;
        }
        Format::Text => answer(&render(&facts, &notes, &Look::of_terminal()))?,
    }
    Ok(Exit::Ok)
}

/// The effects of a call, where they lie, and what each note does where they lie.
type OfCall = (Effects, Vec<EffectFacts>, Vec<&'static str>);

fn of_call(file: &Path, globals: &Globals) -> anyhow::Result<OfCall> {
    let config = globals.load()?;
    let agent: AgentName = "nobody".parse()?;
    let call = try_call::read_call(file, &agent)?;
    let effects = config.settings.effects(&call.tool, &call.parameters).with_context(|| {
        let (server, tool) = (call.tool.server(), call.tool.name());
        let table = format!("[server.{server}.tool.{tool}]");
        format!("calls of `{}` are not analysed; say how with `effects` in {table}", call.tool)
    })?;
    let facts = config.settings.effect_facts(&agent, &call.tool, &effects);
    let said = effects.notes().map(|note| {
        let finding = config.settings.findings(std::iter::once(note), &facts).next();
        finding.map_or("off", |finding| word(finding.result))
    });
    let words = said.collect();
    Ok((effects, facts, words))
}

/// What a finding does: opaque ones deny as those that fail.
fn word(result: FindingResult) -> &'static str {
    match result {
        FindingResult::Pass => "off",
        FindingResult::Warn => "warn",
        FindingResult::Fail | FindingResult::Opaque => "fail",
    }
}

fn of_text(args: &Args) -> anyhow::Result<Effects> {
    let text = match args.text.as_slice() {
        [] => {
            let next = "write a command: `holdpoint effects -- rm -rf build`".to_owned();
            return Err(WrongUsage(next).into());
        }
        [one] if one == "-" => {
            let mut text = String::new();
            std::io::stdin().take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
            text
        }
        [one] => one.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let mut effects = Effects::default();
    let here = std::env::current_dir().ok().map(|folder| folder.display().to_string());
    let home = std::env::home_dir().map(|home| home.display().to_string());
    let place = Place { workspace: here.clone(), cwd: here, home, ..Place::default() };
    let database = |dialect, address: &str| Database::new(dialect, address);
    match args.family {
        Kind::Shell => shell(&text, &place, &mut effects),
        Kind::Postgres => sql(&text, &database(Dialect::Postgres, "pg://database"), &mut effects),
        Kind::Sqlite => sql(&text, &database(Dialect::Sqlite, "sqlite://database"), &mut effects),
        Kind::Mysql => sql(&text, &database(Dialect::Mysql, "mysql://database"), &mut effects),
        Kind::Terraform => terraform(&text, "state", &mut effects),
        Kind::Kubernetes => {
            let (address, namespace) = ("k8s://cluster".to_owned(), "default".to_owned());
            let cluster = Cluster { address, namespace };
            kubernetes_manifest(&text, &cluster, Verb::Update, &mut effects);
        }
        Kind::Iam => iam(None, &text, "iam://policy", &mut effects),
        Kind::Graphql => graphql(&text, "https://endpoint", &HttpRules::default(), &mut effects),
    }
    Ok(effects)
}

/// A word as the shell that started us had read it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn to_json(facts: &[EffectFacts], notes: &[(&Note, &'static str)], placed: bool) -> Value {
    let effects = facts.iter().map(|one| {
        let mut told = json!(one.effect);
        if placed {
            told["environment"] = one.target.environment.as_str().into();
            told["environment_resolved"] = one.target.environment_resolved.into();
            told["surfaces"] = json!(one.target.surfaces);
        }
        told
    });
    let notes = notes.iter().map(|(note, does)| {
        json!({
            "code": note.code.as_str(),
            "severity": does,
            "meaning": note.code.meaning(),
            "evidence": note.evidence,
        })
    });
    let class = facts.iter().map(|one| one.effect.class).max();
    json!({
        "class": class.map(EffectClass::as_str),
        "effects": effects.collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
    })
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Warn => "warn",
        Severity::Fail => "fail",
    }
}

fn render(facts: &[EffectFacts], notes: &[(&Note, &'static str)], look: &Look) -> String {
    let Some(class) = facts.iter().map(|one| one.effect.class).max() else {
        return "It does nothing that lasts.\n".to_owned();
    };
    let mut table = Table::default();
    table.titles(&["CLASS", "VERB", "RESOURCE", "HOW MUCH", "HOW SURE", "TAKEN BACK", "WHY"]);
    for EffectFacts { effect, target, .. } in facts {
        let mut resource = shortened(&effect.resource, 80);
        if !target.environment.is_empty() {
            let unresolved = if target.environment_resolved { "" } else { "?" };
            let surfaces: Vec<_> = target.surfaces.iter().map(|name| escaped(name)).collect();
            let on = if surfaces.is_empty() { "" } else { ": " };
            let environment = escaped(&target.environment);
            resource = format!("{resource} ({environment}{unresolved}{on}{})", surfaces.join(", "));
        }
        table.push(vec![
            (Tone::of_class(effect.class), effect.class.to_string()),
            (Tone::Plain, effect.verb.to_string()),
            (Tone::Plain, resource),
            (Tone::Dim, effect.extent.as_str().to_owned()),
            (Tone::Dim, effect.certainty.as_str().to_owned()),
            (Tone::Dim, effect.ceiling.as_str().to_owned()),
            (Tone::Plain, shortened(&effect.evidence, 100)),
        ]);
    }
    let mut text = table.render("", look);
    if !notes.is_empty() {
        let mut table = Table::default();
        for (note, does) in notes {
            let tone = match *does {
                "fail" => Tone::Bad,
                "off" => Tone::Dim,
                _ => Tone::Careful,
            };
            let said = format!("{} {}", note.code.meaning(), shortened(&note.evidence, 100));
            table.push(vec![
                (tone, (*does).to_owned()),
                (Tone::Plain, note.code.as_str().to_owned()),
                (Tone::Plain, said),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render("", look));
    }
    let whole = look.paint(Tone::of_class(class), class.as_str());
    text.push_str(&format!("\nAs a whole: {whole}.\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::{quoted, render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_effects::{Effects, Place, shell};
    use holdpoint_types::{EffectFacts, GrantFacts, TargetFacts};
    use std::collections::BTreeSet;

    fn facts(effects: &Effects) -> Vec<EffectFacts> {
        let place = |resource: &str| TargetFacts {
            resource: resource.to_owned(),
            environment: "prod".to_owned(),
            environment_resolved: false,
            surfaces: BTreeSet::from(["auth".to_owned()]),
        };
        let one = |effect: &holdpoint_types::Effect| EffectFacts {
            effect: effect.clone(),
            grant: GrantFacts::default(),
            target: place(&effect.resource),
        };
        effects.iter().map(one).collect()
    }

    #[test]
    fn effects_are_shown_with_their_reasons() {
        let mut effects = Effects::default();
        let place = Place { cwd: Some("/srv".to_owned()), ..Place::default() };
        shell("cat x; VAR=1 rm -rf y", &place, &mut effects);
        let (facts, notes) = (facts(&effects), Vec::new());
        expect![[r#"
            CLASS        VERB    RESOURCE                     HOW MUCH  HOW SURE  TAKEN BACK  WHY
            read         read    file:///srv/x (prod?: auth)  part      exact     no_effect   cat x
            destructive  delete  file:///srv/y (prod?: auth)  whole     exact     exact       rm -rf y

            As a whole: destructive.
        "#]].assert_eq(&render(&facts, &notes, &look()));
        expect![[r#"{"class":"destructive","effects":[{"verb":"read","class":"read","resource":"file:///srv/x","extent":"part","certainty":"exact","ceiling":"no_effect","evidence":"cat x","environment":"prod","environment_resolved":false,"surfaces":["auth"]},{"verb":"delete","class":"destructive","resource":"file:///srv/y","extent":"whole","certainty":"exact","ceiling":"exact","evidence":"rm -rf y","environment":"prod","environment_resolved":false,"surfaces":["auth"]}],"notes":[]}"#]].assert_eq(&to_json(&facts, &notes, true).to_string());
        let nothing = "It does nothing that lasts.\n";
        assert_eq!(render(&[], &[], &look()), nothing);
    }

    #[test]
    fn a_text_that_is_too_long_is_opaque() {
        let text = vec!["#".repeat(usize::try_from(super::TEXT_BYTES_MAX).unwrap())];
        let args = super::Args { family: super::Kind::Shell, call: None, text };
        assert!(super::of_text(&args).unwrap().is_opaque());
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("-rf"), "-rf");
        assert_eq!(quoted(""), "''");
    }
}
