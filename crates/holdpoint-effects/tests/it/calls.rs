//! The corpus: what calls must be read as. Every miss and every false alarm is printed.

use holdpoint_effects::{
    Body, Effects, HttpRequest, HttpRules, Place, Severity, file_delete, file_edit, file_move,
    file_read, file_write, folder_delete, http, shell,
};
use holdpoint_types::EffectClass;
use serde::Deserialize;

/// One file of the corpus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    case: Vec<Case>,
}

/// One call, and what must be said of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// A shell text, a request, or the call of a file tool.
    input: String,
    /// `none`, `read`, `write` or `destructive`.
    class: String,
    /// `verb address`, of effects that must be among those found.
    #[serde(default)]
    effects: Vec<String>,
    /// Codes of notes that must be among those found. A grave note that is not named here is a
    /// false alarm, unless the class is destructive anyway.
    #[serde(default)]
    notes: Vec<String>,
}

/// What went wrong with one case.
enum Fault {
    Miss(String),
    Alarm(String),
}

fn place() -> Place {
    let rules = HttpRules {
        allowed_hosts: ["api.example.com", "*.svc.example.com"].map(str::to_owned).into(),
        brokered_headers: ["x-brokered"].map(str::to_owned).into(),
        mutations: [
            ("variableUpsert".to_owned(), EffectClass::Write),
            ("volumeDelete".to_owned(), EffectClass::Destructive),
        ]
        .into(),
        ..HttpRules::default()
    };
    Place {
        cwd: Some("/work/app".to_owned()),
        workspace: Some("/work/app".to_owned()),
        home: Some("/home/agent".to_owned()),
        repository: Some("app".to_owned()),
        protected_branches: ["main", "release/*"].map(str::to_owned).into(),
        http: rules,
        ..Place::default()
    }
}

fn run(family: &str, corpus: &[&str], least: usize, judge: fn(&str) -> Effects) {
    let mut faults = Vec::new();
    let mut count = 0;
    for text in corpus {
        let corpus: Corpus = toml::from_str(text).unwrap();
        for case in &corpus.case {
            count += 1;
            let found = judge(&case.input);
            compare(case, &found, &mut faults);
        }
    }
    let misses: Vec<&String> = faults.iter().filter_map(Fault::miss).collect();
    let alarms: Vec<&String> = faults.iter().filter_map(Fault::alarm).collect();
    println!("{family}: {count} cases, {} misses, {} alarms", misses.len(), alarms.len());
    misses.iter().for_each(|miss| println!("MISS {miss}"));
    alarms.iter().for_each(|alarm| println!("ALARM {alarm}"));
    assert!(count >= least, "{family}: {count} cases are fewer than {least}");
    assert!(faults.is_empty(), "{family}: {} of {count} are wrong", faults.len());
}

impl Fault {
    fn miss(&self) -> Option<&String> {
        match self {
            Self::Miss(text) => Some(text),
            Self::Alarm(_) => None,
        }
    }

    fn alarm(&self) -> Option<&String> {
        match self {
            Self::Alarm(text) => Some(text),
            Self::Miss(_) => None,
        }
    }
}

fn compare(case: &Case, found: &Effects, faults: &mut Vec<Fault>) {
    let wanted = match case.class.as_str() {
        "none" => None,
        class => Some(class.parse::<EffectClass>().unwrap()),
    };
    let show = || {
        let effects: Vec<String> =
            found.iter().map(|effect| format!("{} {}", effect.verb, effect.resource)).collect();
        let notes: Vec<&str> = found.notes().map(|note| note.code.as_str()).collect();
        format!("{}: `{}`: {:?} {notes:?}", case.name, case.input, effects)
    };
    let class = found.class();
    if class < wanted {
        faults.push(Fault::Miss(format!("class {class:?} < {wanted:?} {}", show())));
    }
    if class > wanted {
        faults.push(Fault::Alarm(format!("class {class:?} > {wanted:?} {}", show())));
    }
    for wanted in &case.effects {
        let has =
            found.iter().any(|effect| format!("{} {}", effect.verb, effect.resource) == *wanted);
        if !has {
            faults.push(Fault::Miss(format!("no `{wanted}` {}", show())));
        }
    }
    for wanted in &case.notes {
        if !found.notes().any(|note| note.code.as_str() == wanted) {
            faults.push(Fault::Miss(format!("no note {wanted} {}", show())));
        }
    }
    let mild = wanted < Some(EffectClass::Destructive);
    for note in found.notes() {
        let named = case.notes.iter().any(|code| code == note.code.as_str());
        if mild && note.severity == Severity::Fail && !named {
            faults.push(Fault::Alarm(format!("note {} {}", note.code.as_str(), show())));
        }
    }
}

#[test]
fn shell_texts_are_read_as_bash_reads_them() {
    let corpus = [
        include_str!("../../corpus/shell/files.toml"),
        include_str!("../../corpus/shell/hidden.toml"),
        include_str!("../../corpus/shell/wrapped.toml"),
        include_str!("../../corpus/shell/programs.toml"),
        include_str!("../../corpus/shell/others.toml"),
        include_str!("../../corpus/shell/benign.toml"),
        include_str!("../../corpus/shell/found.toml"),
        include_str!("../../corpus/shell/options.toml"),
        include_str!("../../corpus/shell/everyday.toml"),
        include_str!("../../corpus/shell/places.toml"),
        include_str!("../../corpus/git/git.toml"),
    ];
    run("shell", &corpus, 400, |input| {
        let mut effects = Effects::default();
        shell(input, &place(), &mut effects);
        effects
    });
}

/// `METHOD URL`, headers, an empty line and the body.
#[test]
fn requests_are_read_by_what_they_do() {
    let corpus = [include_str!("../../corpus/http/http.toml")];
    run("http", &corpus, 60, |input| {
        let (head, body) = input.split_once("\n\n").unwrap_or((input, ""));
        let mut lines = head.lines();
        let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = match body.trim_end() {
            "" => Body::None,
            body => Body::Text(body.to_owned()),
        };
        let request = HttpRequest {
            method: method.to_owned(),
            url: url.to_owned(),
            headers,
            body,
            redirects: false,
        };
        let mut effects = Effects::default();
        http(&request, &place(), &mut effects);
        effects
    });
}

/// `tool path`, and for some a second path or, on the next lines, contents.
#[test]
fn file_tools_are_read_by_what_their_paths_mean() {
    let corpus = [include_str!("../../corpus/files/files.toml")];
    run("files", &corpus, 50, |input| {
        let (head, contents) = input.split_once('\n').unwrap_or((input, ""));
        let words: Vec<&str> = head.split(' ').collect();
        let mut effects = Effects::default();
        match words.as_slice() {
            ["read", path] => file_read(path, &place(), &mut effects),
            ["write", path] => file_write(path, contents, &place(), &mut effects),
            ["edit", path] => file_edit(path, contents, &place(), &mut effects),
            ["delete", path] => file_delete(path, &place(), &mut effects),
            ["delete_folder", path] => folder_delete(path, &place(), &mut effects),
            ["move", from, to] => file_move(from, to, &place(), &mut effects),
            _ => panic!("not a call: {head}"),
        }
        effects
    });
}
