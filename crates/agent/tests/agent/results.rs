//! What each skill gives for texts small enough to work out by hand.

use std::collections::BTreeMap;

use agent::input::{Item, read_inputs};
use agent::skill::{self, Aggregate, ItemResult, SkillError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn run(skill: &str, item: &Item, options: Value) -> Result<Value, SkillError> {
    skill::find(skill).unwrap().run(item, &options).await
}

async fn of(skill: &str, content: &str) -> Value {
    run(skill, &crate::text(content), Value::Null)
        .await
        .unwrap()
}

/// Runs a skill over files named `1`, `2`, … and folds the results.
async fn folded(skill: &str, items: Vec<Item>, options: Value) -> Aggregate {
    let mut results = Vec::new();
    for (item, number) in items.into_iter().zip(1..) {
        let output = run(skill, &item, options.clone()).await.unwrap();
        let source = crate::source(&number.to_string());
        results.push(ItemResult {
            source,
            task_id: format!("task_{number}"),
            worker: "worker_1".into(),
            output,
        });
    }
    skill::find(skill).unwrap().aggregate(&results)
}

async fn folded_texts(skill: &str, texts: &[&str]) -> Aggregate {
    folded(
        skill,
        texts.iter().map(|text| crate::text(text)).collect(),
        Value::Null,
    )
    .await
}

#[track_caller]
fn fails(result: Result<Value, SkillError>, code: &str, said: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(said), "{error}");
}

#[test]
fn every_skill_is_found_by_its_name() {
    let names: Vec<&str> = skill::all().iter().map(|skill| skill.name()).collect();
    for name in [
        "text.stats",
        "text.summary",
        "text.sentiment",
        "text.keywords",
        "text.language",
        "text.extract",
        "text.digest",
        "json.shape",
        "csv.shape",
        "http.fetch",
    ] {
        assert!(names.contains(&name), "{name}");
        assert_eq!(skill::find(name).unwrap().name(), name);
    }
    assert!(skill::find("text.unknown").is_none());
}

#[tokio::test]
async fn wrong_options_and_blank_items_are_refused_by_every_skill() {
    for skill in skill::all() {
        let refused = skill.check(&json!({"nonsense": 1})).unwrap_err();
        assert_eq!(refused.code, "option.invalid");
        assert!(refused.message.contains("nonsense"), "{refused}");
        fails(
            skill.run(&crate::text("x"), &json!({"nonsense": 1})).await,
            "option.invalid",
            skill.name(),
        );
        assert!(skill.check(&Value::Null).is_ok() && skill.check(&json!({})).is_ok());
        if skill.name().starts_with("text.") {
            fails(
                skill
                    .run(&crate::record(json!({"n": 1})), &Value::Null)
                    .await,
                "item.no_text",
                "t.csv row 1",
            );
        }
    }
}

#[test]
fn every_skill_folds_no_results_and_strange_results() {
    let strange = ItemResult {
        source: crate::source("x"),
        task_id: "t".into(),
        worker: "w".into(),
        output: json!([1, "other"]),
    };
    for skill in skill::all() {
        assert_eq!(skill.aggregate(&[]).value["count"], 0, "{}", skill.name());
        assert_eq!(
            skill.aggregate(std::slice::from_ref(&strange)).value["count"],
            1,
            "{}",
            skill.name()
        );
    }
}

#[tokio::test]
async fn stats_count() {
    assert_eq!(
        of("text.stats", "Hello world. Bye!\n\nNew para here").await,
        json!({
            "characters": 32, "words": 6, "sentences": 3, "lines": 3, "paragraphs": 2, "reading_seconds": 2,
            "mean_word_characters": 4.0, "mean_sentence_words": 2.0,
        })
    );
    let emoji = of("text.stats", "👍🏽 é").await;
    assert_eq!(
        (&emoji["characters"], &emoji["words"]),
        (&json!(3), &json!(1))
    );
    let wrapped = of(
        "text.stats",
        "One sentence over\ntwo lines.\n- a list entry\n- another",
    )
    .await;
    assert_eq!(wrapped["sentences"], 3);
}

