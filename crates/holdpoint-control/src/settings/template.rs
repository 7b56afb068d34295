//! Resource templates: how a tool's parameters name what the call is aimed at.
//! Must never look at the world: normalisation is lexical, links are not followed.

use holdpoint_types::ToolRef;
use serde_json::Value;
use std::fmt;

/// Longest resource, in bytes; a longer one counts as one that cannot be named.
const RESOURCE_BYTES_MAX: usize = 4096;
/// The scheme whose resources are absolute paths without an authority.
const FILE: &str = "file";

/// A text such as `pg://{/database}/{/table}` whose braces hold JSON Pointers (RFC 6901) into the
/// parameters of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTemplate {
    text: String,
    scheme: String,
    parts: Vec<Part>,
}

/// A text that cannot be used as a resource template.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateFault {
    /// The scheme must be the operator's word, never the agent's.
    #[error("`{0}` does not begin with a scheme such as `file://`")]
    NoScheme(String),
    /// A brace without its partner.
    #[error("`{0}` has a brace without its partner")]
    Unbalanced(String),
    /// Braces without a usable pointer.
    #[error("`{{{0}}}` is no JSON Pointer to a parameter; it must begin with `/`")]
    Pointer(String),
    /// A control character.
    #[error("{0:?} holds a control character")]
    Control(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Pointer(String),
}

// === impl ResourceTemplate ===

impl ResourceTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// When it has no literal scheme, unbalanced braces, or braces without a JSON Pointer.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        if text.chars().any(char::is_control) {
            return Err(TemplateFault::Control(text.to_owned()));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Err(TemplateFault::NoScheme(text.to_owned()));
        };
        let parts = parse_parts(text, rest)?;
        Ok(Self { text: text.to_owned(), scheme: scheme.to_ascii_lowercase(), parts })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme of every resource that it names.
    pub(super) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The resource that `parameters` name, in normal form; absent if they name none for certain.
    ///
    /// `base` is the absolute folder against which relative `file` paths are read.
    pub fn resolve(&self, parameters: &Value, base: Option<&str>) -> Option<String> {
        let filled = self.fill(parameters)?;
        let rest = if self.scheme == FILE { absolute(filled, base)? } else { filled };
        if rest.len() > RESOURCE_BYTES_MAX {
            return None;
        }
        named_for_certain(normalise(&format!("{}://{rest}", self.scheme)))
    }

    fn fill(&self, parameters: &Value) -> Option<String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Pointer(pointer) => {
                    let value = scalar(parameters.pointer(pointer)?)?;
                    // INVARIANT: a value cannot end the authority, so that it cannot choose what
                    // the operator's own slashes separate.
                    let in_authority = self.scheme != FILE && !filled.contains('/');
                    if in_authority && value.contains('/') {
                        return None;
                    }
                    filled.push_str(&value);
                }
            }
            if filled.len() > RESOURCE_BYTES_MAX {
                return None;
            }
        }
        Some(filled)
    }
}

impl fmt::Display for ResourceTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The normal form of a resource: lower-case scheme, no empty, `.` or `..` segments in the path.
///
/// The authority (what stands before the first `/`) is kept; no `..` leads out of it. A text
/// without a scheme is returned as it is.
pub fn normalise(resource: &str) -> String {
    let Some((scheme, rest)) = split_scheme(resource) else {
        return resource.to_owned();
    };
    let scheme = scheme.to_ascii_lowercase();
    let Some((authority, path)) = rest.split_once('/') else {
        return format!("{scheme}://{rest}");
    };
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if kept.is_empty() && !authority.is_empty() {
        return format!("{scheme}://{authority}");
    }
    format!("{scheme}://{authority}/{}", kept.join("/"))
}

/// What a request that reads is aimed at: the URI, or `prompt://SERVER/NAME`. `None` if it names
/// nothing that an address can be made of.
pub(super) fn read_request(tool: &ToolRef, parameters: &Value) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let of_completion = parameters.get("ref");
    let name = match of_completion {
        Some(of) => text(of, "name"),
        None => text(parameters, "name"),
    };
    let uri = of_completion.map_or_else(|| text(parameters, "uri"), |of| text(of, "uri"));
    match (uri, name) {
        (Some(uri), None) => of_uri(&uri, tool),
        (None, Some(name)) if !name.is_empty() && name.len() <= RESOURCE_BYTES_MAX => {
            let name = name.replace(['/', '%'], "_");
            Some(format!("prompt://{}/{name}", tool.server()))
        }
        (Some(_), Some(_)) | (None, Some(_) | None) => None,
    }
}

