//! The TLS ClientHello: put together from records and read as far as the names go (RFC 8446 §4.1.2, §5.1; RFC 6066 §3).
//!
//! It refuses to know cryptography: cipher suites, key shares and the random are skipped, and what it lets through may still be
//! refused by a TLS server. Whatever it refuses, a server would have to refuse too.

use std::collections::HashSet;

use super::reader::Reader;
use super::{Progress, ServerName, SniffError, Sniffed};

/// The longest ClientHello that is read, in bytes without its handshake header.
///
/// 32 KiB: ten times one with two post-quantum key shares and a session ticket, and half of [`MAX_SNIFF`](super::MAX_SNIFF).
pub const MAX_CLIENT_HELLO: usize = 32 * 1024;

/// The longest payload of a plaintext record (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
/// TLS 1.0 to 1.2. TLS 1.3 says 1.2 here and its own version in an extension (RFC 8446 §4.1.2).
const LEGACY_VERSIONS: std::ops::RangeInclusive<u16> = 0x0301..=0x0303;
const MAX_SESSION_ID: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_ECH: u16 = 0xfe0d;
const NAME_TYPE_HOST: u8 = 0;

/// What a ClientHello says in the clear about where it wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server_name extension (SNI), if there is one.
    pub server_name: Option<ServerName>,
    /// The protocols offered in ALPN, in the client's order, each of 1 to 255 bytes; those reserved by GREASE included.
    pub alpn: Vec<Vec<u8>>,
    /// Whether there is an encrypted ClientHello (RFC 9849): then `server_name` may not be the name the server goes by.
    /// Clients also send a meaningless one on purpose (GREASE), which looks the same.
    pub ech: bool,
}

/// The handshake bytes of the records read so far.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// Where the next unread record starts.
    at: usize,
    /// Payload bytes of the record at `at` that are in `handshake` already.
    taken: usize,
    handshake: Vec<u8>,
}

impl Reassembly {
    /// `prefix` is the connection from its first byte.
    pub(super) fn advance(&mut self, prefix: &[u8]) -> Progress {
        match self.read(prefix) {
            Ok(None) => Progress::NeedMore,
            Ok(Some(hello)) => Progress::Done(Sniffed::Tls(hello)),
            Err(error) => Progress::Malformed(error),
        }
    }

    fn read(&mut self, prefix: &[u8]) -> Result<Option<ClientHello>, SniffError> {
        loop {
            let record = prefix.get(self.at..).unwrap_or_default();
            if record
                .first()
                .is_some_and(|content| *content != CONTENT_HANDSHAKE)
            {
                return Err(SniffError::TlsRecord);
            }
            let Some((header, payload)) = record.split_first_chunk::<RECORD_HEADER>() else {
                return Ok(None);
            };
            // The version of a record "MUST be ignored for all purposes" (RFC 8446 §5.1).
            let [_, _, _, high, low] = *header;
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len == 0 || len > MAX_RECORD {
                return Err(SniffError::TlsRecord);
            }
            let fragment = payload.get(..len).unwrap_or(payload);
            self.handshake
                .extend_from_slice(fragment.get(self.taken..).unwrap_or_default());
            self.taken = fragment.len();
            // What follows the hello in the same record is for the TLS server to judge: waiting for it could stall a client
            // that has nothing more to say.
            if let Some(hello) = client_hello(&self.handshake)? {
                return Ok(Some(hello));
            }
            if fragment.len() < len {
                return Ok(None);
            }
            self.at += RECORD_HEADER + len;
            self.taken = 0;
        }
    }
}

/// Reads the first handshake message; `None` while it is incomplete.
fn client_hello(handshake: &[u8]) -> Result<Option<ClientHello>, SniffError> {
    if handshake
        .first()
        .is_some_and(|message| *message != HANDSHAKE_CLIENT_HELLO)
    {
        return Err(SniffError::NotClientHello);
    }
    let Some((header, rest)) = handshake.split_first_chunk::<HANDSHAKE_HEADER>() else {
        return Ok(None);
    };
    let [_, high, middle, low] = *header;
    let len = (usize::from(high) << 16) | (usize::from(middle) << 8) | usize::from(low);
    if len > MAX_CLIENT_HELLO {
        return Err(SniffError::ClientHelloTooLong);
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    hello_body(Reader::new(body)).map(Some)
}

fn hello_body(mut body: Reader<'_>) -> Result<ClientHello, SniffError> {
    let syntax = SniffError::ClientHelloSyntax;
    let version = body.u16().ok_or(syntax)?;
    if !LEGACY_VERSIONS.contains(&version) {
        return Err(SniffError::ClientHelloVersion);
    }
    body.take(32).ok_or(syntax)?; // random
    let session_id = body.vec8().ok_or(syntax)?.rest().len();
    let cipher_suites = body.vec16().ok_or(syntax)?.rest().len();
    let compression_methods = body.vec8().ok_or(syntax)?.rest().len();
    if session_id > MAX_SESSION_ID
        || cipher_suites == 0
        || cipher_suites % 2 != 0
        || compression_methods == 0
    {
        return Err(syntax);
    }
    let mut hello = ClientHello {
        server_name: None,
        alpn: Vec::new(),
        ech: false,
    };
    // Before TLS 1.3 the whole block may be absent (RFC 5246 §7.4.1.2).
    if body.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.vec16().ok_or(syntax)?;
    if !body.is_empty() {
        return Err(syntax);
    }
    let mut seen = HashSet::new();
    while !extensions.is_empty() {
        let kind = extensions.u16().ok_or(syntax)?;
        let data = extensions.vec16().ok_or(syntax)?;
        if !seen.insert(kind) {
            return Err(SniffError::DuplicateExtension);
        }
        match kind {
            EXTENSION_SERVER_NAME => {
                hello.server_name = Some(server_name(data).ok_or(SniffError::ServerName)?)
            }
            EXTENSION_ALPN => hello.alpn = alpn(data).ok_or(SniffError::Alpn)?,
            EXTENSION_ECH => hello.ech = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// Exactly one entry, of type host_name. No other type was ever defined, and a list of several would let two parsers
/// choose differently.
fn server_name(mut data: Reader<'_>) -> Option<ServerName> {
    let mut list = data.vec16()?;
    let kind = list.u8()?;
    let name = list.vec16()?;
    if kind != NAME_TYPE_HOST || !list.is_empty() || !data.is_empty() {
        return None;
    }
    ServerName::parse(name.rest()).ok()
}

fn alpn(mut data: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = data.vec16()?;
    if list.is_empty() || !data.is_empty() {
        return None;
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.vec8()?.rest();
        if protocol.is_empty() {
            return None;
        }
        protocols.push(protocol.to_vec());
    }
    Some(protocols)
}
