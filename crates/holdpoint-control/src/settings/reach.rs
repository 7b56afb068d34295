//! What the operator's settings say of targets that are only patterns yet: which surfaces they may
//! touch, and whether calls of a tool can be aimed at them. Must not decide.

use super::{ResourcePattern, ResourceSet, Settings, Surface, ToolSet};
use holdpoint_types::ToolRef;
use std::collections::BTreeMap;

/// Where calls of a tool can be aimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aimed {
    /// At whatever its analysis says.
    ByEffects,
    /// At resources with this scheme.
    Scheme(String),
    /// At this one resource, because nobody says how its parameters name another.
    Tool(String),
}

/// Whether calls touch a surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Some may.
    Perhaps,
    /// They do.
    Surely,
}

// === impl Settings ===

impl Settings {
    /// The surfaces that calls of `tool` touch if they are aimed at one of `targets`.
    pub fn surfaces_of(
        &self,
        tool: &ToolRef,
        targets: &[ResourcePattern],
    ) -> BTreeMap<String, Touch> {
        let touch = |surface: &Surface| {
            // What cannot be compiled may mean anything.
            let by_tool = ToolSet::new(&surface.tools).map_or(true, |set| set.contains(tool));
            let inside = ResourceSet::new(&surface.resources).map_or(true, |set| {
                // A pattern whose very signs fit lies on the surface with all that it matches.
                targets.iter().any(|target| set.contains(target.as_str()))
            });
            if by_tool || inside {
                return Some(Touch::Surely);
            }
            let meets = |one: &ResourcePattern| targets.iter().any(|two| one.overlaps(two));
            surface.resources.iter().any(meets).then_some(Touch::Perhaps)
        };
        let surfaces = self.parts.surfaces.iter();
        surfaces.filter_map(|one| Some((one.name.clone(), touch(one)?))).collect()
    }

    /// Where calls of `tool` can be aimed.
    pub fn aimed(&self, tool: &ToolRef) -> Aimed {
        if self.analyses(tool) {
            return Aimed::ByEffects;
        }
        let rules = self.parts.servers.get(tool.server());
        let rules = rules.and_then(|rules| rules.tools.get(tool.name()));
        let template = rules.and_then(|rules| rules.resource.as_ref());
        match template {
            Some(template) => Aimed::Scheme(template.scheme().to_owned()),
            None => {
                Aimed::Tool(super::normalise(&format!("mcp://{}/{}", tool.server(), tool.name())))
            }
        }
    }
}