#[tokio::test]
async fn stats_fold_to_totals() {
    let aggregate = folded_texts("text.stats", &["one two three", "one"]).await;
    assert_eq!(aggregate.value["words"], 4);
    assert_eq!(aggregate.value["mean_words"], 2.0);
    assert_eq!(
        aggregate.value["longest"],
        json!({"source": {"file": "1"}, "words": 3})
    );
    assert_eq!(
        aggregate.value["shortest"],
        json!({"source": {"file": "2"}, "words": 1})
    );
    assert!(
        aggregate.text.contains("2 texts: 4 words"),
        "{}",
        aggregate.text
    );
}

/// The expected scores are those VADER's authors publish with their examples.
#[tokio::test]
async fn sentiment_knows_praise_negation_intensity_and_facts() {
    for (content, label, score) in [
        ("VADER is smart, handsome, and funny.", "positive", 0.8316),
        (
            "VADER is not smart, handsome, nor funny.",
            "negative",
            -0.7424,
        ),
        ("The book was good.", "positive", 0.4404),
        ("At least it isn't a horrible book.", "positive", 0.431),
        ("Today SUX!", "negative", -0.5461),
        (
            "VADER is VERY SMART, handsome, and FUNNY!!!",
            "positive",
            0.9342,
        ),
        ("The cable is two metres long.", "neutral", 0.0),
    ] {
        let output = of("text.sentiment", content).await;
        assert_eq!(
            (&output["label"], &output["score"]),
            (&json!(label), &json!(score)),
            "{content}"
        );
    }
}

#[tokio::test]
async fn sentiment_of_a_long_text_is_the_mean_of_its_telling_sentences() {
    // 0.4404 and 0.4310; the fact between them has no say: 0.8714 / 2.
    let output = of(
        "text.sentiment",
        "The book was good. I bought it in May. At least it isn't a horrible book.",
    )
    .await;
    assert_eq!(
        (&output["score"], &output["sentences"]),
        (&json!(0.4357), &json!(3))
    );
    assert_eq!(of("text.sentiment", ":)").await["label"], "positive");
    let german = "Die Lieferung kam leider viel zu spät und das Gerät funktioniert überhaupt nicht, sehr ärgerlich.";
    assert!(
        of("text.sentiment", german).await["note"]
            .as_str()
            .unwrap()
            .contains("German")
    );
}

#[tokio::test]
async fn sentiment_folds_to_counts_mean_and_examples() {
    let texts = [
        "The book was good.",
        "Today SUX!",
        "It is a book.",
        "VADER is smart, handsome, and funny.",
    ];
    let aggregate = folded_texts("text.sentiment", &texts).await;
    let value = &aggregate.value;
    assert_eq!(
        (&value["positive"], &value["negative"], &value["neutral"]),
        (&json!(2), &json!(1), &json!(1))
    );
    // (0.4404 - 0.5461 + 0 + 0.8316) / 4 = 0.181475
    assert_eq!(value["mean_score"], 0.1815);
    let sources = |side: &str| -> Vec<Value> {
        value[side]
            .as_array()
            .unwrap()
            .iter()
            .map(|example| example["source"]["file"].clone())
            .collect()
    };
    assert_eq!(sources("strongest_positive"), ["4", "1"]);
    assert_eq!(sources("strongest_negative"), ["2"]);
    for said in [
        "4 texts: 2 positive, 1 negative, 1 neutral",
        "+0.1815",
        "+0.8316  4  “VADER is smart",
        "-0.5461  2",
    ] {
        assert!(aggregate.text.contains(said), "{}", aggregate.text);
    }
}

/// The reviews that ship with the product, as a person reads them.
#[tokio::test]
async fn the_example_reviews_get_the_labels_a_person_would_give() {
    let reviews = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/reviews");
    let items = read_inputs(&[reviews.to_owned()], &mut "".as_bytes()).unwrap();
    let expected = BTreeMap::from([
        ("01", "positive"),
        ("02", "negative"),
        ("03", "negative"),
        ("04", "positive"),
        ("05", "positive"),
        ("06", "negative"),
        ("07", "neutral"),
        ("08", "negative"),
        ("09", "positive"),
        ("10", "positive"),
    ]);
    assert_eq!(items.len(), expected.len());
    for item in &items {
        let output = run("text.sentiment", item, Value::Null).await.unwrap();
        let number = &item.source.file[reviews.len() + 1..][..2];
        assert_eq!(
            output["label"], expected[number],
            "{}: {output}",
            item.source
        );
        assert!(output.get("note").is_none(), "{}: {output}", item.source);
    }
}

