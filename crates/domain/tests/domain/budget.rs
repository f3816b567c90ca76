//! Budgets: what is reserved before it is spent, who is refused, and where it all is accounted.

use crate::world::{World, graph, n, start};
use domain::budget::{Account, Amount, Budget, Cost, Ledger, usd};
use domain::command::{Command, Outcome, Report, RunStart};
use domain::error::{Code, Error};
use domain::event::AttemptRef;
use domain::id::RunId;
use domain::record::{EffectClass, Finding, NewRecord, RecordState};
use domain::state::{Key, Row};
use domain::task::Failure;
use serde_json::json;

use RecordState::{InDoubt, Intended};

fn tokens(tokens: u64) -> Amount {
    Amount {
        tokens,
        ..Amount::default()
    }
}

fn done() -> RecordState {
    RecordState::Done {
        output: json!("x").into(),
    }
}

/// A run of one step of so many tasks, with this budget.
fn run(world: &mut World, tasks: usize, budget: Budget) -> RunId {
    let items: Vec<_> = (0..tasks).map(|n| json!({ "n": n })).collect();
    let steps = json!([{"id": "work", "each": {"items": items, "task": {"kind": "work"}}}]);
    world.start(RunStart {
        graph: graph(steps.clone()),
        budget: Some(budget),
        ..start(steps)
    })
}

fn account(world: &World, run: RunId) -> Account {
    match world.state.get(&Key::Account(run)) {
        Some(Row::Account(account)) => **account,
        _ => Account::default(),
    }
}

fn say(
    world: &mut World,
    lease: &AttemptRef,
    key: &str,
    state: RecordState,
    cost: Option<Amount>,
) -> Result<Outcome, Error> {
    say_last(world, lease, key, state, cost, false)
}

fn say_last(
    world: &mut World,
    lease: &AttemptRef,
    key: &str,
    state: RecordState,
    cost: Option<Amount>,
    last: bool,
) -> Result<Outcome, Error> {
    let record = NewRecord {
        key: n(key),
        effect: EffectClass::Pure,
        state,
        cost: cost.map(|amount| Cost { amount, last }),
    };
    world.report(lease, Report::Recorded(record))
}

#[test]
fn a_step_reserves_what_it_may_cost_and_settles_what_it_did() {
    let mut world = World::with_workers(&["a", "b"]);
    let run = run(
        &mut world,
        2,
        Budget {
            tokens: Some(1_000),
            ..Budget::default()
        },
    );
    let (one, two) = (world.next("a").unwrap(), world.next("b").unwrap());
    say(&mut world, &one, "turn_1", Intended, Some(tokens(400))).unwrap();
    say(&mut world, &two, "turn_1", Intended, Some(tokens(500))).unwrap();
    assert_eq!(account(&world, run).ledger.held, tokens(900));
    // 900 of 1000 are held, and a tenth is kept for last words: nobody else begins.
    let refused = say(&mut world, &one, "turn_2", Intended, Some(tokens(1))).unwrap_err();
    assert_eq!(refused.code, Code::BudgetExhausted);
    assert_eq!(
        refused.message,
        "of 1000 tokens, 0 are spent and 900 reserved; 1 more were wanted"
    );
    // What it really cost is settled; the rest is there for others again.
    say(&mut world, &one, "turn_1", done(), Some(tokens(150))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(150), tokens(500)));
    say(&mut world, &one, "turn_2", Intended, Some(tokens(250))).unwrap();
    // An outcome that does not say cost what was reserved, also when it failed.
    let failed = RecordState::Failed {
        failure: Failure::new("model.silent", "no answer"),
    };
    say(&mut world, &one, "turn_2", failed, None).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(400), tokens(500)));
    // More than was reserved is counted all the same.
    say(&mut world, &two, "turn_1", done(), Some(tokens(700))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(1_100), tokens(0)));
    assert_eq!(world.task(one.task).account.spent, tokens(400));
    assert_eq!(world.task(two.task).account.spent, tokens(700));
}

