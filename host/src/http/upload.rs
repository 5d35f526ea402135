//! Bodies as they arrive: a slow client is waited for as long as something comes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

/// Time in which something of a body must come.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Time for a whole body, so that one that trickles ends as well: the largest component, at half a megabit a second.
const MAX_TIME: Duration = Duration::from_secs(15 * 60);

/// Why the rest of a body does not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body cannot be read: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the body did not come in time: nothing arrived for {} s", STANDSTILL.as_secs())]
    Standstill,
    #[error("the body did not come in time: a whole one may take {} minutes", MAX_TIME.as_secs() / 60)]
    TooSlow,
}

/// A body that is read.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    standstill: Duration,
    until: Instant,
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Upload<B> {
    pub(super) fn new(body: B) -> Self {
        Self::with_times(body, STANDSTILL, MAX_TIME)
    }

    fn with_times(body: B, standstill: Duration, whole: Duration) -> Self {
        Self { body, standstill, until: Instant::now() + whole }
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// Where nothing comes in time, or the connection is broken.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        loop {
            let standstill = Instant::now() + self.standstill;
            let is_too_slow = self.until <= standstill;
            let frame = timeout_at(standstill.min(self.until), self.body.frame()).await;
            let late = if is_too_slow { UploadError::TooSlow } else { UploadError::Standstill };
            match frame.map_err(|_| late)?.transpose()? {
                None => return Ok(None),
                // Trailers mean nothing here.
                Some(frame) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use tokio::sync::mpsc;

    use super::*;

    /// A body whose pieces come by a channel.
    struct Pieces(mpsc::Receiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// Sends a piece every 10 ms, so many, and then nothing, without an end.
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
    async fn slow_bodies_are_bounded_by_standstill() {
        let mut upload = Upload::with_times(pieces(30), Duration::from_millis(250), Duration::from_secs(60));
        for _ in 0..30 {
            assert_eq!(upload.next().await.unwrap().as_deref(), Some(&b"x"[..]));
        }
        assert!(matches!(upload.next().await, Err(UploadError::Standstill)));
    }

    #[tokio::test]
    async fn trickling_bodies_end_after_a_time() {
        let mut upload = Upload::with_times(pieces(usize::MAX), Duration::from_secs(60), Duration::from_millis(100));
        let ended = loop {
            match upload.next().await {
                Ok(piece) => assert!(piece.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, UploadError::TooSlow));
    }
}
