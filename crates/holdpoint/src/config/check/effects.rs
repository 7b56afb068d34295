//! Checks how calls are analysed, where they run, and what broken invariants do.

use super::Checker;
use crate::config::raw::{
    At, Named, RawDialect, RawEffects, RawFamily, RawInvariant, RawInvariantResult, RawKeep,
    RawPlace, RawServer,
};
use holdpoint_control::Invariant;
use holdpoint_effects::{
    Analyser, Cluster, Database, Dialect, Family, FileAct, HttpRules, Keep, NoteCode, Place, Source,
};
use holdpoint_types::{FindingResult, Verb};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An entry, with what it is called in faults.
struct Entry<'a> {
    raw: &'a At<RawEffects>,
    family: RawFamily,
}

// === impl RawPlace ===

impl RawPlace {
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| *sealed.get())
    }
}

// === impl RawFamily ===

impl RawFamily {
    /// The keys that an entry of this family has: those it needs, and those it may have.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Sql => (&["text", "address", "dialect"], &["views", "read_functions"]),
            Self::Shell => (&["text"], &["cwd"]),
            Self::File => (&["act", "path"], &["contents", "to", "before"]),
            Self::Patch => (&["text"], &[]),
            Self::Http => (&["url"], &["method", "headers", "body"]),
            Self::Graphql | Self::Terraform => (&["text", "address"], &[]),
            Self::Kubernetes => (&["text", "address"], &["verb", "namespace"]),
            Self::Kubectl => (&["verb", "kind", "address"], &["name", "namespace"]),
            Self::Iam => (&["text", "address"], &["before"]),
        }
    }
}

// === impl RawEffects ===

impl RawEffects {
    /// The keys that are there.
    fn present(&self) -> Vec<&'static str> {
        let texts = [
            ("text", &self.text),
            ("address", &self.address),
            ("cwd", &self.cwd),
            ("act", &self.act),
            ("path", &self.path),
            ("contents", &self.contents),
            ("to", &self.to),
            ("url", &self.url),
            ("method", &self.method),
            ("headers", &self.headers),
            ("body", &self.body),
            ("verb", &self.verb),
            ("kind", &self.kind),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("before", &self.before),
        ];
        let mut present: Vec<_> =
            texts.iter().filter(|(_, text)| text.is_some()).map(|(key, _)| *key).collect();
        let others = [
            ("dialect", self.dialect.is_some()),
            ("views", !self.views.is_empty()),
            ("read_functions", !self.read_functions.is_empty()),
        ];
        present.extend(others.iter().filter(|(_, there)| *there).map(|(key, _)| *key));
        present
    }
}

// === impl Checker ===

