//! What a hostile program tries by system call. Runs inside the sandbox and prints, a line a try, the
//! error number it got, or 0.
#![allow(unsafe_code, reason = "raw system calls are what is being tried")]

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;

pub(crate) const SUBCOMMAND: &str = "probe";

/// `socket <family> <type> <protocol>`, `call <number> <arguments…>`, `connect <path>`.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.map(|word| word.into_string().unwrap()).collect();
    let numbers = || -> Vec<i64> {
        words[1..]
            .iter()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let error = match words[0].as_str() {
        "socket" => {
            let mut call = vec![libc::SYS_socket];
            call.extend(numbers());
            system_call(&call)
        }
        "call" => system_call(&numbers()),
        "connect" => match UnixStream::connect(&words[1]) {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap(),
        },
        other => panic!("no probe {other}"),
    };
    println!("{error}");
    ExitCode::SUCCESS
}

fn system_call(words: &[i64]) -> i32 {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    // SAFETY: the calls tried take numbers or null pointers; whatever the kernel makes of them, it
    // writes nowhere.
    let result = unsafe { libc::syscall(word(0), word(1), word(2), word(3), word(4), word(5)) };
    if result < 0 { Errno::last_raw() } else { 0 }
}
