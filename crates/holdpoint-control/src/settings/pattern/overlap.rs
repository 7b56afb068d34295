//! Whether one resource can fit two patterns. Exact for patterns as they are matched; takes time in
//! proportion to the product of their lengths. Must not know what a pattern is for.

/// What may stand for any number of things.
const MANY: &str = "**";

/// True if one text fits both patterns.
pub(super) fn of_patterns(one: &str, other: &str) -> bool {
    let (one, other): (Vec<_>, Vec<_>) = (one.split('/').collect(), other.split('/').collect());
    meet(&one, &other, |part| *part == MANY, |one, other| of_segments(one, other))
}

fn of_segments(one: &str, other: &str) -> bool {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let same = |one: &char, other: &char| *one == '?' || *other == '?' || one == other;
    meet(&one, &other, |part| *part == '*', same)
}

/// True if there is a sequence that fits both: parts that are `many` fit any number of things, all
/// others exactly one.
fn meet<T>(
    one: &[T],
    other: &[T],
    many: impl Fn(&T) -> bool,
    same: impl Fn(&T, &T) -> bool,
) -> bool {
    // `row[at]`: what was looked at of `one`, from its end, meets `other` from `at` on. At first
    // that is nothing, which meets what fits nothing.
    let mut fits = true;
    let mut row: Vec<bool> = other
        .iter()
        .rev()
        .map(|part| {
            fits = fits && many(part);
            fits
        })
        .collect();
    row.reverse();
    row.push(true);
    for part in one.iter().rev() {
        let mut next = vec![false; row.len()];
        // From the end of `other` to its beginning; `right` is what was found one further.
        let mut right = false;
        for at in (0..=other.len()).rev() {
            let below = get(&row, at);
            let found = match other.get(at) {
                _ if many(part) && below => true,
                None => false,
                Some(_) if many(part) => right,
                Some(there) if many(there) => right || below,
                Some(there) => same(part, there) && get(&row, at + 1),
            };
            if let Some(place) = next.get_mut(at) {
                *place = found;
            }
            right = found;
        }
        row = next;
    }
    get(&row, 0)
}

fn get(row: &[bool], at: usize) -> bool {
    row.get(at).copied().unwrap_or(false)
}
