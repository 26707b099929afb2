//! Reads what is needed of the kernel's own type information: where a field lies
//! in a struct, and what a tracepoint passes.
//!
//! The format is that of Documentation/bpf/btf.rst. aya reads it too, but shows
//! no struct members; this reader takes one pass over the bytes and keeps only an
//! offset for each type, and the names. It knows nothing of pipestall's fields.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;

/// Kinds of include/uapi/linux/btf.h that matter here.
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;

const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;

/// Why a file is no usable BTF.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes end early, do not begin as BTF does, or contradict themselves.
    #[error("not BTF, or a damaged file: {0}")]
    Malformed(&'static str),
    /// A type of a kind that is newer than this reader, so what follows cannot be found.
    #[error("type {id} is of kind {kind}, which this version does not know")]
    UnknownKind {
        /// The type's number.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// A kernel's type information.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; type numbers count from 1.
    at: Vec<u32>,
    /// The number of the first type of each kind and name; functions, which are half of all types, are not here.
    named: HashMap<(u32, &'a [u8]), u32>,
    /// The name of each function.
    functions: Vec<u32>,
}

/// A type, located.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    flag: bool,
    len: usize,
    /// Size in bytes, or the number of the type that is referred to.
    size_or_id: u32,
    /// What follows the common part.
    extra: &'a [u8],
}

/// A parameter of a function type, as far as it takes to tell prototypes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// A pointer to the named struct.
    StructPtr(String),
    /// Any other pointer.
    Ptr,
    /// Anything passed by value.
    Value,
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StructPtr(name) => write!(f, "struct {name} *"),
            Self::Ptr => f.write_str("void *"),
            Self::Value => f.write_str("value"),
        }
    }
}

impl<'a> Btf<'a> {
    /// Takes the bytes of `/sys/kernel/btf/vmlinux` or a file like it.
    ///
    /// # Errors
    /// See [`BtfError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let header = bytes
            .get(..HEADER_LEN)
            .ok_or(BtfError::Malformed("shorter than its header"))?;
        if header[..2] != 0xeb9f_u16.to_ne_bytes() {
            return Err(BtfError::Malformed("no BTF magic number at its start"));
        }
        let word = |i: usize| u32_at(header, i).map(|v| v as usize);
        let body = bytes
            .get(word(4)?..)
            .ok_or(BtfError::Malformed("header longer than the file"))?;
        let section = |offset: usize, len: usize| {
            body.get(offset..offset.saturating_add(len))
                .ok_or(BtfError::Malformed("a section ends beyond the file"))
        };
        let types = section(word(8)?, word(12)?)?;
        let strings = section(word(16)?, word(20)?)?;

