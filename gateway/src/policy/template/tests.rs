//! Tests of templates.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use super::{MissingSecret, SecretRef, Template, TemplateError, is_secret_key, is_secret_name};
use crate::secrets::SecretValue;

fn reference(name: &str, key: &str) -> SecretRef {
    SecretRef {
        name: name.into(),
        key: key.into(),
    }
}

fn of_policy(text: &str) -> Result<Template, TemplateError> {
    Template::of_policy(text, &reference("s", "token"))
}

/// Renders with secrets whose value is their own `name/key` in angle brackets.
fn rendered(template: &Template) -> String {
    let mut lookup = |secret: &SecretRef| {
        let value = format!("<{secret}>").into_bytes();
        Some(Arc::new(SecretValue::new(value)))
    };
    String::from_utf8(template.render(&mut lookup).unwrap().expose().to_vec()).unwrap()
}

#[test]
fn a_policy_template_uses_the_policys_own_secret() {
    for (text, expected) in [
        ("{{ value }}", "<s/token>"),
        ("{{value}}", "<s/token>"),
        ("Bearer {{ value }}", "Bearer <s/token>"),
        ("a {{ value }} b {{ value }}", "a <s/token> b <s/token>"),
        // base64 of `<s/user>:<s/token>`
        (
            "Basic {{ base64 user ':' value }}",
            "Basic PHMvdXNlcj46PHMvdG9rZW4+",
        ),
        ("{{ base64 \"x:\" value }}", "eDo8cy90b2tlbj4="),
        ("Bearer none", "Bearer none"),
    ] {
        assert_eq!(rendered(&of_policy(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn a_rule_template_splits_at_the_last_dot() {
    for (text, expected) in [
        ("Bearer {{ wiki-token.value }}", "Bearer <wiki-token/value>"),
        ("{{a.b.c}}", "<a.b/c>"),
        ("{{ a.b }}:{{ c.d }}", "<a/b>:<c/d>"),
        // base64 of `<wiki/user>:<other/password>`
        (
            "Basic {{ base64 wiki.user ':' other.password }}",
            "Basic PHdpa2kvdXNlcj46PG90aGVyL3Bhc3N3b3JkPg==",
        ),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(
            rendered(&Template::of_rule(text).unwrap()),
            expected,
            "{text}"
        );
    }
}

#[test]
fn the_secrets_of_a_template_are_told_in_order() {
    let template = of_policy("{{ value }} {{ base64 user ':' pass }}").unwrap();
    let keys: Vec<_> = template.secret_refs().map(ToString::to_string).collect();
    assert_eq!(keys, ["s/token", "s/user", "s/pass"]);
}

#[test]
fn a_missing_secret_is_named_and_nothing_is_rendered() {
    let template = Template::of_rule("{{ a.b }}{{ c.d }}").unwrap();
    let mut lookup = |secret: &SecretRef| {
        (&*secret.name == "a").then(|| Arc::new(SecretValue::new(b"x".to_vec())))
    };
    let missing = template.render(&mut lookup).unwrap_err();
    assert_eq!(missing, MissingSecret(reference("c", "d")));
    assert_eq!(missing.to_string(), "secret c/d is missing");
}

#[test]
fn a_secret_is_never_read_as_a_template() {
    let template = of_policy("{{ value }}").unwrap();
    let mut lookup = |_: &SecretRef| Some(Arc::new(SecretValue::new(b"{{ value }}\r\n".to_vec())));
    let value = template.render(&mut lookup).unwrap();
    assert_eq!(value.expose(), b"{{ value }}\r\n");
}

#[test]
fn mistakes_are_told_apart() {
    for (text, error) in [
        ("{{ value", TemplateError::Unclosed),
        ("value }}", TemplateError::Unopened),
        ("}}{{ value }}", TemplateError::Unopened),
        ("a\nb", TemplateError::Literal),
        ("ü", TemplateError::Literal),
        ("{{ }}", TemplateError::Expression(String::new())),
        ("{{ Value }}", TemplateError::Expression("Value".into())),
        ("{{ user }}", TemplateError::Expression("user".into())),
        ("{{ base64 }}", TemplateError::Expression("base64".into())),
        (
            "{{ base64value }}",
            TemplateError::Expression("base64value".into()),
        ),
        (
            "{{ base64 'a' }}",
            TemplateError::Expression("base64 'a'".into()),
        ),
        (
            "{{ base64 'a }}",
            TemplateError::Expression("base64 'a".into()),
        ),
        (
            "{{ base64 a/b }}",
            TemplateError::Expression("base64 a/b".into()),
        ),
    ] {
        assert_eq!(of_policy(text), Err(error), "{text}");
    }
    for text in [
        "{{ value }}",
        "{{ .key }}",
        "{{ name. }}",
        "{{ a.b/c }}",
        "{{ A.b }}",
        "{{ a b.c }}",
        "{{ a..b }}",
    ] {
        let inside = text.trim_matches(['{', '}']).trim().to_owned();
        let error = TemplateError::Reference(inside);
        assert_eq!(Template::of_rule(text), Err(error), "{text}");
    }
}

#[test]
fn names_and_keys_are_safe_as_paths() {
    for name in ["a", "a-b.c1", "0"] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in [
        "", ".", "..", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "a/b", "a\0",
    ] {
        assert!(!is_secret_name(name), "{name:?}");
    }
    for key in ["a", "ca.crt", "API_KEY", "...", "-"] {
        assert!(is_secret_key(key), "{key}");
    }
    for key in ["", ".", "..", "a/b", "a b", "ü", "a\0"] {
        assert!(!is_secret_key(key), "{key:?}");
    }
}
