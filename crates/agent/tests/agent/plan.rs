//! Which skill a goal gets, and which goals get none.

use agent::plan::{GOAL_BYTES_MAX, choose};
use serde_json::{Value, json};

#[track_caller]
fn chooses(goal: &str, skill: &str, because: &str) {
    let choice =
        choose(goal, &[crate::text("some text")]).unwrap_or_else(|error| panic!("{goal}: {error}"));
    assert_eq!(choice.skill.name(), skill, "{goal}: {}", choice.because);
    assert!(
        choice.because.contains(because),
        "{goal}: {}",
        choice.because
    );
}

#[track_caller]
fn refuses(goal: &str, code: &str) {
    match choose(goal, &[crate::text("some text")]) {
        Ok(choice) => panic!(
            "{goal}: chose {} because {}",
            choice.skill.name(),
            choice.because
        ),
        Err(error) => assert_eq!(error.code, code, "{goal}: {error}"),
    }
}

// S0-41: another goal, another plan.
#[test]
fn the_goals_words_name_the_skill() {
    for (goal, skill, because) in [
        (
            "Analyze the sentiment of these customer reviews",
            "text.sentiment",
            "“sentiment”",
        ),
        ("How do customers feel?", "text.sentiment", "“feel”"),
        (
            "Are these reviews positive or negative?",
            "text.sentiment",
            "“positive or negative”",
        ),
        (
            "Classify the reviews as positive and negative",
            "text.sentiment",
            "“positive”",
        ),
        ("Summarize these reports", "text.summary", "“summarize”"),
        (
            "Write a summary of each document",
            "text.summary",
            "“summary”",
        ),
        ("tl;dr please", "text.summary", "tl;dr"),
        (
            "Extract links, dates and amounts",
            "text.extract",
            "“extract links”",
        ),
        (
            "Find all the email addresses in these letters",
            "text.extract",
            "“find … email addresses”",
        ),
        (
            "Extract data from 10 sources",
            "text.extract",
            "“extract data”",
        ),
        ("Extract the keywords", "text.keywords", "“keywords”"),
        ("What are the main topics?", "text.keywords", "“topics”"),
        ("What language is this?", "text.language", "“language”"),
        ("Give me a word count", "text.stats", "“word count”"),
        (
            "How many words are in each file?",
            "text.stats",
            "“how many words”",
        ),
        ("Statistics for these files", "text.stats", "“statistics”"),
        ("Fetch these pages", "http.fetch", "“fetch”"),
        (
            "run text.keywords on it",
            "text.keywords",
            "“text.keywords”",
        ),
    ] {
        chooses(goal, skill, because);
    }
}

#[test]
fn a_noun_outweighs_a_verb_in_one_clause() {
    chooses(
        "Summarize the sentiment of these reviews",
        "text.sentiment",
        "“sentiment”",
    );
    chooses(
        "Analyze the sentiment and summarize the results",
        "text.sentiment",
        "“sentiment”",
    );
}

#[test]
fn documents_without_an_analysis_get_the_digest_and_the_reason_says_so() {
    for goal in [
        "Process 5 customer support tickets",
        "Process 3 documents",
        "Please analyze these reviews",
        "Handle all of these emails and letters",
        "Go through the quarterly reports from the Berlin office",
        "Review the documents.",
    ] {
        chooses(goal, "text.digest", "names no specific analysis");
    }
}

#[test]
fn two_analyses_are_ambiguous() {
    refuses(
        "Analyze the sentiment and find the keywords",
        "plan.ambiguous",
    );
    refuses(
        "Summarize these reports, then count the words",
        "plan.ambiguous",
    );
    refuses("Fetch these pages and summarize them", "plan.ambiguous");
    let error = choose("Give me keywords and statistics", &[]).unwrap_err();
    assert!(
        error.message.contains("“keywords” (text.keywords)"),
        "{error}"
    );
    assert!(
        error.message.contains("“statistics” (text.stats)"),
        "{error}"
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    for goal in [
        "Make me rich",
        "Translate these documents into French",
        "Translate and summarize these documents",
        "Process the documents and translate them",
        "Review this code for security bugs",
        "Analyze the quality of these reviews",
        "Process the payroll",
        "Analyze reviews for fraud",
        "Reply to these tickets",
        "Improve the natural language of this text",
        "Feel free to do anything",
        "Extract phone numbers and links",
        "Bewerte die Stimmung",
        "???",
    ] {
        refuses(goal, "plan.no_skill");
    }
    let error = choose("Make me rich", &[]).unwrap_err();
    for said in [
        "--skill NAME",
        "--worker-command",
        "model",
        "text.sentiment",
        "http.fetch",
        "json.shape",
    ] {
        assert!(error.hint.contains(said), "{}", error.hint);
    }
}

#[test]
fn negated_words_do_not_count() {
    chooses(
        "Do not summarize, just extract the links",
        "text.extract",
        "links",
    );
    chooses(
        "Find the keywords, not the sentiment",
        "text.keywords",
        "“keywords”",
    );
    refuses("Do not analyze the sentiment", "plan.no_skill");
}

#[test]
fn documents_are_not_mistaken_for_analyses() {
    chooses("Summarize these emails", "text.summary", "“summarize”");
    chooses("Summarize the list of links", "text.summary", "“summarize”");
    chooses("Process these customer reviews", "text.digest", "");
}

#[test]
fn filters_need_a_person() {
    refuses("Filter out the reviews below 3 stars", "plan.needs_options");
    refuses("Group the rows by city", "plan.needs_options");
}

#[test]
fn the_goal_itself_is_checked() {
    refuses("", "goal.empty");
    refuses(" \n\t", "goal.empty");
    refuses(&"sentiment ".repeat(200_000), "goal.too_large");
    let longest = format!("sentiment{}", " ".repeat(GOAL_BYTES_MAX - 9));
    chooses(&longest, "text.sentiment", "");
    refuses(&format!("{longest} "), "goal.too_large");
}

#[test]
fn records_without_text_get_no_text_skill() {
    let numbers = [crate::record(json!({"n": 1}))];
    assert_eq!(
        choose("Analyze the sentiment", &numbers).unwrap_err().code,
        "plan.no_text"
    );
    assert_eq!(
        choose("Process these records", &numbers).unwrap_err().code,
        "plan.no_text"
    );
}

#[test]
fn one_link_in_the_goal_is_fetched_when_there_is_no_input() {
    let choice = choose("Fetch https://example.org/sentiment", &[]).unwrap();
    assert_eq!(
        (choice.skill.name(), choice.options),
        (
            "http.fetch",
            json!({"url": "https://example.org/sentiment"})
        )
    );
    let choice = choose("Fetch https://example.org/", &[crate::text("x")]).unwrap();
    assert_eq!(choice.options, Value::Null);
}
