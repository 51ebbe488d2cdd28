//! What must be known of a request before it may be sent: the model it asks for, the tokens it may take, what its signature
//! covers. The body is held for that, once, and then sent on as it came. Decides nothing about rules, and sends nothing.

use super::capture::text;
use super::held::{Bounds, Held};
use super::overrides;
use super::problem::Refused;
use super::spending::{Asked, Spending};
use crate::budget::{Bound, Exceeded, Refusal};
use crate::inject::{Late, MAX_SIGNED_BODY};
use crate::live::View;
use crate::outcome::DenyReason;
use crate::outcome::hyper_error::Error;
use crate::policy::{Provider, RequestPermit, TokenBudget};
use crate::provider::{
    Naming, Operation, RequestTap, asks_for_no_work, naming, operation, says_all,
};
use crate::telemetry::RequestRecord;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest body that is held, bytes. Requests of a hundred thousand tokens have half a MiB; those with several
/// images may have more, and go through where no rule asks for their model or their tokens.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Bytes of a body that are taken for one token before the provider counts. English has 4 to 5, code 3 to 4, most other
/// languages 3: the estimate is rather too high. What it misses is charged afterwards.
const BYTES_PER_TOKEN: u64 = 3;
/// The output that is reserved at least for a request that sets no bound, tokens; a stream that goes beyond it is charged
/// on.
const DEFAULT_OUTPUT: u64 = 4096;
/// The most that an answer in one piece may take where nothing bounds it, tokens: it has been spent when it comes. The
/// longest that OpenAI's gpt-5 and Anthropic's Claude give is 128,000.
const LONGEST_OUTPUT: u64 = 128 * 1024;
/// What input that is elsewhere (a file, an earlier answer) is taken for until the provider counts, tokens each; and what
/// is held for it if there is so much.
const REMOTE_INPUT: u64 = 4096;
const LONGEST_REMOTE_INPUT: u64 = 128 * 1024;

/// How long a request waits for tokens that others hold and may not need: most calls are over by then, and no client
/// has given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is let arrive of a body that nobody wants: an answer is known to its client by then, and a longer body is worth
/// being stopped.
const UNWANTED: u64 = 64 * 1024;
const UNWANTED_WITHIN: Duration = Duration::from_secs(2);

/// A request's body: still at the client, or held.
pub(super) enum Asking {
    /// Unread.
    Client(Incoming),
    /// Read.
    Held(Held),
    /// Read, and known what it asks for.
    Known(Held, Box<RequestTap>),
}

impl Asking {
    /// The model that a request to a rule for certain models asks for; `None` if it names none.
    pub(super) async fn model(
        &mut self,
        provider: Provider,
        view: &View,
        parts: &Parts,
    ) -> Result<Option<String>, Refused> {
        if let Naming::Path(model) = naming(provider, parts.uri.path()) {
            return Ok(model);
        }
        let tap = self.know(view, parts).await?;
        if tap.models() > 1 {
            return Err(unclear("the body names its model more than once"));
        }
        Ok(tap.model().map(str::to_owned))
    }

    /// Reserves what the request may take, if a token budget applies to it.
    pub(super) async fn reserve(
        &mut self,
        permit: &RequestPermit,
        view: &View,
        parts: &mut Parts,
        upgrade: bool,
    ) -> Result<Option<Spending>, Refused> {
        let (Some(budget), Some(provider)) = (permit.budget(), permit.provider()) else {
            return Ok(None);
        };
        if !upgrade && is_harmless(parts) {
            return Ok(None);
        }
        let Some(operation) = operation(provider, parts.uri.path()).filter(|_| !upgrade) else {
            return Err(DenyReason::NotMetered.into());
        };
        if !operation.spends() {
            return Ok(None);
        }
        let tap = self.know(view, parts).await?;
        let remote = tap.remote_inputs();
        let input = tap.length().div_ceil(BYTES_PER_TOKEN);
        let input = input.saturating_add(remote.saturating_mul(REMOTE_INPUT));
        let output = output(tap, &operation, budget)?;
        let least = input.saturating_add(output.least);
        let unseen = remote.saturating_mul(LONGEST_REMOTE_INPUT);
        let bounded =
            budget.max_tokens_per_day.is_some() || budget.max_tokens_per_execution.is_some();
        let reservation = if bounded {
            let gateway = &view.gateway.name;
            let most = input.saturating_add(output.most).saturating_add(unseen);
            let tokens = least..=most;
            let patience = PATIENCE.min(view.gateway.request_timeout);
            let reserved = view.meter.reserve(gateway, budget, tokens, patience).await;
            Some(reserved.map_err(|refusal| output.refused(refusal))?)
        } else {
            None
        };
        understandable(&mut parts.headers);
        Ok(Some(Spending::new(
            reservation,
            Arc::clone(budget),
            operation,
            Asked {
                input,
                least,
                declared: output.declared,
            },
        )))
    }

