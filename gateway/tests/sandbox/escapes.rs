//! Ways out that must not be.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::Test;
use crate::fixture::{SECRET, Sandbox, folder, folder_in};

pub(crate) const TESTS: &[Test] = &[
    ("no cgroup can be left", cgroups),
    ("no cgroup hierarchy can be mounted", cgroup_mounts),
    ("the first process is out of reach", first_process),
    ("kernel settings cannot be written", kernel_settings),
    ("user namespaces uncover nothing", user_namespaces),
    ("the namespaces cannot be left or changed", namespaces),
    ("odd sockets cannot be made", sockets),
    ("no multicast group can be joined", groups),
    ("system calls around the cage are closed", system_calls),
    ("sockets of the host refuse", host_sockets),
    ("device nodes cannot be made", device_nodes),
    ("set-user-id programs give nothing", set_user_id),
    ("nothing privileged is left behind", privileged_files),
    (
        "a kernel file system in the work folder is taken out",
        kernel_file_system_at_work,
    ),
    ("chroot leads nowhere", chroot),
    (
        "a directory as standard input is refused",
        directory_as_input,
    ),
    (
        "a network socket is no standard stream",
        network_socket_as_input,
    ),
];

/// Every escape is tried as either identity.
fn as_each(script: &str, check: impl Fn(&str)) {
    for user in ["root", "nobody"] {
        let work = folder();
        fs::set_permissions(
            work.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        fs::create_dir(work.path().join("hidden")).unwrap();
        fs::write(work.path().join("hidden/file"), SECRET).unwrap();
        let sandbox = Sandbox::in_folder(work.path())
            .user(user)
            .mask(&work.path().join("hidden"));
        let out = sandbox.shell(script);
        assert!(!out.contains("ESCAPED"), "{user}: {out}");
        assert!(!out.contains(SECRET), "{user}: {out}");
        check(&out);
    }
}

/// Each line a command that must fail. Where it does not, it is the tester's own machine that is hit: so
/// settings are written as they are, and modes likewise.
fn must_fail(commands: &[&str]) {
    let tries: String = commands
        .iter()
        .map(|command| format!("( {command} ) 2>/dev/null && echo \"ESCAPED: {command}\"\n"))
        .collect();
    as_each(&format!("{tries}\necho done"), |out| {
        assert_eq!(out.lines().last(), Some("done"), "{out}");
    });
}

fn cgroups() {
    as_each(
        "cat /proc/self/cgroup | grep ^0; n=0; \
         for f in $(find / -name cgroup.procs -o -name tasks -o -name cgroup.kill 2>/dev/null); do \
           n=$((n+1)); echo $$ > $f && echo ESCAPED $f; \
         done 2>/dev/null; mkdir $(dirname $(find /sys -name cgroup.procs | head -1))/x && echo ESCAPED; \
         echo 0 > /proc/self/cgroup && echo ESCAPED; echo tried $n",
        |out| {
            assert!(out.starts_with("0::/\n"), "{out}");
            assert!(!out.contains("tried 0"), "nothing was tried: {out}");
        },
    );
}

fn cgroup_mounts() {
    must_fail(&[
        "mount -t cgroup2 none /mnt",
        "mount -t cgroup -o devices none /mnt",
        "unshare -C true",
        "unshare -Urm mount -t cgroup2 none /mnt",
        "unshare -Urm mount -t cgroup -o memory none /mnt",
        "unshare -UrmC mount -t cgroup2 none /mnt",
        "unshare -UrmC mount -t cgroup -o memory none /mnt",
        "unshare -Urm sh -c 'mount -o remount,rw,bind /sys/fs/cgroup || mount -o remount,rw,bind /sys/fs/cgroup/unified'",
    ]);
}

fn first_process() {
    must_fail(&[
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "cat /proc/1/environ | grep .",
        "cat /proc/1/maps | grep .",
        "readlink /proc/1/exe",
        "ls -L /proc/1/fd/0",
        ": < /proc/1/fd/0",
        "nsenter -t 1 -m true",
        "nsenter -t 1 -n true",
        "nsenter -t 1 -p true",
        "nsenter -t 1 -a true",
    ]);
    // PTRACE_ATTACH, PTRACE_SEIZE, pidfd_getfd by way of pidfd_open; and a SIGKILL that does nothing.
    as_each(
        &format!(
            "$PROBE call {} 16 1; $PROBE call {} 16902 1; kill -KILL 1; kill -INT 1; sleep 0.1; echo alive; ls /proc | grep -c '^[0-9]'",
            libc::SYS_ptrace,
            libc::SYS_ptrace
        ),
        |out| {
            let lines: Vec<&str> = out.lines().collect();
            assert_eq!(lines[..3], ["1", "1", "alive"], "{out}");
            // Nobody else's processes are visible.
            assert!(lines[3].parse::<u32>().unwrap() < 10, "{out}");
        },
    );
}

fn kernel_settings() {
    must_fail(&[
        "p=$(cat /proc/sys/kernel/core_pattern); echo \"$p\" > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo x > /proc/sys/kernel/hostname",
        "find /proc/sys /proc/irq /proc/bus /proc/fs -type f -exec sh -c ': >> \"$1\"' sh {} \\; -print | grep .",
        "find /sys -type f -name uevent -exec sh -c ': >> \"$1\"' sh {} \\; -print | grep .",
        "test ! -c /proc/sysrq-trigger && echo h > /proc/sysrq-trigger",
        "hostname x",
        "date -s \"$(date)\"",
        "dmesg",
        "grep . /proc/kallsyms",
        "grep . /proc/kmsg",
        "head -c1 /proc/kcore | grep -a .",
    ]);
}

fn user_namespaces() {
    must_fail(&[
        "mount -t tmpfs none /mnt",
        "umount -l hidden",
        "mount -o remount,rw /",
        "mount -o remount,rw,bind /",
        "unshare -Urm mount -o remount,rw,bind /",
        "unshare -Urm mount -o remount,rw,bind /proc/sys",
        "unshare -Urm umount -l hidden",
        "unshare -Urm umount -l /proc/sys",
        "unshare -Urm umount -l /run",
        "unshare -Urm umount -l /tmp",
        "unshare -Urm sh -c 'mount --bind . /mnt && cat /mnt/hidden/file'",
        "unshare -Urm sh -c 'mount --rbind . /mnt && cat /mnt/hidden/file'",
        "unshare -Urm sh -c 'mount --rbind . /mnt && umount -l /mnt/hidden'",
        "unshare -Urm sh -c 'mkdir /dev/shm/u /dev/shm/w; mount -t overlay o -o lowerdir=$PWD,upperdir=/dev/shm/u,workdir=/dev/shm/w /mnt && cat /mnt/hidden/file'",
        "unshare -Urm sh -c 'mount -t overlay o -o lowerdir=$PWD:/opt /mnt && cat /mnt/hidden/file'",
        "unshare -Urmpf mount -t proc none /mnt",
        "unshare -Urmpf --mount-proc true",
        "unshare -Urmn mount -t sysfs none /mnt",
        "unshare -Urm mount -t debugfs none /mnt",
        "unshare -Urm mount -t tracefs none /mnt",
        "unshare -Urm mount -t bpf none /mnt",
        "unshare -Urm mount -t devtmpfs none /mnt",
    ]);
    // That they can be had at all is a promise to agents, and makes the list above mean something.
    as_each(
        "unshare -Urm sh -c 'mount -t tmpfs none /mnt && echo allowed'",
        |out| {
            assert_eq!(out, "allowed\n");
        },
    );
}

fn namespaces() {
    must_fail(&[
        "unshare -m true",
        "unshare -n true",
        "unshare -p -f true",
        "unshare -u true",
        "ip link set eth0 down",
        "ip addr add 192.0.2.1/32 dev lo",
        "ip route del default",
        "ip link add type dummy",
    ]);
}

fn sockets() {
    let tries: [(i32, i32, i32, i32); 14] = [
        (libc::AF_UNIX, libc::SOCK_STREAM, 0, 0),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, 0),
        (libc::AF_INET, libc::SOCK_DGRAM, 0, 0),
        (libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, 0),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0, 0),
        (libc::AF_PACKET, libc::SOCK_RAW, 0x0300, libc::EAFNOSUPPORT),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0, libc::EAFNOSUPPORT),
        (libc::AF_ALG, libc::SOCK_SEQPACKET, 0, libc::EAFNOSUPPORT),
        (libc::AF_BLUETOOTH, libc::SOCK_RAW, 1, libc::EAFNOSUPPORT),
        (libc::AF_XDP, libc::SOCK_RAW, 0, libc::EAFNOSUPPORT),
        (libc::AF_INET, 10, 0x0300, libc::EAFNOSUPPORT), // SOCK_PACKET
        // Of the internet's families the kernel asks for capabilities; types and protocols are for the
        // programs on the cgroup, which are not here.
        (
            libc::AF_INET,
            libc::SOCK_RAW,
            libc::IPPROTO_ICMP,
            libc::EPERM,
        ),
        (
            libc::AF_INET6,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            58,
            libc::EPERM,
        ),
    ];
    let script: String = tries
        .iter()
        .map(|(family, kind, protocol, _)| format!("$PROBE socket {family} {kind} {protocol}\n"))
        .collect();
    // The kernel reads an int: what is above must not fool the filter.
    let above = (1_i64 << 32) | i64::from(libc::AF_INET);
    let script = format!("{script}$PROBE socket {above} 10 1");
    as_each(&script, |out| {
        let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
        let mut expected: Vec<i32> = tries.iter().map(|(.., error)| *error).collect();
        expected.push(libc::EAFNOSUPPORT);
        assert_eq!(answers, expected);
    });
}

