//! The life of tokens, and who shares them; the exchange itself has end-to-end suites.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::policy::{ClientAuthMethod, OAuth2Client};

#[test]
fn a_token_is_renewed_early_and_used_to_its_end() {
    let asked = Instant::now();
    let life = |text: &str| {
        let token = token(text.as_bytes(), asked)?;
        assert_eq!(token.asked, asked);
        Some((
            (token.renew - asked).as_secs(),
            (token.expires - asked).as_secs(),
        ))
    };
    let answer = |life: &str| {
        format!(r#"{{"access_token": "ya29.x", "token_type": "Bearer", "expires_in": {life}}}"#)
    };
    assert_eq!(life(&answer("3599")), Some((3299, 3599)));
    assert_eq!(life(&answer("60")), Some((30, 60)));
    assert_eq!(life(&answer("99999999")), Some((42900, 43200)));
    assert_eq!(life(&answer("\"3599\"")), Some((3299, 3599)));
    assert_eq!(life(&answer("null")), Some((150, 300)));
    let silent = r#"{"access_token": "x", "token_type": "bearer"}"#;
    assert_eq!(life(silent), Some((150, 300)));
    assert_eq!(life(&answer("0")), None);
    assert_eq!(life(&answer("\"soon\"")), None);
    assert_eq!(life(&answer("-1")), None);
    assert_eq!(life(&answer("60").replace("ya29.x", "a b")), None);
    assert_eq!(life(&answer("60").replace("Bearer", "mac")), None);
    assert_eq!(life("{}"), None);
    let of_length = |length: usize| answer("60").replace("ya29.x", &"x".repeat(length));
    assert_eq!(life(&of_length(MAX_SECRET)), Some((30, 60)));
    assert_eq!(life(&of_length(MAX_SECRET + 1)), None);
}

#[test]
fn a_token_that_is_refused_is_renewed_once_it_has_been_in_use_and_used_meanwhile() {
    let answer = br#"{"access_token": "x", "token_type": "Bearer", "expires_in": 3600}"#;
    let given = |ago: Duration| {
        let mut state = State {
            token: token(answer, Instant::now() - ago),
            ..State::default()
        };
        state.doubt();
        (state.fresh().is_some(), state.valid().is_some())
    };
    assert_eq!(given(Duration::ZERO), (true, true));
    assert_eq!(given(DOUBTED_AGE), (false, true));
    assert_eq!(given(Duration::from_secs(3600)), (false, false));
}

#[test]
fn the_endpoint_s_error_is_told_if_it_is_a_known_one() {
    let code = |word: &str| error_code(serde_json::json!({ "error": word }).to_string().as_bytes());
    assert_eq!(code("invalid_grant"), " (invalid_grant)");
    // It could be the secret itself.
    assert_eq!(code("some_words_that_are_a_secret"), "");
    assert_eq!(code("<b>secret</b>"), "");
    assert_eq!(error_code(b"oops"), "");
}

#[test]
fn nothing_that_a_token_is_asked_with_may_change_without_another_account() {
    let of = |key: &str| SecretRef {
        name: "s".into(),
        key: key.into(),
    };
    let client =
        |url: &str, method, scopes: &[&str], audience: Option<&str>, resource: Option<&str>| {
            OAuth2Client {
                endpoint: TokenUrl::parse(url).unwrap(),
                id: of("client_id"),
                secret: of("client_secret"),
                method,
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
                audience: audience.map(Into::into),
                resource: resource.map(Into::into),
            }
        };
    let (basic, post) = (ClientAuthMethod::Basic, ClientAuthMethod::Post);
    let account = |client: &OAuth2Client, id: &str, secret: &str| {
        Grant::Client(client::Grant {
            client,
            id: Arc::new(SecretValue::new(id.into())),
            secret: Arc::new(SecretValue::new(secret.into())),
        })
        .account()
    };
    let url = "https://a.example/t";
    let first = client(url, basic, &["a", "b"], None, None);
    let mut accounts = vec![
        account(&first, "i", "s"),
        account(&first, "is", ""),
        account(&first, "i", "t"),
        account(&first, "j", "s"),
    ];
    for other in [
        client("https://b.example/t", basic, &["a", "b"], None, None),
        client("https://a.example:1/t", basic, &["a", "b"], None, None),
        client("https://a.example/u", basic, &["a", "b"], None, None),
        client(url, post, &["a", "b"], None, None),
        client(url, basic, &["ab"], None, None),
        client(url, basic, &["a", "b"], Some("x"), None),
        client(url, basic, &["a", "b"], None, Some("x")),
    ] {
        accounts.push(account(&other, "i", "s"));
    }
    for (at, one) in accounts.iter().enumerate() {
        assert!(!accounts[..at].contains(one), "{at}");
    }
    assert!(accounts[0] == account(&first, "i", "s"));
}

/// An endpoint that answers when it is told to, and counts.
#[derive(Default)]
struct Endpoint {
    asked: std::cell::Cell<usize>,
    answers: Arc<tokio::sync::Notify>,
}

impl Endpoint {
    fn ask(
        &self,
        answer: Option<&'static [u8]>,
    ) -> impl Future<Output = Result<Token, TokenError>> + use<> {
        self.asked.set(self.asked.get() + 1);
        let answers = Arc::clone(&self.answers);
        async move {
            answers.notified().await;
            let given = answer.and_then(|answer| token(answer, Instant::now()));
            given.ok_or_else(|| TokenError::NoToken {
                host: Host::parse("login.example").unwrap(),
            })
        }
    }
}

#[tokio::test]
async fn what_was_asked_is_kept_though_who_asked_has_left() {
    let answer: &[u8] = br#"{"access_token": "x", "token_type": "Bearer", "expires_in": 3600}"#;
    for answer in [Some(answer), None] {
        let slot = Arc::new(Slot::default());
        let endpoint = Endpoint::default();
        let (remind, reminded) = std::sync::mpsc::channel();
        for _ in 0..10 {
            let remind = remind.clone();
            let ask = || endpoint.ask(answer);
            let mut getting = Box::pin(slot.get(ask, move || remind.send(()).unwrap()));
            assert!(futures_util::poll!(&mut getting).is_pending());
            drop(getting);
            tokio::task::yield_now().await;
        }
        endpoint.answers.notify_one();
        let last = slot.get(|| endpoint.ask(answer), || ()).await;
        assert_eq!(endpoint.asked.get(), 1, "{answer:?}");
        assert_eq!(last.is_ok(), answer.is_some());
        assert_eq!(reminded.try_recv().is_ok(), answer.is_some());
        assert!(slot.lock().is_of_use());
    }
}
