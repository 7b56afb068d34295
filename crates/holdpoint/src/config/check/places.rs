//! Checks environments, surfaces and freezes.

use super::Checker;
use crate::config::raw::{At, RawEnvironment, RawFreeze, RawSurface, RawTime};
use holdpoint_control::{Environment, Freeze, Surface};
use holdpoint_types::Timestamp;
use std::collections::BTreeSet;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn environments(&mut self, raw: &[At<RawEnvironment>]) -> Vec<Environment> {
        let mut environments = Vec::new();
        for environment in raw {
            let span = environment.span();
            let RawEnvironment { name, resources, servers } = environment.get();
            let name = self.word("environment", &span, name.as_ref());
            let resources = self.resource_patterns(resources);
            let servers =
                servers.iter().filter_map(|name| self.reference("server", name)).collect();
            environments.extend(name.map(|name| Environment { name, resources, servers }));
        }
        environments
    }

    pub(super) fn surfaces(&mut self, raw: &[At<RawSurface>]) -> Vec<Surface> {
        let mut surfaces = Vec::new();
        for surface in raw {
            let span = surface.span();
            let RawSurface { name, resources, tools } = surface.get();
            let empty = resources.is_empty() && tools.is_empty();
            let taken = ["resources", "tools"].iter().any(|key| self.dropped.has(span.start, key));
            if empty && !taken {
                let message = "this surface matches nothing".to_owned();
                self.warn(span.clone(), message, "add `resources` or `tools`".to_owned());
            }
            let name = self.word("surface", &span, name.as_ref());
            let resources = self.resource_patterns(resources);
            let patterns = self.tool_patterns(tools);
            for (text, pattern) in tools.iter().zip(&patterns) {
                if text.get() == pattern.as_str() {
                    self.warn_of_unknown_server(text, pattern);
                }
            }
            surfaces.extend(name.map(|name| Surface { name, resources, tools: patterns }));
        }
        surfaces
    }

    pub(super) fn freezes(&mut self, raw: &[At<RawFreeze>]) -> Vec<Freeze> {
        let mut freezes = Vec::new();
        let mut names = BTreeSet::new();
        for freeze in raw {
            if let Some(name) = freeze.get().name.as_ref()
                && !names.insert(name.get().clone())
            {
                let message = format!("the freeze `{}` is declared twice", name.get());
                self.fault(name.span(), message, "give each freeze its own name".to_owned());
            }
            freezes.extend(self.freeze(freeze));
        }
        freezes
    }

    fn freeze(&mut self, raw: &At<RawFreeze>) -> Option<Freeze> {
        let span = raw.span();
        let RawFreeze { name, from, until } = raw.get();
        for (key, time) in [("from", from), ("until", until)] {
            if time.is_none() {
                self.missing(&span, key, "2026-12-18T00:00:00Z");
            }
        }
        let name = self.word("freeze", &span, name.as_ref());
        let begin = from.as_ref().and_then(|time| self.time(time));
        let end = until.as_ref().and_then(|time| self.time(time));
        let (begin, end) = (begin?, end?);
        if end <= begin {
            let place = until.as_ref().map(At::span);
            let message = "`until` must be later than `from`".to_owned();
            self.fault(place, message, "swap the two, or correct the year".to_owned());
            return None;
        }
        Freeze::new(name?, begin, end).ok()
    }

    fn time(&mut self, time: &At<RawTime>) -> Option<Timestamp> {
        let written = time.get().0.to_string();
        if let Ok(parsed) = written.parse::<jiff::Timestamp>() {
            return Some(Timestamp(parsed.as_millisecond()));
        }
        let message = format!("`{written}` is not one point in time");
        let suggestion = "write date, time and offset: 2026-12-18T00:00:00Z".to_owned();
        self.fault(time.span(), message, suggestion);
        None
    }
}