    /// Adds the body to what is to be signed, where the signature covers it. Trailers are no part of that, and end here.
    pub(super) async fn cover(&mut self, late: &mut Late, view: &View) -> Result<(), Refused> {
        if !late.covers_body() {
            return Ok(());
        }
        if let Self::Client(body) = self {
            let held = Held::read(body, bounds(view, MAX_SIGNED_BODY), |_| ()).await?;
            *self = Self::Held(held);
        }
        if let Self::Held(held) | Self::Known(held, _) = self {
            held.drop_trailers();
            late.cover(held.pieces());
        }
        Ok(())
    }

    /// Puts the model on record that the body names, if it was read for that; where the path names one, it counts.
    pub(super) fn name_model(&self, record: &mut RequestRecord) {
        if let Self::Known(_, tap) = self
            && record.model.is_none()
            && tap.models() == 1
        {
            record.model = tap.model().map(str::to_owned);
        }
    }

    /// Reads for a moment what the client of a refused request still sends. An HTTP/2 stream that is answered, and whose
    /// body nobody reads, is reset (RFC 9113 §8.1); a client that is just about to send a short body may take that, and
    /// not the answer, for what came of its request (curl 7.88 does).
    pub(super) fn let_arrive(self, version: Version) {
        let Self::Client(mut body) = self else { return };
        // Over HTTP/1 the connection's own guard reads on.
        if version != Version::HTTP_2 || body.is_end_stream() || body.size_hint().lower() > UNWANTED
        {
            return;
        }
        let rest = async move {
            let mut left = UNWANTED;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(length) {
                    Some(less) => left = less,
                    None => break,
                }
            }
        };
        tokio::spawn(tokio::time::timeout(UNWANTED_WITHIN, rest));
    }

    /// Reads the body to its end, and what it asks for.
    async fn know(&mut self, view: &View, parts: &Parts) -> Result<&RequestTap, Refused> {
        if let Self::Client(body) = self {
            if !is_in_utf8(&parts.headers) {
                return Err(unclear(
                    "its charset is not UTF-8, which JSON is in (RFC 8259)",
                ));
            }
            if parts.headers.get_all(CONTENT_ENCODING).iter().count() > 1 {
                return Err(unclear("it has several fields Content-Encoding"));
            }
            let encoding = text(&parts.headers, &CONTENT_ENCODING);
            let Some(mut tap) = RequestTap::new(encoding.as_deref()) else {
                return Err(unclear("its Content-Encoding cannot be undone"));
            };
            let held = Held::read(body, bounds(view, MAX_BODY), |data| tap.feed(data)).await?;
            if held.left() > 0 && !tap.is_whole() {
                return Err(DenyReason::BodyUnclear.into());
            }
            *self = Self::Known(held, Box::new(tap));
        }
        match self {
            Self::Known(_, tap) => Ok(tap),
            // Signatures come last.
            Self::Client(_) | Self::Held(_) => Err(DenyReason::BodyUnclear.into()),
        }
    }
}

fn bounds(view: &View, longest: usize) -> Bounds<'_> {
    Bounds {
        longest,
        memory: &view.bodies,
        patience: view.gateway.request_timeout,
    }
}

/// The output to reserve, tokens.
struct Output {
    /// Without so much it is refused.
    least: u64,
    /// So much if it is left: two answers that nothing bounds must not count on the same tokens.
    most: u64,
    /// The request itself bounds it.
    declared: bool,
}

impl Output {
    fn refused(&self, refusal: Refusal) -> Refused {
        let mut refused = Refused::from(refusal);
        if let Some(detail) = refused.detail.as_mut().filter(|_| !self.declared) {
            detail.push_str(&format!(
                "; it sets no bound on its output, as max_tokens does: such a call needs at least {DEFAULT_OUTPUT} \
                 tokens for it, and holds what is left of it meanwhile",
            ));
        }
        refused
    }
}

