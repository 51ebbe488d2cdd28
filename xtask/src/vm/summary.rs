//! What is told of runs: each test with its moment while it runs, and at the end a table, what differs, and where the
//! time went. It refuses to know how runs are made.

use std::time::{Duration, Instant};

use super::Vm;
use super::kernels::{self, CANNOT, HOST};
use super::results::{self, Results, Verdict};
use crate::console::{Style, line, seconds};

/// So many of the longest tests are named, if they are this long at all.
const LONGEST: usize = 5;
const LONG: Duration = Duration::from_secs(5);

/// What ran in one place.
#[derive(Debug)]
pub(super) struct Run {
    /// A kernel's name, or [`HOST`].
    pub(super) kernel: &'static str,
    /// The same, with how it was run.
    pub(super) label: String,
    pub(super) results: Results,
    /// All of it, from the image to the results.
    pub(super) took: Duration,
    /// Of the guest's disks and kernel together; none for the host.
    pub(super) mib: Option<u64>,
    pub(super) times: Times,
}

/// When each test ended, told as it happens.
#[derive(Debug)]
pub(super) struct Times {
    start: Instant,
    last: Duration,
    suite: String,
    /// Stands before each line that is shown.
    prefix: String,
    tests: Vec<(Duration, String)>,
}

impl Times {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            last: Duration::ZERO,
            suite: String::new(),
            prefix: String::new(),
            tests: Vec::new(),
        }
    }

    /// Whose lines are shown, where there are others'.
    pub(super) fn prefix(&mut self, name: Option<&str>) {
        self.prefix = name.map(|name| format!("{name:<10}")).unwrap_or_default();
    }

    /// What follows belongs to this suite, and begins now.
    pub(super) fn open(&mut self, suite: &str) {
        suite.clone_into(&mut self.suite);
        self.last = self.start.elapsed();
    }

    /// Takes a line of output in: the one that ends a test tells how long it took.
    pub(super) fn read(&mut self, text: &str) {
        let ended = text
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "));
        if let Some((name, _)) = ended {
            let now = self.start.elapsed();
            self.tests
                .push((now - self.last, format!("{}::{name}", self.suite)));
            self.last = now;
        }
    }

    /// A line of a guest's console: shown, if it is progress, with the time since the start.
    pub(super) fn show(&mut self, text: &str) {
        if let Some(suite) = text.strip_prefix("postern-suite: ") {
            self.open(suite);
        }
        self.read(text);
        let is_progress = ["test ", "postern-", "program ", "ok", "FAILED"]
            .iter()
            .any(|start| text.starts_with(start))
            || text.contains("Kernel panic");
        if is_progress {
            line(format_args!(
                "{}  {:>4} s  {text}",
                self.prefix,
                self.start.elapsed().as_secs()
            ));
        }
    }

    /// One line a test, in seconds, the longest first: for the file beside the logs.
    pub(super) fn table(&self) -> String {
        self.longest()
            .map(|(time, name)| format!("{:.1}\t{name}\n", time.as_secs_f64()))
            .collect()
    }

    fn longest(&self) -> impl Iterator<Item = &(Duration, String)> {
        let mut sorted: Vec<_> = self.tests.iter().collect();
        sorted.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        sorted.into_iter()
    }
}

/// Prints the table and adds what is wrong to `failures`.
pub(super) fn print(vm: &Vm<'_>, runs: &[Run], failures: &mut Vec<String>) {
    line("");
    vm.console.heading("summary");
    line("kernel              ok  failed  ignored  beyond    time  image");
    for run in runs {
        row(vm, run, failures);
    }
    for run in runs {
        let longest: Vec<String> = run
            .times
            .longest()
            .take(LONGEST)
            .filter(|(time, _)| *time > LONG)
            .map(|(time, name)| format!("{name} {}", seconds(*time)))
            .collect();
        if !longest.is_empty() {
            line(format_args!(
                "longest on {}: {}",
                run.label,
                longest.join(", ")
            ));
        }
    }
    failures.extend(differences(runs));
    let compared = comparable(runs).count();
    if compared > 1 && failures.is_empty() {
        let excused: usize = comparable(runs)
            .map(|run| run.results.count(Verdict::Beyond))
            .sum();
        let but = if excused == 0 {
            String::new()
        } else {
            format!(", but for {excused} with the reasons above")
        };
        line(format_args!(
            "the same set of tests, and the same results, on {compared} machines{but}"
        ));
    }
}

