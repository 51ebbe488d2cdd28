//! `EgressHTTPRoute` as written.
//!
//! It refuses to know whether its gateways exist, what allows its hosts, and what is injected on it.

use http::{HeaderName, HeaderValue, Method};

use super::leaf::{parse_header_name, parse_header_value, read_methods, read_some_hosts};
use super::route::{RawRule, read_rules};
use super::{RawParent, read_gateways};
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::{HostPattern, PathError, PathPattern};

pub(in crate::policy) struct RawHttpRoute {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    pub(in crate::policy) rules: Vec<RawRule<RawHttpMatch>>,
}

pub(in crate::policy) struct RawHttpMatch {
    pub(in crate::policy) place: Place,
    /// Empty for every method.
    pub(in crate::policy) methods: Vec<Spanned<Method>>,
    /// `None` for every path.
    pub(in crate::policy) path: Option<PathPattern>,
    pub(in crate::policy) headers: Vec<(HeaderName, HeaderValue)>,
}

/// How `path.value` is to be read.
type PathReader = fn(&str) -> Result<PathPattern, PathError>;

/// `path.type`.
const PATH_TYPES: &[(&str, PathReader)] = &[
    ("Exact", PathPattern::exact),
    ("PathPrefix", PathPattern::prefix),
    ("Glob", PathPattern::parse),
];

impl RawHttpRoute {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            parents: Vec::new(),
            hosts: Vec::new(),
            rules: Vec::new(),
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        raw.parents = read_gateways(decoder, &mut spec);
        raw.hosts = read_some_hosts(decoder, &mut spec, "hostnames");
        raw.rules = read_rules(decoder, &mut spec, read_match, |_, _| ());
        spec.finish(decoder);
        raw
    }
}

fn read_match(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawHttpMatch> {
    let mut fields = decoder.fields(at)?;
    if fields.is_empty() {
        let message = format!("`{}` is empty, and matches every request", at.path);
        decoder.problems.warning(fields.place, message).help(
            "name methods, a path or headers; `path: {type: PathPrefix, value: /}` says that every request is meant",
        );
    }
    let methods = fields.optional("methods");
    let methods = read_methods(decoder, methods.as_ref());
    let path = fields.optional("path");
    let path = path.and_then(|path| read_path(decoder, &path));
    let mut headers = Vec::new();
    if let Some(list) = fields.optional("headers") {
        for item in decoder.some_items(&list, "header", Some("then no header matters")) {
            read_header(decoder, &item, &mut headers);
        }
    }
    fields.finish(decoder);
    Some(RawHttpMatch {
        place: decoder.place(at),
        methods,
        path,
        headers,
    })
}

/// `{type, value}`. Neither has a default: a path that is taken for a prefix allows more than was meant.
fn read_path(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<PathPattern> {
    const EXPECTED: &str = "`{type: PathPrefix, value: /repos/acme}`, or type Exact or Glob";
    let mut fields = decoder.fields_such_as(at, EXPECTED)?;
    let kind = fields.required(decoder, "type");
    let value = fields.required(decoder, "value");
    fields.finish(decoder);
    if let (Some(kind), Some(value)) = (&kind, &value) {
        warn_of_star(decoder, kind, value);
    }
    let reader = kind.and_then(|kind| decoder.choice(&kind, PATH_TYPES));
    let read = reader.map_or(PathPattern::parse as PathReader, |reader| reader.value);
    let path = decoder.parse(&value?, "a path such as /repos/acme", read);
    path.map(|path| path.value)
}

/// Only a glob takes `*` for more than itself.
fn warn_of_star(decoder: &mut Decoder<'_, '_>, kind: &At<'_>, value: &At<'_>) {
    let is_literal = decoder.is_text_with(kind, |kind| ["Exact", "PathPrefix"].contains(&kind));
    if is_literal && decoder.is_text_with(value, |text| text.contains('*')) {
        let message = format!("`{}` has a `*`, which is taken for itself", value.path);
        let place = decoder.place(value);
        decoder
            .problems
            .warning(place, message)
            .help("with `type: Glob` it is any run of characters within one segment");
    }
}

fn read_header(
    decoder: &mut Decoder<'_, '_>,
    at: &At<'_>,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Option<()> {
    let mut fields = decoder.fields(at)?;
    let name = fields.required(decoder, "name");
    let name = name
        .and_then(|name| decoder.parse(&name, "the name of a request header", parse_header_name));
    let value = fields.required(decoder, "value");
    if let Some(value) = &value
        && decoder.is_text_with(value, |text| text != text.trim_matches([' ', '\t']))
    {
        let message = format!("`{}` begins or ends with a blank", value.path);
        let place = decoder.place(value);
        decoder
            .problems
            .warning(place, message)
            .help("no request matches: blanks around the value of a header are no part of it (RFC 9110 section 5.5)");
    }
    let value = value
        .and_then(|value| decoder.parse(&value, "visible ASCII characters", parse_header_value));
    fields.finish(decoder);
    let (name, value) = (name?, value?);
    if headers.iter().any(|(known, _)| *known == name.value) {
        let message = format!("header `{}` is matched twice", name.value);
        decoder.problems.error(name.place, message).help(
            "all headers of a match must be there: for either of two values, write two matches",
        );
        return None;
    }
    headers.push((name.value, value.value));
    Some(())
}
