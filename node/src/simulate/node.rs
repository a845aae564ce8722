//! One node of a simulated cluster: its machine, its disk, and the process on it.
//!
//! Invariant: a process that is gone has no effect any more: its disk and its sockets are dead before its memory goes.

use std::sync::Arc;

use clinch_actor::Registry;
use clinch_sim::{Machine, World};
use clinch_storage::{DiskStore, Driver, SimDisk, StorageOptions};
use clinch_transport::CertBundle;
use parking_lot::Mutex;

use crate::{Node, NodeConfig, Platform, PlatformStore, RunNode};

/// What became of the process of a node.
#[derive(Default)]
pub(super) enum Life {
    /// It was never started, or it was ended from outside.
    #[default]
    Off,
    Starting,
    Running(Arc<Node>),
    /// It ended by itself, for this reason.
    Failed(String),
}

pub(super) struct SimNode {
    pub(super) machine: Machine,
    pub(super) config: NodeConfig,
    pub(super) identity: CertBundle,
    pub(super) disk: SimDisk,
    pub(super) segment_bytes: u64,
    pub(super) retain_bytes: Option<u64>,
    pub(super) checkpoint_keys: usize,
    pub(super) boots: u64,
    pub(super) life: Arc<Mutex<Life>>,
}

/// A long seed from two numbers.
pub(super) fn spread(seed: u64, number: u64) -> [u8; 32] {
    let mut out = [0; 32];
    for (at, part) in (0u64..).zip(out.chunks_mut(8)) {
        let mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ (at << 56);
        part.copy_from_slice(&mixed.to_le_bytes());
    }
    out
}

impl SimNode {
    /// Starts the process. The machine must be off.
    pub(super) fn boot(&mut self, world: &mut World, registry: Registry, seed: u64) -> anyhow::Result<()> {
        world.boot(self.machine)?;
        self.boots += 1;
        self.life = Arc::new(Mutex::new(Life::Starting));
        let (life, disk) = (self.life.clone(), self.disk.mount());
        let (clock, sockets) = (world.clock(self.machine), world.sockets(self.machine));
        let (identity, config) = (self.identity.clone(), self.config.clone());
        let number = self.config.node.0 << 32 | self.boots;
        let seed = u64::from_le_bytes(
            *spread(seed, number)
                .first_chunk()
                .expect("32 bytes begin with 8 bytes"),
        );
        let options = StorageOptions {
            segment_bytes: self.segment_bytes,
            retain_bytes: self.retain_bytes.unwrap_or(config.storage.retain_mib << 20),
            checkpoint_keys: self.checkpoint_keys,
            driver: Driver::Task,
            ..StorageOptions::default()
        };
        world.spawn(self.machine, async move {
            let started = async {
                let state = Arc::new(DiskStore::open(disk.clone())?);
                let platform = Platform {
                    clock: Arc::new(clock),
                    sockets: Arc::new(sockets),
                    seed: Some(seed),
                    identity: Some(identity),
                    store: Some(PlatformStore { disk, state, options }),
                };
                registry.node(config).platform(platform).start().await
            };
            match started.await {
                Ok(node) => {
                    let node = Arc::new(node);
                    *life.lock() = Life::Running(node.clone());
                    let reason = node.failed().await;
                    *life.lock() = Life::Failed(reason);
                }
                Err(error) => *life.lock() = Life::Failed(format!("it does not start: {error:#}")),
            }
        });
        Ok(())
    }

    /// Ends the process; `how` says what its disk goes through.
    pub(super) fn end(&mut self, world: &mut World, how: impl FnOnce(&SimDisk)) {
        how(&self.disk);
        let life = std::mem::take(&mut *self.life.lock());
        world.power_off(self.machine);
        drop(life);
    }

    /// A process that has given up ends, as the program does.
    pub(super) fn after_step(&mut self, world: &mut World) {
        if self.failure().is_some() && world.is_on(self.machine) {
            self.disk.kill();
            world.power_off(self.machine);
        }
    }

    pub(super) fn running(&self) -> Option<Arc<Node>> {
        match &*self.life.lock() {
            Life::Running(node) => Some(node.clone()),
            Life::Off | Life::Starting | Life::Failed(_) => None,
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        match &*self.life.lock() {
            Life::Failed(reason) => Some(reason.clone()),
            Life::Off | Life::Starting | Life::Running(_) => None,
        }
    }

    /// Why it cannot serve yet; `None`: it can, or it is off.
    pub(super) fn problem(&self) -> Option<String> {
        match &*self.life.lock() {
            Life::Off => None,
            Life::Starting => Some("it is starting".into()),
            Life::Running(node) => node.lacks(),
            Life::Failed(reason) => Some(reason.clone()),
        }
    }
}
