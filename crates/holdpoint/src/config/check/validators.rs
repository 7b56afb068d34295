//! Checks independent voices.

use super::Checker;
use super::servers::Purpose;
use crate::config::checked::{Asked, UpstreamUrl, Validator};
use crate::config::raw::{At, Named, RawClass, RawInvariantResult, RawValidator};
use holdpoint_control::ToolPattern;
use holdpoint_server::validators::check_expression;
use holdpoint_types::FindingResult;

/// How long an answer may take unless said otherwise, in milliseconds.
const TIMEOUT_MS: u64 = 2000;
/// The longest that can be said, in milliseconds: a permit must still be good afterwards.
const TIMEOUT_MS_MAX: u64 = 20_000;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn validators(&mut self, raw: &Named<RawValidator>) -> Vec<Validator> {
        let each = raw.iter().filter_map(|(name, validator)| self.validator(name, validator));
        each.collect()
    }

    fn validator(&mut self, name: &At<String>, raw: &At<RawValidator>) -> Option<Validator> {
        let written = raw.get();
        let asked = self.asked(raw)?;
        let tools = match &written.tools {
            Some(texts) => self.tool_patterns(texts),
            None => ToolPattern::parse("*").into_iter().collect(),
        };
        let timeout_ms = match &written.timeout_ms {
            Some(ms) if (1..=TIMEOUT_MS_MAX).contains(ms.get()) => *ms.get(),
            Some(ms) => {
                let message = format!("an answer may take 1 to {TIMEOUT_MS_MAX} ms");
                self.fault(ms.span(), message, None);
                return None;
            }
            None => TIMEOUT_MS,
        };
        let objection = match written.result.as_ref().map(|result| *result.get()) {
            Some(RawInvariantResult::Fail) | None => FindingResult::Fail,
            Some(RawInvariantResult::Warn) => FindingResult::Warn,
            // One that says nothing need not be asked.
            Some(RawInvariantResult::Off) => return None,
        };
        let class = written.class.unwrap_or(RawClass::Read).into();
        let name = name.get().clone();
        Some(Validator { name, tools, class, asked, timeout_ms, objection })
    }

    fn asked(&mut self, raw: &At<RawValidator>) -> Option<Asked> {
        let RawValidator { cel, command, url, env, headers, .. } = raw.get();
        match (cel, command, url) {
            (Some(cel), None, None) => {
                if let Err(fault) = check_expression(cel.get()) {
                    self.fault(cel.span(), format!("no CEL that can be asked: {fault}"), None);
                    return None;
                }
                Some(Asked::Cel(cel.get().clone()))
            }
            (None, Some(command), None) => {
                let env = self.values(Purpose::Env, env);
                self.command(command, env, None).map(Asked::Command)
            }
            (None, None, Some(url)) => {
                let headers = self.values(Purpose::Header, headers);
                let url = self.url(url)?;
                Some(Asked::Url(UpstreamUrl { url, headers, oauth: None }))
            }
            _ => {
                let message = "a validator has exactly one of `cel`, `command` and `url`";
                self.fault(raw.span(), message.to_owned(), None);
                None
            }
        }
    }
}
