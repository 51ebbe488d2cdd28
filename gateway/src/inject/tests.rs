//! What is set, what is removed, and what is not sent at all.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::policy::{Class, Destination, Host, RequestFacts, SecretRef, SourceFile, compile};
use crate::secrets::SecretValue;

const POLICY: &str = include_str!("../../../policies/anthropic/policy.yaml");

/// A gateway that reads everything.
const GATEWAY: &str = "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: egress-gateway}
spec:
  listeners: [{name: egress, protocol: TLS, tls: {mode: Terminate}}]
";

const RECIPIENT: Recipient<'static> = Recipient {
    host: "api.anthropic.com",
    tls: true,
};

fn permit(path: &str) -> RequestPermit {
    permit_of(POLICY, "api.anthropic.com", "POST", path)
}

fn permit_of(policy: &str, host: &str, method: &str, path: &str) -> RequestPermit {
    let file = SourceFile {
        name: "p.yaml".into(),
        text: policy.to_owned().into(),
    };
    let compiled = compile(&[file]);
    let told: Vec<_> = compiled
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect();
    let policy = compiled.policy.unwrap_or_else(|| panic!("{told:?}"));
    let gateway = policy.gateways.values().next().unwrap();
    let host = Host::parse(host).unwrap();
    let permit = gateway
        .authorize(&Destination {
            address: "203.0.113.9:443".parse().unwrap(),
            host: Some(&host),
            listener: gateway.listener(Class::Tls, 443).unwrap(),
        })
        .unwrap();
    let facts = RequestFacts {
        host: Some(&host),
        port: 443,
        method,
        path,
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    gateway.authorize_request(&permit, &facts).unwrap()
}

fn secrets(permit: &RequestPermit, value: &[u8]) -> Secrets {
    let references: Vec<SecretRef> = permit
        .injections()
        .iter()
        .flat_map(|injection| injection.secret_refs().into_iter().cloned())
        .collect();
    Secrets::from_values(
        references
            .into_iter()
            .map(|reference| (reference, SecretValue::new(value.to_vec()))),
    )
}

#[test]
fn the_real_credential_is_set_once_whatever_the_sandbox_sent() {
    let permit = permit("/v1/messages");
    let mut headers = HeaderMap::new();
    for name in ["x-api-key", "x_api_key", "authorization", "accept"] {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static("own"),
        );
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static("two"),
        );
    }
    let late = apply(&permit, &secrets(&permit, b"real"), RECIPIENT, &mut headers).unwrap();
    assert!(late.is_none());
    let all: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    assert_eq!(headers.get_all("x-api-key").iter().count(), 1, "{all:?}");
    assert_eq!(headers["x-api-key"], "real");
    assert!(headers["x-api-key"].is_sensitive());
    assert_eq!(headers.len(), 3, "{all:?}");
    assert_eq!(headers.get_all("accept").iter().count(), 2);
}

#[test]
fn without_its_secret_or_with_a_line_break_in_it_nothing_may_be_sent() {
    let permit = permit("/v1/messages");
    let mut headers = HeaderMap::new();
    let none = Secrets::from_values([]);
    assert!(matches!(
        apply(&permit, &none, RECIPIENT, &mut headers),
        Err(InjectError::Missing(_))
    ));
    assert!(matches!(
        apply(
            &permit,
            &secrets(&permit, b"a\r\nx: y"),
            RECIPIENT,
            &mut headers
        ),
        Err(InjectError::NotAFieldValue(_))
    ));
}

#[test]
fn the_sandbox_s_own_credential_in_the_query_goes_however_it_is_spelled() {
    let permit = permit("/v1/messages");
    let secrets = secrets(&permit, b"real");
    for (sent, left) in [
        ("key=mine", ""),
        ("beta=true&API%5Fkey=mine&x=1", "beta=true&x=1"),
        ("access_token", ""),
        ("monkey=1&keys=2", "monkey=1&keys=2"),
        ("a=1;key=mine;b=2", "a=1;b=2"),
        ("key[]=mine&api.key=mine&+key=mine&key%00x=mine", ""),
        ("a&&b=", "a&&b="),
    ] {
        assert_eq!(query(&permit, &secrets, Some(sent)).unwrap(), left);
    }
    assert_eq!(query(&permit, &secrets, None).unwrap(), "");
}

