//! Every bound, with its unit, in one place. A bound without a test that enforces it does not ship.

/// Bytes in a name.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes in a goal.
pub const GOAL_BYTES_MAX: usize = 16 * 1024;
/// Bytes of JSON in one task's input, one output, one checkpoint, one record, one message or one
/// entry.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of JSON in the output that a gate reduces its inputs to.
pub const GATE_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes in a failure's message; longer ones are cut.
pub const FAILURE_BYTES_MAX: usize = 4 * 1024;
/// Entries in a metadata map, and headers of a message.
pub const METADATA_ENTRIES_MAX: usize = 64;
/// Bytes in one metadata value.
pub const METADATA_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Commands in one request.
pub const REQUEST_COMMANDS_MAX: usize = 10_000;
/// Tasks in one run, over all of its steps.
pub const RUN_TASKS_MAX: usize = 100_000;
/// Steps in one graph.
pub const GRAPH_STEPS_MAX: usize = 1_000;
/// Tasks whose outputs a gate may reduce by a rule of the graph (a supervisor's own reduction reads
/// them in pages instead and has no such bound).
pub const GATE_TASKS_MAX: usize = 10_000;
/// Tasks that one task may wait for, and that may wait for one task.
pub const DEPENDENCIES_MAX: usize = 1_000;
/// Bytes of source in an expression.
pub const EXPRESSION_BYTES_MAX: usize = 4 * 1024;
/// Nested brackets in an expression: the parser recurses.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Operator characters in an expression, outside strings: a chain of operators nests as deeply as
/// brackets do, only less visibly.
pub const EXPRESSION_OPERATORS_MAX: usize = 256;
/// Compiled expressions kept in memory; when full, all are forgotten.
pub const EXPRESSIONS_KEPT: usize = 1_000;
/// The highest priority; the lowest is its negative.
pub const PRIORITY_MAX: i32 = 1_000;
/// Milliseconds of waiting that weigh as much as one point of priority.
///
/// 30 s a point makes a band (10 points) worth five minutes: a task of a lower band goes ahead of
/// one of the next higher band that came more than five minutes after it, or whose party
/// ([`Party`](crate::queue::Party)) was served more than five minutes after its own. So nothing
/// starves, and the order never has to be computed again while a queue waits.
pub const AGEING_MS_PER_POINT: i64 = 30_000;
/// Attempts of one task, the first included.
pub const ATTEMPTS_MAX: u32 = 100;
/// Workers that one task may lose in a row before it becomes a dead letter.
pub const LOSSES_MAX: u32 = 20;
/// Ended attempts kept with a task; the event log has them all.
pub const ATTEMPTS_KEPT: usize = 20;
/// Steps of one task that have a record: a thousand turns of an agent, with several calls each.
pub const RECORDS_MAX: usize = 10_000;
/// Bytes of outputs and failures in all records of one task.
pub const RECORDS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Steps of one task that have a record and are not done: these are kept in the task's own row,
/// which is written whole.
pub const RECORDS_OPEN_MAX: usize = 1_000;
/// Bytes of failures, and of what people found out, in the records that the task's row keeps.
pub const RECORDS_OPEN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of outputs in one page of a task's records, one output more at most: what comes with an
/// assignment.
pub const RECORDS_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Milliseconds an attempt may take when nothing is said: ten minutes.
pub const TIMEOUT_MS_DEFAULT: u64 = 10 * 60 * 1000;
/// Milliseconds an attempt may take at most: seven days.
pub const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Milliseconds between two tries at most: one day.
pub const BACKOFF_MS_MAX: u64 = 24 * 3600 * 1000;
/// Tasks a worker may hold at once.
pub const CAPACITY_MAX: u32 = 1_000;
/// Capabilities of a worker.
pub const CAPABILITIES_MAX: usize = 256;
/// Milliseconds without a heartbeat after which a worker has lost its tasks, unless it says less or
/// more.
pub const LEASE_MS_DEFAULT: u64 = 10_000;
/// Shortest and longest lease, in milliseconds.
pub const LEASE_MS_RANGE: std::ops::RangeInclusive<u64> = 100..=3_600_000;
/// Milliseconds a task waits for its preferred worker while that one is there but full.
pub const PREFERENCE_MS: u64 = 2_000;
/// Points of priority by which waiting work must exceed running work before that one is asked to
/// yield: two bands, so that high does not evict normal.
pub const PREEMPT_POINTS: i32 = 20;
/// Worker faults in a row after which a worker is in error.
pub const WORKER_FAULTS_MAX: u32 = 3;
/// Milliseconds a worker in error gets nothing; then it may try again.
pub const WORKER_ERROR_MS: u64 = 30_000;
/// Members of a pool.
pub const POOL_MEMBERS_MAX: usize = 10_000;
/// Tasks of one concurrency key that may run at once, at most.
pub const SLOT_MAX: u32 = 100_000;
/// Tags of a blackboard entry.
pub const ENTRY_TAGS_MAX: usize = 32;
/// Entries on one board (one run's, or the shared one). Beyond it the least important, oldest ones
/// are forgotten.
pub const BOARD_ENTRIES_MAX: u32 = 10_000;
/// Milliseconds that an idempotency key is remembered: one day.
pub const RECEIPT_MS: u64 = 24 * 3600 * 1000;
/// Milliseconds that a worker is remembered after it is gone: one day.
pub const WORKER_KEPT_MS: u64 = 24 * 3600 * 1000;
/// Milliseconds that a delivered or dead message is kept: one day.
pub const MESSAGE_KEPT_MS: u64 = 24 * 3600 * 1000;
/// Recipients of one message.
pub const RECIPIENTS_MAX: usize = 10_000;
/// Times a message is offered to a receiver that fails, the first included.
pub const DELIVERIES_MAX: u32 = 3;
/// Milliseconds a message lives when nothing is said: one day.
pub const MESSAGE_TTL_MS_DEFAULT: u64 = 24 * 3600 * 1000;
/// Task types and workers counted by name in the statistics; the rest count as `(other)`.
pub const STATISTICS_NAMES_MAX: usize = 1_000;
/// Credentials of one tenant, revoked ones included.
pub const CREDENTIALS_MAX: u64 = 10_000;
/// Names of tools that are missed, counted for one tenant.
pub const DEMANDS_MAX: u64 = 1_000;
/// Scopes of one credential.
pub const CREDENTIAL_SCOPES_MAX: usize = 5;
/// Workers of one tenant, those included that are gone and not forgotten yet.
pub const WORKERS_MAX: u64 = 100_000;
/// Milliseconds after which a message that was received but not settled is offered again.
pub const MESSAGE_VISIBLE_MS: u64 = 60_000;
/// Rows in one page of a list.
pub const PAGE_MAX: usize = 1_000;
/// Pieces that an attempt says in one request, and that a reader of a run's stream gets in one answer.
pub const SAID_PIECES_MAX: usize = 256;
/// Bytes of text in them.
pub const SAID_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a tool's arguments that a stream shows.
pub const SAID_ARGUMENT_BYTES_MAX: usize = 1024;
/// Pieces of one run's stream that are kept in memory; the oldest go first.
pub const STREAM_PIECES_MAX: usize = 4_096;
/// Bytes of text in them.
pub const STREAM_BYTES_MAX: usize = 256 * 1024;
/// Runs whose stream is kept; those that ended first go first, then those that were silent longest.
pub const STREAMS_MAX: usize = 256;
/// Milliseconds that the stream of a run is kept after its end: five minutes.
pub const STREAM_KEPT_MS: u64 = 5 * 60 * 1000;