fn row(vm: &Vm<'_>, run: &Run, failures: &mut Vec<String>) {
    let (name, results) = (&run.label, &run.results);
    let judgement = results.judge(run.kernel, CANNOT);
    let (word, style) = if judgement.problems.is_empty() {
        ("passed", Style::Good)
    } else {
        ("failed", Style::Bad)
    };
    line(format_args!(
        "{name:<10} {} {:>4}  {:>6}  {:>7}  {:>6}  {:>6}  {}",
        vm.console.paint(style, word),
        results.count(Verdict::Passed),
        results.count(Verdict::Failed) + results.count(Verdict::Unfinished),
        results.count(Verdict::Ignored),
        judgement.excused.len(),
        seconds(run.took),
        run.mib
            .map_or_else(|| "-".to_owned(), |mib| format!("{mib} MiB")),
    ));
    for excused in &judgement.excused {
        line(format_args!("             {excused}"));
    }
    for part in results.parts() {
        line(format_args!("             {part}"));
    }
    let judged = [Verdict::Passed, Verdict::Failed, Verdict::Beyond];
    if judged.iter().all(|&verdict| results.count(verdict) == 0) {
        failures.push(format!("{name}: not one test was run"));
    }
    failures.extend(
        judgement
            .problems
            .iter()
            .map(|problem| format!("{name}: {problem}")),
    );
}

/// Runs that have to have the same tests: an unsupported kernel has its own.
fn comparable(runs: &[Run]) -> impl Iterator<Item = &Run> {
    runs.iter().filter(|run| {
        run.kernel == HOST || kernels::find(run.kernel).is_ok_and(|kernel| kernel.is_supported)
    })
}

/// Tests that were not run, or were ignored, in one place only.
fn differences(runs: &[Run]) -> Vec<String> {
    let compared: Vec<(&str, &Results)> = comparable(runs)
        .map(|run| (run.label.as_str(), &run.results))
        .collect();
    let mut found = Vec::new();
    for (test, without) in results::missing(&compared) {
        found.push(format!("{test}: not run on {}", without.join(", ")));
    }
    for (test, with) in results::ignored_in_part(&compared) {
        found.push(format!("{test}: ignored on {} alone", with.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &'static str, output: &str) -> Run {
        let mut results = Results::default();
        results.read("s", output);
        Run {
            kernel: name,
            label: name.to_owned(),
            results,
            took: Duration::ZERO,
            mib: None,
            times: Times::start(),
        }
    }

    #[test]
    fn the_end_of_a_test_is_counted_for_its_suite() {
        let mut times = Times::start();
        times.open("denied");
        times.read("test a ... ok");
        times.read("running 3 tests");
        times.open("path");
        times.read("test a ... FAILED");
        let names: Vec<&str> = times.tests.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["denied::a", "path::a"]);
        assert_eq!(times.table().lines().count(), 2);
    }

    #[test]
    fn what_is_run_or_ignored_on_one_machine_alone_is_a_difference() {
        let runs = [
            run(HOST, "test a ... ok\ntest b ... ok"),
            run("6.1", "test a ... ignored\ntest b ... ok"),
            run("6.12", "test a ... ok"),
            run("5.10", "test z ... ok"),
        ];
        assert_eq!(
            differences(&runs),
            ["s::b: not run on 6.12", "s::a: ignored on 6.1 alone"]
        );
    }
}
