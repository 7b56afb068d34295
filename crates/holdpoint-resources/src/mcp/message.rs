//! One JSON-RPC 2.0 message: told apart, read and written.
//!
//! Messages from agents are read strictly (I-JSON); results and errors from upstream servers stay
//! the bytes they were. Must never accept a batch, nor an id that is not a string or an integer.

use holdpoint_types::{JsonFault, JsonLimits, Reason};
use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::fmt;

/// The id that ties a response to its request. Never null, a fraction or a boolean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RpcId {
    /// An integer.
    Number(i64),
    /// A string.
    Text(String),
}

/// A request: wants a response.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcRequest {
    /// Its id.
    pub id: RpcId,
    /// What is asked.
    pub method: String,
    /// An object, if there are any.
    pub params: Option<Value>,
}

/// A notification: wants no response.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcNotification {
    /// What happened.
    pub method: String,
    /// An object, if there are any.
    pub params: Option<Value>,
}

/// What a response says, as the bytes it was.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The member `result`.
    Result(Box<RawValue>),
    /// The member `error`.
    Error(Box<RawValue>),
}

/// A response.
#[derive(Clone, Debug)]
pub struct RpcResponse {
    /// The id of the request; absent only in an error about a request whose id could not be read.
    pub id: Option<RpcId>,
    /// What it says.
    pub outcome: Outcome,
}

/// One message.
#[derive(Clone, Debug)]
pub enum Message {
    /// A request.
    Request(RpcRequest),
    /// A notification.
    Notification(RpcNotification),
    /// A response.
    Response(RpcResponse),
}

/// Why a text is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// Not acceptable JSON.
    #[error(transparent)]
    Json(#[from] JsonFault),
    /// An array: batches left the protocol with revision 2025-06-18.
    #[error("batches are not accepted; send one message at a time")]
    Batch,
    /// JSON, but not a JSON-RPC 2.0 message.
    #[error("not a JSON-RPC 2.0 message: {rule}")]
    NotRpc {
        /// The rule it breaks.
        rule: &'static str,
        /// Its id, if that could be read: the error response should carry it.
        id: Option<RpcId>,
    },
    /// No answer came for a request to a server behind a URL.
    #[error("{why}")]
    Lost {
        /// Why.
        why: String,
        /// The request.
        id: RpcId,
    },
}

/// The members of a message from an upstream server, each as the bytes it was.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// What a reader found, before the rules of JSON-RPC are applied to it.
struct Members<R> {
    version: Option<Value>,
    id: Option<Value>,
    method: Option<Value>,
    params: Option<Value>,
    result: Option<R>,
    error: Option<R>,
}

// === impl Envelope ===

impl Envelope<'_> {
    /// Some writers spell out every member that they do not use as null; such a null says nothing.
    fn without_verbose_nulls(mut self) -> Self {
        let said = |member: Option<&RawValue>| member.is_some_and(|raw| raw.get() != "null");
        let (method, result, error) = (said(self.method), said(self.result), said(self.error));
        self.method = self.method.filter(|_| method);
        if method {
            self.id = self.id.filter(|raw| raw.get() != "null");
        }
        if method || error {
            self.result = self.result.filter(|_| result);
        }
        if method || self.result.is_some() {
            self.error = self.error.filter(|_| error);
        }
        self
    }
}

// === impl RpcId ===

impl RpcId {
    /// Reads an id. `None` for anything but a string or an integer.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The id as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Number(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

impl fmt::Display for RpcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

// === impl RpcRequest ===

impl RpcRequest {
    /// A request with parameters.
    pub fn new(id: RpcId, method: impl Into<String>, params: Value) -> Self {
        Self { id, method: method.into(), params: Some(params) }
    }

    /// The member `name` of the parameters.
    pub fn param(&self, name: &str) -> Option<&Value> {
        self.params.as_ref()?.get(name)
    }

    /// The member `_meta` of the parameters, if it is an object.
    pub fn meta(&self) -> Option<&Map<String, Value>> {
        self.param("_meta")?.as_object()
    }

    /// One line of JSON, without the line's end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let id = Some(self.id.to_value());
        call_bytes(id, &self.method, self.params.as_ref())
    }
}

// === impl RpcNotification ===

impl RpcNotification {
    /// A notification with parameters.
    pub fn new(method: impl Into<String>, params: Value) -> Self {
        Self { method: method.into(), params: Some(params) }
    }

    /// The notification that cancels a request.
    pub fn cancelled(id: &RpcId, reason: &str) -> Self {
        let params = json!({ "requestId": id.to_value(), "reason": reason });
        Self::new("notifications/cancelled", params)
    }

