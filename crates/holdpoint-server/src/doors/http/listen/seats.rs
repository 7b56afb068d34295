//! How many connections there are, in all and from each address.
//! Must never count a connection that has ended.

use super::FrontLimits;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The connections of one listener.
#[derive(Default)]
pub(super) struct Seats {
    taken: Mutex<Taken>,
}

/// One connection; given back when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    network: IpAddr,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_network: BTreeMap<IpAddr, usize>,
}

// === impl Seats ===

impl Seats {
    /// A seat for a peer at `address`, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, limits: &FrontLimits) -> Option<Seat> {
        let network = network_of(address);
        let mut taken = self.taken.lock();
        let here = taken.by_network.get(&network).copied().unwrap_or_default();
        if taken.all >= limits.connections_max || here >= limits.connections_per_address_max {
            return None;
        }
        taken.all += 1;
        taken.by_network.insert(network, here + 1);
        Some(Seat { seats: Arc::clone(self), network })
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_network.get(&self.network).copied().unwrap_or_default();
        match left.saturating_sub(1) {
            0 => taken.by_network.remove(&self.network),
            some => taken.by_network.insert(self.network, some),
        };
    }
}

/// What counts as one peer: an IPv4 address, or a /64 network, which one IPv6 host has for itself.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::{FrontLimits, Seats};
    use std::sync::Arc;

    #[test]
    fn seats_are_limited_in_all_and_per_network_and_come_back() {
        let seats = Arc::new(Seats::default());
        let limits = FrontLimits {
            connections_max: 3,
            connections_per_address_max: 2,
            ..FrontLimits::default()
        };
        let take = |address: &str| seats.take(address.parse().unwrap(), &limits);
        let one = take("2001:db8::1");
        let two = take("2001:db8::2:3");
        assert!(one.is_some() && two.is_some());
        assert!(take("2001:db8::4").is_none(), "the same network");
        let other = take("::ffff:10.0.0.1");
        assert!(other.is_some());
        assert!(take("10.0.0.2").is_none(), "three in all");
        drop(one);
        assert!(take("2001:db8::4").is_some());
    }
}
