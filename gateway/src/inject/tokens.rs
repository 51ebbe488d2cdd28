//! Access tokens that somebody gives for a credential: asked for once however many wait, renewed early, kept until they
//! expire. It refuses to know what a token is used for, and how each kind of credential asks; and no sandbox has a say
//! in where: the policy or the key file names the endpoint.

use super::{InjectError, client, google};
use crate::outcome::UpstreamError;
use crate::policy::{Host, MissingSecret, SecretRef, TokenSource, TokenUrl};
use crate::scrub::MAX_SECRET;
use crate::secrets::{SecretValue, Secrets};
use crate::upstream::{Direct, Form};
use aws_lc_rs::digest::{Context, SHA256};
use percent_encoding::percent_encode;
use serde::Deserialize;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

/// A token is replaced this long before it expires, or at half its life if that is later: whoever gets it
/// has time to use it.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// The longest life that is believed; Google gives an hour, by request twelve.
const MAX_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// The life of a token whose endpoint does not say it, as RFC 6749 §5.1 allows: servers that are short with words give
/// an hour, seldom less than ten minutes.
const DEFAULT_LIFE: Duration = Duration::from_secs(5 * 60);
/// After a failure the endpoint is left alone for this long, and all get the same error.
const FAILURE_LIFE: Duration = Duration::from_secs(2);
/// A token that is younger is not asked for anew because an upstream refuses it: the next one would be refused as well,
/// and a sandbox that provokes refusals would have the endpoint asked as often as it likes.
const DOUBTED_AGE: Duration = Duration::from_secs(10);
/// Errors that an endpoint may give (RFC 6749 §5.2 and §4.1.2.1, RFC 8707 §2). Other words may be anything, the secret
/// included, and are not told.
const ERRORS: [&str; 10] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "invalid_target",
];

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
        /// Its OAuth error code in brackets, if it gave one that is known.
        code: String,
    },
    /// The endpoint gave something else.
    #[error("no access token: the token endpoint {host} gave no bearer token that can be used")]
    NoToken {
        /// The endpoint.
        host: Host,
    },
    /// Nobody asks any more.
    #[error("no access token: the gateway has given up asking for one")]
    Abandoned,
    /// The credential cannot be asked with.
    #[error("no access token: secret {secret} cannot be used: {what}")]
    Key {
        /// The secret.
        secret: SecretRef,
        /// What is wrong with it, without the value.
        what: &'static str,
    },
}

impl TokenError {
    /// What the sandbox is told of it.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Unreachable(error) => format!("no access token: {}", error.told()),
            other => other.to_string(),
        }
    }
}

/// The tokens of one gateway. Clones share them, and may ask for new ones in another way.
#[derive(Clone)]
pub struct Tokens {
    direct: Direct,
    accounts: Arc<Mutex<HashMap<Account, Arc<Slot>>>>,
}

/// Whose tokens and what for, by a digest of all that they are asked for with: with another secret it is another account.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Account(Vec<u8>);

/// A credential that tokens are given for, with its secrets as they are now.
enum Grant<'s> {
    Google(google::Grant<'s>),
    Client(client::Grant<'s>),
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Held while a token is asked for; who needs one waits for it.
    asking: Arc<tokio::sync::Mutex<()>>,
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
    asked: Instant,
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

    /// A token from `source`, valid for some minutes. However many ask at once, the endpoint is asked once, and what it
    /// says is kept even if all of them leave meanwhile. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The secret is missing or broken, or the endpoint gives no token and none is left that is valid.
    pub async fn get(
        &self,
        secrets: &Arc<Secrets>,
        source: &TokenSource,
    ) -> Result<Arc<SecretValue>, InjectError> {
        let grant = Grant::new(secrets, source)?;
        let slot = self.slot(grant.account());
        let followed = Arc::clone(secrets);
        let ask = || self.ask(&grant);
        Ok(slot.get(ask, move || followed.remind()).await?)
    }

    /// An upstream refuses a token from `source`: it may have been revoked. The next request asks for another, and
    /// uses this one still where there is none. A token that was given just now is kept.
    pub fn doubt(&self, secrets: &Secrets, source: &TokenSource) {
        // Without its secret no token is used.
        if let Ok(grant) = Grant::new(secrets, source) {
            self.slot(grant.account()).lock().doubt();
        }
    }

    fn slot(&self, account: Account) -> Arc<Slot> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(&account) {
            // A key that was rotated away leaves its slot behind.
            accounts.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.lock().is_of_use());
        }
        Arc::clone(accounts.entry(account).or_default())
    }

    /// What the endpoint says; it keeps nothing of the grant but what it sends.
    fn ask(
        &self,
        grant: &Grant<'_>,
    ) -> impl Future<Output = Result<Token, TokenError>> + Send + use<> {
        let form = grant.form();
        let direct = self.direct.clone();
        async move {
            let (url, form) = form?;
            let asked = Instant::now();
            let (status, answer) = direct.post_form(&url, form).await?;
            let host = url.host().clone();
            if !status.is_success() {
                return Err(TokenError::Refused {
                    host,
                    status: status.as_u16(),
                    code: error_code(&answer),
                });
            }
            token(&answer, asked).ok_or(TokenError::NoToken { host })
        }
    }
}