/// What makes the kernel itself speak to the network is refused; other options are not.
fn groups() {
    let option = |level: i32, name: i32| {
        format!(
            "$PROBE call {} 0 {level} {name} 0 0\n",
            libc::SYS_setsockopt
        )
    };
    let script: String = [
        option(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP),
        option(libc::IPPROTO_IP, 42),
        option(libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP),
        option(libc::IPPROTO_IPV6, 42),
        option(libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
        option(libc::IPPROTO_TCP, 42),
    ]
    .concat();
    as_each(&script, |out| {
        let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
        let (refused, asked) = answers.split_at(4);
        assert_eq!(refused, [libc::EPERM; 4], "{out}");
        // Standard input is no socket: the kernel was asked, and says so.
        assert_eq!(asked, [libc::ENOTSOCK; 2], "{out}");
    });
}

fn system_calls() {
    let mut tries: Vec<(libc::c_long, Vec<i64>, i32)> = vec![
        (libc::SYS_io_uring_setup, vec![1, 0], libc::ENOSYS),
        (libc::SYS_io_uring_enter, vec![0], libc::ENOSYS),
        (libc::SYS_clone3, vec![0, 0], libc::ENOSYS),
        (libc::SYS_bpf, vec![0, 0, 0], libc::EPERM),
        (libc::SYS_perf_event_open, vec![0], libc::EPERM),
        (libc::SYS_keyctl, vec![0, -3], libc::EPERM),
        (libc::SYS_add_key, vec![0], libc::EPERM),
        (libc::SYS_request_key, vec![0], libc::EPERM),
        (libc::SYS_userfaultfd, vec![1], libc::EPERM),
        (libc::SYS_open_by_handle_at, vec![0], libc::EPERM),
        (
            libc::SYS_unshare,
            vec![i64::from(libc::CLONE_NEWCGROUP)],
            libc::EPERM,
        ),
        (libc::SYS_ioctl, vec![0, 0x5412, 0], libc::EPERM), // TIOCSTI
        (libc::SYS_ioctl, vec![0, 0x1_0000_5412, 0], libc::EPERM),
        (libc::SYS_ioctl, vec![0, 0x541C, 0], libc::EPERM), // TIOCLINUX
    ];
    if cfg!(target_arch = "x86_64") {
        tries.push((libc::SYS_socket | 0x4000_0000, vec![2, 1, 0], libc::ENOSYS)); // x32
    }
    let script: String = tries
        .iter()
        .map(|(number, arguments, _)| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            format!("$PROBE call {number} {}\n", arguments.join(" "))
        })
        .collect();
    as_each(&script, |out| {
        let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
        let expected: Vec<i32> = tries.iter().map(|(.., error)| *error).collect();
        assert_eq!(answers, expected);
    });
}

