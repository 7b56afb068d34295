//! Checks environments and surfaces.

use super::Checker;
use crate::config::raw::{At, RawEnvironment, RawSurface};
use holdpoint_control::{Environment, Surface};

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
}
