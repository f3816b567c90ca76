//! The offline planner's one decision: which skill does the goal ask for?
//!
//! It reads words, not meaning, and its first duty is not to pretend. A goal
//! is accepted when its words name one analysis ("sentiment", "keywords") or
//! plainly name none ("Process 5 support tickets": the general digest, and
//! the reason says so). Everything else is an error that lists what there is:
//! two analyses at once, an analysis no skill can do, words it does not know.
//! A goal wrongly refused costs a `--skill`; a goal wrongly accepted costs
//! trust.
//!
//! How words are weighed: a goal falls into clauses at punctuation and at
//! "and" or "then". Within a clause a noun that names an analysis outweighs a
//! verb ("summarize the sentiment" is about sentiment); between clauses
//! nothing does ("summarize, and find the keywords" is ambiguous). A word
//! under a negation does not count.
//!
//! Deliberately absent: more than one step, options read out of a goal (but
//! for the one link of a fetch), and languages other than English.

use std::fmt;

use serde_json::{Value, json};

use crate::input::Item;
use crate::skill::{self, Skill, extract};
use crate::text;

pub use domain::limits::GOAL_BYTES_MAX;

/// The skill a goal asks for, and why.
#[derive(Debug)]
pub struct Choice {
    /// The skill to run on every item.
    pub skill: &'static dyn Skill,
    /// Why, as the end of a sentence: `the goal says “sentiment”`.
    pub because: String,
    /// Options for the skill; null for its defaults.
    pub options: Value,
}

/// Why no skill was chosen. The caller can act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// `goal.empty`, `goal.too_large`, `plan.ambiguous`, `plan.no_skill`,
    /// `plan.needs_options` or `plan.no_text`.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do; several lines where the skills are listed.
    pub hint: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PlanError {}

/// Checks that a goal is one: `goal.empty` and `goal.too_large` otherwise.
///
/// # Errors
///
/// As said.
pub fn check_goal(goal: &str) -> Result<(), PlanError> {
    if goal.trim().is_empty() {
        return Err(PlanError {
            code: "goal.empty",
            message: "the goal is empty".to_owned(),
            hint: "Say what to do, such as \"Analyze the sentiment of these reviews\".".to_owned(),
        });
    }
    if goal.len() > GOAL_BYTES_MAX {
        return Err(PlanError {
            code: "goal.too_large",
            message: format!(
                "the goal has {} bytes; the most is {GOAL_BYTES_MAX}",
                goal.len()
            ),
            hint: "Keep the goal short and give the material as input.".to_owned(),
        });
    }
    Ok(())
}

/// Chooses the skill a goal asks for.
///
/// # Errors
///
/// What [`check_goal`] refuses; `plan.ambiguous` when the goal names several
/// analyses, `plan.needs_options` when it asks for a filter or a group whose
/// expression only a person can write, `plan.no_text` when no item has the
/// text the skill needs, `plan.no_skill` for everything not understood.
pub fn choose(goal: &str, items: &[Item]) -> Result<Choice, PlanError> {
    check_goal(goal)?;
    let choice = understood(goal, items)?;
    let needs_text = choice.skill.name().starts_with("text.");
    if needs_text && !items.is_empty() && items.iter().all(|item| item.text().trim().is_empty()) {
        return Err(PlanError {
            code: "plan.no_text",
            message: format!("{} reads text, and no item has any", choice.skill.name()),
            hint: "For records without text use `--skill json.shape` or `--skill csv.shape`."
                .to_owned(),
        });
    }
    Ok(choice)
}