#[tokio::test]
async fn summaries_are_the_best_sentences_in_order() {
    // cats 2, all else 1: (2+1)/2 × 1.5 = 2.25, (2+1+1)/3 = 1.3333, (1+1)/2 = 1.
    let content = "Cats sleep. Cats eat fish. Dogs bark.";
    let output = run(
        "text.summary",
        &crate::text(content),
        json!({"sentences": 2}),
    )
    .await
    .unwrap();
    assert_eq!(
        output,
        json!({
            "summary": "Cats sleep. Cats eat fish.",
            "sentences": [
                {"index": 0, "score": 2.25, "text": "Cats sleep."},
                {"index": 1, "score": 1.3333, "text": "Cats eat fish."},
            ],
            "sentences_total": 3,
        })
    );
    // 4 sentences; the last repeats the words of the second and beats the third.
    let later = "It was. Green tea helps. Birds sing. Green tea.";
    let output = run("text.summary", &crate::text(later), json!({"sentences": 2}))
        .await
        .unwrap();
    assert_eq!(output["summary"], "Green tea helps. Green tea.");
    assert_eq!(of("text.summary", content).await["summary"], content);
    for wrong in [0, 51] {
        fails(
            run(
                "text.summary",
                &crate::text("x"),
                json!({"sentences": wrong}),
            )
            .await,
            "option.invalid",
            "between 1 and 50",
        );
    }
    let aggregate = folded_texts("text.summary", &["One thing.", "Another."]).await;
    assert!(
        aggregate.text.contains("  2: Another."),
        "{}",
        aggregate.text
    );
}

#[tokio::test]
async fn keywords_are_scored_by_rake() {
    // battery, life: degree 2+3 over frequency 2 = 2.5 each; matters: 3/1.
    let content = "Battery life is great. Battery life matters.";
    assert_eq!(
        of("text.keywords", content).await["keywords"],
        json!([
            {"keyword": "battery life matters", "score": 8.0, "count": 1},
            {"keyword": "battery life", "score": 5.0, "count": 1},
            {"keyword": "great", "score": 1.0, "count": 1},
        ])
    );
    let one = run("text.keywords", &crate::text(content), json!({"limit": 1}))
        .await
        .unwrap();
    assert_eq!(one["keywords"].as_array().unwrap().len(), 1);
    for wrong in [0, 101] {
        fails(
            run("text.keywords", &crate::text("x"), json!({"limit": wrong})).await,
            "option.invalid",
            "between 1 and 100",
        );
    }
    let aggregate = folded_texts("text.keywords", &["Green tea.", "Green tea and milk."]).await;
    assert_eq!(
        aggregate.value["keywords"],
        json!([{"keyword": "green tea", "texts": 2}, {"keyword": "milk", "texts": 1}])
    );
}

#[tokio::test]
async fn languages_are_told_apart() {
    for (content, code, name) in [
        (
            "The quick brown fox jumps over the lazy dog because it has nothing better to do.",
            "en",
            "English",
        ),
        (
            "Der schnelle braune Fuchs springt über den faulen Hund, weil er nichts Besseres zu tun hat.",
            "de",
            "German",
        ),
        (
            "Je ne sais pas pourquoi le renard saute par-dessus le chien paresseux ce matin.",
            "fr",
            "French",
        ),
        ("素早い茶色の狐がのろまな犬を飛び越える。", "ja", "Japanese"),
    ] {
        let output = of("text.language", content).await;
        assert_eq!(
            (&output["code"], &output["name"]),
            (&json!(code), &json!(name))
        );
        assert_eq!(output["reliable"], true, "{output}");
    }
    assert_eq!(of("text.language", "12345").await["code"], "und");
    let aggregate = folded_texts("text.language", &["12345", "678"]).await;
    assert_eq!(
        aggregate.value["languages"],
        json!([{"name": "undetermined", "texts": 2}])
    );
    assert_eq!(aggregate.value["unreliable"], 2);
}

#[tokio::test]
async fn links_and_mails_come_without_their_surroundings() {
    let output = of(
        "text.extract",
        "See https://example.org/a_(b)?q=1, (http://x.test/y) and www.site.test. Ask Jo.Doe+x@mail.example.co.uk! \
         Again: https://example.org/a_(b)?q=1. Not a mail: @home, a@b.",
    )
    .await;
    assert_eq!(
        output["links"],
        json!([
            "https://example.org/a_(b)?q=1",
            "http://x.test/y",
            "www.site.test"
        ])
    );
    assert_eq!(output["mails"], json!(["Jo.Doe+x@mail.example.co.uk"]));
}

