//! HTTP headers that mirror the body of a message (MCP 2026-07-28, streamable HTTP, request
//! metadata).
//!
//! Owns their names, their encoding, what a client sends and what a server checks. Must never trust
//! a header instead of the body.

use super::era::{self, META_PROTOCOL_VERSION, REVISION_MODERN};
use super::message::RpcRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Names the revision, in both eras.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Mirrors `method`.
pub const METHOD: &str = "mcp-method";
/// Mirrors `params.name`, `params.uri` or, as the tasks extension wants it, `params.taskId`.
pub const NAME: &str = "mcp-name";
/// Names the server's own thread of requests, in the legacy era.
pub const SESSION_ID: &str = "mcp-session-id";
/// The keyword of a schema that wants a parameter in a header.
pub const ANNOTATION: &str = "x-mcp-header";
/// The prefix of headers that mirror tool parameters.
pub const PARAM_PREFIX: &str = "mcp-param-";

const SENTINEL_START: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

/// A header that does not say what the body says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// A required header is not there.
    #[error("header mismatch: `{name}` is missing")]
    Missing {
        /// The header.
        name: Cow<'static, str>,
    },
    /// A header's value cannot be read.
    #[error("header mismatch: the value of `{name}` is malformed")]
    Malformed {
        /// The header.
        name: Cow<'static, str>,
    },
    /// A header differs from the body.
    #[error("header mismatch: `{name}` says `{header}`, the body says `{body}`")]
    Differs {
        /// The header.
        name: Cow<'static, str>,
        /// Its value.
        header: String,
        /// The body's value.
        body: String,
    },
    /// The header names a revision that we do not serve.
    #[error("protocol version `{requested}` is not supported")]
    Unsupported {
        /// What was asked for.
        requested: String,
    },
}

/// One tool parameter that its schema wants mirrored into a header (`x-mcp-header`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's whole name, in lower case.
    pub name: String,
    /// The property names that lead to the parameter.
    pub path: Vec<String>,
}

/// Why a schema's `x-mcp-header` cannot be followed; such a tool is left out of the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamHeaderFault {
    /// The name is not a header name, or appears twice.
    #[error("`x-mcp-header` `{0}` is not a unique HTTP field name")]
    Name(String),
    /// It stands where no single value can be read from.
    #[error("`x-mcp-header` stands on something other than a plain string, integer or boolean")]
    Place,
}

// === impl HeaderFault ===

impl HeaderFault {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i64 {
        match self {
            Self::Missing { .. } | Self::Malformed { .. } | Self::Differs { .. } => {
                era::HEADER_MISMATCH
            }
            Self::Unsupported { .. } => era::UNSUPPORTED_PROTOCOL_VERSION,
        }
    }

    /// The member `data` of the JSON-RPC error; null if there is none.
    pub fn data(&self) -> Value {
        match self {
            Self::Unsupported { requested } => {
                era::EraFault::Unsupported { requested: requested.clone() }.data()
            }
            Self::Missing { .. } | Self::Malformed { .. } | Self::Differs { .. } => Value::Null,
        }
    }
}

// === impl ParamHeader ===

impl ParamHeader {
    /// Name and encoded value of the header for these arguments; `None` if they lack the value.
    pub fn mirror(&self, arguments: &Value) -> Option<(String, String)> {
        self.text(arguments).map(|text| (self.name.clone(), encode(&text)))
    }

    /// What the header has to say, not encoded; `None` if the arguments lack the value.
    fn text(&self, arguments: &Value) -> Option<String> {
        let mut value = arguments;
        for step in &self.path {
            value = value.get(step)?;
        }
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// A header value for `text`: the text itself if it is safe there, else its Base64 sentinel form.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| (0x20..=0x7e).contains(&byte) || byte == b'\t';
    let padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    let ambiguous = text.starts_with(SENTINEL_START) && text.ends_with(SENTINEL_END);
    if text.bytes().all(plain) && !padded && !ambiguous {
        return text.to_owned();
    }
    format!("{SENTINEL_START}{}{SENTINEL_END}", STANDARD.encode(text))
}

/// The text of a header value; `None` if the sentinel form holds no Base64 of UTF-8.
pub fn decode(value: &str) -> Option<String> {
    let inner = value.strip_prefix(SENTINEL_START).and_then(|rest| rest.strip_suffix(SENTINEL_END));
    let Some(inner) = inner else {
        return Some(value.to_owned());
    };
    String::from_utf8(STANDARD.decode(inner).ok()?).ok()
}

/// The headers that a modern request carries besides its revision.
pub fn standard(request: &RpcRequest) -> Vec<(&'static str, String)> {
    let mut headers = vec![(METHOD, request.method.clone())];
    headers.extend(mirrored_name(request).map(|name| (NAME, encode(name))));
    headers
}

/// Checks the headers of `request`, which arrived by HTTP. `lookup` finds a header's value by its
/// lower-case name.
///
/// # Errors
/// When a header that the request's era requires is missing, unreadable, or differs from the body.
pub fn check_headers<'a>(
    lookup: impl Fn(&str) -> Option<&'a str>,
    request: &RpcRequest,
) -> Result<(), HeaderFault> {
    let body = request.meta().and_then(|meta| meta.get(META_PROTOCOL_VERSION));
    let header = lookup(PROTOCOL_VERSION);
    match (header, body.and_then(Value::as_str)) {
        (None, None) => Ok(()),
        (Some(header), None) => check_legacy(header),
        (None, Some(_)) => Err(HeaderFault::Missing { name: PROTOCOL_VERSION.into() }),
        (Some(header), Some(body)) if header != body => {
            Err(differs(PROTOCOL_VERSION, header, body))
        }
        (Some(_), Some(_)) => check_modern(lookup, request),
    }
}

