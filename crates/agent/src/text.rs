//! How a text is cut into paragraphs, sentences and words, once for all skills.
//!
//! Unicode's rules (UAX 29) do the cutting; this module adds only what they
//! leave to the reader: a line end inside a paragraph is not a sentence end,
//! but a heading or a list entry is a sentence of its own.
//!
//! Deliberately absent: Markdown rendering, stemming and languages. The stop
//! words are English, and the skills that use them say so.

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

/// Characters of a text quoted as an example.
pub(crate) const EXCERPT_CHARS_MAX: usize = 120;

/// Blocks of lines between blank lines, trimmed, none of them empty.
pub(crate) fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        if !line.trim().is_empty() {
            lines.push(line.trim());
        } else if !lines.is_empty() {
            paragraphs.push(lines.join("\n"));
            lines.clear();
        }
    }
    paragraphs
}

/// Sentences in order, each on one line, none without a letter or digit.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for paragraph in paragraphs(text) {
        let mut block = String::new();
        for line in paragraph.lines() {
            if opens_block(line) {
                cut_sentences(&block, &mut sentences);
                block.clear();
            } else if !block.is_empty() {
                block.push(' ');
            }
            block.push_str(line);
        }
        cut_sentences(&block, &mut sentences);
    }
    sentences
}

fn cut_sentences(block: &str, sentences: &mut Vec<String>) {
    sentences.extend(
        block
            .unicode_sentences()
            .map(|sentence| sentence.trim().to_owned()),
    );
}

/// A Markdown heading, quote or list entry starts a sentence of its own.
fn opens_block(line: &str) -> bool {
    if line.starts_with(['#', '>']) || ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark))
    {
        return true;
    }
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && (rest.starts_with(". ") || rest.starts_with(") "))
}

/// Words as Unicode cuts them: no punctuation, no blanks.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.unicode_words()
}

/// User-perceived characters.
pub(crate) fn characters(text: &str) -> usize {
    text.graphemes(true).count()
}

/// The text on one line, cut at a word near [`EXCERPT_CHARS_MAX`] characters.
pub(crate) fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((cut, _)) = line.char_indices().nth(EXCERPT_CHARS_MAX) else {
        return line;
    };
    let cut = line[..cut].rfind(' ').unwrap_or(cut);
    format!("{}…", &line[..cut])
}

/// Rounded to four decimals, so equal work prints equal figures.
pub(crate) fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Is this lower-case word too common in English to mean anything?
pub(crate) fn is_stop_word(word: &str) -> bool {
    let word = word.replace('’', "'");
    STOP_WORDS.contains(&word.as_str())
}

/// A pattern that is a constant of this crate.
pub(crate) fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern, compiled by the tests of its skill")
}

#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "a", "about", "above", "after", "again", "against", "all", "also", "am", "an", "and", "any", "are",
    "aren't", "as", "at", "be", "because", "been", "before", "being", "below", "between", "both", "but",
    "by", "can", "can't", "cannot", "could", "couldn't", "did", "didn't", "do", "does", "doesn't",
    "doing", "don't", "down", "during", "each", "even", "ever", "every", "few", "for", "from", "further",
    "get", "gets", "got", "had", "hadn't", "has", "hasn't", "have", "haven't", "having", "he", "her",
    "here", "hers", "herself", "him", "himself", "his", "how", "however", "i", "i'd", "i'll", "i'm",
    "i've", "if", "in", "into", "is", "isn't", "it", "it's", "its", "itself", "just", "let", "like",
    "made", "make", "many", "may", "me", "might", "more", "most", "much", "must", "my", "myself",
    "never", "no", "nor", "not", "now", "of", "off", "on", "once", "one", "only", "or", "other", "our",
    "ours", "ourselves", "out", "over", "own", "quite", "rather", "really", "s", "said", "same", "shall",
    "she", "should", "shouldn't", "since", "so", "some", "still", "such", "t", "than", "that", "that's",
    "the", "their", "theirs", "them", "themselves", "then", "there", "there's", "these", "they",
    "they're", "they've", "this", "those", "through", "to", "too", "two", "under", "until", "up", "upon",
    "us", "very", "was", "wasn't", "we", "we're", "we've", "were", "weren't", "what", "when", "where",
    "which", "while", "who", "whom", "why", "will", "with", "within", "without", "won't", "would",
    "wouldn't", "yet", "you", "you'd", "you'll", "you're", "you've", "your", "yours", "yourself",
    "yourselves",
];