fn output(
    tap: &RequestTap,
    operation: &Operation,
    budget: &Arc<TokenBudget>,
) -> Result<Output, Refused> {
    let bounded = |tokens| Output {
        least: tokens,
        most: tokens,
        declared: true,
    };
    if !operation.has_output() {
        return Ok(bounded(0));
    }
    let declared = tap.declared_output(operation);
    let declared = declared.map_err(|error| unclear(&error.to_string()))?;
    let streams = operation.streams(tap.stream());
    if declared.is_none() && tap.is_in_background() {
        let detail = "an answer that is made in the background must have a bound on its output, as max_output_tokens is";
        return Err(Refused::saying(DenyReason::NotMetered, detail));
    }
    // What such a model thinks unseen is counted when it is too late to cut.
    let is_seen = streams && tap.model().is_some_and(says_all);
    match (declared, budget.max_output_tokens_per_request) {
        (Some(asked), Some(limit)) if asked > limit => Err(too_much(budget, limit, asked, None)),
        (Some(asked), _) => Ok(bounded(asked)),
        // An answer in one piece cannot be cut short: it is spent when it comes.
        (None, Some(limit)) if !streams => Err(too_much(
            budget,
            limit,
            DEFAULT_OUTPUT,
            Some("set a bound on its output, as max_tokens does, or ask for a stream"),
        )),
        (None, limit) => {
            let least = DEFAULT_OUTPUT.saturating_mul(tap.answers());
            let least = limit.map_or(least, |limit| least.min(limit));
            let longest = LONGEST_OUTPUT.saturating_mul(tap.answers());
            Ok(Output {
                least,
                most: if is_seen { least } else { longest },
                declared: false,
            })
        }
    }
}

fn too_much(
    budget: &Arc<TokenBudget>,
    limit: u64,
    asked: u64,
    advice: Option<&'static str>,
) -> Refused {
    let advice = advice
        .map(|advice| format!("the request must {advice}: its rule grants {limit} output tokens"));
    Refused {
        reason: DenyReason::OutputLimit,
        detail: advice,
        recorded: None,
        exceeded: Some(Box::new(Exceeded {
            route: Arc::clone(&budget.route),
            bound: Bound::Output,
            limit,
            used: 0,
            asked,
            resets_at: None,
        })),
    }
}

fn unclear(detail: &str) -> Refused {
    Refused::saying(DenyReason::BodyUnclear, detail)
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable => DenyReason::BudgetUnavailable.into(),
            Refusal::Exceeded(exceeded) => Self {
                reason: DenyReason::BudgetExceeded,
                detail: Some(exceeded.to_string()),
                recorded: None,
                exceeded: Some(Box::new(exceeded)),
            },
        }
    }
}

/// Asks for no work; a header by which some servers take another method for the real one makes it unclear.
fn is_harmless(parts: &Parts) -> bool {
    asks_for_no_work(parts.method.as_str()) && overrides::found(&parts.headers).is_none()
}

/// Is the body in UTF-8, as far as its head says? Some servers read it in whatever charset it is said to be in.
fn is_in_utf8(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().all(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let parameters = value.split([';', ',']).map(str::trim);
        let mut charsets = parameters.filter_map(|part| part.strip_prefix("charset"));
        charsets.all(|name| {
            let name = name.trim_matches(['=', '"', ' ', '\t']);
            matches!(name, "utf-8" | "utf8" | "us-ascii")
        })
    })
}

/// Lets the upstream use the content codings that its answer can be counted in, and no other.
fn understandable(headers: &mut HeaderMap) {
    let asked: Vec<String> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| coding.trim().to_owned())
        .filter(|coding| {
            let name = coding.split(';').next().unwrap_or_default().trim_end();
            ["gzip", "deflate", "br", "zstd", "identity"]
                .contains(&name.to_ascii_lowercase().as_str())
        })
        .collect();
    let asked = if asked.is_empty() {
        "identity".to_owned()
    } else {
        asked.join(", ")
    };
    if let Ok(asked) = HeaderValue::try_from(asked) {
        headers.insert(ACCEPT_ENCODING, asked);
    }
}

impl Body for Asking {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Client(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                frame.map(|frame| frame.map_err(|error| -> Error { Box::new(error) }))
            }),
            Self::Held(held) | Self::Known(held, _) => Poll::Ready(held.next().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Held(held) | Self::Known(held, _) => held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Held(held) | Self::Known(held, _) => held.size_hint(),
        }
    }
}
