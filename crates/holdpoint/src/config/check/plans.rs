//! Checks what the operator says about plans.

use super::Checker;
use crate::config::raw::{RawAccept, RawConfig};
use holdpoint_control::plan::{PlanAccept, PlanRules};
use holdpoint_types::PlanBudget;

/// The longest that a plan can be allowed to last, in seconds.
const MONTH_S: u64 = 30 * 24 * 60 * 60;
/// How long a plan may last unless said otherwise, in seconds.
const DAY_S: u64 = 24 * 60 * 60;
/// The most of anything that plans can be allowed to touch: a number that every reader keeps.
const MOST: u64 = 1 << 53;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn plans(&mut self, raw: &RawConfig) -> Option<PlanRules> {
        let plans = raw.plans.as_ref()?.get();
        let expires = self.within(plans.expires_s_max.as_ref(), 1..=MONTH_S, DAY_S);
        let rows = self.within(plans.rows_max.as_ref(), 0..=MOST, 10_000);
        let files = self.within(plans.files_max.as_ref(), 0..=MOST, 1000);
        let resources = self.within(plans.resources_max.as_ref(), 0..=MOST, 1000);
        let declared = raw.surface.iter().filter_map(|one| one.get().name.as_ref());
        let known = declared.map(|name| name.get().as_str()).collect();
        Some(PlanRules {
            accept: match plans.accept {
                Some(RawAccept::Checker) => PlanAccept::Checker,
                Some(RawAccept::Operator) | None => PlanAccept::Operator,
            },
            expires_s_max: u32::try_from(expires).unwrap_or(u32::MAX),
            budget_max: PlanBudget {
                rows: Some(rows),
                files: Some(files),
                resources: Some(resources),
            },
            forbidden_surfaces: self.known_names("surface", &plans.forbidden_surfaces, &known),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Colour;
    use holdpoint_control::plan::{PlanAccept, PlanRules};
    use std::path::Path;

    fn rules(text: &str) -> Result<Option<PlanRules>, String> {
        let file = Path::new("/hp/holdpoint.toml");
        let (config, report) = crate::config::check("holdpoint.toml", file, text);
        let plans = |config: crate::config::Config| config.settings.parts().plans.clone();
        config.map(plans).ok_or_else(|| report.render(Colour::Never))
    }

    #[test]
    fn who_says_nothing_of_plans_has_none() {
        assert_eq!(rules(""), Ok(None));
        let usual = rules("[plans]").unwrap().unwrap();
        assert_eq!((usual.accept, usual.expires_s_max), (PlanAccept::Operator, 86_400));
        let surface = "[[surface]]\nname = \"auth\"\ntools = [\"*\"]\n";
        let said = "[plans]\naccept = \"checker\"\nrows_max = 0\nforbidden_surfaces = [\"auth\"]\n";
        let said = rules(&format!("{said}{surface}")).unwrap().unwrap();
        assert_eq!((said.accept, said.budget_max.rows), (PlanAccept::Checker, Some(0)));
        assert!(said.forbidden_surfaces.contains("auth"));
    }

    #[test]
    fn what_plans_cannot_be_allowed_is_a_fault() {
        for (text, expected) in [
            ("expires_s_max = 2592001", "is not within 1 and 2592000"),
            ("forbidden_surfaces = [\"auth\"]", "the surface `auth` is not declared"),
            ("accept = \"agent\"", "`agent` is not possible here"),
        ] {
            let fault = rules(&format!("[plans]\n{text}\n")).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
