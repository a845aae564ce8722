//! The network: which packets arrive where, and when.
//!
//! Invariant: a packet that was accepted is delivered by the rule of its link at the moment it was sent, unless that
//! link is cut or its machine is down at the moment of delivery. Packets due at the same time arrive in the order in
//! which they were sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Trace;

/// Packets a socket holds for a program that does not read: beyond it they are lost, as a kernel does.
const BUFFER_PACKETS: usize = 4096;

/// How one direction between two machines behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkRule {
    /// Shortest and longest time on the way, in microseconds. A large range reorders.
    pub delay_us: (u64, u64),
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets held back by up to ten times the longest delay, 0 to 1.
    pub straggle: f64,
    /// Share of packets with a flipped bit, 0 to 1.
    pub corrupt: f64,
}

impl Default for LinkRule {
    /// A calm local network.
    fn default() -> Self {
        Self {
            delay_us: (200, 1500),
            loss: 0.0,
            duplicate: 0.0,
            straggle: 0.0,
            corrupt: 0.0,
        }
    }
}

/// What the network did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetCounts {
    /// Packets accepted.
    pub sent: u64,
    /// Packets delivered, copies included.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Refused by a cut.
    pub cut: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub straggled: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
}

/// Where the packets for one socket wait.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) packets: VecDeque<(SocketAddr, Bytes)>,
    pub(crate) waker: Option<Waker>,
}

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Net {
    now_ns: u64,
    rng: SmallRng,
    /// In order of delivery, then of sending.
    under_way: BTreeMap<(u64, u64), Packet>,
    sequence: u64,
    sockets: BTreeMap<SocketAddr, Weak<Mutex<Inbox>>>,
    ports: u16,
    default: LinkRule,
    rules: BTreeMap<(IpAddr, IpAddr), LinkRule>,
    cuts: BTreeMap<(IpAddr, IpAddr), ()>,
    /// Machines that are off.
    down: BTreeMap<IpAddr, ()>,
    pub(crate) counts: NetCounts,
    pub(crate) trace: Trace,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now_ns: 0,
            rng: SmallRng::seed_from_u64(seed),
            under_way: BTreeMap::new(),
            sequence: 0,
            sockets: BTreeMap::new(),
            ports: 40_000,
            default: LinkRule::default(),
            rules: BTreeMap::new(),
            cuts: BTreeMap::new(),
            down: BTreeMap::new(),
            counts: NetCounts::default(),
            trace: Trace::default(),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(crate) fn set_default(&mut self, rule: LinkRule) {
        self.default = rule;
    }

    pub(crate) fn set_rule(&mut self, from: IpAddr, to: IpAddr, rule: Option<LinkRule>) {
        match rule {
            Some(rule) => self.rules.insert((from, to), rule),
            None => self.rules.remove(&(from, to)),
        };
    }

    pub(crate) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.insert((from, to), ());
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.rules.clear();
    }

    pub(crate) fn join(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.remove(&(from, to));
    }

    /// From now on nothing leaves or reaches this machine; its sockets are gone.
    pub(crate) fn power_off(&mut self, ip: IpAddr) {
        self.down.insert(ip, ());
        self.sockets.retain(|address, _| address.ip() != ip);
        self.under_way.retain(|_, packet| packet.to.ip() != ip);
    }

    pub(crate) fn power_on(&mut self, ip: IpAddr) {
        self.down.remove(&ip);
    }

    /// Binds a socket; port 0 takes a free one.
    pub(crate) fn bind(&mut self, ip: IpAddr, port: u16) -> std::io::Result<(SocketAddr, Arc<Mutex<Inbox>>)> {
        if self.down.contains_key(&ip) {
            return Err(std::io::ErrorKind::NetworkDown.into());
        }
        let address = match port {
            0 => loop {
                self.ports = self.ports.checked_add(1).unwrap_or(40_000);
                let address = SocketAddr::new(ip, self.ports);
                if !self.sockets.contains_key(&address) {
                    break address;
                }
            },
            port => SocketAddr::new(ip, port),
        };
        if self
            .sockets
            .get(&address)
            .is_some_and(|inbox| inbox.strong_count() > 0)
        {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        self.sockets.insert(address, Arc::downgrade(&inbox));
        Ok((address, inbox))
    }

    /// Takes a packet, or loses it.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if self.down.contains_key(&from.ip()) {
            return;
        }
        self.counts.sent += 1;
        self.trace
            .event(&format!("send {from} {to}"), self.now_ns, &bytes);
        let link = (from.ip(), to.ip());
        if self.cuts.contains_key(&link) {
            self.counts.cut += 1;
            return;
        }
        let rule = self.rules.get(&link).copied().unwrap_or(self.default);
        let copies = match self.rng.random_bool(rule.duplicate) {
            true => 2,
            false => 1,
        };
        self.counts.duplicated += copies - 1;
        for _ in 0..copies {
            if self.rng.random_bool(rule.loss) {
                self.counts.lost += 1;
                continue;
            }
            let (least, most) = rule.delay_us;
            let mut delay_us = self.rng.random_range(least..=most.max(least));
            if self.rng.random_bool(rule.straggle) {
                self.counts.straggled += 1;
                delay_us += self.rng.random_range(0..=most.saturating_mul(10));
            }
            let mut bytes = bytes.clone();
            if !bytes.is_empty() && self.rng.random_bool(rule.corrupt) {
                self.counts.corrupted += 1;
                let mut changed = bytes.to_vec();
                let at = self.rng.random_range(0..changed.len());
                changed[at] ^= 1 << self.rng.random_range(0..8u8);
                bytes = changed.into();
            }
            self.sequence += 1;
            let due = self.now_ns + delay_us * 1000;
            self.under_way
                .insert((due, self.sequence), Packet { from, to, bytes });
        }
    }

    /// Moves time on and delivers what is due. Returns whom to wake, outside the lock.
    pub(crate) fn advance(&mut self, to_ns: u64) -> Vec<Waker> {
        self.now_ns = to_ns;
        let later = self.under_way.split_off(&(to_ns + 1, 0));
        let due = std::mem::replace(&mut self.under_way, later);
        let mut wake = Vec::new();
        for packet in due.into_values() {
            // A cut takes what is under way, too: a partition that lets old packets through is none.
            if self.cuts.contains_key(&(packet.from.ip(), packet.to.ip())) {
                self.counts.cut += 1;
                continue;
            }
            let Some(inbox) = self.sockets.get(&packet.to).and_then(Weak::upgrade) else {
                continue;
            };
            let mut inbox = inbox.lock();
            if inbox.packets.len() >= BUFFER_PACKETS {
                self.counts.lost += 1;
                continue;
            }
            self.counts.delivered += 1;
            inbox.packets.push_back((packet.from, packet.bytes));
            wake.extend(inbox.waker.take());
        }
        wake
    }
}