/// Checks the headers that mirror a call's arguments, as `input_schema` wants. A schema whose
/// annotations break the rules wants nothing.
///
/// # Errors
/// When a header is missing, unreadable, or differs from its argument, or has none.
pub fn check_params<'a>(
    lookup: impl Fn(&str) -> Option<&'a str>,
    input_schema: &Value,
    arguments: &Value,
) -> Result<(), HeaderFault> {
    for param in param_headers(input_schema).unwrap_or_default() {
        match (lookup(&param.name), param.text(arguments)) {
            (None, None) => {}
            (header, Some(body)) => check_mirror(header, param.name.into(), &body)?,
            (Some(header), None) => return Err(differs(param.name, header, "no argument")),
        }
    }
    Ok(())
}

/// The headers that `input_schema` wants its parameters mirrored into.
///
/// # Errors
/// When an annotation breaks the specification's rules.
pub fn param_headers(input_schema: &Value) -> Result<Vec<ParamHeader>, ParamHeaderFault> {
    let mut found = Vec::new();
    collect(input_schema, &mut Vec::new(), &mut found)?;
    let mut seen = BTreeSet::new();
    for header in &found {
        if !seen.insert(&header.name) {
            return Err(ParamHeaderFault::Name(header.name.clone()));
        }
    }
    // An annotation that was not reached over `properties` alone stands at a forbidden place.
    if found.len() < annotations(input_schema) {
        return Err(ParamHeaderFault::Place);
    }
    Ok(found)
}

fn mirrored_name(request: &RpcRequest) -> Option<&str> {
    let source = match request.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    request.param(source)?.as_str()
}

fn check_legacy(header: &str) -> Result<(), HeaderFault> {
    if header == REVISION_MODERN {
        // Whoever routes by this header would take the request for something that it is not.
        return Err(differs(PROTOCOL_VERSION, header, "no revision"));
    }
    if era::REVISIONS_UPSTREAM_LEGACY.contains(&header) {
        return Ok(());
    }
    Err(HeaderFault::Unsupported { requested: header.chars().take(64).collect() })
}

fn check_modern<'a>(
    lookup: impl Fn(&str) -> Option<&'a str>,
    request: &RpcRequest,
) -> Result<(), HeaderFault> {
    let method = lookup(METHOD).ok_or(HeaderFault::Missing { name: METHOD.into() })?;
    if method != request.method {
        return Err(differs(METHOD, method, &request.method));
    }
    let Some(body) = mirrored_name(request) else { return Ok(()) };
    check_mirror(lookup(NAME), NAME.into(), body)
}

/// Checks a header that has to say `body`.
fn check_mirror(
    header: Option<&str>,
    name: Cow<'static, str>,
    body: &str,
) -> Result<(), HeaderFault> {
    let Some(header) = header else { return Err(HeaderFault::Missing { name }) };
    let Some(text) = decode(header) else { return Err(HeaderFault::Malformed { name }) };
    if text == body { Ok(()) } else { Err(differs(name, &text, body)) }
}

fn differs(name: impl Into<Cow<'static, str>>, header: &str, body: &str) -> HeaderFault {
    let short = |text: &str| text.chars().take(128).collect();
    HeaderFault::Differs { name: name.into(), header: short(header), body: short(body) }
}

fn collect(
    schema: &Value,
    path: &mut Vec<String>,
    found: &mut Vec<ParamHeader>,
) -> Result<(), ParamHeaderFault> {
    if let Some(name) = schema.get(ANNOTATION) {
        found.push(annotated(schema, name, path)?);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(());
    };
    for (key, property) in properties {
        path.push(key.clone());
        collect(property, path, found)?;
        path.pop();
    }
    Ok(())
}