const EXTRA: &str = "---
apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {name: maps}
spec:
  parentRefs: [{kind: EgressGateway, name: egress-gateway}]
  hostnames: [TARGET]
  rules: [{matches: [{path: {type: PathPrefix, value: /}}]}]
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: maps}
spec:
  parentRefs: [{kind: EgressGateway, name: egress-gateway}]
  rules: [{matches: [{destinationHostnames: [TARGET], ports: [{port: 443}]}]}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: maps-key}
spec:
  parentRefs: [{kind: EgressHTTPRoute, name: maps}]
  secretRef: {name: maps}
";

fn extra(host: &str, target: &str) -> RequestPermit {
    let text = format!("{GATEWAY}{}  {target}\n", EXTRA.replace("TARGET", host));
    permit_of(&text, host, "GET", "/")
}

#[test]
fn a_query_parameter_is_the_real_one_alone_and_escaped() {
    let target = "target: QueryParam\n  queryParamName: Client Key";
    let permit = extra("maps.example", target);
    let secrets = secrets(&permit, "a&b=c #\u{e9}".as_bytes());
    let real = "Client%20Key=a%26b%3Dc%20%23%C3%A9";
    for (sent, left) in [
        (None, ""),
        (Some("client%20key=mine"), ""),
        (Some("Client+Key=1&x=1&CLIENT%20%4bey=2&client_key"), "x=1&"),
        (Some("key=1;client.key=2"), "key=1&"),
    ] {
        assert_eq!(
            query(&permit, &secrets, sent).unwrap(),
            format!("{left}{real}")
        );
    }
    let none = Secrets::from_values([]);
    assert!(matches!(
        query(&permit, &none, Some("x=1")),
        Err(InjectError::Missing(_))
    ));
}

#[test]
fn what_the_sandbox_signed_for_aws_goes_and_its_other_fields_stay() {
    let target = "target: ProviderAuth\n  providerAuth: {type: AWSv4}";
    let host = "bucket.s3.eu-west-1.amazonaws.com";
    let permit = extra(host, target);
    let secrets = secrets(&permit, b"real");
    let sent = "list-type=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&x-amz-credential=1&X%2DAmz-Signature=2&X-Amz-Expires=9&prefix=a";
    assert_eq!(
        query(&permit, &secrets, Some(sent)).unwrap(),
        "list-type=2&prefix=a"
    );
    let older = "AWSAccessKeyId=1&Signature=2&Expires=3&versionId=4";
    assert_eq!(
        query(&permit, &secrets, Some(older)).unwrap(),
        "versionId=4"
    );
    let common = "Expires=3&access_token=mine";
    assert_eq!(query(&permit, &secrets, Some(common)).unwrap(), "Expires=3");
    let mut headers = HeaderMap::new();
    for name in [
        "authorization",
        "x-amz-date",
        "x_amz_date",
        "x-amz-security-token",
        "x-amz-s3session-token",
        "x-amz-region-set",
        "x-amz-content-sha256",
        "x-amz-meta-a",
    ] {
        headers.insert(name, HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    }
    let recipient = Recipient { host, tls: true };
    let late = apply(&permit, &secrets, recipient, &mut headers).unwrap();
    assert!(late.is_some());
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-amz-meta-a"]);
}

#[test]
fn a_host_that_does_not_say_what_to_sign_for_gets_no_signature() {
    let target = "target: ProviderAuth\n  providerAuth: {type: AWSv4}";
    let host = "accesspoint.s3-global.amazonaws.com";
    let permit = extra(host, target);
    let secrets = secrets(&permit, b"real");
    let recipient = Recipient { host, tls: true };
    let refused = apply(&permit, &secrets, recipient, &mut HeaderMap::new()).err();
    let Some(error @ InjectError::Unlocated { .. }) = refused else {
        panic!("signed for nobody");
    };
    assert_eq!(error.reason(), DenyReason::CredentialUnavailable);
    assert!(
        error.to_string().contains("providerAuth.service"),
        "{error}"
    );
}