fn understood(goal: &str, items: &[Item]) -> Result<Choice, PlanError> {
    let links = extract::links(goal);
    let plain = links.iter().fold(goal.to_owned(), |goal, link| {
        goal.replace(link.as_str(), " ")
    });
    let named: Vec<Found> = skill::all()
        .iter()
        .filter_map(|skill| named_outright(&plain, skill.name()))
        .collect();
    if !named.is_empty() {
        return decided(named, &links, items);
    }
    let goal = Goal::read(&plain);
    if let Some(words) = goal.first_of(SHAPING) {
        return Err(PlanError {
            code: "plan.needs_options",
            message: format!("the goal says “{words}”, and offline only a person can write the expression for it"),
            hint: "Use `--skill json.shape` or `--skill csv.shape` with its options `filter`, `group` or `select`, such as {\"filter\": \"item.stars >= 4\"}.".to_owned(),
        });
    }
    if let Some(words) = goal.first_of(BEYOND) {
        return Err(no_skill(&format!(
            "no offline skill can do what the goal calls “{words}”"
        )));
    }
    let found = goal.found();
    let covered = |clause: usize| found.iter().any(|found| found.clause == clause);
    if let Some(words) = goal.first_where(BEYOND_ALONE, |clause| !covered(clause)) {
        return Err(no_skill(&format!(
            "no offline skill can do what the goal calls “{words}”"
        )));
    }
    if !found.is_empty() {
        return decided(found, &links, items);
    }
    if goal.is_general() {
        return Ok(Choice {
            skill: must_find("text.digest"),
            because: "the goal names no specific analysis, so each item gets the general digest: \
                      language, length, keywords, sentiment and its most telling sentence"
                .to_owned(),
            options: Value::Null,
        });
    }
    Err(no_skill(
        "the goal names no analysis the offline planner knows",
    ))
}

/// One skill from the finds, if they agree.
fn decided(found: Vec<Found>, links: &[String], items: &[Item]) -> Result<Choice, PlanError> {
    let first = &found[0];
    if let Some(other) = found.iter().find(|found| found.skill != first.skill) {
        return Err(PlanError {
            code: "plan.ambiguous",
            message: format!(
                "the goal asks for two things: “{}” ({}) and “{}” ({})",
                first.words, first.skill, other.words, other.skill
            ),
            hint: hint("Offline a run does one of them: name it in the goal alone, or"),
        });
    }
    let fetches_one = first.skill == "http.fetch" && items.is_empty() && links.len() == 1;
    Ok(Choice {
        skill: must_find(first.skill),
        because: format!("the goal says “{}”", first.words),
        options: if fetches_one {
            json!({"url": links[0]})
        } else {
            Value::Null
        },
    })
}

fn must_find(name: &str) -> &'static dyn Skill {
    skill::find(name).expect("the planner names built-in skills only")
}

fn no_skill(message: &str) -> PlanError {
    PlanError {
        code: "plan.no_skill",
        message: message.to_owned(),
        hint: hint("Name an analysis in the goal, or"),
    }
}

fn hint(opening: &str) -> String {
    format!(
        "{opening} choose with `--skill NAME`, or bring your own program with `--worker-command`. \
         With `--crew FILE` a model plans freely; `chargehand init` writes such a file. The skills:\n{}",
        skill::list()
    )
}

/// How plainly words name an analysis: a noun outweighs a verb.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Verb,
    Noun,
}

/// Words that name a skill. `feel*` matches the beginning of a word; phrases
/// must stand together.
const TERMS: &[(&str, Weight, &[&str])] = &[
    (
        "text.sentiment",
        Weight::Noun,
        &[
            "sentiment*",
            "polarity",
            "mood",
            "moods",
            "positive or negative",
        ],
    ),
    (
        "text.sentiment",
        Weight::Verb,
        &[
            "feel",
            "feels",
            "feeling",
            "feelings",
            "felt",
            "opinion",
            "opinions",
            "emotion",
            "emotions",
            "emotional",
            "tone",
            "positive",
            "negative",
            "happy",
            "unhappy",
            "happier",
            "satisfied",
            "dissatisfied",
            "satisfaction",
            "customers think",
            "people think",
            "users think",
            "they think",
        ],
    ),
    (
        "text.summary",
        Weight::Noun,
        &["key points", "main points", "gist", "tldr", "tl;dr"],
    ),
    (
        "text.summary",
        Weight::Verb,
        &["summar*", "condense*", "shorten*", "sum up"],
    ),
    (
        "text.keywords",
        Weight::Noun,
        &[
            "keyword*",
            "key word",
            "key words",
            "key phrase*",
            "keyphrase*",
            "key term*",
            "topic",
            "topics",
            "theme",
            "themes",
        ],
    ),
    ("text.language", Weight::Noun, &["language", "languages"]),
    (
        "text.stats",
        Weight::Noun,
        &[
            "statistic",
            "statistics",
            "stats",
            "word count*",
            "wordcount*",
            "character count*",
            "sentence count*",
            "reading time*",
            "text length*",
        ],
    ),
    (
        "text.stats",
        Weight::Noun,
        &[
            "count words",
            "count the words",
            "count characters",
            "count the characters",
            "count sentences",
            "count the sentences",
            "count lines",
            "count the lines",
            "how many words",
            "how many characters",
            "how many sentences",
            "how many lines",
            "how many paragraphs",
            "number of words",
            "number of characters",
            "number of sentences",
        ],
    ),
    (
        "text.digest",
        Weight::Noun,
        &["digest", "digests", "overview"],
    ),
    (
        "http.fetch",
        Weight::Noun,
        &["fetch", "fetching", "download", "crawl", "scrape"],
    ),
];

