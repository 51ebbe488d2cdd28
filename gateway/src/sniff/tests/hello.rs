//! ClientHellos: real ones, built ones, cut ones and wrong ones. Knows RFC 8446 as a builder, not as a parser.

use super::*;

/// Bytes as captured, the server name and the protocols in them.
type Captured = (&'static [u8], &'static str, &'static [&'static [u8]]);

const REAL: [Captured; 4] = [
    (
        include_bytes!("../testdata/openssl-tls13.bin"),
        "api.anthropic.com",
        &[b"h2", b"http/1.1"],
    ),
    (
        include_bytes!("../testdata/openssl-tls12.bin"),
        "api.anthropic.com",
        &[],
    ),
    (
        include_bytes!("../testdata/node.bin"),
        "api.openai.com",
        &[b"http/1.1"],
    ),
    (
        include_bytes!("../testdata/curl.bin"),
        "x.example",
        &[b"h2", b"http/1.1"],
    ),
];

/// A ClientHello that can be bent.
#[derive(Debug, Clone)]
struct Hello {
    version: u16,
    session_id: Vec<u8>,
    cipher_suites: Vec<u8>,
    compression: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    fn new(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self {
            version: 0x0303,
            session_id: vec![7; 32],
            cipher_suites: vec![0x0a, 0x0a, 0x13, 0x01],
            compression: vec![0],
            extensions: Some(extensions),
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([9; 32]);
        body.extend(vec8(&self.session_id));
        body.extend(vec16(&self.cipher_suites));
        body.extend(vec8(&self.compression));
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), vec16(data)].concat())
                .collect();
            body.extend(vec16(&block));
        }
        body
    }

    fn sent(&self) -> Vec<u8> {
        records(&message(&self.body()), 1 << 14)
    }
}

fn vec8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1, len[1], len[2], len[3]], body].concat()
}

pub(super) fn records(handshake: &[u8], payload: usize) -> Vec<u8> {
    handshake
        .chunks(payload)
        .flat_map(|fragment| [&[22, 3, 1][..], &vec16(fragment)].concat())
        .collect()
}

fn sni(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[0], &vec16(name)[..]].concat())
        .collect();
    (0, vec16(&list))
}

fn alpn(protocols: &[&[u8]]) -> (u16, Vec<u8>) {
    (
        16,
        vec16(
            &protocols
                .iter()
                .flat_map(|protocol| vec8(protocol))
                .collect::<Vec<u8>>(),
        ),
    )
}

/// Shaped like a browser's: GREASE in every list, an encrypted ClientHello, a post-quantum key share.
fn browser() -> Hello {
    Hello::new(vec![
        (0x2a2a, vec![]),
        sni(&[b"Claude.ai"]),
        alpn(&[&[0x3a, 0x3a], b"h2", b"http/1.1"]),
        (43, vec![7, 0x1a, 0x1a, 3, 4, 3, 3]),
        (51, vec16(&[&[0x11, 0xec][..], &vec16(&[5; 1216])].concat())),
        (0xfe0d, vec![0; 250]),
        (0x4a4a, vec![0]),
        (21, vec![0; 100]),
    ])
}

/// Hellos for the property tests, in records of several sizes.
pub(super) fn hellos() -> impl Strategy<Value = Vec<u8>> {
    let small = Hello::new(vec![sni(&[b"a.example"]), alpn(&[b"h2"])]);
    (
        prop::sample::select(vec![
            small.clone(),
            Hello {
                extensions: None,
                ..small
            },
        ]),
        prop::sample::select(vec![1usize, 7, 50, 1 << 14]),
    )
        .prop_map(|(hello, payload)| records(&message(&hello.body()), payload))
}

fn hello(progress: Progress) -> ClientHello {
    match progress {
        Progress::Done(Sniffed::Tls(hello)) => hello,
        other => panic!("not a ClientHello: {other:?}"),
    }
}

#[test]
fn real_hellos_are_read_at_their_last_byte() {
    for (bytes, name, protocols) in REAL {
        let read = hello(sniff(bytes));
        assert_eq!(read.server_name.as_deref(), Some(name));
        assert_eq!(read.alpn, protocols);
        assert!(!read.ech);
        decided_by_the_last_byte(bytes, &Progress::Done(Sniffed::Tls(read)));
    }
}

