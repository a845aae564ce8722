//! An actor that looks at what it does.

use clinch_actor::{Any, Ctx, Error, Event};
use serde::{Deserialize, Serialize};

/// Tells every change, and wraps what it answers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hooks {
    value: Any,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            value: Any(ciborium::Value::from(0)),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Value {
    value: Any,
}

#[derive(Event)]
#[event(name = "stateChanged", crate = "clinch_actor")]
struct StateChanged(Value);

#[derive(Serialize)]
struct Wrapped {
    wrapped: Any,
    action: String,
    argc: usize,
}

#[clinch_actor::actor(name = "hooks", events(StateChanged), crate = "clinch_actor")]
impl Hooks {
    #[hook]
    fn on_state_change(&self, c: &Ctx<Self>) {
        let value = self.value.clone();
        c.broadcast(StateChanged(Value { value }));
    }

    #[hook]
    fn before_action_response(&self, c: &Ctx<Self>, action: &str, output: Any) -> Result<Any, Error> {
        if action == "plain" {
            return Ok(output);
        }
        let wrapped = Wrapped {
            wrapped: output,
            action: action.to_owned(),
            argc: c.argument_count(),
        };
        clinch_actor::decode("the wrapped result", &clinch_actor::encode(&wrapped)?)
    }

    #[action]
    fn set_value(&mut self, value: Any) -> Any {
        self.value = value.clone();
        value
    }

    #[action]
    fn plain(&self) -> Any {
        self.value.clone()
    }
}
