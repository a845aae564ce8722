//! How much one connection and one address may ask for: connections open at a time, and requests a second.
//!
//! Invariant: an address is remembered only while it has connections or has used its rate up, so the table is bounded by
//! the connections. Addresses of IPv6 count by their first 64 bits: whoever has one has all of those.
//! Not here: limits of the whole node (`service`, `server`), and of an address towards one actor (`shares`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use clinch_types::ActorId;
use tokio::time::Instant;

use crate::address::Who;
use crate::config::GatewayConfig;
use crate::shares::{Asking, Shares};

/// Tokens that come back at a steady rate; as many as come in a second may be taken at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second: per_second.into(),
            tokens: per_second.into(),
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        self.filled = now;
    }

    /// `Err` says how long it takes until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), std::time::Duration> {
        self.check(now)?;
        self.spend();
        Ok(())
    }

    /// As [`Bucket::take`], and takes nothing.
    fn check(&mut self, now: Instant) -> Result<(), std::time::Duration> {
        self.fill(now);
        if self.tokens >= 1.0 {
            return Ok(());
        }
        Err(std::time::Duration::from_secs_f64(
            (1.0 - self.tokens) / self.per_second,
        ))
    }

    /// Takes one that is there.
    fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.per_second
    }
}

#[derive(Debug)]
struct Address {
    connections: usize,
    bucket: Bucket,
}

/// What all connections of a gateway share about who has them. Limits that are 0 do not hold.
#[derive(Debug)]
pub(crate) struct Visitors {
    connections_max: usize,
    connection_rate: u32,
    address_rate: u32,
    /// Limits of an address towards one actor; `None` when there are none.
    shares: Option<Arc<Shares>>,
    table: std::sync::Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<IpAddr, Address>,
    /// The table is swept when it has this many.
    sweep_at: usize,
}

/// Size of the table from which on it is swept.
pub(crate) const SWEEP_MIN: usize = 1024;

/// Why a request is too many.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    /// The setting that says so.
    pub(crate) setting: &'static str,
    pub(crate) limit: u32,
    /// When there is room again; `None` for as soon as a request has ended.
    pub(crate) after: Option<std::time::Duration>,
}

