//! The Cedar schema, and the names in it that this crate speaks. Must not build entities.

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};
use holdpoint_types::EffectClass;
use std::error::Error;

/// The types of entities, as Cedar knows them.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) agent: EntityTypeName,
    pub(crate) team: EntityTypeName,
    pub(crate) environment: EntityTypeName,
    pub(crate) surface: EntityTypeName,
    pub(crate) tool: EntityTypeName,
    pub(crate) task: EntityTypeName,
    pub(crate) resource: EntityTypeName,
    /// The one call that a question is about.
    pub(crate) call: EntityUid,
    action: EntityTypeName,
}

// === impl Names ===

impl Names {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            agent: "Agent".parse()?,
            team: "Team".parse()?,
            environment: "Environment".parse()?,
            surface: "Surface".parse()?,
            tool: "Tool".parse()?,
            task: "Task".parse()?,
            resource: "Resource".parse()?,
            call: uid(&"Call".parse()?, "call"),
            action: "Action".parse()?,
        })
    }

    /// The action that stands for a class.
    pub(crate) fn action(&self, class: EffectClass) -> EntityUid {
        uid(&self.action, action_id(class))
    }
}

/// The text of the schema that policies are checked against.
pub fn schema_text() -> &'static str {
    include_str!("schema.cedarschema")
}

/// The checked schema and its names.
///
/// # Errors
/// Never for the schema that ships; the types do not know that.
pub(crate) fn schema() -> Result<(Schema, Names), Box<dyn Error>> {
    let (schema, _warnings) = Schema::from_cedarschema_str(schema_text())?;
    Ok((schema, Names::new()?))
}

/// The id of the action that stands for a class.
pub(crate) fn action_id(class: EffectClass) -> &'static str {
    match class {
        EffectClass::Read => "read",
        EffectClass::Write => "write",
        EffectClass::Destructive => "destroy",
    }
}

/// The entity `id` of type `name`.
pub(crate) fn uid(name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}
