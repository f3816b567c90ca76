//! An error on its way over HTTP: a problem body as RFC 9457 has it, with the stable code, the hint
//! and whether trying again may help. Both directions lose nothing, so that an error reads the same
//! on both sides.

use domain::error::{Code, Error, Who};
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, as the body of a response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Names the kind of problem; a page of the documentation explains it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's meaning, the same for every problem of the kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The stable code: match on this.
    pub code: String,
    /// What to do.
    pub hint: String,
    /// Whether the same request may succeed later without anybody changing it.
    pub retryable: bool,
    /// Names the request, as in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self {
            kind: format!("urn:chargehand:problem:{}", error.code),
            title: error.code.meaning().to_owned(),
            status: status(error.code),
            detail: error.message.clone(),
            code: error.code.as_str().to_owned(),
            hint: error.hint.clone(),
            retryable: error.code.retryable(),
            instance: None,
        }
    }
}

impl From<Problem> for Error {
    /// A code that a newer server knows and this program does not reads as
    /// [`Code::Internal`]: its text still says what happened.
    fn from(problem: Problem) -> Self {
        let known = Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == problem.code);
        Self {
            code: known.unwrap_or(Code::Internal),
            message: problem.detail,
            hint: problem.hint,
        }
    }
}

/// The HTTP status of a code (RFC 9110, section 15; 429 from RFC 6585).
pub fn status(code: Code) -> u16 {
    match code {
        Code::KeyRefused => 401,
        Code::ScopeMissing => 403,
        Code::TaskUnknown
        | Code::RunUnknown
        | Code::WorkerUnknown
        | Code::PoolUnknown
        | Code::EntryUnknown
        | Code::MessageUnknown
        | Code::StepUnknown
        | Code::KeyUnknown
        | Code::TenantUnknown
        | Code::RouteUnknown => 404,
        Code::MethodUnknown => 405,
        Code::WaitTimedOut | Code::RequestSlow => 408,
        Code::VersionStale => 412,
        Code::PayloadTooLarge | Code::GoalTooLarge => 413,
        Code::MediaType => 415,
        Code::RateLimited | Code::QuotaExceeded => 429,
        Code::Overloaded | Code::Stopped | Code::StreamLimit => 503,
        Code::StoreFull => 507,
        _ => match code.who() {
            Who::Caller => 400,
            Who::Conflict => 409,
            Who::World => 503,
            Who::Bug => 500,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_goes_there_and_back() {
        for code in Code::ALL {
            let error = Error::new(*code, "what happened").hint("what to do");
            let problem = Problem::from(&error);
            assert!((400..600).contains(&problem.status), "{code}");
            let text = serde_json::to_string(&problem).unwrap();
            let read: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(Error::from(read), error);
        }
    }

    #[test]
    fn who_can_act_shows_in_the_status() {
        // A caller's mistake is never a 5xx, a defect never a 4xx.
        for code in Code::ALL {
            let status = status(*code);
            match code.who() {
                Who::Caller | Who::Conflict => assert!(status < 500, "{code}"),
                Who::Bug => assert_eq!(status, 500, "{code}"),
                Who::World => {}
            }
        }
    }
}