/// What `text.extract` finds, but only under a verb of finding: "summarize
/// these emails" does not ask for addresses.
const EXTRACTS: &[&str] = &[
    "link",
    "links",
    "url",
    "urls",
    "mail address*",
    "email address*",
    "e-mail address*",
    "mails",
    "emails",
    "e-mails",
    "date",
    "dates",
    "deadline",
    "deadlines",
    "amount",
    "amounts",
    "price",
    "prices",
    "money",
    "data",
    "information",
    "info",
];
const FINDING: &[&str] = &[
    "extract",
    "extracting",
    "find",
    "list",
    "collect",
    "pull",
    "get",
    "gather",
    "harvest",
    "which",
    "what",
];
/// Objects too vague for any verb but "extract" itself.
const EXTRACTS_VAGUE: [&str; 3] = ["data", "information", "info"];

/// Asks for an expression, which offline only a person can write.
const SHAPING: &[&str] = &[
    "filter",
    "filter*",
    "group by",
    "grouped by",
    "group the",
    "group them",
    "reshape",
];

/// What no offline skill can do, whatever else the goal says.
const BEYOND: &[&str] = &[
    "translat*",
    "rewrite",
    "paraphrase",
    "predict*",
    "forecast*",
    "phone",
    "phones",
    "entity",
    "entities",
    "spam",
    "fraud*",
    "toxic*",
    "sarcas*",
    "irony",
    "sort",
    "deduplicate",
    "merge",
    "transcribe",
    "redact",
    "anonymi*",
];

/// What no offline skill can do by itself; beside an analysis these words only
/// dress it ("write a summary", "classify by sentiment").
const BEYOND_ALONE: &[&str] = &[
    "classif*",
    "categori*",
    "write",
    "draft",
    "reply",
    "respond",
    "answer",
    "compare",
    "rank",
    "generate",
    "create",
    "convert",
    "transform*",
    "explain",
    "recommend",
    "cluster",
    "fix",
    "compute",
    "calculate",
    "suggest",
    "improve",
];

const NEGATIONS: [&str; 11] = [
    "not", "don't", "dont", "without", "no", "never", "instead", "rather", "ignore", "skip",
    "except",
];
/// A negation reaches this many words.
const NEGATION_WORDS: usize = 3;

/// Before "language" these mean something else.
const NO_LANGUAGE: [&str; 8] = [
    "natural",
    "programming",
    "plain",
    "simple",
    "body",
    "sign",
    "clear",
    "strong",
];

/// Summarizing these is what the aggregate of every run does anyway.
const OWN_RESULTS: [&str; 8] = [
    "result",
    "results",
    "finding",
    "findings",
    "outcome",
    "outcomes",
    "everything",
    "overall",
];

/// Words of one analysis found in a goal.
struct Found {
    skill: &'static str,
    weight: Weight,
    clause: usize,
    at: usize,
    words: String,
}

fn named_outright(goal: &str, name: &'static str) -> Option<Found> {
    let at = goal.find(name)?;
    Some(Found {
        skill: name,
        weight: Weight::Noun,
        clause: 0,
        at,
        words: name.to_owned(),
    })
}

/// A goal as words, lower case, each in its clause.
struct Goal {
    words: Vec<(String, usize)>,
}