fn annotated(
    schema: &Value,
    name: &Value,
    path: &[String],
) -> Result<ParamHeader, ParamHeaderFault> {
    let text = name.as_str().unwrap_or_default();
    let name_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(name_char) {
        return Err(ParamHeaderFault::Name(name.to_string().chars().take(128).collect()));
    }
    let kind = schema.get("type").and_then(Value::as_str);
    if path.is_empty() || !matches!(kind, Some("string" | "integer" | "boolean")) {
        return Err(ParamHeaderFault::Place);
    }
    let name = format!("{PARAM_PREFIX}{}", text.to_ascii_lowercase());
    Ok(ParamHeader { name, path: path.to_vec() })
}

/// Counts `x-mcp-header` wherever a schema may stand: not below names of properties or plain data.
fn annotations(schema: &Value) -> usize {
    match schema {
        Value::Object(object) => {
            let here = usize::from(object.contains_key("x-mcp-header"));
            let below = object.iter().map(|(key, value)| match key.as_str() {
                "properties" | "patternProperties" | "$defs" | "definitions"
                | "dependentSchemas" => named_annotations(value),
                "const" | "enum" | "default" | "examples" | "x-mcp-header" => 0,
                _ => annotations(value),
            });
            here + below.sum::<usize>()
        }
        Value::Array(items) => items.iter().map(annotations).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn named_annotations(schemas: &Value) -> usize {
    let schemas = schemas.as_object().into_iter().flatten();
    schemas.map(|(_, schema)| annotations(schema)).sum()
}

#[cfg(test)]
mod tests {
    use super::{check_headers, check_params, decode, encode, param_headers, standard};
    use crate::mcp::{RpcId, RpcRequest};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn the_specifications_examples_hold() {
        let examples = [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ];
        for (text, value) in examples {
            assert_eq!(encode(text), value);
            assert_eq!(decode(value).as_deref(), Some(text));
        }
        assert_eq!(decode("=?base64?%%%?="), None);
        assert_eq!(decode("=?base64?/w==?="), None);
    }

    fn check(headers: &[(&str, &str)], params: Value, expected: Expect) {
        let request = RpcRequest::new(RpcId::Number(1), "tools/call", params);
        let find =
            |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let said = match check_headers(find, &request) {
            Ok(()) => "fine".to_owned(),
            Err(fault) => format!("{} {fault}", fault.code()),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let modern = || json!({"name": "é", "_meta": meta});
        let version = ("mcp-protocol-version", "2026-07-28");
        let method = ("mcp-method", "tools/call");
        let name = ("mcp-name", "=?base64?w6k=?=");
        check(&[version, method, name], modern(), expect!["fine"]);
        check(
            &[method, name],
            modern(),
            expect!["-32020 header mismatch: `mcp-protocol-version` is missing"],
        );
        check(
            &[version, name],
            modern(),
            expect!["-32020 header mismatch: `mcp-method` is missing"],
        );
        check(
            &[version, method],
            modern(),
            expect!["-32020 header mismatch: `mcp-name` is missing"],
        );
        check(
            &[version, ("mcp-method", "Tools/Call"), name],
            modern(),
            expect![
                "-32020 header mismatch: `mcp-method` says `Tools/Call`, the body says `tools/call`"
            ],
        );
        check(
            &[version, method, ("mcp-name", "e")],
            modern(),
            expect!["-32020 header mismatch: `mcp-name` says `e`, the body says `é`"],
        );
        check(
            &[version, method, ("mcp-name", "=?base64?!?=")],
            modern(),
            expect!["-32020 header mismatch: the value of `mcp-name` is malformed"],
        );
        check(
            &[("mcp-protocol-version", "2025-11-25"), method, name],
            modern(),
            expect![
                "-32020 header mismatch: `mcp-protocol-version` says `2025-11-25`, the body says `2026-07-28`"
            ],
        );
        check(
            &[version],
            json!({"name": "x"}),
            expect![
                "-32020 header mismatch: `mcp-protocol-version` says `2026-07-28`, the body says `no revision`"
            ],
        );
        check(&[("mcp-protocol-version", "2025-11-25")], json!({"name": "x"}), expect!["fine"]);
        check(&[], json!({"name": "x"}), expect!["fine"]);
        check(
            &[("mcp-protocol-version", "1999-01-01")],
            json!({"name": "x"}),
            expect!["-32022 protocol version `1999-01-01` is not supported"],
        );
    }

    #[test]
    fn the_header_of_a_task_names_the_task() {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let params = json!({"taskId": "a.b", "_meta": meta});
            let request = RpcRequest::new(RpcId::Number(1), method, params);
            let fits = |task: &'static str| {
                let of = |name: &str| match name {
                    "mcp-name" => Some(task),
                    "mcp-method" => Some(method),
                    _ => Some("2026-07-28"),
                };
                check_headers(of, &request).is_ok()
            };
            assert!(fits("a.b") && !fits("a.c"));
            assert!(standard(&request).contains(&("mcp-name", "a.b".to_owned())));
        }
    }

    #[test]
    fn headers_must_say_what_the_arguments_say() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "count": { "type": "integer", "x-mcp-header": "Count" },
        } });
        let check = |headers: &[(&str, &str)], arguments: Value| {
            let lookup =
                |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            check_params(lookup, &schema, &arguments)
                .map_or_else(|fault| fault.to_string(), |()| "fits".into())
        };
        let region = "mcp-param-region";
        let rows = [
            check(&[], json!({})),
            check(&[(region, "eu")], json!({ "region": "eu" })),
            check(&[(region, "=?base64?ZXU=?=")], json!({ "region": "eu" })),
            check(&[("mcp-param-count", "7")], json!({ "count": 7 })),
            check(&[], json!({ "region": "eu" })),
            check(&[(region, "us")], json!({ "region": "eu" })),
            check(&[(region, "=?base64?ZXU?=")], json!({ "region": "eu" })),
            check(&[(region, "=?base64?Z!U=?=")], json!({ "region": "eu" })),
            check(&[(region, "eu")], json!({})),
            check(&[(region, "eu")], json!({ "region": null })),
        ];
        expect![[r#"
            fits
            fits
            fits
            fits
            header mismatch: `mcp-param-region` is missing
            header mismatch: `mcp-param-region` says `us`, the body says `eu`
            header mismatch: the value of `mcp-param-region` is malformed
            header mismatch: the value of `mcp-param-region` is malformed
            header mismatch: `mcp-param-region` says `eu`, the body says `no argument`
            header mismatch: `mcp-param-region` says `eu`, the body says `no argument`"#]]
        .assert_eq(&rows.join("\n"));
    }

    #[test]
    fn annotations_are_found_where_they_may_stand() {
        let good = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "in": {"properties": {"x-mcp-header": {"type": "integer", "x-mcp-header": "N"}}},
            "plain": {"default": {"x-mcp-header": "not a schema"}},
        }});
        let found = param_headers(&good).unwrap();
        let arguments = json!({"region": "a", "in": {"x-mcp-header": 7}});
        let shown: Vec<_> = found.iter().map(|header| header.mirror(&arguments)).collect();
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(shown, [pair("mcp-param-region", "a"), pair("mcp-param-n", "7")]);
        assert_eq!(found[0].mirror(&json!({"region": null})), None);
        assert_eq!(found[0].mirror(&json!({})), None);
        assert_eq!(param_headers(&Value::Null), Ok(vec![]));
    }

    #[test]
    fn annotations_elsewhere_make_the_tool_unusable() {
        let at = |schema: Value| json!({"properties": {"p": schema}});
        let bad = [
            at(json!({"type": "number", "x-mcp-header": "A"})),
            at(json!({"x-mcp-header": "A"})),
            at(json!({"type": "string", "x-mcp-header": ""})),
            at(json!({"type": "string", "x-mcp-header": "a b"})),
            at(json!({"type": "string", "x-mcp-header": "a\r\nb"})),
            at(json!({"type": "string", "x-mcp-header": 5})),
            at(json!({"items": {"type": "string", "x-mcp-header": "A"}})),
            json!({"anyOf": [at(json!({"type": "string", "x-mcp-header": "A"}))]}),
            json!({"$defs": {"d": {"type": "string", "x-mcp-header": "A"}}}),
            json!({"type": "string", "x-mcp-header": "A"}),
            json!({"properties": {
                "a": {"type": "string", "x-mcp-header": "Same"},
                "b": {"type": "string", "x-mcp-header": "same"},
            }}),
        ];
        for schema in bad {
            assert!(param_headers(&schema).is_err(), "{schema}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_reversible_and_safe(text in any::<String>()) {
            let value = encode(&text);
            prop_assert!(value.bytes().all(|byte| byte == b'\t' || (0x20..=0x7e).contains(&byte)));
            prop_assert_eq!(decode(&value), Some(text));
        }

        #[test]
        fn what_we_send_we_would_accept(name in any::<String>()) {
            let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
            let params = json!({"name": name, "_meta": meta});
            let request = RpcRequest::new(RpcId::Number(1), "tools/call", params);
            let mut headers = standard(&request);
            headers.push(("mcp-protocol-version", "2026-07-28".to_owned()));
            let find = |wanted: &str| {
                let found = headers.iter().find(|(key, _)| *key == wanted);
                found.map(|(_, value)| value.as_str())
            };
            prop_assert_eq!(check_headers(find, &request), Ok(()));
        }
    }
}
