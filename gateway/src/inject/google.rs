//! Access tokens of Google service accounts: an assertion signed with the account's key is exchanged for a
//! token (RFC 7523 §2.1), which is kept until shortly before it expires. It refuses to know what the token
//! is used for; and no sandbox has a say in where it is asked for: the key file names the endpoint.

use super::InjectError;
use crate::outcome::UpstreamError;
use crate::policy::{Host, MissingSecret, SecretRef};
use crate::secrets::{SecretValue, Secrets};
use crate::upstream::Direct;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Uri;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

/// A token is replaced this long before it expires, or at half its life if that is later: whoever gets it
/// has time to use it.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// Life of an assertion, the longest that Google takes.
const ASSERTION_LIFE: Duration = Duration::from_secs(60 * 60);
/// The longest life that is believed; Google gives an hour, by request twelve.
const MAX_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// After a failure the endpoint is left alone for this long, and all get the same error.
const FAILURE_LIFE: Duration = Duration::from_secs(2);
/// The grant (RFC 7523 §2.1).
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The endpoint did not answer.
    #[error("no access token: {0}")]
    Unreachable(#[from] UpstreamError),
    /// The endpoint gave none.
    #[error("no access token: the token endpoint {host} answered {status}{code}")]
    Refused {
        /// The endpoint.
        host: Host,
        /// Its HTTP status.
        status: u16,
        /// Its OAuth error code in brackets, if it gave one.
        code: String,
    },
    /// The endpoint gave something else.
    #[error("no access token: the token endpoint {host} gave no bearer token with its life")]
    NoToken {
        /// The endpoint.
        host: Host,
    },
    /// The key cannot sign.
    #[error("no access token: secret {secret} cannot be used: {what}")]
    Key {
        /// The key file's secret.
        secret: SecretRef,
        /// What is wrong with it, without the value.
        what: &'static str,
    },
}

/// The tokens of one gateway. Clones share them, and may ask for new ones in another way.
#[derive(Clone)]
pub struct Tokens {
    direct: Direct,
    accounts: Arc<Mutex<HashMap<Account, Arc<Slot>>>>,
}

/// Whose tokens: the key, by its digest, and what for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Account {
    key: Vec<u8>,
    scopes: Arc<[String]>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Held by the one who asks for a token; the others wait for it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Not used before those who keep it out of records know it.
    coming: Option<Arc<SecretValue>>,
    failure: Option<(Instant, Arc<TokenError>)>,
}

#[derive(Clone)]
struct Token {
    value: Arc<SecretValue>,
    renew: Instant,
    expires: Instant,
}

impl Tokens {
    /// Asks by `direct`.
    #[must_use]
    pub fn new(direct: Direct) -> Self {
        Self {
            direct,
            accounts: Arc::default(),
        }
    }

    /// The same tokens; new ones are asked for by `direct`.
    #[must_use]
    pub fn through(&self, direct: Direct) -> Self {
        Self {
            direct,
            accounts: Arc::clone(&self.accounts),
        }
    }

    /// Every token that may be in use, for those who keep them out of what the sandbox and the records see.
    #[must_use]
    pub fn values(&self) -> Vec<Arc<SecretValue>> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = accounts.values();
        let values = slots.flat_map(|slot| {
            let state = slot.lock();
            let valid = state.valid().map(|token| token.value);
            [valid, state.coming.clone()]
        });
        values.flatten().collect()
    }

    /// A token for the service account with this key, valid for some minutes. However many ask at once, the
    /// endpoint is asked once.
    ///
    /// # Errors
    /// The key is missing or broken, or the endpoint gives no token and none is left that is valid.
    pub async fn get(
        &self,
        secrets: &Secrets,
        secret: &SecretRef,
        scopes: &Arc<[String]>,
    ) -> Result<Arc<SecretValue>, InjectError> {
        let key = secrets
            .get(secret)
            .ok_or_else(|| MissingSecret(secret.clone()))?;
        let slot = self.slot(Account {
            key: digest(&SHA256, key.expose()).as_ref().to_vec(),
            scopes: Arc::clone(scopes),
        });
        if let Some(token) = slot.lock().fresh() {
            return Ok(token.value);
        }
        let _turn = match slot.asking.try_lock() {
            Ok(turn) => turn,
            Err(_taken) => {
                // Somebody renews it already: no need to wait while it is valid.
                if let Some(token) = slot.lock().valid() {
                    return Ok(token.value);
                }
                slot.asking.lock().await
            }
        };
        if let Some(settled) = slot.lock().settled() {
            return Ok(settled?);
        }
        match self.ask(secret, &key, scopes).await {
            Ok(token) => {
                let value = Arc::clone(&token.value);
                slot.lock().coming = Some(Arc::clone(&value));
                secrets.remind();
                *slot.lock() = State {
                    token: Some(token),
                    ..State::default()
                };
                Ok(value)
            }
            Err(error) => {
                tracing::warn!(%secret, %error, "service account");
                let error = Arc::new(error);
                let mut state = slot.lock();
                state.failure = Some((Instant::now(), Arc::clone(&error)));
                match state.valid() {
                    Some(token) => Ok(token.value),
                    None => Err(error.into()),
                }
            }
        }
    }

    fn slot(&self, account: Account) -> Arc<Slot> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(&account) {
            // A key that was rotated away leaves its slot behind.
            accounts.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.lock().valid().is_some());
        }
        Arc::clone(accounts.entry(account).or_default())
    }

    async fn ask(
        &self,
        secret: &SecretRef,
        key: &SecretValue,
        scopes: &[String],
    ) -> Result<Token, TokenError> {
        let broken = |what| TokenError::Key {
            secret: secret.clone(),
            what,
        };
        let key = Key::read(key.expose()).map_err(broken)?;
        let assertion = key.assertion(scopes, SystemTime::now()).map_err(broken)?;
        let body = format!("grant_type={GRANT}&assertion={assertion}");
        let asked = Instant::now();
        let (status, answer) = self
            .direct
            .post_form(&key.host, key.port, &key.path, Bytes::from(body))
            .await?;
        if !status.is_success() {
            return Err(TokenError::Refused {
                host: key.host,
                status: status.as_u16(),
                code: error_code(&answer),
            });
        }
        token(&answer, asked).ok_or(TokenError::NoToken { host: key.host })
    }
}

