//! `cargo xtask vm test`: the suites in a guest of each kernel, their results compared with each other and the host's.
//! It refuses to know how a guest is made.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::files::{fail, replaced};
use super::kernels::{self, HOST, Kernel};
use super::qemu::{Accelerator, Disk, Guest, lsm_argument, watch};
use super::results::{Results, Verdict};
use super::rootfs::Extent;
use super::summary::{self, Run, Times};
use super::tree::{self, Built, Stage, Suite};
use super::{Ground, VERIFIER_SUITE, Vm};
use crate::Failure;
use crate::console::{line, seconds};
use crate::process;

const SUITES: &str = include_str!("guest/suites.sh");
const VERIFIER: &str = include_str!("guest/verifier.py");
/// Where the kernel programs' entry points are, for the verifier suite.
const ENTRIES: &str = "gateway-ebpf/src/main.rs";

/// For one suite in a guest, in seconds: under emulation on a busy machine the longest takes a quarter of this.
const SUITE_LIMIT: u64 = 3600;
/// For a guest with everything in it.
const GUEST_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// `--wan`: 40 ms there and back and one packet in a hundred lost, as the harness gives it to `tc`.
const WAN: &str = "delay 20ms loss 1%";
/// Room for logs: the file is sparse.
const RESULTS_BYTES: u64 = 1 << 30;

/// What was asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct TestOptions {
    /// Names of the matrix, `host` or `all`; empty: the default kernel.
    pub(crate) kernels: Vec<String>,
    /// Empty: all.
    pub(crate) suites: Vec<String>,
    /// A part of the names of the tests to run.
    pub(crate) filter: Option<String>,
    pub(crate) without_lsm: bool,
    pub(crate) wan: bool,
    /// Leave disks and the packed tree where they were.
    pub(crate) keep: bool,
}

/// Where a run takes place.
#[derive(Debug, Clone, Copy)]
enum Place {
    Host,
    Guest(&'static Kernel),
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Host => HOST,
            Self::Guest(kernel) => kernel.name,
        }
    }
}

/// Runs everything, prints the comparison, and fails if a test did, or if runs differ in which tests they have. Gives how
/// many tests passed, over all places.
pub(super) fn run(
    vm: &Vm<'_>,
    options: &TestOptions,
    binary: Option<&Path>,
) -> Result<usize, Failure> {
    let places = places(&options.kernels)?;
    // What the kernel makes of the programs is known without a test program: minutes earlier.
    let is_verifier_only = options.suites == [VERIFIER_SUITE];
    let ground = Ground::prepare(vm, !is_verifier_only, binary, Extent::of(&options.suites))?;
    let chosen = choose(&ground.built, &options.suites)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut failures = Vec::new();
    for place in places {
        let start = Instant::now();
        line("");
        vm.console
            .heading(&format!("{} {}", place.name(), remarks(options)));
        let outcome = match place {
            Place::Host => on_host(&ground, &chosen, options),
            Place::Guest(kernel) => in_guest(vm, &ground, kernel, &chosen, options),
        };
        let took = start.elapsed();
        match outcome {
            Ok(run) => {
                let run = Run { took, ..run };
                let folder = vm
                    .folder
                    .join(format!("results/{}", label(run.name, options)));
                fs::create_dir_all(&folder)
                    .and_then(|()| fs::write(folder.join("results.tsv"), run.results.table()))
                    .and_then(|()| fs::write(folder.join("times.tsv"), run.times.table()))
                    .map_err(|error| fail("write", &folder, &error))?;
                runs.push(run);
            }
            Err(failure) => failures.push(format!("{}: {failure}", place.name())),
        }
        line(format_args!("{} took {}", place.name(), seconds(took)));
    }
    summary::print(vm, &runs, &mut failures);
    if failures.is_empty() {
        Ok(runs
            .iter()
            .map(|run| run.results.count(Verdict::Passed))
            .sum())
    } else {
        Err(Failure::failed(failures.join("\n")))
    }
}

/// The kernels asked for, in order.
fn places(names: &[String]) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => {
                places.push(Place::Host);
                places.extend(kernels::supported().map(Place::Guest));
            }
            HOST => places.push(Place::Host),
            name => places.push(Place::Guest(kernels::find(name)?)),
        }
    }
    if places.is_empty() {
        places.push(Place::Guest(kernels::find(kernels::DEFAULT)?));
    }
    Ok(places)
}

fn choose(built: &Built, names: &[String]) -> Result<Vec<Option<Suite>>, Failure> {
    // The verifier is `None`: it has no program, and is run first, since nothing works when it fails.
    let mut known: Vec<(String, Option<Suite>)> = vec![(VERIFIER_SUITE.to_owned(), None)];
    known.extend(
        built
            .suites
            .iter()
            .map(|suite| (suite.name.clone(), Some(suite.clone()))),
    );
    if let Some(unknown) = names
        .iter()
        .find(|name| known.iter().all(|(known, _)| known != *name))
    {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::usage(format!("there is no suite `{unknown}`"))
            .hint(&format!("there are: {}", names.join(", "))));
    }
    Ok(known
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.contains(name))
        .map(|(_, suite)| suite)
        .collect())
}

