//! One guest's work: which suites it runs, what is packed for it, and what its disk says afterwards.
//! It refuses to know how many guests there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::files::{fail, replaced};
use super::image::KernelImage;
use super::kernels::Kernel;
use super::qemu::{Accelerator, Disk, Guest, lsm_argument, watch};
use super::results::Results;
use super::suites::{TestOptions, WAN};
use super::summary::{Run, Times};
use super::tree::{self, Stage, Suite};
use super::{Ground, VERIFIER_SUITE, Vm};
use crate::Failure;
use crate::console::line;

const SUITES: &str = include_str!("guest/suites.sh");
const VERIFIER: &str = include_str!("guest/verifier.py");
/// Where the kernel programs' entry points are, for the verifier suite.
const ENTRIES: &str = "gateway-ebpf/src/main.rs";

/// As the verifier's script has it.
const DOCTOR: &str = "doctor tells whether BPF LSM is active";

/// For one suite in a guest, in seconds: under emulation on a busy machine the longest takes an eighth of this.
const SUITE_LIMIT: u64 = 2 * 3600;
/// For a guest with everything in it.
const GUEST_LIMIT: Duration = Duration::from_secs(12 * 3600);
/// Room for logs: the file is sparse.
const RESULTS_BYTES: u64 = 1 << 30;

/// A guest that is ready to be booted.
pub(super) struct Job {
    kernel: &'static Kernel,
    /// What tells it from others, and names its folder of results.
    label: String,
    with_lsm: bool,
    /// Names of the test programs that it runs.
    programs: Vec<String>,
    with_verifier: bool,
    accelerator: Accelerator,
    image: KernelImage,
    /// Of the image and the root file system together.
    mib: u64,
    files: Files,
    keep: bool,
}

/// What is the guest's alone.
struct Files {
    work: PathBuf,
    tree: PathBuf,
    results: PathBuf,
    root: PathBuf,
}

impl Job {
    /// Packs what the guest gets.
    pub(super) fn prepare(
        vm: &Vm<'_>,
        ground: &Ground,
        (kernel, with_lsm): (&'static Kernel, bool),
        label: String,
        chosen: &[Option<Suite>],
        options: &TestOptions,
    ) -> Result<Self, Failure> {
        let image = ground.kernel(vm, kernel)?;
        let work = replaced(&vm.folder, &format!("run-{label}."))?;
        let programs: Vec<&Suite> = if kernel.is_supported {
            chosen.iter().flatten().collect()
        } else {
            line("not supported: only the verifier suite");
            Vec::new()
        };
        let job = Self {
            kernel,
            label,
            with_lsm,
            programs: programs.iter().map(|suite| suite.name.clone()).collect(),
            with_verifier: !kernel.is_supported || chosen.iter().any(Option::is_none),
            accelerator: Accelerator::probe(vm, &image),
            mib: image.mib(&ground.root)?,
            image,
            files: Files {
                tree: work.join("tree.tar"),
                results: work.join("results.raw"),
                root: work.join("root.qcow2"),
                work,
            },
            keep: options.keep,
        };
        vm.console.step("test tree", |_| {
            let stage = job.stage(vm, ground, &programs, options)?;
            stage.pack(vm, &job.files.tree)?;
            super::files::size_of(&job.files.tree)
        })?;
        blank(&job.files.results, RESULTS_BYTES)?;
        vm.log.run(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(&ground.root.disk)
                .arg(&job.files.root),
        )?;
        Ok(job)
    }

    /// What tells it from others.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// How its instructions are run, for people.
    pub(super) fn by(&self) -> &'static str {
        self.accelerator.name()
    }

