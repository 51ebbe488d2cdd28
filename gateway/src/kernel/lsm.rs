//! The programs of the BPF LSM: an added layer that not every kernel has. They see sockets of families for which no
//! other hook is called, sockets that are handed in, and options that are set by 32-bit calls. Their absence is told and is no error. Knows not what
//! else guards against those.

use crate::sys;
use aya::Btf;
use aya::Ebpf;
use aya::programs::LsmCgroup;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

/// The programs in the object, and their hooks without prefix (linux/lsm_hook_defs.h).
const PROGRAMS: [(&str, &str); 3] = [
    ("postern_socket_create", "socket_create"),
    ("postern_socket_setsockopt", "socket_setsockopt"),
    ("postern_file_receive", "file_receive"),
];
/// `BPF_LSM_CGROUP` of `enum bpf_attach_type` (linux/bpf.h).
pub(super) const ATTACH_TYPE: u32 = 43;
/// The active security modules, by commas.
const LIST: &str = "/sys/kernel/security/lsm";

/// Loads the programs, each of which is given to `on_loaded`, or says why they are not all there.
pub(super) fn load(
    object: &mut Ebpf,
    mut on_loaded: impl FnMut(&'static str, OwnedFd),
) -> Result<(), String> {
    let modules = active_modules()
        .map_err(|error| format!("the list of security modules cannot be read: {error}"))?;
    if !is_active(&modules) {
        return Err(format!(
            "\"bpf\" is not among the active security modules ({modules}); boot with lsm={modules},bpf"
        ));
    }
    let btf = Btf::from_sys_fs().map_err(|error| error.to_string())?;
    let mut refused = Vec::new();
    for (name, hook) in PROGRAMS {
        match load_one(object, name, hook, &btf) {
            Ok(fd) => on_loaded(name, fd),
            Err(why) => refused.push(format!("{name}: {why}")),
        }
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused.join("; "))
    }
}

fn load_one(object: &mut Ebpf, name: &str, hook: &str, btf: &Btf) -> Result<OwnedFd, String> {
    let program = object
        .program_mut(name)
        .ok_or("the eBPF object has no such program; rebuild the gateway")?;
    let program: &mut LsmCgroup = program
        .try_into()
        .map_err(|error: aya::programs::ProgramError| error.to_string())?;
    program.load(hook, btf).map_err(|error| {
        // A verifier log is long; the debug log has the whole.
        let text = error.to_string();
        tracing::debug!("{text}");
        let first = text.split(". Verifier output").next().unwrap_or_default();
        format!("the kernel does not take the program: {first}")
    })?;
    let fd = program.fd().map_err(|error| error.to_string())?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())
}

/// The security modules that the kernel runs, by commas.
///
/// # Errors
/// Where securityfs is neither mounted nor can be.
pub fn active_modules() -> io::Result<String> {
    // They do not change, and a confined daemon could not ask again.
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let text = match fs::read_to_string(LIST) {
        Ok(text) => text,
        // Not mounted here: a mount of our own that nobody else sees.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mount = sys::detached_mount(c"securityfs")?;
            let mut text = String::new();
            sys::open_in(mount.as_fd(), c"lsm")?.read_to_string(&mut text)?;
            text
        }
        Err(error) => return Err(error),
    };
    Ok(KNOWN.get_or_init(|| text.trim().to_owned()).clone())
}

fn is_active(modules: &str) -> bool {
    modules.split(',').any(|name| name == "bpf")
}
