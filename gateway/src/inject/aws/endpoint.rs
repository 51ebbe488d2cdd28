//! Which service and region an AWS host name stands for. It refuses to guess: a name that is not of one of
//! these forms is for the policy to explain.
//!
//! | Host, before `.amazonaws.com` (or `.amazonaws.com.cn`) | Service | Region |
//! |---|---|---|
//! | `[BUCKET.]s3[-fips][.dualstack].REGION`, `[BUCKET.]s3-REGION` | `s3` | `REGION` |
//! | `[BUCKET.]s3`, `[BUCKET.]s3-external-1` | `s3` | `us-east-1` |
//! | `*.s3-accesspoint[-fips][.dualstack].REGION`, `*.s3-control…` | `s3` | `REGION` |
//! | `*.s3-outposts.REGION`, `*.s3-object-lambda.REGION` | the label | `REGION` |
//! | `[BUCKET.]s3express-ZONE.REGION`, `s3express-control.REGION` | `s3express` | `REGION` |
//! | `[*.]SERVICE[-fips].REGION` | by [`SIGNING_NAMES`], else the label | `REGION` |
//! | `*.REGION.es`, `*.REGION.aoss` | the label | `REGION` |
//! | `sts`, `iam`, `route53`, `cloudfront`, `organizations` | the label | `us-east-1` |

/// Whom a signature is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) service: Option<String>,
    pub(super) region: Option<String>,
}

