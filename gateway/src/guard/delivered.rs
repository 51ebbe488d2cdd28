//! Requests as an HTTP/2 library delivers them, held to what HTTP/1.1 can say: the next leg may speak that, and other
//! parsers are behind it. What the library has refused by itself is not looked at again.

use super::fields::{belongs_in_head, frames_by_another_name, is_blank};
use super::target::{MAX_METHOD, may_be_in_target};
use super::violation::Violation;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, Method, Uri};

/// Is this a head that every parser reads in one way?
///
/// # Errors
/// The first violation.
pub fn delivered(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Violation> {
    if method.as_str().len() > MAX_METHOD {
        return Err(Violation::Method);
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if !target.bytes().all(may_be_in_target) {
        return Err(Violation::Target);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && !length.as_bytes().iter().all(u8::is_ascii_digit)
    {
        return Err(Violation::ContentLength);
    }
    if lengths.next().is_some() {
        return Err(Violation::SeveralContentLengths);
    }
    for (name, value) in headers {
        if frames_by_another_name(name.as_str().as_bytes()) {
            return Err(Violation::FoldedName);
        }
        let value = value.as_bytes();
        let edges = [value.first(), value.last()];
        if edges.into_iter().flatten().any(|byte| is_blank(*byte)) {
            return Err(Violation::BlankAtEdge);
        }
    }
    Ok(())
}

/// Takes out of trailers what may only stand in a head, under its own name or one that servers may take for it.
pub fn drop_head_fields(trailers: &mut HeaderMap) {
    let named: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| belongs_in_head(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in named {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use http::HeaderValue;

    fn judged(target: &str, fields: &[(&str, &str)]) -> Result<(), Violation> {
        // As the library puts it together.
        let uri = Uri::builder().scheme("https").authority("a.test");
        let uri = uri.path_and_query(target.as_bytes()).build().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        delivered(&Method::POST, &uri, &headers)
    }

    #[test]
    fn what_http1_could_not_say_in_one_way_is_refused() {
        for target in ["/a\\b", "/a\"b", "/é", "/a?b=é"] {
            assert_eq!(judged(target, &[]), Err(Violation::Target), "{target}");
        }
        for (fields, expected) in [
            (
                &[("content-length", "5"), ("content-length", "5")][..],
                Violation::SeveralContentLengths,
            ),
            (&[("content-length", "+5")], Violation::ContentLength),
            (&[("transfer_encoding", "chunked")], Violation::FoldedName),
            (&[("content_length", "5")], Violation::FoldedName),
            (&[("x", " a")], Violation::BlankAtEdge),
            (&[("x", "a\t")], Violation::BlankAtEdge),
        ] {
            assert_eq!(judged("/", fields), Err(expected), "{fields:?}");
        }
        let long = Method::from_bytes(&[b'M'; MAX_METHOD + 1]).unwrap();
        let long = delivered(&long, &Uri::from_static("/"), &HeaderMap::new());
        assert_eq!(long, Err(Violation::Method));
    }

    #[test]
    fn a_trailer_is_no_field_of_a_head() {
        let mut trailers = HeaderMap::new();
        for name in [
            "host",
            "content_length",
            "transfer_encoding",
            "cookie",
            "range",
            "x-sum",
            "grpc-status",
        ] {
            let name = HeaderName::from_static(name);
            trailers.append(name.clone(), HeaderValue::from_static("1"));
            trailers.append(name, HeaderValue::from_static("2"));
        }
        drop_head_fields(&mut trailers);
        let left = ["grpc-status", "x-sum"].map(|name| trailers.get_all(name).iter().count());
        assert_eq!((left, trailers.len()), ([2, 2], 4));
    }

    #[test]
    fn what_it_can_say_passes() {
        for target in ["/", "/a%20b?c=d&e", "/a|b/{c}^~;v=1", "/?", "/@:$&'()*,=!"] {
            assert_eq!(judged(target, &[]), Ok(()), "{target}");
        }
        let fields = [("content-length", "5"), ("x_y", "a b"), ("x", "")];
        assert_eq!(judged("/", &fields), Ok(()));
    }
}