impl Slot {
    /// Never held across a wait.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The token, if it need not be renewed.
    fn fresh(&self) -> Option<Token> {
        let now = Instant::now();
        self.token.clone().filter(|token| now < token.renew)
    }

    /// The token, as long as it can be used.
    fn valid(&self) -> Option<Token> {
        let now = Instant::now();
        self.token.clone().filter(|token| now < token.expires)
    }

    /// What the one before has found out.
    fn settled(&self) -> Option<Result<Arc<SecretValue>, Arc<TokenError>>> {
        if let Some(token) = self.fresh() {
            return Some(Ok(token.value));
        }
        let (at, error) = self.failure.as_ref()?;
        let lately = at.elapsed() < FAILURE_LIFE;
        lately.then(|| match self.valid() {
            Some(token) => Ok(token.value),
            None => Err(Arc::clone(error)),
        })
    }
}

/// What the endpoint answers (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Answer {
    access_token: Zeroizing<String>,
    token_type: String,
    expires_in: u64,
}

fn token(answer: &[u8], asked: Instant) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let text = answer.access_token.as_bytes();
    let is_token = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    let life = Duration::from_secs(answer.expires_in).min(MAX_LIFE);
    let usable = is_token && !life.is_zero() && answer.token_type.eq_ignore_ascii_case("bearer");
    usable.then(|| Token {
        value: Arc::new(SecretValue::kept(text)),
        renew: asked + life.saturating_sub(EARLY).max(life / 2),
        expires: asked + life,
    })
}

/// The OAuth error (RFC 6749 §5.2), if it is one word.
fn error_code(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Failure {
        error: String,
    }
    let failure: Option<Failure> = serde_json::from_slice(answer).ok();
    let word = |code: &String| {
        (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let code = failure.map(|failure| failure.error).filter(word);
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

/// A service account's key file.
struct Key {
    email: String,
    id: Option<String>,
    pair: RsaKeyPair,
    endpoint: String,
    host: Host,
    port: u16,
    path: String,
}

#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key_id: Option<String>,
    private_key: Zeroizing<String>,
    token_uri: String,
}

impl Key {
    fn read(file: &[u8]) -> Result<Self, &'static str> {
        let Ok(file) = serde_json::from_slice::<KeyFile>(file) else {
            return Err("it is not the JSON key file of a service account");
        };
        if file.r#type != "service_account" {
            return Err("its `type` is not `service_account`");
        }
        let pair = rsa_key(&file.private_key)?;
        let Ok(uri) = file.token_uri.parse::<Uri>() else {
            return Err("its `token_uri` is not a URL");
        };
        if uri.scheme_str() != Some("https") {
            return Err("its `token_uri` is not an https URL");
        }
        let Some(Ok(host)) = uri.host().map(Host::parse) else {
            return Err("its `token_uri` has no host name");
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
            path: path.to_owned(),
            email: file.client_email,
            id: file.private_key_id,
            pair,
            endpoint: file.token_uri,
        })
    }

    /// A signed JWT (RFC 7519, RS256), good at the endpoint alone.
    fn assertion(&self, scopes: &[String], now: SystemTime) -> Result<String, &'static str> {
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else {
            return Err("the clock is before 1970");
        };
        let mut header = serde_json::json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": self.email,
            "scope": scopes.join(" "),
            "aud": self.endpoint,
            "iat": now.as_secs(),
            "exp": (now + ASSERTION_LIFE).as_secs(),
        });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        match self
            .pair
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        {
            Ok(()) => Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))),
            Err(_unspecified) => Err("its key does not sign"),
        }
    }
}

/// The key of a PEM text (RFC 7468), as PKCS #8 or PKCS #1.
fn rsa_key(pem: &str) -> Result<RsaKeyPair, &'static str> {
    let between = |label: &str| {
        let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
        let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let text: Zeroizing<String> = Zeroizing::new(inside.split_whitespace().collect());
        Some(Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?))
    };
    let read = match (between("PRIVATE KEY"), between("RSA PRIVATE KEY")) {
        (Some(der), _) => RsaKeyPair::from_pkcs8(&der),
        (None, Some(der)) => RsaKeyPair::from_der(&der),
        (None, None) => return Err("its `private_key` is not a PEM private key"),
    };
    match read {
        Ok(pair) => Ok(pair),
        Err(_rejected) => Err("its `private_key` is not an RSA key"),
    }
}

#[cfg(test)]
mod tests;