fn of_uri(uri: &str, tool: &ToolRef) -> Option<String> {
    if uri.is_empty() || uri.len() > RESOURCE_BYTES_MAX || uri.contains(char::is_control) {
        return None;
    }
    let is_file = uri.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
    match split_scheme(uri) {
        Some((_, rest)) if is_file => of_file(rest),
        Some(_) => Some(normalise(uri)),
        // Servers read `file:/x` in ways of their own.
        None if is_file => None,
        // Without an authority (`urn:x`) there is nothing to normalise.
        None => Some(format!("mcp://{}/{uri}", tool.server())),
    }
}

/// The file that a URI means once its server has decoded it.
fn of_file(rest: &str) -> Option<String> {
    let path = rest.split(['?', '#']).next()?.replace('\\', "/");
    let path = path.strip_prefix("localhost").unwrap_or(&path);
    let path = percent_decoded(path)?;
    let plain = path.starts_with('/') && !path.contains(char::is_control);
    plain.then(|| normalise(&format!("file://{path}"))).and_then(named_for_certain)
}

/// The resource, unless it is a path that leads anywhere, under a name that says nothing.
fn named_for_certain(resource: String) -> Option<String> {
    let elsewhere = ["file:///proc/", "file:///dev/fd/"];
    (!elsewhere.iter().any(|prefix| resource.starts_with(prefix))).then_some(resource)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Splits off a scheme as RFC 3986 section 3.1 has it, if the text begins with one and `://`.
pub(super) fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let starts = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if starts && scheme.bytes().all(plain) { Some((scheme, rest)) } else { None }
}

fn parse_parts(text: &str, rest: &str) -> Result<Vec<Part>, TemplateFault> {
    let unbalanced = || TemplateFault::Unbalanced(text.to_owned());
    let mut parts = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let (literal, after) = rest.split_once('{').unwrap_or((rest, ""));
        if literal.contains('}') {
            return Err(unbalanced());
        }
        let opened = literal.len() < rest.len();
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        rest = after;
        if opened {
            let (pointer, after) = after.split_once('}').ok_or_else(unbalanced)?;
            parts.push(Part::Pointer(check_pointer(pointer)?));
            rest = after;
        }
    }
    Ok(parts)
}

fn check_pointer(pointer: &str) -> Result<String, TemplateFault> {
    if pointer.starts_with('/') && !pointer.contains('{') {
        return Ok(pointer.to_owned());
    }
    Err(TemplateFault::Pointer(pointer.to_owned()))
}

/// The text of a scalar that can name something: neither empty nor with control characters.
fn scalar(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    if text.is_empty() || text.chars().any(char::is_control) { None } else { Some(text) }
}

