//! The tests notice a wrong offset or a missing symbol: each is made wrong in turn.

use std::path::Path;
use std::time::Duration;

use probe_ebpf::pattern::CommFilter;
use probe_user::core::model::Sighting;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{KERNEL_BTF, Kernel, Options, ProbeError};

use tests::crowd::{Channel, Crowd, Plan};
use tests::mutant::Btf;
use tests::order::Order;
use tests::scratch::Scratch;
use tests::{need, proc, wait};

/// Members of structs that every kernel has, each read on the way to some fact, and by how many bytes
/// to move it: a user's id has copies beside it, and a parent's pointer has one.
const MEMBERS: [(&str, &str, u32); 24] = [
    ("task_struct", "pid", 8),
    ("task_struct", "tgid", 8),
    ("task_struct", "group_leader", 8),
    ("task_struct", "real_parent", 16),
    ("task_struct", "files", 8),
    ("task_struct", "start_boottime", 8),
    ("cred", "uid", 40),
    ("file", "f_inode", 8),
    ("file", "private_data", 8),
    ("inode", "i_ino", 8),
    ("inode", "i_sb", 8),
    ("super_block", "s_magic", 8),
    ("super_block", "s_dev", 8),
    ("pipe_inode_info", "head", 8),
    ("pipe_inode_info", "tail", 8),
    ("pipe_inode_info", "ring_size", 8),
    ("pipe_inode_info", "bufs", 8),
    ("pipe_buffer", "len", 8),
    ("socket", "sk", 8),
    ("unix_sock", "peer", 8),
    ("sock", "sk_receive_queue", 8),
    ("unix_skb_parms", "consumed", 8),
    ("sock", "sk_wmem_alloc", 8),
    REGISTER,
];

/// The registers that a call is saved in, and the one it is told by.
const REGISTER: (&str, &str, u32) = if cfg!(target_arch = "aarch64") {
    ("pt_regs", "syscallno", 8)
} else {
    ("pt_regs", "di", 8)
};

#[test]
fn a_wrong_offset_of_any_field_is_refused_or_changes_what_is_seen() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let comm = tests::names::unique("wri");
    let crowds = [Channel::Pipe, Channel::Unix].map(|channel| {
        // Not descriptor 1: that is also the number of the system call, and lies beside it.
        let plan = Plan::stuck(1).on(channel).writing(&["--fd", "7"]);
        plan.writers_named(&comm).as_user(65_534).start()
    });
    let crowds = crowds.map(begun);
    let truth = look(Path::new(KERNEL_BTF), &comm).expect("this kernel's own types serve");
    assert_is_right(&truth, &crowds);
    let again = look(&btf.file(&scratch, "same"), &comm).expect("so does a copy");
    assert_eq!(
        facts(&again),
        facts(&truth),
        "what is seen does not change by itself"
    );

    let mut seen_otherwise = 0;
    for (of, member, bytes) in MEMBERS {
        let mutant = btf.with_member_moved(of, member, bytes).file(&scratch, "mutant");
        match look(&mutant, &comm) {
            Err(error) => println!("{of}.{member}: {}", refusal(error)),
            Ok(seen) => {
                assert_ne!(facts(&seen), facts(&truth), "{of}.{member} may be anywhere");
                seen_otherwise += 1;
            }
        }
        for crowd in &crowds {
            let pid = crowd.writer();
            assert!(
                !proc::blocked_writes(pid).is_empty(),
                "{pid} is not stuck any more"
            );
        }
    }
    assert!(seen_otherwise >= 10, "only {seen_otherwise} were looked with");
    let after = look(Path::new(KERNEL_BTF), &comm).expect("this kernel's own types still serve");
    assert_eq!(facts(&after), facts(&truth), "what is seen has not changed");
}

#[test]
fn a_tracer_of_functions_with_a_wrong_offset_of_what_it_alone_reads_sees_no_write_begin() {
    need!(need::bpf());
    need!(need::breakpoints());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let right = Path::new(KERNEL_BTF);
    assert_eq!(seen_to_begin(right, Tracer::Kprobe), Ok([true, true]));
    let wrong = |btf: Btf| btf.file(&scratch, "wrong");
    let file = wrong(btf.with_member_moved("kiocb", "ki_filp", 8));
    assert_eq!(seen_to_begin(&file, Tracer::Kprobe), Ok([false, true]), "ki_filp");
    let socket = wrong(btf.with_member_moved("socket", "file", 8));
    assert_eq!(
        seen_to_begin(&socket, Tracer::Kprobe),
        Ok([true, false]),
        "socket.file"
    );
    // What grows with each sleep by more than one.
    let time = ("se", "sched_entity", "sum_exec_runtime");
    let sleeps = wrong(btf.with_member_for("task_struct", "nvcsw", time));
    assert_eq!(
        seen_to_begin(&sleeps, Tracer::Kprobe),
        Ok([false, false]),
        "nvcsw"
    );
}

/// Says whether a tracer sees a write begin that gets stuck, on a pipe and on a socket.
fn seen_to_begin(btf: &Path, tracer: Tracer) -> Result<[bool; 2], String> {
    let comm = tests::names::unique("wri");
    let options = options(btf, &comm, Some(tracer));
    let mut kernel = Kernel::tracer(&options, Duration::from_secs(1)).map_err(refusal)?;
    let crowds = [Channel::Pipe, Channel::Unix].map(|channel| {
        let plan = Plan::stuck(1).on(channel).writing(&["--chunk", "4096"]);
        plan.writers_named(&comm).start()
    });
    let pids = crowds.each_ref().map(Crowd::writer);
    for pid in pids {
        proc::await_blocked_write(pid);
    }
    let (look, _) = kernel.look().map_err(refusal)?;
    Ok(pids.map(|pid| {
        let mut sightings = look.sightings.iter();
        let seen = sightings.find(|sighting| sighting.writer.process.tgid == pid);
        seen.unwrap_or_else(|| panic!("{pid} is not seen"))
            .entered
            .is_some()
    }))
}