/// Refuses text longer than a payload may be.
///
/// # Errors
/// [`Code::PayloadTooLarge`](crate::error::Code::PayloadTooLarge), naming both sizes.
pub fn payload(what: &str, bytes: usize) -> Result<(), crate::error::Error> {
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(crate::error::Error::new(
            crate::error::Code::PayloadTooLarge,
            format!("{what} is {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are allowed"),
        ));
    }
    Ok(())
}

/// Refuses a map of texts, as tasks, workers, entries and messages carry it, that is too long or has
/// too long a text in it.
///
/// # Errors
/// [`Code::LimitExceeded`](crate::error::Code::LimitExceeded), naming both numbers.
pub fn metadata(
    what: &str,
    found: &std::collections::BTreeMap<crate::name::Name, String>,
) -> Result<(), crate::error::Error> {
    if found.len() > METADATA_ENTRIES_MAX {
        return Err(crate::error::Error::limit(
            what,
            found.len(),
            METADATA_ENTRIES_MAX,
        ));
    }
    let long = |value: &String| value.len() > METADATA_VALUE_BYTES_MAX;
    match found.iter().find(|(_, value)| long(value)) {
        None => Ok(()),
        Some((key, value)) => Err(crate::error::Error::limit(
            &format!("bytes in “{key}” of the {what}"),
            value.len(),
            METADATA_VALUE_BYTES_MAX,
        )),
    }
}

/// What somebody says about a failure or a decision, cut to [`FAILURE_BYTES_MAX`].
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FAILURE_BYTES_MAX)]
}