impl Checker<'_> {
    /// Where the calls of a server run.
    pub(super) fn place(&mut self, server: &RawServer) -> Place {
        let nothing = RawPlace::default();
        let raw = server.place.as_ref().map_or(&nothing, At::get);
        let folder = |text: &Option<At<String>>| text.as_ref().map(|text| text.get().clone());
        for path in [&raw.cwd, &raw.home, &raw.workspace].into_iter().flatten() {
            if !path.get().starts_with('/') {
                let message = format!("`{}` is no absolute path", path.get());
                self.fault(path.span(), message, "write it from `/` on".to_owned());
            }
        }
        let own = server.cwd.as_ref().map(|cwd| self.folder.join(cwd.get()).display().to_string());
        let place = Place {
            host: None,
            cwd: folder(&raw.cwd).or(own),
            home: folder(&raw.home),
            workspace: folder(&raw.workspace),
            repository: folder(&raw.repository),
            protected_branches: raw.protected_branches.iter().cloned().collect(),
            http: HttpRules {
                allowed_hosts: raw.hosts.iter().cloned().collect(),
                brokered_headers: raw
                    .brokered_headers
                    .iter()
                    .map(|name| name.to_ascii_lowercase())
                    .collect(),
                operations: self.operations_of(raw),
                mutations: raw
                    .mutations
                    .iter()
                    .map(|(name, class)| (name.clone(), (*class).into()))
                    .collect(),
            },
            keeps: Arc::default(),
        };
        let keeps = self.keeps.iter();
        let keeps = keeps.filter_map(|(paths, pattern)| Keep::new(paths, pattern, &place).ok());
        Place { keeps: Arc::new(keeps.collect()), ..place }
    }

    /// One analyser of a tool whose calls run at `place`.
    pub(super) fn analyser(&mut self, raw: &At<RawEffects>, place: &Place) -> Option<Analyser> {
        let Some(family) = &raw.get().family else {
            self.missing(&raw.span(), "family", "\"shell\"");
            return None;
        };
        let entry = Entry { raw, family: *family.get() };
        if !self.has_its_keys(&entry) {
            return None;
        }
        let family = self.family(&entry)?;
        Some(Analyser { place: place.clone(), family })
    }

    /// Every key that the family needs is there, and no other.
    fn has_its_keys(&mut self, entry: &Entry<'_>) -> bool {
        let (needed, possible) = entry.family.keys();
        let present = entry.raw.get().present();
        let word = format!("{:?}", entry.family).to_lowercase();
        let lacking: Vec<_> = needed.iter().filter(|key| !present.contains(key)).collect();
        for key in &lacking {
            self.missing(&entry.raw.span(), key, "\"…\"");
        }
        let known = |key: &&str| needed.contains(key) || possible.contains(key);
        let foreign: Vec<_> = present.into_iter().filter(|key| !known(key)).collect();
        for key in &foreign {
            let message = format!("`{key}` means nothing to the family `{word}`");
            let keys: Vec<_> =
                needed.iter().chain(possible).map(|key| format!("`{key}`")).collect();
            self.fault(entry.raw.span(), message, format!("it takes {}", keys.join(", ")));
        }
        lacking.is_empty() && foreign.is_empty()
    }

    fn family(&mut self, entry: &Entry<'_>) -> Option<Family> {
        let raw = entry.raw.get();
        let address = raw.address.as_ref().map(|text| text.get().clone()).unwrap_or_default();
        if raw.address.is_some() && !address.contains("://") {
            let message = format!("`{address}` does not begin with a scheme such as `pg://`");
            self.fault(raw.address.as_ref().map(At::span), message, None);
            return None;
        }
        Some(match entry.family {
            RawFamily::Sql => Family::Sql {
                text: self.source(raw.text.as_ref())?,
                database: database(raw, address)?,
            },
            RawFamily::Shell => Family::Shell {
                text: self.source(raw.text.as_ref())?,
                cwd: self.possible(raw.cwd.as_ref())?,
            },
            RawFamily::File => self.file(raw)?,
            RawFamily::Patch => Family::Patch { text: self.source(raw.text.as_ref())? },
            RawFamily::Http => Family::Http {
                url: self.source(raw.url.as_ref())?,
                method: self.possible(raw.method.as_ref())?,
                headers: self.possible(raw.headers.as_ref())?,
                body: self.possible(raw.body.as_ref())?,
            },
            RawFamily::Graphql => {
                Family::Graphql { text: self.source(raw.text.as_ref())?, address }
            }
            RawFamily::Terraform => {
                let state = address.strip_prefix("tf://").unwrap_or(&address).to_owned();
                Family::Terraform { text: self.source(raw.text.as_ref())?, state }
            }
            RawFamily::Kubernetes => Family::Manifest {
                text: self.source(raw.text.as_ref())?,
                verb: self.verb(raw.verb.as_ref())?,
                cluster: cluster(raw, address),
            },
            RawFamily::Kubectl => Family::Kubectl {
                verb: self.source(raw.verb.as_ref())?,
                kind: self.source(raw.kind.as_ref())?,
                name: self.possible(raw.name.as_ref())?,
                namespace: self.possible(raw.namespace.as_ref())?,
                cluster: Cluster { address, namespace: "default".to_owned() },
            },
            RawFamily::Iam => Family::Iam {
                text: self.source(raw.text.as_ref())?,
                before: self.possible(raw.before.as_ref())?,
                resource: address,
            },
        })
    }

    fn file(&mut self, raw: &RawEffects) -> Option<Family> {
        let written = raw.act.as_ref()?;
        let act = FileAct::ALL.into_iter().find(|act| act.as_str() == written.get());
        let Some(act) = act else {
            let words: Vec<_> = FileAct::ALL.iter().map(|act| act.as_str()).collect();
            let message = format!("`{}` is nothing that is done to a file", written.get());
            self.fault(written.span(), message, format!("write one of {}", words.join(", ")));
            return None;
        };
        let other = match act {
            FileAct::Move => raw.to.as_ref(),
            FileAct::Write | FileAct::Edit => raw.contents.as_ref(),
            FileAct::Read | FileAct::Delete | FileAct::DeleteFolder | FileAct::CreateFolder => None,
        };
        if act == FileAct::Move && other.is_none() {
            self.missing(&written.span(), "to", "\"/destination\"");
            return None;
        }
        if let Some(before) = raw.before.as_ref().filter(|_| act != FileAct::Edit) {
            let message = "`before` is told only of an edit".to_owned();
            self.fault(before.span(), message, "write `act = \"edit\"`".to_owned());
            return None;
        }
        let path = self.source(raw.path.as_ref())?;
        let before = self.possible(raw.before.as_ref())?;
        Some(Family::File { act, path, other: self.possible(other)?, before })
    }

    /// What is done with the objects of a manifest.
    fn verb(&mut self, written: Option<&At<String>>) -> Option<Verb> {
        let Some(written) = written else { return Some(Verb::Update) };
        let verbs = [Verb::Create, Verb::Update, Verb::Delete, Verb::Read];
        let found = verbs.into_iter().find(|verb| verb.as_str() == written.get());
        if found.is_none() {
            let message = format!("`{}` is not done with manifests", written.get());
            let next = "write `create`, `update`, `delete` or `read`".to_owned();
            self.fault(written.span(), message, next);
        }
        found
    }

    /// A source that must be there.
    fn source(&mut self, text: Option<&At<String>>) -> Option<Source> {
        self.possible(text)?
    }

    /// A source that may be there; absent if it is wrong.
    fn possible(&mut self, text: Option<&At<String>>) -> Option<Option<Source>> {
        let Some(text) = text else { return Some(None) };
        match Source::parse(text.get()) {
            Ok(source) => Some(Some(source)),
            Err(error) => {
                self.fault(text.span(), error.to_string(), "for example `/command`".to_owned());
                None
            }
        }
    }

    /// The code that must stay, as far as it is written well.
    pub(super) fn keeps(&mut self, raw: &Named<RawInvariant>) -> Vec<(Vec<String>, String)> {
        let mut keeps = Vec::new();
        for keep in raw.values().flat_map(|invariant| &invariant.get().keeps) {
            let RawKeep { paths, pattern } = keep.get();
            let Some(pattern) = pattern else {
                self.missing(&keep.span(), "pattern", "\"authorize($$$)\"");
                continue;
            };
            if paths.is_empty() {
                self.missing(&keep.span(), "paths", "[\"src/api/**\"]");
                continue;
            }
            if let Some(odd) = paths.iter().find(|path| path.get().is_empty()) {
                self.fault(odd.span(), "an empty path names no file".to_owned(), None);
                continue;
            }
            let paths: Vec<_> = paths.iter().map(|path| path.get().clone()).collect();
            match Keep::new(&paths, pattern.get(), &Place::default()) {
                Ok(_) => keeps.push((paths, pattern.get().clone())),
                Err(error) => {
                    let next = "for example `require_role($$$)`".to_owned();
                    self.fault(pattern.span(), error.to_string(), next);
                }
            }
        }
        keeps
    }

    pub(super) fn invariants(
        &mut self,
        raw: &Named<RawInvariant>,
    ) -> BTreeMap<NoteCode, Invariant> {
        let mut invariants = BTreeMap::new();
        for (name, invariant) in raw {
            let code = NoteCode::ALL.iter().find(|code| code.as_str() == name.get());
            let Some(code) = code else {
                let names: Vec<_> = NoteCode::ALL.iter().map(|code| code.as_str()).collect();
                let message = format!("`{}` is no invariant", name.get());
                self.fault(name.span(), message, format!("they are {}", names.join(", ")));
                continue;
            };
            let RawInvariant { result, environments, keeps } = invariant.get();
            let watches = *code == NoteCode::CheckRemoved;
            if keeps.is_empty() == watches && !self.dropped.has(invariant.span().start, "keeps") {
                let message = match watches {
                    true => "nothing is said that must stay",
                    false => "`keeps` means something to `check_removed` only",
                };
                let next = "`keeps = [{ paths = [\"src/api/**\"], pattern = \"authorize($$$)\" }]`";
                self.fault(invariant.span(), message.to_owned(), format!("for example {next}"));
            }
            let result = match result.as_ref().map(|result| *result.get()) {
                Some(RawInvariantResult::Fail) | None => FindingResult::Fail,
                Some(RawInvariantResult::Warn) => FindingResult::Warn,
                Some(RawInvariantResult::Off) => FindingResult::Pass,
            };
            let environments = environments.iter().map(|name| name.get().clone()).collect();
            invariants.insert(*code, Invariant { result, environments });
        }
        invariants
    }
}

fn database(raw: &RawEffects, address: String) -> Option<Database> {
    let dialect = match *raw.dialect.as_ref()?.get() {
        RawDialect::Postgres => Dialect::Postgres,
        RawDialect::Sqlite => Dialect::Sqlite,
        RawDialect::Mysql => Dialect::Mysql,
    };
    let mut database = Database::new(dialect, address);
    database.views.clone_from(&raw.views);
    database.read_functions =
        raw.read_functions.iter().map(|name| name.to_ascii_lowercase()).collect();
    Some(database)
}

fn cluster(raw: &RawEffects, address: String) -> Cluster {
    let namespace = raw.namespace.as_ref();
    let namespace = namespace.map_or_else(|| "default".to_owned(), |name| name.get().clone());
    Cluster { address, namespace }
}
