//! The name server that the gateway asks: for names below `rebind.test` it answers with the addresses
//! that no name may lead to, and it writes down whatever it is asked. It refuses to know the gateway.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Where it listens: no port that a sandbox's question would be sent to.
pub(crate) const ADDRESS: &str = "127.0.0.200:5354";
/// What each name below `rebind.test` leads to.
pub(crate) const REBOUND: &[(&str, &str)] = &[
    ("loopback", "127.0.0.99"),
    ("loopback6", "::1"),
    ("mapped", "::ffff:127.0.0.99"),
    ("zero", "0.0.0.0"),
    ("metadata", "169.254.169.254"),
    ("metadata6", "fd00:ec2::254"),
    ("mapped-metadata", "::ffff:169.254.169.254"),
    ("nat64", "64:ff9b::a9fe:a9fe"),
    ("compatible", "::a9fe:a9fe"),
    ("6to4", "2002:a9fe:a9fe::1"),
    ("azure", "168.63.129.16"),
    ("alibaba", "100.100.100.200"),
    ("private10", "10.0.0.1"),
    ("private172", "172.16.0.1"),
    ("private192", "192.168.0.1"),
    ("shared", "100.64.0.1"),
    ("local6", "fd12::1"),
    ("link6", "fe80::1"),
    ("multicast", "224.0.0.1"),
    ("broadcast", "255.255.255.255"),
];

/// Serves until the test ends.
pub(crate) struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Listens in the calling thread's namespace.
    pub(crate) fn start() -> Result<Self> {
        let socket = UdpSocket::bind(ADDRESS).context("the name server cannot listen")?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                answer(&socket, &buffer[..length], client, &log);
            }
        });
        Ok(Self { asked })
    }

    /// Every name asked for, as it was written.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn answer(socket: &UdpSocket, question: &[u8], client: SocketAddr, log: &Mutex<Vec<String>>) {
    let Some((name, kind, end)) = read(question) else {
        return;
    };
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(name.clone());
    let wanted = REBOUND
        .iter()
        .find(|(label, _)| name.eq_ignore_ascii_case(&format!("{label}.rebind.test")))
        .and_then(|(_, address)| address.parse::<IpAddr>().ok());
    let data = match (wanted, kind) {
        (Some(IpAddr::V4(v4)), 1) => v4.octets().to_vec(),
        (Some(IpAddr::V6(v6)), 28) => v6.octets().to_vec(),
        _ => Vec::new(),
    };
    let mut message = question[..end].to_vec();
    // QR, RD, RA; NXDOMAIN for what is nobody's; one question, the answers, and nothing else.
    message[2] = 0x81;
    message[3] = if wanted.is_some() { 0x80 } else { 0x83 };
    message[6..12].copy_from_slice(&[0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    if let Ok(length) = u8::try_from(data.len())
        && length > 0
    {
        let kind = u8::try_from(kind).unwrap_or_default();
        // A pointer to the name, type, class IN, a life of five seconds.
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 5, 0, length]);
        message.extend(data);
    }
    drop(socket.send_to(&message, client));
}

/// The question's name and type, and where it ends.
fn read(question: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*question.get(at)?);
        let label = question.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).into_owned());
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}
