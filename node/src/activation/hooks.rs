//! The hooks of an actor's life, run one after the other, each within its time.
//!
//! Not here: when they run (`life`), the hooks of connections (`visits`).

use std::sync::Arc;
use std::time::Duration;

use clinch_actor::{ActorOptions, ActorType, BoxFuture, Error, Hook, StateArc, Turn};
use clinch_types::{code, group};

use super::run::Exclusive;

/// Runs hooks one after the other, after `create` if there is no state yet. `vars` are made before `on_wake`, after what
/// happens once.
pub(crate) async fn start_up(
    actor_type: Arc<dyn ActorType>,
    turn: Arc<Turn>,
    state: Option<StateArc>,
    hooks: &'static [Hook],
) -> Exclusive {
    let options = actor_type.options();
    let mut state = match state {
        Some(state) => state,
        None => {
            let made = actor_type.create(turn.clone(), turn.input.clone());
            match in_time("create", options.create_timeout, made).await {
                Ok(state) => state,
                // There is no state to give back; a failed start drops it anyway.
                Err(error) => return (Arc::new(()) as StateArc, Err(error)),
            }
        }
    };
    for &hook in hooks {
        if hook == Hook::OnWake
            && let Some(vars) = actor_type.vars(state.clone(), turn.clone())
        {
            match in_time("vars", options.vars_timeout, vars).await {
                Ok(vars) => turn.life.set_vars(vars),
                Err(error) => return (state, Err(error)),
            }
        }
        if !actor_type.has_hook(hook) {
            continue;
        }
        let (name, limit) = limit_of(options, hook);
        let ran = actor_type.hook(hook, state, turn.clone());
        let Ok((next, result)) = tokio::time::timeout(limit, ran).await else {
            return (Arc::new(()) as StateArc, Err(hook_timed_out(name, limit)));
        };
        state = next;
        if let Err(error) = result {
            return (state, Err(error));
        }
    }
    (state, Ok(Vec::new()))
}

/// A hook's name and time limit.
fn limit_of(options: &ActorOptions, hook: Hook) -> (&'static str, Duration) {
    match hook {
        Hook::OnCreate => ("on_create", options.on_create_timeout),
        Hook::OnWake => ("on_wake", options.on_wake_timeout),
        Hook::OnSleep => ("on_sleep", options.on_sleep_timeout),
        Hook::OnDestroy => ("on_destroy", options.on_destroy_timeout),
    }
}

pub(crate) async fn in_time<T>(
    name: &str,
    limit: Duration,
    hook: BoxFuture<'static, Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, hook).await {
        Ok(result) => result,
        Err(_) => Err(hook_timed_out(name, limit)),
    }
}

fn hook_timed_out(name: &str, limit: Duration) -> Error {
    let message = format!(
        "the hook `{name}` ran longer than its limit of {} ms",
        limit.as_millis()
    );
    Error::new(group::ACTOR, code::HOOK_TIMED_OUT, message)
}
