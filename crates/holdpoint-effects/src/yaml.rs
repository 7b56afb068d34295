//! YAML with limits that hold before it costs. Must never write out more aliases than the text is
//! long: a few lines could ask for millions of nodes.

use serde_json::Value;

/// Deepest nesting.
const DEPTH_MAX: usize = 40;
/// Most nodes, aliases written out.
const NODES_MAX: usize = 50_000;
/// Most events that aliases write out, besides one for each four bytes of the text.
const ALIAS_EVENTS_MAX: usize = 256;

/// All documents of a text; none if it is no YAML within the limits.
pub(crate) fn documents(text: &str) -> Option<Vec<Value>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_documents: 256,
            max_aliases: 500,
            max_anchors: 500,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_EVENTS_MAX + text.len() / 4,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).ok()
}

/// True if a text has what makes another node of one that stands elsewhere.
pub(crate) fn may_have_aliases(text: &str) -> bool {
    text.contains('*') && text.contains('&')
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn aliases_write_out_no_more_than_the_text_is_long() {
        let shared = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, z: 3}\n";
        assert_eq!(documents(shared).unwrap()[0]["b"]["y"][1], 2);
        let nine = |name: char, of: &str| format!("{name}: &{name} [{}]\n", [of; 9].join(","));
        let bomb: String = [('a', "x"), ('b', "*a"), ('c', "*b"), ('d', "*c")]
            .map(|(name, of)| nine(name, of))
            .concat();
        assert_eq!(documents(&bomb), None);
        assert_eq!(documents("a: 1\n---\nb: 2\n").unwrap().len(), 2);
    }
}
