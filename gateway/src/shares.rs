//! How much one address may ask of one actor: requests a second, and requests in flight.
//!
//! Invariant: a share is remembered only while something of it is in flight or its rate is used in part, and a rate is whole
//! again after a second: the table is bounded by what is in flight and by the requests of a second.
//! An actor counts under its id. One that is asked for by key is known by its id from the first answer that tells it;
//! until then, and for a moment after the actor of a key was replaced, the two names have a share each.
//! Not here: limits of an address towards all actors together (`visitors`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clinch_types::{ActorId, hash_128};
use http::Extensions;
use tokio::time::Instant;

use crate::address::Who;
use crate::config::GatewayConfig;
use crate::visitors::{Bucket, Refused, SWEEP_MIN};

/// Ids of keys that are known. With more all are forgotten, which costs each of them one share too many, for a second.
const IDS_MAX: usize = 65_536;

/// What all connections of a gateway share about who asks which actor. Limits that are 0 do not hold.
#[derive(Debug)]
pub(crate) struct Shares {
    rate: u32,
    in_flight_max: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    shares: HashMap<(IpAddr, Asked), Share>,
    /// The table is swept when it has this many.
    sweep_at: usize,
    /// The ids of actors that were asked for by key, under the hash of the key.
    ids: HashMap<u128, ActorId>,
}

/// An actor as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    Id(ActorId),
    Key(u128),
}

/// What one address has of one actor.
#[derive(Debug)]
struct Share {
    in_flight: u32,
    bucket: Bucket,
}

