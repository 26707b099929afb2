//! All ways to follow writers say the same of the same workload, and one that is broken does not.

mod outcome;
mod workload;

use std::env;
use std::path::Path;
use std::time::Duration;

use probe_user::core::model::Mono;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{KERNEL_BTF, ProbeError};

use tests::eye::{self, Eye};
use tests::mutant::Btf;
use tests::scratch::Scratch;
use tests::{clock, names, need, wait};

use crate::outcome::Outcome;
use crate::workload::Workload;

/// How exactly the scheduler's clock, which looks alone go by, is told on a busy machine.
const CLOCKS: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LASTS: Duration = Duration::from_secs(8);

#[test]
fn the_tracers_and_looks_alone_agree_on_every_stall_of_a_random_workload() {
    need!(need::root());
    for seed in seeds() {
        let comm = names::unique("wri");
        let mut eyes = Vec::new();
        for tracer in Tracer::ALL {
            match Eye::open(tracer, &comm, Path::new(KERNEL_BTF)) {
                Ok(eye) => eyes.push(eye),
                Err(error @ ProbeError::Refused { .. }) if !is_offered(tracer) => {
                    println!("without {tracer}: {error}");
                }
                Err(error) => panic!("{tracer}: {error}"),
            }
        }
        let mut workload = Workload::start(&comm, seed);
        let rounds = watch(&mut eyes, &mut workload);
        let outcome = Outcome::of(&eyes.iter().collect::<Vec<_>>(), &rounds, &workload);
        println!("seed {seed}: {}", outcome.summary());
        let wrong = outcome.differences() + &outcome.shortcomings();
        assert!(
            wrong.is_empty(),
            "seed {seed}: {}\n{wrong}what was done:\n{}",
            outcome.summary(),
            workload.told_of(|_| true)
        );
    }
}

#[test]
fn an_observer_with_a_wrong_offset_or_a_tracer_that_sees_nothing_does_not_agree() {
    const RIGHT: &str = "a right tracer";
    need!(need::root());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let comm = names::unique("wri");
    let open = |tracer, btf: &Path| Eye::open(tracer, &comm, btf);
    let wrong = |name: &str, tracer, btf: &Btf| match open(tracer, &btf.file(&scratch, "wrong")) {
        Ok(eye) => Some(eye.named(name)),
        Err(error @ (ProbeError::Refused { .. } | ProbeError::Layout { .. })) => {
            println!("{name}: {error}");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let right = |tracer| open(tracer, Path::new(KERNEL_BTF)).unwrap_or_else(|error| panic!("{error}"));
    let mut eyes = vec![
        right(Tracer::Scan),
        right(Tracer::Sched).named(RIGHT),
        right(Tracer::Scan)
            .passing_for(Tracer::Sched)
            .named("a blind tracer"),
    ];
    let buffer = btf
        .with_member_moved("pipe_buffer", "offset", 16)
        .with_member_moved("pipe_buffer", "len", 16);
    let consumed = btf.with_member_moved("unix_skb_parms", "consumed", 8);
    eyes.extend(wrong("a pipe's first buffer", Tracer::Sched, &buffer));
    eyes.extend(wrong("a socket's first buffer", Tracer::Sched, &consumed));
    if open(Tracer::Fentry, Path::new(KERNEL_BTF)).is_ok() {
        let deaf = btf.without_functions(&["unix_stream_sendmsg"]);
        eyes.extend(wrong("without a symbol", Tracer::Fentry, &deaf));
    }
    let mut workload = Workload::start(&comm, fastrand::u64(..));
    let rounds = watch(&mut eyes, &mut workload);
    let (truth, others) = eyes.split_first().expect("several");
    for eye in others {
        let differences = Outcome::of(&[truth, eye], &rounds, &workload).differences();
        println!("{}: {:?}", eye.name(), differences.lines().next());
        assert_eq!(differences.is_empty(), eye.name() == RIGHT, "{differences}");
    }
}

fn seeds() -> Vec<u64> {
    let seed = env::var("PIPESTALL_SEED").ok().and_then(|seed| seed.parse().ok());
    // Where everything is emulated, one of them is enough to wait for.
    let usual = || {
        let drawn = fastrand::u64(..);
        if wait::slowness() > 1 {
            vec![drawn]
        } else {
            vec![1, drawn]
        }
    };
    seed.map_or_else(usual, |seed| vec![seed])
}

/// Whether this kernel lets writers be followed so, whatever the program says of it.
fn is_offered(tracer: Tracer) -> bool {
    match tracer {
        Tracer::Sched | Tracer::Scan => true,
        // A machine that is not the tests' own may forbid what its kernel has.
        Tracer::Fentry => need::speed().is_err() && need::trampolines().is_ok(),
        Tracer::Kprobe => need::breakpoints().is_ok(),
    }
}

/// When everyone looked, one after the other: from when to when.
struct Rounds(Vec<(Mono, Mono)>);

impl Rounds {
    fn look(&mut self, eyes: &mut [Eye]) {
        let begun = eye::now();
        for eye in eyes {
            eye.look()
                .unwrap_or_else(|error| panic!("{}: {error}", eye.name()));
        }
        self.0.push((begun, eye::now()));
    }

    /// When all had looked once.
    fn begin(&self) -> Mono {
        self.0[0].1
    }

    /// How many began within a time.
    fn within(&self, from: Mono, to: Mono) -> usize {
        let begun = self.0.iter().map(|(begun, _)| *begun);
        begun.filter(|begun| from < *begun && *begun < to).count()
    }

    /// How far apart two observers may tell of what happened between two looks of one of them: the other may have
    /// found the writer awake at one of its own.
    fn tolerance(&self, from: Mono, to: Mono) -> Duration {
        let after = |moment: Mono| self.0.partition_point(|(begun, _)| *begun <= moment);
        let (first, last) = (after(from).saturating_sub(2), after(to).min(self.0.len() - 1));
        self.0[last].1.since(self.0[first].0) + CLOCKS
    }
}

/// Disturbs the workload and has everyone look, again and again.
fn watch(eyes: &mut [Eye], workload: &mut Workload) -> Rounds {
    // Everything takes longer in a guest, but not as much longer as a guest is slower.
    let lasts = LASTS * wait::slowness().min(3);
    let mut rounds = Rounds(Vec::new());
    rounds.look(eyes);
    let (begun, mut disturb_at) = (eye::now(), eye::now());
    loop {
        rounds.look(eyes);
        let now = eye::now();
        if now.since(begun) >= lasts {
            break;
        }
        workload.go_on(now);
        if now >= disturb_at {
            workload.disturb(now);
            disturb_at = now.after(Duration::from_millis(workload.rng.u64(5..120)));
        }
        wait::till(clock::mono() + LOOK_EVERY);
    }
    workload.settle();
    // What happened before this is noted.
    rounds.look(eyes);
    rounds
}
