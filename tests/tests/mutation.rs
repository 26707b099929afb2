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

/// Direct members of structs that every kernel has, each read on the way to some fact, and by how many bytes
/// to move it: a user's id has copies beside it.
const MEMBERS: [(&str, &str, u32); 14] = [
    ("task_struct", "tgid", 8),
    ("task_struct", "group_leader", 8),
    ("task_struct", "files", 8),
    ("task_struct", "start_boottime", 8),
    ("cred", "uid", 40),
    ("file", "f_inode", 8),
    ("inode", "i_ino", 8),
    ("pipe_inode_info", "ring_size", 8),
    ("pipe_inode_info", "bufs", 8),
    ("pipe_buffer", "len", 8),
    ("socket", "sk", 8),
    ("unix_sock", "peer", 8),
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

    for (of, member, bytes) in MEMBERS {
        let mutant = btf.with_member_moved(of, member, bytes).file(&scratch, "mutant");
        match look(&mutant, &comm) {
            Err(error) => println!("{of}.{member}: {error}"),
            Ok(seen) => assert_ne!(facts(&seen), facts(&truth), "{of}.{member} may be anywhere"),
        }
    }
}

#[test]
fn a_trampoline_takes_a_function_that_the_types_tell_of_and_else_says_which_is_missing() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let refusal = without_pipe_write(&btf, &scratch, Tracer::Fentry);
    let Err(error) = refusal else {
        panic!("it has attached to nothing")
    };
    assert!(error.to_string().contains("pipe_write"), "{error}");
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
