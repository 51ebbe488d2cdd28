//! What a request under way spends of a token budget: a stream is held back until what it brings is covered, and cut off
//! where it is not; at its end what was reserved becomes what was used. Knows neither rules nor where budgets are kept.

use crate::budget::{Bound, Exceeded, Refusal, Reservation};
use crate::outcome::{DenyReason, UpstreamError};
use crate::policy::TokenBudget;
use crate::provider::{Operation, ResponseTap, Usage, end_of_stream};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of output text that are taken for one token until the provider counts, where nothing else bounds the output.
/// English has 4 to 5, code 3 to 4.
const BYTES_PER_TOKEN: u64 = 4;
/// The same where the request sets a bound, which the provider keeps: indented code has 10 and more, and an answer within
/// its bound must not be cut off.
const BYTES_PER_TOKEN_BOUNDED: u64 = 16;

/// One request's tokens.
pub(super) struct Spending {
    /// `None` if the rule bounds each request and nothing else.
    reservation: Option<Reservation>,
    budget: Arc<TokenBudget>,
    operation: Operation,
    /// Input tokens, estimated.
    input: u64,
    /// The request bounds its own output.
    declared: bool,
    /// How to end the stream so that its client says why: the content type.
    ending: Option<String>,
}

/// A stream that is over because its tokens are.
pub(super) struct Cut {
    pub(super) reason: DenyReason,
    /// The end of the stream in the provider's words.
    pub(super) last: Option<Bytes>,
}

impl Spending {
    pub(super) fn new(
        reservation: Option<Reservation>,
        budget: Arc<TokenBudget>,
        operation: Operation,
        input: u64,
        declared: bool,
    ) -> Self {
        Self {
            reservation,
            budget,
            operation,
            input,
            declared,
            ending: None,
        }
    }

    /// Looks at the head of the response.
    pub(super) fn answered(&mut self, headers: &HeaderMap) {
        // Words of our own fit into a stream that is neither compressed nor measured.
        let plain =
            !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(CONTENT_ENCODING);
        let kind = headers.get(CONTENT_TYPE).filter(|_| plain);
        self.ending = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    }

    /// Ready when what has come so far is covered, or with the end of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tap: Option<&ResponseTap>,
        bytes: u64,
    ) -> Poll<Option<Cut>> {
        // What has come in one piece is spent: it is charged at the end.
        if tap.is_some_and(|tap| !tap.is_stream()) {
            return Poll::Ready(None);
        }
        let each = if self.declared {
            BYTES_PER_TOKEN_BOUNDED
        } else {
            BYTES_PER_TOKEN
        };
        // What cannot be read is all taken for output.
        let output = tap.map_or(bytes / each, |tap| tap.output_so_far(each));
        let limit = self.budget.max_output_tokens_per_request;
        if let Some(limit) = limit.filter(|limit| output > *limit) {
            let exceeded = Exceeded {
                route: Arc::clone(&self.budget.route),
                bound: Bound::Output,
                limit,
                used: 0,
                asked: output,
                resets_at: None,
            };
            return Poll::Ready(Some(self.cut(Refusal::Exceeded(exceeded))));
        }
        let Some(reservation) = &mut self.reservation else {
            return Poll::Ready(None);
        };
        let input = tap.and_then(ResponseTap::input_so_far).unwrap_or_default();
        let tokens = input.max(self.input).saturating_add(output);
        match reservation.poll_cover(cx, tokens) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(refusal)) => Poll::Ready(Some(self.cut(refusal))),
        }
    }

    fn cut(&self, refusal: Refusal) -> Cut {
        let reason = match refusal {
            Refusal::Exceeded(_) => DenyReason::BudgetExceeded,
            Refusal::Unavailable => DenyReason::BudgetUnavailable,
        };
        let message = format!("cut off by the egress gateway: {refusal}");
        let last = self.ending.as_deref();
        let last = last.and_then(|kind| end_of_stream(&self.operation, kind, &message));
        Cut {
            reason,
            last: last.map(Bytes::from),
        }
    }

    /// The response is through. What it says it cost replaces what was reserved; an answer that does not say counts as
    /// reserved, since it may have cost that; one that does not serve the request cost nothing.
    pub(super) fn settle(self, status: Option<u16>, usage: &Usage, is_final: bool) {
        let Some(reservation) = self.reservation else {
            return;
        };
        match (usage.total_tokens, status) {
            (Some(total), _) if is_final => reservation.settle(total),
            // A timeout says nothing of what went on behind it.
            (_, Some(408 | 504 | 524)) => {}
            (None, Some(300..)) => reservation.settle(0),
            (total, _) => {
                let least = total.unwrap_or_default().max(reservation.tokens());
                reservation.settle(least);
            }
        }
    }

    /// Nothing was sent.
    pub(super) fn unsent(self) {
        if let Some(reservation) = self.reservation {
            reservation.settle(0);
        }
    }

    /// There was no response.
    pub(super) fn failed(self, error: &UpstreamError) {
        let nothing_sent = matches!(
            error,
            UpstreamError::Resolve { .. }
                | UpstreamError::Guarded { .. }
                | UpstreamError::Connect { .. }
                | UpstreamError::Tls { .. }
        );
        if nothing_sent {
            self.unsent();
        }
    }
}
