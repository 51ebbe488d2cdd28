//! What the sandbox sees and what lasts of what it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Test;
use crate::fixture::{RESOLVER, SECRET, Sandbox, TRUST, folder, folder_in};

pub(crate) const TESTS: &[Test] = &[
    ("the work folder is writable for good", work_lasts),
    ("everything else is not", the_rest_does_not_last),
    (
        "a folder that would hand over the host is ephemeral",
        home_and_root_are_ephemeral,
    ),
    ("work is possible under every kind of folder", work_anywhere),
    ("masks hide folders and files wherever they are", masks_hide),
    (
        "a mask is found under another name",
        masks_follow_bind_mounts,
    ),
    ("a mask over the work folder is refused", mask_over_work),
    ("a mask of nothing is refused", mask_of_nothing),
    ("the secret is nowhere to be read", secret_search),
    ("a named user has nothing of root", named_user),
    (
        "namespace root has only harmless capabilities",
        namespace_root,
    ),
    ("trust is where clients look for it", trust_is_laid),
    ("the resolver is the gateway's", resolver),
    (
        "the resolver is the gateway's behind a link into /run",
        resolver_behind_link,
    ),
    ("devices are functions only", devices),
    ("a shared network is the host's", shared_network),
];

fn work_lasts() {
    let work = folder();
    Sandbox::in_folder(work.path()).shell("echo kept > file; mkdir -p a/b");
    assert_eq!(
        fs::read_to_string(work.path().join("file")).unwrap(),
        "kept\n"
    );
    assert!(work.path().join("a/b").is_dir());
}

fn the_rest_does_not_last() {
    let work = folder();
    let name = format!("postern-{}", std::process::id());
    let out = Sandbox::in_folder(work.path()).shell(&format!(
        "for d in /tmp /var/tmp \"$HOME\" /run /dev/shm; do echo x > $d/{name} && echo vanishing $d; done; \
         for d in /etc /usr /opt /var /dev /sys /proc /boot /; do echo x > $d/{name} && echo LASTING $d; done 2>/dev/null; \
         rm -f /etc/passwd 2>/dev/null && echo LASTING; true"
    ));
    assert_eq!(out.matches("vanishing").count(), 5, "{out}");
    assert!(!out.contains("LASTING"), "{out}");
    for place in ["/tmp", "/var/tmp", "/root", "/run", "/dev/shm"] {
        assert!(!Path::new(place).join(&name).exists(), "{place}");
    }
}

fn home_and_root_are_ephemeral() {
    let name = format!("postern-{}", std::process::id());
    for place in ["/root", "/tmp", "/"] {
        let sandbox = Sandbox::in_folder(Path::new(place));
        let output = sandbox.run(&["sh", "-c", &format!("pwd; echo x > {name}; true")]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), place);
        let warning = String::from_utf8_lossy(&output.stderr);
        assert!(warning.contains("does not last"), "{place}: {warning}");
        assert!(!Path::new(place).join(&name).exists(), "{place}");
    }
}

fn work_anywhere() {
    for parent in ["/tmp", "/var/tmp", "/root", "/opt"] {
        let work = folder_in(Path::new(parent));
        let deep = work.path().join("with space, and:colon");
        fs::create_dir(&deep).unwrap();
        let out = Sandbox::in_folder(&deep).shell("echo x > file && cat file && pwd");
        assert_eq!(out, format!("x\n{}\n", deep.display()), "{parent}");
        assert!(deep.join("file").exists(), "{parent}");
    }
}

/// A folder and a file to be hidden in a work folder, and the same elsewhere.
fn plant(at: &Path) {
    fs::create_dir_all(at.join("parent/hidden")).unwrap();
    fs::write(at.join("parent/hidden/file"), SECRET).unwrap();
    fs::write(at.join("key"), SECRET).unwrap();
}