/// Endpoints that are not called what their signatures are for.
const SIGNING_NAMES: &[(&str, &str)] = &[
    ("bedrock-runtime", "bedrock"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("email", "ses"),
    ("data-ats", "iotdata"),
    ("transcribestreaming", "transcribe"),
    ("models-v2-lex", "lex"),
    ("runtime-v2-lex", "lex"),
];
/// Services with one endpoint for the whole world, in this region.
const GLOBAL: [&str; 5] = ["sts", "iam", "route53", "cloudfront", "organizations"];
const GLOBAL_REGION: &str = "us-east-1";
/// Services whose hosts end in their name, after the region.
const REGION_FIRST: [&str; 2] = ["es", "aoss"];

/// What the host says. Either may be missing.
pub(super) fn scope(host: &str) -> Scope {
    let name = host.strip_suffix(".cn").unwrap_or(host);
    let Some(labels) = name.strip_suffix(".amazonaws.com") else {
        return Scope::default();
    };
    let labels: Vec<&str> = labels.split('.').collect();
    of_labels(&labels, host.ends_with(".cn")).unwrap_or_default()
}

/// The bucket that an S3 host names, and the rest of the host; `None` for a host that names none.
pub(super) fn bucket(host: &str) -> Option<(&str, &str)> {
    let name = host.strip_suffix(".cn").unwrap_or(host);
    let labels = name.strip_suffix(".amazonaws.com")?;
    let is_s3 =
        |label: &str| label == "s3" || label.starts_with("s3-") || label.starts_with("s3express-");
    let mut end = labels.len();
    // From the right: a bucket may have such a label too.
    for label in labels.rsplit('.') {
        let begin = end - label.len();
        if is_s3(label) {
            let bucket = host.get(..begin)?.strip_suffix('.')?;
            return Some((bucket, host.get(begin..)?));
        }
        end = begin.saturating_sub(1);
    }
    None
}

fn of_labels(labels: &[&str], china: bool) -> Option<Scope> {
    let (last, before) = labels.split_last()?;
    if is_region(last) {
        let before = match before.split_last() {
            Some((&"dualstack", before)) => before,
            _ => before,
        };
        let (&first, label) = (before.first()?, before.last()?);
        if *label == "iot" && (first == "data" || first.ends_with("-ats")) {
            return found("iotdata", last);
        }
        return found(service(label), last);
    }
    if let Some(region) = last.strip_prefix("s3-").filter(|rest| is_region(rest)) {
        return found("s3", region);
    }
    if (*last == "s3" || *last == "s3-external-1") && !china {
        return found("s3", GLOBAL_REGION);
    }
    if REGION_FIRST.contains(last) {
        return found(last, before.last().filter(|label| is_region(label))?);
    }
    if GLOBAL.contains(last) && before.is_empty() && !china {
        return found(last, GLOBAL_REGION);
    }
    // Acceleration leads to the bucket's region, wherever that is.
    let accelerated =
        ["s3-accelerate", "dualstack"].contains(last) && labels.contains(&"s3-accelerate");
    accelerated.then(|| Scope {
        service: Some("s3".to_owned()),
        region: None,
    })
}

fn found(service: &str, region: &str) -> Option<Scope> {
    Some(Scope {
        service: Some(service.to_owned()),
        region: Some(region.to_owned()),
    })
}

fn service(label: &str) -> &str {
    let label = label.strip_suffix("-fips").unwrap_or(label);
    match label {
        "s3-accesspoint" | "s3-control" => return "s3",
        _ if label.starts_with("s3express-") => return "s3express",
        _ => {}
    }
    let mut names = SIGNING_NAMES.iter();
    names
        .find(|(endpoint, _)| *endpoint == label)
        .map_or(label, |(_, name)| name)
}

/// `us-east-1`, `us-gov-west-1`, `us-iso-east-1`: words, then a number.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    (2..=3).contains(&words.len())
        && words[0].len() == 2
        && words.iter().all(word)
        && !number.is_empty()
        && number.len() <= 2
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Scope, bucket, scope};

    #[test]
    fn buckets_are_what_stands_before_the_endpoint() {
        for (host, found) in [
            ("s3.us-east-1.amazonaws.com", None),
            ("s3-us-west-2.amazonaws.com", None),
            ("sts.amazonaws.com", None),
            ("b.s3.example.org", None),
            ("b.s3.amazonaws.com", Some(("b", "s3.amazonaws.com"))),
            (
                "a.s3.b.s3.dualstack.eu-west-1.amazonaws.com",
                Some(("a.s3.b", "s3.dualstack.eu-west-1.amazonaws.com")),
            ),
            (
                "b.s3.cn-north-1.amazonaws.com.cn",
                Some(("b", "s3.cn-north-1.amazonaws.com.cn")),
            ),
        ] {
            assert_eq!(bucket(host), found, "{host}");
        }
    }

    #[test]
    fn hosts_of_the_known_forms_say_what_to_sign_for() {
        for (host, service, region) in [
            ("s3.amazonaws.com", "s3", "us-east-1"),
            ("bucket.s3.amazonaws.com", "s3", "us-east-1"),
            ("s3.eu-central-1.amazonaws.com", "s3", "eu-central-1"),
            ("my.bucket.s3.eu-west-3.amazonaws.com", "s3", "eu-west-3"),
            ("b.s3.dualstack.us-west-2.amazonaws.com", "s3", "us-west-2"),
            (
                "b.s3-fips.us-gov-west-1.amazonaws.com",
                "s3",
                "us-gov-west-1",
            ),
            (
                "s3-fips.dualstack.us-east-2.amazonaws.com",
                "s3",
                "us-east-2",
            ),
            ("b.s3-us-west-1.amazonaws.com", "s3", "us-west-1"),
            ("b.s3.cn-north-1.amazonaws.com.cn", "s3", "cn-north-1"),
            (
                "p-1.s3-accesspoint.eu-west-1.amazonaws.com",
                "s3",
                "eu-west-1",
            ),
            (
                "1.s3-control.dualstack.eu-west-1.amazonaws.com",
                "s3",
                "eu-west-1",
            ),
            (
                "p.s3-object-lambda.eu-west-1.amazonaws.com",
                "s3-object-lambda",
                "eu-west-1",
            ),
            (
                "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
                "s3express",
                "us-west-2",
            ),
            ("us-east-1.s3.amazonaws.com", "s3", "us-east-1"),
            ("sts.amazonaws.com", "sts", "us-east-1"),
            ("sts.eu-north-1.amazonaws.com", "sts", "eu-north-1"),
            ("sts-fips.us-east-2.amazonaws.com", "sts", "us-east-2"),
            ("iam.amazonaws.com", "iam", "us-east-1"),
            (
                "dynamodb.ap-southeast-2.amazonaws.com",
                "dynamodb",
                "ap-southeast-2",
            ),
            (
                "streams.dynamodb.us-east-1.amazonaws.com",
                "dynamodb",
                "us-east-1",
            ),
            (
                "bedrock-runtime.us-west-2.amazonaws.com",
                "bedrock",
                "us-west-2",
            ),
            (
                "bedrock-runtime-fips.us-west-2.amazonaws.com",
                "bedrock",
                "us-west-2",
            ),
            (
                "abc.execute-api.us-east-1.amazonaws.com",
                "execute-api",
                "us-east-1",
            ),
            ("api.ecr.us-east-1.amazonaws.com", "ecr", "us-east-1"),
            ("email.us-east-1.amazonaws.com", "ses", "us-east-1"),
            ("a1-ats.iot.us-east-1.amazonaws.com", "iotdata", "us-east-1"),
            ("iot.us-east-1.amazonaws.com", "iot", "us-east-1"),
            ("search-x-1.us-east-1.es.amazonaws.com", "es", "us-east-1"),
        ] {
            let expected = Scope {
                service: Some(service.to_owned()),
                region: Some(region.to_owned()),
            };
            assert_eq!(scope(host), expected, "{host}");
        }
    }

    #[test]
    fn hosts_of_other_forms_are_not_guessed_at() {
        for host in [
            "example.com",
            "amazonaws.com",
            "amazonaws.com.example.com",
            "notamazonaws.com",
            "accesspoint.s3-global.amazonaws.com",
            "sts.amazonaws.com.cn",
            "dynamodb.amazonaws.com",
            "us-east-1.amazonaws.com",
            "sts.us-gov.amazonaws.com",
        ] {
            assert_eq!(scope(host), Scope::default(), "{host}");
        }
        let accelerated = scope("b.s3-accelerate.dualstack.amazonaws.com");
        assert_eq!(accelerated.service.as_deref(), Some("s3"));
        assert_eq!(accelerated.region, None);
    }
}
