//! Who holds the reading ends of channels: one walk over all open files answers for any number
//! of writers, and `/proc` tells what those who were found do.
//!
//! A unix socket is read from by whoever holds the socket that it is connected to. Nothing here
//! is trusted for identity, and nobody found means that nobody is known.

mod people;

use std::{
    collections::{BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
};

use probe_ebpf::{
    ABI_VERSION, AF_INET,
    record::{ChannelKind, END_CLOSES, END_EXECED, END_READS, FileRecord, FullQueue, OpenEnd},
};
use procfs::process::{FDTarget, Process as ProcProcess};

pub use self::people::People;
use super::kernel::ProbeError;
use crate::core::{
    model::{Channel, Process},
    reader::{Client, End, Readership},
};

/// The first descriptor that is no standard stream.
const FIRST_UNNAMED: u32 = 3;

/// So many clients of one process are kept.
const MAX_CLIENTS: usize = 1024;

/// All ends of channels that any process holds, at one moment.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// In the order of process and descriptor.
    ends: Vec<OpenEnd>,
    /// Their places, in the order of [`key`].
    by_channel: Vec<u32>,
    clients: HashMap<Process, Vec<Client>>,
}

/// What ends of one channel, or of one socket, have in common. There is one file system of
/// anonymous pipes and one of sockets.
const fn key(end: &OpenEnd) -> (u8, u32, u64) {
    let dev = if end.channel == ChannelKind::Fifo as u8 {
        end.dev
    } else {
        0
    };
    (end.channel, dev, end.inode)
}

impl OpenFiles {
    /// Takes in what the kernel's walk wrote.
    ///
    /// # Errors
    /// It is not of this version.
    pub(super) fn from_records(mut bytes: &[u8]) -> Result<Self, ProbeError> {
        let mismatch = |error: probe_ebpf::record::DecodeError| ProbeError::Mismatch(error.as_str());
        let mut ends = Vec::new();
        let mut clients: HashMap<Process, Vec<Client>> = HashMap::new();
        let mut begun = false;
        while !bytes.is_empty() {
            let (record, rest) = FileRecord::from_bytes(bytes).map_err(mismatch)?;
            match record {
                FileRecord::Header(header) if header.abi == ABI_VERSION => begun = true,
                FileRecord::Header(_) => return Err(ProbeError::Mismatch("it is of another version")),
                FileRecord::End(end) => ends.push(end),
                FileRecord::Queue(queue) => {
                    let clients = clients.entry(process_of(queue.tgid, queue.start)).or_default();
                    if clients.len() < MAX_CLIENTS {
                        clients.push(client(&queue));
                    }
                }
            }
            bytes = rest;
        }
        if !begun {
            return Err(ProbeError::Mismatch("a walk without its header"));
        }
        Ok(Self::new(ends, clients))
    }

    /// Walks `/proc`, where the kernel cannot be asked. It shows the processes that the caller may
    /// trace; not who is at the other end of a socket, nor whether a client takes nothing.
    #[must_use]
    pub fn from_proc() -> Self {
        let mut ends = Vec::new();
        for process in procfs::process::all_processes().into_iter().flatten().flatten() {
            if process.pid.unsigned_abs() != std::process::id() {
                ends.extend(ends_of(&process).unwrap_or_default());
            }
        }
        Self::new(ends, HashMap::new())
    }

    fn new(mut ends: Vec<OpenEnd>, clients: HashMap<Process, Vec<Client>>) -> Self {
        ends.sort_unstable_by_key(|end| (end.tgid, end.fd));
        let mut by_channel: Vec<u32> = (0..).take(ends.len()).collect();
        by_channel.sort_unstable_by_key(|at| key(&ends[*at as usize]));
        Self {
            ends,
            by_channel,
            clients,
        }
    }

