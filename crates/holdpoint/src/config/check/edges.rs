//! Checks where Holdpoint listens, and the limits.

use super::Checker;
use crate::config::checked::{DoorLimits, Limits, Listen, Tls};
use crate::config::raw::{At, RawLimits, RawListen, RawTls};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

const HTTP_DEFAULT: &str = "127.0.0.1:4747";
const OPERATIONS_EXAMPLE: &str = "127.0.0.1:4748";
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// Longest time that what takes actions back may be kept, in seconds: a year.
const UNDO_KEEP_S: u64 = 365 * 24 * 3600;
/// Most checks that an operator may let wait.
const CHECKS_OPEN: u64 = 10_000_000;
/// Most of anything else that is counted.
const MANY: u64 = 65_536;

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
        let operations = self.operations(raw);
        let tls = match &raw.tls {
            None => None,
            Some(tls) => Some(self.tls(tls)?),
        };
        Some(Listen { http: http?, hosts, anonymous_agent, operations, tls, oauth: None })
    }

    pub(super) fn limits(&mut self, raw: &RawLimits) -> Limits {
        Limits {
            message_bytes_max: self.size(&raw.message_bytes_max, 1024..=1 << 30, 4 << 20),
            output_stored_bytes_max: self.size(
                &raw.output_stored_bytes_max,
                0..=16 << 20,
                64 << 10,
            ),
            calls_in_flight_max: self.size(&raw.calls_in_flight_max, 1..=MANY, 256),
            checks_open_max: self.within(raw.checks_open_max.as_ref(), 1..=CHECKS_OPEN, 100_000),
            undo_keep_s: self.within(raw.undo_keep_s.as_ref(), 60..=UNDO_KEEP_S, 604_800),
            call_timeout_ms: self.duration(raw.call_timeout_ms.as_ref(), 60_000),
            stop_grace_ms: self.within(raw.stop_grace_ms.as_ref(), 0..=60_000, 2_000),
            drain_ms: self.within(raw.drain_ms.as_ref(), 0..=HOUR_MS, 10_000),
            door: self.door_limits(raw),
        }
    }

    fn door_limits(&mut self, raw: &RawLimits) -> DoorLimits {
        DoorLimits {
            agent_calls_max: self.size(&raw.agent_calls_max, 1..=MANY, 64),
            agent_queue_max: self.size(&raw.agent_queue_max, 0..=MANY, 64),
            queue_wait_ms: self.within(raw.queue_wait_ms.as_ref(), 1..=600_000, 5_000),
            connections_max: self.size(&raw.connections_max, 1..=MANY, 1024),
            connections_per_address_max: self.size(&raw.connections_per_address_max, 1..=MANY, 256),
            header_bytes_max: self.size(&raw.header_bytes_max, 8192..=1 << 20, 16 << 10),
            header_count_max: self.size(&raw.header_count_max, 16..=1000, 100),
            header_timeout_ms: self.within(raw.header_timeout_ms.as_ref(), 10..=600_000, 10_000),
            body_timeout_ms: self.within(raw.body_timeout_ms.as_ref(), 10..=HOUR_MS, 30_000),
            idle_timeout_ms: self.within(raw.idle_timeout_ms.as_ref(), 10..=HOUR_MS, 75_000),
            write_timeout_ms: self.within(raw.write_timeout_ms.as_ref(), 10..=HOUR_MS, 30_000),
        }
    }

    fn size(&mut self, value: &Option<At<u64>>, range: RangeInclusive<u64>, default: u64) -> usize {
        usize::try_from(self.within(value.as_ref(), range, default)).unwrap_or(usize::MAX)
    }

    /// How long a call may take, in milliseconds.
    pub(super) fn duration(&mut self, value: Option<&At<u64>>, default: u64) -> u64 {
        self.within(value, 1..=DAY_MS, default)
    }

    pub(super) fn within(
        &mut self,
        value: Option<&At<u64>>,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
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
        let address = self.bindable(raw, http, HTTP_DEFAULT)?;
        if !address.ip().is_loopback() && raw.tls.is_none() {
            let message = format!("keys of agents travel to `{address}` in plain text");
            let suggestion = "add `[listen.tls]`, unless a proxy in front speaks TLS".to_owned();
            self.warn(http.span(), message, suggestion);
        }
        Some(address)
    }

    fn operations(&mut self, raw: &RawListen) -> Option<SocketAddr> {
        let operations = raw.operations.as_ref()?;
        self.bindable(raw, operations, OPERATIONS_EXAMPLE)
    }

    /// An address that may be listened on.
    fn bindable(
        &mut self,
        raw: &RawListen,
        text: &At<String>,
        example: &str,
    ) -> Option<SocketAddr> {
        let Ok(address) = text.get().parse::<SocketAddr>() else {
            let message = format!("`{}` is not an address with a port", text.get());
            self.fault(text.span(), message, format!("for example `{example}`"));
            return None;
        };
        let exposed = raw.exposed.as_ref().is_some_and(|exposed| *exposed.get());
        if !address.ip().is_loopback() && !exposed {
            let message = format!("`{address}` can be reached by other machines");
            let suggestion = format!("use `{example}`, or say `exposed = true`");
            self.fault(text.span(), message, suggestion);
            return None;
        }
        Some(address)
    }

    fn tls(&mut self, raw: &At<RawTls>) -> Option<Tls> {
        let (table, span) = (raw.get(), raw.span());
        if table.certificate.is_none() {
            self.missing(&span, "certificate", "\"cert.pem\"");
        }
        if table.key.is_none() {
            self.missing(&span, "key", "\"key.pem\"");
        }
        let certificate = self.path(table.certificate.as_ref());
        let key = self.path(table.key.as_ref());
        let client_ca = self.path(table.client_ca.as_ref());
        Some(Tls { certificate: certificate?, key: key?, client_ca })
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

/// The hosts of the address, where the configuration names none.
pub(super) fn hosts_of(listen: &RawListen) -> Vec<String> {
    let http = listen.http.as_ref().map_or(HTTP_DEFAULT, |http| http.get());
    http.parse().map(default_hosts).unwrap_or_default()
}

fn default_hosts(address: SocketAddr) -> Vec<String> {
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        hosts.push(format!("localhost:{}", address.port()));
    }
    hosts
}
