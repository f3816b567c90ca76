//! Errors as a closed list: each says who can act, whether trying again can help, what happened and
//! what to do. `docs/errors.md` is generated from this table.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The request is wrong; the same request will be refused again.
    Caller,
    /// The request was right for a state that has changed; read again, then decide.
    Conflict,
    /// Something outside: disk, machine, load. The operator can act.
    World,
    /// A defect in Chargehand.
    Bug,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $who:ident, $retry:literal, $remedy:literal;)*) => {
        /// A stable code: machines match on it, documentation explains it, it never changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it stands in a problem body, a log and an exit message.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Who can act.
            pub const fn who(self) -> Who {
                match self { $(Self::$name => Who::$who,)* }
            }

            /// Whether the same request may succeed later without anybody changing it.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// What to do, in a sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)*).trim_ascii(),)* }
            }
        }
    };
}

// A macro, because the alternative is five matches of sixty arms that must be kept in step by hand.
codes! {
    /// An id does not have the form of one.
    IdMalformed = "id.malformed", Caller, false, "Copy the id as it was printed: the noun, an underscore and 26 characters.";
    /// A name is empty, too long, or has characters that do not print.
    NameMalformed = "name.malformed", Caller, false, "Use 1 to 128 bytes of printable text without spaces at its ends.";
    /// A text that should be JSON is not.
    JsonMalformed = "json.malformed", Caller, false, "Correct the JSON at the place the message names.";
    /// An input, output or message is larger than the limit.
    PayloadTooLarge = "payload.too_large", Caller, false, "Store the large part elsewhere and pass a reference, or split the work.";
    /// A count, depth or length is beyond its limit.
    LimitExceeded = "limit.exceeded", Caller, false, "Ask for less at a time; the message names the limit and its unit.";
    /// A number is outside its range.
    OutOfRange = "value.out_of_range", Caller, false, "Use a value in the range that the message names.";
    /// The goal has no words.
    GoalEmpty = "goal.empty", Caller, false, "Say what the crew shall do, in a sentence.";
    /// The goal is longer than the limit.
    GoalTooLarge = "goal.too_large", Caller, false, "Put the material into input files and keep the goal to a few sentences.";
    /// No task has this id.
    TaskUnknown = "task.unknown", Caller, false, "List tasks with `chargehand tasks list`.";
    /// No run has this id.
    RunUnknown = "run.unknown", Caller, false, "List runs with `chargehand runs list`.";
    /// No worker has this id.
    WorkerUnknown = "worker.unknown", Caller, false, "List workers with `chargehand workers list`, or register it first.";
    /// No pool has this name.
    PoolUnknown = "pool.unknown", Caller, false, "Define the pool first.";
    /// What a run may spend is spent, or held for what is under way.
    BudgetExhausted = "budget.exhausted", Caller, false, "Look at what was spent with `chargehand runs show`; start anew with a larger budget, or take what there is.";
    /// No blackboard entry has this id, or it has expired.
    EntryUnknown = "entry.unknown", Caller, false, "List entries with `chargehand memory list`.";
    /// No message has this id.
    MessageUnknown = "message.unknown", Caller, false, "Check the id; delivered messages are kept for a bounded time.";
    /// A run has no step of this name.
    StepUnknown = "step.unknown", Caller, false, "Look at the plan with `chargehand runs show`.";
    /// A graph cannot be run as it stands: a cycle, a missing step, an empty step.
    GraphInvalid = "graph.invalid", Caller, false, "Correct the step that the message names.";
    /// An expression does not compile, or its value has the wrong type.
    ExpressionInvalid = "expression.invalid", Caller, false, "Correct the expression; the language is CEL.";
    /// Another task already has this id, with another content.
    TaskExists = "task.exists", Conflict, false, "Use a new id, or leave it out and let Chargehand choose one.";
    /// The idempotency key was used before, with another content.
    IdempotencyMismatch = "idempotency.mismatch", Conflict, false, "Use a new key for new content.";
    /// The task's state does not allow this.
    TaskState = "task.state", Conflict, false, "Read the task again; the message names its state.";
    /// The run's state does not allow this.
    RunState = "run.state", Conflict, false, "Read the run again; the message names its state.";
    /// The worker's status does not allow this.
    WorkerState = "worker.state", Conflict, false, "Wait until it is available, or register it again.";
    /// The worker already holds as many tasks as it has capacity for.
    WorkerFull = "worker.full", Conflict, true, "Complete a task first, or declare a larger capacity.";
    /// A result or report came with a fencing token that is no longer current.
    AttemptStale = "attempt.stale", Conflict, false, "Drop the result: the task was given to another attempt, or has ended.";
    /// The task cannot be claimed by this worker now.
    NotClaimable = "task.not_claimable", Conflict, true, "Claim again; another worker or a limit was first.";
    /// Somebody else holds the blackboard entry.
    EntryClaimed = "entry.claimed", Conflict, false, "Work on something else; the message names the holder.";
    /// The worker is already a member of the pool.
    PoolMember = "pool.member", Conflict, false, "Nothing to do.";
    /// Nobody is subscribed for this message.
    NoRecipient = "message.no_recipient", Conflict, true, "Subscribe a receiver first; the message was dead-lettered.";
    /// A wait reached its deadline before what it waited for happened.
    WaitTimedOut = "wait.timed_out", World, true, "Wait longer, or look at what the task is waiting for.";
    /// Too much is queued already.
    Overloaded = "engine.overloaded", World, true, "Send less at a time and try again after a moment.";
    /// The tenant has as much open as its quota allows.
    QuotaExceeded = "quota.exceeded", World, true, "Wait until some of it has ended, or ask the operator for a larger quota.";
    /// Another process registered under this worker's id.
    WorkerSuperseded = "worker.superseded", Conflict, false, "Stop this process, or give it an id of its own.";
    /// Somebody changed it since it was read.
    VersionStale = "version.stale", Conflict, false, "Read it again, then decide.";
    /// There is no key of this id.
    KeyUnknown = "key.unknown", Caller, false, "List keys with `chargehand keys list`.";
    /// There is a key of this id already.
    KeyExists = "key.exists", Conflict, false, "Make one with another id.";
    /// The key is not one, is wrong, was revoked, or has expired.
    KeyRefused = "key.refused", Caller, false, "Use a valid key; an admin makes one with `chargehand keys create`.";
    /// The key is good, but not for this.
    ScopeMissing = "key.scope_missing", Caller, false, "Use a key with the scope that the message names.";
    /// The tenant sends requests faster than it may.
    RateLimited = "server.rate_limited", World, true, "Wait as long as `Retry-After` says, then send again; batched requests count once.";
    /// The server has as many streams open as it may.
    StreamLimit = "server.streams", World, true, "Close a stream, or ask the operator for more of them.";
    /// The server would let everybody in on an address that others can reach.
    ListenOpen = "server.no_key", Caller, false, "Make a key first with `chargehand keys create`, or listen on 127.0.0.1.";
    /// There is no such path.
    RouteUnknown = "server.route_unknown", Caller, false, "See the paths at `/docs` or `/openapi.json`.";
    /// The path does not do this.
    MethodUnknown = "server.method_unknown", Caller, false, "See what the path does at `/docs`.";
    /// The body is not of the type that is read here.
    MediaType = "server.media_type", Caller, false, "Send JSON with `Content-Type: application/json`.";
    /// The request took too long to arrive.
    RequestSlow = "server.request_slow", Caller, true, "Send it faster, or less of it at a time.";
    /// There is no tenant of this name.
    TenantUnknown = "tenant.unknown", Caller, false, "List tenants with `chargehand tenants list`.";
    /// The server cannot be reached, or broke off.
    ServerUnreachable = "server.unreachable", World, true, "Check that `chargehand serve` runs, and the address given by `--server`.";
    /// What the server answered is not what this program understands.
    ServerStrange = "server.strange", World, false, "Check that the address is a Chargehand server's, and that both are of versions that fit.";
    /// The engine has stopped, or stopped itself after a failed write.
    Stopped = "engine.stopped", World, true, "Start it again: everything acknowledged is stored.";
    /// The disk is full: nothing more can be written.
    StoreFull = "store.full", World, true, "Free some space. What was acknowledged is safe, reads go on, writes resume by themselves.";
    /// Reading or writing the store failed.
    StoreIo = "store.io", World, true, "Check the disk and the permissions; then start again.";
    /// The store's file is damaged, or is not a store.
    StoreCorrupt = "store.corrupt", World, false, "Keep a copy of the folder, then restore a backup or choose another folder with `--store`.";
    /// The store was written by a newer version.
    StoreNewer = "store.newer", World, false, "Install that version or a later one; this one leaves the store as it is.";
    /// Another process has the store open.
    StoreLocked = "store.locked", World, true, "Stop the other process, or choose another folder with `--store`.";
    /// The path for the store cannot be used.
    StorePath = "store.path", Caller, false, "Choose a folder that exists or can be created and written, with `--store`.";
    /// There is no store at this path.
    StoreMissing = "store.missing", Caller, false, "Start something with `chargehand run` first, or name the store's folder with `--store`.";
    /// The server's settings have a key that does not exist, or a value that its setting does not take.
    ConfigInvalid = "config.invalid", Caller, false, "Correct it at the place the message names; `chargehand config default` has every setting.";
    /// A file of settings that was named is not there.
    ConfigMissing = "config.missing", Caller, false, "Name a file that is there, or none: then the defaults hold.";
    /// Another program already listens on this address.
    AddressInUse = "server.address_in_use", World, true, "Stop the other program, or listen on another port.";
    /// The operating system does not let this program listen on this address.
    AddressForbidden = "server.address_forbidden", World, false, "Listen on a port above 1023, or give the program the right to use this one.";
    /// This is not an address of this machine.
    AddressUnavailable = "server.address_unavailable", World, false, "Listen on an address of this machine: 127.0.0.1 for itself only, 0.0.0.0 or [::] for everybody.";
    /// The certificate or its key cannot be used for TLS.
    Certificate = "server.certificate", World, false, "Give a PEM file with the certificate chain, leaf first, and a PEM file with its unencrypted private key.";
    /// As many connections are open as the server allows at once.
    ConnectionsFull = "server.connections_full", World, true, "Use connections again instead of opening new ones, and come back after the seconds in `Retry-After`.";
    /// The request came in plain HTTP to a port that speaks HTTPS.
    HttpsOnly = "server.https_only", Caller, false, "Write `https://` in the address.";
    /// There is something at the backup's path already, or it is being made.
    BackupExists = "backup.exists", Caller, false, "Choose a folder that does not exist yet, with `--to`; a backup is never overwritten.";
    /// The path of a backup cannot be used.
    BackupPath = "backup.path", Caller, false, "Choose a folder outside the store's, on a disk that can be written.";
    /// There is no backup at this path.
    BackupMissing = "backup.missing", Caller, false, "Name a folder that `chargehand backup` made, with `--from`.";
    /// The backup is not what its manifest says: it was changed, cut short, or copied in part.
    BackupDamaged = "backup.damaged", World, false, "Copy it again from where it was kept, or use another backup; nothing was changed.";
    /// There is a store, or something else, where one was to be restored.
    RestoreExists = "restore.exists", Caller, false, "Choose another folder with `--store`; or move what is there aside with `--replace`.";
    /// The task has no record of this step.
    RecordUnknown = "record.unknown", Caller, false, "See the steps that have a record with `chargehand tasks show`.";
    /// The record's state does not allow this.
    RecordState = "record.state", Conflict, false, "Read the task's records; the message names the state. What is done stays as it is.";
    /// A step may or may not have happened, and is not done again until that is known.
    RecordInDoubt = "record.in_doubt", Conflict, false, "Find out whether it happened and say so with `chargehand tasks resolve`; then redrive the task.";
    /// A rule of Chargehand itself was broken.
    Internal = "internal", Bug, false, "Please report it, with the output of `chargehand doctor`.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for Code {
    /// A code of a newer version reads as [`Code::Internal`]: the message still says what happened.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::ALL
            .iter()
            .copied()
            .find(|c| c.as_str() == text)
            .unwrap_or(Self::Internal))
    }
}

/// What happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Error {
    /// What machines match on.
    pub code: Code,
    /// What happened, for a person; never a secret, never an internal path.
    pub message: String,
    /// What to do; the code's own remedy unless there is something better to say here.
    pub hint: String,
}

impl Error {
    /// An error with the code's own remedy as its hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.remedy().to_owned(),
        }
    }

    /// The same error with a hint that fits the case better.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }

    /// Beyond `limit`, a count of `what`.
    pub fn limit(what: &str, found: usize, limit: usize) -> Self {
        Self::new(
            Code::LimitExceeded,
            format!("{found} {what}; at most {limit} are allowed"),
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_each_is_explained() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(
                code.meaning().ends_with('.') && code.remedy().ends_with('.'),
                "{code}"
            );
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
    }

    #[test]
    fn a_code_of_tomorrow_does_not_break_a_client_of_today() {
        assert_eq!(
            serde_json::from_str::<Code>("\"quantum.flux\"").unwrap(),
            Code::Internal
        );
    }
}
