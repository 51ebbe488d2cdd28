//! The objects that S3 is told to copy or rename by a header field: a request that policy never saw, made by the
//! service with the gateway's signature. It refuses to know whether that is allowed.

use super::endpoint;
use http::{HeaderMap, HeaderName, HeaderValue};

/// `bucket/key`, with or without a slash before it, perhaps with a version (CopyObject, UploadPartCopy).
const COPY: HeaderName = HeaderName::from_static("x-amz-copy-source");
/// `/key` of the same bucket (RenameObject).
const RENAME: HeaderName = HeaderName::from_static("x-amz-rename-source");

/// An object besides the one that the request line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The field that names it.
    pub field: HeaderName,
    /// Host and path of a request for the object, spelled as the field spells it. `None` where that is not clear:
    /// access points by their ARN, a bucket and key with an escaped slash between them.
    pub at: Option<(String, String)>,
}

/// The objects that the fields of a request to `host` name.
#[must_use]
pub fn named(host: &str, headers: &HeaderMap) -> Vec<Named> {
    let mut named = Vec::new();
    for field in [COPY, RENAME] {
        for value in headers.get_all(&field) {
            named.push(Named {
                at: at(host, &field, value),
                field: field.clone(),
            });
        }
    }
    named
}

fn at(host: &str, field: &HeaderName, value: &HeaderValue) -> Option<(String, String)> {
    let value = value.to_str().ok()?;
    let object = value.split('?').next()?;
    let object = object.strip_prefix('/').unwrap_or(object);
    if *field == RENAME {
        return Some((host.to_owned(), format!("/{object}")));
    }
    let (bucket, key) = object.split_once('/')?;
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(in_name) {
        return None;
    }
    Some(match endpoint::bucket(host) {
        Some((_, endpoint)) => (format!("{bucket}.{endpoint}"), format!("/{key}")),
        None => (host.to_owned(), format!("/{object}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_where_a_request_for_them_would_go() {
        let (bucket, endpoint) = (
            "mine.s3.eu-west-1.amazonaws.com",
            "s3.eu-west-1.amazonaws.com",
        );
        let mine = |path| Some((bucket, path));
        let path_style = |path| Some((endpoint, path));
        for (host, field, value, found) in [
            (bucket, COPY, "mine/a/b", mine("/a/b")),
            (bucket, COPY, "/mine/a%2Fb?versionId=1", mine("/a%2Fb")),
            (
                bucket,
                COPY,
                "other/a",
                Some(("other.s3.eu-west-1.amazonaws.com", "/a")),
            ),
            (endpoint, COPY, "mine/a/../b", path_style("/mine/a/../b")),
            (
                "minio.test",
                COPY,
                "/mine/a",
                Some(("minio.test", "/mine/a")),
            ),
            (bucket, COPY, "mine%2Fa", None),
            (
                bucket,
                COPY,
                "arn:aws:s3:eu-west-1:1:accesspoint/x/object/a",
                None,
            ),
            (bucket, COPY, "", None),
            (bucket, RENAME, "/a/b", mine("/a/b")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&field, HeaderValue::from_static(value));
            let found = found.map(|(host, path): (&str, &str)| (host.to_owned(), path.to_owned()));
            assert_eq!(
                named(host, &headers),
                [Named { field, at: found }],
                "{value}"
            );
        }
        assert_eq!(named(bucket, &HeaderMap::new()), []);
    }
}