impl Shares {
    /// `None` when there are no such limits.
    pub(crate) fn new(config: &GatewayConfig) -> Option<Arc<Self>> {
        let (rate, in_flight_max) = (
            config.max_requests_per_second_per_actor,
            config.max_in_flight_per_actor,
        );
        let table = Table {
            sweep_at: SWEEP_MIN,
            ..Table::default()
        };
        (rate > 0 || in_flight_max > 0).then(|| {
            Arc::new(Self {
                rate,
                in_flight_max,
                table: Mutex::new(table),
            })
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one request of an address to an actor begin.
    ///
    /// # Errors
    /// The limit that has been reached; then nothing has been taken.
    pub(crate) fn begin(self: &Arc<Self>, ip: IpAddr, who: &Who) -> Result<Asking, Refused> {
        let now = Instant::now();
        let mut table = self.table();
        let (asked, key) = match who {
            Who::Id(id) => (Asked::Id(*id), None),
            Who::Key {
                namespace, name, key, ..
            } => {
                let mut parts: Vec<&[u8]> = vec![namespace.as_bytes(), name.as_bytes()];
                parts.extend(key.components().iter().map(|part| part.as_bytes()));
                let hash = hash_128(&parts);
                let asked = table.ids.get(&hash).map_or(Asked::Key(hash), |id| Asked::Id(*id));
                (asked, Some(hash))
            }
        };
        let share = table.share((ip, asked), self.rate, now);
        if self.in_flight_max > 0 && share.in_flight >= self.in_flight_max {
            return Err(Refused {
                setting: "max-in-flight-per-actor",
                limit: self.in_flight_max,
                after: None,
            });
        }
        self.pay(share, now)?;
        share.in_flight += 1;
        Ok(Asking(Arc::new(Place {
            shares: self.clone(),
            name: (ip, asked),
            key,
        })))
    }

    /// Takes one frame of a connection from the rate.
    ///
    /// # Errors
    /// The limit that has been reached.
    pub(crate) fn frame(&self, ip: IpAddr, actor: ActorId) -> Result<(), Refused> {
        let now = Instant::now();
        let mut table = self.table();
        self.pay(table.share((ip, Asked::Id(actor)), self.rate, now), now)
    }

    fn pay(&self, share: &mut Share, now: Instant) -> Result<(), Refused> {
        if self.rate == 0 {
            return Ok(());
        }
        share.bucket.take(now).map_err(|after| Refused {
            setting: "max-requests-per-second-per-actor",
            limit: self.rate,
            after: Some(after),
        })
    }
}

impl Table {
    fn share(&mut self, name: (IpAddr, Asked), rate: u32, now: Instant) -> &mut Share {
        // Seldom: the table doubles between two sweeps.
        if self.shares.len() >= self.sweep_at {
            self.shares
                .retain(|_, share| share.in_flight > 0 || !share.bucket.is_full(now));
            self.sweep_at = (self.shares.len() * 2).max(SWEEP_MIN);
        }
        self.shares.entry(name).or_insert_with(|| Share {
            in_flight: 0,
            bucket: Bucket::new(rate, now),
        })
    }
}

/// One request to one actor; its place is given back with the last copy of this.
#[derive(Debug, Clone)]
pub(crate) struct Asking(Arc<Place>);

#[derive(Debug)]
struct Place {
    shares: Arc<Shares>,
    name: (IpAddr, Asked),
    /// The hash of the key that it was asked for by.
    key: Option<u128>,
}

impl Asking {
    /// The actor turned out to be this one.
    pub(crate) fn was_for(&self, actor: ActorId) {
        let Some(key) = self.0.key.filter(|_| self.0.name.1 != Asked::Id(actor)) else {
            return;
        };
        let mut table = self.0.shares.table();
        let ids = &mut table.ids;
        if ids.len() >= IDS_MAX && !ids.contains_key(&key) {
            ids.clear();
        }
        ids.insert(key, actor);
    }
}

/// The actor of the request with these extensions turned out to be this one.
pub(crate) fn was_for(extensions: &Extensions, actor: ActorId) {
    if let Some(asking) = extensions.get::<Asking>() {
        asking.was_for(actor);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shares.table();
        if let Some(share) = table.shares.get_mut(&self.name) {
            share.in_flight = share.in_flight.saturating_sub(1);
            if share.in_flight == 0 && share.bucket.is_full(Instant::now()) {
                table.shares.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clinch_types::{Key, RegionId, Slot};

    use super::*;

    fn shares(rate: u32, in_flight: u32) -> Arc<Shares> {
        Shares::new(&GatewayConfig {
            max_requests_per_second_per_actor: rate,
            max_in_flight_per_actor: in_flight,
            ..GatewayConfig::default()
        })
        .unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn id(number: u128) -> ActorId {
        ActorId::new(RegionId(0), Slot(1), number)
    }

    fn by_key(key: &str) -> Who {
        Who::Key {
            namespace: "default".into(),
            name: "counter".into(),
            key: Key::new([key]).unwrap(),
            create: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_its_rate_of_one_actor_and_more_comes_back_with_time() {
        let shares = shares(3, 0);
        let (here, actor) = (ip("10.0.0.1"), Who::Id(id(1)));
        for _ in 0..3 {
            shares.begin(here, &actor).unwrap();
        }
        let refused = shares.begin(here, &actor).unwrap_err();
        assert_eq!(
            (refused.setting, refused.limit),
            ("max-requests-per-second-per-actor", 3)
        );
        shares.begin(here, &Who::Id(id(2))).unwrap();
        shares.begin(ip("10.0.0.2"), &actor).unwrap();
        // Frames of a connection are of the same rate.
        let after = shares.frame(here, id(1)).unwrap_err().after.unwrap();
        tokio::time::advance(after - Duration::from_millis(1)).await;
        assert!(shares.begin(here, &actor).is_err());
        tokio::time::advance(Duration::from_millis(2)).await;
        shares.frame(here, id(1)).unwrap();
        assert!(shares.begin(here, &actor).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_its_places_at_one_actor_and_each_is_given_back_once() {
        let shares = shares(0, 2);
        let (here, actor) = (ip("10.0.0.1"), Who::Id(id(1)));
        let first = shares.begin(here, &actor).unwrap();
        let second = shares.begin(here, &actor).unwrap();
        let refused = shares.begin(here, &actor).unwrap_err();
        assert_eq!(
            refused,
            Refused {
                setting: "max-in-flight-per-actor",
                limit: 2,
                after: None
            }
        );
        shares.begin(here, &Who::Id(id(2))).unwrap();
        shares.begin(ip("10.0.0.2"), &actor).unwrap();
        // A copy keeps the place.
        let copy = first.clone();
        drop(first);
        assert!(shares.begin(here, &actor).is_err());
        drop(copy);
        let third = shares.begin(here, &actor).unwrap();
        assert!(shares.begin(here, &actor).is_err());
        drop((second, third));
        assert!(shares.table().shares.is_empty(), "nothing is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_asked_for_by_key_is_the_one_of_its_id_once_an_answer_has_told_it() {
        let shares = shares(2, 0);
        let here = ip("10.0.0.1");
        let told = shares.begin(here, &by_key("a")).unwrap();
        told.was_for(id(1));
        shares.begin(here, &by_key("a")).unwrap();
        shares.begin(here, &Who::Id(id(1))).unwrap();
        assert!(shares.begin(here, &Who::Id(id(1))).is_err());
        assert!(shares.begin(here, &by_key("a")).is_err());
        shares.begin(here, &by_key("b")).unwrap();
        // Another actor has the key now.
        told.was_for(id(2));
        shares.begin(here, &by_key("a")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_a_place_costs_nothing_of_the_rate() {
        let shares = shares(2, 1);
        let (here, actor) = (ip("10.0.0.1"), Who::Id(id(1)));
        let held = shares.begin(here, &actor).unwrap();
        for _ in 0..5 {
            let refused = shares.begin(here, &actor).unwrap_err();
            assert_eq!(refused.setting, "max-in-flight-per-actor");
        }
        drop(held);
        shares.begin(here, &actor).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn shares_that_were_used_once_are_forgotten_and_so_are_ids() {
        let shares = shares(1, 0);
        for n in 0..20 * SWEEP_MIN as u128 {
            drop(shares.begin(ip("10.0.0.1"), &Who::Id(id(n))).unwrap());
            // A thousand requests a second.
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(shares.table().shares.len() <= 2 * SWEEP_MIN);
        for n in 0..IDS_MAX + 2 {
            let told = shares.begin(ip("10.0.0.1"), &by_key(&n.to_string())).unwrap();
            told.was_for(id(n as u128));
        }
        assert!(shares.table().ids.len() <= IDS_MAX);
    }
}