#[test]
fn grease_and_encrypted_hellos_are_seen_for_what_they_are() {
    let read = hello(sniff(&browser().sent()));
    assert_eq!(read.server_name.as_deref(), Some("Claude.ai"));
    assert_eq!(read.alpn, [&[0x3a, 0x3a][..], b"h2", b"http/1.1"]);
    assert!(read.ech);
}

#[test]
fn records_may_be_cut_anywhere() {
    let handshake = message(&browser().body());
    let whole = sniff(&browser().sent());
    for payload in [1, 2, 3, 4, 5, 100, handshake.len() - 1] {
        decided_by_the_last_byte(&records(&handshake, payload), &whole);
    }
    let (real, ..) = REAL[0];
    decided_by_the_last_byte(&records(&real[5..], 1), &sniff(real));
}

#[test]
fn a_hello_may_have_no_name_no_protocols_and_no_extensions() {
    let nothing = ClientHello {
        server_name: None,
        alpn: vec![],
        ech: false,
    };
    for extensions in [None, Some(vec![])] {
        let mut bare = Hello {
            extensions,
            session_id: vec![],
            version: 0x0301,
            ..Hello::new(vec![])
        };
        assert_eq!(hello(sniff(&bare.sent())), nothing);
        bare.version = 0x0302;
        assert_eq!(hello(sniff(&bare.sent())), nothing);
    }
}

#[test]
fn the_longest_hello_is_read_and_one_byte_more_is_not() {
    let padding = |len: usize| {
        let bare = Hello::new(vec![sni(&[b"a.example"]), (21, vec![])])
            .body()
            .len();
        Hello::new(vec![sni(&[b"a.example"]), (21, vec![0; len - bare])])
    };
    let longest = padding(MAX_CLIENT_HELLO).sent();
    assert_eq!(
        hello(sniff(&longest)).server_name.as_deref(),
        Some("a.example")
    );
    assert_eq!(sniff(&longest[..longest.len() - 1]), Progress::NeedMore);
    let longer = padding(MAX_CLIENT_HELLO + 1).sent();
    decided_by_the_last_byte(&longer[..9], &malformed(SniffError::ClientHelloTooLong));
}

#[test]
fn a_hello_in_tiny_records_ends_at_the_read_limit() {
    let bytes = records(&message(&Hello::new(vec![(21, vec![0; 11_000])]).body()), 1);
    assert!(bytes.len() > MAX_SNIFF);
    assert_eq!(sniff(&bytes[..MAX_SNIFF - 1]), Progress::NeedMore);
    assert_eq!(sniff(&bytes), malformed(SniffError::TooLong));
}

#[test]
fn wrong_records_are_refused() {
    let handshake = message(&Hello::new(vec![]).body());
    let first = records(&handshake[..10], 10);
    for (second, label) in [
        (&[21, 3, 3, 0, 2, 1, 0][..], "an alert in between"),
        (&[20, 3, 3, 0, 1, 1], "a change of cipher in between"),
        (&[22, 3, 3, 0, 0], "an empty record"),
        (&[22, 3, 3, 0x40, 1], "a record of 2^14 + 1 bytes"),
    ] {
        assert_eq!(
            sniff(&[&first, second].concat()),
            malformed(SniffError::TlsRecord),
            "{label}"
        );
    }
    assert_eq!(sniff(&[22, 3, 1, 0, 0]), malformed(SniffError::TlsRecord));
    assert_eq!(sniff(&[22, 3, 1, 0x40, 0]), Progress::NeedMore);
    assert_eq!(
        sniff(&[22, 3, 1, 0, 4, 2]),
        malformed(SniffError::NotClientHello)
    );
}

