//! The world: machines that live in steps of one millisecond, and what is done to them.
//!
//! Invariant: only one machine runs at a time, for one step of its own time; between steps nothing runs. Their order
//! within a step is drawn from the seed.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::net::Net;
use crate::{LinkRule, MachineClock, MachineSockets, NetCounts, Trace};

/// How far the world moves at once.
pub(crate) const STEP_NS: u64 = 1_000_000;

/// Names a machine of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine(usize);

/// Machines, their network and their time.
pub struct World {
    net: Arc<Mutex<Net>>,
    machines: Vec<Host>,
    rng: SmallRng,
    now_ns: u64,
}

struct Host {
    ip: IpAddr,
    clock: MachineClock,
    /// `None`: off.
    runtime: Option<Runtime>,
    /// How fast its clocks run: 1 is right.
    rate: f64,
    /// Its own time since the world began, in ns.
    local_ns: f64,
    /// Its own time at which the runtime it runs now was made, and how far that runtime has come, in ms.
    booted_ms: u64,
    ran_ms: u64,
    /// Until when it stands still, in ns of the world.
    paused_until: u64,
}

impl World {
    /// An empty world; everything random in it comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            net: Arc::new(Mutex::new(Net::new(seed ^ 0x6e65_7477_6f72_6b73))),
            machines: Vec::new(),
            rng: SmallRng::seed_from_u64(seed ^ 0x6f72_6465_725f_5f5f),
            now_ns: 0,
        }
    }

    /// A machine with an address of its own, switched off.
    pub fn add(&mut self) -> Machine {
        let number = u32::try_from(self.machines.len() + 1).unwrap_or(u32::MAX);
        let ip = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | number));
        self.machines.push(Host {
            ip,
            clock: MachineClock::default(),
            runtime: None,
            rate: 1.0,
            local_ns: self.now_ns as f64,
            booted_ms: 0,
            ran_ms: 0,
            paused_until: 0,
        });
        Machine(self.machines.len() - 1)
    }

    /// Switches a machine on; what was on it before is gone.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn boot(&mut self, machine: Machine) -> std::io::Result<()> {
        self.power_off(machine);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let host = &mut self.machines[machine.0];
        host.runtime = Some(runtime);
        host.booted_ms = (host.local_ns / 1e6) as u64;
        host.ran_ms = 0;
        host.paused_until = 0;
        self.net.lock().power_on(host.ip);
        Ok(())
    }

    /// Power loss: from this moment nothing leaves the machine, and its memory is gone. Its disk is the caller's.
    pub fn power_off(&mut self, machine: Machine) {
        self.net.lock().power_off(self.machines[machine.0].ip);
        // Dropping the runtime runs destructors, which can no longer be heard by anybody.
        if let Some(runtime) = self.machines[machine.0].runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Cuts a machine off at once, from inside one of its own steps: what still runs of it has no effect any more. The
    /// caller switches it off after the step.
    pub fn severer(&self, machine: Machine) -> impl Fn() + Send + Sync + 'static {
        let (net, ip) = (self.net.clone(), self.machines[machine.0].ip);
        move || net.lock().power_off(ip)
    }

    /// Whether it is switched on.
    pub fn is_on(&self, machine: Machine) -> bool {
        self.machines[machine.0].runtime.is_some()
    }

    /// Runs a task on a machine that is on; `None` when it is off.
    pub fn spawn<F>(&self, machine: Machine, task: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime = self.machines[machine.0].runtime.as_ref()?;
        Some(runtime.spawn(task))
    }

    /// The machine's address.
    pub fn ip(&self, machine: Machine) -> IpAddr {
        self.machines[machine.0].ip
    }

    /// The machine's clock.
    pub fn clock(&self, machine: Machine) -> MachineClock {
        self.machines[machine.0].clock.clone()
    }

    /// Where its sockets come from.
    pub fn sockets(&self, machine: Machine) -> MachineSockets {
        MachineSockets {
            net: self.net.clone(),
            ip: self.machines[machine.0].ip,
        }
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    /// Reads the world's time from anywhere, in ns.
    pub fn watch(&self) -> impl Fn() -> u64 + Clone + Send + Sync + 'static {
        let net = self.net.clone();
        move || net.lock().now_ns()
    }

    /// Stops a machine for a while, as `SIGSTOP` does: its packets wait, and when it goes on, its clocks have jumped.
    pub fn pause(&mut self, machine: Machine, length: Duration) {
        let until = self.now_ns + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        let host = &mut self.machines[machine.0];
        host.paused_until = host.paused_until.max(until);
    }

    /// Lets a paused machine go on.
    pub fn resume(&mut self, machine: Machine) {
        self.machines[machine.0].paused_until = 0;
    }

    /// Sets how fast a machine's clocks run; 1 is right.
    pub fn set_rate(&mut self, machine: Machine, rate: f64) {
        self.machines[machine.0].rate = rate.clamp(0.1, 10.0);
    }

    /// How links behave that have no rule of their own.
    pub fn set_links(&mut self, rule: LinkRule) {
        self.net.lock().set_default(rule);
    }

    /// How one direction behaves; `None`: as all.
    pub fn set_link(&mut self, from: Machine, to: Machine, rule: Option<LinkRule>) {
        let (from, to) = (self.ip(from), self.ip(to));
        self.net.lock().set_rule(from, to, rule);
    }

    /// Loses everything from one machine to another.
    pub fn cut(&mut self, from: Machine, to: Machine) {
        let (from, to) = (self.ip(from), self.ip(to));
        self.net.lock().cut(from, to);
    }

    /// Undoes [`World::cut`].
    pub fn join(&mut self, from: Machine, to: Machine) {
        let (from, to) = (self.ip(from), self.ip(to));
        self.net.lock().join(from, to);
    }

    /// Undoes all cuts and all rules of single links.
    pub fn heal(&mut self) {
        self.net.lock().heal();
    }

    /// What the network did so far.
    pub fn net_counts(&self) -> NetCounts {
        self.net.lock().counts
    }

    /// Everything that happened so far.
    pub fn trace(&self) -> Trace {
        self.net.lock().trace.clone()
    }

    /// Keeps a line for each event from now on.
    pub fn keep_events(&self) {
        self.net.lock().trace.keep();
    }

    /// Adds an event to the trace.
    pub fn note(&self, what: &str, bytes: &[u8]) {
        self.net.lock().trace.event(what, self.now_ns, bytes);
    }

    /// Moves the world on by one step; `before` is told each machine that is about to run.
    pub fn step(&mut self, mut before: impl FnMut(Machine)) {
        self.now_ns += STEP_NS;
        let wake = self.net.lock().advance(self.now_ns);
        for waker in wake {
            waker.wake();
        }
        let mut order: Vec<usize> = (0..self.machines.len()).collect();
        order.shuffle(&mut self.rng);
        let now_ns = self.now_ns;
        for index in order {
            let host = &mut self.machines[index];
            host.local_ns += STEP_NS as f64 * host.rate;
            host.clock.set_local_ns(host.local_ns as u64);
            if host.runtime.is_some() && host.paused_until <= now_ns {
                before(Machine(index));
                host.run();
            }
        }
    }
}

impl Host {
    /// Lets the machine live up to its own time.
    fn run(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let due_ms = ((self.local_ns / 1e6) as u64).saturating_sub(self.booted_ms);
        let behind = due_ms.saturating_sub(self.ran_ms);
        if behind == 0 {
            return;
        }
        self.ran_ms = due_ms;
        runtime.block_on(async {
            if behind > 2 {
                // It stood still: its clock jumps, and everything that is overdue happens at once.
                tokio::time::advance(Duration::from_millis(behind - 1)).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(behind)).await;
            }
        });
    }
}