    /// One line of JSON, without the line's end.
    pub fn to_bytes(&self) -> Vec<u8> {
        call_bytes(None, &self.method, self.params.as_ref())
    }
}

// === impl Outcome ===

impl Outcome {
    /// The bytes, whether result or error.
    pub fn raw(&self) -> &RawValue {
        match self {
            Self::Result(raw) | Self::Error(raw) => raw,
        }
    }
}

// === impl RpcResponse ===

impl RpcResponse {
    /// A response whose result is passed on byte for byte.
    pub fn result(id: RpcId, result: Box<RawValue>) -> Self {
        Self { id: Some(id), outcome: Outcome::Result(result) }
    }

    /// A response with a result of our own.
    pub fn result_value(id: RpcId, result: &Value) -> Self {
        Self { id: Some(id), outcome: Outcome::Result(raw_of(result)) }
    }

    /// A response with an error of our own; `data` is left out when it is null.
    pub fn error(id: Option<RpcId>, code: i64, message: &str, data: Value) -> Self {
        let mut error = Map::new();
        error.insert("code".into(), code.into());
        error.insert("message".into(), message.into());
        if !data.is_null() {
            error.insert("data".into(), data);
        }
        Self { id, outcome: Outcome::Error(raw_of(&Value::Object(error))) }
    }

    /// One line of JSON, without the line's end.
    ///
    /// An error without an id gets `"id":null` (JSON-RPC 2.0, section 5).
    pub fn to_bytes(&self) -> Vec<u8> {
        let id = self.id.as_ref().map_or(Value::Null, RpcId::to_value);
        let (member, raw) = match &self.outcome {
            Outcome::Result(raw) => ("result", raw),
            Outcome::Error(raw) => ("error", raw),
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{}}}"#, one_line(raw)).into_bytes()
    }
}

// === impl Message ===

impl Message {
    /// One line of JSON, without the line's end.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Notification(notification) => notification.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }

    /// The method of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification(notification) => Some(&notification.method),
            Self::Response(_) => None,
        }
    }

    /// Reads a message that an agent sent, strictly. Members that JSON-RPC does not know are
    /// dropped, and parameters that are null count as absent.
    ///
    /// # Errors
    /// When the text is not I-JSON, is a batch, or is not a JSON-RPC 2.0 message.
    pub fn from_agent(bytes: &[u8], limits: JsonLimits) -> Result<Self, MessageFault> {
        let mut object = match holdpoint_types::parse(bytes, limits)? {
            Value::Object(object) => object,
            Value::Array(_) => return Err(MessageFault::Batch),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(MessageFault::NotRpc { rule: "a message is an object", id: None });
            }
        };
        let members = Members {
            version: object.remove("jsonrpc"),
            id: object.remove("id"),
            method: object.remove("method"),
            params: object.remove("params").filter(|params| !params.is_null()),
            result: object.remove("result"),
            error: object.remove("error"),
        };
        members.classify(|value| raw_of(&value), |error| error.is_object())
    }

    /// Reads a message that an upstream server sent, keeping its result or error as the bytes it
    /// was.
    ///
    /// # Errors
    /// When the text is longer than `bytes_max`, is not UTF-8 or JSON, is a batch, or is not a
    /// JSON-RPC 2.0 message.
    pub fn from_upstream(bytes: &[u8], bytes_max: usize) -> Result<Self, MessageFault> {
        if bytes.len() > bytes_max {
            return Err(JsonFault::TooLarge { bytes: bytes.len(), bytes_max }.into());
        }
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| JsonFault::NotUtf8 { at: error.valid_up_to() })?;
        if text.trim_start().starts_with('[') {
            return Err(MessageFault::Batch);
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(malformed)?;
        let envelope = envelope.without_verbose_nulls();
        let members = Members {
            version: read(envelope.jsonrpc)?,
            id: read(envelope.id)?,
            method: read(envelope.method)?,
            params: read(envelope.params)?.filter(|params| !params.is_null()),
            result: envelope.result,
            error: envelope.error,
        };
        members.classify(RawValue::to_owned, |error| error.get().starts_with('{'))
    }
}

// === impl MessageFault ===