#[test]
fn last_words_may_use_the_tenth_that_is_kept_for_them_and_no_more() {
    let mut world = World::with_workers(&["a"]);
    let caps = Budget {
        tokens: Some(1_000),
        calls: Some(10),
        ..Budget::default()
    };
    let run = run(&mut world, 1, caps);
    let lease = world.next("a").unwrap();
    let turn = |tokens| Amount {
        tokens,
        ..Amount::CALL
    };
    say(&mut world, &lease, "turn_1", Intended, Some(turn(900))).unwrap();
    say(&mut world, &lease, "turn_1", done(), Some(turn(900))).unwrap();
    let ordinary = say(&mut world, &lease, "turn_2", Intended, Some(turn(100)));
    assert_eq!(ordinary.unwrap_err().code, Code::BudgetExhausted);
    let left = account(&world, run).left(true);
    assert_eq!((left.tokens, left.calls), (Some(100), Some(9)));
    assert_eq!(account(&world, run).left(false).tokens, Some(0));
    let too_many = say_last(&mut world, &lease, "last", Intended, Some(turn(101)), true);
    assert_eq!(too_many.unwrap_err().code, Code::BudgetExhausted);
    say_last(&mut world, &lease, "last", Intended, Some(turn(100)), true).unwrap();
    say(&mut world, &lease, "last", done(), Some(turn(100))).unwrap();
    assert_eq!(account(&world, run).ledger.spent.tokens, 1_000);
    assert_eq!(account(&world, run).used_percent(), 100);
}

#[test]
fn a_step_of_which_nobody_heard_again_counts_as_spent_when_it_is_done_again() {
    let mut world = World::with_workers(&["a", "b"]);
    let run = run(
        &mut world,
        1,
        Budget {
            tokens: Some(1_000),
            ..Budget::default()
        },
    );
    let lease = world.next("a").unwrap();
    say(&mut world, &lease, "turn_1", Intended, Some(tokens(300))).unwrap();
    world.lose("a");
    assert_eq!(account(&world, run).ledger.held, tokens(300));
    let again = world.next("b").unwrap();
    say(&mut world, &again, "turn_1", Intended, Some(tokens(300))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(300), tokens(300)));
    say(&mut world, &again, "turn_1", done(), Some(tokens(200))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(500), tokens(0)));
}

/// A step that turns out to cost more says so before it does: then it holds that much, or goes on with
/// what it held where there is no more.
#[test]
fn a_step_under_way_reserves_more_or_is_told_that_there_is_no_more() {
    let mut world = World::with_workers(&["a"]);
    let cap = Budget {
        tokens: Some(1_000),
        ..Budget::default()
    };
    let run = run(&mut world, 1, cap);
    let lease = world.next("a").unwrap();
    say(&mut world, &lease, "turn_1", Intended, Some(tokens(300))).unwrap();
    // Said again, as it was: nothing moves.
    say(&mut world, &lease, "turn_1", Intended, Some(tokens(300))).unwrap();
    assert_eq!(account(&world, run).ledger.held, tokens(300));
    say(&mut world, &lease, "turn_1", Intended, Some(tokens(800))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(0), tokens(800)));
    // A tenth is for last words.
    let refused = say(&mut world, &lease, "turn_1", Intended, Some(tokens(901)));
    assert_eq!(refused.unwrap_err().code, Code::BudgetExhausted);
    assert_eq!(account(&world, run).ledger.held, tokens(800));
    say(&mut world, &lease, "turn_1", done(), Some(tokens(750))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(750), tokens(0)));
}

/// The same key is the same purchase: a keyed step that is done again holds what it held, also where
/// nothing else of the cap is left.
#[test]
fn a_keyed_step_that_is_done_again_is_reserved_once() {
    let mut world = World::with_workers(&["a", "b"]);
    let cap = Budget {
        tokens: Some(1_000),
        ..Budget::default()
    };
    let run = run(&mut world, 1, cap);
    let keyed = |state, amount| {
        Report::Recorded(NewRecord {
            key: n("run_1"),
            effect: EffectClass::Keyed,
            state,
            cost: Some(Cost {
                amount,
                last: false,
            }),
        })
    };
    let lease = world.next("a").unwrap();
    // All but the tenth that is kept for last words.
    world.report(&lease, keyed(Intended, tokens(900))).unwrap();
    world.lose("a");
    let again = world.next("b").unwrap();
    // A token more than there was before is not to be had.
    let refused = world.report(&again, keyed(Intended, tokens(901)));
    assert_eq!(refused.unwrap_err().code, Code::BudgetExhausted);
    world.report(&again, keyed(Intended, tokens(900))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(0), tokens(900)));
    world.report(&again, keyed(done(), tokens(650))).unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!((ledger.spent, ledger.held), (tokens(650), tokens(0)));
}

