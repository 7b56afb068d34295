//! Checks independent voices.

use super::Checker;
use super::servers::Purpose;
use crate::config::checked::{Asked, UpstreamUrl, Validator};
use crate::config::raw::{At, Named, RawClass, RawInvariantResult, RawValidator, RawWhen};
use holdpoint_control::ToolPattern;
use holdpoint_server::validators::{When, check_expression};
use holdpoint_types::{FindingResult, Severity};
use std::collections::BTreeSet;

/// How long an answer may take unless said otherwise, in milliseconds.
const TIMEOUT_MS: u64 = 2000;
/// The longest that can be said, in milliseconds: a permit must still be good afterwards.
const TIMEOUT_MS_MAX: u64 = 20_000;

/// When a call is checked after its end unless said otherwise, in seconds after it.
const AFTER_S: [u32; 4] = [0, 60, 15 * 60, 24 * 60 * 60];
/// The longest after its end that a call can be checked, in seconds.
const AFTER_S_MAX: u32 = 30 * 24 * 60 * 60;
/// How often one call can be checked.
const AFTER_MAX: usize = 16;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn validators(&mut self, raw: &Named<RawValidator>) -> Vec<Validator> {
        let each = raw.iter().filter_map(|(name, validator)| self.validator(name, validator));
        each.collect()
    }

    fn validator(&mut self, name: &At<String>, raw: &At<RawValidator>) -> Option<Validator> {
        let written = raw.get();
        let when = self.when(written)?;
        let asked = self.asked(raw, &when)?;
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
        let mildest = match when {
            When::Before => RawClass::Read,
            When::After(_) => RawClass::Write,
        };
        let class = written.class.unwrap_or(mildest).into();
        let name = name.get().clone();
        let severity = written.severity.map(Severity::from).unwrap_or_default();
        Some(Validator { name, tools, class, when, asked, timeout_ms, objection, severity })
    }

    fn when(&mut self, written: &RawValidator) -> Option<When> {
        let after_s = match (written.when.unwrap_or_default(), &written.after_s) {
            (RawWhen::Before, None) => return Some(When::Before),
            (RawWhen::Before, Some(after_s)) => {
                let message = "`after_s` needs `when = \"after\"`".to_owned();
                self.fault(after_s.span(), message, None);
                return None;
            }
            (RawWhen::After, None) => return Some(When::After(AFTER_S.to_vec())),
            (RawWhen::After, Some(after_s)) => after_s,
        };
        let times = after_s.get();
        if let Some(far) = times.iter().find(|time| *time.get() > AFTER_S_MAX) {
            let message = format!("a check is at most {AFTER_S_MAX} s (30 days) after the end");
            self.fault(far.span(), message, None);
            return None;
        }
        let times: BTreeSet<u32> = times.iter().map(|time| *time.get()).collect();
        if times.is_empty() || times.len() > AFTER_MAX {
            let message = format!("a call is checked 1 to {AFTER_MAX} times");
            self.fault(after_s.span(), message, None);
            return None;
        }
        Some(When::After(times.into_iter().collect()))
    }

    fn asked(&mut self, raw: &At<RawValidator>, when: &When) -> Option<Asked> {
        let RawValidator { cel, command, url, env, headers, .. } = raw.get();
        match (cel, command, url) {
            (Some(cel), None, None) => {
                if let Err(fault) = check_expression(cel.get(), when) {
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
