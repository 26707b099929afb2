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
    /// Whether the programs can do without it: it is then [`ABSENT`].
    pub optional: bool,
}

/// The value of an optional field's constant on a kernel that lacks it.
pub const ABSENT: u64 = u64::MAX;

/// Hands the list of fields to a macro: `SYMBOL = struct [paths…] need`.
#[macro_export]
macro_rules! with_fields {
    ($callback:ident) => {
        $callback! {
            // include/linux/sched.h; `state` was renamed in 5.14.
            TASK_STATE = "task_struct" ["__state", "state"] required;
            TASK_FLAGS = "task_struct" ["flags"] required;
            TASK_PID = "task_struct" ["pid"] required;
            TASK_TGID = "task_struct" ["tgid"] required;
            TASK_LEADER = "task_struct" ["group_leader"] required;
            TASK_COMM = "task_struct" ["comm"] required;
            TASK_FILES = "task_struct" ["files"] required;
            TASK_SIGNAL = "task_struct" ["signal"] required;
            TASK_START = "task_struct" ["start_boottime"] required;
            // Counts up with each exec; 64 bits wide since 5.7.
            TASK_EXEC_ID = "task_struct" ["self_exec_id"] required;
            TASK_CRED = "task_struct" ["real_cred"] required;
            TASK_PARENT = "task_struct" ["real_parent"] required;
            // The parent's count of execs when it forked the task.
            TASK_PARENT_EXEC_ID = "task_struct" ["parent_exec_id"] required;
            // Only with CONFIG_SCHED_INFO; without it ages are "at least since".
            TASK_LAST_ARRIVAL = "task_struct" ["sched_info.last_arrival"] optional;
            // Where its kernel stack begins, for kernels without the helper that finds the registers there.
            TASK_STACK = "task_struct" ["stack"] required;
            // How often it went to sleep of its own accord.
            TASK_SLEEPS = "task_struct" ["nvcsw"] required;
            // include/linux/sched/signal.h
            SIGNAL_THREADS = "signal_struct" ["nr_threads"] optional;
            // include/linux/cred.h
            CRED_UID = "cred" ["uid"] required;
            // include/linux/fdtable.h
            FILES_COUNT = "files_struct" ["count"] required;
            FILES_FDT = "files_struct" ["fdt"] required;
            FDT_MAX = "fdtable" ["max_fds"] required;
            FDT_FD = "fdtable" ["fd"] required;
            FDT_CLOSE_ON_EXEC = "fdtable" ["close_on_exec"] required;
            // include/linux/fs.h
            FILE_INODE = "file" ["f_inode"] required;
            FILE_MODE = "file" ["f_mode"] required;
            FILE_PRIVATE = "file" ["private_data"] required;
            // The first up to 6.12, the second from 6.13 on.
            FILE_COUNT = "file" ["f_count"] optional;
            FILE_REF = "file" ["f_ref.refcnt"] optional;
            KIOCB_FILE = "kiocb" ["ki_filp"] required;
            INODE_MODE = "inode" ["i_mode"] required;
            INODE_NUMBER = "inode" ["i_ino"] required;
            INODE_SB = "inode" ["i_sb"] required;
            SB_MAGIC = "super_block" ["s_magic"] required;
            SB_DEV = "super_block" ["s_dev"] required;
            // include/linux/pipe_fs_i.h; head and tail stand in an anonymous union since 6.13.
            PIPE_HEAD = "pipe_inode_info" ["head"] required;
            PIPE_TAIL = "pipe_inode_info" ["tail"] required;
            PIPE_MAX_USAGE = "pipe_inode_info" ["max_usage"] required;
            PIPE_RING_SIZE = "pipe_inode_info" ["ring_size"] required;
            PIPE_BUFS = "pipe_inode_info" ["bufs"] required;
            PIPE_WRITERS = "pipe_inode_info" ["writers"] required;
            PIPE_WAITERS = "pipe_inode_info" ["wr_wait.head"] required;
            BUF_OFFSET = "pipe_buffer" ["offset"] required;
            BUF_LEN = "pipe_buffer" ["len"] required;
            BUF_SIZE = "pipe_buffer" [""] required;
            // include/linux/wait.h
            WAITER_TASK = "wait_queue_entry" ["private"] required;
            WAITER_ENTRY = "wait_queue_entry" ["entry"] required;
            // include/linux/net.h, include/net/sock.h
            SOCKET_SK = "socket" ["sk"] required;
            SOCKET_FILE = "socket" ["file"] required;
            SK_TYPE = "sock" ["sk_type"] required;
            SK_FAMILY = "sock" ["__sk_common.skc_family"] required;
            SK_RECEIVE_QUEUE = "sock" ["sk_receive_queue.next"] required;
            SK_RECEIVE_QUEUE_LAST = "sock" ["sk_receive_queue.prev"] required;
            SK_WQ = "sock" ["sk_wq"] required;
            WQ_WAITERS = "socket_wq" ["wait.head"] required;
            SK_WMEM = "sock" ["sk_wmem_alloc"] required;
            SK_SNDBUF = "sock" ["sk_sndbuf"] required;
            SK_PROTOCOL = "sock" ["sk_protocol"] required;
            SK_SOCKET = "sock" ["sk_socket"] required;
            SK_WMEM_QUEUED = "sock" ["sk_wmem_queued"] required;
            SK_DPORT = "sock" ["__sk_common.skc_dport"] required;
            SK_DADDR = "sock" ["__sk_common.skc_daddr"] required;
            // Only with CONFIG_IPV6.
            SK_V6_DADDR = "sock" ["__sk_common.skc_v6_daddr"] optional;
            // include/linux/tcp.h
            TCP_WRITE_SEQ = "tcp_sock" ["write_seq"] required;
            TCP_SND_UNA = "tcp_sock" ["snd_una"] required;
            TCP_SND_WND = "tcp_sock" ["snd_wnd"] required;
            // include/net/af_unix.h
            UNIX_PEER = "unix_sock" ["peer"] required;
            SKB_NEXT = "sk_buff" ["next"] required;
            SKB_CB = "sk_buff" ["cb"] required;
            SKB_TRUESIZE = "sk_buff" ["truesize"] required;
            UNIX_CONSUMED = "unix_skb_parms" ["consumed"] required;
            // arch/x86/include/asm/ptrace.h; arch/arm64/include/asm/ptrace.h
            REGS_SYSCALL = "pt_regs" ["orig_ax", "syscallno"] required;
            REGS_ARG0 = "pt_regs" ["di", "regs"] required;
            REGS_ARG1 = "pt_regs" ["si", "regs+8"] required;
            REGS_ARG2 = "pt_regs" ["dx", "regs+16"] required;
            REGS_ARG4 = "pt_regs" ["r8", "regs+32"] required;
            // What the call has returned, and what is there until it has: -ENOSYS on x86-64, on aarch64
            // still its first argument.
            REGS_RESULT = "pt_regs" ["ax", "regs"] required;
            REGS_ORIG_ARG0 = "pt_regs" ["orig_x0", "di"] required;
            REGS_SIZE = "pt_regs" [""] required;
            // kernel/bpf/bpf_iter.c
            ITER_SEQ_NUM = "bpf_iter_meta" ["seq_num"] required;
            ITER_SEQ = "bpf_iter_meta" ["seq"] required;
        }
    };
}

macro_rules! table {
    ($($symbol:ident = $of:literal [$($path:literal),+] $need:ident;)+) => {
        /// All of them, in the order of [`with_fields`].
        pub const FIELDS: &[Field] = &[$(Field {
            symbol: stringify!($symbol),
            of: $of,
            paths: &[$($path),+],
            optional: table!(@ $need),
        }),+];
    };
    (@ required) => { false };
    (@ optional) => { true };
}

with_fields!(table);
