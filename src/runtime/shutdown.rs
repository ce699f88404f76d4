//! Serving a host's routes until it is asked to end, and ending well.
//!
//! Asked to end (SIGTERM, or Ctrl-C), the service is no longer ready, takes no new connections, finishes the
//! requests it has, stops the actors in reverse order, and ends. What has not finished within the grace is cut
//! off. Asked a second time, it ends at once.

use std::{io, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::oneshot};

use super::handle::{self, Heal};

/// How long requests may take to finish once the service is asked to end.
pub const GRACE: Duration = Duration::from_secs(10);

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was finished.
    Finished,
    /// Requests were cut off: the grace was over, or the service was asked a second time.
    CutOff,
}

impl Heal {
    /// Serves `app` on `listener` until the process is asked to end, with a grace of [`GRACE`].
    ///
    /// # Errors
    /// What the listener or the signals of the system have against it.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<Ended> {
        self.serve_with_grace(listener, app, GRACE).await
    }

    /// The same with another grace.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_with_grace(
        &self,
        listener: TcpListener,
        app: Router,
        grace: Duration,
    ) -> io::Result<Ended> {
        let mut asked = Asked::listen()?;
        let (drain, draining) = oneshot::channel::<()>();
        let serving = axum::serve(listener, handle::with_peers(app)).with_graceful_shutdown(async {
            // A sender that is gone asks for the same.
            let _ = draining.await;
        });
        let mut serving = std::pin::pin!(serving.into_future());
        tokio::select! {
            ended = &mut serving => return ended.map(|()| Ended::Finished),
            () = asked.end() => {}
        }
        tracing::info!(target: "selfheal", "Asked to end: finishing what was begun");
        self.drain();
        let _ = drain.send(());
        let finish = async {
            serving.await?;
            self.shutdown().await;
            Ok(Ended::Finished)
        };
        tokio::select! {
            finished = finish => finished,
            () = tokio::time::sleep(grace) => {
                tracing::warn!(target: "selfheal", "Requests were cut off: they had not finished within the grace");
                Ok(Ended::CutOff)
            }
            () = asked.end() => Ok(Ended::CutOff),
        }
    }
}

/// The ways to ask a service to end. From the moment it listens, a signal asks and does not kill.
struct Asked {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Asked {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// Waits for the next time. Cancel safe.
    #[cfg(unix)]
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }

    /// Waits for the next time. Cancel safe.
    #[cfg(not(unix))]
    async fn end(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
