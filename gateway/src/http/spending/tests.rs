//! What a request's tokens come to in the accounts, whole and cut off. Knows nothing of how answers travel.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::budget::{Budgets, Meter, execution};
use crate::policy::Provider;
use crate::provider::operation;
use std::future::poll_fn;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

/// One call under a budget of a day, and what has come of its answer.
struct Call {
    _folder: tempfile::TempDir,
    meter: Meter,
    budget: Arc<TokenBudget>,
    spending: Spending,
    tap: ResponseTap,
    bytes: u64,
}

struct Asks {
    provider: Provider,
    path: &'static str,
    /// Of the day, and of the output.
    limits: (u64, Option<u64>),
    /// Its reservation: at least and at most.
    tokens: (u64, u64),
    declared: bool,
    status: u16,
    kind: &'static str,
    hold: Duration,
}

const CHAT: Asks = Asks {
    provider: Provider::OpenAi,
    path: "/v1/chat/completions",
    limits: (10_000, None),
    tokens: (4100, 131_000),
    declared: false,
    status: 200,
    kind: JSON,
    hold: LONG,
};

impl Call {
    async fn begin(asks: Asks) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let budgets = Arc::new(Budgets::new(folder.path()).unwrap());
        let meter = Meter::new(budgets, execution(7, 1));
        let budget = Arc::new(TokenBudget {
            route: "ai#1".into(),
            max_tokens_per_day: Some(asks.limits.0),
            max_tokens_per_execution: None,
            max_output_tokens_per_request: asks.limits.1,
        });
        let (least, most) = asks.tokens;
        let reservation = meter
            .reserve("g", &budget, least..=most, NOW)
            .await
            .unwrap();
        let operation = operation(asks.provider, asks.path).unwrap();
        let tap = ResponseTap::new(&operation, Some(asks.kind), None).unwrap();
        let asked = Asked {
            input: 4,
            least,
            declared: asks.declared,
        };
        let mut spending = Spending::new(Some(reservation), Arc::clone(&budget), operation, asked);
        spending.hold = asks.hold;
        let status = StatusCode::from_u16(asks.status).unwrap();
        spending.answered(status, &HeaderMap::new());
        Self {
            _folder: folder,
            meter,
            budget,
            spending,
            tap,
            bytes: 0,
        }
    }

    /// More of the answer comes; says whether it is the last.
    async fn is_cut_after(&mut self, data: &str) -> bool {
        self.tap.feed(data.as_bytes());
        self.bytes += data.len() as u64;
        let polled = poll_fn(|cx| self.spending.poll(cx, Some(&self.tap), self.bytes));
        polled.await.is_some()
    }

    /// What the accounts have after it.
    async fn settled(self, whole: bool) -> u64 {
        self.spending.settle(Some(&self.tap), self.bytes, whole);
        let refused = self
            .meter
            .reserve("g", &self.budget, u64::MAX..=u64::MAX, NOW);
        match refused.await.err().unwrap() {
            Refusal::Exceeded(exceeded) => exceeded.used,
            Refusal::Unavailable => panic!("unavailable"),
        }
    }
}

fn answer(bytes: usize) -> String {
    let start = r#"{"model":"gpt-4o","choices":[{"message":{"content":""#;
    format!("{start}{}", "x".repeat(bytes - start.len()))
}

const USAGE: &str = r#""}}],"usage":{"prompt_tokens":3,"completion_tokens":20}}"#;

#[tokio::test]
async fn an_answer_in_one_piece_that_nothing_bounds_is_cut_where_the_budget_ends() {
    let mut call = Call::begin(CHAT).await;
    assert_eq!(call.spending.reservation.as_ref().unwrap().tokens(), 10_000);
    assert!(!call.is_cut_after(&answer(39_980)).await);
    assert!(call.is_cut_after(&"x".repeat(20)).await);
    assert_eq!(call.settled(false).await, 10_004);

    // The request's own limit as well, of a server that does not stream though it was asked to.
    let mut call = Call::begin(Asks {
        limits: (10_000, Some(100)),
        tokens: (104, 104),
        ..CHAT
    })
    .await;
    assert!(!call.is_cut_after(&answer(400)).await);
    assert!(call.is_cut_after("xxxx").await);
}

#[tokio::test]
async fn what_the_provider_counted_is_what_is_charged_in_the_end() {
    let mut call = Call::begin(CHAT).await;
    assert!(!call.is_cut_after(&answer(30_000)).await);
    assert!(!call.is_cut_after(USAGE).await);
    assert_eq!(call.settled(true).await, 23);
}

