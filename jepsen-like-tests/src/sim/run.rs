//! One run: safety under faults, then liveness once everything is healed, then the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clinch::cli::actors;
use clinch::simulate::{Simulate as _, Simulation, entropy};
use clinch::{RaftConfig, StorageConfig};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::clients::{Crew, Manner};
use super::faults::{Fault, Plan};
use super::listeners::Listeners;
use super::lookers::Suspects;
use super::nemesis::Nemesis;
use super::places::{Places, node_of};
use super::roles::Role;
use super::visitors::Visitors;
use super::{Broken, Summary, prefix};
use crate::actors::{Account, Buyer, Hall, ON_PURPOSE, Subject, Ticker, Worker};
use crate::checkers::{self, Law};
use crate::doors::Door;
use crate::history::Recorder;
use crate::stats;
use crate::workload::Calls;

/// Simulated time a new cluster has to serve.
const FORM_MAX: Duration = Duration::from_secs(60);
/// Simulated time a healed cluster has to answer everybody (G11, A13).
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Simulated time after the healing in which every schedule must have fired: the longest, and what it may be late. Leases
/// of messages end within it, too.
const SCHEDULES_MAX: Duration = Duration::from_secs(9);
/// How often the states of the replicas are compared.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Simulated time after the last call in which every replica must have what others have.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// Time that one of the last calls may take.
const LAST_CALL_MAX: Duration = Duration::from_secs(20);
/// Violations told.
const TOLD_MAX: usize = 6;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Simulated time of the safety phase.
    pub time: Duration,
    /// Only these faults; `None`: the seed chooses.
    pub faults: Option<BTreeSet<Fault>>,
    /// Where the history of a run that breaks a law is written.
    pub histories: Option<PathBuf>,
    /// Write it in any case.
    pub keep: bool,
    /// A bug put into the product; nothing without the feature `planted`.
    pub bug: Option<String>,
    /// Where every event is written.
    pub trace: Option<PathBuf>,
}

/// Runs one seed. Once in a process: some libraries count in statics.
///
/// # Errors
/// When the simulation itself cannot be made; what the product does wrong is in the summary.
pub fn run(options: &Options) -> anyhow::Result<Summary> {
    // Thread-locals that draw at random when they are first used must not have been used before the seed is there.
    std::thread::scope(|scope| {
        let seeded = || {
            anyhow::ensure!(
                entropy::seed(options.seed),
                "randomness is not under control here: nothing could be repeated"
            );
            run_here(options)
        };
        scope
            .spawn(seeded)
            .join()
            .unwrap_or_else(|_| anyhow::bail!("the simulation itself panicked"))
    })
}

fn run_here(options: &Options) -> anyhow::Result<Summary> {
    #[cfg(feature = "planted")]
    clinch_types::probe::plant(options.bug.as_deref());
    let panics = catch_panics();
    let mut rng = StdRng::seed_from_u64(options.seed ^ 0x7377_6172_6d5f_5f5f);
    let places = Places::watch();
    let shards = rng.random_range(1..=4);
    let plan = Plan::draw(&mut rng, options.faults.as_ref());
    let mut sim = cluster(&mut rng, options.seed, shards, &plan)?;
    if options.trace.is_some() {
        sim.world().keep_events();
    }
    let watch = sim.world().watch();
    let crew = Crew {
        calls: Calls::on(options.seed, Recorder::on_clock(watch)),
        keys: Arc::new(keys(&mut rng)),
        stop: Arc::new(AtomicBool::new(false)),
        actors: Arc::default(),
        working: Arc::default(),
        suspects: Suspects::default(),
        broken: Arc::default(),
    };
    let mut broken = Vec::new();
    let recovery = live(&mut sim, &crew, plan, rng, options, &places, shards, &mut broken);
    let (recovery_ms, fired) = recovery.context("the simulation")?;
    broken.extend(crew.broken.lock().drain(..));
    broken.extend(panics.lock().drain(..).map(|text| Broken {
        law: "no panic".into(),
        text,
    }));
    judge(&mut sim, &crew, options, broken, recovery_ms, fired, &places)
}

