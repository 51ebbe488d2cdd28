//! Where the running kernel keeps what: offsets of fields, read from the type information that it carries
//! (BTF, Documentation/bpf/btf.rst). Knows not what is done with them.

use gateway_common::{SocketFields, TaskFields};
use std::fs;

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// Unnamed structures and unions within one another.
const DEPTH: u32 = 8;

/// The fields that say who a task is, and lead to its program's path.
///
/// # Errors
/// Why they are not known, for people.
pub(super) fn task_fields() -> Result<TaskFields, String> {
    let bytes = running()?;
    let types = Types::parse(&bytes).ok_or_else(unreadable)?;
    let field = |of: &str, path: &[&str]| types.field(of, path);
    let task_comm = field("task_struct", &["comm"])?;
    if task_comm % 8 != 0 {
        return Err(format!("task_struct.comm is at {task_comm}"));
    }
    Ok(TaskFields {
        known: 1,
        task_leader: field("task_struct", &["group_leader"])?,
        task_start: field("task_struct", &["start_boottime"])?,
        task_execs: field("task_struct", &["self_exec_id"])?,
        task_pid: field("task_struct", &["pid"])?,
        task_tgid: field("task_struct", &["tgid"])?,
        task_comm,
        task_cred: field("task_struct", &["cred"])?,
        cred_uid: field("cred", &["uid"])?,
        cred_gid: field("cred", &["gid"])?,
        task_cgroups: field("task_struct", &["cgroups"])?,
        set_cgroup: field("css_set", &["dfl_cgrp"])?,
        cgroup_node: field("cgroup", &["kn"])?,
        node_id: field("kernfs_node", &["id"])?,
        task_mm: field("task_struct", &["mm"])?,
        mm_exe_file: field("mm_struct", &["exe_file"])?,
        file_mnt: field("file", &["f_path", "mnt"])?,
        file_dentry: field("file", &["f_path", "dentry"])?,
        dentry_parent: field("dentry", &["d_parent"])?,
        dentry_name: field("dentry", &["d_name", "name"])?,
        vfsmount_root: field("vfsmount", &["mnt_root"])?,
        mount_mnt: field("mount", &["mnt"])?,
        mount_parent: field("mount", &["mnt_parent"])?,
        mount_point: field("mount", &["mnt_mountpoint"])?,
    })
}

/// The fields that lead from a socket to the cgroup that it was made in, as far as they are known, and why not all
/// are, for people.
pub(super) fn socket_fields() -> (SocketFields, Option<String>) {
    let mut fields = SocketFields::UNKNOWN;
    let found = running().and_then(|bytes| {
        let types = Types::parse(&bytes).ok_or_else(unreadable)?;
        find_socket_fields(&types, &mut fields)
    });
    (fields, found.err())
}

fn find_socket_fields(types: &Types<'_>, fields: &mut SocketFields) -> Result<(), String> {
    let field = |of: &str, path: &[&str]| types.field(of, path);
    fields.socket_sk = field("socket", &["sk"])?;
    fields.sock_family = field("sock", &["__sk_common", "skc_family"])?;
    fields.family_known = 1;
    fields.sock_type = field("sock", &["sk_type"])?;
    fields.sock_protocol = field("sock", &["sk_protocol"])?;
    fields.sock_port = field("sock", &["__sk_common", "skc_dport"])?;
    fields.sock_v4 = field("sock", &["__sk_common", "skc_daddr"])?;
    fields.sock_v6 = field("sock", &["__sk_common", "skc_v6_daddr"])?;
    fields.sock_cgroup = field("sock", &["sk_cgrp_data", "cgroup"])?;
    fields.cgroup_node = field("cgroup", &["kn"])?;
    fields.node_id = field("kernfs_node", &["id"])?;
    fields.cgroup_parent = field("cgroup", &["self", "parent"])?;
    fields.css_cgroup = field("cgroup_subsys_state", &["cgroup"])?;
    fields.cgroup_known = 1;
    Ok(())
}

fn running() -> Result<Vec<u8>, String> {
    fs::read(VMLINUX).map_err(|error| format!("{VMLINUX}: {error}"))
}

fn unreadable() -> String {
    format!("{VMLINUX} cannot be read as BTF")
}

/// `BTF_KIND_*` that matter here.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
    /// The last that is known.
    pub(super) const LAST: u32 = ENUM64;
}

