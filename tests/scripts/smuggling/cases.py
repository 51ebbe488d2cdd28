"""The table: what is sent, what of it may arrive, and whether the rest is refused. %H stands for the host, %I for
the case's own name, which is in every path. It refuses to know what the gateway answers."""

from dataclasses import dataclass, field


@dataclass
class Case:
    name: str
    pieces: list
    passed: list = field(default_factory=list)  # (method, target, bytes of body), in order
    refused: bool = True
    in_body: bool = False  # bad after a good head: the upstream may have seen its beginning
    half_close: bool = False
    http2: bool = False
    host: str = None  # for this server alone


TABLE = []
SMUGGLED = b"GET /%I/smuggled HTTP/1.1\r\nHost: %H\r\n\r\n"


def fill(piece, ident, host):
    if callable(piece):
        return piece(ident, host)
    return piece.replace(b"%I", ident.encode()).replace(b"%H", host.encode())


def refused(name, *pieces, **more):
    TABLE.append(Case(name, list(pieces), **more))


def passes(name, raw, *seen, **more):
    TABLE.append(Case(name, [raw], list(seen), refused=False, **more))


def line(extra, body=b"", method=b"POST", host=b"Host: %H\r\n"):
    """A request with these lines after its Host, and another one hidden behind it."""
    return method + b" /%I HTTP/1.1\r\n" + host + extra + b"\r\n\r\n" + body


def chunked(body, trailers=b""):
    return line(b"Transfer-Encoding: chunked", body)


CLOSE = b"Connection: close"

# Two framings at once, and each spelling of the second that some parser somewhere takes for it.
for te in [
    b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding:chunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
]:
    refused(f"CL.TE {te!r}", line(b"Content-Length: 6\r\n" + te, b"0\r\n\r\nG" + SMUGGLED))
    refused(f"TE.CL {te!r}", line(te + b"\r\nContent-Length: 4", b"5c\r\n" + SMUGGLED + b"0\r\n\r\n"))
for te in [
    b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: chunked;a=b", b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: 'chunked'", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: \x0cchunked", b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: chun\x00ked", b"Transfer-Encoding:", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: chunk", b"Transfer-Encoding: \xa0chunked", b"Transfer-Encoding: chunked\r\n chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: deflate", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding\x00: chunked", b"Transfer-Encoding\x0b: chunked", b"Transfer_Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked", b"X: y\r\r\nTransfer-Encoding: chunked", b"Foo\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\x7f", b"Transfer-Encoding: chunked chunked",
]:
    refused(f"TE {te!r}", line(te, b"0\r\n\r\n" + SMUGGLED))