/// The actors of a run: counters always, others by chance.
fn keys(rng: &mut StdRng) -> Vec<String> {
    let mut keys: Vec<String> = (0..rng.random_range(1..6)).map(|k| format!("k{k}")).collect();
    for (role, letter) in Role::OTHERS {
        // Few of them at a time: what happens seldom to many actors happens often to few.
        if rng.random_bool(0.35) {
            let count = rng.random_range(role.least()..role.least() + 2);
            keys.extend((0..count).map(|k| format!("{letter}{k}")));
        }
    }
    if keys.iter().any(|key| Role::of(key) == Role::Buyer) {
        // Looked at last, too.
        keys.push("v0".into());
    }
    keys
}

/// A cluster that serves.
fn cluster(rng: &mut StdRng, seed: u64, shards: u32, plan: &Plan) -> anyhow::Result<Simulation> {
    // More nodes than replicas: some have no replica of a shard.
    let nodes = match rng.random_range(0..10) {
        0 => 5,
        1 => 4,
        _ => 3,
    };
    let joins = plan.faults.contains(&Fault::Join);
    let mut sim = actors::registry()
        .actor::<Subject>()
        .actor::<Account>()
        .actor::<Worker>()
        .actor::<Ticker>()
        .actor::<Hall>()
        .actor::<Buyer>()
        .simulate(seed)
        .nodes(nodes)
        .spares(u64::from(joins && nodes == 3))
        .shards(shards)
        .raft(RaftConfig::default())
        .storage(StorageConfig {
            checkpoint_ms: rng.random_range(100..1500),
            ..StorageConfig::default()
        })
        .segment_bytes(64 << rng.random_range(10..14))
        // Little log: replicas that were away need snapshots.
        .retain_bytes(1 << rng.random_range(0..18))
        .checkpoint_keys(match rng.random_bool(0.5) {
            true => rng.random_range(1..64),
            false => 2048,
        })
        .boot()?;
    if joins {
        gather(&mut sim, rng, nodes)?;
    }
    Ok(sim)
}

/// The nodes come one after the other, and some lose their power before there is a cluster.
fn gather(sim: &mut Simulation, rng: &mut StdRng, nodes: u64) -> anyhow::Result<()> {
    for _ in 0..rng.random_range(1..5) {
        let node = usize::try_from(rng.random_range(0..nodes))?;
        let mut live = |sim: &mut Simulation, most: u64| {
            let until = sim.now() + Duration::from_millis(rng.random_range(1..most));
            while sim.now() < until {
                sim.step();
            }
        };
        live(sim, 400);
        sim.power_loss(node);
        live(sim, 2000);
        sim.restart(node)?;
    }
    Ok(())
}