impl MessageFault {
    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Json(fault) => fault.reason(),
            Self::Batch | Self::NotRpc { .. } => Reason::MessageMalformed,
            Self::Lost { .. } => Reason::UpstreamUnavailable,
        }
    }

    /// The JSON-RPC error code: -32700 for what is no JSON, else -32600.
    pub fn code(&self) -> i64 {
        match self {
            Self::Json(JsonFault::Malformed(_) | JsonFault::NotUtf8 { .. }) => -32700,
            Self::Json(_) | Self::Batch | Self::NotRpc { .. } | Self::Lost { .. } => -32600,
        }
    }

    /// The id of the refused message, if it could be read.
    pub fn id(&self) -> Option<&RpcId> {
        match self {
            Self::NotRpc { id, .. } => id.as_ref(),
            Self::Lost { id, .. } => Some(id),
            Self::Json(_) | Self::Batch => None,
        }
    }
}

// === impl Members ===

impl<R> Members<R> {
    fn classify(
        self,
        raw: impl Fn(R) -> Box<RawValue>,
        is_object: impl Fn(&R) -> bool,
    ) -> Result<Message, MessageFault> {
        let id = self.id.as_ref().and_then(RpcId::from_value);
        let fault = |rule| Err(MessageFault::NotRpc { rule, id: id.clone() });
        if self.version.as_ref().and_then(Value::as_str) != Some("2.0") {
            return fault("`jsonrpc` must be \"2.0\"");
        }
        let bad_id = self.id.as_ref().is_some_and(|value| !value.is_null()) && id.is_none();
        if bad_id {
            return fault("`id` must be a string or an integer");
        }
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => {
                let null_id = self.id.is_some() && id.is_none();
                if null_id {
                    return fault("`id` of a request must not be null");
                }
                if self.params.as_ref().is_some_and(|params| !params.is_object()) {
                    return fault("`params` must be an object");
                }
                let Value::String(method) = method else {
                    return fault("`method` must be a string");
                };
                Ok(call(id, method, self.params))
            }
            (None, Some(result), None) if id.is_some() => {
                Ok(response(id, Outcome::Result(raw(result))))
            }
            (None, Some(_), None) => fault("a result needs the `id` of its request"),
            (None, None, Some(error)) if is_object(&error) => {
                Ok(response(id, Outcome::Error(raw(error))))
            }
            (None, None, Some(_)) => fault("`error` must be an object"),
            (None, None, None) => fault("`method`, `result` or `error` is missing"),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (None, Some(_), Some(_)) => {
                fault("only one of `method`, `result` and `error` may be there")
            }
        }
    }
}

/// Keeps a member whose value is null apart from a member that is not there.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(from).map(Some)
}

fn read(raw: Option<&RawValue>) -> Result<Option<Value>, MessageFault> {
    let value = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
    value.map_err(malformed)
}

fn malformed(error: serde_json::Error) -> MessageFault {
    JsonFault::Malformed(error.to_string()).into()
}

fn call(id: Option<RpcId>, method: String, params: Option<Value>) -> Message {
    match id {
        Some(id) => Message::Request(RpcRequest { id, method, params }),
        None => Message::Notification(RpcNotification { method, params }),
    }
}

fn response(id: Option<RpcId>, outcome: Outcome) -> Message {
    Message::Response(RpcResponse { id, outcome })
}

fn call_bytes(id: Option<Value>, method: &str, params: Option<&Value>) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Text<'a> {
        jsonrpc: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Value>,
        method: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a Value>,
    }
    // JSON's own values always have a text, so this cannot fail.
    serde_json::to_vec(&Text { jsonrpc: "2.0", id, method, params }).unwrap_or_default()
}

/// A line ends where the message ends: line breaks between JSON's own signs become spaces.
fn one_line(raw: &RawValue) -> std::borrow::Cow<'_, str> {
    let text = raw.get();
    if text.contains(['\n', '\r']) {
        // Inside a JSON string these two are always escaped, so only white space is touched.
        return text.replace(['\n', '\r'], " ").into();
    }
    text.into()
}

