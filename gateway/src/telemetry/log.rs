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

/// A bare level is about the gateway: libraries that say much at debug are asked for by name.
const QUIET: &str = ",aya=warn,aya_obj=warn,h2=info,hyper=info,hyper_util=info,hickory_proto=info,hickory_resolver=info,netlink_proto=warn,rustls=info";

/// Sets up logging for the process. `level` is a filter such as `info` or `gateway=debug`.
pub fn init(level: &str, format: Format) -> Result<(), String> {
    let quiet = if level.contains('=') { "" } else { QUIET };
    let filter = EnvFilter::try_new(format!("{level}{quiet}")).map_err(|error| {
        format!("--log-level {level}: {error}; try error, warn, info, debug or trace")
    })?;
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
