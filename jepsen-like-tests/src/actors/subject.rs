//! An actor that does most things that a law speaks of.

use std::time::Duration;

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Told};

/// What was put on the list, and where.
#[derive(Debug, Clone, Serialize, Deserialize, clinch::Event)]
#[event(name = "put")]
pub struct Put {
    /// Its place, from 1.
    pub place: i64,
    /// The number.
    pub number: i64,
}

/// A register, a list, a sum, a stamp in state and KV, and schedules.
#[derive(Default, Serialize, Deserialize)]
pub struct Subject {
    value: i64,
    sum: i64,
    list: Vec<i64>,
    stamp: i64,
    /// Of each schedule that fired: its number, when it was due and when it fired, both by the owner's clock in ms.
    fired: Vec<i64>,
}

#[clinch::actor(name = "subject", sleep_after = "2s", action_timeout = "900ms", events(Put))]
impl Subject {
    #[action]
    fn write(&mut self, value: i64) -> Told {
        self.value = value;
        (value, Vec::new())
    }

    /// Answers the value afterwards; a list of one says that it was not as expected, and what it was (R2).
    #[action]
    fn cas(&mut self, from: i64, to: i64) -> Told {
        if self.value != from {
            return (self.value, vec![self.value]);
        }
        self.value = to;
        (to, Vec::new())
    }

    #[action]
    fn get(&self) -> Told {
        (self.value, Vec::new())
    }

    #[action]
    fn append(&mut self, value: i64) -> Told {
        self.list.push(value);
        (self.list.len() as i64, Vec::new())
    }

    #[action]
    fn list(&self) -> Told {
        (self.list.len() as i64, self.list.clone())
    }

    /// As `append`, and tells whoever listens.
    #[action]
    fn tell(&mut self, c: &Ctx<Self>, value: i64) -> Told {
        self.list.push(value);
        let place = self.list.len() as i64;
        c.broadcast(Put { place, number: value });
        (place, Vec::new())
    }

    /// As `append`, and has it appended to another list too, one way.
    #[action]
    fn relay(&mut self, c: &Ctx<Self>, value: i64, to: i64) -> Result<Told> {
        self.list.push(value);
        c.get::<Self>(format!("x{to}")).append(value).send()?;
        Ok((self.list.len() as i64, Vec::new()))
    }

    /// Does everything, and then fails: none of it may ever be seen.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, value: i64) -> Result<Told> {
        self.value = value;
        self.sum += value;
        self.list.push(value);
        self.stamp = value;
        c.kv().put("stamp", &value)?;
        c.me().fire(value, 0).after(Duration::from_millis(1))?;
        c.broadcast(Put {
            place: self.list.len() as i64,
            number: value,
        });
        c.get::<Self>("x0").append(value).send()?;
        Failure::of(value).strike().await
    }

    /// Writes one number in three places (A6).
    #[action]
    fn stamp(&mut self, c: &Ctx<Self>, value: i64) -> Result<Told> {
        self.stamp = value;
        c.kv().put("stamp", &value)?;
        c.kv().put("again", &value)?;
        Ok((value, Vec::new()))
    }

    /// The three places.
    #[action]
    fn stamps(&self, c: &Ctx<Self>) -> Result<Told> {
        let read = |key: &str| Ok::<i64, Error>(c.kv().get::<i64>(key)?.unwrap_or_default());
        Ok((self.stamp, vec![self.stamp, read("stamp")?, read("again")?]))
    }

    /// Fires once, after so many milliseconds.
    #[action]
    fn remind(&mut self, c: &Ctx<Self>, number: i64, after_ms: u64) -> Result<Told> {
        let due = c.now().after(Duration::from_millis(after_ms));
        c.me().fire(number, due.0 as i64).at(due)?;
        Ok((number, Vec::new()))
    }

    #[action]
    fn fire(&mut self, c: &Ctx<Self>, number: i64, due: i64) {
        self.fired.extend([number, due, c.now().0 as i64]);
    }

    /// What fired.
    #[action]
    fn fired(&self) -> Told {
        (self.fired.len() as i64, self.fired.clone())
    }

    #[action]
    fn add(&mut self, by: i64) -> Told {
        self.sum += by;
        (self.sum, Vec::new())
    }

    #[action]
    fn sum(&self) -> Told {
        (self.sum, Vec::new())
    }

    /// The end of this life of the key.
    #[action]
    fn end(&mut self, c: &Ctx<Self>) -> Told {
        c.destroy();
        (self.sum, Vec::new())
    }
}