struct Types<'a> {
    strings: &'a [u8],
    /// By type id; the first has number 1.
    all: Vec<Type<'a>>,
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// `kind_flag`: offsets of members are in the low 24 bits.
    flag: bool,
    /// Size, or the type that is meant.
    of: u32,
    rest: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = usize::try_from(word(bytes, 4)?).ok()?;
        let section = |at: usize| {
            let offset = usize::try_from(word(bytes, at)?).ok()?;
            let length = usize::try_from(word(bytes, at + 4)?).ok()?;
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(length)?)
        };
        let (mut types, strings) = (section(8)?, section(16)?);
        let mut all = Vec::new();
        while !types.is_empty() {
            let info = word(types, 4)?;
            let kind = info >> 24 & 0x1f;
            let length = rest_of(kind, usize::try_from(info & 0xffff).ok()?)?;
            let (rest, others) = types.get(12..)?.split_at_checked(length)?;
            all.push(Type {
                name: word(types, 0)?,
                kind,
                flag: info >> 31 == 1,
                of: word(types, 8)?,
                rest,
            });
            types = others;
        }
        Some(Self { strings, all })
    }

    /// As [`Types::offset`], or what the kernel lacks.
    fn field(&self, of: &str, path: &[&str]) -> Result<u32, String> {
        let found = self.offset(of, path);
        found.ok_or_else(|| format!("this kernel has no {of}.{}", path.join(".")))
    }

    /// The offset in bytes of a field of the structure `of`, through the fields in which it lies.
    fn offset(&self, of: &str, path: &[&str]) -> Option<u32> {
        let named = |each: &&Type<'a>| {
            each.kind == kind::STRUCT
                && !each.rest.is_empty()
                && self.name(each.name) == of.as_bytes()
        };
        let mut within = *self.all.iter().find(named)?;
        let mut bits = 0_u32;
        for field in path {
            let (at, id) = self.member(&within, field, DEPTH)?;
            bits = bits.checked_add(at)?;
            within = self.meant(id)?;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Offset in bits, and type; looks into unnamed members too.
    fn member(&self, within: &Type<'a>, field: &str, depth: u32) -> Option<(u32, u32)> {
        if ![kind::STRUCT, kind::UNION].contains(&within.kind) {
            return None;
        }
        within.rest.chunks_exact(12).find_map(|member| {
            let (name, id, at) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let at = if within.flag { at & 0x00ff_ffff } else { at };
            if name != 0 {
                return (self.name(name) == field.as_bytes()).then_some((at, id));
            }
            let inner = self.meant(id)?;
            let (further, id) = self.member(&inner, field, depth.checked_sub(1)?)?;
            Some((at.checked_add(further)?, id))
        })
    }

    /// The type behind qualifiers and other names.
    fn meant(&self, id: u32) -> Option<Type<'a>> {
        let mut found = self.by_id(id)?;
        for _ in 0..DEPTH {
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::TYPE_TAG => {
                    found = self.by_id(found.of)?;
                }
                _ => break,
            }
        }
        Some(found)
    }

    fn by_id(&self, id: u32) -> Option<Type<'a>> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        self.all.get(index).copied()
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.strings.get(start..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// What follows a type's first twelve bytes; `None` for a kind that is not known.
fn rest_of(kind: u32, members: usize) -> Option<usize> {
    match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => Some(4),
        kind::ARRAY => Some(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => members.checked_mul(12),
        kind::ENUM | kind::FUNC_PROTO => members.checked_mul(8),
        1..=kind::LAST => Some(0),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(found.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn this_kernel_s_fields_are_found() {
        if !std::path::Path::new(VMLINUX).exists() {
            return;
        }
        let fields = task_fields().unwrap();
        assert_eq!(fields.known, 1);
        // Two pointers side by side, in this order since Linux 2.6.20.
        assert_eq!(fields.file_dentry, fields.file_mnt + 8);
        let others = [
            fields.mm_exe_file,
            fields.task_mm,
            fields.mount_mnt,
            fields.task_leader,
            fields.task_start,
            fields.task_execs,
        ];
        assert!(others.iter().all(|offset| (1..65536).contains(offset)));
    }

    #[test]
    fn this_kernel_s_way_from_a_socket_to_its_cgroup_is_found() {
        if !std::path::Path::new(VMLINUX).exists() {
            return;
        }
        let (fields, missing) = socket_fields();
        assert_eq!(missing, None);
        assert_eq!((fields.family_known, fields.cgroup_known), (1, 1));
        // The head of `struct sock_common` (net/sock.h), with the ports behind both addresses.
        assert_eq!((fields.sock_v4, fields.sock_port), (0, 12));
        assert_eq!(fields.sock_family, 16);
        let others = [
            fields.socket_sk,
            fields.sock_v6,
            fields.sock_cgroup,
            fields.node_id,
        ];
        assert!(others.iter().all(|offset| (1..65536).contains(offset)));
    }

    #[test]
    fn what_is_no_btf_is_told_so_whatever_its_length() {
        let real = fs::read(VMLINUX).unwrap_or_default();
        let head = &real[..real.len().min(4096)];
        for length in 0..head.len() {
            // The sections lie behind the cut.
            assert!(Types::parse(&head[..length]).is_none());
        }
        assert!(Types::parse(&[0; 64]).is_none());
    }

    #[test]
    fn a_field_in_unnamed_members_is_found_and_bits_are_not_bytes() {
        let strings = b"\0s\0a\0b\0";
        // struct s { union { struct { int:8; b at bit 64 } } at bit 32; a at bit 3 }
        let member = |name: u32, id: u32, at: u32| [name, id, at];
        let mut words: Vec<u32> = vec![1, 4 << 24 | 2, 16];
        words.extend(member(0, 2, 32));
        words.extend(member(3, 3, 3));
        words.extend([0, 5 << 24 | 1, 8]);
        words.extend(member(5, 3, 64));
        words.extend([0, 1 << 24, 4, 32]);
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.offset("s", &["b"]), Some(12));
        assert_eq!(types.offset("s", &["a"]), None);
        assert_eq!(types.offset("s", &["c"]), None);
        assert_eq!(types.offset("t", &["a"]), None);
    }
}