/// The same programs, here: what the guests are compared with.
fn on_host(
    ground: &Ground,
    chosen: &[Option<Suite>],
    options: &TestOptions,
) -> Result<Run, Failure> {
    let mut results = Results::default();
    let mut times = Times::start();
    for suite in chosen.iter().flatten() {
        line(format_args!("suite {}", suite.name));
        times.open(&suite.name);
        let mut command = Command::new(&suite.program);
        command
            .arg("--test-threads=1")
            .args(&options.filter)
            .current_dir(&suite.folder)
            .env("POSTERN_BIN", &ground.postern)
            .env("CARGO", crate::workspace::cargo_path());
        if options.wan {
            command.env("POSTERN_TEST_NETEM", WAN);
        }
        let mut output = String::new();
        // Which tests failed is in its output; that one did is no reason to stop here.
        drop(process::watched(&mut command, |text| {
            times.read(text);
            output.push_str(text);
        }));
        results.read(&suite.name, &output);
    }
    Ok(Run {
        name: HOST,
        results,
        took: Duration::ZERO,
        mib: None,
        times,
    })
}

fn in_guest(
    vm: &Vm<'_>,
    ground: &Ground,
    kernel: &'static Kernel,
    chosen: &[Option<Suite>],
    options: &TestOptions,
) -> Result<Run, Failure> {
    let image = ground.kernel(vm, kernel)?;
    let accelerator = Accelerator::probe(vm, &image);
    let name = label(kernel.name, options);
    let work = replaced(&vm.folder, &format!("run-{name}."))?;
    let files = (
        work.join("tree.tar"),
        work.join("results.raw"),
        work.join("root.qcow2"),
    );
    let programs: Vec<&Suite> = if kernel.is_supported {
        chosen.iter().flatten().collect()
    } else {
        line("not supported: only the verifier suite");
        Vec::new()
    };
    let job = Job {
        kernel,
        programs,
        with_verifier: !kernel.is_supported || chosen.iter().any(Option::is_none),
        accelerator,
    };
    vm.console.step("test tree", |_| {
        let stage = stage(vm, ground, &job, options, &work)?;
        stage.pack(vm, &files.0)?;
        super::files::size_of(&files.0)
    })?;
    blank(&files.1, RESULTS_BYTES)?;
    vm.log.run(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&ground.root.disk)
            .arg(&files.2),
    )?;
    let disk = |path: &Path, format, is_read_only| Disk {
        path: path.to_owned(),
        format,
        is_read_only,
    };
    let guest = Guest {
        kernel: &image,
        accelerator,
        disks: vec![
            disk(&files.2, "qcow2", false),
            disk(&image.modules, "raw", true),
            disk(&files.0, "raw", true),
            disk(&files.1, "raw", false),
        ],
        arguments: format!("postern.tree {}", lsm_argument(!options.without_lsm)),
        is_interactive: false,
    };
    let folder = vm.folder.join(format!("results/{name}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| fail("remove", &folder, &error))?;
    }
    fs::create_dir_all(&folder).map_err(|error| fail("make", &folder, &error))?;
    line(format_args!("booting under {}", accelerator.name()));
    let mut times = Times::start();
    let ended = watch(
        guest.command(),
        &folder.join("console.log"),
        GUEST_LIMIT,
        |text| times.show(text),
    );
    // What there is of results says more than that the guest ended badly.
    let unpacked = vm.log.run(
        Command::new("tar")
            .arg("-xf")
            .arg(&files.1)
            .arg("-C")
            .arg(&folder),
    );
    let results = read_results(&folder, &job);
    if !options.keep {
        fs::remove_dir_all(&work).map_err(|error| fail("remove", &work, &error))?;
    }
    ended?;
    unpacked.map_err(|failure| {
        let console = folder.join("console.log");
        failure.hint(&format!(
            "the guest left no results; its console: {}",
            console.display()
        ))
    })?;
    let results = results?;
    has_modules(&folder, !options.without_lsm)?;
    Ok(Run {
        name: kernel.name,
        results,
        took: Duration::ZERO,
        mib: Some(image.mib(&ground.root)?),
        times,
    })
}

/// Fails if the guest ran with BPF among its security modules and should not have, or the other way round.
fn has_modules(folder: &Path, with_bpf: bool) -> Result<(), Failure> {
    let path = folder.join("lsm");
    let list = fs::read_to_string(&path).map_err(|error| fail("read", &path, &error))?;
    if list.trim().split(',').any(|name| name == "bpf") == with_bpf {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "asked for a guest {} BPF LSM, and the guest's modules are {}",
            if with_bpf { "with" } else { "without" },
            list.trim()
        )))
    }
}

