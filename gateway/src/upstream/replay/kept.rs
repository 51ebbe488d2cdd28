//! What is kept of one request's body so that it can be sent again: copied into one piece of memory, because a frame of one
//! byte would keep the whole buffer that it was read into, and paid for from what its sandbox may have held. It refuses to
//! know when a request is sent again.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So much of a body is kept until its request is answered, bytes; a request that has sent more is not sent again. A
/// server that goes away says so to what has just begun, and most requests are shorter.
pub(super) const MAX_KEPT: usize = 64 * 1024;
/// Of what a sandbox may have held so much is left alone, bytes: bodies that must be held come first, and the longest of
/// them has 16 MiB.
pub(super) const LEFT_ALONE: usize = 16 * 1024 * 1024;
/// What a trailer field takes besides its letters, bytes: two handles on them, and its place in the table.
const FIELD: usize = 128;

/// See the module.
pub(super) enum Kept {
    /// All that was read so far.
    Whole(Store),
    /// It is read once more, and kept no longer.
    Again(Store),
    /// Nothing: there was too much of it, or it is not needed.
    Gone,
}

/// The beginning of a body, and its trailers if it is all of it.
pub(super) struct Store {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// Bytes that are free, for all of a sandbox's bodies.
    free: Arc<Semaphore>,
    paid: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Nothing was read. `free` are the bytes that are free for all bodies of the sandbox.
    pub(super) fn new(free: Arc<Semaphore>) -> Self {
        Self::Whole(Store {
            data: BytesMut::new(),
            trailers: None,
            free,
            paid: None,
        })
    }

    /// A frame that was read just now. What is too long, or for what there is no room, is the end of keeping.
    pub(super) fn add(&mut self, frame: &Frame<Bytes>) {
        if let Self::Whole(store) = self
            && !store.add(frame)
        {
            *self = Self::Gone;
        }
    }

    /// It is not going to be read once more.
    pub(super) fn forget(&mut self) {
        if let Self::Whole(_) = self {
            *self = Self::Gone;
        }
    }

    /// What was read comes again; `false` if some of it is gone.
    pub(super) fn rewind(&mut self) -> bool {
        match std::mem::replace(self, Self::Gone) {
            Self::Whole(store) => {
                *self = Self::Again(store);
                true
            }
            Self::Again(_) | Self::Gone => false,
        }
    }

    /// The next of what comes again.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let Self::Again(store) = self else {
            return None;
        };
        let data = std::mem::take(&mut store.data).freeze();
        let frame = if data.is_empty() {
            store.trailers.take().map(Frame::trailers)
        } else {
            Some(Frame::data(data))
        };
        if store.is_empty() {
            *self = Self::Gone;
        }
        frame
    }

    /// Bytes that come again; `None` if neither they nor trailers do.
    pub(super) fn ahead(&self) -> Option<u64> {
        match self {
            Self::Again(store) if !store.is_empty() => Some(store.data.len() as u64),
            Self::Again(_) | Self::Whole(_) | Self::Gone => None,
        }
    }
}

impl Store {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// `false` if there is no room for it.
    fn add(&mut self, frame: &Frame<Bytes>) -> bool {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => self.add_data(data),
            (None, Some(trailers)) => self.add_trailers(trailers),
            (None, None) => true,
        }
    }

    fn add_data(&mut self, data: &[u8]) -> bool {
        let length = self.data.len() + data.len();
        if length > MAX_KEPT || self.trailers.is_some() {
            return false;
        }
        let capacity = self.data.capacity();
        if length > capacity {
            // Doubled, or small pieces would be copied over and over; and paid for before it is there.
            let wanted = length.max(2 * capacity).min(MAX_KEPT);
            if !self.pay(wanted - capacity) {
                return false;
            }
            let mut grown = BytesMut::with_capacity(wanted);
            grown.extend_from_slice(&self.data);
            self.data = grown;
        }
        self.data.extend_from_slice(data);
        true
    }

    fn add_trailers(&mut self, trailers: &HeaderMap) -> bool {
        let fields = trailers.iter();
        let size = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
        if self.trailers.is_some() || !self.pay(size.sum()) {
            return false;
        }
        self.trailers = Some(trailers.clone());
        true
    }

    fn pay(&mut self, bytes: usize) -> bool {
        if self.free.available_permits() < LEFT_ALONE.saturating_add(bytes) {
            return false;
        }
        let Ok(count) = u32::try_from(bytes) else {
            return false;
        };
        let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(count) else {
            return false;
        };
        match &mut self.paid {
            Some(paid) => paid.merge(more),
            none => *none = Some(more),
        }
        true
    }
}