/// Both phases. Returns how long recovery took, in ms, and what struck.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one run; its only caller owns them all"
)]
fn live(
    sim: &mut Simulation,
    crew: &Crew,
    plan: Plan,
    mut rng: StdRng,
    options: &Options,
    places: &Places,
    shards: u32,
    broken: &mut Vec<Broken>,
) -> anyhow::Result<(u64, super::fired::Fired)> {
    if let Err(error) = sim.settle(FORM_MAX) {
        broken.push(Broken {
            law: "A13 a cluster forms".into(),
            text: format!("{error:#}"),
        });
        return Ok((0, Default::default()));
    }
    let nodes = sim.len();
    let machines: Vec<_> = (0..nodes).map(|node| sim.machine(node)).collect();
    let mut manners: Vec<Manner> = (0..nodes).map(Manner::Pinned).collect();
    manners.extend((0..rng.random_range(1..4)).map(|_| Manner::Roaming));
    manners.extend((0..rng.random_range(1..3)).map(|_| Manner::Repeating));
    if crew.keys.iter().any(|key| Role::of(key) == Role::Hall) {
        manners.extend((0..rng.random_range(1..3)).map(|_| Manner::Staying));
    }
    let recorder = crew.calls.recorder.clone();
    let mut visitors = Visitors::draw(&mut rng, crew);
    let mut nemesis = Nemesis::new(sim, plan, rng, crew, places.clone(), shards);
    let mut clients = Vec::new();
    for (number, manner) in manners.into_iter().enumerate() {
        clients.push(crew.join(sim, number, manner)?);
    }
    nemesis.set_clients(clients);
    let step = |sim: &mut Simulation| {
        sim.step_watched(|machine| places.running(node_of(&machines, machine)));
        places.running(None);
    };
    let until = sim.now() + options.time;
    let mut look_at = sim.now();
    let mut listeners = Listeners::default();
    while sim.now() < until {
        nemesis.tick(sim);
        step(sim);
        listeners.hear(crew);
        if sim.now() >= look_at {
            look_at += LOOK_EVERY;
            replicas_agree(sim, broken);
            nemesis.look_at_states(sim);
            listeners.subscribe(sim, crew);
            visitors.tend(sim, crew);
        }
    }
    recorder.mark("everything is healed");
    crew.stop.store(true, Ordering::Relaxed);
    nemesis.heal(sim);
    let healed = sim.now();
    // The liveness phase: every node serves, every client has its answer.
    loop {
        nemesis.tend(sim);
        step(sim);
        let waiting = *crew.working.lock() + visitors.left();
        let ready = (0..nodes).all(|node| sim.node(node).is_some()) && sim.settle(Duration::ZERO).is_ok();
        if ready && waiting == 0 {
            break;
        }
        if sim.now() > healed + RECOVERY_MAX {
            let state = sim.settle(Duration::ZERO).err().map(|e| format!("{e:#}"));
            broken.push(Broken {
                law: "A13 healed means served (G10, G11)".into(),
                text: format!(
                    "{RECOVERY_MAX:?} after everything was healed, {waiting} clients wait for an answer; {}",
                    state.unwrap_or_else(|| "every node says it serves".into())
                ),
            });
            return Ok((u64::try_from(RECOVERY_MAX.as_millis())?, nemesis.fired(sim)));
        }
    }
    let recovery_ms = u64::try_from((sim.now() - healed).as_millis())?;
    if crew.keys.iter().any(|key| Role::of(key).takes_time()) {
        while sim.now() < healed + SCHEDULES_MAX {
            step(sim);
        }
    }
    last_calls(sim, crew, broken)?;
    replicas_catch_up(sim, &mut nemesis, broken);
    replicas_agree(sim, broken);
    broken.append(&mut nemesis.broken);
    Ok((recovery_ms, nemesis.fired(sim)))
}