fn read_results(folder: &Path, job: &Job<'_>) -> Result<Results, Failure> {
    let mut results = Results::default();
    let mut silent = Vec::new();
    let names = job.programs.iter().map(|suite| suite.name.as_str());
    for name in job
        .with_verifier
        .then_some(VERIFIER_SUITE)
        .into_iter()
        .chain(names)
    {
        let output = fs::read(folder.join(format!("{name}.out"))).unwrap_or_default();
        let rc = fs::read_to_string(folder.join(format!("{name}.rc"))).unwrap_or_default();
        let found = results.read(name, &String::from_utf8_lossy(&output));
        let has_failed = results.count(Verdict::Failed) + results.count(Verdict::Unfinished) > 0;
        // A program that died, or never came to its turn, has not passed for want of a test that failed.
        if rc.trim().is_empty() || (rc.trim() != "0" && (found == 0 || !has_failed)) {
            silent.push(format!("{name} (exit status {:?})", rc.trim()));
        }
    }
    if silent.is_empty() {
        Ok(results)
    } else {
        Err(Failure::failed(format!(
            "ended without results: {}; see {}",
            silent.join(", "),
            folder.display()
        )))
    }
}

/// What one guest runs.
struct Job<'a> {
    kernel: &'static Kernel,
    programs: Vec<&'a Suite>,
    with_verifier: bool,
    accelerator: Accelerator,
}

fn stage(
    vm: &Vm<'_>,
    ground: &Ground,
    job: &Job<'_>,
    options: &TestOptions,
    work: &Path,
) -> Result<Stage, Failure> {
    let stage = Stage::new(work)?;
    let limit = SUITE_LIMIT.to_string();
    let mut variables = vec![("SUITE_LIMIT", limit.as_str())];
    variables.push(("FILTER", options.filter.as_deref().unwrap_or_default()));
    variables.extend(job.accelerator.slowness());
    if options.wan {
        variables.push(("POSTERN_TEST_NETEM", WAN));
    }
    tree::common(vm, &stage, &ground.postern, &ground.built, &variables)?;
    let mut plan = String::new();
    for suite in &job.programs {
        stage.copy_program(vm, &suite.program)?;
        let (program, folder) = (suite.program.display(), suite.folder.display());
        plan.push_str(&format!("{}\t{program}\t{folder}\n", suite.name));
    }
    if job.with_verifier {
        let path = vm.workspace.root.join(ENTRIES);
        let source = fs::read_to_string(&path).map_err(|error| fail("read", &path, &error))?;
        let policy = vm.workspace.root.join("policies/locked-down");
        let mode = if job.kernel.is_supported {
            ""
        } else {
            "--unsupported "
        };
        let mut script = format!(
            "#!/bin/sh\nexec python3 /postern/verifier.py {mode}{}",
            tree::quoted(&policy.display().to_string())
        );
        for name in entries(&source, options.without_lsm) {
            script.push_str(&format!(" {name}"));
        }
        script.push('\n');
        stage.write("/postern/verifier.py", VERIFIER, 0o755)?;
        stage.write("/postern/verifier", &script, 0o755)?;
        plan = format!("{VERIFIER_SUITE}\t/postern/verifier\t/root\n{plan}");
    }
    stage.write("/postern/plan", &plan, 0o644)?;
    stage.write("/postern/job", SUITES, 0o755)?;
    Ok(stage)
}

/// The names of the entry points: what stands between `pub fn` and the parenthesis after an attribute.
fn entries(source: &str, without_lsm: bool) -> Vec<&str> {
    let mut attribute = "";
    let mut names = Vec::new();
    for line in source.lines() {
        let Some(rest) = line.strip_prefix("pub fn ") else {
            attribute = line;
            continue;
        };
        if !(without_lsm && attribute.starts_with("#[lsm")) {
            names.extend(rest.split('(').next());
        }
    }
    names
}

fn blank(path: &Path, bytes: u64) -> Result<(), Failure> {
    fs::File::create(path)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| fail("make", path, &error))
}

/// One folder of results for each way to run a kernel.
fn label(kernel: &str, options: &TestOptions) -> String {
    let lsm = if options.without_lsm { "-nolsm" } else { "" };
    let wan = if options.wan { "-wan" } else { "" };
    format!("{kernel}{lsm}{wan}")
}

fn remarks(options: &TestOptions) -> String {
    let lsm = if options.without_lsm {
        "without BPF LSM"
    } else {
        "with BPF LSM"
    };
    let wan = if options.wan {
        ", 40 ms and 1 % loss"
    } else {
        ""
    };
    format!("({lsm}{wan})")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn all_is_the_host_and_every_supported_kernel() {
        let names = |asked: &[&str]| -> Vec<&str> {
            let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
            places(&asked)
                .unwrap()
                .into_iter()
                .map(Place::name)
                .collect()
        };
        assert_eq!(names(&["all"]), ["host", "6.1", "6.12", "7.3"]);
        assert_eq!(names(&[]), ["6.1"]);
        assert!(places(&["2.4".to_owned()]).is_err());
    }

    #[test]
    fn entry_points_are_the_public_functions() {
        let source = "pub fn postern_a(ctx: X) -> i32 {\nfn helper() {}\n    pub fn inner() {}\n#[lsm_cgroup(hook)]\npub fn postern_b(";
        assert_eq!(entries(source, false), ["postern_a", "postern_b"]);
        assert_eq!(entries(source, true), ["postern_a"]);
    }
}