#[test]
fn a_field_that_the_kernel_lacks_is_named_with_its_struct() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let lacking = |of, member, tracer: Option<Tracer>| {
        let mutant = btf.without_member(of, member).file(&scratch, "mutant");
        let options = options(&mutant, "nobody", tracer);
        let loaded = match tracer {
            None => Kernel::scanner(&options),
            Some(_) => Kernel::tracer(&options, Duration::from_secs(1)),
        };
        let Err(error) = loaded else {
            panic!("{of}.{member} may be missing")
        };
        let error = refusal(error);
        assert!(error.contains(&format!("{of}.{member}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    let read_by_all = [
        ("task_struct", "start_boottime"),
        ("file", "f_inode"),
        ("pipe_inode_info", "head"),
        ("unix_sock", "peer"),
    ];
    for (of, member) in read_by_all {
        lacking(of, member, None);
        lacking(of, member, Some(Tracer::Sched));
    }
    for (of, member) in [("kiocb", "ki_filp"), ("task_struct", "nvcsw")] {
        lacking(of, member, Some(Tracer::Fentry));
        lacking(of, member, Some(Tracer::Kprobe));
    }
}

#[test]
fn a_tracepoint_with_other_arguments_is_refused_by_name() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    // The first of all is the tracepoint's own.
    let mutant = btf
        .with_parameters_exchanged("btf_trace_sched_switch", 1, 2)
        .file(&scratch, "mutant");
    let options = options(&mutant, "nobody", Some(Tracer::Sched));
    let Err(error) = Kernel::tracer(&options, Duration::from_secs(1)) else {
        panic!("it has attached to what it does not know")
    };
    let error = refusal(error);
    let passed = "sched_switch passes (void *, struct task_struct *, value, struct task_struct *";
    assert!(error.contains(passed), "{error}");
}

#[test]
fn a_trampoline_takes_a_function_that_the_types_tell_of_and_else_says_which_is_missing() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let Err(error) = without_pipe_write(&btf, &scratch, Tracer::Fentry) else {
        panic!("it has attached to nothing")
    };
    let error = refusal(error);
    assert!(error.contains("pipe_write"), "{error}");
}

#[test]
fn a_breakpoint_takes_a_function_by_its_symbol_that_the_types_do_not_tell_of() {
    need!(need::bpf());
    need!(need::kprobes());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    if let Err(error) = without_pipe_write(&btf, &scratch, Tracer::Kprobe) {
        panic!("{error}");
    }
}

fn without_pipe_write(btf: &Btf, scratch: &Scratch, tracer: Tracer) -> Result<Kernel, ProbeError> {
    let mutant = btf
        .without_functions(&["pipe_write", "anon_pipe_write"])
        .file(scratch, "mutant");
    Kernel::tracer(&options(&mutant, "nobody", Some(tracer)), Duration::from_secs(1))
}

/// Has a few buffers taken out of the channel, so that its reader does not stand where it begins.
fn begun(mut crowd: Crowd) -> Crowd {
    const BYTES: usize = 5 * 4096 + 1;
    let pid = crowd.writer();
    crowd.order(Order::Take { pid, bytes: BYTES });
    wait::until("it is taken", wait::PATIENCE, || {
        (crowd.drained(pid) >= BYTES as u64).then_some(())
    });
    proc::await_blocked_write(pid);
    crowd
}

fn options(btf: &Path, comm: &str, tracer: Option<Tracer>) -> Options {
    let filter = CommFilter::parse([comm]).unwrap_or_else(|(_, error)| panic!("{comm}: {error:?}"));
    Options {
        btf: btf.to_owned(),
        tracer,
        ..Options::new(filter)
    }
}

/// Says what is wrong with the types, or with what they make of a program: no other error will do.
#[track_caller]
fn refusal(error: ProbeError) -> String {
    match error {
        error @ (ProbeError::Refused { .. } | ProbeError::Layout { .. }) => error.to_string(),
        error @ (ProbeError::NoBtf { .. }
        | ProbeError::NoPrivilege(_)
        | ProbeError::Read { .. }
        | ProbeError::Mismatch(_)) => panic!("{error}"),
    }
}

fn look(btf: &Path, comm: &str) -> Result<Vec<Sighting>, ProbeError> {
    let mut kernel = Kernel::scanner(&options(btf, comm, None))?;
    kernel.look().map(|(look, _)| look.sightings)
}

/// What does not change while nobody reads and nobody runs.
fn facts(sightings: &[Sighting]) -> Vec<Sighting> {
    let mut facts: Vec<_> = sightings
        .iter()
        .map(|sighting| Sighting {
            at: probe_user::core::model::Mono::from_nanos(0),
            last_ran: None,
            ..sighting.clone()
        })
        .collect();
    facts.sort_by_key(|sighting| sighting.writer);
    facts
}

fn assert_is_right(sightings: &[Sighting], crowds: &[Crowd]) {
    assert_eq!(sightings.len(), crowds.len());
    for crowd in crowds {
        let pid = crowd.writer();
        let seen = sightings
            .iter()
            .find(|sighting| sighting.writer.process.tgid == pid)
            .unwrap_or_else(|| panic!("{pid} is not seen"));
        let stdout = proc::inode(pid, 1).expect("it has a stdout");
        assert_eq!((seen.channel.inode, seen.fd, seen.uid), (stdout, 7, 65_534));
        assert_eq!(
            (seen.ppid, seen.comm.as_str()),
            (crowd.pid(), crowd.writer_name())
        );
    }
}
