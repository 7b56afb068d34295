//! Which servers a request may name as the one that it is for, and as the one that it comes from.
//! Must never take one for another.

use super::{HttpDoor, Refused};
use axum::http::{HeaderMap, StatusCode, header};
use holdpoint_types::Reason;

// === impl HttpDoor ===

impl HttpDoor {
    /// Refuses what names another server in `Host` or `Origin`.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Box<Refused>> {
        let origin = text(headers, header::ORIGIN.as_str());
        if self.is_here(headers) && origin.is_none_or(|origin| self.is_own(origin)) {
            return Ok(());
        }
        let detail = "the Host or Origin header names another server".to_owned();
        Err(Refused::new(StatusCode::FORBIDDEN, Reason::OriginRefused, detail))
    }

    /// True if a browser sends this from a page of this server, or no browser sends it. Our own
    /// pages ask to be named to nobody, so a form in them comes from `null`.
    pub(super) fn is_from_here(&self, headers: &HeaderMap) -> bool {
        let site = text(headers, "sec-fetch-site");
        let origin = match text(headers, header::ORIGIN.as_str()) {
            None => true,
            Some("null") => site.is_some(),
            Some(origin) => self.is_own(origin),
        };
        self.is_here(headers) && origin && site.is_none_or(|site| site == "same-origin")
    }

    fn is_here(&self, headers: &HeaderMap) -> bool {
        text(headers, header::HOST.as_str()).is_some_and(|host| self.knows(host))
    }

    fn is_own(&self, origin: &str) -> bool {
        let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        authority.is_some_and(|authority| self.knows(authority))
    }

    fn knows(&self, authority: &str) -> bool {
        self.settings.load().hosts.iter().any(|host| host.eq_ignore_ascii_case(authority))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}