fn masks_hide() {
    // In the work folder, in the layer over /tmp, in the layer over the home, and on read-only ground.
    let work = folder();
    for parent in [None, Some("/tmp"), Some("/root"), Some("/opt")] {
        let elsewhere = parent.map(|parent| folder_in(Path::new(parent)));
        let place = elsewhere
            .as_ref()
            .map_or(work.path(), |folder| folder.path());
        plant(place);
        let at = place.display();
        let out = Sandbox::in_folder(work.path())
            .mask(&place.join("parent/hidden"))
            .mask(&place.join("key"))
            .shell(&format!(
                "cat {at}/parent/hidden/file {at}/key; ls -A {at}/parent/hidden; \
                 echo x > {at}/parent/hidden/new; \
                 mv {at}/parent {at}/moved; cat {at}/moved/hidden/file; \
                 mkdir -p {at}/parent/hidden; cat {at}/parent/hidden/file; \
                 mv {at}/key {at}/key2; rm -rf {at}/parent/hidden; cat {at}/key2; \
                 ln {at}/key {at}/key3; cat {at}/key3; cp -r {at} /dev/shm; cat /dev/shm/*/key"
            ));
        assert_eq!(out, "", "{parent:?}");
        // And nothing happened to the originals.
        let parent = if place.join("moved").exists() {
            "moved"
        } else {
            "parent"
        };
        assert_eq!(fs::read_to_string(place.join("key")).unwrap(), SECRET);
        let hidden = place.join(parent).join("hidden");
        assert_eq!(fs::read_to_string(hidden.join("file")).unwrap(), SECRET);
        assert!(!hidden.join("new").exists());
    }
}

fn masks_follow_bind_mounts() {
    let work = folder();
    let elsewhere = folder_in(Path::new("/opt"));
    plant(elsewhere.path());
    let alias = folder_in(Path::new("/opt"));
    let link = work.path().join("link");
    std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
    let script = format!(
        "mount --bind {} {} && exec \"$@\"",
        elsewhere.path().display(),
        alias.path().display()
    );
    let out = Sandbox::in_folder(work.path())
        .under(&["unshare", "-m", "sh", "-c", &script, "sh"])
        .mask(&link.join("parent/hidden"))
        .shell(&format!(
            "cat {0}/key; cat {0}/parent/hidden/file {1}/parent/hidden/file link/parent/hidden/file",
            alias.path().display(),
            elsewhere.path().display()
        ));
    // The alias is there, for its unhidden file is.
    assert_eq!(out, SECRET);
}

