//! What tokens cost.

use super::*;
use agent::model::price::{Prices, cost_microdollars};

fn cost(model: &str, input: u64, cached: u64, output: u64) -> Option<u64> {
    let usage = Usage {
        input_tokens: input,
        cached_tokens: cached,
        output_tokens: output,
    };
    cost_microdollars(&model.parse().unwrap(), &usage)
}

#[test]
fn a_cost_is_the_sum_of_its_parts() {
    // 3 dollars in, 30 cents from the cache, 15 dollars out, for a million tokens each.
    let sonnet = "anthropic/claude-sonnet-4-5";
    assert_eq!(cost(sonnet, 1_000_000, 0, 0), Some(3_000_000));
    assert_eq!(cost(sonnet, 1_000_000, 1_000_000, 0), Some(300_000));
    assert_eq!(cost(sonnet, 0, 0, 1_000_000), Some(15_000_000));
    assert_eq!(cost(sonnet, 2_000, 500, 100), Some(4_500 + 150 + 1_500));
    // Rounded up, and nothing only for nothing.
    assert_eq!(cost("openai/gpt-5-mini", 1, 0, 0), Some(1));
    assert_eq!(cost("openai/gpt-5-mini", 0, 0, 0), Some(0));
    // More from the cache than was read is a provider's mistake, and costs no less than nothing.
    assert_eq!(cost(sonnet, 10, 1_000, 0), Some(3));
    assert_eq!(cost(sonnet, u64::MAX, 0, u64::MAX), Some(u64::MAX));
}

#[test]
fn a_model_without_a_price_costs_nobody_knows_what() {
    for model in [
        "openai/gpt-99",
        "ollama/qwen3",
        "scripted/demo.json",
        "gemini/gpt-5-mini",
    ] {
        assert_eq!(cost(model, 1_000, 0, 1_000), None, "{model}");
    }
}

#[test]
fn dated_names_and_both_dialects_have_the_same_price() {
    for (model, same) in [
        (
            "anthropic/claude-sonnet-4-5-20250929",
            "anthropic/claude-sonnet-4-5",
        ),
        ("openai/gpt-5-mini-2025-08-07", "openai/gpt-5-mini"),
        ("openai_responses/gpt-5-mini", "openai/gpt-5-mini"),
        (
            "openai_responses/gpt-5-mini-2025-08-07",
            "openai/gpt-5-mini",
        ),
    ] {
        assert_eq!(
            cost(model, 10_000, 0, 10),
            cost(same, 10_000, 0, 10),
            "{model}"
        );
    }
    for model in [
        "openai/gpt-5-mini-preview",
        "openai/gpt-5-mini-1234567",
        "openai/-20250101",
    ] {
        assert_eq!(cost(model, 10, 0, 10), None, "{model}");
    }
}

#[test]
fn long_requests_have_their_own_price() {
    let model = "gemini/gemini-3.1-pro-preview";
    assert_eq!(cost(model, 200_000, 0, 1_000), Some(400_000 + 12_000));
    assert_eq!(cost(model, 200_001, 0, 1_000), Some(800_004 + 18_000));
}

#[test]
fn whoever_pays_can_correct_the_table() {
    let builtin = Prices::builtin();
    let over = json!({"version": "ours-7", "models": {
        "openai/gpt-5-mini": {"input": 1_000_000, "cached": 0, "output": 2_000_000},
        "ollama/qwen3": {"input": 0, "cached": 0, "output": 0},
    }});
    let prices = builtin.with(&over.to_string()).unwrap();
    assert_eq!(prices.version, format!("{}+ours-7", builtin.version));
    let usage = Usage {
        input_tokens: 10,
        cached_tokens: 0,
        output_tokens: 10,
    };
    let of = |model: &str| prices.cost_microdollars(&model.parse().unwrap(), &usage);
    assert_eq!(of("openai/gpt-5-mini"), Some(30));
    assert_eq!(of("ollama/qwen3"), Some(0));
    let untouched = "anthropic/claude-haiku-4-5";
    assert_eq!(of(untouched), cost(untouched, 10, 0, 10));
    for (bad, fault) in [
        ("{", "EOF"),
        (r#"{"models": {}}"#, "missing field `version`"),
        (
            r#"{"version": "1", "models": {"gpt-5": {"input": 1, "cached": 1, "output": 1}}}"#,
            "gpt-5",
        ),
        (
            r#"{"version": "1", "models": {"openai/a": {"input": 1, "output": 1}}}"#,
            "`cached`",
        ),
        (
            r#"{"version": "1", "models": {"openai/a": {"input": -1, "cached": 1, "output": 1}}}"#,
            "-1",
        ),
        (
            r#"{"version": "1", "models": {}, "prices": 1}"#,
            "unknown field `prices`",
        ),
    ] {
        let error = builtin.with(bad).unwrap_err();
        assert_eq!(error.code, "model.refused");
        assert!(error.message.contains(fault), "not {fault}: {error}");
    }
}

#[test]
fn the_embedded_table_says_where_it_is_from() {
    let prices = Prices::builtin();
    assert!(!prices.version.is_empty() && !prices.source.is_empty() && !prices.date.is_empty());
    assert!(prices.models().count() >= 12);
    for (name, price) in prices.models() {
        let model: ModelName = name.parse().unwrap();
        assert_eq!(prices.price(&model), Some(price));
        // A cached token costs less than one that is read, and a written one more.
        assert!(0 < price.cached && price.cached < price.input, "{name}");
        assert!(price.input < price.output, "{name}");
        if let Some(long) = price.long {
            assert!(
                long.input > price.input && long.output > price.output,
                "{name}"
            );
        }
    }
}