#[tokio::test]
async fn an_answer_within_the_bound_of_its_request_is_never_cut_nor_is_an_error() {
    let mut call = Call::begin(Asks {
        tokens: (10, 10),
        declared: true,
        ..CHAT
    })
    .await;
    assert!(!call.is_cut_after(&answer(400_000)).await);
    // Left before it said what it cost: what was seen is charged, at the bytes of a bounded token.
    assert_eq!(call.settled(false).await, 4 + 25_000);

    let mut call = Call::begin(Asks {
        limits: (10_000, Some(5)),
        tokens: (9, 9),
        status: 400,
        ..CHAT
    })
    .await;
    assert!(!call.is_cut_after(&answer(400)).await);
    assert_eq!(call.settled(true).await, 0);
}

#[tokio::test]
async fn who_leaves_before_the_count_has_spent_what_was_reserved_or_more() {
    let mut call = Call::begin(Asks {
        limits: (100_000, None),
        ..CHAT
    })
    .await;
    assert!(!call.is_cut_after(&answer(4000)).await);
    assert_eq!(call.settled(false).await, 100_000);
    let mut call = Call::begin(Asks {
        tokens: (10, 10),
        ..CHAT
    })
    .await;
    call.tap.feed(answer(4000).as_bytes());
    assert_eq!(call.settled(false).await, 1004);
    // A gateway on the way gave up: no sandbox's doing.
    let call = Call::begin(Asks {
        status: 504,
        ..CHAT
    })
    .await;
    assert_eq!(call.settled(true).await, 4100);
}

#[tokio::test]
async fn an_array_of_google_s_is_cut_as_the_stream_it_is() {
    let mut call = Call::begin(Asks {
        provider: Provider::Google,
        path: "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        limits: (10_000, Some(100)),
        tokens: (104, 104),
        ..CHAT
    })
    .await;
    let piece =
        r#"{"candidates":[{"content":{"parts":[{"text":"four"}]}}],"more":"that is no output"}"#;
    assert!(!call.is_cut_after("[").await);
    for _ in 0..100 {
        assert!(!call.is_cut_after(&format!("{piece},")).await);
    }
    assert!(call.is_cut_after(piece).await);
}

#[tokio::test]
async fn a_stream_without_a_count_is_settled_by_what_it_showed_unless_its_model_hides_some() {
    for (model, whole, charged) in [
        ("gpt-4o-mini", true, 4 + 60),
        ("gpt-4o-mini", false, 4100),
        ("o3-mini", true, 4100),
    ] {
        let mut call = Call::begin(Asks {
            tokens: (4100, 4100),
            kind: EVENTS,
            ..CHAT
        })
        .await;
        let event = format!(
            "data: {{\"model\":\"{model}\",\"choices\":[{{\"delta\":{{\"content\":\"six by\"}}}}]}}\n\n"
        );
        for _ in 0..30 {
            assert!(!call.is_cut_after(&event).await);
        }
        let end =
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        assert!(!call.is_cut_after(end).await);
        assert_eq!(call.settled(whole).await, charged, "{model}");
    }
}

#[tokio::test]
async fn an_error_is_free_unless_it_is_long_and_never_more_than_was_reserved() {
    for (declared, tokens, bytes, charged) in [
        (false, (4100, 131_000), 4096, 0),
        (false, (4100, 131_000), 8000, 4 + 2000),
        (true, (904, 904), 3000, 0),
        (true, (904, 904), 8000, 904),
    ] {
        let mut call = Call::begin(Asks {
            tokens,
            declared,
            status: 400,
            ..CHAT
        })
        .await;
        let start = r#"{"error":{"code":"json_validate_failed","failed_generation":""#;
        assert!(!call.is_cut_after(start).await);
        let rest = "x".repeat(bytes - start.len());
        assert!(!call.is_cut_after(&rest).await);
        assert_eq!(call.settled(true).await, charged, "{bytes} of {tokens:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_holds_what_it_does_not_need_for_a_while_only() {
    for status in [200, 400] {
        let mut call = Call::begin(Asks {
            hold: Duration::from_millis(50),
            limits: (10_000, None),
            status,
            ..CHAT
        })
        .await;
        // 1000 tokens have come, of which an error has none, and 4100 stay held.
        assert!(!call.is_cut_after(&answer(4000)).await);
        let free = if status == 200 { 4896 } else { 5900 };
        let other = call.meter.reserve("g", &call.budget, free..=free, LONG);
        let other = tokio::time::timeout(Duration::from_secs(20), other).await;
        let other = other.expect("it is given back").unwrap();
        let more = call.meter.reserve("g", &call.budget, 1..=1, NOW).await;
        assert!(more.is_err(), "and nothing else is");
        if status == 200 {
            // From now on it is covered as it comes.
            assert!(!call.is_cut_after(&"x".repeat(16_000)).await);
            assert!(call.is_cut_after(&"x".repeat(1000)).await);
            other.settle(0);
            // It did not say what it cost, and may have cost all that it once had.
            assert_eq!(call.settled(false).await, 10_000);
        }
    }
}
