//! The providers themselves, for whoever has a key and wants to know: `CHARGEHAND_LIVE_OPENAI`
//! and its like name the model to ask. Costs a few tokens each.

use super::*;
use std::io::Write;

#[tokio::test]
async fn live_providers_answer_when_they_are_asked_for() {
    for provider in SPOKEN {
        let variable = format!("CHARGEHAND_LIVE_{}", provider.as_str().to_uppercase());
        let Ok(model) = std::env::var(&variable) else {
            // Not through `println!`, which a test that passes keeps to itself.
            let text = format!("NOT RUN: {provider} was not asked; set {variable} to a model\n");
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            continue;
        };
        let key = provider.key_variable().map(|variable| {
            let key = std::env::var(variable);
            let key = key.unwrap_or_else(|_| panic!("{variable} is not set"));
            Key::new(&key).unwrap()
        });
        let settings = Settings {
            key,
            ..Settings::default()
        };
        let name = format!("{provider}/{model}").parse().unwrap();
        let model = connect(&name, &settings).unwrap();
        let mut ask = hello();
        ask.turns = vec![Turn::user("Answer with the word yes.")];
        let (answer, heard) = super::ask(model.as_ref(), &ask).await;
        let answer = answer.unwrap();
        assert!(answer.text.to_lowercase().contains("yes"), "{answer:?}");
        assert_eq!(heard.concat(), answer.text);
        assert!(answer.usage.output_tokens > 0, "{answer:?}");
    }
}
