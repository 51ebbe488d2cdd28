//! `cargo xtask vm test`: the suites in guests of every kernel, as many guests at a time as keep the processors at work,
//! and their results compared with each other and the host's. It refuses to know how a guest is made.

use std::collections::VecDeque;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::files::fail;
use super::job::{self, Job};
use super::kernels::{self, HOST, Kernel};
use super::results::{Results, Verdict};
use super::rootfs::Extent;
use super::summary::{self, Run, Times};
use super::tree::{Built, Suite};
use super::{Ground, VERIFIER_SUITE, Vm};
use crate::Failure;
use crate::console::{line, seconds};
use crate::process;

/// `--wan`: 40 ms there and back and one packet in a hundred lost, as the harness gives it to `tc`.
pub(super) const WAN: &str = "delay 20ms loss 1%";

/// What was asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct TestOptions {
    /// Names of the matrix, `host` or `all`; empty: the default kernel.
    pub(crate) kernels: Vec<String>,
    /// Empty: all.
    pub(crate) suites: Vec<String>,
    /// A part of the names of the tests to run.
    pub(crate) filter: Option<String>,
    pub(crate) lsm: Lsm,
    pub(crate) wan: bool,
    /// Leave disks and the packed tree where they were.
    pub(crate) keep: bool,
    /// Guests at a time; none given: three for two processors.
    pub(crate) jobs: Option<NonZero<usize>>,
}

/// Whether BPF is among guests' security modules.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lsm {
    #[default]
    On,
    Off,
    /// A guest each.
    Both,
}

impl Lsm {
    fn each(self) -> &'static [bool] {
        match self {
            Self::On => &[true],
            Self::Off => &[false],
            Self::Both => &[true, false],
        }
    }
}

/// Where a run takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Guest {
        kernel: &'static Kernel,
        with_lsm: bool,
    },
}

impl Place {
    /// One folder of results, and one run at a time, for each way to run a kernel.
    fn label(self, options: &TestOptions) -> String {
        let (name, lsm) = match self {
            Self::Host => (HOST, ""),
            Self::Guest { kernel, with_lsm } => (kernel.name, if with_lsm { "" } else { "-nolsm" }),
        };
        let wan = if options.wan { "-wan" } else { "" };
        format!("{name}{lsm}{wan}")
    }
}

/// Runs everything, prints the comparison, and fails if a test did, or if runs differ in which tests they have. Gives how
/// many tests passed, over all places.
pub(super) fn run(
    vm: &Vm<'_>,
    options: &TestOptions,
    binary: Option<&Path>,
) -> Result<usize, Failure> {
    let places = places(options)?;
    // Until the end: another command's guest of the same name would take this one's files away.
    let mut names: Vec<String> = places.iter().map(|place| place.label(options)).collect();
    names.sort_unstable();
    let locks = names.iter().map(|name| vm.lock(&format!("lock-{name}")));
    let _locks = locks.collect::<Result<Vec<_>, _>>()?;
    // What the kernel makes of the programs is known without a test program: minutes earlier.
    let is_verifier_only = options.suites == [VERIFIER_SUITE];
    let ground = Ground::prepare(vm, !is_verifier_only, binary, Extent::of(&options.suites))?;
    let chosen = choose(&ground.built, options)?;
    let mut tried: Vec<(String, Result<Run, Failure>)> = Vec::new();
    let mut jobs = VecDeque::new();
    for place in places {
        let label = place.label(options);
        match place {
            // Alone, as where it counts: nothing else is at work yet.
            Place::Host => {
                heading(vm, &label, "as it is", options);
                tried.push((label, on_host(vm, &ground, &chosen, options)));
            }
            Place::Guest { kernel, with_lsm } => {
                let prepared = Job::prepare(
                    vm,
                    &ground,
                    (kernel, with_lsm),
                    label.clone(),
                    &chosen,
                    options,
                );
                match prepared {
                    Ok(job) => jobs.push_back(job),
                    Err(failure) => tried.push((label, Err(failure))),
                }
            }
        }
    }
    // Others may prepare theirs meanwhile, but for making images anew that guests have.
    let _images = vm.use_images()?;
    drop(ground);
    tried.extend(in_guests(vm, jobs, options));
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    for (label, outcome) in tried {
        match outcome {
            Ok(run) => {
                keep(vm, &run)?;
                runs.push(run);
            }
            Err(failure) => failures.push(format!("{label}: {failure}")),
        }
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

/// All of them, so many at a time, in the order in which they were asked for.
fn in_guests(
    vm: &Vm<'_>,
    jobs: VecDeque<Job>,
    options: &TestOptions,
) -> Vec<(String, Result<Run, Failure>)> {
    // A guest waits a fifth of its time: half as many again as there are processors keep these at work.
    let most = options.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, NonZero::get) * 3 / 2,
        NonZero::get,
    );
    let is_alone = jobs.len() == 1 || most == 1;
    let labels: Vec<String> = jobs.iter().map(|job| job.label().to_owned()).collect();
    let waiting = Mutex::new(jobs);
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..most.min(labels.len()) {
            scope.spawn(|| {
                loop {
                    // Nothing in here panics with either lock held.
                    let next = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(job) = next else { return };
                    heading(vm, job.label(), job.by(), options);
                    let outcome = job.run(vm, (!is_alone).then_some(job.label()));
                    if let Ok(run) = &outcome {
                        line(format_args!("{} took {}", run.label, seconds(run.took)));
                    }
                    ended
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((job.label().to_owned(), outcome));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|(label, _)| labels.iter().position(|each| each == label));
    ended
}

/// Tables beside the logs.
fn keep(vm: &Vm<'_>, run: &Run) -> Result<(), Failure> {
    let folder = vm.folder.join(format!("results/{}", run.label));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("results.tsv"), run.results.table()))
        .and_then(|()| fs::write(folder.join("times.tsv"), run.times.table()))
        .map_err(|error| fail("write", &folder, &error))
}

/// The kernels asked for, in order, each once.
fn places(options: &TestOptions) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    let guests = |places: &mut Vec<Place>, kernel| {
        let each = options.lsm.each().iter();
        places.extend(each.map(|&with_lsm| Place::Guest { kernel, with_lsm }));
    };
    for name in &options.kernels {
        match name.as_str() {
            "all" => {
                places.push(Place::Host);
                for kernel in kernels::supported() {
                    guests(&mut places, kernel);
                }
            }
            HOST => places.push(Place::Host),
            name => guests(&mut places, kernels::find(name)?),
        }
    }
    if places.is_empty() {
        guests(&mut places, kernels::find(kernels::DEFAULT)?);
    }
    let mut once = Vec::new();
    for place in places {
        if !once.contains(&place) {
            once.push(place);
        }
    }
    Ok(once)
}

