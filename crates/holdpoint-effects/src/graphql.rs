//! GraphQL documents: queries look, mutations do what their name is declared to do.
//!
//! Owns which operations of a request would run. A mutation that nobody declared is destructive.

use crate::http::{Body, HttpRequest, HttpRules};
use crate::{Effects, NoteCode, TEXT_BYTES_MAX};
use graphql_parser::query::{
    Definition, Document, OperationDefinition, Selection, SelectionSet, parse_query,
};
use holdpoint_types::{Certainty, Effect, EffectClass, Verb};
use serde_json::Value;
use url::Url;

/// How deep brackets may be nested: the parser calls itself for each.
const BRACKETS_MAX: usize = 48;
/// How deep fragments may name fragments.
const FRAGMENTS_MAX: usize = 8;
/// Most operations of one batch.
const BATCH_MAX: usize = 64;

/// Adds what a request to a GraphQL endpoint at `address` with this JSON or GraphQL body does.
pub fn graphql(body: &str, address: &str, rules: &HttpRules, effects: &mut Effects) {
    if body.len() > TEXT_BYTES_MAX {
        return effects.add_opaque(address, NoteCode::TooLarge, "the GraphQL request is too long");
    }
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Array(batch)) if batch.len() > BATCH_MAX => {
            effects.add_opaque(address, NoteCode::TooLarge, "too many operations in one batch");
        }
        Ok(Value::Array(batch)) if !batch.is_empty() => {
            batch.iter().for_each(|one| envelope(one, address, rules, effects));
        }
        Ok(value) => envelope(&value, address, rules, effects),
        Err(_) => document(body, None, address, rules, effects),
    }
}

/// True if a request goes to GraphQL.
pub(crate) fn is_request(url: &Url, request: &HttpRequest, method: &str) -> bool {
    let by_path = is_endpoint(url);
    let by_type = request.headers.iter().any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("content-type") && value.contains("application/graphql")
    });
    let by_body = match &request.body {
        Body::Text(text) => serde_json::from_str::<Value>(text).is_ok_and(|value| {
            let asks = |value: &Value| {
                let query = value.get("query").and_then(Value::as_str);
                query.is_some_and(|query| query.contains('{')) || is_stored(value)
            };
            asks(&value) || value.as_array().is_some_and(|batch| batch.iter().any(asks))
        }),
        Body::None | Body::Unseen => false,
    };
    let by_query = url.query_pairs().any(|(name, value)| {
        name == "documentId" || name == "extensions" && value.contains("persistedQuery")
    });
    // Without a body and a query, an endpoint only says that it is there.
    let asks = request.body != Body::None || url.query().is_some();
    by_type || by_body || by_query || by_path && (asks || method == "POST")
}

/// True if the path says that GraphQL is served there.
pub(crate) fn is_endpoint(url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    path.split('/').any(|part| part == "graphql" || part == "gql")
}

/// True if it names a stored operation by a hash or a number: the text is not here.
fn is_stored(value: &Value) -> bool {
    let by_hash = value.pointer("/extensions/persistedQuery").is_some();
    let named = value.get("operationName").is_some_and(Value::is_string)
        && (value.get("variables").is_some() || value.get("extensions").is_some());
    let ids = ["documentId", "document_id", "queryId", "doc_id"];
    by_hash || named || ids.iter().any(|key| value.get(*key).is_some())
}

/// Adds what such a request does.
pub(crate) fn request(
    url: &Url,
    request: &HttpRequest,
    address: &str,
    rules: &HttpRules,
    effects: &mut Effects,
) {
    let parameter = |key: &str| {
        url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
    };
    if let Some(text) = parameter("query") {
        document(&text, parameter("operationName").as_deref(), address, rules, effects);
    }
    match &request.body {
        Body::Text(text) => graphql(text, address, rules, effects),
        Body::None if parameter("query").is_some() => {}
        Body::None | Body::Unseen => {
            effects.add_opaque(address, NoteCode::Unreadable, "the GraphQL request is not seen");
        }
    }
}