/// The text of `value` as raw JSON.
fn raw_of(value: &Value) -> Box<RawValue> {
    // Text made from a value is always JSON, so the second reading cannot fail.
    let raw = RawValue::from_string(value.to_string());
    raw.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Message, MessageFault};
    use expect_test::{Expect, expect};
    use holdpoint_types::JsonLimits;
    use proptest::prelude::*;

    /// Reads a text both ways and says what came of it.
    fn check(text: &str, expected: Expect) {
        let say = |read: Result<Message, MessageFault>| match read {
            Ok(message) => String::from_utf8(message.to_bytes()).unwrap(),
            Err(fault) => format!("{} {fault}", fault.code()),
        };
        let agent = say(Message::from_agent(text.as_bytes(), JsonLimits::default()));
        let upstream = say(Message::from_upstream(text.as_bytes(), 1000));
        let both = if agent == upstream { agent } else { format!("{agent}\n{upstream}") };
        expected.assert_eq(&both);
    }

    #[test]
    fn the_four_kinds() {
        check(
            r#"{"id":1,"jsonrpc":"2.0","method":"m","params":{"z":1.0,"a":2}}"#,
            expect![[r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"z":1.0,"a":2}}"#]],
        );
        check(r#"{"jsonrpc":"2.0","method":"m"}"#, expect![[r#"{"jsonrpc":"2.0","method":"m"}"#]]);
        check(
            r#"{"jsonrpc":"2.0","id":"x","result":{ "a" : 1.50 }}"#,
            expect![[r#"
                {"jsonrpc":"2.0","id":"x","result":{"a":1.5}}
                {"jsonrpc":"2.0","id":"x","result":{ "a" : 1.50 }}"#]],
        );
        check(
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
            expect![[r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#]],
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let rpc = |members: &str| format!(r#"{{"jsonrpc":"2.0",{members}}}"#);
        let null = rpc(r#""id":null,"method":"m""#);
        assert!(Message::from_agent(null.as_bytes(), JsonLimits::default()).is_err());
        for id in ["1.5", "true", "[]", "{}"] {
            let text = rpc(&format!(r#""id":{id},"method":"m""#));
            assert!(Message::from_agent(text.as_bytes(), JsonLimits::default()).is_err(), "{id}");
            assert!(Message::from_upstream(text.as_bytes(), 1000).is_err(), "{id}");
        }
        let members = [
            r#""id":1"#,
            r#""id":1,"result":{},"error":{}"#,
            r#""id":1,"method":"m","result":{}"#,
            r#""id":1,"method":7"#,
            r#""id":1,"method":"m","params":[]"#,
            r#""id":1,"error":"text""#,
            r#""result":{}"#,
            r#""id":1,"id":2,"result":{}"#,
        ];
        for members in members {
            let text = rpc(members);
            assert!(Message::from_agent(text.as_bytes(), JsonLimits::default()).is_err(), "{text}");
            assert!(Message::from_upstream(text.as_bytes(), 1000).is_err(), "{text}");
        }
        check(
            r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
            expect!["-32600 batches are not accepted; send one message at a time"],
        );
        check(
            r#"{"id":1,"method":"m"}"#,
            expect![[r#"-32600 not a JSON-RPC 2.0 message: `jsonrpc` must be "2.0""#]],
        );
    }

    #[test]
    fn spelled_out_nulls_say_nothing() {
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#,
            expect![[r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#]],
        );
        let read = |text: &str| {
            let read = Message::from_upstream(text.as_bytes(), 1000).unwrap();
            String::from_utf8(read.to_bytes()).unwrap()
        };
        expect![[r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]]
            .assert_eq(&read(r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{},"error":null}"#));
        expect![[r#"{"jsonrpc":"2.0","id":1,"error":{}}"#]]
            .assert_eq(&read(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{}}"#));
        expect![[r#"{"jsonrpc":"2.0","method":"m"}"#]]
            .assert_eq(&read(r#"{"jsonrpc":"2.0","id":null,"method":"m","result":null}"#));
    }

    #[test]
    fn deep_and_long_results_stay_raw() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":{deep}}}}}"#);
        let read = Message::from_upstream(text.as_bytes(), 100_000).unwrap();
        assert_eq!(read.to_bytes(), text.as_bytes());
        assert!(Message::from_upstream(text.as_bytes(), 1000).is_err());
        let params = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"x":{deep}}}}}"#);
        assert!(Message::from_upstream(params.as_bytes(), 100_000).is_err());
    }

    #[test]
    fn a_message_is_one_line() {
        let text = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\n\"a\":\r\n\"b\\n\"}}";
        let bytes = Message::from_upstream(text.as_bytes(), 1000).unwrap().to_bytes();
        assert!(!bytes.contains(&b'\n') && !bytes.contains(&b'\r'));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::from_agent(&bytes, JsonLimits::default());
            let _ = Message::from_upstream(&bytes, 100);
        }

        #[test]
        fn raw_results_survive(text in ".{0,20}", id in any::<i64>()) {
            let result = serde_json::json!({ "text": text }).to_string();
            let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
            let read = Message::from_upstream(line.as_bytes(), 1000).unwrap();
            prop_assert_eq!(String::from_utf8(read.to_bytes()).unwrap(), line);
        }
    }
}
