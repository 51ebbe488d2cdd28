//! Structured logs on standard error.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a level is called.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A bare level is about the gateway: libraries that say much at debug are asked for by name.
const QUIET: &str = ",aya=warn,aya_obj=warn,h2=info,hyper=info,hyper_util=info,hickory_proto=info,hickory_resolver=info,netlink_proto=warn,rustls=info";

/// Sets up logging for the process. `level` is a filter such as `info` or `gateway=debug`.
///
/// # Errors
/// A text that is no filter, with those that are.
pub fn init(level: &str, format: Format) -> Result<(), String> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |why: &str| {
        format!(
            "--log-level `{level}`: {why}; expected off, error, warn, info, debug, trace or a filter such as gateway=debug"
        )
    };
    let named = level.contains(['=', ',']);
    // A filter takes any word for the name of a module, and then shows nothing.
    if !named && !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
        return Err(wrong("no such level"));
    }
    let quiet = if level.contains('=') { "" } else { QUIET };
    EnvFilter::try_new(format!("{level}{quiet}")).map_err(|error| wrong(&error.to_string()))
}

/// Debug lines of the kernel programs come through the `log` crate; they join the rest here.
pub fn kernel_logger() -> impl log::Log {
    KernelLines
}

struct KernelLines;

impl log::Log for KernelLines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "postern::kernel", "{}", record.args());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_module() {
        for level in ["off", "warn", "INFO", "gateway=debug", "info,hyper=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["verbose", "bogus", "", "gateway=loud"] {
            let told = filter(level).err().unwrap_or_default();
            assert!(told.contains("expected off, error"), "{level}: {told}");
        }
    }
}