fn envelope(value: &Value, address: &str, rules: &HttpRules, effects: &mut Effects) {
    let name = value.get("operationName").and_then(Value::as_str);
    match value.get("query").and_then(Value::as_str) {
        // Which of the two a server runs is its own affair.
        Some(_) if value.get("documentId").is_some() => {
            effects.add_opaque(address, NoteCode::UnseenCode, "a stored GraphQL operation");
        }
        Some(text) => document(text, name, address, rules, effects),
        // A stored operation is known by a hash, and the text of it is not here.
        None => {
            effects.add_opaque(address, NoteCode::UnseenCode, "a GraphQL request without a text")
        }
    }
}

fn document(
    text: &str,
    name: Option<&str>,
    address: &str,
    rules: &HttpRules,
    effects: &mut Effects,
) {
    if too_deep(text) {
        return effects.add_opaque(address, NoteCode::TooLarge, "the GraphQL text is too deep");
    }
    let Ok(document) = parse_query::<&str>(text) else {
        return effects.add_opaque(
            address,
            NoteCode::Unreadable,
            "the GraphQL text cannot be read",
        );
    };
    let mut ran = false;
    for definition in &document.definitions {
        let Definition::Operation(operation) = definition else { continue };
        if name.is_some_and(|wanted| !wanted.is_empty() && name_of(operation) != Some(wanted)) {
            continue;
        }
        ran = true;
        match operation {
            OperationDefinition::Mutation(mutation) => {
                let mut fields = Vec::new();
                collect(&document, &mutation.selection_set, 0, &mut fields);
                for field in fields {
                    effects.add(mutates(field, address, rules));
                }
            }
            OperationDefinition::Query(_)
            | OperationDefinition::Subscription(_)
            | OperationDefinition::SelectionSet(_) => {
                effects.add(Effect::new(Verb::Read, address, "a GraphQL query"));
            }
        }
    }
    if !ran {
        effects.add_opaque(address, NoteCode::Unreadable, "no operation of the GraphQL text runs");
    }
}

fn too_deep(text: &str) -> bool {
    let (mut open, mut deepest) = (0_usize, 0_usize);
    for c in text.chars() {
        match c {
            '{' | '(' | '[' => open += 1,
            '}' | ')' | ']' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest > BRACKETS_MAX
}

fn name_of<'a>(operation: &OperationDefinition<'a, &'a str>) -> Option<&'a str> {
    match operation {
        OperationDefinition::Query(query) => query.name,
        OperationDefinition::Mutation(mutation) => mutation.name,
        OperationDefinition::Subscription(subscription) => subscription.name,
        OperationDefinition::SelectionSet(_) => None,
    }
}

/// The fields at the top of a selection, those of fragments included. `*` is a fragment that is
/// not there.
fn collect<'a>(
    document: &Document<'a, &'a str>,
    set: &SelectionSet<'a, &'a str>,
    depth: usize,
    fields: &mut Vec<&'a str>,
) {
    for selection in &set.items {
        match selection {
            Selection::Field(field) => fields.push(field.name),
            Selection::InlineFragment(inner) if depth < FRAGMENTS_MAX => {
                collect(document, &inner.selection_set, depth + 1, fields);
            }
            Selection::FragmentSpread(spread) if depth < FRAGMENTS_MAX => {
                let found = document.definitions.iter().find_map(|definition| match definition {
                    Definition::Fragment(fragment) if fragment.name == spread.fragment_name => {
                        Some(fragment)
                    }
                    Definition::Fragment(_) | Definition::Operation(_) => None,
                });
                match found {
                    Some(fragment) => collect(document, &fragment.selection_set, depth + 1, fields),
                    None => fields.push("*"),
                }
            }
            Selection::InlineFragment(_) | Selection::FragmentSpread(_) => fields.push("*"),
        }
    }
}

fn mutates(field: &str, address: &str, rules: &HttpRules) -> Effect {
    let lower = field.to_ascii_lowercase();
    let deletes =
        ["delete", "remove", "destroy", "purge", "drop"].iter().any(|word| lower.contains(word));
    let resource = format!("{address}#{field}");
    let evidence = format!("the mutation `{field}`");
    match (rules.mutations.get(field), deletes) {
        (Some(EffectClass::Destructive), _) => Effect::new(Verb::Delete, resource, evidence),
        (Some(class), _) => Effect::new(Verb::Update, resource, evidence).at_least(*class),
        (None, true) => Effect::new(Verb::Delete, resource, evidence),
        (None, false) => {
            let effect = Effect::new(Verb::Unknown, resource, evidence);
            effect.no_surer_than(Certainty::Opaque)
        }
    }
}
