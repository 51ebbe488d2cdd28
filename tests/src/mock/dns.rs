//! A name server, over UDP and TCP: it answers A questions from a short table and writes down every
//! question it gets. It refuses to know who may ask.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A host of the table: a name, or `*.` and what it is to end in.
pub type Entry = (&'static str, Ipv4Addr);

/// The life of every answer, seconds.
const TTL: u32 = 1;
/// The type of an IPv4 address (RFC 1035 section 3.2.2).
pub const A: u16 = 1;

/// A name server, until it is dropped.
pub struct NameServer {
    zone: Arc<Zone>,
    tasks: [JoinHandle<()>; 2],
}

struct Zone {
    table: Vec<Entry>,
    asked: Mutex<Vec<(String, u16)>>,
}

impl NameServer {
    /// Serves `table` on `address`.
    pub fn start(runtime: &Handle, address: SocketAddr, table: &[Entry]) -> Result<Self> {
        let zone = Arc::new(Zone {
            table: table.to_vec(),
            asked: Mutex::default(),
        });
        let bound = runtime.block_on(async {
            Ok::<_, std::io::Error>((
                UdpSocket::bind(address).await?,
                TcpListener::bind(address).await?,
            ))
        });
        let (udp, tcp) = bound.with_context(|| format!("no name server on {address}"))?;
        let tasks = [
            runtime.spawn(over_udp(Arc::clone(&zone), udp)),
            runtime.spawn(over_tcp(Arc::clone(&zone), tcp)),
        ];
        Ok(Self { zone, tasks })
    }

    /// Every question so far: a name in lower case, and a type.
    pub fn asked(&self) -> Vec<(String, u16)> {
        self.zone
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn over_udp(zone: Arc<Zone>, socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = zone.answer(&buffer[..length]) {
            drop(socket.send_to(&answer, client).await);
        }
    }
}

async fn over_tcp(zone: Arc<Zone>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        tokio::spawn(async move { drop(converse(&zone, stream).await) });
    }
}

async fn converse(zone: &Zone, mut stream: TcpStream) -> Result<()> {
    loop {
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        let answer = zone.answer(&message).context("no question")?;
        stream.write_u16(u16::try_from(answer.len())?).await?;
        stream.write_all(&answer).await?;
    }
}

impl Zone {
    /// The question again, with addresses, with none, or with NXDOMAIN.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut at = 12;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = message.get(at..at + length)?;
            labels.push(String::from_utf8_lossy(label).to_lowercase());
            at += length;
        }
        let name = labels.join(".");
        let kind = u16::from_be_bytes(*message.get(at..)?.first_chunk()?);
        let found: Vec<Ipv4Addr> = self
            .table
            .iter()
            .filter(|(entry, _)| match entry.strip_prefix('*') {
                Some(end) => name.ends_with(end),
                None => name == *entry,
            })
            .map(|(_, address)| *address)
            .collect();
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name, kind));
        let addresses = if kind == A { &found[..] } else { &[] };
        let mut answer = message.get(..2)?.to_vec();
        // A response with recursion, NXDOMAIN or not; one question, the answers, nothing else.
        answer.extend([0x85, if found.is_empty() { 0x83 } else { 0x80 }, 0, 1]);
        answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
        answer.extend([0, 0, 0, 0]);
        answer.extend_from_slice(message.get(12..at + 4)?);
        for address in addresses {
            // The name of the question, A, IN.
            answer.extend([0xc0, 12, 0, 1, 0, 1]);
            answer.extend(TTL.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}
