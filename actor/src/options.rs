//! Options of an actor type, checked once where the type is registered.

use std::time::Duration;

use clinch_types::limits;

/// When what an actor did is safe, and so what a crash may take back. Set it with
/// `#[clinch::actor(durability = "..")]`.
///
/// Whatever is chosen, KV entries, schedules, queue messages and sends commit before the reply leaves, and the state
/// with them; [`crate::Ctx::save`] asks the same for the state of one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// `"replicated"`: nothing that was answered is ever lost. On disk at a majority before the reply.
    #[default]
    Replicated,
    /// `"may lose 10s"`: the last changes of the state may be lost, up to this time of them. Written that often, and when
    /// the actor sleeps or moves.
    MayLose(Duration),
    /// `"may lose everything"`: the state is a cache. It is never written after creation: sleep, a move and a crash bring
    /// the actor back as it was created.
    MayLoseEverything,
}

/// How actors of one type are run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorOptions {
    /// Longest run of one action. Default: 60 s.
    pub action_timeout: Duration,
    /// Idle time after which the actor sleeps; `None` is never. Default: 30 s.
    pub sleep_after: Option<Duration>,
    /// Calls that may wait for one actor. Default: 1,024.
    pub queue_max: usize,
    /// Largest encoded state, in bytes. Default: 8 MiB.
    pub state_max: usize,
    /// Largest body of a raw HTTP request, in bytes. Default: 20 MiB.
    pub request_body_max: usize,
    /// Largest sum of all KV keys and values of one actor, in bytes. Default: 10 GiB.
    pub kv_max: usize,
    /// What a crash may take back. Default: nothing.
    pub durability: Durability,
    /// Whether calls that come back to an actor that waits for them are admitted when they need no `&mut self`: they see
    /// the state as it was before the waiting turn. Default: no, they fail with `actor.deadlock`.
    pub reentrant: bool,
    /// Longest run of `vars`. Default: 5 s.
    pub vars_timeout: Duration,
    /// How long `run` and spawned work may go on when the actor stops. Default: 15 s.
    pub background_timeout: Duration,
    /// Longest run of `before_connect`, `conn_state`, `on_connect` and `on_websocket` together. Default: 5 s.
    pub connect_timeout: Duration,
    /// Longest run of `on_disconnect`. Default: 5 s.
    pub disconnect_timeout: Duration,
    /// Longest run of `create`. Default: 5 s.
    pub create_timeout: Duration,
    /// Longest run of `on_create`. Default: 5 s.
    pub on_create_timeout: Duration,
    /// Longest run of `on_wake`. Default: 5 s.
    pub on_wake_timeout: Duration,
    /// Longest run of `on_sleep`. Default: 5 s.
    pub on_sleep_timeout: Duration,
    /// Longest run of `on_destroy`. Default: 5 s.
    pub on_destroy_timeout: Duration,
}

impl Default for ActorOptions {
    fn default() -> Self {
        let hook = Duration::from_secs(5);
        Self {
            action_timeout: Duration::from_secs(60),
            sleep_after: Some(Duration::from_secs(30)),
            queue_max: limits::ACTOR_QUEUE_MAX,
            state_max: limits::STATE_MAX,
            request_body_max: limits::HTTP_BODY_MAX,
            kv_max: limits::KV_MAX,
            durability: Durability::default(),
            reentrant: false,
            vars_timeout: hook,
            background_timeout: Duration::from_secs(15),
            connect_timeout: hook,
            disconnect_timeout: hook,
            create_timeout: hook,
            on_create_timeout: hook,
            on_wake_timeout: hook,
            on_sleep_timeout: hook,
            on_destroy_timeout: hook,
        }
    }
}

/// Why options are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A time limit of zero would fail everything.
    #[error("{option} is zero, it must be more")]
    Zero {
        /// Which option.
        option: &'static str,
    },
    /// Outside the range that the formats allow.
    #[error("{option} is {value}, it must be between 1 and {max}")]
    Range {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: usize,
        /// The greatest value allowed.
        max: usize,
    },
}

/// Most calls that an actor type may ask to queue: the queue holds their arguments in memory.
const QUEUE_MAX: usize = 1 << 20;

/// Longest request body that an actor type may ask to be let through: it is streamed, so this bounds time, not memory.
const REQUEST_BODY_MAX: usize = 1 << 40;
/// Most that an actor type may ask to keep in the KV store of one actor.
const KV_MAX: usize = 1 << 40;

