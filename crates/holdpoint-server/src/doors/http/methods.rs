//! Methods as labels: agents may send any text, labels are few.
//! Must never give back a text that an agent made up.

/// The method as a label: agents may send any text, labels are few.
pub(super) fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 16] = [
        "completion/complete",
        "initialize",
        "notifications/cancelled",
        "notifications/initialized",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "server/discover",
        "tasks/cancel",
        "tasks/get",
        "tasks/update",
        "tools/call",
        "tools/list",
    ];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}