    /// Boots it, waits for its end, and reads what it leaves. Its lines are shown, behind its `name` if there is one.
    pub(super) fn run(&self, vm: &Vm<'_>, name: Option<&str>) -> Result<Run, Failure> {
        let start = Instant::now();
        let disk = |path: &Path, format, is_read_only| Disk {
            path: path.to_owned(),
            format,
            is_read_only,
        };
        let files = &self.files;
        let guest = Guest {
            kernel: &self.image,
            accelerator: self.accelerator,
            disks: vec![
                disk(&files.root, "qcow2", false),
                disk(&self.image.modules, "raw", true),
                disk(&files.tree, "raw", true),
                disk(&files.results, "raw", false),
            ],
            arguments: format!("postern.tree {}", lsm_argument(self.with_lsm)),
            is_interactive: false,
        };
        let folder = vm.folder.join(format!("results/{}", self.label));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| fail("remove", &folder, &error))?;
        }
        fs::create_dir_all(&folder).map_err(|error| fail("make", &folder, &error))?;
        let mut times = Times::start();
        times.prefix(name);
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
                .arg(&files.results)
                .arg("-C")
                .arg(&folder),
        );
        let results = self.read_results(vm, &folder);
        if self.keep {
            line(format_args!("kept: {}", files.work.display()));
        } else {
            fs::remove_dir_all(&files.work).map_err(|error| fail("remove", &files.work, &error))?;
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
        has_modules(&folder, self.with_lsm)?;
        Ok(Run {
            kernel: self.kernel.name,
            label: self.label.clone(),
            results,
            took: start.elapsed(),
            mib: Some(self.mib),
            times,
        })
    }

    fn read_results(&self, vm: &Vm<'_>, folder: &Path) -> Result<Results, Failure> {
        let mut results = Results::default();
        let mut silent = Vec::new();
        let names = self.programs.iter().map(String::as_str);
        for name in self
            .with_verifier
            .then_some(VERIFIER_SUITE)
            .into_iter()
            .chain(names)
        {
            let read = |kind: &str| fs::read(folder.join(format!("{name}.{kind}")));
            let text =
                |kind: &str| String::from_utf8_lossy(&read(kind).unwrap_or_default()).into_owned();
            let rc = text("rc");
            let found = results.read(name, &text("out"));
            results.excuse(name, &text("beyond"));
            // A program that never came to its turn has not passed either.
            if rc.trim().is_empty() || (rc.trim() != "0" && is_silent(&results, name, found)) {
                silent.push(format!("{name} (exit status {:?})", rc.trim()));
            }
        }
        if self.with_verifier && !self.with_lsm {
            for name in self.entries_of_lsm(vm)? {
                results.beyond(
                    VERIFIER_SUITE,
                    &name,
                    "the guest was booted without BPF LSM",
                );
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

    /// The programs that only BPF LSM takes.
    fn entries_of_lsm(&self, vm: &Vm<'_>) -> Result<Vec<String>, Failure> {
        let source = source(vm)?;
        let without = entries(&source, false);
        let all = entries(&source, true).into_iter();
        Ok(all
            .filter(|name| !without.contains(name))
            .map(str::to_owned)
            .collect())
    }

    fn stage(
        &self,
        vm: &Vm<'_>,
        ground: &Ground,
        programs: &[&Suite],
        options: &TestOptions,
    ) -> Result<Stage, Failure> {
        let stage = Stage::new(&self.files.work)?;
        let limit = SUITE_LIMIT.to_string();
        let mut variables = vec![("SUITE_LIMIT", limit.as_str())];
        variables.push(("FILTER", options.filter.as_deref().unwrap_or_default()));
        variables.extend(self.accelerator.slowness());
        if options.wan {
            variables.push(("POSTERN_TEST_NETEM", WAN));
        }
        tree::common(vm, &stage, &ground.postern, &ground.built, &variables)?;
        let mut plan = String::new();
        for suite in programs {
            stage.copy_program(vm, &suite.program)?;
            let (program, folder) = (suite.program.display(), suite.folder.display());
            plan.push_str(&format!("{}\t{program}\t{folder}\n", suite.name));
        }
        if self.with_verifier {
            let source = source(vm)?;
            let policy = vm.workspace.root.join("policies/locked-down");
            let mode = if self.kernel.is_supported {
                ""
            } else {
                "--unsupported "
            };
            let mut script = format!(
                "#!/bin/sh\nexec python3 /postern/verifier.py {mode}{}",
                tree::quoted(&policy.display().to_string())
            );
            for name in entries(&source, self.with_lsm) {
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
}

/// Did a program that failed not say of a test that it failed? It died, and has not passed for want of that.
pub(super) fn is_silent(results: &Results, suite: &str, found: usize) -> bool {
    found == 0 || !results.has_failed(suite)
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

/// The names of the verifier's tests: one a program, and what is said of BPF LSM.
pub(super) fn verifier_tests(vm: &Vm<'_>) -> Result<Vec<String>, Failure> {
    let source = source(vm)?;
    let names = entries(&source, true).into_iter().chain([DOCTOR]);
    Ok(names.map(str::to_owned).collect())
}

/// Of the kernel programs.
fn source(vm: &Vm<'_>) -> Result<String, Failure> {
    let path = vm.workspace.root.join(ENTRIES);
    fs::read_to_string(&path).map_err(|error| fail("read", &path, &error))
}

/// The names of the entry points: what stands between `pub fn` and the parenthesis after an attribute.
fn entries(source: &str, with_lsm: bool) -> Vec<&str> {
    let mut attribute = "";
    let mut names = Vec::new();
    for line in source.lines() {
        let Some(rest) = line.strip_prefix("pub fn ") else {
            attribute = line;
            continue;
        };
        if with_lsm || !attribute.starts_with("#[lsm") {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_are_the_public_functions() {
        let source = "pub fn postern_a(ctx: X) -> i32 {\nfn helper() {}\n    pub fn inner() {}\n#[lsm_cgroup(hook)]\npub fn postern_b(";
        assert_eq!(entries(source, true), ["postern_a", "postern_b"]);
        assert_eq!(entries(source, false), ["postern_a"]);
    }
}
