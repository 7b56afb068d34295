//! Checks upstream servers: transport, secrets, classification, and rules for single tools.

use super::{Checker, hosts};
use crate::config::checked::{
    Transport, UnknownParameters, Upstream, UpstreamCommand, UpstreamUrl, ValueSource,
};
use crate::config::raw::{
    At, Named, RawAsk, RawReference, RawServer, RawServes, RawTool, RawValue,
};
use crate::config::secret;
use holdpoint_control::{
    ResourceTemplate, ServerAsk, ServerRules, TemplateFault, ToolPattern, ToolRules,
};
use holdpoint_types::{Digest, ServerName, ToolRef};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

type RawValues = BTreeMap<At<String>, At<RawValue>>;

/// What a table of values is for; it decides which names are possible.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Env,
    Header,
}

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn servers(
        &mut self,
        raw: &Named<RawServer>,
        timeout_ms: u64,
    ) -> (BTreeMap<ServerName, Upstream>, BTreeMap<ServerName, ServerRules>) {
        let (mut upstreams, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for (name, server) in raw {
            let parsed: Option<ServerName> = self.parse_name(name);
            let hosted = server.get().host.is_some();
            let upstream =
                if hosted { None } else { self.upstream(name.get(), server, timeout_ms) };
            let checked = self.rules(name.get(), server.get());
            if let Some(name) = parsed.filter(|_| hosted || upstream.is_some()) {
                // Of secrets it says only where they are.
                let behind =
                    upstream.as_ref().map(|one| format!("{:?}", (&one.transport, &one.undo)));
                let behind = behind.map(|text| Digest::of(text.as_bytes()));
                rules.insert(name.clone(), ServerRules { behind, ..checked });
                upstreams.extend(upstream.map(|upstream| (name, upstream)));
            }
        }
        (upstreams, rules)
    }

    fn upstream(
        &mut self,
        name: &str,
        server: &At<RawServer>,
        timeout_ms: u64,
    ) -> Option<Upstream> {
        let raw = server.get();
        let env = self.values(Purpose::Env, &raw.env);
        let headers = self.values(Purpose::Header, &raw.headers);
        let transport = match &raw.serves {
            Some(serves) => self.own_transport(name, (raw, serves), env),
            None => self.transport(server, env, headers),
        };
        let refuse = raw.strict.as_ref().is_some_and(|strict| *strict.get());
        let unknown_parameters =
            if refuse { UnknownParameters::Refuse } else { UnknownParameters::AsSchema };
        let timeout_ms = self.duration(raw.timeout_ms.as_ref(), timeout_ms);
        let undo = self.undo(raw);
        Some(Upstream { transport: transport?, timeout_ms, unknown_parameters, undo })
    }

    fn own_transport(
        &mut self,
        name: &str,
        (raw, serves): (&RawServer, &At<RawServes>),
        env: BTreeMap<String, ValueSource>,
    ) -> Option<Transport> {
        let other = raw.command.as_ref().map(At::span).or(raw.url.as_ref().map(At::span));
        if let Some(span) = other {
            let message = "a server has only one of `command`, `url` and `serves`".to_owned();
            self.fault(span, message, "declare two servers".to_owned());
            return None;
        }
        self.refuse_keys(first_key(&raw.headers), ("headers", "url"));
        self.refuse_keys(raw.oauth.as_ref().map(At::span), ("oauth", "url"));
        self.refuse_keys(raw.cwd.as_ref().map(At::span), ("cwd", "command"));
        self.serves(name, serves, env).map(|serves| Transport::Serves(Box::new(serves)))
    }

    fn transport(
        &mut self,
        server: &At<RawServer>,
        env: BTreeMap<String, ValueSource>,
        headers: BTreeMap<String, ValueSource>,
    ) -> Option<Transport> {
        let raw = server.get();
        let cwd = self.path(raw.cwd.as_ref());
        match (&raw.command, &raw.url) {
            (Some(command), None) => {
                self.refuse_keys(first_key(&raw.headers), ("headers", "url"));
                self.refuse_keys(raw.oauth.as_ref().map(At::span), ("oauth", "url"));
                self.command(command, env, cwd).map(Transport::Command)
            }
            (None, Some(url)) => {
                self.refuse_keys(first_key(&raw.env), ("env", "command"));
                self.refuse_keys(raw.cwd.as_ref().map(At::span), ("cwd", "command"));
                let url = self.url(url)?;
                let oauth = self.credentials(raw, &url);
                Some(Transport::Url(UpstreamUrl { url, headers, oauth }))
            }
            (Some(_), Some(url)) => {
                let message = "a server has either `command` or `url`, not both".to_owned();
                self.fault(url.span(), message, "declare two servers".to_owned());
                None
            }
            (None, None) => {
                let taken = |key| self.dropped.has(server.span().start, key);
                if !["url", "host", "serves"].into_iter().any(taken) {
                    self.missing(
                        &server.span(),
                        "command",
                        "[\"PROGRAM\", \"ARGUMENT\"]` or `url = \"…\"",
                    );
                }
                None
            }
        }
    }

    /// Warns of servers that were given a folder in which Holdpoint's own files lie: an agent that
    /// may write there may write its own rules.
    pub(super) fn reach(&mut self, raw: &Named<RawServer>, own: &[PathBuf]) {
        let words = raw.values().filter_map(|server| server.get().command.as_ref());
        let words = words.flat_map(|command| command.get().iter().skip(1));
        let folders = raw.values().filter_map(|server| server.get().cwd.as_ref());
        let served = raw.values().filter_map(|server| server.get().serves.as_ref());
        let shells = served.filter_map(|serves| serves.get().shell.as_ref());
        let shells = shells.map(|word| (word.span(), self.folder.join(word.get())));
        let words = words.chain(folders).map(|word| (word.span(), PathBuf::from(word.get())));
        let mut found = Vec::new();
        for (span, folder) in words.chain(shells) {
            let inside = own.iter().find(|path| path.starts_with(&folder));
            if let (true, Some(inside)) = (folder.is_absolute(), inside) {
                found.push((span, inside.display().to_string()));
            }
        }
        for (span, inside) in found {
            let message = format!("`{inside}` lies in this folder, which the server can reach");
            let suggestion = "keep configuration, policies and store where no agent can write";
            self.warn(span, message, suggestion.to_owned());
        }
    }

    fn refuse_keys(&mut self, place: Option<Range<usize>>, (key, needed): (&str, &str)) {
        if let Some(place) = place {
            let message = format!("`{key}` works only with `{needed}`");
            self.fault(place, message, None);
        }
    }

    pub(super) fn command(
        &mut self,
        command: &At<Vec<At<String>>>,
        env: BTreeMap<String, ValueSource>,
        cwd: Option<PathBuf>,
    ) -> Option<UpstreamCommand> {
        let mut words = command.get().iter();
        let Some(program) = words.next().filter(|program| !program.get().is_empty()) else {
            let message = "a command needs a program".to_owned();
            self.fault(command.span(), message, "`command = [\"PROGRAM\"]`".to_owned());
            return None;
        };
        for word in command.get() {
            self.argument(word);
        }
        let arguments = words.map(|word| word.get().clone()).collect();
        Some(UpstreamCommand { program: program.get().clone(), arguments, env, cwd })
    }

    fn argument(&mut self, word: &At<String>) {
        if word.get().contains('\0') {
            self.fault(word.span(), "an argument cannot hold a NUL byte".to_owned(), None);
        }
        if secret::is_secret_value(word.get()) {
            self.secrets.push(word.span());
            let message = "this argument looks like a secret, and everybody on the machine can \
                           read the arguments of a process";
            let suggestion = "give it to the server in `env`, with `from_env` or `from_file`";
            self.warn(word.span(), message.to_owned(), suggestion.to_owned());
        }
    }

    pub(super) fn url(&mut self, url: &At<String>) -> Option<String> {
        let text = url.get();
        if secret::masked(text) != *text {
            self.secrets.push(url.span());
        }
        let parsed = reqwest::Url::parse(text).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(parsed) = parsed.filter(|url| url.host_str().is_some()) else {
            let message = format!("`{}` is not an `http` or `https` URL", secret::masked(text));
            self.fault(url.span(), message, "for example `https://mcp.example.com/mcp`".to_owned());
            return None;
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let message = "the URL holds credentials in plain text".to_owned();
            let suggestion = "use `headers = { Authorization = { from_env = \"NAME\" } }`";
            self.fault(url.span(), message, suggestion.to_owned());
            return None;
        }
        Some(text.clone())
    }

    pub(super) fn values(
        &mut self,
        purpose: Purpose,
        raw: &RawValues,
    ) -> BTreeMap<String, ValueSource> {
        let mut values = BTreeMap::new();
        for (name, value) in raw {
            if !purpose.allows(name.get()) {
                let message = format!("{:?} cannot be the name of {}", name.get(), purpose.what());
                self.fault(name.span(), message, None);
                continue;
            }
            if let Some(source) = self.value(purpose, name.get(), value) {
                values.insert(name.get().clone(), source);
            }
        }
        values
    }

    fn value(&mut self, purpose: Purpose, name: &str, value: &At<RawValue>) -> Option<ValueSource> {
        match value.get() {
            RawValue::Reference(reference) => self.value_reference(value.span(), reference),
            RawValue::Literal(text) => {
                if secret::is_secret_name(name) || secret::is_secret_value(text) {
                    self.secrets.push(value.span());
                    let message = format!("`{name}` holds a secret in plain text");
                    let variable = secret::variable_for(name);
                    let suggestion = format!("write `{name} = {{ from_env = \"{variable}\" }}`");
                    self.fault(value.span(), message, suggestion);
                    return None;
                }
                if text.contains('\0')
                    || (purpose == Purpose::Header && text.contains(['\r', '\n']))
                {
                    let message = format!("the value of `{name}` holds a forbidden character");
                    self.fault(value.span(), message, None);
                    return None;
                }
                Some(ValueSource::Literal(text.clone()))
            }
        }
    }

    pub(super) fn value_reference(
        &mut self,
        span: Range<usize>,
        reference: &RawReference,
    ) -> Option<ValueSource> {
        match (&reference.from_env, &reference.from_file) {
            (Some(name), None) => {
                if !Purpose::Env.allows(name.get()) {
                    let message = format!("{:?} cannot be the name of a variable", name.get());
                    self.fault(name.span(), message, None);
                    return None;
                }
                Some(ValueSource::Env(name.get().clone()))
            }
            (None, Some(path)) => self.path(Some(path)).map(ValueSource::File),
            (Some(_), Some(_)) => {
                let message = "a secret has either `from_env` or `from_file`, not both".to_owned();
                self.fault(span, message, None);
                None
            }
            (None, None) => {
                if !self.dropped.has(span.start, "from_file") {
                    self.missing(&span, "from_env", "\"NAME\"");
                }
                None
            }
        }
    }

    fn rules(&mut self, server: &str, raw: &RawServer) -> ServerRules {
        let environment = raw.environment.as_ref();
        let environment =
            environment.and_then(|name| self.word("environment", &name.span(), Some(name)));
        let base = raw.cwd.as_ref().map(|cwd| self.folder.join(cwd.get()));
        let mut read = self.own_tools(server, &raw.read);
        read.extend(hosts::known_reads(raw));
        ServerRules {
            environment,
            base: base.map(|base| base.display().to_string()),
            read,
            write: self.own_tools(server, &raw.write),
            destructive: self.own_tools(server, &raw.destructive),
            tools: self.tools(server, raw),
            forbidden_asks: forbidden_asks(raw),
            sealed: raw.place.as_ref().is_some_and(|place| place.get().is_sealed()),
            behind: None,
            hosted: raw.host.is_some(),
        }
    }

    /// Patterns over the server's own tool names.
    fn own_tools(&mut self, server: &str, texts: &[At<String>]) -> Vec<ToolPattern> {
        let prefix = format!("{server}__");
        for text in texts {
            if let Some(own) = text.get().strip_prefix(&prefix) {
                let message = format!("`{}` is matched against the tool's own name", text.get());
                self.warn(text.span(), message, format!("write `{own}`"));
            }
        }
        self.tool_patterns(texts)
    }

    fn tools(&mut self, server: &str, raw: &RawServer) -> BTreeMap<String, ToolRules> {
        let place = self.place(raw);
        let mut tools = self.known_tools(server, raw, &place);
        tools.extend(hosts::known_tools(raw, &place));
        // The server's own name has its own fault; any good one serves to check the tool's.
        let server: Option<ServerName> = server.parse().or_else(|_| "server".parse()).ok();
        for (name, tool) in &raw.tool {
            let named = server.clone().map(|server| ToolRef::new(server, name.get()));
            if let Some(Err(error)) = named {
                self.fault(name.span(), error.to_string(), None);
                continue;
            }
            let RawTool { class, resource, effects, undo: _ } = tool.get();
            let resource = resource.as_ref().and_then(|text| self.template(text));
            let effects = effects.iter().filter_map(|one| self.analyser(one, &place)).collect();
            let rules = ToolRules { class: class.map(Into::into), resource, effects };
            tools.insert(name.get().clone(), rules);
        }
        tools
    }

    fn template(&mut self, text: &At<String>) -> Option<ResourceTemplate> {
        match ResourceTemplate::parse(text.get()) {
            Ok(template) => Some(template),
            Err(error) => {
                let suggestion = match &error {
                    TemplateFault::Pointer(name) if !name.is_empty() && !name.contains('{') => {
                        format!("write `{{/{name}}}`")
                    }
                    TemplateFault::Pointer(_)
                    | TemplateFault::NoScheme(_)
                    | TemplateFault::Unbalanced(_)
                    | TemplateFault::Control(_) => "for example `file://{/path}`".to_owned(),
                };
                self.fault(text.span(), error.to_string(), suggestion);
                None
            }
        }
    }
}

// === impl Purpose ===

impl Purpose {
    fn what(self) -> &'static str {
        match self {
            Self::Env => "a variable",
            Self::Header => "a header",
        }
    }

    fn allows(self, name: &str) -> bool {
        match self {
            Self::Env => !name.is_empty() && !name.contains(['=', '\0']),
            Self::Header => http::HeaderName::try_from(name).is_ok(),
        }
    }
}

fn forbidden_asks(raw: &RawServer) -> BTreeSet<ServerAsk> {
    let asks = [
        (ServerAsk::Sampling, raw.sampling),
        (ServerAsk::Elicitation, raw.elicitation),
        (ServerAsk::Roots, raw.roots),
    ];
    let forbidden = asks.into_iter().filter(|(_, said)| *said == Some(RawAsk::Forbid));
    forbidden.map(|(ask, _)| ask).collect()
}

pub(super) fn first_key(values: &RawValues) -> Option<Range<usize>> {
    values.keys().next().map(At::span)
}
