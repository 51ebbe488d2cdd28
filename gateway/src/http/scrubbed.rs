//! An upstream's body: what it says of its usage is read as it came, then the credentials that it echoes are taken out.
//! Where none was injected, it is the body itself.

use crate::outcome::hyper_error::Error;
use crate::provider::ResponseTap;
use crate::scrub::{BodyScrub, Scrubber};
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// See the module.
pub(super) struct Scrubbed {
    body: PooledBody,
    /// Looks at what the upstream said, in its own coding and before a byte of it is replaced.
    pub(super) usage: Option<Box<ResponseTap>>,
    scrub: Option<Box<(Scrubber, BodyScrub)>>,
    /// In trailers.
    count: u64,
    trailers: Option<HeaderMap>,
    /// The upstream has said all.
    ended: bool,
}

impl Scrubbed {
    /// Changes the head where the body is going to be another one. `is_head`: it answers HEAD.
    pub(super) fn new(
        scrubber: Option<Scrubber>,
        head: &mut Parts,
        body: PooledBody,
        is_head: bool,
        usage: Option<Box<ResponseTap>>,
    ) -> Self {
        // Where there is no body, there is none to be announced; HEAD tells of one all the same.
        let scrub = scrubber
            .filter(|_| is_head || !body.is_end_stream())
            .map(|scrubber| {
                let scrub = scrubber.body(head.status, &mut head.headers);
                Box::new((scrubber, scrub))
            })
            .filter(|_| !body.is_end_stream());
        Self {
            body,
            usage,
            scrub,
            count: 0,
            trailers: None,
            ended: false,
        }
    }

    /// How many secrets have been replaced.
    pub(super) fn count(&self) -> u64 {
        let body = self.scrub.as_ref().map_or(0, |scrub| scrub.1.count());
        self.count + body
    }
}

fn look<E>(usage: Option<&mut ResponseTap>, frame: Option<&Result<Frame<Bytes>, E>>) {
    if let (Some(tap), Some(Ok(frame))) = (usage, frame)
        && let Some(data) = frame.data_ref()
    {
        tap.feed(data);
    }
}

impl Body for Scrubbed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some((scrubber, scrub)) = this.scrub.as_deref_mut() else {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            look(this.usage.as_deref_mut(), frame.as_ref());
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| Box::new(error) as Error)));
        };
        loop {
            if !this.ended {
                match scrub.pull() {
                    Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(None) => {}
                    Err(corrupt) => return Poll::Ready(Some(Err(Box::new(corrupt)))),
                }
            }
            if this.ended {
                let trailers = this.trailers.take().map(Frame::trailers);
                return Poll::Ready(trailers.map(Ok));
            }
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            look(this.usage.as_deref_mut(), frame.as_ref());
            match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(Box::new(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        scrub.feed(data);
                        continue;
                    }
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        this.count += scrubber.headers(&mut trailers);
                        this.trailers = Some(trailers);
                    }
                },
                None => {}
            }
            this.ended = true;
            match scrub.finish() {
                Ok(rest) if rest.is_empty() => {}
                Ok(rest) => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                Err(corrupt) => return Poll::Ready(Some(Err(Box::new(corrupt)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.scrub.as_deref() {
            None => self.body.is_end_stream(),
            Some((_, scrub)) => {
                let all = self.ended || (self.body.is_end_stream() && scrub.is_idle());
                all && self.trailers.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let Some((_, scrub)) = self.scrub.as_deref() else {
            return inner;
        };
        match (scrub.keeps_length(), inner.exact()) {
            (Some(held), Some(left)) => SizeHint::with_exact(left.saturating_add(held)),
            _ => SizeHint::default(),
        }
    }
}