impl Goal {
    fn read(goal: &str) -> Goal {
        let goal = goal.to_lowercase().replace('’', "'");
        let mut clause = 0;
        let mut words = Vec::new();
        for piece in goal.split_whitespace() {
            let word = piece.trim_matches(|c: char| !c.is_alphanumeric());
            if matches!(word, "and" | "then" | "also" | "plus" | "but") || piece == "&" {
                clause += 1;
                continue;
            }
            if !word.is_empty() {
                words.push((word.to_owned(), clause));
            }
            if piece.ends_with([',', ';', '.', '!', '?', ':']) {
                clause += 1;
            }
        }
        Goal { words }
    }

    /// Where a phrase stands within one clause, free of negation.
    fn places<'a>(&'a self, phrase: &'a str) -> impl Iterator<Item = usize> + 'a {
        let parts: Vec<&str> = phrase.split(' ').collect();
        (0..self.words.len()).filter(move |&at| {
            let Some(words) = self.words.get(at..at + parts.len()) else {
                return false;
            };
            words
                .iter()
                .zip(&parts)
                .all(|((word, clause), part)| *clause == words[0].1 && matches(word, part))
                && !self.is_negated(at)
        })
    }

    fn is_negated(&self, at: usize) -> bool {
        let before = &self.words[at.saturating_sub(NEGATION_WORDS)..at];
        before
            .iter()
            .any(|(word, clause)| *clause == self.words[at].1 && NEGATIONS.contains(&word.as_str()))
    }