/// Whether a token could be asked for: the grant is written, and not sent.
pub(super) fn try_out(secrets: &Secrets, source: &TokenSource) -> Result<(), InjectError> {
    Grant::new(secrets, source)?.form().map_err(Arc::new)?;
    Ok(())
}

impl<'s> Grant<'s> {
    fn new(secrets: &Secrets, source: &'s TokenSource) -> Result<Self, MissingSecret> {
        let find = |reference: &SecretRef| {
            let found = secrets.get(reference);
            found.ok_or_else(|| MissingSecret(reference.clone()))
        };
        Ok(match source {
            TokenSource::GcpServiceAccount { key, scopes } => Self::Google(google::Grant {
                secret: key,
                key: find(key)?,
                scopes,
            }),
            TokenSource::OAuth2Client(client) => Self::Client(client::Grant {
                client,
                id: find(&client.id)?,
                secret: find(&client.secret)?,
            }),
        })
    }

    fn account(&self) -> Account {
        let mut digest = Context::new(&SHA256);
        // Each after its length: no two lists are the same bytes.
        let mut add = |part: &[u8]| {
            digest.update(&part.len().to_ne_bytes());
            digest.update(part);
        };
        match self {
            Self::Google(grant) => {
                add(b"google");
                grant.identify(&mut add);
            }
            Self::Client(grant) => {
                add(b"client");
                grant.identify(&mut add);
            }
        }
        Account(digest.finish().as_ref().to_vec())
    }

    fn form(&self) -> Result<(TokenUrl, Form), TokenError> {
        match self {
            Self::Google(grant) => grant.form(),
            Self::Client(grant) => grant.form(),
        }
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B), in one piece of memory that is wiped. What needs no escape
/// has none, and a blank is `%20`: every server reads that alike.
pub(super) fn urlencoded(pairs: &[(&str, &[u8])]) -> Zeroizing<Vec<u8>> {
    let longest = |(name, value): &(&str, &[u8])| name.len() + 3 * value.len() + 2;
    let mut form = Zeroizing::new(Vec::with_capacity(pairs.iter().map(longest).sum()));
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        escaped(value, &mut form);
    }
    form
}

/// Appends a value to such a form.
pub(super) fn escaped(value: &[u8], to: &mut Vec<u8>) {
    for piece in percent_encode(value, super::ESCAPED) {
        to.extend_from_slice(piece.as_bytes());
    }
}

