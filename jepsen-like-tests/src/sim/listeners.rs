//! Listeners on every node: they write down the events they get, as operations of the history.
//!
//! Events leave a node for listeners in its process; that is what there is of them so far.

use std::collections::BTreeMap;

use clinch::simulate::Simulation;
use clinch::{EventBatch, EventStream};
use clinch_actor::Event as _;
use clinch_types::ActorId;

use super::clients::Crew;
use crate::actors::Put;
use crate::history::{Answer, Meta, Op};

/// One on each running node for each actor that tells events.
#[derive(Default)]
pub(super) struct Listeners {
    /// By node and key, with the number of the subscription.
    streams: BTreeMap<(usize, String), (u64, EventStream)>,
    made: u64,
}

impl Listeners {
    /// Listens where nobody listens yet.
    pub(super) fn subscribe(&mut self, sim: &Simulation, crew: &Crew) {
        for (key, id) in crew.actors.lock().iter() {
            let Ok(id) = id.parse::<ActorId>() else { continue };
            for node in 0..sim.len() {
                let place = (node, key.clone());
                if let (false, Some(running)) = (self.streams.contains_key(&place), sim.node(node)) {
                    self.made += 1;
                    self.streams
                        .insert(place, (self.made, running.events().subscribe(id)));
                }
            }
        }
    }

    /// Writes down what came in the last step.
    pub(super) fn hear(&mut self, crew: &Crew) {
        self.streams.retain(|(node, key), (number, stream)| {
            use tokio::sync::mpsc::error::TryRecvError;
            loop {
                match stream.try_recv() {
                    Ok(batch) => write_down(crew, &format!("listener-{}-{number}", *node + 1), key, &batch),
                    Err(TryRecvError::Empty) => return true,
                    // The node is gone, or the listener was too slow.
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
        });
    }
}

fn write_down(crew: &Crew, client: &str, key: &str, batch: &EventBatch) {
    let recorder = &crew.calls.recorder;
    for event in &batch.events {
        let (op, answer) = match Put::decode_args(&event.args) {
            Ok(put) => {
                let meta = Meta {
                    incarnation: batch.actor.to_string(),
                    epoch: batch.epoch.0,
                    version: batch.version.0,
                };
                (Op::Heard(put.place, put.number), Answer::ok(put.number, meta))
            }
            Err(error) => (Op::Heard(0, 0), Answer::error(true, error.to_string())),
        };
        let id = recorder.invoke(client, key, op);
        recorder.complete(id, answer);
    }
}