impl Visitors {
    pub(crate) fn new(config: &GatewayConfig) -> Arc<Self> {
        Arc::new(Self {
            connections_max: config.max_connections_per_address,
            connection_rate: config.max_requests_per_second_per_connection,
            address_rate: config.max_requests_per_second_per_address,
            shares: Shares::new(config),
            table: std::sync::Mutex::new(Table {
                sweep_at: SWEEP_MIN,
                ..Table::default()
            }),
        })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Nothing in here panics while it is held.
        self.table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets a connection in; `None` when its address has as many as it may have.
    pub(crate) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Visitor> {
        let now = Instant::now();
        let ip = counted(ip);
        if self.connections_max > 0 || self.address_rate > 0 {
            let mut table = self.table();
            table.sweep(now);
            let rate = self.address_rate;
            let address = table.addresses.entry(ip).or_insert_with(|| Address {
                connections: 0,
                bucket: Bucket::new(rate, now),
            });
            if self.connections_max > 0 && address.connections >= self.connections_max {
                return None;
            }
            address.connections += 1;
        }
        let bucket = (self.connection_rate > 0).then(|| Bucket::new(self.connection_rate, now));
        Some(Visitor(Arc::new(Seat {
            visitors: self.clone(),
            ip,
            bucket: std::sync::Mutex::new(bucket),
        })))
    }
}

impl Table {
    /// Forgets addresses that nothing has to be remembered of. Seldom: the table doubles between two sweeps.
    fn sweep(&mut self, now: Instant) {
        if self.addresses.len() < self.sweep_at {
            return;
        }
        self.addresses
            .retain(|_, address| address.connections > 0 || !address.bucket.is_full(now));
        self.sweep_at = (self.addresses.len() * 2).max(SWEEP_MIN);
    }
}

fn counted(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// One connection, as its limits see it.
#[derive(Debug, Clone)]
pub(crate) struct Visitor(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    visitors: Arc<Visitors>,
    ip: IpAddr,
    bucket: std::sync::Mutex<Option<Bucket>>,
}

impl Visitor {
    /// One without limits.
    pub(crate) fn unlimited() -> Self {
        Self(Arc::new(Seat {
            visitors: Visitors::new(&GatewayConfig::default()),
            ip: IpAddr::from([127, 0, 0, 1]),
            bucket: std::sync::Mutex::new(None),
        }))
    }

    /// Whether requests have limits at all: without any nothing has to be asked for each of them.
    pub(crate) fn is_limited(&self) -> bool {
        let visitors = &self.0.visitors;
        visitors.connection_rate > 0 || visitors.address_rate > 0 || visitors.shares.is_some()
    }

    /// Takes one request from the rates of the connection and of its address, or from neither.
    ///
    /// # Errors
    /// The limit that has been reached.
    pub(crate) fn take(&self) -> Result<(), Refused> {
        let now = Instant::now();
        let visitors = &self.0.visitors;
        let mut bucket = self
            .0
            .bucket
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bucket) = bucket.as_mut() {
            bucket.check(now).map_err(|after| Refused {
                setting: "max-requests-per-second-per-connection",
                limit: visitors.connection_rate,
                after: Some(after),
            })?;
        }
        if visitors.address_rate > 0
            && let Some(address) = visitors.table().addresses.get_mut(&self.0.ip)
        {
            address.bucket.take(now).map_err(|after| Refused {
                setting: "max-requests-per-second-per-address",
                limit: visitors.address_rate,
                after: Some(after),
            })?;
        }
        if let Some(bucket) = bucket.as_mut() {
            bucket.spend();
        }
        Ok(())
    }

    /// Takes a request to this actor from what the address may ask of it. Where there is no such limit there is nothing to hold.
    ///
    /// # Errors
    /// The limit that has been reached.
    pub(crate) fn ask(&self, who: &Who) -> Result<Option<Asking>, Refused> {
        let shares = self.0.visitors.shares.as_ref();
        shares.map(|shares| shares.begin(self.0.ip, who)).transpose()
    }

    /// Takes a frame to this actor from the same rate.
    ///
    /// # Errors
    /// The limit that has been reached.
    pub(crate) fn frame(&self, actor: ActorId) -> Result<(), Refused> {
        match &self.0.visitors.shares {
            Some(shares) => shares.frame(self.0.ip, actor),
            None => Ok(()),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(address) = self.visitors.table().addresses.get_mut(&self.ip) {
            address.connections = address.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn visitors(config: GatewayConfig) -> Arc<Visitors> {
        Visitors::new(&config)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_connections_and_no_more_until_one_ends() {
        let all = visitors(GatewayConfig {
            max_connections_per_address: 2,
            ..GatewayConfig::default()
        });
        let first = all.enter(ip("10.0.0.1")).unwrap();
        let _second = all.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert!(all.enter(ip("10.0.0.1")).is_none());
        assert!(all.enter(ip("10.0.0.2")).is_some());
        drop(first);
        assert!(all.enter(ip("10.0.0.1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_of_version_6_are_one() {
        let all = visitors(GatewayConfig {
            max_connections_per_address: 1,
            ..GatewayConfig::default()
        });
        let _one = all.enter(ip("2001:db8:1:2::1")).unwrap();
        assert!(all.enter(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(all.enter(ip("2001:db8:1:3::1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_refused_beyond_a_second_s_worth_and_comes_back_with_time() {
        let all = visitors(GatewayConfig {
            max_requests_per_second_per_address: 10,
            max_requests_per_second_per_connection: 8,
            ..GatewayConfig::default()
        });
        let (one, other) = (
            all.enter(ip("10.0.0.1")).unwrap(),
            all.enter(ip("10.0.0.1")).unwrap(),
        );
        for _ in 0..8 {
            one.take().unwrap();
        }
        assert_eq!(
            one.take().unwrap_err().setting,
            "max-requests-per-second-per-connection"
        );
        other.take().unwrap();
        other.take().unwrap();
        let refused = other.take().unwrap_err();
        assert_eq!(
            (refused.setting, refused.limit),
            ("max-requests-per-second-per-address", 10)
        );
        // A new connection does not bring a new rate for its address.
        drop((one, other));
        let again = all.enter(ip("10.0.0.1")).unwrap();
        assert!(again.take().is_err());
        tokio::time::advance(refused.after.unwrap() + Duration::from_millis(1)).await;
        again.take().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_for_its_address_costs_its_connection_nothing() {
        let all = visitors(GatewayConfig {
            max_requests_per_second_per_address: 1,
            max_requests_per_second_per_connection: 3,
            ..GatewayConfig::default()
        });
        let one = all.enter(ip("10.0.0.1")).unwrap();
        one.take().unwrap();
        for _ in 0..5 {
            let refused = one.take().unwrap_err();
            assert_eq!(refused.setting, "max-requests-per-second-per-address");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_came_once_are_forgotten() {
        let all = visitors(GatewayConfig {
            max_requests_per_second_per_address: 1,
            ..GatewayConfig::default()
        });
        for n in 0..5 * SWEEP_MIN as u32 {
            drop(all.enter(IpAddr::from(n.to_be_bytes())).unwrap());
        }
        assert!(all.table().addresses.len() <= SWEEP_MIN);
    }
}
