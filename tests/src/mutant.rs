//! A kernel's type information with one thing in it made wrong, to see who notices.

use std::fs;
use std::path::PathBuf;

use crate::scratch::Scratch;

/// Kinds of include/uapi/linux/btf.h.
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;
const PARAMETER_LEN: usize = 8;

/// The bytes of a kernel's type information.
#[derive(Debug, Clone)]
pub struct Btf(Vec<u8>);

impl Btf {
    /// Reads that of the running kernel.
    ///
    /// # Errors
    /// Why not.
    pub fn of_this_kernel() -> Result<Self, String> {
        const PATH: &str = "/sys/kernel/btf/vmlinux";
        fs::read(PATH)
            .map(Self)
            .map_err(|error| format!("{PATH}: {error}"))
    }

    /// Writes it to a file.
    pub fn file(&self, scratch: &Scratch, name: &str) -> PathBuf {
        let path = scratch.path(name);
        fs::write(&path, &self.0).expect("a file");
        path
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Says whether a struct has a member.
    pub fn has_member(&self, of: &str, member: &str) -> bool {
        !self.members(of, member).is_empty()
    }

    /// The same with a member of a struct moved on by some bytes. Members of anonymous members count as
    /// the struct's own, as they do for who reads them.
    #[must_use]
    pub fn with_member_moved(&self, of: &str, member: &str, bytes: u32) -> Self {
        self.with_member_at(of, member, |bits| bits + bytes * 8)
    }

    /// The same with a member of a struct where another is said to be, which lies within a member
    /// of its own type.
    #[must_use]
    pub fn with_member_for(&self, of: &str, member: &str, (holder, its, inner): (&str, &str, &str)) -> Self {
        let bits = |of, member| self.word(self.existing(of, member)[0] + 8);
        let there = bits(of, holder) + bits(its, inner);
        self.with_member_at(of, member, |_| there)
    }

    /// The same with a struct that lacks a member: it is still there, and has no name.
    #[must_use]
    pub fn without_member(&self, of: &str, member: &str) -> Self {
        let mut bytes = self.0.clone();
        for at in self.existing(of, member) {
            // The empty name is the first of all.
            bytes[at..at + 4].fill(0);
        }
        Self(bytes)
    }

    /// The same with the types of two parameters of a function exchanged; the function is the one
    /// whose pointer a typedef names.
    #[must_use]
    pub fn with_parameters_exchanged(&self, typedef: &str, one: usize, other: usize) -> Self {
        let types: Vec<_> = self.types().collect();
        let of_id = |id: u32| types[id as usize - 1];
        let named = types
            .iter()
            .find(|(at, kind, _)| *kind == KIND_TYPEDEF && self.name(self.word(*at)) == typedef);
        let (at, ..) = *named.unwrap_or_else(|| panic!("no {typedef} in the kernel's types"));
        let (pointer, kind, _) = of_id(self.word(at + 8));
        assert_eq!(kind, KIND_PTR, "{typedef} names a pointer");
        let (function, kind, len) = of_id(self.word(pointer + 8));
        assert_eq!(kind, KIND_FUNC_PROTO, "{typedef} names a pointer to a function");
        assert!(one.max(other) < len, "{typedef} takes {len} parameters");
        let [one, other] = [one, other].map(|which| function + TYPE_LEN + which * PARAMETER_LEN + 4);
        let mut bytes = self.0.clone();
        bytes.copy_within(one..one + 4, other);
        bytes[one..one + 4].copy_from_slice(&self.0[other..other + 4]);
        Self(bytes)
    }

    /// The same without a function of any of these names.
    #[must_use]
    pub fn without_functions(&self, names: &[&str]) -> Self {
        let mut bytes = self.0.clone();
        for (at, kind, _) in self.types() {
            if kind == KIND_FUNC && names.contains(&self.name(self.word(at))) {
                // The empty name is the first of all.
                bytes[at..at + 4].fill(0);
            }
        }
        Self(bytes)
    }

    /// Where the descriptions of a struct's members of a name begin; kernels may have several such structs.
    fn members(&self, of: &str, member: &str) -> Vec<usize> {
        let types: Vec<_> = self.types().collect();
        let mut structs: Vec<_> = types
            .iter()
            .filter(|(at, kind, _)| *kind == KIND_STRUCT && self.name(self.word(*at)) == of)
            .copied()
            .collect();
        let mut found = Vec::new();
        while let Some((at, _, len)) = structs.pop() {
            for at in (0..len).map(|i| at + TYPE_LEN + i * MEMBER_LEN) {
                match self.name(self.word(at)) {
                    name if name == member => found.push(at),
                    "" => {
                        let id = self.word(at + 4) as usize;
                        let inner = types.get(id.wrapping_sub(1));
                        structs
                            .extend(inner.filter(|(_, kind, _)| matches!(*kind, KIND_STRUCT | KIND_UNION)));
                    }
                    _ => {}
                }
            }
        }
        found
    }

    fn existing(&self, of: &str, member: &str) -> Vec<usize> {
        let found = self.members(of, member);
        assert!(!found.is_empty(), "no {of}.{member} in the kernel's types");
        found
    }

    fn with_member_at(&self, of: &str, member: &str, bits: impl Fn(u32) -> u32) -> Self {
        let mut moved = self.0.clone();
        for at in self.existing(of, member) {
            moved[at + 8..at + 12].copy_from_slice(&bits(self.word(at + 8)).to_ne_bytes());
        }
        Self(moved)
    }

    /// Where each type begins, its kind, and the number of what it consists of.
    fn types(&self) -> impl Iterator<Item = (usize, u32, usize)> {
        let begin = self.word(4) as usize + self.word(8) as usize;
        let end = begin + self.word(12) as usize;
        let mut at = begin;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let info = self.word(at + 4);
            let (kind, len) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let extra = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => len * MEMBER_LEN,
                6 | 13 => len * 8,
                _ => 0,
            };
            let found = (at, kind, len);
            at += TYPE_LEN + extra;
            Some(found)
        })
    }

    fn name(&self, offset: u32) -> &str {
        let strings = self.word(4) as usize + self.word(16) as usize;
        let tail = &self.0[strings + offset as usize..];
        let end = tail.iter().position(|byte| *byte == 0).expect("names end");
        std::str::from_utf8(&tail[..end]).expect("names are text")
    }

    fn word(&self, at: usize) -> u32 {
        debug_assert!(HEADER_LEN <= self.0.len());
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}
