//! Keys and assertions; the exchange itself has an end-to-end suite.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

fn pem() -> String {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

fn file(pem: &str, kind: &str, endpoint: &str) -> Vec<u8> {
    let file = serde_json::json!({
        "type": kind,
        "client_email": "agent@project.example",
        "private_key_id": "k1",
        "private_key": pem,
        "token_uri": endpoint,
        "universe_domain": "googleapis.com",
    });
    file.to_string().into_bytes()
}

#[test]
fn an_assertion_says_who_asks_for_what_and_is_signed_with_the_key() {
    let endpoint = "https://oauth2.example:8443/token?x=1";
    let key = Key::read(&file(&pem(), "service_account", endpoint)).unwrap();
    assert_eq!(key.url.to_string(), endpoint);
    let scopes = ["https://a".to_owned(), "b".to_owned()];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let assertion = key.assertion(&scopes, now).unwrap();
    let (text, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = key.pair.public_key().as_ref().to_vec();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
        .verify(text.as_bytes(), &signature)
        .unwrap();
    let parts: Vec<serde_json::Value> = text
        .split('.')
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(
        parts,
        [
            serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}),
            serde_json::json!({
                "iss": "agent@project.example",
                "scope": "https://a b",
                "aud": endpoint,
                "iat": 1_000_000,
                "exp": 1_003_600,
            }),
        ]
    );
}

#[test]
fn a_key_that_cannot_be_used_is_refused_without_being_told() {
    let pem = pem();
    let good = "https://oauth2.example/token";
    for (file, word) in [
        (b"no json".to_vec(), "JSON"),
        (file(&pem, "authorized_user", good), "service_account"),
        (file("nonsense", "service_account", good), "PEM"),
        (
            file(&pem, "service_account", "http://oauth2.example/"),
            "https",
        ),
        (
            file(&pem, "service_account", "https://192.0.2.1/"),
            "host name",
        ),
    ] {
        let what = Key::read(&file).err().unwrap();
        assert!(what.contains(word), "{what}");
    }
}
