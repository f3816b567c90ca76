//! The wish to stop: Ctrl-C, or a service manager's SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from the moment it is made, so that a wish that comes before anybody waits for it is
/// heard all the same.
pub(crate) struct Interrupt {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

/// What somebody wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ctrl-C: that what goes on stops.
    Stop,
    /// That the program ends.
    End,
}

impl Interrupt {
    /// From now on the process ends by its own decision. Where the system refuses that, it ends at
    /// once, as programs do; the store does not mind.
    pub(crate) fn listen() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// Resolves with what somebody wishes.
    pub(crate) async fn wish(&mut self) -> Wish {
        tokio::select! {
            () = one(self.interrupt.as_mut()) => Wish::Stop,
            () = one(self.terminate.as_mut()) => Wish::End,
        }
    }

    /// Resolves when somebody wishes it to stop.
    pub(crate) async fn heard(&mut self) {
        tokio::select! {
            () = one(self.interrupt.as_mut()) => {}
            () = one(self.terminate.as_mut()) => {}
        }
    }
}

async fn one(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