#[tokio::test]
async fn dates_are_read_and_open_ones_stay_open() {
    let output = of(
        "text.extract",
        "2026-11-21, 1.2.2026, 13/04/2026, 04/13/2026, 03/04/2026, 05/05/2026, 21st of November 2026, \
         Nov. 3, 2026, 29 February 2024; never 29 February 2026, 2026-13-01 or 31.4.2026.",
    )
    .await;
    let dates: Vec<(&str, Option<&str>)> = output["dates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|date| (date["text"].as_str().unwrap(), date["date"].as_str()))
        .collect();
    assert_eq!(
        dates,
        [
            ("2026-11-21", Some("2026-11-21")),
            ("1.2.2026", Some("2026-02-01")),
            ("13/04/2026", Some("2026-04-13")),
            ("04/13/2026", Some("2026-04-13")),
            ("03/04/2026", None),
            ("05/05/2026", Some("2026-05-05")),
            ("21st of November 2026", Some("2026-11-21")),
            ("Nov. 3, 2026", Some("2026-11-03")),
            ("29 February 2024", Some("2024-02-29")),
        ]
    );
}

#[tokio::test]
async fn amounts_are_read_in_any_notation() {
    let output = of(
        "text.extract",
        "$12.50, € 1.234,50, 1,234,567 USD, 99 cents, CHF 1'234.50, 5 dollars, £7 and 1.500 EUR; no amount: 42, 3 kg.",
    )
    .await;
    let amounts: Vec<(&str, Option<&str>, f64)> = output["amounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|find| {
            (
                find["text"].as_str().unwrap(),
                find["currency"].as_str(),
                find["value"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        amounts,
        [
            ("$12.50", Some("USD"), 12.5),
            ("€ 1.234,50", Some("EUR"), 1234.5),
            ("1,234,567 USD", Some("USD"), 1_234_567.0),
            ("99 cents", None, 0.99),
            ("CHF 1'234.50", Some("CHF"), 1234.5),
            ("5 dollars", Some("USD"), 5.0),
            ("£7", Some("GBP"), 7.0),
            ("1.500 EUR", Some("EUR"), 1500.0),
        ]
    );
}

#[tokio::test]
async fn finds_are_bounded_and_folded() {
    let many: String = (0..1_001).map(|n| format!("u{n}@x.test ")).collect();
    let output = of("text.extract", &many).await;
    assert_eq!(
        (
            output["mails"].as_array().unwrap().len(),
            &output["truncated"]
        ),
        (1_000, &json!(true))
    );
    let aggregate = folded_texts("text.extract", &["a@x.test $5", "a@x.test b@x.test"]).await;
    assert_eq!(
        aggregate.value["mails"],
        json!({"total": 3, "unique": [{"text": "a@x.test", "texts": 2}, {"text": "b@x.test", "texts": 1}]})
    );
    assert!(
        aggregate.text.contains("mails: 3 found, 2 different"),
        "{}",
        aggregate.text
    );
}

#[tokio::test]
async fn digests_join_what_the_single_skills_say() {
    let content =
        "The book was good. It has many pages and every page of it says something about green tea.";
    let output = of("text.digest", content).await;
    assert_eq!(
        output["sentiment"],
        json!({"label": "positive", "score": 0.4404})
    );
    assert_eq!(output["language"]["code"], "en");
    assert_eq!(output["words"], 18);
    assert!(
        output["keywords"]
            .as_array()
            .unwrap()
            .contains(&json!("green tea")),
        "{output}"
    );
    let german = "Die Lieferung kam leider viel zu spät und das Gerät funktioniert überhaupt nicht, sehr ärgerlich.";
    assert_eq!(of("text.digest", german).await["sentiment"], Value::Null);
    let aggregate = folded_texts("text.digest", &[content, german]).await;
    assert!(
        aggregate.text.contains("languages: 1 English, 1 German"),
        "{}",
        aggregate.text
    );
    assert!(
        aggregate.text.contains("sentiment: 1 positive"),
        "{}",
        aggregate.text
    );
}

fn sale(city: &str, amount: Value) -> Item {
    crate::record(json!({"city": city, "amount": amount, "note": {"by": "me"}, "unit price": "2"}))
}

#[tokio::test]
async fn records_are_filtered_selected_and_grouped() {
    let options = json!({
        "filter": "amount > 1",
        "select": {"city": "city", "double": "item.amount * 2"},
        "group": "city",
    });
    let output = run("json.shape", &sale("Rome", json!(5)), options.clone())
        .await
        .unwrap();
    assert_eq!(
        output,
        json!({"kept": true, "group": "Rome", "value": {"city": "Rome", "double": 10}})
    );
    assert_eq!(
        run("json.shape", &sale("Rome", json!(1)), options.clone())
            .await
            .unwrap(),
        json!({"kept": false})
    );

    let items = vec![
        sale("Rome", json!(5)),
        sale("Oslo", json!(2)),
        sale("Rome", json!(3)),
        sale("Oslo", json!(0)),
    ];
    let aggregate = folded("json.shape", items, options).await;
    assert_eq!(
        (&aggregate.value["kept"], &aggregate.value["filtered_out"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(
        aggregate.value["groups"],
        json!([
            {"group": "Oslo", "count": 1, "sums": {"double": 4.0}},
            {"group": "Rome", "count": 2, "sums": {"double": 16.0}},
        ])
    );
    assert!(
        aggregate.text.contains("  Rome: 2 records, double 16"),
        "{}",
        aggregate.text
    );
}

#[tokio::test]
async fn fields_are_selected_by_name_and_path() {
    let options =
        json!({"select": ["city", "note.by", "unit price", "absent"], "group": "unit price"});
    let output = run("json.shape", &sale("Rome", json!(5)), options)
        .await
        .unwrap();
    assert_eq!(
        output,
        json!({
            "kept": true, "group": "2",
            "value": {"city": "Rome", "note.by": "me", "unit price": "2", "absent": null},
        })
    );
}

#[tokio::test]
async fn csv_cells_are_typed_and_json_strings_are_not() {
    let row = sale("Rome", json!("5"));
    let options = json!({"filter": "amount > 3", "select": ["amount"]});
    assert_eq!(
        run("csv.shape", &row, options.clone()).await.unwrap()["value"],
        json!({"amount": 5})
    );
    fails(
        run("json.shape", &row, options).await,
        "expression.invalid",
        "t.csv row 1",
    );
    let code = run(
        "csv.shape",
        &sale("Rome", json!("007")),
        json!({"select": ["amount"]}),
    )
    .await
    .unwrap();
    assert_eq!(code["value"], json!({"amount": "007"}));
}

#[tokio::test]
async fn bad_shapes_are_explained() {
    let row = sale("Rome", json!(5));
    fails(
        run("json.shape", &row, json!({"filter": "amount"})).await,
        "shape.filter_not_boolean",
        "gave 5",
    );
    fails(
        run("json.shape", &row, json!({"filter": "amount >"})).await,
        "expression.invalid",
        "",
    );
    fails(
        run("json.shape", &row, json!({"filter": "missing > 1"})).await,
        "expression.invalid",
        "missing",
    );
    fails(
        run("json.shape", &crate::text("plain"), json!({})).await,
        "item.no_record",
        "t.txt",
    );
    let from_text = run("json.shape", &crate::text("{\"a\": 1}"), Value::Null)
        .await
        .unwrap();
    assert_eq!(from_text["value"], json!({"a": 1}));
    let wide: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    fails(
        run("json.shape", &row, json!({"select": wide})).await,
        "option.invalid",
        "1001 fields",
    );
}

/// Answers each connection with the next of these responses.
async fn server(responses: Vec<String>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(response.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

fn response(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn fetch(url: &str, options: Value) -> Result<Value, SkillError> {
    let mut options = options;
    options["url"] = url.into();
    run("http.fetch", &crate::text("x"), options).await
}

#[tokio::test]
async fn a_page_is_fetched_through_a_redirect() {
    let page = "<title>Hi</title><p>Hello <b>there</b></p>";
    let host = server(vec![
        response("302 Found\r\nLocation: /next", ""),
        response("200 OK\r\nContent-Type: text/html; charset=utf-8", page),
    ])
    .await;
    let output = fetch(&format!("http://{host}/"), json!({"allow_private": true}))
        .await
        .unwrap();
    let page = &output["pages"][0];
    assert_eq!(
        (&page["status"], &page["title"], &page["bytes"]),
        (&json!(200), &json!("Hi"), &json!(42))
    );
    assert_eq!(page["text"], "Hi\nHello there");
    assert_eq!(page["final_url"], format!("http://{host}/next"));
}

#[tokio::test]
async fn a_long_page_keeps_the_beginning_of_its_text_and_says_so() {
    let plain = "200 OK\r\nContent-Type: text/plain";
    for (chars, truncated) in [(50_000, false), (50_001, true)] {
        let host = server(vec![response(plain, &"x".repeat(chars))]).await;
        let output = fetch(&format!("http://{host}/"), json!({"allow_private": true}))
            .await
            .unwrap();
        let page = &output["pages"][0];
        assert_eq!(page["text"].as_str().unwrap().len(), 50_000);
        assert_eq!(
            (&page["bytes"], &page["text_truncated"]),
            (&json!(chars), &json!(truncated))
        );
    }
}

#[tokio::test]
async fn private_hosts_and_other_schemes_are_refused() {
    for url in [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://169.254.169.254/latest",
        "http://10.1.2.3/",
        "http://0.0.0.0/",
    ] {
        fails(fetch(url, json!({})).await, "http.private_address", "");
    }
    for url in [
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://x/",
        "nonsense",
        "http://me:pw@example.org/",
    ] {
        fails(
            fetch(url, json!({"allow_private": true})).await,
            "http.bad_url",
            "",
        );
    }
}

#[tokio::test]
async fn pages_are_bounded_in_size_time_and_redirects() {
    let host = server(vec![response("200 OK", &"x".repeat(101))]).await;
    let options = json!({"allow_private": true, "bytes_max": 100});
    fails(
        fetch(&format!("http://{host}/"), options).await,
        "http.too_large",
        "100 bytes",
    );

    let host = server(vec![response("302 Found\r\nLocation: /again", ""); 10]).await;
    fails(
        fetch(&format!("http://{host}/"), json!({"allow_private": true})).await,
        "http.too_many_redirects",
        "5 times",
    );

    let host = server(vec![response(
        "302 Found\r\nLocation: file:///etc/passwd",
        "",
    )])
    .await;
    fails(
        fetch(&format!("http://{host}/"), json!({"allow_private": true})).await,
        "http.bad_url",
        "file",
    );

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let late = fetch(&url, json!({"allow_private": true, "time_ms_max": 200})).await;
    assert!(late.as_ref().unwrap_err().retryable);
    fails(late, "http.timeout", "200 ms");

    let many: String = (0..21).map(|n| format!("http://x.test/{n} ")).collect();
    fails(
        run("http.fetch", &crate::text(&many), Value::Null).await,
        "http.too_many",
        "20 links",
    );
    fails(
        run("http.fetch", &crate::text("no link"), Value::Null).await,
        "http.no_url",
        "t.txt",
    );
    fails(
        fetch("http://x.test/", json!({"bytes_max": 100_000_000})).await,
        "option.invalid",
        "bytes_max",
    );
}

#[tokio::test]
async fn a_failing_page_is_told_apart_by_who_can_act() {
    for (status, retryable) in [
        ("404 Not Found", false),
        ("503 Busy", true),
        ("429 Slow down", true),
    ] {
        let host = server(vec![response(status, "")]).await;
        let error = fetch(&format!("http://{host}/"), json!({"allow_private": true}))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code, error.retryable),
            ("http.status", retryable),
            "{status}"
        );
    }
    let host = server(vec![
        response("404 Not Found", ""),
        response("200 OK\r\nContent-Type: text/plain", "fine"),
    ])
    .await;
    let item = crate::text(&format!("http://{host}/a http://{host}/b"));
    let output = run("http.fetch", &item, json!({"allow_private": true}))
        .await
        .unwrap();
    assert_eq!(output["pages"][0]["error"]["code"], "http.status");
    assert_eq!(output["pages"][1]["text"], "fine");
    let aggregate = folded_one("http.fetch", output);
    assert!(
        aggregate
            .text
            .starts_with("1 page fetched, 1 failed, 4 bytes"),
        "{}",
        aggregate.text
    );
}

fn folded_one(skill: &str, output: Value) -> Aggregate {
    let result = ItemResult {
        source: crate::source("1"),
        task_id: "t".into(),
        worker: "w".into(),
        output,
    };
    skill::find(skill).unwrap().aggregate(&[result])
}
