//! Checks where Holdpoint listens, and the limits.

use super::Checker;
use crate::config::checked::{Limits, Listen, ValueSource};
use crate::config::raw::{At, Named, RawLimits, RawListen, RawOperator};
use holdpoint_types::OperatorName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

const HTTP_DEFAULT: &str = "127.0.0.1:4747";
const DAY_MS: u64 = 86_400_000;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn listen(&mut self, raw: &RawListen) -> Option<Listen> {
        let anonymous = raw.anonymous_agent.as_ref();
        let anonymous_agent = anonymous.and_then(|name| self.reference("agent", name));
        let http = self.address(raw);
        let hosts = match &raw.hosts {
            None => http.map(default_hosts).unwrap_or_default(),
            Some(hosts) => hosts.iter().filter_map(|host| self.authority(host)).collect(),
        };
        Some(Listen { http: http?, hosts, anonymous_agent })
    }

    pub(super) fn operators(
        &mut self,
        raw: &Named<RawOperator>,
    ) -> BTreeMap<OperatorName, ValueSource> {
        let mut operators = BTreeMap::new();
        for (name, operator) in raw {
            let key = match &operator.get().key {
                Some(key) => self.value_reference(key.span(), key.get()),
                None if self.dropped.has(operator.span().start, "key") => None,
                None => {
                    self.missing(&operator.span(), "key", "{ from_env = \"NAME\" }");
                    None
                }
            };
            if let (Some(name), Some(key)) = (self.parse_name(name), key) {
                operators.insert(name, key);
            }
        }
        operators
    }

    pub(super) fn limits(&mut self, raw: &RawLimits) -> Limits {
        let mut bytes = |value: &Option<At<u64>>, range, default| {
            usize::try_from(self.within(value.as_ref(), range, default)).unwrap_or(usize::MAX)
        };
        let message_bytes_max = bytes(&raw.message_bytes_max, 1024..=1 << 30, 4 << 20);
        let output_stored_bytes_max = bytes(&raw.output_stored_bytes_max, 0..=16 << 20, 64 << 10);
        let calls_in_flight_max = bytes(&raw.calls_in_flight_max, 1..=65_536, 256);
        Limits {
            message_bytes_max,
            output_stored_bytes_max,
            calls_in_flight_max,
            call_timeout_ms: self.duration(raw.call_timeout_ms.as_ref(), 60_000),
            stop_grace_ms: self.within(raw.stop_grace_ms.as_ref(), 0..=60_000, 2_000),
        }
    }

    /// How long a call may take, in milliseconds.
    pub(super) fn duration(&mut self, value: Option<&At<u64>>, default: u64) -> u64 {
        self.within(value, 1..=DAY_MS, default)
    }

    fn within(&mut self, value: Option<&At<u64>>, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = value else { return default };
        if range.contains(value.get()) {
            return *value.get();
        }
        let (least, most) = range.into_inner();
        let message = format!("{} is not within {least} and {most}", value.get());
        self.fault(value.span(), message, format!("the default is {default}"));
        default
    }

    fn address(&mut self, raw: &RawListen) -> Option<SocketAddr> {
        let Some(http) = &raw.http else { return HTTP_DEFAULT.parse().ok() };
        let Ok(address) = http.get().parse::<SocketAddr>() else {
            let message = format!("`{}` is not an address with a port", http.get());
            self.fault(http.span(), message, format!("for example `{HTTP_DEFAULT}`"));
            return None;
        };
        let exposed = raw.exposed.as_ref().is_some_and(|exposed| *exposed.get());
        if !address.ip().is_loopback() && !exposed {
            let message = format!("`{address}` can be reached by other machines");
            let suggestion = format!("use `{HTTP_DEFAULT}`, or say `exposed = true`");
            self.fault(http.span(), message, suggestion);
            return None;
        }
        Some(address)
    }

    fn authority(&mut self, host: &At<String>) -> Option<String> {
        let text = host.get().to_ascii_lowercase();
        let bare = http::uri::Authority::try_from(text.as_str())
            .is_ok_and(|found| !found.as_str().contains('@') && !found.host().is_empty());
        if bare {
            return Some(text);
        }
        let message = format!("`{}` is not a host with an optional port", host.get());
        let stripped = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
        let stripped = stripped.split('/').next().unwrap_or_default();
        let suggestion = (!stripped.is_empty()).then(|| format!("for example `{stripped}`"));
        self.fault(host.span(), message, suggestion);
        None
    }
}

fn default_hosts(address: SocketAddr) -> Vec<String> {
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        hosts.push(format!("localhost:{}", address.port()));
    }
    hosts
}
