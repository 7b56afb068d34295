//! What can be reached from outside. Must never take an empty rule for one that lets nothing in:
//! in a network policy it lets everything in.

use super::{Object, at, list};
use crate::effects::{Effects, NoteCode};
use crate::ranges;
use serde_json::Value;

/// Notes what `object` lets in.
pub(super) fn look(object: &Object<'_>, effects: &mut Effects) {
    let widened = match object.kind.as_str() {
        "service" => service(object),
        "ingress" => Some("an ingress"),
        "networkpolicy" => policy(object),
        _ => None,
    };
    if let Some(what) = widened {
        effects.note(NoteCode::NetworkWidened, format!("{what}: {}", object.resource));
    }
}

fn service(object: &Object<'_>) -> Option<&'static str> {
    let kind = object.get(&["spec", "type"]).as_str().unwrap_or("ClusterIP");
    let annotations = object.get(&["metadata", "annotations"]).as_object();
    let internal = annotations.into_iter().flatten().any(|(name, value)| {
        let value = value.as_str().unwrap_or("").to_lowercase();
        (name.ends_with("load-balancer-internal") && value != "false")
            || (name.ends_with("load-balancer-type") && value == "internal")
            || (name.ends_with("load-balancer-scheme") && value == "internal")
    });
    let ranges = || list(object.get(&["spec", "loadBalancerSourceRanges"]));
    let ranged = ranges().next().is_some()
        && !ranges::are_everybody(ranges().map(|range| range.as_str().unwrap_or("::/0")));
    match kind {
        "LoadBalancer" if internal || ranged => None,
        "LoadBalancer" => Some("a load balancer open to everybody"),
        "NodePort" => Some("a port of every node"),
        _ if list(object.get(&["spec", "externalIPs"])).next().is_some() => {
            Some("an external address")
        }
        _ => None,
    }
}

fn policy(object: &Object<'_>) -> Option<&'static str> {
    let rules = || list(object.get(&["spec", "ingress"]));
    let open = rules().any(|rule| {
        let from = at(rule, &["from"]);
        let everybody = |peer: &Value| {
            at(peer, &["namespaceSelector"])
                .as_object()
                .is_some_and(|map| map.is_empty() && peer.get("podSelector").is_none())
        };
        list(from).next().is_none() || list(from).any(everybody)
    });
    // Rules add up, so their ranges count together.
    let peers = rules().flat_map(|rule| list(at(rule, &["from"])));
    let ranges = peers.filter_map(|peer| at(peer, &["ipBlock", "cidr"]).as_str());
    (open || ranges::are_everybody(ranges)).then_some("a rule that lets everybody in")
}
