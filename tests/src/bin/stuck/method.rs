//! Ways to write: one for each syscall that can block on a channel.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::{ReadWriteFlags, pwritev2, writev};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrUnix, send, sendmmsg, sendmsg, sendto};
use rustix::pipe::{
    IoSliceRaw, PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee, vmsplice,
};

/// A syscall of the write class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Method {
    Write,
    Writev,
    Pwritev2,
    /// Sockets only.
    Sendto,
    /// Sockets only.
    Sendmsg,
    /// Sockets only.
    Sendmmsg,
    Splice,
    /// Pipes only.
    Tee,
    /// Pipes only.
    Vmsplice,
    Sendfile,
}

/// Where the bytes come from, prepared for one method.
#[derive(Debug)]
pub(crate) struct Source {
    method: Method,
    /// Whom sendto names, if anybody.
    receiver: Option<SocketAddrUnix>,
    /// What is written, or mapped by vmsplice: never changed.
    bytes: Vec<u8>,
    /// A file with the bytes, for sendfile.
    file: Option<File>,
    /// A pipe, empty for splice, full for tee; filled by others where its writing end is not here.
    pipe: Option<(OwnedFd, Option<OwnedFd>)>,
}

impl Source {
    pub(crate) fn new(method: Method, chunk: usize) -> io::Result<Self> {
        let bytes = vec![b'x'; chunk];
        let mut source = Self {
            method,
            receiver: None,
            bytes,
            file: None,
            pipe: None,
        };
        match method {
            Method::Sendfile => {
                let mut file = File::from(memfd_create("stuck", MemfdFlags::CLOEXEC)?);
                file.write_all(&source.bytes)?;
                source.file = Some(file);
            }
            Method::Splice | Method::Tee => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                fcntl_setpipe_size(&write, chunk)?;
                if method == Method::Tee {
                    fill(&write, &source.bytes)?;
                }
                source.pipe = Some((read, Some(write)));
            }
            Method::Write
            | Method::Writev
            | Method::Pwritev2
            | Method::Sendto
            | Method::Sendmsg
            | Method::Sendmmsg
            | Method::Vmsplice => {}
        }
        Ok(source)
    }

    /// Has sendto name a receiver, other than the socket's peer perhaps.
    pub(crate) fn to(self, receiver: &Path) -> io::Result<Self> {
        Ok(Self {
            receiver: Some(SocketAddrUnix::new(receiver)?),
            ..self
        })
    }

    /// Has splice and tee take from this pipe.
    pub(crate) fn from(self, pipe: OwnedFd) -> Self {
        Self {
            pipe: Some((pipe, None)),
            ..self
        }
    }

    /// Writes up to `len` bytes with one call of the method.
    pub(crate) fn push(&mut self, out: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
        let bytes = self.bytes.get(..len).unwrap_or(&self.bytes);
        let slices = [IoSlice::new(bytes)];
        let none = SendFlags::empty();
        let written = match self.method {
            Method::Write => rustix::io::write(out, bytes)?,
            Method::Writev => writev(out, &slices)?,
            // All ones is "no offset": what a pipe needs, which has none.
            Method::Pwritev2 => pwritev2(out, &slices, u64::MAX, ReadWriteFlags::empty())?,
            Method::Sendto => match &self.receiver {
                Some(receiver) => sendto(out, bytes, none, receiver)?,
                None => send(out, bytes, none)?,
            },
            Method::Sendmsg => sendmsg(out, &slices, &mut SendAncillaryBuffer::default(), none)?,
            Method::Sendmmsg => {
                let mut ancillary = SendAncillaryBuffer::default();
                let sent = sendmmsg(out, &mut [MMsgHdr::new(&slices, &mut ancillary)], none)?;
                sent * bytes.len()
            }
            Method::Splice => {
                let (read, write) = self.pipe()?;
                if let Some(write) = write
                    && rustix::io::ioctl_fionread(read)? == 0
                {
                    fill(write, bytes)?;
                }
                splice(read, None, out, None, bytes.len(), SpliceFlags::empty())?
            }
            Method::Tee => tee(&self.pipe()?.0, out, bytes.len(), SpliceFlags::empty())?,
            Method::Vmsplice => {
                // SAFETY: the pages mapped into the pipe belong to `self.bytes`, which is never
                // changed and lives for as long as the writer does.
                unsafe { vmsplice(out, &[IoSliceRaw::from_slice(bytes)], SpliceFlags::empty())? }
            }
            Method::Sendfile => {
                let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
                sendfile(out, file, Some(&mut 0), bytes.len())?
            }
        };
        Ok(written)
    }

    fn pipe(&self) -> io::Result<&(OwnedFd, Option<OwnedFd>)> {
        self.pipe.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Writes all bytes into a pipe that has room for them.
fn fill(pipe: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&pipe, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}
