//! What is the client speaking? Reads the first bytes of a connection and says TLS, HTTP/1, HTTP/2 or something else,
//! with just the names a decision needs.
//!
//! It refuses to know sockets, time and policy: it is handed bytes and gives back a value. The deadline for a client that
//! says nothing (every protocol in which the server speaks first) is the caller's, and so is what to do with each answer.
//!
//! The answer for a byte string never changes when more bytes follow it, and an opening that is neither of the known
//! protocols is called [`Sniffed::Opaque`] at the first byte that proves it, so that no such client waits for a deadline.

mod authority;
mod client_hello;
mod error;
mod http1;
mod reader;
mod server_name;

pub use authority::Authority;
pub use client_hello::{ClientHello, MAX_CLIENT_HELLO};
pub use error::SniffError;
pub use http1::{MAX_HEADERS, MAX_METHOD, RequestHead};
pub use server_name::{InvalidServerName, ServerName};

/// The most bytes of an opening that are ever looked at; an opening that is not understood by then is [`SniffError::TooLong`].
///
/// 64 KiB: the default of `limits.maxRequestHeaderBytes`, twice the largest request head that common servers take (32 KiB),
/// and room for a 10 KiB ClientHello that arrives in records of one byte each (six bytes on the wire for one of hello).
pub const MAX_SNIFF: usize = 64 * 1024;

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SSH's identification string (RFC 4253 §4.2). Its letters are all method-token letters, so it needs a rule of its own
/// to be opaque at once.
const SSH_BANNER: &[u8] = b"SSH-";
/// TLS ContentType `handshake` and the major version of every TLS there has been (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;

/// What an opening turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// A whole TLS ClientHello.
    Tls(ClientHello),
    /// A whole HTTP/1.x request head.
    Http1(RequestHead),
    /// HTTP/2 without TLS.
    Http2Preface,
    /// None of these: bytes to be carried, if at all, without being understood.
    Opaque,
}

/// What the bytes so far allow to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet: read more.
    NeedMore,
    /// The answer; it stays the same whatever follows.
    Done(Sniffed),
    /// One of the known protocols, spoken wrongly. The connection must not be forwarded.
    Malformed(SniffError),
}

/// Classifies an opening in one go. For an opening that grows, a [`Sniffer`] gives the same answers without starting over.
pub fn sniff(prefix: &[u8]) -> Progress {
    Sniffer::default().advance(prefix)
}

/// Classifies an opening that grows: what was read is not read again, so that a client that sends one byte at a time costs
/// no more than one that sends all at once.
#[derive(Debug, Default)]
pub struct Sniffer {
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Undecided,
    Tls(client_hello::Reassembly),
    Http(http1::HeadReader),
    Settled(Progress),
}

impl Sniffer {
    /// `prefix` is everything received so far: each call's must begin with the bytes of the one before.
    pub fn advance(&mut self, prefix: &[u8]) -> Progress {
        let window = prefix.get(..MAX_SNIFF).unwrap_or(prefix);
        if matches!(self.stage, Stage::Undecided) {
            self.stage = classify(window);
        }
        let progress = match &mut self.stage {
            Stage::Undecided => Progress::NeedMore,
            Stage::Tls(hello) => hello.advance(window),
            Stage::Http(head) => head.advance(window),
            Stage::Settled(progress) => return progress.clone(),
        };
        let progress = match progress {
            Progress::NeedMore if prefix.len() >= MAX_SNIFF => {
                Progress::Malformed(SniffError::TooLong)
            }
            other => other,
        };
        if progress != Progress::NeedMore {
            self.stage = Stage::Settled(progress.clone());
        }
        progress
    }
}

/// Which protocol the first bytes leave possible; `Undecided` while more than one still is.
fn classify(prefix: &[u8]) -> Stage {
    match prefix {
        [] | [TLS_HANDSHAKE] => Stage::Undecided,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Stage::Tls(client_hello::Reassembly::default()),
        _ if prefix.starts_with(HTTP2_PREFACE) => {
            Stage::Settled(Progress::Done(Sniffed::Http2Preface))
        }
        _ if prefix.starts_with(SSH_BANNER) => Stage::Settled(Progress::Done(Sniffed::Opaque)),
        _ if HTTP2_PREFACE.starts_with(prefix) || SSH_BANNER.starts_with(prefix) => {
            Stage::Undecided
        }
        _ => Stage::Http(http1::HeadReader::default()),
    }
}

#[cfg(test)]
mod tests;