fn host_sockets() {
    let places = ["/tmp", "/root", "/opt", "/var/tmp", "/run", "/dev/shm"];
    let folders: Vec<_> = places
        .iter()
        .map(|place| folder_in(Path::new(place)))
        .collect();
    let work = folder();
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .map(|folder| folder.path().join("s"))
        .collect();
    paths.push(work.path().join("s"));
    let listeners: Vec<_> = paths
        .iter()
        .map(|path| UnixListener::bind(path).unwrap())
        .collect();
    let script: String = paths
        .iter()
        .map(|path| format!("$PROBE connect {}\n", path.display()))
        .collect();
    let out = Sandbox::in_folder(work.path()).shell(&script);
    let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), listeners.len(), "{out}");
    for (path, answer) in paths.iter().zip(answers) {
        let refused = answer == libc::ECONNREFUSED || answer == libc::ENOENT;
        assert!(refused, "{}: {answer}", path.display());
    }
    // Without the sandbox they answer.
    assert!(std::os::unix::net::UnixStream::connect(&paths[0]).is_ok());
}

fn device_nodes() {
    must_fail(&[
        "mknod b b 254 0",
        "mknod c c 1 1",
        "mknod /dev/shm/c c 1 1",
        "mknod /tmp/c c 1 1",
        "unshare -Urm mknod c c 1 1",
    ]);
}

fn set_user_id() {
    // Root of the host plants a set-user-id shell in the work folder.
    let work = folder();
    let shell = work.path().join("sh");
    fs::copy("/bin/sh", &shell).unwrap();
    fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let out = Sandbox::in_folder(work.path())
        .user("nobody")
        .shell("./sh -p -c 'id -u'; grep '^CapBnd' /proc/self/status");
    assert!(!out.starts_with("0\n"), "{out}");
    assert!(out.contains("0000000000000000"), "{out}");
}