/// A12: replicas that have applied the same entry have the same state.
fn replicas_agree(sim: &Simulation, broken: &mut Vec<Broken>) {
    let mut states: BTreeMap<(u32, u64), (usize, u64, u64)> = BTreeMap::new();
    for node in 0..sim.len() {
        let Some(running) = sim.node(node) else { continue };
        for (group, term, index, digest) in running.digests() {
            match states.insert((group, index), (node, term, digest)) {
                Some((other, other_term, other_digest)) if (other_term, other_digest) != (term, digest) => {
                    let text = format!(
                        "group {group} at entry {index}: nodes {} and {} differ, at {:.3} s",
                        other + 1,
                        node + 1,
                        sim.now().as_secs_f64()
                    );
                    // One is enough: what differs stays so.
                    if broken.iter().all(|b| !b.law.starts_with("A12")) {
                        broken.push(Broken {
                            law: "A12 replicas agree".into(),
                            text,
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// A13: every replica comes to have what any of them has.
fn replicas_catch_up(sim: &mut Simulation, nemesis: &mut Nemesis, broken: &mut Vec<Broken>) {
    let applied = |sim: &Simulation| -> Vec<(u32, usize, u64)> {
        let nodes = (0..sim.len()).filter_map(|node| Some((node, sim.node(node)?)));
        nodes
            .flat_map(|(node, running)| {
                let digests = running.digests().into_iter();
                digests.map(move |(group, _, index, _)| (group, node, index))
            })
            .collect()
    };
    let mut wanted: BTreeMap<u32, u64> = BTreeMap::new();
    for (group, _, index) in applied(sim) {
        let most = wanted.entry(group).or_default();
        *most = index.max(*most);
    }
    let until = sim.now() + CATCH_UP_MAX;
    loop {
        let behind: Vec<String> = applied(sim)
            .into_iter()
            .filter(|(group, _, index)| wanted.get(group).is_some_and(|wanted| index < wanted))
            .map(|(group, node, index)| format!("node {} has group {group} up to entry {index}", node + 1))
            .collect();
        if behind.is_empty() {
            return;
        }
        if sim.now() >= until {
            broken.push(Broken {
                law: "A13 every replica catches up (G1)".into(),
                text: format!("{CATCH_UP_MAX:?} after the last call {}", behind.join(", ")),
            });
            return;
        }
        let pause = sim.now() + LOOK_EVERY;
        while sim.now() < pause {
            nemesis.tend(sim);
            sim.step();
        }
    }
}

/// The last calls on every actor: all must be answered.
fn last_calls(sim: &mut Simulation, crew: &Crew, broken: &mut Vec<Broken>) -> anyhow::Result<()> {
    let task = crew.clone();
    let unanswered = sim.run(|cluster| async move {
        let door = Door::Roaming(cluster);
        let mut unanswered = Vec::new();
        task.drain(&door).await;
        task.wait_for_sends(&door).await;
        task.wait_for_leaves(&door).await;
        for key in task.keys.iter() {
            for op in Role::of(key).last_calls(task.calls.number()) {
                // Calls of the same moment count as concurrent; a last read must be last.
                tokio::time::sleep(Duration::from_millis(2)).await;
                let answer = task.calls.call(&door, "last", key, op, LAST_CALL_MAX).await;
                if !answer.is_ok() {
                    unanswered.push(format!("{op:?} of {key}: {}", answer.error.unwrap_or_default()));
                }
            }
        }
        unanswered
    });
    let text = match unanswered {
        Ok(unanswered) if unanswered.is_empty() => return Ok(()),
        Ok(unanswered) => unanswered.join("; "),
        Err(error) => format!("{error:#}"),
    };
    broken.push(Broken {
        law: "A13 every actor answers (G11)".into(),
        text,
    });
    Ok(())
}

fn judge(
    sim: &mut Simulation,
    crew: &Crew,
    options: &Options,
    mut broken: Vec<Broken>,
    recovery_ms: u64,
    fired: super::fired::Fired,
    places: &Places,
) -> anyhow::Result<Summary> {
    let recorder = &crew.calls.recorder;
    let operations = recorder.operations();
    sim.world().note("history", &serde_json::to_vec(&operations)?);
    let verdict = checkers::check(&operations);
    let mut laws: Vec<Law> = Vec::new();
    for violation in &verdict.violations {
        if !laws.contains(&violation.law) {
            laws.push(violation.law);
        }
        if broken.len() < TOLD_MAX {
            broken.push(Broken {
                law: violation.law.name().into(),
                text: violation.to_string(),
            });
        }
    }
    let prefix = laws.first().map(|law| prefix::shortest(&operations, *law));
    let history = match &options.histories {
        Some(dir) if options.keep || !broken.is_empty() => {
            std::fs::create_dir_all(dir)?;
            let path = dir.join(format!("seed-{}.jsonl", options.seed));
            recorder.save(&path)?;
            Some(path.display().to_string())
        }
        _ => None,
    };
    let trace = sim.trace();
    if let Some(path) = &options.trace {
        std::fs::write(path, trace.lines().join("\n"))?;
    }
    Ok(Summary {
        seed: options.seed,
        trace: format!("{:016x}", trace.hash()),
        events: trace.events(),
        repeatable: sim.repeatable(),
        simulated_s: sim.now().as_secs_f64(),
        cpu_s: stats::ran()?.as_secs_f64(),
        acknowledged: verdict.acknowledged,
        cross_checked: verdict.cross_checked,
        undecided: verdict.undecided,
        failed: verdict.failed,
        unknown: verdict.unknown,
        recovery_ms,
        fired: fired.into_map(),
        places: places.counts(),
        broken,
        prefix: prefix.unwrap_or_default(),
        history,
    })
}

/// Panics of the product, which tokio would swallow.
fn catch_panics() -> Arc<Mutex<Vec<String>>> {
    let panics: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = panics.clone();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string();
        if !text.contains(ON_PURPOSE) {
            heard.lock().push(text);
        }
    }));
    panics
}
