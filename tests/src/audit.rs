//! The gateway's own record of what it did: JSON lines, one a connection, a request or a denial.
//! It refuses to know which fields a suite cares for.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Record {
    /// `denied`, `connection` or `request`.
    pub fn event(&self) -> &str {
        self.text("event")
    }

    /// Why it was refused; empty if it was not.
    pub fn reason(&self) -> &str {
        self.text("reason")
    }

    /// Where it was refused: `kernel`, `sniff`, `http` or `dns`.
    pub fn stage(&self) -> &str {
        self.text("stage")
    }

    /// The address the sandbox wanted, `ip:port`.
    pub fn destination(&self) -> &str {
        self.text("destination")
    }

    /// The normalised name, if one was known.
    pub fn host(&self) -> &str {
        self.text("host")
    }

    /// The rule behind the decision, if there was one.
    pub fn rule(&self) -> &str {
        self.text("rule")
    }

    /// The HTTP status that the sandbox saw.
    pub fn status(&self) -> Option<u64> {
        self.0.get("status").and_then(Value::as_u64)
    }

    /// The name of the process, as the kernel had it at the time of the connection.
    pub fn comm(&self) -> &str {
        self.0
            .pointer("/process/comm")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A number of the process: `pid`, `tgid` or `uid`.
    pub fn process(&self, field: &str) -> Option<u64> {
        self.0.get("process")?.get(field)?.as_u64()
    }

    /// Whether the destination is `address`, whichever of its forms was recorded: a v4-mapped
    /// address counts as its IPv4 self.
    pub fn is_to(&self, address: std::net::SocketAddr) -> bool {
        self.destination()
            .parse::<std::net::SocketAddr>()
            .is_ok_and(|found| {
                found.port() == address.port()
                    && found.ip().to_canonical() == address.ip().to_canonical()
            })
    }

    fn text(&self, field: &str) -> &str {
        self.0
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Every whole line of `path`; a missing file has none. A line that is no JSON object is an error,
/// and so is anything but a half-written line at the very end.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the audit log {}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Map<String, Value>>(line)
                .map(|object| Record(Value::Object(object)))
                .with_context(|| format!("not a JSON object in the audit log: {line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_line_waits_and_a_mapped_address_is_its_ipv4_self() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(
            file.path(),
            "{\"event\":\"denied\",\"destination\":\"[::ffff:203.0.113.9]:443\",\"process\":{\"comm\":\"curl\",\"pid\":7}}\n{\"eve",
        )?;
        let records = read(file.path())?;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].event(), "denied");
        assert!(records[0].is_to(([203, 0, 113, 9], 443).into()));
        assert!(!records[0].is_to(([203, 0, 113, 9], 80).into()));
        assert_eq!(records[0].comm(), "curl");
        assert_eq!(records[0].process("pid"), Some(7));
        std::fs::write(file.path(), "nonsense\n")?;
        assert!(read(file.path()).is_err());
        Ok(())
    }
}
