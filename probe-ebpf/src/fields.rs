//! The kernel fields that the programs read, by name.
//!
//! Kernels lay their structs out differently, so no offset is compiled in. Each
//! field here is a load-time constant of the kernel object; userspace fills it
//! from the running kernel's BTF. One list serves both sides: the kernel side
//! declares a constant for each entry, userspace resolves each entry.

/// A load-time constant of the kernel object and where its value comes from.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The constant's symbol in the kernel object.
    pub symbol: &'static str,
    /// The struct that holds the field.
    pub of: &'static str,
    /// Where the field is, by dots through embedded structs and unions; the first
    /// that the kernel has counts. `name+8` is 8 bytes past `name`, and an empty
    /// path asks for the struct's size.
    pub paths: &'static [&'static str],
    /// The programs that cannot do without it; on a kernel that lacks it, it is [`ABSENT`] to the others.
    pub needed_by: &'static [User],
}

/// Programs that are loaded together, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The scanner, without which nothing is seen. The tracer by sleeps reads nothing more.
    Scanner,
    /// The tracers of functions.
    Functions,
    /// The walk over open files.
    Walk,
}

/// The value of a field's constant on a kernel that lacks it.
pub const ABSENT: u64 = u64::MAX;

/// Hands the list of fields to a macro: `SYMBOL = struct [paths…] users`, where `optional` stands for no user.
#[macro_export]
macro_rules! with_fields {
    ($callback:ident) => {
        $callback! {
            // include/linux/sched.h; `state` was renamed in 5.14.
            TASK_STATE = "task_struct" ["__state", "state"] Scanner;
            TASK_FLAGS = "task_struct" ["flags"] Scanner;
            TASK_PID = "task_struct" ["pid"] Scanner;
            TASK_TGID = "task_struct" ["tgid"] Scanner;
            TASK_LEADER = "task_struct" ["group_leader"] Scanner;
            TASK_COMM = "task_struct" ["comm"] Scanner;
            TASK_FILES = "task_struct" ["files"] Scanner;
            TASK_SIGNAL = "task_struct" ["signal"] Scanner;
            TASK_START = "task_struct" ["start_boottime"] Scanner;
            // Counts up with each exec; 64 bits wide since 5.7.
            TASK_EXEC_ID = "task_struct" ["self_exec_id"] Scanner;
            TASK_CRED = "task_struct" ["real_cred"] Scanner;
            TASK_PARENT = "task_struct" ["real_parent"] Scanner;
            // The parent's count of execs when it forked the task.
            TASK_PARENT_EXEC_ID = "task_struct" ["parent_exec_id"] Walk;
            // Only with CONFIG_SCHED_INFO; without it ages are "at least since".
            TASK_LAST_ARRIVAL = "task_struct" ["sched_info.last_arrival"] optional;
            // Where its kernel stack begins.
            TASK_STACK = "task_struct" ["stack"] Scanner;
            // How often it went to sleep of its own accord.
            TASK_SLEEPS = "task_struct" ["nvcsw"] Functions;
            // include/linux/sched/signal.h
            SIGNAL_THREADS = "signal_struct" ["nr_threads"] optional;
            // include/linux/cred.h
            CRED_UID = "cred" ["uid"] Scanner;
            // include/linux/fdtable.h
            FILES_COUNT = "files_struct" ["count"] Scanner;
            FILES_FDT = "files_struct" ["fdt"] Scanner;
            FDT_MAX = "fdtable" ["max_fds"] Scanner;
            FDT_FD = "fdtable" ["fd"] Scanner;
            FDT_CLOSE_ON_EXEC = "fdtable" ["close_on_exec"] Walk;
            // include/linux/fs.h
            FILE_INODE = "file" ["f_inode"] Scanner;
            FILE_MODE = "file" ["f_mode"] Scanner;
            FILE_PRIVATE = "file" ["private_data"] Scanner;
            // The first up to 6.12, the second from 6.13 on.
            FILE_COUNT = "file" ["f_count"] optional;
            FILE_REF = "file" ["f_ref.refcnt"] optional;
            KIOCB_FILE = "kiocb" ["ki_filp"] Functions;
            INODE_MODE = "inode" ["i_mode"] Scanner;
            INODE_NUMBER = "inode" ["i_ino"] Scanner;
            INODE_SB = "inode" ["i_sb"] Scanner;
            SB_MAGIC = "super_block" ["s_magic"] Scanner;
            SB_DEV = "super_block" ["s_dev"] Scanner;
            // include/linux/pipe_fs_i.h; head and tail stand in an anonymous union since 6.13.
            PIPE_HEAD = "pipe_inode_info" ["head"] Scanner;
            PIPE_TAIL = "pipe_inode_info" ["tail"] Scanner;
            PIPE_MAX_USAGE = "pipe_inode_info" ["max_usage"] Scanner;
            PIPE_RING_SIZE = "pipe_inode_info" ["ring_size"] Scanner;
            PIPE_BUFS = "pipe_inode_info" ["bufs"] Scanner;
            PIPE_WRITERS = "pipe_inode_info" ["writers"] Scanner;
            PIPE_WAITERS = "pipe_inode_info" ["wr_wait.head"] Scanner;
            BUF_OFFSET = "pipe_buffer" ["offset"] Scanner;
            BUF_LEN = "pipe_buffer" ["len"] Scanner;
            BUF_SIZE = "pipe_buffer" [""] Scanner;
            // include/linux/wait.h
            WAITER_TASK = "wait_queue_entry" ["private"] Scanner;
            WAITER_ENTRY = "wait_queue_entry" ["entry"] Scanner;
            // include/linux/net.h, include/net/sock.h
            SOCKET_SK = "socket" ["sk"] Scanner;
            SOCKET_FILE = "socket" ["file"] Functions Walk;
            SK_TYPE = "sock" ["sk_type"] Scanner;
            SK_FAMILY = "sock" ["__sk_common.skc_family"] Scanner;
            SK_RECEIVE_QUEUE = "sock" ["sk_receive_queue.next"] Scanner;
            SK_RECEIVE_QUEUE_LAST = "sock" ["sk_receive_queue.prev"] Scanner;
            SK_WQ = "sock" ["sk_wq"] Scanner;
            WQ_WAITERS = "socket_wq" ["wait.head"] Scanner;
            SK_WMEM = "sock" ["sk_wmem_alloc"] Scanner;
            SK_SNDBUF = "sock" ["sk_sndbuf"] Scanner;
            SK_PROTOCOL = "sock" ["sk_protocol"] Walk;
            SK_SOCKET = "sock" ["sk_socket"] Walk;
            SK_WMEM_QUEUED = "sock" ["sk_wmem_queued"] Walk;
            SK_DPORT = "sock" ["__sk_common.skc_dport"] Walk;
            SK_DADDR = "sock" ["__sk_common.skc_daddr"] Walk;
            // Only with CONFIG_IPV6.
            SK_V6_DADDR = "sock" ["__sk_common.skc_v6_daddr"] optional;
            // include/linux/tcp.h
            TCP_WRITE_SEQ = "tcp_sock" ["write_seq"] Walk;
            TCP_SND_UNA = "tcp_sock" ["snd_una"] Walk;
            TCP_SND_WND = "tcp_sock" ["snd_wnd"] Walk;
            // include/net/af_unix.h
            UNIX_PEER = "unix_sock" ["peer"] Scanner;
            SKB_NEXT = "sk_buff" ["next"] Scanner;
            SKB_CB = "sk_buff" ["cb"] Scanner;
            SKB_TRUESIZE = "sk_buff" ["truesize"] Scanner;
            UNIX_CONSUMED = "unix_skb_parms" ["consumed"] Scanner;
            // arch/x86/include/asm/ptrace.h; arch/arm64/include/asm/ptrace.h
            REGS_SYSCALL = "pt_regs" ["orig_ax", "syscallno"] Scanner;
            REGS_ARG0 = "pt_regs" ["di", "regs"] Scanner;
            REGS_ARG1 = "pt_regs" ["si", "regs+8"] Scanner;
            REGS_ARG2 = "pt_regs" ["dx", "regs+16"] Scanner;
            REGS_ARG4 = "pt_regs" ["r8", "regs+32"] Scanner;
            // What the call has returned, and what is there until it has: -ENOSYS on x86-64, on aarch64
            // still its first argument.
            REGS_RESULT = "pt_regs" ["ax", "regs"] Scanner;
            REGS_ORIG_ARG0 = "pt_regs" ["orig_x0", "di"] Scanner;
            REGS_SIZE = "pt_regs" [""] Scanner;
            // kernel/bpf/bpf_iter.c
            ITER_SEQ_NUM = "bpf_iter_meta" ["seq_num"] Scanner;
            ITER_SEQ = "bpf_iter_meta" ["seq"] Scanner;
        }
    };
}

macro_rules! table {
    ($($symbol:ident = $of:literal [$($path:literal),+] $($user:ident)+;)+) => {
        /// All of them, in the order of [`with_fields`].
        pub const FIELDS: &[Field] = &[$(Field {
            symbol: stringify!($symbol),
            of: $of,
            paths: &[$($path),+],
            needed_by: table!(@ $($user)+),
        }),+];
    };
    (@ optional) => { &[] };
    (@ $($user:ident)+) => { &[$(User::$user),+] };
}

with_fields!(table);