        let mut at = Vec::with_capacity(types.len() / 24);
        let mut named = HashMap::new();
        let mut functions = Vec::new();
        let mut offset = 0;
        while offset < types.len() {
            let id = u32::try_from(at.len() + 1).map_err(|_| BtfError::Malformed("too many types"))?;
            let ty = Type::read(types, offset)?;
            at.push(u32::try_from(offset).map_err(|_| BtfError::Malformed("type section over 4 GiB"))?);
            match ty.kind {
                KIND_FUNC => functions.push(ty.name),
                KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF => {
                    if let Some(name) = name_at(strings, ty.name) {
                        named.entry((ty.kind, name)).or_insert(id);
                    }
                }
                _ => {}
            }
            offset += TYPE_LEN
                + ty.extra_len()
                    .ok_or(BtfError::UnknownKind { id, kind: ty.kind })?;
        }
        if offset != types.len() {
            return Err(BtfError::Malformed("the last type is cut short"));
        }
        Ok(Self {
            types,
            strings,
            at,
            named,
            functions,
        })
    }

    /// The size of a struct in bytes.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u64> {
        self.named(KIND_STRUCT, name).map(|ty| u64::from(ty.size_or_id))
    }

    /// Where a field lies, in bytes from the start of the struct that is named.
    ///
    /// `path` names it through embedded structs by dots; anonymous structs and
    /// unions on the way are walked by themselves. `None` where the struct or the
    /// field does not exist, or is a bit field.
    #[must_use]
    pub fn offset_of(&self, of: &str, path: &str) -> Option<u64> {
        let mut ty = self.named(KIND_STRUCT, of)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (bits, member) = self.member(ty, name, 0)?;
            offset += bits;
            // A last part that is no struct leaves this unused.
            ty = self.resolve(member)?;
        }
        (offset % 8 == 0).then_some(offset / 8)
    }

    /// The parameters of the function type behind a typedef, such as `btf_trace_sched_switch`.
    #[must_use]
    pub fn prototype(&self, typedef: &str) -> Option<Vec<Param>> {
        let pointer = self.resolve(self.named(KIND_TYPEDEF, typedef)?.size_or_id)?;
        let proto = self
            .get(pointer.size_or_id)
            .filter(|t| t.kind == KIND_FUNC_PROTO)?;
        (0..proto.len)
            .map(|i| Some(self.param(u32_at(proto.extra, i * 8 + 4).ok()?)))
            .collect()
    }

    /// Which of these functions the kernel has, so that they can be traced by type.
    #[must_use]
    pub fn functions<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        let all = self.functions.iter().filter_map(|at| name_at(self.strings, *at));
        let found: Vec<_> = all
            .filter(|function| names.iter().any(|name| name.as_bytes() == *function))
            .collect();
        let is_found = |name: &&&str| found.contains(&name.as_bytes());
        names.iter().filter(is_found).copied().collect()
    }

    /// Whether an enum has an enumerator of this name.
    #[must_use]
    pub fn has_enumerator(&self, of: &str, name: &str) -> bool {
        self.named(KIND_ENUM, of).is_some_and(|ty| {
            let mut names = (0..ty.len).filter_map(|i| u32_at(ty.extra, i * 8).ok());
            names.any(|at| self.name(at) == Some(name))
        })
    }

    fn param(&self, id: u32) -> Param {
        match self.resolve(id) {
            Some(ty) if ty.kind == KIND_PTR => match self.resolve(ty.size_or_id) {
                Some(target) if target.kind == KIND_STRUCT => {
                    Param::StructPtr(self.name(target.name).unwrap_or_default().to_owned())
                }
                _ => Param::Ptr,
            },
            _ => Param::Value,
        }
    }

    /// Finds a member by name, through anonymous members: (offset in bits, its type's number).
    fn member(&self, ty: Type<'a>, name: &str, depth: u8) -> Option<(u64, u32)> {
        // Real kernels nest a handful deep; a cycle in a damaged file must end.
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > 16 {
            return None;
        }
        (0..ty.len).find_map(|i| {
            let member = ty.extra.get(i * MEMBER_LEN..)?;
            let id = u32_at(member, 4).ok()?;
            let raw = u32_at(member, 8).ok()?;
            let (bits, is_bit_field) = if ty.flag {
                (raw & 0x00ff_ffff, raw >> 24 != 0)
            } else {
                (raw, false)
            };
            match self.name(u32_at(member, 0).ok()?)? {
                "" => {
                    let (inner, id) = self.member(self.resolve(id)?, name, depth + 1)?;
                    Some((u64::from(bits) + inner, id))
                }
                found if found == name && !is_bit_field => Some((u64::from(bits), id)),
                _ => None,
            }
        })
    }

    fn named(&self, kind: u32, name: &str) -> Option<Type<'a>> {
        self.get(*self.named.get(&(kind, name.as_bytes()))?)
    }

    /// The type itself, behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type<'a>> {
        let mut ty = self.get(id)?;
        for _ in 0..32 {
            match ty.kind {
                // typedef, volatile, const, restrict, type tag
                8..=11 | 18 => ty = self.get(ty.size_or_id)?,
                _ => return Some(ty),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let at = self.at.get(id.checked_sub(1)? as usize)?;
        Type::read(self.types, *at as usize).ok()
    }

    fn name(&self, at: u32) -> Option<&'a str> {
        std::str::from_utf8(name_at(self.strings, at)?).ok()
    }
}

fn name_at(strings: &[u8], at: u32) -> Option<&[u8]> {
    let name = CStr::from_bytes_until_nul(strings.get(at as usize..)?).ok()?;
    Some(name.to_bytes())
}

impl<'a> Type<'a> {
    fn read(types: &'a [u8], at: usize) -> Result<Self, BtfError> {
        let bytes = types
            .get(at..)
            .ok_or(BtfError::Malformed("a type lies beyond its section"))?;
        let info = u32_at(bytes, 4)?;
        let mut ty = Self {
            name: u32_at(bytes, 0)?,
            kind: (info >> 24) & 0x1f,
            flag: info >> 31 != 0,
            len: (info & 0xffff) as usize,
            size_or_id: u32_at(bytes, 8)?,
            extra: &[],
        };
        let extra = ty.extra_len().unwrap_or(0);
        ty.extra = bytes
            .get(TYPE_LEN..TYPE_LEN + extra)
            .ok_or(BtfError::Malformed("a type is cut short"))?;
        Ok(ty)
    }