fn privileged_files() {
    must_fail(&[
        "cp /bin/true t && chmod u+s t",
        "cp /bin/true t && chmod 2755 t",
        "install -m 4755 /bin/true t",
        "cp /bin/true t && chmod 4755 /proc/self/fd/3 3<t",
        "find . -perm /6000 | grep .",
        "chmod 666 /dev/null",
    ]);
    // creat, open and openat of a set-user-id file, and with what O_TMPFILE is; by number, for there is no
    // program for it. The path is a null pointer: EFAULT would mean that the filter let it through.
    let create = i64::from(libc::O_CREAT | libc::O_WRONLY);
    let temporary = i64::from(libc::O_TMPFILE | libc::O_WRONLY);
    let script: String = [create, temporary]
        .iter()
        .map(|flags| {
            format!(
                "$PROBE call {} -100 0 {flags} {}\n",
                libc::SYS_openat,
                0o4755
            )
        })
        .collect();
    let plain = format!("$PROBE call {} -100 0 {create} {}", libc::SYS_openat, 0o755);
    let newer = format!("$PROBE call {} -100 0 0 0", libc::SYS_openat2);
    as_each(&format!("{script}\n{plain}\n{newer}"), |out| {
        let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
        let expected = [libc::EPERM, libc::EPERM, libc::EFAULT, libc::ENOSYS];
        assert_eq!(answers, expected);
    });
    let work = folder();
    let out = Sandbox::in_folder(work.path()).shell(&format!(
        "cp /bin/true t; setcap cap_sys_admin+ep t && echo ESCAPED; $PROBE call {} 1 0 0 0 0",
        libc::SYS_fsetxattr
    ));
    assert_eq!(out, format!("{}\n", libc::EOPNOTSUPP));
}

fn kernel_file_system_at_work() {
    let work = folder();
    for kind in ["proc", "sysfs", "devtmpfs", "cgroup2"] {
        let script = format!("mkdir -p fs; mount -t {kind} none fs && exec \"$@\"");
        let out = Sandbox::in_folder(work.path())
            .under(&["unshare", "-m", "sh", "-c", &script, "sh"])
            .shell("ls -A fs | wc -l; unshare -Urmpf mount -t proc none /mnt && echo ESCAPED");
        assert_eq!(out, "0\n", "{kind}");
    }
}

fn chroot() {
    // The classic: a chroot below the current directory, then up. It ends at the sandbox's root, which
    // has the sandbox's /run and no other.
    let work = folder();
    let marker = PathBuf::from(format!("/run/postern-marker-{}", std::process::id()));
    fs::write(&marker, "").unwrap();
    let out = Sandbox::in_folder(work.path()).shell(&format!(
        "mkdir -p jail; chroot / sh -c 'cd {0}; ls -d ../../../../../../run/postern; ls {1}'",
        work.path().display(),
        marker.display()
    ));
    fs::remove_file(&marker).unwrap();
    assert_eq!(out, "../../../../../../run/postern\n");
}

fn directory_as_input() {
    let work = folder();
    let mut command = Sandbox::in_folder(work.path()).command(&["echo", "RAN"]);
    let output = command
        .stdin(fs::File::open("/").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is a directory"), "{said}");
}

fn network_socket_as_input() {
    // As systemd's Accept=yes, inetd and socat give it: a socket of the host, which connect() would turn anywhere.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = UdpSocket::bind("[::1]:0").unwrap();
    let work = folder();
    for socket in [OwnedFd::from(tcp), OwnedFd::from(udp)] {
        for number in 0..3 {
            let mut command = Sandbox::in_folder(work.path()).command(&["touch", "RAN"]);
            let own = || Stdio::from(socket.try_clone().unwrap());
            match number {
                0 => command.stdin(own()).stderr(Stdio::piped()),
                1 => command.stdout(own()).stderr(Stdio::piped()),
                _ => command.stderr(own()),
            };
            let output = command.spawn().unwrap().wait_with_output().unwrap();
            assert!(!work.path().join("RAN").exists());
            // What it says goes to the socket itself otherwise, if that takes it.
            if number < 2 {
                assert_eq!(output.status.code(), Some(125));
                let said = String::from_utf8(output.stderr).unwrap();
                let wanted = format!("descriptor {number} is a network socket");
                assert!(said.contains(&wanted), "{said}");
            }
        }
    }
    let (own, _other) = UnixStream::pair().unwrap();
    let mut command = Sandbox::in_folder(work.path()).command(&["true"]);
    let local = command.stdin(OwnedFd::from(own)).output().unwrap();
    assert!(local.status.success(), "{local:?}");
}