fn refusal(sandbox: &Sandbox) -> String {
    let output = sandbox.run(&["echo", "RAN"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn mask_over_work() {
    let work = folder();
    let inner = work.path().join("inner");
    fs::create_dir(&inner).unwrap();
    for masked in [work.path(), &inner, Path::new("/tmp"), Path::new("/")] {
        let said = refusal(&Sandbox::in_folder(&inner).mask(masked));
        assert!(said.contains("must be hidden"), "{said}");
    }
    let said = refusal(&Sandbox::in_folder(&inner).mask(work.path()).under(&["env"]));
    assert!(said.contains("move the former"), "{said}");
}

fn mask_of_nothing() {
    let work = folder();
    let said = refusal(&Sandbox::in_folder(work.path()).mask(Path::new("/nonexistent/policy")));
    assert!(said.contains("/nonexistent/policy"), "{said}");
    assert!(said.contains("to be hidden"), "{said}");
}

fn secret_search() {
    let work = folder();
    plant(work.path());
    let at = work.path();
    for user in ["root", "nobody"] {
        let out = Sandbox::in_folder(at)
            .user(user)
            .mask(&at.join("parent"))
            .mask(&at.join("key"))
            // Piece by piece, so as not to find the search itself.
            .shell(
                "needle=$(printf 'sk-test-%s' 0123456789abcde); \
                 grep -rl -e \"$needle\" . /run /dev/shm /proc/1/environ /proc/*/environ \
                   /proc/1/cmdline /proc/*/task/*/environ 2>/dev/null; env | grep -c -e \"$needle\"; \
                 env | grep -i -e proxy -e A_TOKEN",
            );
        assert_eq!(out.trim(), "0", "{user}");
    }
}

fn named_user() {
    let work = folder();
    let out = Sandbox::in_folder(work.path()).user("nobody").shell(
        "id -un; grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status; cat /etc/shadow; echo $HOME $USER; \
         su -c id </dev/null; mount -t tmpfs x /mnt; kill -0 1 || echo no signal",
    );
    assert!(out.starts_with("nobody\n"), "{out}");
    assert!(!out.contains("root:"), "{out}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(out.contains(&format!("{set}:\t0000000000000000")), "{out}");
    }
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    assert!(!out.contains("uid=0"), "{out}");
}

fn namespace_root() {
    let work = folder();
    let out = Sandbox::in_folder(work.path()).shell(
        "id -u; grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status; cat /proc/self/uid_map; \
         chown 12345 . || echo one id only",
    );
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
    // SYS_CHROOT, SETFCAP.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t00000000800405fb")), "{out}");
    }
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    let map: Vec<&str> = out.split_whitespace().collect();
    assert!(map.windows(3).any(|map| map == ["0", "0", "1"]), "{out}");
    assert!(out.contains("one id only"), "{out}");
}

fn trust_is_laid() {
    let work = folder();
    let out = Sandbox::in_folder(work.path()).shell(
        "echo $SSL_CERT_FILE; grep -c BEGIN $NODE_EXTRA_CA_CERTS; \
         test -d /etc/ssl/certs && cmp /etc/ssl/certs/postern.pem $NODE_EXTRA_CA_CERTS && echo same; \
         test $(grep -c BEGIN $SSL_CERT_FILE) -ge $(grep -c BEGIN /etc/ssl/certs/ca-certificates.crt) && echo bundle; \
         echo x > $SSL_CERT_FILE || echo read-only",
    );
    assert!(
        out.starts_with(&format!("{TRUST}/ca-bundle.pem\n1\n")),
        "{out}"
    );
    if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        assert!(out.contains("same\nbundle\n"), "{out}");
    }
    assert!(out.contains("read-only"), "{out}");
}

fn resolver_behind_link() {
    let work = folder();
    let runtime = format!("/run/postern-resolve-{}", std::process::id());
    let etc = folder_in(Path::new("/opt"));
    // A copy of /etc whose resolv.conf is a link, as systemd-resolved has it: alive, and dangling.
    for make in [
        format!("mkdir {runtime}; echo host > {runtime}/stub.conf"),
        "true".into(),
    ] {
        let script = format!(
            "{make}; cp -a /etc/. {0}; ln -sf ..{runtime}/stub.conf {0}/resolv.conf; \
             mount --bind {0} /etc; \"$@\"; status=$?; rm -rf {runtime}; exit $status",
            etc.path().display()
        );
        let out = Sandbox::in_folder(work.path())
            .under(&["unshare", "-m", "sh", "-c", &script, "sh"])
            .shell("cat /etc/resolv.conf; readlink /etc/resolv.conf");
        assert_eq!(out, format!("{RESOLVER}..{runtime}/stub.conf\n"));
    }
}

fn resolver() {
    let work = folder();
    let out =
        Sandbox::in_folder(work.path()).shell("cat /etc/resolv.conf; echo x > /etc/resolv.conf");
    assert_eq!(out, RESOLVER);
}

fn devices() {
    let work = folder();
    let out = Sandbox::in_folder(work.path()).shell(
        "for f in $(find /dev); do test -b $f && echo BLOCK; test -c $f && test ! -L $f && printf '%s ' $f; done; \
         echo; head -c 4 /dev/urandom | wc -c; echo x > /dev/null && echo y; ls /dev/mem /dev/kvm; \
         chmod 666 /dev/null && echo CHANGED; chmod 666 /dev/stdin && echo CHANGED; true",
    );
    let mut lines = out.lines();
    let found = lines.next().unwrap();
    assert!(
        !found.contains("/dev/mem") && found.contains("/dev/null"),
        "{out}"
    );
    let allowed = [
        "full", "null", "random", "tty", "urandom", "zero", "pts/ptmx", "console",
    ];
    for device in found.split_whitespace() {
        assert!(allowed.contains(&&device[5..]), "{device}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["4", "y"]);
}

fn shared_network() {
    let work = folder();
    let sandbox = Sandbox::in_folder(work.path());
    let private = sandbox.shell("readlink /proc/self/ns/net");
    let shared = sandbox
        .option("--network", "shared")
        .shell("readlink /proc/self/ns/net");
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(Path::new(shared.trim()), host);
    assert_ne!(Path::new(private.trim()), host);
    // Unused elsewhere: the permissions of a fresh folder are what the tests for nobody rely on.
    let mode = fs::metadata(work.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}
