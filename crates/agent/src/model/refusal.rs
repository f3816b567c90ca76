//! What a provider's refusal means: one table for all of them, of statuses, of their own words,
//! and of the pauses they ask for.

use super::wire::text_at;
use super::{Fault, ModelError};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// Longest pause that a provider is believed to want.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a provider's own words in a message.
const WORDS_BYTES_MAX: usize = 500;

/// How long a provider wants to be left alone, by its headers.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let pause = match text("retry-after-ms").and_then(|ms| ms.parse().ok()) {
        Some(ms) => Duration::from_millis(ms),
        None => {
            let text = text(RETRY_AFTER.as_str())?;
            match text.parse::<f64>() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
                Err(_) => {
                    let until = httpdate::parse_http_date(text).ok()?;
                    until.duration_since(now).unwrap_or_default()
                }
            }
        }
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// What a provider's error means: the one that came with a status, or one in mid-stream.
pub(super) fn refused(status: Option<u16>, body: &Value) -> ModelError {
    let body = body.get(0).unwrap_or(body);
    let error = body.get("error").filter(|e| !e.is_null()).unwrap_or(body);
    let details = error.get("details").and_then(Value::as_array);
    let details = details.map(Vec::as_slice).unwrap_or_default();
    // The narrowest first.
    let reasons = details.iter().map(|detail| text_at(detail, "/reason"));
    let names = ["/code", "/type", "/status"].map(|pointer| text_at(error, pointer));
    let mut words = reasons.chain(names).filter_map(fault_of_word);
    let said = ["/message", "/detail"]
        .map(|pointer| text_at(error, pointer))
        .into_iter()
        .find(|text| !text.is_empty())
        .or_else(|| error.as_str())
        .unwrap_or_default();
    let low = said.to_lowercase();
    let fault = match status {
        Some(402) => Fault::Key,
        Some(status @ 400..=499) => {
            // A status is too wide for these two, about which different people can do something.
            let narrow = words.find(|fault| matches!(fault, Fault::Key | Fault::Unknown));
            let lacks = ["not found", "does not exist", "not a valid model"];
            narrow.unwrap_or_else(|| match status {
                400 if low.contains("credit balance") => Fault::Key,
                400 if low.contains("model") && lacks.iter().any(|lack| low.contains(lack)) => {
                    Fault::Unknown
                }
                _ => Fault::of_status(status),
            })
        }
        Some(status) => Fault::of_status(status),
        None => words.next().unwrap_or_else(|| {
            let status = error.get("code").and_then(Value::as_u64);
            match status.and_then(|code| u16::try_from(code).ok()) {
                Some(status @ 400..=599) => Fault::of_status(status),
                _ => Fault::Broken,
            }
        }),
    };
    let words = match (said, body) {
        ("", Value::String(_)) => "it says no more".to_owned(),
        // Words in a form of its own are still better than none.
        ("", other) => cut(&other.to_string(), WORDS_BYTES_MAX),
        (said, _) => cut(said, WORDS_BYTES_MAX),
    };
    let message = match status {
        Some(status) => format!("answered {status}: {words}"),
        None => format!("broke off its answer: {words}"),
    };
    let delay = details.iter().find_map(|detail| {
        let seconds = text_at(detail, "/retryDelay").strip_suffix('s')?;
        Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
    });
    ModelError {
        retry_after: delay.map(|delay| delay.min(RETRY_AFTER_MAX)),
        ..ModelError::new(fault, message)
    }
}

/// The fault that a provider's own word means.
fn fault_of_word(word: &str) -> Option<Fault> {
    Some(match word {
        "insufficient_quota"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "billing_error"
        | "invalid_api_key"
        | "authentication_error"
        | "permission_error"
        | "API_KEY_INVALID"
        | "UNAUTHENTICATED"
        | "PERMISSION_DENIED" => Fault::Key,
        "model_not_found" | "unknown_model" | "invalid_model" | "not_found_error" | "NOT_FOUND" => {
            Fault::Unknown
        }
        "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" => Fault::Limited,
        "overloaded_error" | "api_error" | "server_error" | "timeout_error" | "UNAVAILABLE"
        | "INTERNAL" | "DEADLINE_EXCEEDED" => Fault::Overloaded,
        "invalid_request_error"
        | "request_too_large"
        | "context_length_exceeded"
        | "INVALID_ARGUMENT"
        | "FAILED_PRECONDITION" => Fault::Refused,
        _ => return None,
    })
}

/// A text's beginning, at most so many bytes, on one line.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    let mut shown = text[..end].replace(['\n', '\r'], " ");
    if end < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        retry_after(&headers, now)
    }

    #[test]
    fn a_pause_is_read_in_every_form() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(pause("retry-after", "7"), seconds(7));
        assert_eq!(
            pause("retry-after", "0.5"),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            pause("retry-after-ms", "1500"),
            Some(Duration::from_millis(1_500))
        );
        let later = "Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(pause("retry-after", later), seconds(30));
        let past = "Sun, 06 Nov 1994 08:00:00 GMT";
        assert_eq!(pause("retry-after", past), seconds(0));
        assert_eq!(pause("retry-after", "99999999"), Some(RETRY_AFTER_MAX));
        for odd in ["soon", "-1", "inf", ""] {
            assert_eq!(pause("retry-after", odd), None, "{odd}");
        }
    }

    #[test]
    fn a_cut_text_stays_text() {
        assert_eq!(cut("short\nlines", 500), "short lines");
        assert_eq!(cut("üü", 3), "ü…");
    }
}
