//! Which way to follow writers is taken where the first does not serve, and whether `doctor` says so beforehand.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use probe_ebpf::pattern::CommFilter;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{KERNEL_BTF, Kernel, Options, ProbeError};
use serde_json::Value;

use tests::agent::Agent;
use tests::api::Api;
use tests::command::{self, Done};
use tests::config::Config;
use tests::mutant::Btf;
use tests::scratch::Scratch;
use tests::{binary, clock, names, need, proc, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;
const KERNEL_CANNOT: i32 = 69;

/// Takes from the types what tells of `sched_switch`.
const NO_SWITCH: (&str, &str) = ("btf_trace_sched_switch", "btf_trace_sched_swatch");
const WRITE_FUNCTIONS: [&str; 4] = [
    "pipe_write",
    "anon_pipe_write",
    "fifo_pipe_write",
    "unix_stream_sendmsg",
];

#[test]
fn auto_goes_on_where_the_types_do_not_tell_what_sched_switch_passes() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    // The second is one that is there and passes something else.
    let (switch, waking) = ("btf_trace_sched_switch", "btf_trace_sched_waking");
    for (renames, why) in [
        (&[NO_SWITCH][..], "what sched_switch passes"),
        (
            &[(switch, waking), (waking, switch)],
            "(void *, struct task_struct *)",
        ),
    ] {
        let mutant = renamed(&btf.file(&scratch, "mutant"), renames);

        let watch = watch_by_auto(&mutant);

        let refusal = refusal(&mutant, Tracer::Sched);
        assert!(refusal.contains(why), "{refusal}");
        let warning = format!("not tracing by sched: {refusal}");
        wait::until("it says why", wait::PATIENCE, || {
            watch.stderr().contains(&warning).then_some(())
        });
        watch.stop();
    }
    let mutant = renamed(&btf.file(&scratch, "mutant"), &[NO_SWITCH]);
    let others = [Tracer::Fentry, Tracer::Kprobe, Tracer::Scan];
    let next = others.into_iter().find(|tracer| usable(tracer.as_str()).is_ok());
    let next = next.expect("looks alone, at the least");
    assert_eq!(auto(&mutant), next);
    assert_says_what_run_uses(&doctor(&["--btf", text(&mutant)]), next);
}

#[test]
fn a_field_that_only_the_tracers_of_functions_read_stops_no_other() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    for (name, field) in [("ki_filp", "kiocb.ki_filp"), ("nvcsw", "task_struct.nvcsw")] {
        let mutant = renamed(&btf.file(&scratch, "mutant"), &[(name, &absent(name))]);

        // None is left of those that see each write.
        let done = pipestall(&["watch", "--trace-writes", "--btf", text(&mutant)]);

        let said = &done.expect_code(KERNEL_CANNOT).stderr;
        assert_eq!(said.matches(field).count(), 2, "{said}");
        let report = doctor(&["--btf", text(&mutant)]);
        for tracer in Tracer::ALL {
            let (usable, detail) = backend(&report, tracer.as_str());
            if tracer.is_by_function() {
                assert!(!usable && detail.contains(field), "{tracer}: {detail}");
            } else {
                assert_eq!((usable, detail), backend(here(), tracer.as_str()), "{tracer}");
            }
        }
    }
}

#[test]
fn a_field_that_only_the_walk_over_files_reads_stops_nothing_else() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let name = "parent_exec_id";
    let mutant = renamed(&btf.file(&scratch, "mutant"), &[(name, &absent(name))]);

    let watch = watch_by_auto(&mutant);

    wait::until("it says what it does instead", wait::PATIENCE, || {
        let said = watch.stderr();
        (said.contains("task_struct.parent_exec_id") && said.contains("/proc")).then_some(())
    });
    assert_says_what_run_uses(here(), auto(&mutant));
    watch.stop();
}

#[test]
fn a_field_that_looks_read_is_one_clear_error_that_names_it() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let name = "start_boottime";
    let mutant = renamed(&btf.file(&scratch, "mutant"), &[(name, &absent(name))]);

    let done = pipestall(&["watch", "--btf", text(&mutant)]);

    done.expect_code(KERNEL_CANNOT)
        .expect_one_clear_line(&["task_struct.start_boottime"]);
    let report = doctor(&["--btf", text(&mutant)]);
    for name in ["sched", "scan", "fentry", "kprobe"] {
        let (usable, detail) = backend(&report, name);
        assert!(
            !usable && detail.contains("task_struct.start_boottime"),
            "{name}: {detail}"
        );
    }
    assert!(
        report["run_uses"]
            .as_str()
            .is_some_and(|uses| uses.starts_with("nothing"))
    );
}

