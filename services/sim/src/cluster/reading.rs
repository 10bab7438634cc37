//! Rooms as a replica reads and writes them in the model of the registry.

use headwater_control_core::{IntendedRoom, Plan};
use headwater_model::RoomId;

use super::registry::{Compare, Key, Registry, Value, Write};

/// What was read of a room, all at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) room: Option<IntendedRoom>,
    plan_key: Option<u64>,
    pub(crate) revision: u64,
}

impl Reading {
    /// `None` if the registry is away.
    pub(crate) fn of(registry: &Registry, id: &RoomId) -> Option<Self> {
        let spec = registry.get(&Key::Spec(id.clone())).ok()?;
        let plan = registry.get(&Key::Plan(id.clone())).ok()?;
        let plan_key = plan.as_ref().map(|entry| entry.changed);
        let room = spec.and_then(|entry| {
            let Value::Spec(spec) = entry.value else { return None };
            let mut room = IntendedRoom {
                spec,
                create_revision: entry.created,
                spec_revision: entry.changed,
                plan: None,
                plan_revision: 0,
            };
            room.set_plan(plan.and_then(|entry| match entry.value {
                Value::Plan(plan) => Some((plan, entry.changed)),
                _ => None,
            }));
            Some(room)
        });
        Some(Self { room, plan_key, revision: registry.revision })
    }

    /// Writes a plan in place of the one that was read. `None` if the registry is away,
    /// `Some(None)` if somebody was faster.
    pub(crate) fn write_plan(
        &self,
        registry: &mut Registry,
        id: &RoomId,
        plan: Plan,
        fence: Option<Compare>,
    ) -> Option<Option<u64>> {
        let created = self.room.as_ref()?.create_revision;
        let key = Key::Plan(id.clone());
        let mut when = vec![
            match self.plan_key {
                Some(revision) => Compare::Changed(key.clone(), revision),
                None => Compare::Absent(key.clone()),
            },
            Compare::Created(Key::Spec(id.clone()), created),
        ];
        when.extend(fence);
        registry.commit(&when, vec![Write::Put(key, Value::Plan(plan), None)]).ok()
    }

    pub(super) fn delete(&self, registry: &mut Registry, id: &RoomId, fence: Compare) {
        let Some(room) = &self.room else { return };
        let (spec, plan) = (Key::Spec(id.clone()), Key::Plan(id.clone()));
        let seen = match self.plan_key {
            Some(revision) => Compare::Changed(plan.clone(), revision),
            None => Compare::Absent(plan.clone()),
        };
        let when = [Compare::Changed(spec.clone(), room.spec_revision), seen, fence];
        let _ = registry.commit(&when, vec![Write::Delete(spec), Write::Delete(plan)]);
    }
}
