//! Patience with a server that is away for a while: whoever works on a run goes on when it is back.
//!
//! The client itself says a request again a few times within a second, which is right for a command
//! that looks once. A run may last for hours, and a server that is started again in the middle of it
//! is no reason to give it up. Deliberately absent: patience before anything was begun, because then
//! the person who waits must hear at once that the address is wrong.

use crate::output::say;
use domain::error::{Code, Error};
use domain::worker::Home;
use protocol::ApiRead;
use std::time::{Duration, Instant};

/// Longest time a server may be away before whoever works with it gives up.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(300);
/// Between two looks whether it is back.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks until there is an answer, over any number of times that the server is away. `ask` must be
/// safe to be asked twice.
///
/// # Errors
/// The answer's own; the last failure when the server is away for longer than [`AWAY_MAX`].
pub(crate) async fn patiently<T>(
    api: &dyn ApiRead,
    mut ask: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    loop {
        match ask().await {
            Err(error) if is_away(api, &error) => back(api, error).await?,
            answer => return answer,
        }
    }
}

/// Whether the server is away, and may come back.
pub(crate) fn is_away(api: &dyn ApiRead, error: &Error) -> bool {
    // An engine of this very process that has stopped never comes back.
    api.home() == Home::Remote && matches!(error.code, Code::ServerUnreachable | Code::Stopped)
}

/// Until it answers.
async fn back(api: &dyn ApiRead, mut error: Error) -> Result<(), Error> {
    let since = Instant::now();
    let mut said = false;
    while since.elapsed() < AWAY_MAX {
        match api.event_wait(0, Duration::ZERO).await {
            Err(still) if is_away(api, &still) => error = still,
            other => {
                if said {
                    say("The server is back.");
                }
                return other.map(drop);
            }
        }
        if !said {
            say(&format!(
                "{error}. Work goes on when it is back; waiting {} s at most.",
                AWAY_MAX.as_secs()
            ));
            said = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(error)
}
