//! The two bpf(2) commands that the benchmark needs by itself: to load a program that does nothing,
//! `r0 = 0; exit`, and to attach a loaded program to the tracepoint that it was loaded for.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use aya::Btf;
use aya_obj::btf::BtfKind;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};

/// The empty program's name in the kernel.
pub(crate) const EMPTY: &str = "bench_empty";

/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_JMP | BPF_EXIT` (include/uapi/linux/bpf.h).
const MOV64_IMM: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// Loads an empty program for `tp_btf/sched_switch`.
pub(crate) fn load_empty(kernel: &Btf) -> Result<OwnedFd> {
    let target = kernel
        .id_by_type_name_kind("btf_trace_sched_switch", BtfKind::Typedef)
        .context("sched_switch in the kernel's type information")?;
    let code = [instruction(MOV64_IMM), instruction(EXIT)];
    let license = c"GPL";
    let mut attr = zeroed();
    // SAFETY: the variant that BPF_PROG_LOAD reads; every bit pattern of its integers is valid.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_RAW_TP as u32;
    load.attach_btf_id = target;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = u32::try_from(code.len())?;
    load.license = license.as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().zip(EMPTY.bytes()) {
        *to = std::ffi::c_char::from_ne_bytes([from]);
    }
    call(bpf_cmd::BPF_PROG_LOAD, &mut attr).context("loading an empty program")
}

/// Attaches a program for as long as what is returned is open.
pub(crate) fn attach(program: &OwnedFd) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = u32::try_from(program.as_raw_fd())?;
    call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).context("attaching a program")
}

const fn zeroed() -> bpf_attr {
    // SAFETY: integers, of which zero is one, and addresses as integers that the kernel takes as absent.
    unsafe { std::mem::zeroed() }
}

fn instruction(code: u8) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    }
}

/// A command that returns a descriptor.
fn call(command: bpf_cmd, attr: &mut bpf_attr) -> Result<OwnedFd> {
    // SAFETY: `attr` is valid for its size, and the addresses in it are of things that outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    let Ok(fd @ 0..) = i32::try_from(fd) else {
        bail!(io::Error::last_os_error())
    };
    // SAFETY: the call has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