    /// How many ends there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Who should read from these channels and, where such a one is asleep in a write itself,
    /// who should read from there.
    #[must_use]
    pub fn readership(&self, channels: &[Channel], people: &mut People) -> Readership {
        let mut found = Readership::default();
        let mut asked: Vec<_> = channels.to_vec();
        let mut seen = BTreeSet::new();
        while let Some(channel) = asked.pop() {
            if found.ends.contains_key(&channel) {
                continue;
            }
            let ends = self.readers_of(channel, people);
            for end in &ends {
                let process = end.process;
                if !seen.insert(process) {
                    continue;
                }
                found.people.insert(process, people.see(process));
                let writing: Vec<_> = people::blocked_writes(process.tgid)
                    .into_iter()
                    .filter_map(|fd| self.channel_of(process.tgid, fd))
                    .collect();
                if !writing.is_empty() {
                    asked.extend(&writing);
                    found.writing.insert(process, writing);
                }
                if let Some(clients) = self.clients.get(&process) {
                    found.clients.insert(process, clients.clone());
                }
            }
            found.ends.insert(channel, ends);
        }
        found
    }

    fn readers_of(&self, channel: Channel, people: &mut People) -> Vec<End> {
        let own = (channel.kind as u8, channel.dev, channel.inode);
        let writers = || self.of(own);
        let wanted = if channel.kind == ChannelKind::Unix {
            let Some(peer) = writers().map(|end| end.peer).find(|peer| *peer != 0) else {
                return Vec::new();
            };
            (own.0, own.1, peer)
        } else {
            own
        };
        let mut readers: Vec<End> = Vec::new();
        for end in self.of(wanted).filter(|end| end.flags & END_READS != 0) {
            let process = process_of(end.tgid, end.start);
            let inherited = may_be_inherited(end)
                && !people.names(process, end.fd)
                && !writers().any(|writer| writer.tgid != end.tgid && people.descends(writer.tgid, end.tgid));
            match readers.iter_mut().find(|known| known.process == process) {
                // Each at its lowest descriptor; by accident only if they all are.
                Some(known) => known.inherited &= inherited,
                None => readers.push(End {
                    process,
                    fd: end.fd,
                    inherited,
                }),
            }
        }
        readers
    }

    fn of(&self, (channel, dev, inode): (u8, u32, u64)) -> impl Iterator<Item = &OpenEnd> {
        let dev = if channel == ChannelKind::Fifo as u8 {
            dev
        } else {
            0
        };
        let wanted = (channel, dev, inode);
        let at = |place: &u32| &self.ends[*place as usize];
        let from = self.by_channel.partition_point(|place| key(at(place)) < wanted);
        self.by_channel[from..]
            .iter()
            .map(at)
            .take_while(move |end| key(end) == wanted)
    }

    fn channel_of(&self, tgid: u32, fd: u32) -> Option<Channel> {
        let at = self
            .ends
            .binary_search_by_key(&(tgid, fd), |end| (end.tgid, end.fd))
            .ok()?;
        let end = self.ends.get(at)?;
        Some(Channel {
            kind: ChannelKind::from_u8(end.channel)?,
            dev: end.dev,
            inode: end.inode,
        })
    }
}

/// Whether a program may have been started with the descriptor open: it is no standard stream,
/// an exec keeps it, and there has been one.
const fn may_be_inherited(end: &OpenEnd) -> bool {
    end.fd >= FIRST_UNNAMED && end.flags & END_CLOSES == 0 && end.flags & END_EXECED != 0
}

const fn process_of(tgid: u32, start: u64) -> Process {
    Process { tgid, start }
}

fn client(queue: &FullQueue) -> Client {
    let [a, b, c, d, ..] = queue.address;
    let address = if queue.family == AF_INET {
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        // A server that listens on both sees IPv4 in this guise.
        Ipv6Addr::from(queue.address).to_canonical()
    };
    Client {
        fd: queue.fd,
        peer: SocketAddr::new(address, queue.port),
        queued: queue.queued,
        window: queue.window,
    }
}