#[test]
fn a_tracer_that_lacks_a_function_says_whose_writers_it_does_not_see() {
    need!(need::bpf());
    need!(usable("fentry"));
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let mutant = btf
        .without_functions(&["unix_stream_sendmsg"])
        .file(&scratch, "mutant");

    let mut watch = Command::new(binary::pipestall());
    watch.args(["watch", "--json", "--tracer", "fentry", "--comm"]);
    let watch = Agent::start(watch.arg(names::unique("wri")).arg("--btf").arg(&mutant));

    wait::until("it says so", wait::PATIENCE, || {
        let said = watch.stderr();
        said.contains("no function that writes to unix").then_some(())
    });
    watch.stop();
    let report = doctor(&["--btf", text(&mutant)]);
    let (usable, detail) = backend(&report, "fentry");
    assert!(
        usable && detail.contains("no function that writes to unix"),
        "{detail}"
    );
    assert!(
        !strings(&report["typed"]).contains(&"unix_stream_sendmsg"),
        "{report:#}"
    );
}

#[test]
fn auto_takes_the_first_of_the_tracers_of_functions_that_sees_all_channels() {
    need!(need::bpf());
    need!(usable("fentry"));
    need!(usable("kprobe"));
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    // Breakpoints go by the kernel's symbols, which has them all.
    for (missing, taken) in [
        (&[][..], Tracer::Fentry),
        (&["unix_stream_sendmsg"], Tracer::Kprobe),
        (&WRITE_FUNCTIONS, Tracer::Kprobe),
    ] {
        let mutant = btf.without_functions(missing).file(&scratch, "mutant");
        let mutant = renamed(&mutant, &[NO_SWITCH]);

        assert_eq!(auto(&mutant), taken, "without {missing:?}");
    }
    let mutant = btf.without_functions(&["unix_stream_sendmsg"]);
    let mutant = renamed(&mutant.file(&scratch, "mutant"), &[NO_SWITCH]);
    let report = doctor(&["--btf", text(&mutant)]);
    assert!(backend(&report, "fentry").0, "{report:#}");
    assert_says_what_run_uses(&report, Tracer::Kprobe);
}

#[test]
fn doctor_says_of_each_tracer_what_comes_of_it() {
    need!(need::root());
    let report = here();
    for tracer in Tracer::ALL {
        let (usable, detail) = backend(report, tracer.as_str());

        match try_out(Path::new(KERNEL_BTF), tracer) {
            Ok(()) => assert!(usable, "{tracer}: {detail}"),
            Err(error) => {
                assert!(!usable, "{tracer}: {error}");
                assert_eq!(detail, error);
            }
        }
    }
    if let Ok(kernel) = Kernel::tracer(&options(Path::new(KERNEL_BTF), None), LONG) {
        assert_says_what_run_uses(report, kernel.traced_by());
    }
}

#[test]
fn doctor_says_what_is_true_of_this_machine() {
    need!(need::root());

    let report = here();

    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    assert_eq!(report["kernel"], release.as_str());
    assert_eq!(report["btf"]["ok"], Path::new(KERNEL_BTF).exists());
    let symbols = fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
    let is_there = |name: &&str| {
        let is_it = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            matches!(words.next(), Some("t" | "T")) && words.next() == Some(name)
        };
        symbols.lines().any(is_it)
    };
    let there: Vec<&str> = WRITE_FUNCTIONS.into_iter().filter(is_there).collect();
    assert!(there.len() >= 2, "a pipe's and a socket's: {there:?}");
    assert_eq!(strings(&report["symbols"]), there);
    assert!(
        strings(&report["typed"]).iter().all(|name| there.contains(name)),
        "{report:#}"
    );
    let status = fs::read_to_string("/proc/self/status").expect("this process's status");
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .expect("its capabilities");
    // include/uapi/linux/capability.h
    for (name, bit) in [
        ("CAP_KILL", 5),
        ("CAP_SYS_PTRACE", 19),
        ("CAP_SYS_NICE", 23),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ] {
        assert_eq!(holds(report, name), held >> bit & 1 != 0, "{name}");
    }
    let namespace = fs::read_link("/proc/self/ns/pid").expect("a pid namespace");
    assert_eq!(
        report["pids"]["ok"],
        namespace.as_os_str() == "pid:[4026531836]",
        "{report:#}"
    );
    let can_enforce = backend(report, "scan").0 && report["pids"]["ok"] == true && holds(report, "CAP_KILL");
    assert_eq!(report["can_enforce"], can_enforce);
    let lockdown = report["lockdown"].as_str().expect("a word on lockdown");
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) => assert!(modes.contains(&format!("[{lockdown}]")), "{lockdown}, of {modes}"),
        Err(_) => assert!(lockdown.starts_with("unknown"), "{lockdown}"),
    }
}

