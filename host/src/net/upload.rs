//! Bodies read as they arrive, within a budget and at a minimum rate.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::budget::{Holding, MAX_LAG_MS, MIN_BYTES_PER_SECOND};
use super::requests::RequestFacts;
use super::watched::CONNECTION_BYTES;

/// The longest time without a byte of the body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a whole body at any rate: the largest component, at half a megabit a second.
const MAX_TIME: Duration = Duration::from_secs(15 * 60);

/// The reason for which a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The connection is broken.
    #[error("the body cannot be read: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing arrived for [`IDLE_TIMEOUT`].
    #[error("the body did not come in time: nothing arrived for {} s", IDLE_TIMEOUT.as_secs())]
    Standstill,
    /// The body arrived more slowly than [`MIN_BYTES_PER_SECOND`], or took longer than [`MAX_TIME`].
    #[error(
        "the body did not come in time: a whole one may take {} s, a second more for each {MIN_BYTES_PER_SECOND} bytes of it, and {} \
         minutes in all",
        MAX_LAG_MS / 1000,
        MAX_TIME.as_secs() / 60
    )]
    TooSlow,
    /// The body was evicted from the budget.
    #[error("the host holds as much of unfinished requests as it may, and this was the slowest: try again")]
    Evicted,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Upload<B> {
    body: B,
    /// The connection's holding, in which the bytes are counted.
    holding: Option<Arc<Holding>>,
    standstill: Duration,
    begun: Instant,
    /// Time from the first read, extended with each byte.
    patience: Duration,
    /// Bytes that arrived: in total, and since the holding was last updated.
    came: usize,
    news: usize,
}

impl Upload<Incoming> {
    /// The body of a request.
    pub fn of(request: Request<Incoming>) -> Self {
        let holding = request.extensions().get().map(|facts: &RequestFacts| facts.holding.clone());
        Self::with_times(request.into_body(), holding, IDLE_TIMEOUT, Duration::from_millis(MAX_LAG_MS))
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Upload<B> {
    fn with_times(body: B, holding: Option<Arc<Holding>>, standstill: Duration, patience: Duration) -> Self {
        Self { body, holding, standstill, begun: Instant::now(), patience, came: 0, news: 0 }
    }

    /// The next piece; `None` at the end. `held` is the number of bytes of the body that the caller keeps.
    ///
    /// # Errors
    /// Where the body is too slow, the connection is broken, or the body is evicted from the budget.
    pub async fn next(&mut self, held: usize) -> Result<Option<Bytes>, UploadError> {
        loop {
            let frame = {
                let mut frame = pin!(self.body.frame());
                // Most bodies arrive with their heads, and need neither a timer nor a holding.
                match poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        if let Some(holding) = &self.holding {
                            holding.grow(CONNECTION_BYTES + held, std::mem::take(&mut self.news));
                        }
                        let more = self.patience + Duration::from_secs(self.came as u64 / MIN_BYTES_PER_SECOND);
                        let (until, standstill) = (self.begun + more.min(MAX_TIME), Instant::now() + self.standstill);
                        let late = if until <= standstill { UploadError::TooSlow } else { UploadError::Standstill };
                        tokio::select! {
                            frame = timeout_at(standstill.min(until), frame) => frame.map_err(|_| late)?,
                            () = evicted(self.holding.as_deref()) => return Err(UploadError::Evicted),
                        }
                    }
                }
            };
            let Some(frame) = frame.transpose()? else {
                if let Some(holding) = &self.holding {
                    holding.keep(held);
                }
                return Ok(None);
            };
            // Trailers are ignored.
            if let Ok(data) = frame.into_data() {
                self.came += data.len();
                self.news += data.len();
                return Ok(Some(data));
            }
        }
    }
}

async fn evicted(holding: Option<&Holding>) {
    match holding {
        Some(holding) => holding.evicted().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::Context;

    use hyper::body::Frame;
    use tokio::sync::mpsc;

    use super::*;

    /// A body whose pieces arrive by a channel.
    struct Pieces(mpsc::Receiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// Sends `n` pieces, one every 10 ms, and then stalls without an end.
    fn pieces(n: usize) -> Pieces {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..n {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if sender.send(Bytes::from_static(b"x")).await.is_err() {
                    return;
                }
            }
            std::future::pending::<Infallible>().await;
        });
        Pieces(receiver)
    }

    #[tokio::test]
    async fn stalled_bodies_are_refused() {
        let mut upload = Upload::with_times(pieces(30), None, Duration::from_millis(250), Duration::from_secs(60));
        for _ in 0..30 {
            assert_eq!(upload.next(0).await.unwrap().as_deref(), Some(&b"x"[..]));
        }
        assert!(matches!(upload.next(0).await, Err(UploadError::Standstill)));
    }

    #[tokio::test]
    async fn trickling_bodies_are_refused() {
        let mut upload =
            Upload::with_times(pieces(usize::MAX), None, Duration::from_secs(60), Duration::from_millis(100));
        let ended = loop {
            match upload.next(0).await {
                Ok(piece) => assert!(piece.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, UploadError::TooSlow));
    }
}
