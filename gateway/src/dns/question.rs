//! DNS messages: the one question in what a client sent, and the answers to it. Pure: refuses to know
//! policy, sockets and the sandbox. Whatever the bytes are, reading them ends in a [`Read`].

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use std::net::IpAddr;
use std::time::Duration;

/// The most bytes of an answer over UDP, and of a question over either: what passes every network
/// unfragmented (the DNS Flag Day 2020 figure). A question is one name of at most 255 bytes and a few
/// options.
pub const MAX_DATAGRAM: usize = 1232;
/// Addresses in one answer, so that one over TCP stays below 2 KiB; names with more are load
/// balancers, for which any few will do.
pub const MAX_ANSWERS: usize = 64;
/// What a client takes over UDP that says nothing else (RFC 1035 §4.2.1).
const PLAIN_DATAGRAM: usize = 512;
/// The fixed header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;

/// How the client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers are cut to what the client takes, and say so.
    Udp,
    /// Answers are whole.
    Tcp,
}

/// What a message turned out to be.
#[derive(Debug)]
pub enum Read {
    /// A question to be answered.
    Question(Box<Question>),
    /// Something else, and all there is to say to it.
    Reply(Vec<u8>),
    /// Too short to have an id, or a response: saying anything could go on for ever.
    Nothing,
}

/// One well-formed question.
#[derive(Debug)]
pub struct Question {
    request: Message,
    query: Query,
}

/// Reads a message of at most 64 KiB.
#[must_use]
pub fn read(message: &[u8]) -> Read {
    let Some(header) = message.first_chunk::<HEADER>() else {
        return Read::Nothing;
    };
    if header[2] & RESPONSE != 0 {
        return Read::Nothing;
    }
    if header[2] & OPCODE != 0 {
        return Read::Reply(bare(header, NOT_IMPLEMENTED));
    }
    // One question (RFC 9619), and no records where a query has none.
    if header[4..10] != [0, 1, 0, 0, 0, 0] {
        return Read::Reply(bare(header, FORMAT_ERROR));
    }
    let Ok(mut request) = Message::from_vec(message) else {
        return Read::Reply(bare(header, FORMAT_ERROR));
    };
    let Some(query) = request.queries.pop() else {
        return Read::Reply(bare(header, FORMAT_ERROR));
    };
    let question = Question { request, query };
    match &question.request.edns {
        // RFC 6891 §6.1.3
        Some(edns) if edns.version() > 0 => {
            Read::Reply(question.refuse(ResponseCode::BADVERS, Transport::Udp))
        }
        _ => Read::Question(Box::new(question)),
    }
}

impl Question {
    /// The name as asked, without the last dot. Letters, digits, `-` and `_` are themselves, all else
    /// is `\DDD` (RFC 1035 §5.1), so that no byte of a label passes for a dot between two.
    #[must_use]
    pub fn name(&self) -> String {
        let mut text = String::new();
        for (index, label) in self.query.name().iter().enumerate() {
            if index > 0 {
                text.push('.');
            }
            for byte in label {
                match char::from(*byte) {
                    plain @ ('a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_') => text.push(plain),
                    _ => text.push_str(&format!("\\{byte:03}")),
                }
            }
        }
        text
    }

    /// The type asked for.
    #[must_use]
    pub fn kind(&self) -> RecordType {
        self.query.query_type()
    }

    /// Is it about the internet (class IN)?
    #[must_use]
    pub fn is_internet(&self) -> bool {
        self.query.query_class() == DNSClass::IN
    }

    /// Class (unless IN) and type, for people.
    #[must_use]
    pub fn wanted(&self) -> String {
        if self.is_internet() {
            self.kind().to_string()
        } else {
            format!("{} {}", self.query.query_class(), self.kind())
        }
    }

    /// An answer without records. It carries no SOA, so that nobody keeps it (RFC 2308 §5): the
    /// policy may change.
    #[must_use]
    pub fn refuse(&self, code: ResponseCode, over: Transport) -> Vec<u8> {
        self.encode(code, Vec::new(), over)
    }

    /// The addresses of the family asked for, under the name as it was asked (its case too: clients
    /// that mix it, draft-vixie-dnsext-dns0x20, compare). At most [`MAX_ANSWERS`]; with none the
    /// answer says that there is no such data. Aliases (CNAME) are not shown: the names they lead
    /// over are not the sandbox's to look up.
    #[must_use]
    pub fn answer(&self, addresses: &[IpAddr], life: Duration, over: Transport) -> Vec<u8> {
        let ttl = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
        let records = addresses
            .iter()
            .filter_map(|ip| match (ip, self.kind()) {
                (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
                (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
                _ => None,
            })
            .take(MAX_ANSWERS)
            .map(|data| Record::from_rdata(self.query.name().clone(), ttl, data))
            .collect();
        self.encode(ResponseCode::NoError, records, over)
    }

    fn encode(&self, code: ResponseCode, records: Vec<Record>, over: Transport) -> Vec<u8> {
        let limit = match over {
            Transport::Udp => self.client_takes(),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let mut response = self.response(code);
        response.insert_answers(records);
        loop {
            match response.to_vec() {
                Ok(bytes) if bytes.len() <= limit => return bytes,
                // What fits goes out all the same: some clients never ask again over TCP.
                Ok(_) if response.answers.pop().is_some() => response.metadata.truncation = true,
                Ok(_) | Err(_) => return self.failure(),
            }
        }
    }

    fn response(&self, code: ResponseCode) -> Message {
        let asked = &self.request.metadata;
        let mut response = Message::response(asked.id, OpCode::Query);
        response.metadata.message_type = MessageType::Response;
        response.metadata.recursion_desired = asked.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.checking_disabled = asked.checking_disabled;
        response.metadata.response_code = code;
        response.add_query(self.query.clone());
        if let Some(asked) = &self.request.edns {
            // Options (cookies, client subnets, …) are neither read nor sent back: none is required
            // (RFC 6891 §6.1.2). DO is (RFC 3225 §3).
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(MAX_DATAGRAM).unwrap_or(u16::MAX));
            edns.flags_mut().dnssec_ok = asked.flags().dnssec_ok;
            response.set_edns(edns);
        }
        response
    }

    fn client_takes(&self) -> usize {
        self.request
            .edns
            .as_ref()
            .map_or(PLAIN_DATAGRAM, |edns| usize::from(edns.max_payload()))
            .clamp(PLAIN_DATAGRAM, MAX_DATAGRAM)
    }

    fn failure(&self) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&self.request.metadata.id.to_be_bytes());
        header[2] = u8::from(self.request.metadata.recursion_desired);
        bare(&header, SERVER_FAILURE)
    }
}

/// A response that is a header and nothing else, to a message with this one.
fn bare(header: &[u8; HEADER], code: u8) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = RESPONSE | header[2] & (OPCODE | RECURSION_DESIRED);
    answer[3] = RECURSION_AVAILABLE | code;
    answer
}

#[cfg(test)]
mod tests;