fn choose(built: &Built, options: &TestOptions) -> Result<Vec<Option<Suite>>, Failure> {
    let names = &options.suites;
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
        // It takes no filter: unless asked for it is not what somebody wants who has one.
        .filter(|(name, suite)| {
            names.contains(name)
                || names.is_empty() && (suite.is_some() || options.filter.is_none())
        })
        .map(|(_, suite)| suite)
        .collect())
}

/// The same programs, here: what the guests are compared with.
fn on_host(
    vm: &Vm<'_>,
    ground: &Ground,
    chosen: &[Option<Suite>],
    options: &TestOptions,
) -> Result<Run, Failure> {
    let mut results = Results::default();
    let mut silent = Vec::new();
    let mut times = Times::start();
    let start = Instant::now();
    let folder = vm
        .folder
        .join(format!("results/{}", Place::Host.label(options)));
    fs::create_dir_all(&folder).map_err(|error| fail("make", &folder, &error))?;
    for suite in chosen.iter().flatten() {
        line(format_args!("suite {}", suite.name));
        times.open(&suite.name);
        let beyond = vm.folder.join("beyond");
        fs::write(&beyond, "").map_err(|error| fail("write", &beyond, &error))?;
        let mut command = Command::new(&suite.program);
        command
            .arg("--test-threads=1")
            .args(&options.filter)
            .current_dir(&suite.folder)
            .env("POSTERN_BIN", &ground.postern)
            .env("POSTERN_TEST_BEYOND", &beyond)
            .env("CARGO", crate::workspace::cargo_path());
        if options.wan {
            command.env("POSTERN_TEST_NETEM", WAN);
        }
        let mut output = String::new();
        // Which tests failed is in its output; that one did is no reason to stop here.
        let ended = process::watched(&mut command, |text| {
            times.read(text);
            output.push_str(text);
        });
        // There already, should this command not come to its end.
        let kept = folder.join(format!("{}.out", suite.name));
        fs::write(&kept, &output).map_err(|error| fail("write", &kept, &error))?;
        let found = results.read(&suite.name, &output);
        if let Err(failure) = ended
            && job::is_silent(&results, &suite.name, found)
        {
            silent.push(format!("{}: {failure}", suite.name));
        }
        let reasons = fs::read_to_string(&beyond).map_err(|error| fail("read", &beyond, &error))?;
        results.excuse(&suite.name, &reasons);
    }
    if chosen.iter().any(Option::is_none) {
        for name in job::verifier_tests(vm)? {
            results.beyond(VERIFIER_SUITE, &name, "asked in guests, of each kernel");
        }
    }
    let took = start.elapsed();
    line(format_args!("{HOST} took {}", seconds(took)));
    if !silent.is_empty() {
        return Err(Failure::failed(format!(
            "ended without saying of a test that it failed: {}",
            silent.join(", ")
        )));
    }
    Ok(Run {
        kernel: HOST,
        label: Place::Host.label(options),
        results,
        took,
        mib: None,
        times,
    })
}

fn heading(vm: &Vm<'_>, label: &str, by: &str, options: &TestOptions) {
    let lsm = if label.starts_with(HOST) {
        ""
    } else if label.contains("-nolsm") {
        ", without BPF LSM"
    } else {
        ", with BPF LSM"
    };
    let wan = if options.wan {
        ", 40 ms and 1 % loss"
    } else {
        ""
    };
    vm.console.heading(&format!("{label} ({by}{lsm}{wan})"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn labels(asked: &[&str], lsm: Lsm) -> Vec<String> {
        let options = TestOptions {
            kernels: asked.iter().map(|&name| name.to_owned()).collect(),
            lsm,
            ..TestOptions::default()
        };
        let places = places(&options).unwrap();
        places.iter().map(|place| place.label(&options)).collect()
    }

    #[test]
    fn all_is_the_host_and_every_supported_kernel() {
        assert_eq!(labels(&["all"], Lsm::On), ["host", "6.1", "6.12", "7.3"]);
        assert_eq!(labels(&["6.1", "6.1"], Lsm::Both), ["6.1", "6.1-nolsm"]);
        assert_eq!(labels(&[], Lsm::Off), ["6.1-nolsm"]);
        let unknown = TestOptions {
            kernels: vec!["2.4".to_owned()],
            ..TestOptions::default()
        };
        assert!(places(&unknown).is_err());
    }
}
