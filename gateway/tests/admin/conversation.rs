//! What is said over the socket, to whom, and within which bounds.

use super::fake::{Cgroup, Daemon, eventually};
use gateway::admin::{
    AttachRequest, BindError, Client, ClientError, LONGEST_REQUEST, Request, Server, Streamed,
    TailRequest, Which,
};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Sends a line as it is; the answer's first line.
fn raw(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may have hung up in the middle of a line that is too long.
    stream.write_all(line.as_bytes()).ok();
    stream.write_all(b"\n").ok();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

/// The same by another program, which says what it was answered.
fn ask_as(wrapper: &[&str], socket: &Path) -> String {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        try: s.sendall(b'{\"version\":1,\"request\":{\"op\":\"status\"}}\\n')\n\
        except BrokenPipeError: pass\n\
        print(s.makefile().readline())";
    let words = [wrapper, &["python3", "-c", script]].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg(socket)
        // Not one in somebody's home folder, which others may not enter.
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.is_empty(), "{output:?}");
    said
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn attach(cgroup: &Cgroup) -> Request {
    Request::Attach(AttachRequest {
        cgroup: cgroup.path.clone(),
        cgroup_id: cgroup.id(),
        gateway: "g".into(),
        label: Some("a1".into()),
        origin: "a test".into(),
    })
}

#[test]
fn the_socket_is_the_owners_alone_and_is_removed_at_the_end() {
    let daemon = Daemon::start();
    assert_eq!(mode(&daemon.socket), 0o600);
    assert_eq!(mode(daemon.socket.parent().unwrap()), 0o700);
    daemon.stop.cancel();
    eventually("the socket removed", || !daemon.socket.exists());
}

#[test]
fn a_second_daemon_on_the_socket_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let refused = Server::bind(&daemon.socket).unwrap_err();
    assert!(matches!(refused, BindError::Taken(_)), "{refused}");
    assert!(refused.to_string().contains("--admin"), "{refused}");
    // Also where somebody removed the lock.
    fs::remove_file(daemon.socket.with_extension("sock.lock")).unwrap();
    let refused = Server::bind(&daemon.socket).unwrap_err();
    assert!(matches!(refused, BindError::Taken(_)), "{refused}");
    let mut client = Client::connect(&daemon.socket).unwrap();
    assert_eq!(client.status().unwrap().generation, 4);
}

#[test]
fn what_a_killed_daemon_left_is_replaced_and_what_is_no_socket_is_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let socket = folder.path().join("admin.sock");
    // Dropped without being removed, as by kill -9.
    drop(UnixListener::bind(&socket).unwrap());
    let error = Client::connect(&socket).unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon(_)), "{error}");
    drop(Server::bind(&socket).unwrap());
    assert!(!socket.exists());
    fs::write(&socket, "precious").unwrap();
    let refused = Server::bind(&socket).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket(_)), "{refused}");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let refused = Server::bind(&folder.path().join("admin.sock")).unwrap_err();
    assert!(refused.to_string().contains("chmod 700"), "{refused}");
}

#[test]
fn questions_are_answered_one_after_the_other() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let mut client = Client::connect(&daemon.socket).unwrap();
    let attached = client.change(&attach(&cgroup)).unwrap();
    assert_eq!(attached[0].cgroup, cgroup.path);
    let again = client.change(&attach(&cgroup)).unwrap_err();
    assert!(again.is_refusal() && again.to_string().contains("attached already"));
    assert_eq!(client.status().unwrap().sandboxes, attached);
    let which = Which::Id(attached[0].id);
    let detached = client.change(&Request::Detach { which }).unwrap();
    assert_eq!(detached, attached);
    assert!(client.change(&Request::DetachAll).unwrap().is_empty());
}

#[test]
fn a_cgroup_made_again_meanwhile_is_not_the_one_that_was_meant() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let meant = attach(&cgroup);
    fs::remove_dir(&cgroup.directory).unwrap();
    fs::create_dir(&cgroup.directory).unwrap();
    let refused = Client::connect(&daemon.socket).unwrap().change(&meant);
    assert!(refused.unwrap_err().to_string().contains("another cgroup"));
}

