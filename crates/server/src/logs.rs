//! Logs: lines on standard error, for people or for programs.
//!
//! Where they go from there is the business of whoever starts the process (a terminal, journald, a
//! container's runtime). Nothing that must not be seen gets into them, because such values are types
//! that print as `•••` ([`Secret`](crate::secret::Secret)) or headers marked as sensitive
//! ([`SECRET_HEADERS`](crate::secret::SECRET_HEADERS)). Deliberately absent: files, rotation, and any
//! search for secrets in finished lines.

use domain::error::{Code, Error};
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, where, what.
    #[default]
    Text,
    /// One JSON document a line.
    Json,
}

/// Whether a line is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// With the escape sequences of a terminal.
    Terminal,
    /// Without.
    Plain,
}

/// From here on, what is logged goes to standard error. Colours only on a terminal, and not if
/// `NO_COLOR` is set.
///
/// # Errors
///
/// `config.invalid` when `filter` is not one (see [`filter`]); `internal` when logs are set up
/// already.
pub fn start(format: Format, filter: &str) -> Result<(), Error> {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colour = match std::io::stderr().is_terminal() && wanted {
        true => Colour::Terminal,
        false => Colour::Plain,
    };
    let subscriber = subscriber(format, filter, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| Error::new(Code::Internal, "logs are set up twice"))
}

/// What [`start`] sets up, with another place to write to.
///
/// # Errors
///
/// `config.invalid` when `filter` is not one (see [`filter`](self::filter)).
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    colour: Colour,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Nobody has to read the logs: a line that cannot be written is dropped without another try to
    // write, which would panic where standard error is gone.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(self::filter(filter)?)
        .with_ansi(format == Format::Text && colour == Colour::Terminal)
        .with_writer(writer)
        .log_internal_errors(false);
    Ok(match format {
        Format::Text => Box::new(lines.finish()),
        Format::Json => Box::new(
            lines
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .finish(),
        ),
    })
}

/// Reads which lines are wanted: a level (`info`), or levels by module (`info,server=debug`).
///
/// # Errors
///
/// `config.invalid`. A bare word that is not a level is refused, although a module could have that
/// name: it is far more often a level misspelled, and would silence everything.
pub fn filter(text: &str) -> Result<EnvFilter, Error> {
    let refused = |why: String| {
        let hint =
            "Use off, error, warn, info, debug or trace, alone or by module: `info,server=debug`.";
        Error::new(Code::ConfigInvalid, why).hint(hint)
    };
    // An empty word would be read as a level too.
    let level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let bare = |part: &str| !part.contains('=') && !level(part);
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    // Within brackets a comma separates fields, so those are left to the filter's own grammar.
    let simple = !text.contains('[');
    if simple && let Some(word) = parts.iter().find(|part| bare(part)) {
        return Err(refused(format!("“{}” is not a log level", shown(word))));
    }
    let text = if simple {
        parts.join(",")
    } else {
        text.to_owned()
    };
    EnvFilter::builder()
        .with_regex(false)
        .parse(&text)
        .map_err(|fault| refused(format!("“{}” is not a log filter: {fault}", shown(&text))))
}

/// A text from outside, fit for a message: one line, and short.
pub(crate) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let mut shown = String::new();
    for letter in text.chars().take(CHARACTERS_MAX) {
        match letter.is_control() {
            true => shown.extend(letter.escape_debug()),
            false => shown.push(letter),
        }
    }
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{SECRET_HEADERS, Secret};
    use axum::Router;
    use axum::extract::Request;
    use axum::routing::get;
    use std::sync::{Arc, Mutex, PoisonError};
    use tower::ServiceExt;
    use tower_http::sensitive_headers::SetSensitiveHeadersLayer;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while this is done.
    fn logged(format: Format, filter: &str, doing: impl FnOnce()) -> String {
        let (lines, writer) = (Lines::default(), Lines::default());
        let kept = Arc::clone(&writer.0);
        let make = move || Lines(Arc::clone(&kept));
        let subscriber = subscriber(format, filter, Colour::Plain, make).unwrap();
        tracing::subscriber::with_default(subscriber, doing);
        drop(lines);
        let bytes = writer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    // S4-103: a line of the log has fields.
    #[test]
    fn a_line_is_text_or_a_json_document() {
        let say = || tracing::info!(run = "run_1", tasks = 3, "started");
        let text = logged(Format::Text, "info", say);
        assert!(text.contains(" INFO ") && text.contains("started run=\"run_1\" tasks=3"));
        assert!(!text.contains('\u{1b}'), "no colours: {text:?}");
        let json = logged(Format::Json, "info", || {
            say();
            tracing::warn!("two\nlines");
        });
        let lines: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{json}");
        assert_eq!(
            (&lines[0]["level"], &lines[0]["message"]),
            (&"INFO".into(), &"started".into())
        );
        assert_eq!(
            (&lines[0]["run"], &lines[0]["tasks"]),
            (&"run_1".into(), &3.into())
        );
        assert!(
            lines[0]["timestamp"].as_str().unwrap().ends_with('Z'),
            "{json}"
        );
        assert_eq!(lines[1]["message"], "two\nlines");
    }

    #[test]
    fn the_filter_chooses_and_says_what_is_wrong_with_it() {
        let say = || {
            tracing::debug!(target: "server", "small");
            tracing::debug!(target: "other", "foreign");
            tracing::error!(target: "other", "large");
        };
        let text = logged(Format::Text, "error,server=debug", say);
        assert!(text.contains("small") && text.contains("large") && !text.contains("foreign"));
        assert_eq!(logged(Format::Text, "off", say), "");
        for wrong in ["inof", "", "info,", "server=loud", "info,debgu", "[x"] {
            let error = filter(wrong).unwrap_err();
            assert_eq!(error.code, Code::ConfigInvalid, "{wrong}");
            assert!(error.hint.contains("info,server=debug"), "{error:?}");
        }
        assert_eq!(
            filter("warn, server=trace").unwrap().to_string(),
            filter("warn,server=trace").unwrap().to_string()
        );
        for right in [
            "INFO",
            "warn, server=trace",
            "server[request{id=1}]=debug,info",
        ] {
            assert!(filter(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn a_key_never_appears_however_it_is_logged() {
        const KEY: &str = "chk_3q2eNotToBeSeen";
        async fn handler(request: Request) -> &'static str {
            let given = request.headers()["authorization"].to_str().unwrap();
            let secret = Secret::new(given);
            tracing::info!(headers = ?request.headers(), ?request, %secret, ?secret, "asked");
            tracing::info!("asked with {secret} and {:?}", Some(&secret));
            "ok"
        }
        for format in [Format::Text, Format::Json] {
            let text = logged(format, "trace", || {
                let router = Router::new()
                    .route("/", get(handler))
                    .layer(SetSensitiveHeadersLayer::new(SECRET_HEADERS));
                let request = Request::get("/")
                    .header("authorization", format!("Bearer {KEY}"))
                    .header("cookie", format!("session={KEY}"))
                    .header("x-request-id", "visible")
                    .body(axum::body::Body::empty())
                    .unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let answer = runtime.block_on(router.oneshot(request)).unwrap();
                assert_eq!(answer.status(), 200);
            });
            assert!(
                !text.contains(KEY) && !text.contains("NotToBeSeen"),
                "{text}"
            );
            assert!(
                text.contains("visible") && text.contains("Sensitive"),
                "{text}"
            );
            assert_eq!(text.matches("•••").count(), 4, "{text}");
        }
    }
}
