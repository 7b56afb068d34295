//! Checks who is told of approvals. Must not read the URL, which is a secret.

use super::servers::Purpose;
use super::{Checker, edges};
use crate::config::checked::{Links, Notify};
use crate::config::raw::{At, Named, RawLinks, RawListen, RawNotify, RawShape};
use holdpoint_server::doors::http::oauth::is_loopback;
use holdpoint_server::notify::Shape;

const BASE_EXAMPLE: &str = "https://holdpoint.example.com";

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn notify(&mut self, raw: &Named<RawNotify>, listen: &RawListen) -> Vec<Notify> {
        let each = raw.iter().filter_map(|(name, one)| self.told(name, one, listen));
        each.collect()
    }

    fn told(
        &mut self,
        name: &At<String>,
        raw: &At<RawNotify>,
        listen: &RawListen,
    ) -> Option<Notify> {
        let one = raw.get();
        // It names a file of the store.
        let name = self.word("notify", &name.span(), Some(name));
        if one.url.is_none() {
            self.missing(&raw.span(), "url", "{ from_env = \"NAME\" }");
        }
        let url = one.url.as_ref().map(|url| self.value_reference(url.span(), url.get()));
        let headers = self.values(Purpose::Header, &one.headers);
        let shape = match one.format.unwrap_or_default() {
            RawShape::Slack => Shape::Slack,
            RawShape::Json => Shape::Json,
        };
        let parameters = one.parameters.as_ref().is_some_and(|parameters| *parameters.get());
        let links = one.links.as_ref().map(|links| self.links(links, listen));
        let links = match links {
            Some(links) => Some(links?),
            None => None,
        };
        Some(Notify { name: name?, url: url??, headers, shape, parameters, links })
    }

    fn links(&mut self, raw: &At<RawLinks>, listen: &RawListen) -> Option<Links> {
        let (span, one) = (raw.span(), raw.get());
        let operator = match &one.operator {
            Some(operator) => self.reference("operator", operator),
            None => {
                self.missing(&span, "operator", "\"NAME\"");
                None
            }
        };
        let Some(base) = &one.base else {
            self.missing(&span, "base", &format!("\"{BASE_EXAMPLE}\""));
            return None;
        };
        let text = self.url(base)?;
        let parsed = reqwest::Url::parse(&text).ok()?;
        let plain = parsed.query().is_none() && parsed.fragment().is_none();
        if !plain || text.contains(|found: char| found.is_whitespace() || "<>|".contains(found)) {
            let message = "links cannot lead below this".to_owned();
            self.fault(base.span(), message, format!("for example `{BASE_EXAMPLE}`"));
            return None;
        }
        if parsed.scheme() == "http" && !is_loopback(&parsed) {
            let message = "whoever sees a link on its way can decide by it".to_owned();
            self.fault(base.span(), message, "use `https`".to_owned());
            return None;
        }
        self.names_us(base, &parsed, listen);
        Some(Links { base: text, operator: operator? })
    }

    /// Warns of a base that the door would not know as its own.
    fn names_us(&mut self, base: &At<String>, parsed: &reqwest::Url, listen: &RawListen) {
        let host = parsed.host_str().unwrap_or_default();
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let known = match &listen.hosts {
            Some(hosts) => hosts.iter().map(|host| host.get().clone()).collect(),
            None => edges::hosts_of(listen),
        };
        if known.iter().any(|known| known.eq_ignore_ascii_case(&authority)) {
            return;
        }
        let message = format!("`{authority}` is none of `listen.hosts`: links there are refused");
        let add = format!("add it to `hosts` in `[listen]`, as browsers write it: `{authority}`");
        self.warn(base.span(), message, add);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::check::check;
    use expect_test::expect;
    use std::path::Path;

    /// Each fault and warning on a line.
    fn faults(text: &str) -> String {
        let (_, report) = check("holdpoint.toml", Path::new("/etc/hp/holdpoint.toml"), text);
        let told = report.diagnostics();
        let told = told.iter().map(|found| {
            let add = found.suggestion.as_deref().unwrap_or("-");
            format!("{}: {} ({add})\n", found.severity.as_str(), found.message)
        });
        told.collect()
    }

    #[test]
    fn who_is_told_of_approvals_is_checked() {
        expect![[r#"
            fault: the key `url` is missing (add `url = { from_env = "NAME" }`)
            fault: `Nobody` is not a valid notify name: use 1 to 64 of `a-z`, `0-9`, `-`, `.` and single `_`, starting with a letter (for example `nobody`)
            fault: a secret has either `from_env` or `from_file`, not both (-)
            warning: `hold.example.com` is none of `listen.hosts`: links there are refused (add it to `hosts` in `[listen]`, as browsers write it: `hold.example.com`)
            fault: the operator `adda` is not declared (did you mean `ada`?)
            fault: whoever sees a link on its way can decide by it (use `https`)
            fault: links cannot lead below this (for example `https://holdpoint.example.com`)
            fault: `Authorization` holds a secret in plain text (write `Authorization = { from_env = "AUTHORIZATION" }`)
            fault: the key `operator` is missing (add `operator = "NAME"`)
            fault: the key `base` is missing (add `base = "https://holdpoint.example.com"`)
        "#]].assert_eq(&faults(
            r#"
            [operator.ada]
            user = "ada"
            [notify.Nobody]
            [notify.chat]
            url = { from_env = "A", from_file = "b" }
            [notify.direct]
            url = { from_env = "A" }
            format = "slack"
            links = { base = "https://hold.example.com", operator = "adda" }
            [notify.plain]
            url = { from_env = "A" }
            links = { base = "http://hold.example.com", operator = "ada" }
            [notify.odd]
            url = { from_env = "A" }
            links = { base = "https://hold.example.com/?x=1", operator = "ada" }
            [notify.half]
            url = { from_env = "A" }
            headers = { Authorization = "Bearer x" }
            links = { }
            "#,
        ));
    }
}
