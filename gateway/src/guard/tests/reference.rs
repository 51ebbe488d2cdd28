//! Another reading of a request, on whole buffers: httparse for the grammar, and the gateway's rules on
//! top of it, written as plainly as can be. Slow, and shares no line with the guard.

/// What the first request of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Whole,
    Bad,
    More,
}

pub(super) fn read(stream: &[u8]) -> Read {
    let stream = match stream {
        [b'\r', b'\n', rest @ ..] => rest,
        [b'\r'] | [] => return Read::More,
        _ => stream,
    };
    // httparse would pass over more of them.
    if stream.starts_with(b"\r") || stream.starts_with(b"\n") {
        return Read::Bad;
    }
    let Some(end) = find(stream, b"\r\n\r\n").map(|at| at + 4) else {
        // Too short to tell for a reader of whole heads: only a complete one can be called bad.
        return Read::More;
    };
    let (head, body) = stream.split_at(end);
    if !only_crlf(head) {
        return Read::Bad;
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = request.parse(head) else {
        return Read::Bad;
    };
    if length != head.len() {
        return Read::Bad;
    }
    let target = request.path.unwrap_or_default();
    let method = request.method.unwrap_or_default();
    let form = target.starts_with('/')
        || target.to_lowercase().starts_with("http://")
        || target.to_lowercase().starts_with("https://")
        || (method == "OPTIONS" && target == "*")
        || (method == "CONNECT" && !target.starts_with('/'));
    let form = form && (method != "CONNECT" || !target.starts_with('/'));
    let odd = |letter: char| !letter.is_ascii_graphic() || "\"<>`\\#".contains(letter);
    // httparse passes over more than one space.
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let spaces = line.iter().filter(|byte| **byte == b' ').count();
    if !form || target.contains(odd) || spaces != 2 || method.len() > 32 {
        return Read::Bad;
    }
    framing(&request, body)
}

fn framing(request: &httparse::Request<'_, '_>, body: &[u8]) -> Read {
    let values = |name: &str| -> Vec<String> {
        let fields = request.headers.iter();
        fields
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
            .collect()
    };
    let folded = request.headers.iter().any(|field| {
        let name = field.name.to_lowercase();
        let framing = ["content-length", "transfer-encoding"];
        name.contains('_') && framing.contains(&name.replace('_', "-").as_str())
    });
    let hosts = values("host").len();
    let old = request.version == Some(0);
    if hosts > 1 || (hosts == 0 && !old) || folded {
        return Read::Bad;
    }
    match (
        values("content-length").as_slice(),
        values("transfer-encoding").as_slice(),
    ) {
        ([], []) => Read::Whole,
        ([length], [])
            if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            match length.parse::<usize>() {
                Ok(length) if length <= body.len() => Read::Whole,
                Ok(_) => Read::More,
                Err(_range) => Read::Bad,
            }
        }
        ([], [coding]) if !old && coding.eq_ignore_ascii_case("chunked") => chunks(body),
        _ => Read::Bad,
    }
}

fn chunks(mut body: &[u8]) -> Read {
    loop {
        let Some(end) = find(body, b"\n") else {
            return unfinished(body, |byte| byte.is_ascii_hexdigit() || *byte == b'\r');
        };
        let Some(size) = body[..end].strip_suffix(b"\r") else {
            return Read::Bad;
        };
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        let text = String::from_utf8_lossy(size);
        let Some(size) = digits
            .then(|| usize::from_str_radix(&text, 16).ok())
            .flatten()
        else {
            return Read::Bad;
        };
        body = &body[end + 1..];
        if size == 0 {
            return trailers(body);
        }
        if body.len() < size + 2 {
            return unfinished(body.get(size..).unwrap_or_default(), |byte| *byte == b'\r');
        }
        if &body[size..size + 2] != b"\r\n" {
            return Read::Bad;
        }
        body = &body[size + 2..];
    }
}

fn trailers(body: &[u8]) -> Read {
    if body.starts_with(b"\r\n") {
        return Read::Whole;
    }
    match find(body, b"\r\n\r\n") {
        None => Read::More,
        Some(end) => {
            let block = &body[..end + 4];
            let mut fields = [httparse::EMPTY_HEADER; 64];
            match httparse::parse_headers(block, &mut fields) {
                Ok(httparse::Status::Complete((_, found)))
                    if only_crlf(block) && !framed(found) =>
                {
                    Read::Whole
                }
                _ => Read::Bad,
            }
        }
    }
}

/// No CR without LF and no LF without CR.
fn only_crlf(bytes: &[u8]) -> bool {
    let pairs = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    let count = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count();
    count(b'\r') == pairs && count(b'\n') == pairs
}

fn framed(fields: &[httparse::Header<'_>]) -> bool {
    let bad = ["host", "content-length", "transfer-encoding"];
    fields
        .iter()
        .any(|field| bad.contains(&field.name.to_lowercase().as_str()))
}

/// Not enough to be a whole: bad already if a byte cannot be part of one.
fn unfinished(rest: &[u8], may: impl Fn(&u8) -> bool) -> Read {
    if rest.iter().all(may) {
        Read::More
    } else {
        Read::Bad
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
