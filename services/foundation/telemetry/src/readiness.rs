//! Readiness as named conditions: a process is ready when all of them hold and
//! nobody has begun to stop it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// All the conditions of a process. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
    scope: String,
}

#[derive(Debug, Default)]
struct State {
    /// Conditions by name; an absent reason means that it holds.
    conditions: BTreeMap<String, Option<String>>,
    stopping: bool,
}

impl Readiness {
    /// No condition: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same conditions, but those named through this handle begin with
    /// `scope.`: several roles of one process stay apart.
    #[must_use]
    pub fn scoped(&self, scope: &str) -> Self {
        Self { state: self.state.clone(), scope: format!("{}{scope}.", self.scope) }
    }

    /// Names a condition, which does not hold yet. The same name gives the same
    /// condition, as it is. It stays for the life of the process.
    #[must_use]
    pub fn condition(&self, name: &str) -> Condition {
        let name = format!("{}{name}", self.scope);
        self.with(|state| {
            state.conditions.entry(name.clone()).or_insert_with(|| Some("not yet".to_owned()));
        });
        Condition { readiness: self.clone(), name }
    }

    /// From now on the process is not ready, whatever the conditions say.
    pub fn stop(&self) {
        self.with(|state| state.stopping = true);
    }

    /// What does not hold, with reasons, by name. Empty means ready.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<String, String> {
        self.with(|state| {
            let mut missing: BTreeMap<String, String> = state
                .conditions
                .iter()
                .filter_map(|(name, reason)| Some((name.clone(), reason.clone()?)))
                .collect();
            if state.stopping {
                missing.insert("stopping".to_owned(), "the process was told to stop".to_owned());
            }
            missing
        })
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|state| !state.stopping && state.conditions.values().all(Option::is_none))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Nothing that runs under the lock can leave it half changed.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One condition. Clones share it.
#[derive(Clone)]
pub struct Condition {
    readiness: Readiness,
    name: String,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.name)
    }
}

impl Condition {
    /// It holds.
    pub fn hold(&self) {
        self.set(None);
    }

    /// It does not hold; the reason is shown by `/readyz`.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.readiness.with(|state| state.conditions.get(&self.name) == Some(&None))
    }

    fn set(&self, reason: Option<String>) {
        let before = self
            .readiness
            .with(|state| state.conditions.insert(self.name.clone(), reason.clone()).flatten());
        match (before, reason) {
            (Some(_), None) => {
                tracing::info!(condition = %self.name, "a condition of readiness holds")
            }
            (None, Some(reason)) => {
                tracing::warn!(condition = %self.name, %reason, "a condition of readiness is gone");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_named_condition_holds() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let registry = readiness.scoped("gateway").condition("registry");
        let plan = readiness.condition("plan");
        plan.hold();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing().into_keys().collect::<Vec<_>>(), ["gateway.registry"]);
        registry.hold();
        assert!(readiness.is_ready());
        registry.fail("lost");
        assert_eq!(readiness.missing()["gateway.registry"], "lost");
    }

    #[test]
    fn the_same_name_is_the_same_condition() {
        let readiness = Readiness::new();
        readiness.condition("a").hold();
        assert!(readiness.condition("a").holds());
    }

    #[test]
    fn a_stopping_process_is_not_ready() {
        let readiness = Readiness::new();
        readiness.stop();
        assert!(!readiness.is_ready());
        assert!(readiness.missing().contains_key("stopping"));
    }
}