fn absolute(path: String, base: Option<&str>) -> Option<String> {
    if path.starts_with('/') {
        return Some(path);
    }
    // Servers expand `~` to a home folder that only they know.
    if path.starts_with('~') {
        return None;
    }
    base.filter(|base| base.starts_with('/')).map(|base| format!("{base}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::{ResourceTemplate, TemplateFault, normalise, split_scheme};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn resolve(template: &str, parameters: &Value) -> Option<String> {
        ResourceTemplate::parse(template).unwrap().resolve(parameters, Some("/srv/base"))
    }

    #[test]
    fn parameters_fill_the_pointers() {
        for (template, parameters, expected) in [
            ("file://{/path}", json!({"path": "/a/b"}), Some("file:///a/b")),
            ("file://{/path}", json!({"path": "a/b"}), Some("file:///srv/base/a/b")),
            ("file://{/path}", json!({"path": "../../../x"}), Some("file:///x")),
            ("file://{/path}", json!({"path": "/a/./b//../c/"}), Some("file:///a/c")),
            ("file://{/path}", json!({"path": "~/x"}), None),
            ("file://{/path}", json!({"path": ""}), None),
            ("file://{/path}", json!({"path": "/a\nb"}), None),
            ("file://{/path}", json!({"path": null}), None),
            ("file://{/path}", json!({"path": ["/a"]}), None),
            ("file://{/path}", json!({}), None),
            ("file://{/path}", json!("/a"), None),
            ("file://{/path}", json!({"path": "/".repeat(5000)}), None),
            ("file:///srv/{/name}", json!({"name": "../../etc"}), Some("file:///etc")),
            ("file:///n/{/a}-{/b~1c}", json!({"a": 1, "b/c": true}), Some("file:///n/1-true")),
            ("pg://{/db}/{/t}", json!({"db": "prod", "t": "users"}), Some("pg://prod/users")),
            ("pg://{/db}/{/t}", json!({"db": "dev/x", "t": "users"}), None),
            ("pg://{/db}/{/t}", json!({"db": "dev", "t": "../../prod"}), Some("pg://dev/prod")),
            ("pg://{/db}/{/t}", json!({"db": "dev", "t": ".."}), Some("pg://dev")),
            ("pg://main", json!({}), Some("pg://main")),
            ("k8s://{/list/0}", json!({"list": ["ns"]}), Some("k8s://ns")),
        ] {
            assert_eq!(resolve(template, &parameters).as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn a_relative_path_without_a_base_names_nothing() {
        let template = ResourceTemplate::parse("file://{/path}").unwrap();
        assert_eq!(template.resolve(&json!({"path": "a"}), None), None);
        assert_eq!(template.resolve(&json!({"path": "a"}), Some("not/absolute")), None);
    }

    #[test]
    fn bad_templates_are_refused_with_their_reason() {
        for text in ["", "{/url}", "{/scheme}://x", "path", "1x://a"] {
            let fault = ResourceTemplate::parse(text).unwrap_err();
            assert!(matches!(fault, TemplateFault::NoScheme(_)), "{text}");
        }
        for text in ["file://{/a", "file://a}", "file://{/a}}"] {
            let fault = ResourceTemplate::parse(text).unwrap_err();
            assert!(matches!(fault, TemplateFault::Unbalanced(_)), "{text}");
        }
        for text in ["file://{}", "file://{path}", "file://{/a{/b}"] {
            let fault = ResourceTemplate::parse(text).unwrap_err();
            assert!(matches!(fault, TemplateFault::Pointer(_)), "{text}");
        }
        assert!(matches!(ResourceTemplate::parse("file:///\t"), Err(TemplateFault::Control(_))));
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent_and_leaves_no_dots(
            authority in "[a-z]{0,3}",
            path in "(/|\\.|\\.\\.|[a-z]{1,2}){0,12}",
        ) {
            let normal = normalise(&format!("file://{authority}/{path}"));
            prop_assert_eq!(&normalise(&normal), &normal);
            let (_, rest) = split_scheme(&normal).unwrap();
            let mut segments = rest.split('/');
            prop_assert_eq!(segments.next(), Some(authority.as_str()));
            let dots = ["..", "."];
            prop_assert!(segments.all(|segment| !dots.contains(&segment)), "{}", normal);
        }

        #[test]
        fn no_value_leads_out_of_the_authority(value in "(/|\\.|[a-z]|~|%2e){0,16}") {
            let found = resolve("pg://safe/{/v}", &json!({"v": value}));
            if let Some(found) = found {
                prop_assert!(found == "pg://safe" || found.starts_with("pg://safe/"), "{}", found);
            }
        }

        #[test]
        fn resolving_never_panics(text in any::<String>(), value in any::<String>()) {
            if let Ok(template) = ResourceTemplate::parse(&text) {
                template.resolve(&json!({ "a": value }), Some("/"));
            }
            normalise(&text);
        }
    }

    #[test]
    fn a_request_that_reads_aims_at_what_its_server_will_decode() {
        let check = |tool: &str, parameters: Value, expected: Option<&str>| {
            let found = super::read_request(&tool.parse().unwrap(), &parameters);
            assert_eq!(found.as_deref(), expected, "{tool} {parameters}");
        };
        let read = |uri: &str, expected| check("fs__resources/read", json!({"uri": uri}), expected);
        read("file:///srv/a/../%2eenv", Some("file:///srv/.env"));
        read("FILE://localhost/srv/x?y#z", Some("file:///srv/x"));
        read("file:///srv\\x", Some("file:///srv/x"));
        read("file:/srv/x", None);
        read("file:///srv/%zz", None);
        read("file:///srv/%00", None);
        read("file://elsewhere/x", None);
        read("demo://a//b/../c", Some("demo://a/c"));
        read("urn:x", Some("mcp://fs/urn:x"));
        read("", None);
        check("fs__resources/read", json!({}), None);
        check("fs__prompts/get", json!({"name": "a/b"}), Some("prompt://fs/a_b"));
        let of = json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {}});
        check("fs__completion/complete", of, Some("prompt://fs/p"));
        let of = json!({"ref": {"type": "ref/resource", "uri": "demo://x/{id}"}});
        check("fs__completion/complete", of, Some("demo://x/{id}"));
        check("fs__prompts/get", json!({"name": "p", "uri": "demo://x"}), None);
    }
}