    fn phrase(&self, at: usize, phrase: &str) -> String {
        let words = &self.words[at..at + phrase.split(' ').count()];
        words
            .iter()
            .map(|(word, _)| word.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn first_of(&self, phrases: &[&str]) -> Option<String> {
        self.first_where(phrases, |_| true)
    }

    fn first_where(
        &self,
        phrases: &[&str],
        clause_counts: impl Fn(usize) -> bool,
    ) -> Option<String> {
        phrases.iter().find_map(|phrase| {
            let at = self
                .places(phrase)
                .find(|&at| clause_counts(self.words[at].1))?;
            Some(self.phrase(at, phrase))
        })
    }

    /// What the goal names: the heaviest words of each clause, in order.
    fn found(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (skill, weight, phrases) in TERMS {
            for phrase in *phrases {
                let places = self.places(phrase).filter(|&at| self.means(skill, at));
                found.extend(places.map(|at| self.find(skill, *weight, at, phrase)));
            }
        }
        found.extend(self.extraction());
        found.sort_by_key(|found| found.at);
        let heaviest = |clause| {
            found
                .iter()
                .filter(|found| found.clause == clause)
                .map(|found| found.weight)
                .max()
        };
        let kept: Vec<bool> = found
            .iter()
            .map(|one| heaviest(one.clause) == Some(one.weight))
            .collect();
        let mut kept = kept.into_iter();
        found.retain(|_| kept.next() == Some(true));
        let others = found.iter().any(|found| found.skill != "text.summary");
        found.retain(|one| {
            !(others && one.skill == "text.summary" && self.is_of_own_results(one.at))
        });
        found
    }

    fn find(&self, skill: &'static str, weight: Weight, at: usize, phrase: &str) -> Found {
        Found {
            skill,
            weight,
            clause: self.words[at].1,
            at,
            words: self.phrase(at, phrase),
        }
    }

    /// Leaves out idioms that only look like a term.
    fn means(&self, skill: &str, at: usize) -> bool {
        let word = |at: Option<usize>| {
            at.and_then(|at| self.words.get(at))
                .map_or("", |(word, _)| word.as_str())
        };
        match skill {
            "text.language" => !NO_LANGUAGE.contains(&word(at.checked_sub(1))),
            "text.sentiment" => !(word(Some(at)) == "feel" && word(Some(at + 1)) == "free"),
            _ => true,
        }
    }

    /// A verb of finding and, after it in its clause, something findable.
    fn extraction(&self) -> Option<Found> {
        FINDING.iter().find_map(|verb| {
            let extracts = verb.starts_with("extract");
            let at = self
                .places(verb)
                .find(|&at| extracts || self.opens_clause(at))?;
            EXTRACTS.iter().find_map(|object| {
                let vague = EXTRACTS_VAGUE.contains(object) && !extracts;
                let in_reach =
                    |place: &usize| *place > at && self.words[*place].1 == self.words[at].1;
                let place = self.places(object).find(in_reach).filter(|_| !vague)?;
                let words = format!("{} … {}", self.words[at].0, self.phrase(place, object));
                let words = if place == at + 1 {
                    words.replace(" …", "")
                } else {
                    words
                };
                Some(Found {
                    words,
                    ..self.find("text.extract", Weight::Verb, at, verb)
                })
            })
        })
    }

    /// "List the links" commands; "the list of links" does not.
    fn opens_clause(&self, at: usize) -> bool {
        let clause = self.words[at].1;
        self.words[..at]
            .iter()
            .filter(|word| word.1 == clause)
            .all(|(word, _)| POLITE.contains(&word.as_str()))
    }

    fn is_of_own_results(&self, at: usize) -> bool {
        let after = self.words[at + 1..].iter().take(NEGATION_WORDS);
        after
            .clone()
            .any(|(word, _)| OWN_RESULTS.contains(&word.as_str()))
    }

    /// Documents to be worked on, and no word of what to look for.
    fn is_general(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(|(word, _)| word.as_str()).collect();
        let Some(verb) = words.iter().position(|word| !POLITE.contains(word)) else {
            return false;
        };
        let object = match words[verb..] {
            ["look", "at" | "through", ..] | ["go" | "work", "through", ..] => verb + 2,
            [word, ..] if GENERAL_VERBS.contains(&word) => verb + 1,
            _ => return false,
        };
        let Some(noun) = words[object..]
            .iter()
            .position(|word| DOCUMENTS.contains(word))
        else {
            return false;
        };
        let noun = object + noun;
        let (described, tail) = (&words[object..noun], &self.words[noun + 1..]);
        let first_clause = self.words[noun].1;
        is_plain_object(described)
            && tail
                .iter()
                .all(|(word, clause)| is_harmless(word, *clause == first_clause))
    }
}

/// "5 customer support" before "tickets" describes them; "the quality of" is
/// an analysis.
fn is_plain_object(described: &[&str]) -> bool {
    let is_preposition =
        |word: &&str| ["of", "in", "for", "from", "on", "across", "within", "to"].contains(word);
    match described.iter().position(is_preposition) {
        None => true,
        Some(at) => {
            described[at] == "of" && described[..at].iter().all(|word| QUANTITIES.contains(word))
        }
    }
}

/// After the documents their own clause may say where they come from, but not
/// what for; a further clause may only name more documents.
fn is_harmless(word: &str, same_clause: bool) -> bool {
    let purpose = [
        "for", "to", "into", "by", "whether", "if", "so", "as", "how", "why", "what", "who",
        "which",
    ];
    if purpose.contains(&word) {
        return false;
    }
    same_clause || DOCUMENTS.contains(&word) || POLITE.contains(&word) || text::is_stop_word(word)
}

const POLITE: [&str; 16] = [
    "please", "kindly", "can", "could", "you", "let's", "lets", "help", "me", "i", "we", "want",
    "need", "to", "batch", "just",
];
const GENERAL_VERBS: [&str; 9] = [
    "process", "analyze", "analyse", "handle", "review", "read", "examine", "inspect", "study",
];
const QUANTITIES: [&str; 16] = [
    "all",
    "each",
    "every",
    "some",
    "most",
    "both",
    "the",
    "a",
    "this",
    "batch",
    "set",
    "list",
    "collection",
    "folder",
    "bunch",
    "rest",
];
#[rustfmt::skip]
const DOCUMENTS: [&str; 72] = [
    "article", "articles", "batch", "batches", "chat", "chats", "comment", "comments", "complaint", "complaints",
    "conversation", "conversations", "data", "doc", "docs", "document", "documents", "email", "emails", "e-mail",
    "e-mails", "entry", "entries", "everything", "feedback", "file", "files", "folder", "input", "inputs", "issue",
    "issues", "item", "items", "letter", "letters", "line", "lines", "log", "logs", "mail", "mails", "material",
    "message", "messages", "note", "notes", "page", "pages", "paper", "papers", "post", "posts", "record",
    "records", "report", "reports", "request", "requests", "response", "responses", "review", "reviews", "row",
    "rows", "sources", "survey", "surveys", "text", "texts", "ticket", "tickets",
];

fn matches(word: &str, part: &str) -> bool {
    match part.strip_suffix('*') {
        Some(beginning) => word.starts_with(beginning),
        None => word == part,
    }
}