refused("TE in 1.0", b"POST /%I HTTP/1.0\r\nHost: %H\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)

# Lengths.
for cl in [
    b"+5", b"-5", b"-0", b"0x5", b"5,5", b"5, 5", b"5,6", b"5 5", b"5;a", b"5.0", b"5e0", b"\"5\"", b"", b"five", b"0o5", b"5_0", b"5\x00", b"5\x0b",
    b"\xd9\xa5", b"18446744073709551616", b"9223372036854775809", b"99999999999999999999999999999999", b"00000000000000000000000005", b"5\r\n 6",
    b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"0\r\nContent-Length: 5", b"5\r\ncontent-length: 0", b"5\rX: y", b"5\nX: y", b"NaN", b"5L",
]:
    refused(f"CL {cl!r}", line(b"Content-Length: " + cl, b"hello" + SMUGGLED))
for name in [b"Content-Length ", b" Content-Length", b"Content-Length\t", b"Content_Length", b"Content-Length\x00", b"Content-Length\x0b"]:
    refused(f"CL as {name!r}", line(name + b": 5", b"hello" + SMUGGLED))

# Hosts.
for name, host in [
    ("none", b""), ("two alike", b"Host: %H\r\nHost: %H\r\n"), ("two", b"Host: %H\r\nHost: other.test\r\n"), ("two, the good one last", b"Host: other.test\r\nHost: %H\r\n"),
    ("userinfo", b"Host: user@%H\r\n"), ("NUL", b"Host: %H\x00.other.test\r\n"), ("list", b"Host: %H, other.test\r\n"), ("blank before colon", b"Host : %H\r\n"),
    ("folded", b"Host:\r\n %H\r\n"), ("path", b"Host: %H/x\r\n"), ("fragment", b"Host: %H#x\r\n"), ("query", b"Host: %H?x\r\n"), ("port of letters", b"Host: %H:x\r\n"),
    ("signed port", b"Host: %H:+443\r\n"), ("huge port", b"Host: %H:99999\r\n"), ("two ports", b"Host: %H:443:443\r\n"), ("percent", b"Host: %25H%H\r\n"),
    ("blank inside", b"Host: %H other.test\r\n"), ("tab inside", b"Host: %H\tother.test\r\n"), ("backslash", b"Host: %H\\other.test\r\n"), ("empty", b"Host:\r\n"),
    ("bracket", b"Host: [%H]\r\n"), ("another", b"Host: other.test\r\n"), ("dots", b"Host: %H..\r\n"), ("bare LF", b"Host: %H\n"), ("scheme", b"Host: http://%H\r\n"),
    ("folded second", b"Host: %H\r\n Host: other.test\r\n"), ("underscore twin", b"Host: %H\r\nHost\x00: other.test\r\n"),
]:
    refused(f"Host {name}", line(CLOSE, host=host, method=b"GET"))
for target in [b"http://other.test/%I", b"http://user@%H/%I", b"http://%H:81/%I", b"https://other.test/%I", b"ftp://%H/%I", b"//%H@other.test:x/%I http://", b"http:/%H/%I", b"http:///%I"]:
    refused(f"target {target!r}", b"GET " + target + b" HTTP/1.1\r\nHost: %H\r\n" + CLOSE + b"\r\n\r\n")

# Request lines.
for start in [
    b"GET /%I", b"GET /%I HTTP/1.1 ", b"GET  /%I HTTP/1.1", b"GET /%I  HTTP/1.1", b" GET /%I HTTP/1.1", b"GET\t/%I HTTP/1.1", b"GET /%I\tHTTP/1.1",
    b"GET /%I x HTTP/1.1", b"GET /%I HTTP/1.2", b"GET /%I HTTP/2.0", b"GET /%I HTTP/0.9", b"GET /%I HTTP/1.10", b"GET /%I HTTP/01.1", b"GET /%I HTTP/1,1", b"GET /%I http/1.1",
    b"GET /%I HTTP/1.1x", b"GET /%I HTTP /1.1", b"GET /%I XTTP/1.1", b"GET /%I#x HTTP/1.1", b"GET /%I\\x HTTP/1.1", b"GET /%I\x00 HTTP/1.1", b"GET /%I\x7f HTTP/1.1",
    b"GET /%I\xe9 HTTP/1.1", b"GET /%I<x> HTTP/1.1", b"GET %I HTTP/1.1", b"GET ?%I HTTP/1.1", b"GET * HTTP/1.1", b"G\x00ET /%I HTTP/1.1", b"G(ET /%I HTTP/1.1", b"G:ET /%I HTTP/1.1",
    b"GET@ /%I HTTP/1.1", b"G\xe9T /%I HTTP/1.1", b"M" * 33 + b" /%I HTTP/1.1", b"CONNECT %H:443 HTTP/1.1", b"CONNECT /%I HTTP/1.1", b"PRI * HTTP/2.0", b"GET /%I HTTP/1.1\r", b"\x00GET /%I HTTP/1.1",
]:
    refused(f"start {start!r}", start + b"\r\nHost: %H\r\n" + CLOSE + b"\r\n\r\n")
refused("start by LF", b"GET /%I HTTP/1.1\nHost: %H\n\n")
refused("start by CR", b"GET /%I HTTP/1.1\rHost: %H\r\r")
refused("head ends by LF", b"GET /%I HTTP/1.1\r\nHost: %H\r\n\n" + SMUGGLED)
refused("head ends by LFs", b"GET /%I HTTP/1.1\r\nHost: %H\n\n" + SMUGGLED)
refused("two empty lines", b"\r\n\r\nGET /%I HTTP/1.1\r\nHost: %H\r\n\r\n")
refused("an empty line by LF", b"\nGET /%I HTTP/1.1\r\nHost: %H\r\n\r\n")
refused("a long target", b"GET /%I" + b"x" * 70000 + b" HTTP/1.1\r\nHost: %H\r\n\r\n")

# Header lines.
for extra in [
    b"X : y", b"X\t: y", b" X: y", b"X: y\r\n z", b"X: y\r\n\tz", b": y", b"X", b"X y: z", b"X: \x00", b"X: \x01", b"X: \x1b[0m", b"X: \x7f", b"X: a\x0bb", b"X\x00: y",
    b"X: a\rb", b"X: a\nb", b"X: a\nGET /%I/smuggled HTTP/1.1", b"X(y): z", b"X\xe9: z", b"\"X\": z", b"X@: z", b"X/y: z", b"{X}: y", b"X[0]: y", b"X" * 257 + b": y",
]:
    refused(f"line {extra[:40]!r}", line(extra + b"\r\n" + CLOSE, method=b"GET"))
refused("300 fields", line(b"".join(b"X-%d: y\r\n" % n for n in range(300)) + CLOSE, method=b"GET"))
refused("70 KiB of one field", line(b"X: " + b"y" * 70000, method=b"GET"))
refused("70 KiB of fields", line(b"\r\n".join(b"X-%d: " % n + b"y" * 1000 for n in range(70)), method=b"GET"))
refused("h2c", line(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", method=b"GET"))
refused("upgrade to two", line(b"Connection: Upgrade\r\nUpgrade: websocket, h2c", method=b"GET"))

# Chunks: what is wrong is wrong after a good head.
for body in [
    b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    b"10000000000000000\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nhello", b"5_\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0;x\r\n\r\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n0\r\n\n",
    b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\nX: a\r\n b\r\n\r\n",
    b"0\r\nHost: other.test\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\nhello", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nAuthorization: x\r\n\r\n", b"0\r\nCookie: x\r\n\r\n",
    b"0\r\nConnection: close\r\n\r\n", b"0\r\nProxy-Authorization: x\r\n\r\n", b"0\r\nContent_Length: 5\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 65 + b"\r\n", b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"0\rX\r\n\r\n",
    b"5\x00\r\nhello\r\n0\r\n\r\n", b"\x0b5\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"5,5\r\nhello\r\n0\r\n\r\n",
]:
    refused(f"chunk {body[:40]!r}", chunked(body + SMUGGLED), in_body=True)
    head, rest = chunked(b""), body + SMUGGLED
    if len(body) < 30:
        refused(f"chunk later {body[:40]!r}", head, b"3\r\nabc\r\n", rest, in_body=True)

# Cut off.
refused("half a head", b"GET /%I HTTP/1.1\r\nHost: %H\r\n", half_close=True)
refused("half a request line", b"GET /%I", half_close=True, host="h11.test")
refused("half a body", line(b"Content-Length: 10", b"hello"), half_close=True, in_body=True)
refused("half a chunk", chunked(b"a\r\nhello"), half_close=True, in_body=True)
refused("no last chunk", chunked(b"5\r\nhello\r\n"), half_close=True, in_body=True)

# A good request before a bad one: the first arrives, and nothing else.
for name, second in [
    ("bad length", line(b"Content-Length: +5", b"hello")), ("bare LF", b"GET /%I/2 HTTP/1.1\nHost: %H\n\n"), ("no host", b"GET /%I/2 HTTP/1.1\r\n\r\n"), ("rubbish", b"\x00\x01\x02\r\n\r\n"),
    ("two framings", line(b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nG")), ("other version", b"GET /%I/2 HTTP/3.0\r\nHost: %H\r\n\r\n"),
]:
    TABLE.append(Case(f"pipelined {name}", [b"GET /%I/1 HTTP/1.1\r\nHost: %H\r\n\r\n" + second + SMUGGLED], [("GET", "/%I/1", 0)]))
    TABLE.append(Case(f"after a body {name}", [b"POST /%I/1 HTTP/1.1\r\nHost: %H\r\nContent-Length: 5\r\n\r\nhello" + second + SMUGGLED], [("POST", "/%I/1", 5)]))

# What is well-formed arrives as it was sent, however odd.
for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "REPORT", "X-ODD"]:
    raw = method.encode() + b" /%I HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n"
    passes(f"{method} with a length", raw + b"Content-Length: 5\r\n\r\nhello", (method, "/%I", 5))
    passes(f"{method} in chunks", raw + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", (method, "/%I", 6))
for path in [
    "/%I/", "/%I?", "/%I?a=b&c", "/%I?a=/../b", "/%I//x", "/%I/a%20b", "/%I/%41", "/%I/~x;v=1", "/%I/x|y", "/%I/{x}", "/%I/a+b", "/%I/@:$&'()*,=!", "/%I/" + "x" * 4000,
]:
    passes(f"path {path[:30]}", f"GET {path} HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n".encode(), ("GET", path, 0))
passes("absolute form", b"GET http://%H/%I HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n", ("GET", "/%I", 0), host="h11.test")
passes("a host in capitals", b"GET /%I HTTP/1.1\r\nHOST: \t%H \r\nConnection: close\r\n\r\n", ("GET", "/%I", 0))
passes("an empty line first", b"GET /%I/1 HTTP/1.1\r\nHost: %H\r\n\r\n\r\nGET /%I/2 HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n", ("GET", "/%I/1", 0), ("GET", "/%I/2", 0))
passes("a request in a body", b"POST /%I HTTP/1.1\r\nHost: %H\r\nConnection: close\r\nContent-Length: 47\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: otherhost.test\r\n\r\n\r\n", ("POST", "/%I", 47))
passes("three in a row", b"GET /%I/1 HTTP/1.1\r\nHost: %H\r\n\r\nPOST /%I/2 HTTP/1.1\r\nHost: %H\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\nGET /%I/3 HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n", ("GET", "/%I/1", 0), ("POST", "/%I/2", 5), ("GET", "/%I/3", 0))
passes("HTTP/1.0", b"GET /%I HTTP/1.0\r\nHost: %H\r\n\r\n", ("GET", "/%I", 0))

# Paths on a host whose rules name paths: one reading, or none.
for path in [
    "/allowed/../%I", "/allowed/./%I", "/allowed/%2e%2e/%I", "/allowed/%2E./%I", "/allowed/..;/%I", "/allowed/..%2f%I", "/allowed%2f%I", "/allowed/%5c../%I", "/allowed/%252e%252e/../%I",
    "/Allowed/%I", "/%61llowed/%I", "//allowed/%I", "/other/%I", "/allowed/%00%I", "/x/../allowed/%I", "/allowed;/%I",
]:
    refused(f"path rule {path}", f"GET {path} HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n".encode(), host="paths.test")
passes("path rule met", b"GET /allowed/%I HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n", ("GET", "/allowed/%I", 0), host="paths.test")
refused("TRACE where a credential is injected", b"TRACE /allowed/%I HTTP/1.1\r\nHost: %H\r\nConnection: close\r\n\r\n", host="paths.test")


# HTTP/2, by hand: literal fields, no compression.
def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(*fields, data=None):
    """What makes the bytes of a connection with this one request."""
    def text(word):
        length, more = len(word), b""
        if length >= 127:  # RFC 7541 §5.1
            length, left = 127, length - 127
            while left >= 128:
                more, left = more + bytes([left % 128 + 128]), left // 128
            more += bytes([left])
        return bytes([length]) + more + word

    def connection(ident, host):
        filled = [[text(fill(word, ident, host)) for word in pair] for pair in fields]
        block = b"".join(b"\x00" + name + value for name, value in filled)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        end = 0 if data is not None else 1
        heads = [frame(9 if number else 1, (0 if number else end) | (4 if number == len(parts) - 1 else 0), 1, part)
                 for number, part in enumerate(parts)]
        return preface + b"".join(heads) + (frame(0, 1, 1, data) if data is not None else b"")

    return connection


USUAL = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/%I"), (b":authority", b"%H")]
for name, fields, data in [
    ("an upper-case name", USUAL + [(b"X-Upper", b"y")], None), ("connection", USUAL + [(b"connection", b"close")], None), ("transfer-encoding", USUAL + [(b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
    ("upgrade", USUAL + [(b"upgrade", b"h2c")], None), ("keep-alive", USUAL + [(b"keep-alive", b"5")], None), ("te", USUAL + [(b"te", b"gzip")], None),
    ("no path", [USUAL[0], USUAL[1], USUAL[3]], None), ("no method", USUAL[1:], None), ("no scheme", [USUAL[0], USUAL[2], USUAL[3]], None), ("two paths", USUAL + [(b":path", b"/other")], None),
    ("a pseudo-field last", [(b"x", b"y")] + USUAL, None), ("an unknown pseudo-field", USUAL + [(b":odd", b"y")], None), ("a response's pseudo-field", USUAL + [(b":status", b"200")], None),
    ("a longer body", USUAL + [(b"content-length", b"3")], b"hello"), ("a shorter body", USUAL + [(b"content-length", b"9")], b"hello"), ("two lengths", USUAL + [(b"content-length", b"5"), (b"content-length", b"6")], b"hello"),
    ("a host that differs", USUAL + [(b"host", b"other.test")], None), ("an authority that differs", USUAL[:3] + [(b":authority", b"other.test")], None), ("userinfo", USUAL[:3] + [(b":authority", b"x@%H")], None),
    ("a path without slash", USUAL[:2] + [(b":path", b"%I"), USUAL[3]], None), ("an empty path", USUAL[:2] + [(b":path", b""), USUAL[3]], None), ("LF in a value", USUAL + [(b"x", b"a\nb")], None),
    ("CRLF in a path", USUAL[:2] + [(b":path", b"/%I\r\nx: y"), USUAL[3]], None), ("a blank in a path", USUAL[:2] + [(b":path", b"/%I x"), USUAL[3]], None), ("NUL in a value", USUAL + [(b"x", b"a\0b")], None),
    ("a colon in a name", USUAL + [(b"x:y", b"z")], None), ("a blank in a name", USUAL + [(b"x ", b"z")], None), ("CONNECT with a path", [(b":method", b"CONNECT")] + USUAL[1:], None),
    ("endless fields", USUAL + [(b"x-%d" % n, b"y" * 1000) for n in range(70)], None), ("one endless field", USUAL + [(b"x", b"y" * 70000)], None),
    ("a length twice", USUAL + [(b"content-length", b"5"), (b"content-length", b"5")], b"hello"), ("a signed length", USUAL + [(b"content-length", b"+5")], b"hello"),
    ("a list of lengths", USUAL + [(b"content-length", b"5, 5")], b"hello"), ("an empty length", USUAL + [(b"content-length", b"")], b"hello"),
    ("transfer_encoding", USUAL + [(b"transfer_encoding", b"chunked")], b"0\r\n\r\n"), ("content_length", USUAL + [(b"content_length", b"5")], b"hello"),
    ("a blank before a value", USUAL + [(b"x", b" y")], None), ("a tab after a value", USUAL + [(b"x", b"y\t")], None), ("a method too long", [(b":method", b"M" * 33)] + USUAL[1:], None),
    ("a method of two words", [(b":method", b"GET /%I/smuggled HTTP/1.1\r\nx:")] + USUAL[1:], None), ("an upper-case pseudo-field", USUAL + [(b":Path", b"/x")], None),
    ("a backslash in a path", USUAL[:2] + [(b":path", b"/%I\\x"), USUAL[3]], None), ("a quote in a path", USUAL[:2] + [(b":path", b"/%I\"x"), USUAL[3]], None),
    ("letters beyond ASCII in a path", USUAL[:2] + [(b":path", b"/%I\xc3\xa9"), USUAL[3]], None), ("letters beyond ASCII in a query", USUAL[:2] + [(b":path", b"/%I?\xc3\xa9"), USUAL[3]], None),
    ("DEL in a path", USUAL[:2] + [(b":path", b"/%I\x7f"), USUAL[3]], None), ("absolute form", USUAL[:2] + [(b":path", b"https://other.test/%I"), USUAL[3]], None),
    ("two authorities", USUAL + [(b":authority", b"other.test")], None), ("CRLF in an authority", USUAL[:3] + [(b":authority", b"%H\r\nx: y")], None),
    ("a path as authority", USUAL[:3] + [(b":authority", b"%H/x")], None), ("two hosts", USUAL + [(b"host", b"%H"), (b"host", b"other.test")], None), ("proxy-connection", USUAL + [(b"proxy-connection", b"close")], None),
    ("a protocol without CONNECT", USUAL + [(b":protocol", b"websocket")], None), ("plain CONNECT", [(b":method", b"CONNECT"), USUAL[3]], None),
]:
    refused(f"HTTP/2 {name}", http2(*fields, data=data), http2=True, host="h11.test", in_body=True)

# What is well-formed arrives as HTTP/1.1, and as one request.
for name, fields, data, seen in [
    ("without a body", USUAL, None, ("POST", "/%I", 0)), ("with a body", USUAL, b"hello", ("POST", "/%I", 5)), ("with a length", USUAL + [(b"content-length", b"5")], b"hello", ("POST", "/%I", 5)),
    ("a request in a body", USUAL, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: otherhost.test\r\n\r\n", ("POST", "/%I", 53)), ("an empty body", USUAL, b"", ("POST", "/%I", 0)),
    ("a length of nothing", USUAL + [(b"content-length", b"0")], None, ("POST", "/%I", 0)), ("host beside authority", USUAL + [(b"host", b"%H")], None, ("POST", "/%I", 0)),
    ("host alone", USUAL[:3] + [(b"host", b"%H")], None, ("POST", "/%I", 0)), ("trailers are welcome", USUAL + [(b"te", b"trailers")], None, ("POST", "/%I", 0)),
    ("an underscore in a name", USUAL + [(b"x_y", b"z")], None, ("POST", "/%I", 0)), ("two cookies", USUAL + [(b"cookie", b"a=b"), (b"cookie", b"c=d")], None, ("POST", "/%I", 0)),
    ("a query", USUAL[:2] + [(b":path", b"/%I?a=/../b&c"), USUAL[3]], None, ("POST", "/%I?a=/../b&c", 0)), ("signs in a path", USUAL[:2] + [(b":path", b"/%I/x|y{z}~;v=1"), USUAL[3]], None, ("POST", "/%I/x|y{z}~;v=1", 0)),
    # A fragment is no part of what is asked for, and goes nowhere.
    ("a fragment", USUAL[:2] + [(b":path", b"/%I#x"), USUAL[3]], None, ("POST", "/%I", 0)),
]:
    TABLE.append(Case(f"HTTP/2 {name}", [http2(*fields, data=data)], [seen], refused=False, http2=True, host="h11.test"))

# A WebSocket's CONNECT (RFC 8441), which is a GET to the upstream.
SOCKET = [(b":method", b"CONNECT"), (b":protocol", b"websocket")] + USUAL[1:]
for name, fields, data in [
    ("no path", SOCKET[:3] + SOCKET[4:], None), ("no scheme", SOCKET[:2] + SOCKET[3:], None), ("an empty path", SOCKET[:3] + [(b":path", b""), SOCKET[4]], None), ("no host", SOCKET[:4], None),
    ("two protocols", SOCKET + [(b":protocol", b"websocket")], None), ("another protocol", [SOCKET[0], (b":protocol", b"connect-udp")] + SOCKET[2:], None), ("an empty protocol", [SOCKET[0], (b":protocol", b"")] + SOCKET[2:], None),
    ("connection", SOCKET + [(b"connection", b"upgrade")], None), ("upgrade", SOCKET + [(b"upgrade", b"websocket")], None), ("transfer-encoding", SOCKET + [(b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
    ("CRLF in a path", SOCKET[:3] + [(b":path", b"/%I\r\nx: y"), SOCKET[4]], None), ("an authority that differs", SOCKET[:4] + [(b":authority", b"other.test")], None), ("a host that differs", SOCKET + [(b"host", b"other.test")], None),
    ("another protocol and data", [SOCKET[0], (b":protocol", b"connect-tcp")] + SOCKET[2:], b"GET /%I HTTP/1.1\r\nHost: %H\r\n\r\n"), ("a path without slash", SOCKET[:3] + [(b":path", b"%I"), SOCKET[4]], None),
]:
    refused(f"HTTP/2 WebSocket, {name}", http2(*fields, data=data), http2=True, host="h11.test", in_body=True)
