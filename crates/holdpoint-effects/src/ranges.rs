//! Ranges of network addresses: whether several of them together are everybody.
//! Must never look at each range alone.

use std::net::IpAddr;

/// From so many addresses on, ranges are open to everybody: a sixteenth of all.
const V4_OPEN: u128 = 1 << 28;
/// The same for IPv6: an eighth of what is given out.
const V6_OPEN: u128 = 1 << 122;

/// True if `ranges` (`10.0.0.0/8`, `::/1`) together hold more of the internet than anybody owns.
pub(crate) fn are_everybody<'r>(ranges: impl Iterator<Item = &'r str>) -> bool {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for range in ranges {
        let (address, bits) = range.trim().split_once('/').unwrap_or((range, "128"));
        let Ok(bits) = bits.trim().parse::<u32>() else { continue };
        if bits == 0 {
            return true;
        }
        match address.trim().parse() {
            Ok(IpAddr::V4(address)) if bits <= 32 => {
                let size = 1_u128 << (32 - bits);
                let first = u128::from(u32::from(address)) / size * size;
                v4.push((first, first + (size - 1)));
            }
            Ok(IpAddr::V6(address)) if bits <= 128 => {
                let size = 1_u128 << (128 - bits);
                let first = u128::from(address) / size * size;
                v6.push((first, first + (size - 1)));
            }
            _ => {}
        }
    }
    held(v4) >= V4_OPEN || held(v6) >= V6_OPEN
}

/// How many addresses lie in any of the ranges; as many as can be counted at most.
fn held(mut ranges: Vec<(u128, u128)>) -> u128 {
    ranges.sort_unstable();
    let (mut held, mut next) = (0_u128, 0_u128);
    for (first, last) in ranges {
        let first = first.max(next);
        if first > last {
            continue;
        }
        held = held.saturating_add((last - first).saturating_add(1));
        next = last.saturating_add(1);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::are_everybody;

    #[test]
    fn ranges_are_counted_together() {
        let open = |ranges: &[&str]| are_everybody(ranges.iter().copied());
        assert!(open(&["0.0.0.0/0"]) && open(&["10.0.0.0/0"]) && open(&["::/0"]));
        assert!(open(&["0.0.0.0/1"]) && open(&["2000::/3"]));
        assert!(open(&["0.0.0.0/5", "8.0.0.0/5", "16.0.0.0/5", "24.0.0.0/5"]));
        assert!(!open(&["0.0.0.0/5", "0.0.0.0/6", "1.0.0.0/5"]));
        assert!(!open(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"]));
        assert!(!open(&["203.0.113.7", "203.0.113.7/32", "::1/128", "", "x/0x"]));
        assert!(!open(&[]));
        assert!(open(&["ffff::/1", "::/1"]));
    }
}