impl ActorOptions {
    /// Passes sound options through.
    ///
    /// # Errors
    /// Names the first option that is out of range, its value and its bound.
    pub fn validate(self) -> Result<Self, OptionsError> {
        let times = [
            ("action_timeout", Some(self.action_timeout)),
            ("sleep_after", self.sleep_after),
            ("vars_timeout", Some(self.vars_timeout)),
            ("background_timeout", Some(self.background_timeout)),
            (
                "durability",
                match self.durability {
                    Durability::MayLose(time) => Some(time),
                    Durability::Replicated | Durability::MayLoseEverything => None,
                },
            ),
            ("connect_timeout", Some(self.connect_timeout)),
            ("disconnect_timeout", Some(self.disconnect_timeout)),
            ("create_timeout", Some(self.create_timeout)),
            ("on_create_timeout", Some(self.on_create_timeout)),
            ("on_wake_timeout", Some(self.on_wake_timeout)),
            ("on_sleep_timeout", Some(self.on_sleep_timeout)),
            ("on_destroy_timeout", Some(self.on_destroy_timeout)),
        ];
        for (option, time) in times {
            if time.is_some_and(|time| time.is_zero()) {
                return Err(OptionsError::Zero { option });
            }
        }
        let sizes = [
            ("queue_max", self.queue_max, QUEUE_MAX),
            ("state_max", self.state_max, limits::STATE_MAX),
            ("request_body_max", self.request_body_max, REQUEST_BODY_MAX),
            ("kv_max", self.kv_max, KV_MAX),
        ];
        for (option, value, max) in sizes {
            if value == 0 || value > max {
                return Err(OptionsError::Range { option, value, max });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(ActorOptions::default().validate(), Ok(ActorOptions::default()));
    }

    /// What sets one of the time limits.
    type SetTime = fn(&mut ActorOptions, Duration);
    /// What sets one of the sizes.
    type SetSize = fn(&mut ActorOptions, usize);

    #[test]
    fn every_time_limit_must_be_more_than_nothing() {
        let times: [(&str, SetTime); 12] = [
            ("action_timeout", |o, t| o.action_timeout = t),
            ("sleep_after", |o, t| o.sleep_after = Some(t)),
            ("durability", |o, t| o.durability = Durability::MayLose(t)),
            ("vars_timeout", |o, t| o.vars_timeout = t),
            ("background_timeout", |o, t| o.background_timeout = t),
            ("connect_timeout", |o, t| o.connect_timeout = t),
            ("disconnect_timeout", |o, t| o.disconnect_timeout = t),
            ("create_timeout", |o, t| o.create_timeout = t),
            ("on_create_timeout", |o, t| o.on_create_timeout = t),
            ("on_wake_timeout", |o, t| o.on_wake_timeout = t),
            ("on_sleep_timeout", |o, t| o.on_sleep_timeout = t),
            ("on_destroy_timeout", |o, t| o.on_destroy_timeout = t),
        ];
        for (option, set) in times {
            let mut options = ActorOptions::default();
            set(&mut options, Duration::from_nanos(1));
            assert!(options.clone().validate().is_ok(), "{option}");
            set(&mut options, Duration::ZERO);
            assert_eq!(options.validate(), Err(OptionsError::Zero { option }));
        }
    }

    #[test]
    fn every_size_is_bounded_on_both_sides_and_the_error_names_value_and_bound() {
        let sizes: [(&str, usize, SetSize); 4] = [
            ("queue_max", QUEUE_MAX, |o, n| o.queue_max = n),
            ("state_max", limits::STATE_MAX, |o, n| o.state_max = n),
            ("kv_max", KV_MAX, |o, n| o.kv_max = n),
            ("request_body_max", REQUEST_BODY_MAX, |o, n| {
                o.request_body_max = n
            }),
        ];
        for (option, max, set) in sizes {
            let mut options = ActorOptions::default();
            for good in [1, max] {
                set(&mut options, good);
                assert!(options.clone().validate().is_ok(), "{option} = {good}");
            }
            for value in [0, max + 1] {
                set(&mut options, value);
                let error = options.clone().validate().unwrap_err();
                assert_eq!(error, OptionsError::Range { option, value, max });
                let text = error.to_string();
                assert!(
                    text.contains(&value.to_string()) && text.contains(&max.to_string()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let zero = ActorOptions {
            on_wake_timeout: Duration::ZERO,
            ..ActorOptions::default()
        };
        assert_eq!(
            zero.validate(),
            Err(OptionsError::Zero {
                option: "on_wake_timeout"
            })
        );
        let value = limits::STATE_MAX + 1;
        let big = ActorOptions {
            state_max: value,
            ..ActorOptions::default()
        };
        assert_eq!(
            big.validate(),
            Err(OptionsError::Range {
                option: "state_max",
                value,
                max: limits::STATE_MAX
            })
        );
        let never = ActorOptions {
            sleep_after: None,
            ..ActorOptions::default()
        };
        assert!(never.validate().is_ok());
    }
}
