//! What a request under way spends of a token budget: a stream is held back until what it brings is covered, and cut off
//! where it is not; at its end what was reserved becomes what was used. Knows neither rules nor where budgets are kept.

use crate::budget::{Bound, Exceeded, Refusal, Reservation};
use crate::outcome::{DenyReason, UpstreamError};
use crate::policy::TokenBudget;
use crate::provider::{Operation, ResponseTap, end_of_stream};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes of output text that are taken for one token until the provider counts, where nothing else bounds the output.
/// English has 4 to 5, code 3 to 4.
const BYTES_PER_TOKEN: u64 = 4;
/// The same where the request sets a bound, which the provider keeps: indented code has 10 and more, and an answer within
/// its bound must not be cut off.
const BYTES_PER_TOKEN_BOUNDED: u64 = 16;
/// The longest body of an error that costs nothing, bytes. Explanations have a few hundred; what a model has written and the
/// provider would not have (Groq's `failed_generation`) has more.
const FREE_ERROR: u64 = 4096;
/// How long after its head an answer holds more than it needs. One in one piece has its head when it is done, mostly: who
/// takes it byte by byte must not keep others from what is left. Less than they wait for it, which is a minute.
const HOLD: Duration = Duration::from_secs(30);

/// One request's tokens.
pub(super) struct Spending {
    /// `None` if the rule bounds each request and nothing else.
    reservation: Option<Reservation>,
    budget: Arc<TokenBudget>,
    operation: Operation,
    asked: Asked,
    /// The response's status.
    status: Option<StatusCode>,
    /// How to end the stream so that its client says why: the content type.
    ending: Option<String>,
    /// [`HOLD`]
    hold: Duration,
}

/// What is known of a request's tokens before it is sent.
pub(super) struct Asked {
    /// Input, estimated.
    pub(super) input: u64,
    /// What it takes at least, its output included; more may be reserved.
    pub(super) least: u64,
    /// The request bounds its own output.
    pub(super) declared: bool,
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
        asked: Asked,
    ) -> Self {
        Self {
            reservation,
            budget,
            operation,
            asked,
            status: None,
            ending: None,
            hold: HOLD,
        }
    }

    /// Looks at the head of the response; what it may not need it holds no longer than a while from here.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        if let Some(reservation) = &self.reservation {
            reservation.give_back_after(self.hold, self.asked.least);
        }
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
        if self.is_bounded(tap) {
            return Poll::Ready(None);
        }
        let output = self.output(tap, bytes);
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
        let tokens = self.input(tap).saturating_add(output);
        let Some(reservation) = &mut self.reservation else {
            return Poll::Ready(None);
        };
        match reservation.poll_cover(cx, tokens) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(refusal)) => Poll::Ready(Some(self.cut(refusal))),
        }
    }

    /// Is there nothing to cut? What has come in one piece within the request's own bound is charged at its end, and an
    /// error is no output.
    fn is_bounded(&self, tap: Option<&ResponseTap>) -> bool {
        let is_error = self.status.is_some_and(|status| !status.is_success());
        match tap {
            Some(tap) if tap.is_stream() => false,
            Some(_) => self.asked.declared || is_error,
            None => is_error,
        }
    }

    /// Output so far, of which what cannot be read is all.
    fn output(&self, tap: Option<&ResponseTap>, bytes: u64) -> u64 {
        let each = if self.asked.declared {
            BYTES_PER_TOKEN_BOUNDED
        } else {
            BYTES_PER_TOKEN
        };
        tap.map_or(bytes / each, |tap| tap.output_so_far(each))
    }

    fn input(&self, tap: Option<&ResponseTap>) -> u64 {
        let counted = tap.and_then(ResponseTap::input_so_far);
        self.asked.input.max(counted.unwrap_or_default())
    }

    /// What an error cost that does not say.
    fn error(&self, tap: Option<&ResponseTap>, bytes: u64) -> u64 {
        // Without its coding, where that can be undone.
        let length = tap.map_or(bytes, |tap| tap.output_so_far(1).max(bytes));
        if length > FREE_ERROR {
            self.asked.input.saturating_add(length / BYTES_PER_TOKEN)
        } else {
            0
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

    /// The response is through: `whole`, or cut off. What it says it cost replaces what was reserved; an answer that does
    /// not say counts as reserved, since it may have cost that, unless all of it was seen; one that does not serve the
    /// request cost nothing, unless it is so long that it may show what it cost. `bytes` have gone to the client.
    pub(super) fn settle(mut self, tap: Option<&ResponseTap>, bytes: u64, whole: bool) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let total = tap.and_then(ResponseTap::total_so_far);
        let is_final = whole && tap.is_some_and(ResponseTap::is_final);
        let shown = tap.and_then(ResponseTap::estimated_output);
        match (total, self.status.map(|status| status.as_u16()), shown) {
            (Some(total), ..) if is_final => reservation.settle(total),
            // A timeout says nothing of what went on behind it.
            (_, Some(408 | 504 | 524), _) => {
                reservation.settle(self.asked.least.max(total.unwrap_or_default()));
            }
            (None, Some(300..), _) => {
                let used = self.error(tap, bytes).min(reservation.most());
                reservation.settle(used);
            }
            (_, _, Some(output)) if whole => {
                reservation.settle(self.asked.input.saturating_add(output));
            }
            (total, ..) => {
                let seen = self.input(tap).saturating_add(self.output(tap, bytes));
                let least = reservation.most().max(seen);
                reservation.settle(least.max(total.unwrap_or_default()));
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
        match error {
            UpstreamError::Resolve { .. }
            | UpstreamError::Guarded { .. }
            | UpstreamError::Rationed { .. }
            | UpstreamError::Connect { .. }
            | UpstreamError::Tls { .. } => self.unsent(),
            // No sandbox brings that about.
            UpstreamError::Http { .. } => {
                if let Some(reservation) = self.reservation {
                    reservation.settle(self.asked.least);
                }
            }
            // Whatever took so long may have cost all of it.
            UpstreamError::Timeout { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