#[test]
fn what_is_in_doubt_stays_reserved_until_somebody_knows() {
    let mut world = World::with_workers(&["a"]);
    let run = run(
        &mut world,
        1,
        Budget {
            calls: Some(3),
            ..Budget::default()
        },
    );
    let lease = world.next("a").unwrap();
    say(&mut world, &lease, "call_1", Intended, Some(Amount::CALL)).unwrap();
    say(&mut world, &lease, "call_1", InDoubt, None).unwrap();
    assert_eq!(account(&world, run).ledger.held, Amount::CALL);
    world
        .ask(Command::RecordResolve {
            task: lease.task,
            key: n("call_1"),
            finding: Finding::Done {
                output: json!("sent").into(),
            },
        })
        .unwrap();
    let ledger = account(&world, run).ledger;
    assert_eq!(
        (ledger.spent, ledger.held),
        (Amount::CALL, Amount::default())
    );
}

#[test]
fn its_owner_is_warned_once_when_four_fifths_are_spent() {
    let mut world = World::with_workers(&["a"]);
    let run = run(
        &mut world,
        1,
        Budget {
            tokens: Some(1_000),
            ..Budget::default()
        },
    );
    let lease = world.next("a").unwrap();
    let warnings = |world: &World| {
        let names = world.names(0);
        names
            .iter()
            .filter(|name| **name == "budget.warned")
            .count()
    };
    for (turn, spent, warned) in [("t1", 799, 0), ("t2", 1, 1), ("t3", 50, 1)] {
        say(&mut world, &lease, turn, Intended, Some(tokens(1))).unwrap();
        say(&mut world, &lease, turn, done(), Some(tokens(spent))).unwrap();
        assert_eq!(warnings(&world), warned, "after {turn}");
    }
    assert!(account(&world, run).warned);
}

#[test]
fn time_is_a_budget_too_and_nothing_begins_after_it() {
    let mut world = World::with_workers(&["a"]);
    let run = run(
        &mut world,
        1,
        Budget {
            wall_ms: Some(10_000),
            ..Budget::default()
        },
    );
    let lease = world.next("a").unwrap();
    let until = account(&world, run).until().unwrap();
    assert_eq!(until.0 - account(&world, run).since.0, 10_000);
    world.pass(8_999);
    say(&mut world, &lease, "t1", Intended, Some(tokens(1))).unwrap();
    say(&mut world, &lease, "t1", done(), None).unwrap();
    world.pass(1);
    let late = say(&mut world, &lease, "t2", Intended, Some(tokens(1)));
    assert_eq!(late.unwrap_err().message, "the 10 s on the clock are over");
    say_last(&mut world, &lease, "t2", Intended, Some(tokens(1)), true).unwrap();
    say(&mut world, &lease, "t2", done(), None).unwrap();
    world.pass(1_000);
    let late = say_last(&mut world, &lease, "t3", Intended, Some(tokens(1)), true);
    assert_eq!(late.unwrap_err().code, Code::BudgetExhausted);
}

/// A budget of nothing lets nothing begin, and steps that cost nothing are not its concern.
#[test]
fn a_budget_of_zero_spends_nothing() {
    let mut world = World::with_workers(&["a"]);
    let none = Budget {
        tokens: Some(0),
        ..Budget::default()
    };
    let run = run(&mut world, 1, none);
    let lease = world.next("a").unwrap();
    let refused = say_last(&mut world, &lease, "t", Intended, Some(tokens(1)), true);
    assert_eq!(refused.unwrap_err().code, Code::BudgetExhausted);
    say(&mut world, &lease, "free", Intended, None).unwrap();
    say(&mut world, &lease, "free", done(), None).unwrap();
    assert_eq!(account(&world, run).ledger, Ledger::default());
}

#[test]
fn money_and_budgets_are_written_as_people_write_them() {
    let shown = [0, 1, 420, 9_999, 10_000, 123_456, 1_000_000, 12_345_678].map(usd);
    let expected = [
        "$0.00",
        "$0.000001",
        "$0.00042",
        "$0.009999",
        "$0.01",
        "$0.12",
        "$1.00",
        "$12.34",
    ];
    assert_eq!(shown, expected);
    let budget = Budget {
        tokens: Some(200_000),
        usd_micros: Some(1_500_000),
        calls: Some(200),
        wall_ms: Some(600_000),
    };
    assert_eq!(budget.to_string(), "200000 tokens, $1.50, 200 calls, 600 s");
    assert_eq!(Budget::default().to_string(), "no bound");
}
