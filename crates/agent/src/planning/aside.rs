//! What an agent says beside its result: what stays open, and how sure it is.
//!
//! It is asked to put that into lines of their own at the end, because every model can. Whoever reads
//! results finds it in the envelope; who says nothing of it leaves it empty.

use crate::mind::Envelope;
use serde_json::Value;

/// Questions that are kept of one result, at most.
pub const OPEN_MAX: usize = 10;
/// Characters of one.
const OPEN_CHARS_MAX: usize = 500;
const OPEN: &str = "Open:";
const CONFIDENCE: &str = "Confidence:";

/// How an agent is asked for it; behind its objective.
pub(super) const ASKED: &str = "\n\nIf something stays open, end with a line `Open: …` for each question, and \
with a last line `Confidence: ` and a number from 0 to 1.";

/// Takes what was said beside a result out of it. A text that is nothing else stays as it is.
pub(super) fn take(mut envelope: Envelope) -> Envelope {
    let Value::String(text) = &envelope.result else {
        return envelope;
    };
    let mut rest = text.trim_end();
    let (mut open, mut confidence) = (Vec::new(), None);
    while let Some((before, line)) = rest.rsplit_once('\n') {
        let line = line.trim();
        if let Some(question) = line.strip_prefix(OPEN) {
            open.push(
                question
                    .trim()
                    .chars()
                    .take(OPEN_CHARS_MAX)
                    .collect::<String>(),
            );
        } else if let Some(said) = line.strip_prefix(CONFIDENCE).and_then(number)
            && confidence.is_none()
        {
            confidence = Some(said);
        } else if !line.is_empty() {
            break;
        }
        rest = before;
    }
    let nothing_else = rest.trim().is_empty() || rest.trim_start().starts_with(OPEN);
    if nothing_else || (open.is_empty() && confidence.is_none()) {
        return envelope;
    }
    open.retain(|question| !question.is_empty());
    open.reverse();
    open.truncate(OPEN_MAX);
    envelope.result = Value::String(rest.trim_end().to_owned());
    (envelope.open, envelope.confidence) = (open, confidence);
    envelope
}

/// `0.8`, or `80 %`.
fn number(said: &str) -> Option<f64> {
    let said = said.trim().trim_end_matches('.');
    let number = match said.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => said.parse().ok()?,
    };
    (0.0..=1.0).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mind::{Completeness, Spend};

    fn taken(text: &str) -> (String, Vec<String>, Option<f64>) {
        let envelope = take(Envelope {
            status: Completeness::Done,
            result: Value::String(text.into()),
            reason: None,
            evidence: Vec::new(),
            open: Vec::new(),
            confidence: None,
            spend: Spend::default(),
        });
        let text = envelope.result.as_str().unwrap_or_default().to_owned();
        (text, envelope.open, envelope.confidence)
    }

    #[test]
    fn what_is_said_beside_a_result_is_told_from_it() {
        let all =
            taken("It is 94 dollars.\n\nOpen: With tax?\nOpen: Until when?\nConfidence: 0.8\n");
        let open = vec!["With tax?".to_owned(), "Until when?".to_owned()];
        assert_eq!(all, ("It is 94 dollars.".into(), open, Some(0.8)));
        assert_eq!(taken("Done.\nConfidence: 80 %.").2, Some(0.8));
    }

    #[test]
    fn what_is_none_of_it_stays() {
        for text in [
            "Open: the shop is open.",
            "Confidence: 0.5",
            "Open: a\nOpen: b",
            "One.\nConfidence: very high",
            "One.\nConfidence: 7",
            "Confidence: 0.5\nis what they wrote",
        ] {
            let (kept, open, confidence) = taken(text);
            assert_eq!((kept.as_str(), confidence), (text, None), "{open:?}");
        }
        let many = format!("One.{}", "\nOpen: why?".repeat(100));
        assert_eq!(taken(&many).1.len(), OPEN_MAX);
    }
}