#[test]
fn wrong_hellos_are_refused() {
    let good = || Hello::new(vec![sni(&[b"a.example"])]);
    let name = SniffError::ServerName;
    let syntax = SniffError::ClientHelloSyntax;
    let cases: Vec<(&str, Hello, SniffError)> = vec![
        (
            "SSL 3.0",
            Hello {
                version: 0x0300,
                ..good()
            },
            SniffError::ClientHelloVersion,
        ),
        (
            "TLS 1.3 as the legacy version",
            Hello {
                version: 0x0304,
                ..good()
            },
            SniffError::ClientHelloVersion,
        ),
        (
            "a long session id",
            Hello {
                session_id: vec![0; 33],
                ..good()
            },
            syntax,
        ),
        (
            "no cipher suite",
            Hello {
                cipher_suites: vec![],
                ..good()
            },
            syntax,
        ),
        (
            "half a cipher suite",
            Hello {
                cipher_suites: vec![0x13],
                ..good()
            },
            syntax,
        ),
        (
            "no compression method",
            Hello {
                compression: vec![],
                ..good()
            },
            syntax,
        ),
        (
            "server_name twice",
            Hello::new(vec![sni(&[b"a.example"]), sni(&[b"a.example"])]),
            SniffError::DuplicateExtension,
        ),
        (
            "any extension twice",
            Hello::new(vec![(0x2a2a, vec![]), (0x2a2a, vec![])]),
            SniffError::DuplicateExtension,
        ),
        (
            "two host names",
            Hello::new(vec![sni(&[b"a.example", b"b.example"])]),
            name,
        ),
        ("no host name", Hello::new(vec![sni(&[])]), name),
        (
            "an empty server_name extension",
            Hello::new(vec![(0, vec![])]),
            name,
        ),
        ("an empty name", Hello::new(vec![sni(&[b""])]), name),
        (
            "a NUL in the name",
            Hello::new(vec![sni(&[b"a.example\0.evil.example"])]),
            name,
        ),
        (
            "an IPv4 literal",
            Hello::new(vec![sni(&[b"192.0.2.1"])]),
            name,
        ),
        (
            "an IPv6 literal",
            Hello::new(vec![sni(&[b"2001:db8::1"])]),
            name,
        ),
        (
            "a name with a port",
            Hello::new(vec![sni(&[b"a.example:443"])]),
            name,
        ),
        (
            "a name in UTF-8",
            Hello::new(vec![sni(&["b\u{fc}cher.example".as_bytes()])]),
            name,
        ),
        (
            "another type of name",
            Hello::new(vec![(0, vec16(&[&[1], &vec16(b"a.example")[..]].concat()))]),
            name,
        ),
        (
            "bytes after the list of names",
            Hello::new(vec![(0, [&sni(&[b"a"]).1[..], &[0]].concat())]),
            name,
        ),
        (
            "a list of names longer than the extension",
            Hello::new(vec![(0, vec![0, 9, 0, 0, 1, b'a'])]),
            name,
        ),
        (
            "a name longer than its list",
            Hello::new(vec![(0, vec![0, 4, 0, 0, 9, b'a'])]),
            name,
        ),
        ("no protocol", Hello::new(vec![alpn(&[])]), SniffError::Alpn),
        (
            "an empty protocol",
            Hello::new(vec![alpn(&[b"h2", b""])]),
            SniffError::Alpn,
        ),
        (
            "bytes after the protocols",
            Hello::new(vec![(16, vec![0, 3, 2, b'h', b'2', 0])]),
            SniffError::Alpn,
        ),
    ];
    for (label, hello, error) in cases {
        assert_eq!(sniff(&hello.sent()), malformed(error), "{label}");
        assert_eq!(
            sniff(&records(&message(&hello.body()), 1)),
            malformed(error),
            "{label}"
        );
    }
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let body = Hello::new(vec![sni(&[b"a.example"])]).body();
    for len in 0..body.len() {
        let read = sniff(&records(&message(&body[..len]), 1 << 14));
        let bare = 2 + 32 + 33 + 6 + 2; // up to where the extensions may be left out
        if len == bare {
            assert!(matches!(read, Progress::Done(_)));
        } else {
            assert_eq!(read, malformed(SniffError::ClientHelloSyntax), "{len}");
        }
    }
    let trailing = [&body[..], &[0]].concat();
    assert_eq!(
        sniff(&records(&message(&trailing), 1 << 14)),
        malformed(SniffError::ClientHelloSyntax)
    );
}