fn ends_of(process: &ProcProcess) -> Option<Vec<OpenEnd>> {
    /// `O_CLOEXEC` in the flags of `/proc/PID/fdinfo/FD` (include/uapi/asm-generic/fcntl.h).
    const CLOEXEC: u32 = 0o2_000_000;
    let stat = process.stat().ok()?;
    let end = |file: procfs::process::FDInfo| -> Option<OpenEnd> {
        let link = format!("/proc/{}/fd/{}", process.pid, file.fd);
        let channel = match &file.target {
            FDTarget::Pipe(_) => ChannelKind::Pipe,
            FDTarget::Socket(_) => ChannelKind::Unix,
            FDTarget::Path(_) => ChannelKind::Fifo,
            FDTarget::Net(_)
            | FDTarget::AnonInode(_)
            | FDTarget::MemFD(_)
            | FDTarget::Other(..)
            | FDTarget::Unknown(..) => return None,
        };
        let meta = std::fs::metadata(&link).ok()?;
        if channel == ChannelKind::Fifo && !meta.file_type().is_fifo() {
            return None;
        }
        // The link's own mode says for what the file is open (fs/proc/fd.c, `proc_fd_link`).
        let readable = std::fs::symlink_metadata(&link).ok()?.permissions().mode() & 0o400 != 0;
        let mut flags = END_EXECED;
        if readable {
            flags |= END_READS;
        }
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", process.pid, file.fd)).ok()?;
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        if u32::from_str_radix(octal, 8).ok()? & CLOEXEC != 0 {
            flags |= END_CLOSES;
        }
        Some(OpenEnd {
            tgid: u32::try_from(process.pid).ok()?,
            start: Process::from_ticks(0, stat.starttime).start,
            inode: meta.ino(),
            dev: device(meta.dev()),
            fd: u32::try_from(file.fd).ok()?,
            channel: channel as u8,
            flags,
            ..OpenEnd::default()
        })
    };
    Some(process.fd().ok()?.flatten().filter_map(end).collect())
}

/// A device as the kernel packs it (`MKDEV`, `include/linux/kdev_t.h`).
pub(super) fn device(dev: u64) -> u32 {
    rustix::fs::major(dev) << 20 | rustix::fs::minor(dev)
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    #[test]
    fn proc_shows_both_ends_of_a_pipe_and_which_is_for_reading() {
        let (reader, writer) = pipe().unwrap();
        let own = ProcProcess::myself().unwrap();
        let find = |fd: &dyn std::os::fd::AsRawFd| {
            let fd = u32::try_from(fd.as_raw_fd()).unwrap();
            ends_of(&own)
                .unwrap()
                .into_iter()
                .find(|end| end.fd == fd)
                .unwrap()
        };
        let (reading, writing) = (find(&reader), find(&writer));

        assert_eq!((reading.inode, reading.dev), (writing.inode, writing.dev));
        assert_eq!(reading.flags & END_READS, END_READS);
        assert_eq!(writing.flags & END_READS, 0);
        assert_eq!(reading.flags & END_CLOSES, END_CLOSES);
    }

    #[test]
    fn an_address_of_ipv4_in_the_guise_of_ipv6_is_shown_as_ipv4() {
        let mut queue = FullQueue {
            family: probe_ebpf::AF_INET6,
            port: 80,
            ..FullQueue::default()
        };
        queue.address[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        assert_eq!(client(&queue).peer.to_string(), "127.0.0.1:80");
        queue.address = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(client(&queue).peer.to_string(), "[::1]:80");
        queue.family = AF_INET;
        queue.address[..4].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(client(&queue).peer.to_string(), "10.0.0.1:80");
    }

    #[test]
    fn readers_of_a_socket_hold_the_one_that_it_is_connected_to() {
        let end = |tgid, inode, peer| OpenEnd {
            tgid,
            inode,
            peer,
            fd: 5,
            channel: ChannelKind::Unix as u8,
            flags: END_READS,
            ..OpenEnd::default()
        };
        let all = OpenFiles::new(
            vec![
                end(10, 100, 101),
                end(11, 101, 100),
                end(12, 101, 100),
                end(13, 102, 0),
            ],
            HashMap::new(),
        );
        let channel = Channel {
            kind: ChannelKind::Unix,
            dev: 8,
            inode: 100,
        };
        let readers = all.readers_of(channel, &mut People::default());
        let pids: Vec<_> = readers.iter().map(|end| end.process.tgid).collect();
        assert_eq!(pids, [11, 12]);
    }
}