#[test]
fn an_attach_is_carried_out_though_who_asked_hangs_up() {
    let (daemon, Some(cgroup)) = (Daemon::slow(Duration::from_millis(300)), Cgroup::new()) else {
        return;
    };
    let question = serde_json::json!({"version": 1, "request": attach(&cgroup)});
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream
        .write_all(format!("{question}\n").as_bytes())
        .unwrap();
    drop(stream);
    eventually("attached", || {
        daemon.fake.sandboxes.lock().unwrap().len() == 1
    });
}

#[test]
fn nonsense_other_versions_and_too_long_lines_are_refused_in_words() {
    let daemon = Daemon::start();
    let long = "x".repeat(LONGEST_REQUEST + 10);
    for (line, said) in [
        ("hello", "malformed"),
        (
            r#"{"version":1,"request":{"op":"reboot"}}"#,
            "unknown variant",
        ),
        (
            r#"{"version":1,"request":{"op":"tail","loud":true}}"#,
            "unknown field",
        ),
        (
            r#"{"version":2,"request":{"anything":"else"}}"#,
            "speaks version 1",
        ),
        (&long, "longer than 65536"),
    ] {
        let answer = raw(&daemon.socket, line);
        assert!(answer.contains(said), "{said}: {answer}");
        assert!(answer.contains(r#""kind":"bad_request""#), "{answer}");
    }
}

#[test]
fn another_user_is_refused_even_where_the_file_system_lets_it_in() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let daemon = Daemon::start();
    fs::set_permissions(&daemon.socket, Permissions::from_mode(0o666)).unwrap();
    for folder in daemon.socket.ancestors().skip(1).take(2) {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let said = ask_as(&nobody, &daemon.socket);
    assert!(said.contains("user 65534 may not talk"), "{said}");
    assert!(ask_as(&["env"], &daemon.socket).contains("generation"));
}

#[test]
fn a_process_of_a_sandbox_is_refused_though_it_is_root() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let folder = cgroup.directory.to_str().unwrap();
    let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    let inside = ["sh", "-c", enter, folder];
    assert!(ask_as(&inside, &daemon.socket).contains("generation"));
    let mut client = Client::connect(&daemon.socket).unwrap();
    client.change(&attach(&cgroup)).unwrap();
    let said = ask_as(&inside, &daemon.socket);
    assert!(said.contains("processes of a sandbox"), "{said}");
}

/// Asks what it reads, line by line, over one connection.
const ASKER: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile()\n\
    for line in sys.stdin:\n\
    \x20   s.sendall(line.encode()); print(f.readline(), end='', flush=True)";

/// A process of this cgroup that is connected: questions in, answers out.
struct Asker(std::process::Child, BufReader<std::process::ChildStdout>);

impl Asker {
    fn start(cgroup: &Cgroup, socket: &Path) -> Self {
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", enter])
            .arg(&cgroup.directory)
            .args(["python3", "-c", ASKER])
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self(child, answers)
    }

    fn ask(&mut self, request: &Request) -> String {
        let question = serde_json::json!({"version": 1, "request": request});
        let asked = self.0.stdin.as_mut().unwrap();
        asked.write_all(format!("{question}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        answer
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_connection_from_before_the_attach_is_refused_from_then_on() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let mut asker = Asker::start(&cgroup, &daemon.socket);
    assert!(asker.ask(&Request::Status).contains("generation"));
    let mut client = Client::connect(&daemon.socket).unwrap();
    client.change(&attach(&cgroup)).unwrap();
    let which = Which::Cgroup(cgroup.path.clone());
    let said = asker.ask(&Request::Detach { which });
    assert!(said.contains("processes of a sandbox"), "{said}");
    assert_eq!(client.status().unwrap().sandboxes.len(), 1);
}

#[test]
fn records_are_told_to_nobody_whose_cgroup_is_attached_meanwhile() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let mut asker = Asker::start(&cgroup, &daemon.socket);
    let tailing = asker.ask(&Request::Tail(TailRequest::default()));
    assert!(tailing.contains("tailing"), "{tailing}");
    let mut client = Client::connect(&daemon.socket).unwrap();
    client.change(&attach(&cgroup)).unwrap();
    let record = r#"{"event":"denied","sandbox":"b2"}"#;
    daemon.fake.records.send(record.into()).unwrap();
    eventually("nobody listens", || {
        daemon.fake.records.receiver_count() == 0
    });
}

#[test]
fn a_connection_whose_process_has_ended_is_nobodys() {
    let daemon = Daemon::start();
    // The one that connects ends at once; the other has what it opened.
    let script = "import os, socket, sys, time\n\
        s = socket.socket(socket.AF_UNIX)\n\
        r, w = os.pipe()\n\
        if os.fork() == 0: s.connect(sys.argv[1]); os.write(w, b'x'); os._exit(0)\n\
        os.read(r, 1); os.wait()\n\
        try: s.sendall(b'{\"version\":1,\"request\":{\"op\":\"status\"}}\\n')\n\
        except BrokenPipeError: pass\n\
        print(s.makefile().readline())";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(&daemon.socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("generation"), "{output:?}");
    assert!(
        said.contains("\"refused\"") || said.contains("no process"),
        "{output:?}"
    );
}

#[test]
fn a_thirty_third_client_is_told_to_wait() {
    let daemon = Daemon::start();
    let mut clients: Vec<Client> = (0..32)
        .map(|_| Client::connect(&daemon.socket).unwrap())
        .collect();
    for client in &mut clients {
        client.status().unwrap();
    }
    let mut one_more = Client::connect(&daemon.socket).unwrap();
    let refused = one_more.status().unwrap_err();
    assert!(refused.to_string().contains("try again later"), "{refused}");
    drop(clients);
    eventually("a place", || {
        Client::connect(&daemon.socket).unwrap().status().is_ok()
    });
}

#[test]
fn who_listens_gets_the_records_that_it_asked_for() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let mut client = Client::connect(&daemon.socket).unwrap();
    client.change(&attach(&cgroup)).unwrap();
    let unknown = TailRequest {
        sandbox: Some("b2".into()),
        ..TailRequest::default()
    };
    let refused = client.tail(unknown).unwrap_err();
    assert!(refused.to_string().contains("attached are a1"), "{refused}");

    let request = TailRequest {
        denied: true,
        sandbox: Some(cgroup.path.clone()),
    };
    let client = Client::connect(&daemon.socket).unwrap();
    let mut tail = client.tail(request).unwrap();
    for record in [
        r#"{"event":"denied","sandbox":"b2"}"#,
        r#"{"event":"request","sandbox":"a1"}"#,
        r#"{"event":"denied","sandbox":"a1","n":1}"#,
    ] {
        daemon.fake.records.send(record.into()).unwrap();
    }
    let wanted = serde_json::json!({"event": "denied", "sandbox": "a1", "n": 1});
    assert_eq!(tail.next().unwrap().unwrap(), Streamed::Record(wanted));
    daemon.stop.cancel();
    let last = tail.next().unwrap().unwrap();
    assert!(matches!(last, Streamed::Ended(_)), "{last:?}");
    assert!(tail.next().is_none());
}

#[test]
fn who_listens_too_slowly_is_told_so_and_dropped() {
    let daemon = Daemon::start();
    let client = Client::connect(&daemon.socket).unwrap();
    let tail = client.tail(TailRequest::default()).unwrap();
    daemon.await_listener();
    // More than the socket's buffers and the channel hold together.
    let record = format!(
        r#"{{"event":"denied","detail":"{}"}}"#,
        "x".repeat(64 * 1024)
    );
    let mut sent = 0_u64;
    while sent < 200 {
        daemon.fake.records.send(record.as_str().into()).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let told: Vec<Streamed> = tail.map(|told| told.unwrap()).collect();
    let (last, records) = told.split_last().unwrap();
    let Streamed::Lagged(lost) = last else {
        panic!("{} records, and no word of lagging", told.len());
    };
    let received = u64::try_from(records.len()).unwrap();
    assert!(*lost > 0 && received + lost <= sent, "{received} + {lost}");
}