#[test]
fn doctor_says_that_a_user_without_privileges_has_none() {
    need!(need::root());
    let scratch = Scratch::new();
    let mut command = Command::new(scratch.for_everyone(&binary::pipestall()));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");

    let done = command::run(command.args(["doctor", "--json"]), PATIENCE);

    let report: Value = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
    for name in [
        "CAP_KILL",
        "CAP_SYS_PTRACE",
        "CAP_SYS_NICE",
        "CAP_PERFMON",
        "CAP_BPF",
    ] {
        assert!(!holds(&report, name), "{name}");
    }
    for tracer in Tracer::ALL {
        let (usable, detail) = backend(&report, tracer.as_str());
        assert!(!usable && detail.contains("CAP_"), "{tracer}: {detail}");
    }
    assert_eq!(report["can_enforce"], false);
    assert_eq!(report["symbols"], here()["symbols"], "names are no secret");
}

#[test]
fn doctor_in_a_pid_namespace_of_its_own_says_that_nothing_can_be_enforced() {
    need!(need::bpf());
    let unshare = need!(need::on_path("unshare"));
    for options in [&["--mount-proc"][..], &[]] {
        let mut command = Command::new(&unshare);
        command.args(["--pid", "--fork", "--kill-child"]).args(options);
        command.arg(binary::pipestall()).args(["doctor", "--json"]);

        let done = command::run(&mut command, PATIENCE);

        let report: Value = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
        assert_eq!(report["pids"]["ok"], false, "{report:#}");
        assert!(holds(&report, "CAP_KILL") && backend(&report, "scan").0);
        assert_eq!(report["can_enforce"], false);
    }
}

/// What a rule asks about a parent is not to be known there, and whoever asks by hand is told.
#[test]
fn an_agent_in_a_pid_namespace_of_its_own_ends_nobody_and_says_why() {
    const SCRIPT: &str = "sleep 600 | \"$1\" crowd --dir \"$2\" --name \"$3\" --writer-name \"$4\" >/dev/null & \
                          exec \"$5\" run --json --tracer \"$6\" --config \"$7\"";
    need!(need::bpf());
    let unshare = need!(need::on_path("unshare"));
    let scratch = Scratch::new();
    let (parent, writer) = (names::unique("par"), names::unique("wri"));
    let config = Config::new(&writer, &parent, &scratch.path("state"))
        .enforcing()
        .stalled_for("1s")
        .served(&scratch, "");
    let mut command = Command::new(unshare);
    command.args(["--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"]);
    command.arg(binary::stuck()).arg(scratch.path("."));
    command.args([&parent, &writer]).arg(binary::pipestall());
    command.arg(binary::tracer()).arg(config.file(&scratch));
    let mut agent = Agent::start(&mut command);

    let detected = agent.await_event("stall.detected", |_| true);
    // The rule's time, and enough for a second thought.
    wait::till(clock::mono() + Duration::from_secs(2));
    let stall = detected.event.stall.expect("a stall");
    let api = Api::at(&Config::socket(&scratch));
    let refusal = api.post(&format!("/v1/stalls/{}/kill", stall.id), "").json(503);

    assert!(refusal.to_string().contains("pid namespace"), "{refusal}");
    wait::until("it has said so from the start", wait::PATIENCE, || {
        let said = agent.stderr();
        said.contains("nothing will be enforced").then_some(())
    });
    let kills: Vec<_> = agent
        .events()
        .iter()
        .filter(|seen| seen.kind.starts_with("kill.") && seen.reason.as_deref() != Some("unsupported"))
        .collect();
    assert!(kills.is_empty(), "{kills:#?}");
    assert_eq!(
        (stall.comm, proc::comm(stall.pid)),
        (writer.clone(), Some(writer))
    );
    assert!(
        !proc::blocked_writes(stall.pid).is_empty(),
        "it is still in its write"
    );
}

