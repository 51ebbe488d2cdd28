//! How an addition is written: YAML that no reader takes for anything else, names that are free.
//!
//! It refuses to know what is added, and why.

use std::net::IpAddr;

use crate::policy::{Class, Listener, TlsMode};

/// A listener, as an item of a list in flow style.
pub(super) fn write_listener(listener: &Listener) -> String {
    let Listener {
        name,
        class,
        port,
        tls_mode,
    } = listener;
    let protocol = match class {
        Class::Tls => "TLS",
        Class::Http => "HTTP",
        Class::Tcp => "TCP",
    };
    let port = port.map_or(String::new(), |port| format!(", port: {port}"));
    let tls = match (class, tls_mode) {
        (Class::Tls, TlsMode::Terminate) => ", tls: {mode: Terminate}",
        _ => "",
    };
    format!(
        "{{name: {}, protocol: {protocol}{port}{tls}}}",
        scalar(name)
    )
}

/// The address and no other.
pub(super) fn block(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    scalar(&format!("{address}/{length}"))
}

/// The one that goes before the word.
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// The name wanted, numbered if it is taken.
pub(super) fn free_name(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !taken(name))
        .unwrap_or_default()
}

/// A text as a part of an object's name: lower-case letters, digits and inner hyphens.
pub(super) fn label(text: &str) -> String {
    const LONGEST: usize = 200;
    let hyphened: String = text
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .take(LONGEST)
        .collect();
    let parts: Vec<&str> = hyphened
        .split('-')
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("-").to_ascii_lowercase()
}

/// A string in YAML: plain where no reader could take it for anything else. JSON's strings are YAML's.
pub(super) fn scalar(text: &str) -> String {
    let starts_well = text.starts_with(|first: char| first == '/' || first.is_ascii_alphabetic());
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if starts_well && text.chars().all(plain) && !word.contains(&text.to_ascii_lowercase().as_str())
    {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
