//! HTTP/1 heads, right and wrong. Knows what other parsers make of the wrong ones.

use super::*;

fn head(text: &str) -> RequestHead {
    match sniff(text.as_bytes()) {
        Progress::Done(Sniffed::Http1(head)) => head,
        other => panic!("not a head: {other:?} from {text:?}"),
    }
}

fn authority(text: &str) -> Option<String> {
    head(text).authority.map(|authority| authority.to_string())
}

#[test]
fn a_head_is_read_at_its_last_byte() {
    let text = "POST /v1/messages?beta=true HTTP/1.1\r\nhost: Api.Anthropic.com:443\r\ncontent-length: 3\r\n\r\n";
    let read = head(text);
    assert_eq!(
        (read.method.as_str(), read.target.as_str()),
        ("POST", "/v1/messages?beta=true")
    );
    let authority = read.authority.clone().unwrap();
    assert_eq!(
        (authority.as_str(), authority.host(), authority.port()),
        ("Api.Anthropic.com:443", "Api.Anthropic.com", Some(443))
    );
    decided_by_the_last_byte(text.as_bytes(), &Progress::Done(Sniffed::Http1(read)));
}

#[test]
fn any_token_is_a_method() {
    assert_eq!(head("get / HTTP/1.1\r\nHost: a\r\n\r\n").method, "get");
    assert_eq!(head("M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    assert_eq!(
        head("!#$%&'*+-.^_`|~9z / HTTP/1.0\r\n\r\n").method,
        "!#$%&'*+-.^_`|~9z"
    );
    assert_eq!(head("SSH / HTTP/1.0\r\n\r\n").method, "SSH");
}

#[test]
fn the_authority_comes_from_target_or_host() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nHost:a.b\r\n\r\n", Some("a.b")),
        ("GET / HTTP/1.1\r\nHost: \t a.b \t\r\n\r\n", Some("a.b")),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Some("[::1]:80")),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Some("a")),
        ("GET http://a.b/x HTTP/1.0\r\n\r\n", Some("a.b")),
        (
            "GET http://a.b:80/x HTTP/1.1\r\nHost: A.B.\r\n\r\n",
            Some("a.b:80"),
        ),
        (
            "GET HTTPS://a.b?x HTTP/1.1\r\nHost: a.b:443\r\n\r\n",
            Some("a.b"),
        ),
        (
            "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n",
            Some("a.b:443"),
        ),
    ] {
        assert_eq!(authority(text).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn heads_that_two_parsers_could_read_differently_are_refused() {
    use SniffError::*;
    let cases: &[(&[u8], SniffError)] = &[
        (b"GET / HTTP/1.1\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nA: b\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nA: b\rHost: c\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\nA: b\0\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\n Host: a\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\nHost : a\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\n: a\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\nHost\r\n", HeaderSyntax),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", SeveralHosts),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n", SeveralHosts),
        (b"GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n", SeveralHosts),
        (b"GET / HTTP/1.1\r\n\r\n", MissingHost),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", MissingHost),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Authority),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Authority),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Authority),
        (b"GET / HTTP/1.1\r\nHost: caf\xc3\xa9\r\n\r\n", Authority),
        (b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Authority),
        (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Authority),
        (b"GET http://a\\@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Authority),
        (
            b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            AuthorityConflict,
        ),
        (
            b"GET http://a/ HTTP/1.1\r\nHost: a:8080\r\n\r\n",
            AuthorityConflict,
        ),
        (
            b"GET http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n",
            AuthorityConflict,
        ),
        (
            b"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n",
            AuthorityConflict,
        ),
        (
            b"CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
            AuthorityConflict,
        ),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Authority),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", RequestTarget),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestTarget),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\n", RequestTarget),
        (b"GET / HTTP/2", HttpVersion),
        (b"GET / HTTP/1,", HttpVersion),
        (b"GET / HTTP/1.x", HttpVersion),
        (b"GET / HTTP/1.1 ", HttpVersion),
        (b"GET / HTTP/1.1\r\r", HttpVersion),
        (b"GET / HTTP/1.10", HttpVersion),
    ];
    for (opening, error) in cases {
        decided_by_the_last_byte(opening, &malformed(*error));
    }
}

#[test]
fn a_head_may_have_256_headers_and_no_more() {
    let with = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(count - 1)
        )
    };
    assert_eq!(authority(&with(MAX_HEADERS)).as_deref(), Some("a"));
    assert_eq!(
        sniff(with(MAX_HEADERS + 1).as_bytes()),
        malformed(SniffError::TooManyHeaders)
    );
}