impl Slot {
    /// The token, or what comes of asking for it.
    ///
    /// Who asks may leave at any moment, and a sandbox can make it leave: what it has asked goes on without it. Otherwise
    /// each request that is broken off in time would have the endpoint asked once more, without an end.
    async fn get<F>(
        self: &Arc<Self>,
        ask: impl FnOnce() -> F,
        remind: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<SecretValue>, Arc<TokenError>>
    where
        F: Future<Output = Result<Token, TokenError>> + Send + 'static,
    {
        if let Some(token) = self.lock().fresh() {
            return Ok(token.value);
        }
        let turn = match Arc::clone(&self.asking).try_lock_owned() {
            Ok(turn) => turn,
            Err(_taken) => {
                // Somebody renews it already: no need to wait while it is valid.
                if let Some(token) = self.lock().valid() {
                    return Ok(token.value);
                }
                Arc::clone(&self.asking).lock_owned().await
            }
        };
        if let Some(settled) = self.lock().settled() {
            return settled;
        }
        let asked = tokio::spawn(Arc::clone(self).settle(turn, ask(), remind));
        match asked.await {
            Ok(settled) => settled,
            Err(error) => {
                tracing::error!(%error, "a token was asked for in vain");
                Err(Arc::new(TokenError::Abandoned))
            }
        }
    }

    /// Keeps what comes of `asking`, whose turn ends with it.
    async fn settle(
        self: Arc<Self>,
        turn: OwnedMutexGuard<()>,
        asking: impl Future<Output = Result<Token, TokenError>>,
        remind: impl FnOnce(),
    ) -> Result<Arc<SecretValue>, Arc<TokenError>> {
        let given = asking.await;
        let settled = match given {
            Ok(token) => {
                let value = Arc::clone(&token.value);
                self.lock().coming = Some(Arc::clone(&value));
                remind();
                *self.lock() = State {
                    token: Some(token),
                    ..State::default()
                };
                Ok(value)
            }
            Err(error) => {
                tracing::warn!(%error, "a credential is exchanged for tokens");
                let error = Arc::new(error);
                let mut state = self.lock();
                state.failure = Some((Instant::now(), Arc::clone(&error)));
                state.valid().map(|token| token.value).ok_or(error)
            }
        };
        drop(turn);
        settled
    }

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

    /// The token is to be renewed, if it has been in use for a while.
    fn doubt(&mut self) {
        if let Some(token) = &mut self.token
            && token.asked.elapsed() >= DOUBTED_AGE
        {
            token.renew = token.asked;
        }
    }

    /// What the one before has found out.
    fn settled(&self) -> Option<Result<Arc<SecretValue>, Arc<TokenError>>> {
        if let Some(token) = self.fresh() {
            return Some(Ok(token.value));
        }
        self.lately_failed().map(|error| match self.valid() {
            Some(token) => Ok(token.value),
            None => Err(error),
        })
    }

    /// Why the endpoint is left alone.
    fn lately_failed(&self) -> Option<Arc<TokenError>> {
        let (at, error) = self.failure.as_ref()?;
        (at.elapsed() < FAILURE_LIFE).then(|| Arc::clone(error))
    }

    /// Would anything be lost with it?
    fn is_of_use(&self) -> bool {
        self.valid().is_some() || self.lately_failed().is_some()
    }
}

/// What the endpoint answers (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Answer {
    access_token: Zeroizing<String>,
    token_type: String,
    expires_in: Option<Life>,
}

/// Seconds; some servers write them as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Life {
    Number(u64),
    Text(String),
}

fn token(answer: &[u8], asked: Instant) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let text = answer.access_token.as_bytes();
    // What is longer could not be kept out of a response.
    let is_token = (1..=MAX_SECRET).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    let life = match answer.expires_in {
        None => DEFAULT_LIFE,
        Some(Life::Number(seconds)) => Duration::from_secs(seconds),
        Some(Life::Text(seconds)) => Duration::from_secs(seconds.parse().ok()?),
    };
    let life = life.min(MAX_LIFE);
    let usable = is_token && !life.is_zero() && answer.token_type.eq_ignore_ascii_case("bearer");
    usable.then(|| Token {
        value: Arc::new(SecretValue::kept(text)),
        asked,
        renew: asked + life.saturating_sub(EARLY).max(life / 2),
        expires: asked + life,
    })
}

/// The OAuth error (RFC 6749 §5.2), if it is a known one.
fn error_code(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Failure {
        error: String,
    }
    let failure: Option<Failure> = serde_json::from_slice(answer).ok();
    let code = failure.filter(|failure| ERRORS.contains(&failure.error.as_str()));
    code.map_or_else(String::new, |failure| format!(" ({})", failure.error))
}

#[cfg(test)]
mod tests;