    /// Bytes that follow the common part; `None` for kinds that are not known.
    fn extra_len(&self) -> Option<usize> {
        Some(match self.kind {
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            // integer, variable, declaration tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            // struct, union, section, 64-bit enum
            4 | 5 | 15 | 19 => self.len * MEMBER_LEN,
            // enum, function type
            6 | 13 => self.len * 8,
            _ => return None,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Malformed("cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Puts together a small BTF: strings by name, types as (name, kind/flag/len, size/type, extra words).
    #[derive(Default)]
    struct Builder {
        strings: Vec<u8>,
        types: Vec<u8>,
    }

    impl Builder {
        fn string(&mut self, s: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if s.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend_from_slice(s.as_bytes());
            self.strings.push(0);
            at
        }

        fn ty(&mut self, name: &str, kind: u32, len: u32, size_or_id: u32, extra: &[u32]) {
            let name = self.string(name);
            for word in [name, kind << 24 | len, size_or_id].iter().chain(extra) {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }

        fn build(&self) -> Vec<u8> {
            let types = u32::try_from(self.types.len()).unwrap();
            let strings = u32::try_from(self.strings.len()).unwrap();
            let mut out = 0xeb9f_u16.to_ne_bytes().to_vec();
            out.extend_from_slice(&[1, 0]);
            for word in [24, 0, types, types, strings] {
                out.extend_from_slice(&word.to_ne_bytes());
            }
            out.extend_from_slice(&self.types);
            out.extend_from_slice(&self.strings);
            out
        }
    }

    /// `struct outer { int a; union { struct { int b; int c; }; long bc; }; struct inner in; }`
    /// and `typedef void (*fn)(void *, bool, struct outer *)`.
    fn sample() -> Vec<u8> {
        let mut b = Builder::default();
        let [a, bee, c, bc, inn, x] = ["a", "b", "c", "bc", "in", "x"].map(|s| b.string(s));
        b.ty("int", 1, 0, 4, &[0]); // 1
        b.ty("", 4, 2, 8, &[bee, 1, 0, c, 1, 32]); // 2: anonymous struct
        b.ty("", 5, 2, 8, &[0, 2, 0, bc, 1, 0]); // 3: anonymous union
        b.ty("inner", 4, 1, 8, &[x, 1, 32]); // 4
        b.ty("inner_t", 8, 0, 4, &[]); // 5
        b.ty("outer", 4, 3, 20, &[a, 1, 0, 0, 3, 32, inn, 5, 96]); // 6
        b.ty("", 2, 0, 6, &[]); // 7: struct outer *
        b.ty("", 2, 0, 0, &[]); // 8: void *
        b.ty("", 13, 3, 0, &[0, 8, 0, 1, 0, 7]); // 9
        b.ty("", 2, 0, 9, &[]); // 10
        b.ty("fn", 8, 0, 10, &[]); // 11
        let [one, two] = ["ONE", "TWO"].map(|s| b.string(s));
        b.ty("number", 6, 2, 4, &[one, 1, two, 2]); // 12
        b.build()
    }

    #[test]
    fn fields_are_found_through_anonymous_and_named_members() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset_of("outer", "a"), Some(0));
        assert_eq!(btf.offset_of("outer", "c"), Some(8));
        assert_eq!(btf.offset_of("outer", "bc"), Some(4));
        assert_eq!(btf.offset_of("outer", "in.x"), Some(16));
        assert_eq!(btf.size_of("outer"), Some(20));
        assert_eq!(btf.offset_of("outer", "missing"), None);
        assert_eq!(btf.offset_of("absent", "a"), None);
    }

    #[test]
    fn an_enumerator_is_found_in_its_enum_only() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.has_enumerator("number", "ONE") && btf.has_enumerator("number", "TWO"));
        assert!(!btf.has_enumerator("number", "THREE") && !btf.has_enumerator("outer", "a"));
    }

    #[test]
    fn a_typedef_of_a_function_shows_its_parameters() {
        let bytes = sample();
        let params = Btf::parse(&bytes).unwrap().prototype("fn").unwrap();
        assert_eq!(
            params,
            [Param::Ptr, Param::Value, Param::StructPtr("outer".into())]
        );
    }

    #[test]
    fn a_function_is_found_by_all_of_its_name() {
        let mut b = Builder::default();
        b.ty("", 13, 0, 0, &[]); // 1
        b.ty("write", 12, 0, 1, &[]); // 2
        b.ty("write_more", 12, 0, 1, &[]); // 3
        b.ty("tee", 8, 0, 1, &[]); // 4
        let bytes = b.build();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(
            btf.functions(&["wri", "write_more", "tee", "write"]),
            ["write_more", "write"]
        );
    }

    #[test]
    fn a_file_cut_short_is_an_error_and_not_a_panic() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..cut]).is_err(), "at {cut}");
        }
    }

    #[test]
    fn a_kind_from_the_future_is_named() {
        let mut b = Builder::default();
        b.ty("new", 27, 0, 0, &[]);
        assert_eq!(
            Btf::parse(&b.build()).err(),
            Some(BtfError::UnknownKind { id: 1, kind: 27 })
        );
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 24_usize..400, byte: u8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(btf) = Btf::parse(&bytes) {
                let _ = btf.offset_of("outer", "in.x");
                let _ = btf.prototype("fn");
            }
        }
    }
}
