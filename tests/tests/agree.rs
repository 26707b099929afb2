//! All ways to follow writers say the same of the same workload.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use probe_user::core::model::Mono;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{KERNEL_BTF, ProbeError};

use tests::crowd::{Channel, Crowd, Plan};
use tests::eye::{Eye, Stall};
use tests::order::Order;
use tests::{clock, eye, names, need, wait};

/// What lasts for less may fall between two looks.
const COUNTS: Duration = Duration::from_millis(50);
/// How exactly the scheduler's clock, which looks alone go by, is told on a busy machine.
const CLOCKS: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LASTS: Duration = Duration::from_secs(8);

#[test]
fn the_tracers_and_looks_alone_agree_on_every_stall_of_a_random_workload() {
    need!(need::root());
    let seed = env::var("PIPESTALL_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or_else(|| vec![1, fastrand::u64(..)], |seed| vec![seed]) {
        let comm = names::unique("wri");
        let mut eyes = Vec::new();
        for tracer in Tracer::ALL {
            match Eye::open(tracer, &comm, Path::new(KERNEL_BTF)) {
                Ok(eye) => eyes.push(eye),
                // What it takes to say that they agree is two.
                Err(error @ ProbeError::Refused { .. }) => println!("without {tracer}: {error}"),
                Err(error) => panic!("{tracer}: {error}"),
            }
        }
        if eyes.len() < 2 {
            need::skip("this kernel takes one way to observe only");
            return;
        }
        let mut workload = Workload::start(&comm, seed);
        let watched = watch(&mut eyes, &mut workload);
        compare(eyes, watched, &workload);
    }
}

/// Several crowds, and what was done to them.
struct Workload {
    seed: u64,
    rng: Rng,
    crowds: Vec<Crowd>,
    log: String,
}

impl Workload {
    fn start(comm: &str, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut chunk = || ["700", "4096", "32768", "65536", "300000"][rng.usize(..5)];
        let plans = [
            Plan::stuck(3).writing(&["--chunk", chunk()]),
            // A socket's token can come back by chance: looks alone take a writer that ran for one
            // that got on, so nothing wakes these.
            Plan::stuck(3).on(Channel::Unix).writing(&["--chunk", chunk()]),
            Plan::stuck(2).on(Channel::Fifo).writing(&["--chunk", chunk()]),
            // Seldom enough that two looks in a row do not both find them awake.
            Plan::stuck(2).writing(&["--alarm", "3", "--chunk", chunk()]),
        ];
        Self {
            seed,
            rng,
            crowds: plans.map(|plan| plan.writers_named(comm).start()).into(),
            log: String::new(),
        }
    }

    /// Has a reader, or the end of the world, happen to a writer.
    fn disturb(&mut self) {
        let at = self.rng.usize(..self.crowds.len());
        let crowd = &mut self.crowds[at];
        let writers = crowd.stuck();
        let pid = writers[self.rng.usize(..writers.len())];
        if crowd.exit(pid).is_some() {
            return;
        }
        let order = match self.rng.u32(..20) {
            0 => Order::Kill { pid },
            1 => Order::Close { pid },
            2..=7 => Order::Take { pid, bytes: 1 },
            _ => Order::Take {
                pid,
                bytes: self.rng.usize(1..150_000),
            },
        };
        let _ = writeln!(self.log, "{:?} {order:?}", clock::mono());
        crowd.order(order);
    }
}

/// How the observers looked.
#[derive(Clone, Copy)]
struct Watched {
    /// When each had looked once: what began before, looks alone know less of.
    since: Mono,
    /// The longest time between two looks of the same observer.
    tick: Duration,
}

/// Disturbs the workload and has everyone look, again and again.
fn watch(eyes: &mut [Eye], workload: &mut Workload) -> Watched {
    let mut look = || {
        for eye in &mut *eyes {
            eye.look()
                .unwrap_or_else(|error| panic!("{}: {error}", eye.tracer()));
        }
    };
    look();
    let since = eye::now();
    let end = clock::mono() + LASTS;
    let mut longest = Duration::ZERO;
    let mut disturb_at = clock::mono();
    let mut last = clock::mono();
    while clock::mono() < end {
        look();
        let now = clock::mono();
        longest = longest.max(clock::lapse(last, now));
        last = now;
        if now >= disturb_at {
            workload.disturb();
            disturb_at = now + Duration::from_millis(workload.rng.u64(5..200));
        }
        wait::till(now + LOOK_EVERY);
    }
    Watched { since, tick: longest }
}

/// Holds what each observer saw against what each other did.
fn compare(eyes: Vec<Eye>, watched: Watched, workload: &Workload) {
    let seen: Vec<(Tracer, Vec<Stall>)> = eyes.into_iter().map(|eye| (eye.tracer(), eye.stalls())).collect();
    let Watched { since, tick } = watched;
    let tolerance = tick + CLOCKS;
    let counts = |stall: &&Stall| stall.since >= since && stall.lasted() > COUNTS + tolerance;
    let mut differences = String::new();
    let mut compared = 0;
    for (tracer, stalls) in &seen {
        for stall in stalls.iter().filter(counts) {
            for (other, theirs) in seen.iter().filter(|(other, _)| other != tracer) {
                compared += 1;
                if !theirs.iter().any(|its| stall.agrees_with(its, tolerance)) {
                    let _ = writeln!(differences, "{other} does not have {tracer}'s {stall}; it has");
                    for its in theirs.iter().filter(|its| its.writer == stall.writer) {
                        let _ = writeln!(differences, "    {its}");
                    }
                }
            }
        }
    }
    let Workload { seed, log, .. } = workload;
    assert!(
        differences.is_empty(),
        "seed {seed}, within {tolerance:?}:\n{differences}\nwhat was done:\n{log}"
    );
    println!("seed {seed}: {compared} comparisons, within {tolerance:?}");
    assert!(compared >= 20, "seed {seed}: only {compared} comparisons\n{log}");
}
