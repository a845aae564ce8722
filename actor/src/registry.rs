//! The actor types and application data of one program.
//!
//! Building never fails on its own, so that it reads as one expression; [`Registry::check`] tells the first thing
//! that was wrong, and whoever starts a node calls it.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::options::OptionsError;
use crate::{Actor, ActorType, TypeOf};

/// Actor types by name, application data by type. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    types: BTreeMap<&'static str, Arc<dyn ActorType>>,
    data: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
    failure: Option<RegistryError>,
}

/// Why a registry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name cannot stand in paths and queries.
    #[error("actor name {name:?} is refused: {reason}")]
    ActorName {
        /// The name.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two actor types with one name.
    #[error("two actor types have the name {name:?}")]
    DuplicateActor {
        /// The name.
        name: &'static str,
    },
    /// Two values of one type.
    #[error("application data of type {type_name} was given twice")]
    DuplicateData {
        /// The Rust type.
        type_name: &'static str,
    },
    /// An action without a name or with one over the limit.
    #[error("actor {actor:?} has an action with the name {action:?}: it must have 1 to 128 bytes")]
    ActionName {
        /// The actor.
        actor: &'static str,
        /// The action.
        action: &'static str,
    },
    /// Two actions with one name.
    #[error("actor {actor:?} has two actions with the name {action:?}")]
    DuplicateAction {
        /// The actor.
        actor: &'static str,
        /// The action.
        action: &'static str,
    },
    /// Options out of range.
    #[error("options of actor {actor:?}: {source}")]
    Options {
        /// The actor.
        actor: &'static str,
        /// Which option, value and bound.
        source: OptionsError,
    },
}

impl Registry {
    /// Without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an actor type.
    #[must_use]
    pub fn actor<A: Actor>(mut self) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        let added = TypeOf::<A>::new().and_then(|actor| {
            if inner.types.contains_key(A::NAME) {
                return Err(RegistryError::DuplicateActor { name: A::NAME });
            }
            inner.types.insert(A::NAME, Arc::new(actor));
            Ok(())
        });
        if let Err(error) = added {
            inner.failure.get_or_insert(error);
        }
        self
    }

    /// Adds a value that every actor can reach by its type: a pool, a client, settings.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        if inner.data.insert(TypeId::of::<T>(), Arc::new(value)).is_some() {
            inner.failure.get_or_insert(RegistryError::DuplicateData {
                type_name: std::any::type_name::<T>(),
            });
        }
        self
    }

    /// Passes a sound registry through.
    ///
    /// # Errors
    /// The first thing that was wrong while it was built.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.0.failure.clone().map_or(Ok(()), Err)
    }

    /// Finds an actor type by its name on the wire.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ActorType>> {
        self.0.types.get(name)
    }

    /// All actor types, by name.
    pub fn types(&self) -> impl Iterator<Item = &Arc<dyn ActorType>> {
        self.0.types.values()
    }

    /// Application data by type; see [`crate::Host::data`].
    pub fn data_of(&self, type_id: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.data.get(&type_id).cloned()
    }
}
