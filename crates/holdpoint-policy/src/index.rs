//! Which policies can apply to a call, by what their heads fix.
//!
//! Owns the slicing. A policy may be left out of a slice only if its head cannot match: a head that
//! this file does not understand is in every slice. Must never look at conditions.
//!
//! Sound because Cedar evaluates a head before its conditions, an unmatched head cannot fail, and
//! the only ancestors are the ones that a question gives: a team for its agent; an environment, a
//! tool and surfaces for its resource.

use crate::schema::{Names, action_id};
use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicySet as CedarSet, PrincipalConstraint,
    ResourceConstraint,
};
use holdpoint_types::{Aim, EffectClass, Facts, Request, TargetFacts};
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;

/// All policies of a set, in cells by head. Cells hold whole Cedar sets, built once.
#[derive(Debug, Default)]
pub(crate) struct Index {
    anyone: Rows,
    agents: BTreeMap<String, Rows>,
    teams: BTreeMap<String, Rows>,
}

/// The policies of one principal, by action.
type Rows = BTreeMap<EffectClass, Row>;

/// The policies of one principal and action, by resource.
#[derive(Debug, Default)]
struct Row {
    anything: Cell,
    resources: BTreeMap<String, Cell>,
    tools: BTreeMap<String, Cell>,
    environments: BTreeMap<String, Cell>,
    surfaces: BTreeMap<String, Cell>,
}

/// The policies of one principal, action and resource; none without a policy.
type Cell = Option<Box<CedarSet>>;

/// What a head fixes about principal or resource: nothing, or one entity.
type Fixed<'a> = Option<&'a EntityUid>;

// === impl Index ===

impl Index {
    /// Puts every policy into the cells of its head.
    pub(crate) fn build<'a>(
        policies: impl Iterator<Item = &'a Policy>,
        names: &Names,
    ) -> Result<Self, Box<dyn Error>> {
        let mut index = Self::default();
        for policy in policies {
            let (principal, resource) =
                (policy.principal_constraint(), policy.resource_constraint());
            for class in classes(&policy.action_constraint()) {
                let rows = index.rows_for(fixed_principal(&principal), names);
                let cell = rows.entry(class).or_default();
                let cell = cell.cell_for(fixed_resource(&resource), names);
                cell.get_or_insert_default().add(of_row(policy, class)?)?;
            }
        }
        Ok(index)
    }

    fn rows_for(&mut self, principal: Fixed<'_>, names: &Names) -> &mut Rows {
        match principal {
            Some(uid) if *uid.type_name() == names.agent => {
                self.agents.entry(uid.id().unescaped().to_owned()).or_default()
            }
            Some(uid) if *uid.type_name() == names.team => {
                self.teams.entry(uid.id().unescaped().to_owned()).or_default()
            }
            Some(_) | None => &mut self.anyone,
        }
    }

    /// The cells whose policies can apply to the call.
    pub(crate) fn slice<'a>(
        &'a self,
        request: &'a Request,
        (facts, aim): (&'a Facts, &'a Aim<'a>),
        tool_id: &'a str,
    ) -> impl Iterator<Item = &'a CedarSet> {
        let owner = facts.agent.as_ref().and_then(|agent| agent.owner.as_ref());
        let agent = self.agents.get(request.agent.as_str());
        let team = owner.and_then(|owner| self.teams.get(owner.as_str()));
        let rows = [Some(&self.anyone), agent, team].into_iter().flatten();
        let rows = rows.filter_map(move |rows| rows.get(&aim.class));
        rows.flat_map(move |row| row.cells(aim.target, tool_id))
    }
}

// === impl Row ===

impl Row {
    fn cell_for(&mut self, resource: Fixed<'_>, names: &Names) -> &mut Cell {
        let Some(uid) = resource else { return &mut self.anything };
        let kinds = [
            (&names.resource, &mut self.resources),
            (&names.tool, &mut self.tools),
            (&names.environment, &mut self.environments),
            (&names.surface, &mut self.surfaces),
        ];
        let kind = kinds.into_iter().find(|(name, _)| *name == uid.type_name());
        match kind {
            Some((_, cells)) => cells.entry(uid.id().unescaped().to_owned()).or_default(),
            None => &mut self.anything,
        }
    }

    fn cells<'a>(
        &'a self,
        target: &'a TargetFacts,
        tool_id: &'a str,
    ) -> impl Iterator<Item = &'a CedarSet> {
        let single = [
            Some(&self.anything),
            self.resources.get(&target.resource),
            self.tools.get(tool_id),
            self.environments.get(&target.environment),
        ];
        // Most rows fix no surface: then the call's surfaces are not even looked at.
        let named = target.surfaces.iter().filter(|_| !self.surfaces.is_empty());
        let surfaces = named.filter_map(|name| self.surfaces.get(name));
        single.into_iter().flatten().chain(surfaces).flatten().map(|cell| &**cell)
    }
}

fn fixed_principal(constraint: &PrincipalConstraint) -> Fixed<'_> {
    match constraint {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::In(uid)
        | PrincipalConstraint::Eq(uid)
        | PrincipalConstraint::IsIn(_, uid) => Some(uid),
    }
}

fn fixed_resource(constraint: &ResourceConstraint) -> Fixed<'_> {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::In(uid)
        | ResourceConstraint::Eq(uid)
        | ResourceConstraint::IsIn(_, uid) => Some(uid),
    }
}

/// The policy as the row of `class` holds it. Cedar makes a set of a head's actions whenever it is
/// asked; in the row of one of them, that one says the same.
fn of_row(policy: &Policy, class: EffectClass) -> Result<Policy, Box<dyn Error>> {
    match policy.action_constraint() {
        ActionConstraint::Any | ActionConstraint::Eq(_) => Ok(policy.clone()),
        ActionConstraint::In(_) => {
            let mut json = policy.to_json()?;
            let action = json!({ "type": "Action", "id": action_id(class) });
            let head = json.as_object_mut().and_then(|policy| policy.get_mut("action"));
            if let Some(head) = head {
                *head = json!({ "op": "==", "entity": action });
            }
            Ok(Policy::from_json(Some(policy.id().clone()), json)?)
        }
    }
}

/// The classes whose action the head lets through.
fn classes(constraint: &ActionConstraint) -> Vec<EffectClass> {
    let named = |class: &EffectClass, uid: &EntityUid| uid.id().unescaped() == action_id(*class);
    let mut classes = EffectClass::ALL.to_vec();
    match constraint {
        ActionConstraint::Any => {}
        ActionConstraint::Eq(uid) => classes.retain(|class| named(class, uid)),
        ActionConstraint::In(uids) => {
            classes.retain(|class| uids.iter().any(|uid| named(class, uid)));
        }
    }
    classes
}