const LONG: Duration = Duration::from_hours(1);

fn options(btf: &Path, tracer: Option<Tracer>) -> Options {
    let filter = CommFilter::parse(["nobody"]).unwrap_or_else(|(_, error)| panic!("{error:?}"));
    Options {
        btf: btf.to_owned(),
        tracer,
        ..Options::new(filter)
    }
}

/// Whether a tracer can be had.
fn try_out(btf: &Path, tracer: Tracer) -> Result<(), String> {
    let loaded: Result<Kernel, ProbeError> = Kernel::tracer(&options(btf, Some(tracer)), LONG);
    loaded.map(drop).map_err(|error| error.to_string())
}

#[track_caller]
fn refusal(btf: &Path, tracer: Tracer) -> String {
    try_out(btf, tracer).expect_err("it cannot be had")
}

/// The tracer that is taken where none is named.
#[track_caller]
fn auto(btf: &Path) -> Tracer {
    let kernel = Kernel::tracer(&options(btf, None), LONG);
    kernel.unwrap_or_else(|error| panic!("{error}")).traced_by()
}

#[track_caller]
fn watch_by_auto(btf: &Path) -> Agent {
    let mut command = Command::new(binary::pipestall());
    command.args(["watch", "--json", "--comm", &names::unique("wri"), "--btf"]);
    Agent::start(command.arg(btf))
}

/// Changes names in a file of type information for others of the same length, all at once.
#[track_caller]
fn renamed(btf: &Path, renames: &[(&str, &str)]) -> PathBuf {
    let mut bytes = fs::read(btf).expect("the types");
    let found: Vec<usize> = renames
        .iter()
        .map(|(name, _)| {
            let name = format!("\0{name}\0");
            let mut windows = bytes.windows(name.len());
            1 + windows
                .position(|window| window == name.as_bytes())
                .unwrap_or_else(|| panic!("no {name:?} in the kernel's types"))
        })
        .collect();
    for ((name, other), at) in renames.iter().zip(found) {
        assert_eq!(name.len(), other.len());
        bytes[at..at + name.len()].copy_from_slice(other.as_bytes());
    }
    fs::write(btf, bytes).expect("the types");
    btf.to_owned()
}

/// A name that no kernel has.
fn absent(name: &str) -> String {
    "x".repeat(name.len())
}

fn pipestall(arguments: &[&str]) -> Done {
    command::run(Command::new(binary::pipestall()).args(arguments), PATIENCE)
}

#[track_caller]
fn doctor(arguments: &[&str]) -> Value {
    let done = pipestall(&[&["doctor", "--json"], arguments].concat());
    serde_json::from_str(&done.expect_code(0).stdout).expect("JSON")
}

/// What is said of this machine as it is; that takes a while on one that is emulated.
fn here() -> &'static Value {
    static REPORT: LazyLock<Value> = LazyLock::new(|| doctor(&[]));
    &REPORT
}

fn usable(name: &str) -> Result<(), String> {
    match backend(here(), name) {
        (true, _) => Ok(()),
        (false, detail) => Err(format!("{name} is not usable: {detail}")),
    }
}

/// Whether a backend is usable, and what is said of it.
#[track_caller]
fn backend(report: &Value, name: &str) -> (bool, String) {
    let backends = report["backends"].as_array().expect("backends");
    let found = backends.iter().find(|one| one["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name} is missing: {report:#}"));
    (
        found["usable"].as_bool().expect("whether it is usable"),
        found["detail"].as_str().expect("what it is").to_owned(),
    )
}

#[track_caller]
fn holds(report: &Value, capability: &str) -> bool {
    let all = report["capabilities"].as_array().expect("capabilities");
    let found = all.iter().find(|one| one["name"] == capability);
    found.expect("each is named")["held"]
        .as_bool()
        .expect("whether it is held")
}

#[track_caller]
fn assert_says_what_run_uses(report: &Value, tracer: Tracer) {
    let uses = report["run_uses"].as_str().expect("what `run` uses");
    assert!(uses.starts_with(tracer.as_str()), "{uses}, not {tracer}");
}

#[track_caller]
fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().filter_map(Value::as_str).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
