//! The codes of this crate and what they mean, for `docs/errors.md`. The codes of the core are in
//! [`domain::error::Code`]; a test of the command line sees to it that no code is missing here.

/// Code, what it means, what to do.
pub type Explained = (&'static str, &'static str, &'static str);

/// Every code that this crate, its workers and the command line give.
pub const ERRORS: &[Explained] = &[
    (
        "agent.evidence",
        "An agent claims a result without the receipts it must rest on.",
        "Read the task's receipts with `chargehand tasks show`; make the brief clearer.",
    ),
    (
        "agent.nothing",
        "No brief of a plan came to a result, and the plan may not be changed any more.",
        "Read why with `chargehand tasks list --run`; then `chargehand runs retry`, or give the supervisor more `replans`.",
    ),
    (
        "agent.output",
        "An agent's answer did not have the wanted form, also after it was corrected.",
        "Make the schema simpler, or give the agent a stronger model.",
    ),
    (
        "agent.receipt",
        "A step's receipt was written by another version, or by somebody else.",
        "Submit the task anew.",
    ),
    (
        "agent.refused",
        "The model will not do what the brief asks.",
        "Read what it says; change the brief, or take another model.",
    ),
    (
        "agent.unaccepted",
        "A result was refused by its check again and again.",
        "Read the checks and the reason; make the brief clearer, or the check.",
    ),
    (
        "agent.unknown",
        "A brief names an agent that this crew does not have.",
        "Start a worker with the crew file that the run was planned for.",
    ),
    (
        "delegate.failed",
        "A run that an assistant delegated to its crew failed, or was cancelled.",
        "Read the run that the message names with `chargehand runs show`.",
    ),
    (
        "attempt.deferred",
        "The worker handed the task back until its provider lets somebody in again.",
        "Nothing: it goes on then, from where it was.",
    ),
    (
        "attempt.lost",
        "The worker that had the task is gone.",
        "Nothing: the task is given to another worker.",
    ),
    (
        "attempt.reassigned",
        "The task was given to another worker.",
        "Nothing: the new worker does it.",
    ),
    (
        "attempt.released",
        "The worker handed the task back, to yield or because it stopped.",
        "Nothing: it is done later, from where it was.",
    ),
    (
        "attempt.stopped",
        "The attempt was over for the engine before the handler ended.",
        "Look at the attempts with `chargehand tasks show`.",
    ),
    (
        "attempt.timed_out",
        "The attempt took longer than the task allows.",
        "Allow more with `--timeout`, or split the work.",
    ),
    (
        "brief.malformed",
        "A task's brief does not have the form its handler needs.",
        "Submit `{\"items\": […], \"options\": {…}}`, or for an agent `{\"objective\": …, \"inputs\": …}`.",
    ),
    (
        "command.cancelled",
        "The program was stopped because its task was cancelled or given away.",
        "Nothing.",
    ),
    (
        "command.empty",
        "The command line of the worker program is empty.",
        "Name a program with `--worker-command`.",
    ),
    (
        "command.exit",
        "The worker program ended with an exit code other than 0.",
        "Read the end of its standard error in the message; it is tried again as often as `--attempts` says.",
    ),
    (
        "command.no_json",
        "The worker program ended well, but did not print one JSON document.",
        "Print the result as JSON on standard output, and everything else on standard error.",
    ),
    (
        "command.not_executable",
        "The worker program may not be executed.",
        "Make it executable: `chmod +x`.",
    ),
    (
        "command.not_found",
        "There is no such program.",
        "Check the path and the directory you are in.",
    ),
    (
        "command.signal",
        "The worker program was ended by a signal.",
        "Look for a crash or too little memory.",
    ),
    (
        "command.timeout",
        "The worker program took too long and was killed with everything it had started.",
        "Allow more with `--timeout`.",
    ),
    (
        "command.too_much_output",
        "The worker program printed more than a result may have.",
        "Write large results to a file and print its name.",
    ),
    (
        "crew.changed",
        "The crew file, or what it refers to, is not what the run was planned for.",
        "Put it back as it was, or cancel the run and start anew.",
    ),
    (
        "crew.invalid",
        "The crew file that an interrupted run needs has mistakes now.",
        "See them with `chargehand crew check`.",
    ),
    (
        "crew.cycle",
        "Models of a crew file fall back on each other in a circle.",
        "Leave out the `fallback` of one of them.",
    ),
    (
        "crew.duplicate",
        "A crew file says the same key or name twice.",
        "Keep one of them.",
    ),
    (
        "crew.missing_key",
        "A crew file does not say something that it has to say.",
        "Add the key that the message names.",
    ),
    (
        "crew.name",
        "A name in a crew file cannot be used.",
        "Use small letters, digits, `_` and `-`, beginning with a letter; names of tools may have dots.",
    ),
    (
        "crew.path",
        "A file or folder that a crew file names is not there, cannot be used, or is outside of the crew file's folder.",
        "Paths are from the crew file's folder on; correct the one that the message names.",
    ),
    (
        "crew.reference",
        "A crew file names a model, tool, argument or provider that does not exist.",
        "Correct the name; the hint has the nearest one that exists.",
    ),
    (
        "crew.schema",
        "The schema of a tool's arguments or result is no JSON Schema that can be used.",
        "Correct it at the place of the message; schemas are of draft 2020-12.",
    ),
    (
        "crew.secret",
        "A crew file has something in it that is, or looks like, a key.",
        "Write `secret://NAME` and set the environment variable CHARGEHAND_SECRET_NAME; make a new key if the file was ever shared.",
    ),
    (
        "crew.syntax",
        "A crew file is not YAML, or not UTF-8.",
        "Correct the place that the message names.",
    ),
    (
        "crew.too_large",
        "A crew file, or a part of it, is larger than allowed.",
        "The message names the limit; split the crew, or move instructions into files.",
    ),
    (
        "crew.tools",
        "The crew's tools cannot be put together: two have one name, or a schema is none.",
        "Rename the crew's own tool, or mend its schema.",
    ),
    (
        "crew.type",
        "A value in a crew file is of the wrong type.",
        "The message says which type belongs there.",
    ),
    (
        "crew.unknown_key",
        "A crew file has a key that does not exist.",
        "Correct or remove it; `chargehand crew schema` has all keys.",
    ),
    (
        "crew.unreadable",
        "A crew file cannot be read.",
        "Check the path and its permissions; `chargehand init` writes one to begin with.",
    ),
    (
        "crew.value",
        "A value in a crew file is out of its bounds or does not have the form it must have.",
        "The message says what is allowed.",
    ),
    (
        "http.bad_url",
        "An address is not an http or https address.",
        "Correct the address.",
    ),
    (
        "http.no_url",
        "An item names no address to fetch.",
        "Put an address into the text, or use the option `url`.",
    ),
    (
        "http.private_address",
        "An address leads into a private network.",
        "Fetch public addresses only; an operator may allow private ones.",
    ),
    (
        "http.status",
        "The server answered with an error.",
        "Check the address; the message has the status.",
    ),
    (
        "http.timeout",
        "The server did not answer in time.",
        "Try later, or allow more with the option `time_ms_max`.",
    ),
    (
        "http.too_large",
        "The answer is larger than allowed.",
        "Allow more with the option `bytes_max`.",
    ),
    (
        "http.too_many",
        "An item names too many addresses.",
        "Split it.",
    ),
    (
        "http.too_many_redirects",
        "The server redirects too often.",
        "Use the final address.",
    ),
    (
        "http.unknown_host",
        "There is no such host.",
        "Check the address and the network.",
    ),
    (
        "http.unreachable",
        "The host does not answer.",
        "Check the network, or try later.",
    ),
    (
        "init.exists",
        "There is a crew file already.",
        "Choose another folder: `chargehand init FOLDER`.",
    ),
    (
        "init.unwritable",
        "The crew file cannot be written.",
        "Choose a folder that you may write to.",
    ),
    (
        "input.bad_csv",
        "A CSV file has a row that does not fit its heading, or a quote left open.",
        "Correct the row that the message names.",
    ),
    (
        "input.bad_glob",
        "A pattern is not a glob.",
        "Use `*`, `?` and `[…]`.",
    ),
    (
        "input.bad_json",
        "A line of a JSON Lines file is not JSON.",
        "Correct the line that the message names.",
    ),
    (
        "input.binary",
        "A file is not text.",
        "Convert it to text first.",
    ),
    (
        "input.empty",
        "A file or folder has nothing in it.",
        "Leave it out.",
    ),
    (
        "input.missing",
        "There is nothing to work on.",
        "Name files, folders or globs with `--input`, or `--input -` for standard input.",
    ),
    (
        "input.no_match",
        "A pattern matches no file.",
        "Check the pattern and the directory you are in.",
    ),
    (
        "input.not_found",
        "There is no such file or folder.",
        "Check the path and the directory you are in.",
    ),
    (
        "input.not_utf8",
        "A file is not UTF-8.",
        "Convert it, for example with `iconv -t utf-8`.",
    ),
    (
        "input.stdin_twice",
        "Standard input is named twice.",
        "Name `-` once.",
    ),
    (
        "input.too_deep",
        "Folders are nested too deeply.",
        "Name the folder further down.",
    ),
    (
        "input.too_large",
        "A file, an item or the whole input is too large.",
        "Split it; the message names the limit.",
    ),
    (
        "input.too_many",
        "The input has too many items.",
        "Split it into several runs.",
    ),
    (
        "input.unreadable",
        "A file may not be read.",
        "Change its permissions.",
    ),
    (
        "item.no_record",
        "A skill for records met an item of plain text.",
        "Use JSON Lines or CSV.",
    ),
    (
        "item.no_text",
        "A skill for text met an item without any.",
        "Leave the item out.",
    ),
    (
        "mcp.broken",
        "An MCP server broke off while it was asked something: it ended, the connection did, or HTTP says so.",
        "Read what it said last in the message. A call that must not be repeated is in doubt: find out whether it happened.",
    ),
    (
        "mcp.no_tool",
        "An MCP server does not have a tool that was granted, or not any more.",
        "Correct the name in the agent's `tools`; the message has the nearest one. What the server calls it belongs to `mcp.SERVER.tools.TOOL.name`.",
    ),
    (
        "mcp.protocol",
        "An MCP server answered with something that is no answer, or with too much.",
        "Tell whoever makes the server. A call that must not be repeated is in doubt: find out whether it happened.",
    ),
    (
        "mcp.refused",
        "An MCP server answered that it will not do what it was asked, or wants another key, or somebody to answer it.",
        "The message has its reason; for a key, set the variable of the server's `key`.",
    ),
    (
        "mcp.schema",
        "An MCP server's schema of a tool is no JSON Schema that can be used, or is too large.",
        "Tell whoever makes the server; the tool cannot be used until then, its others can.",
    ),
    (
        "mcp.unreachable",
        "An MCP server cannot be started, or connected to, or does not list its tools. The call was not made.",
        "The message has the reason: check the server's `command` or `url` in the crew file, and whether it runs. It is tried again by itself, after pauses of up to a minute.",
    ),
    (
        "model.broken",
        "A model's answer broke off, was larger than allowed, or did not follow its provider's own rules.",
        "Try again; if a bound was exceeded, the message names it: ask for less.",
    ),
    (
        "model.key",
        "The provider of a model has no key, does not take it, or is not paid.",
        "Set the provider's variable (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`), and look at the account's credit.",
    ),
    (
        "model.limited",
        "The provider was asked too often.",
        "Wait as long as it says; or ask for less at a time, or for a higher limit.",
    ),
    (
        "model.name",
        "A model's name is not of the form PROVIDER/MODEL, or there is no such provider.",
        "Write it like `openai/gpt-5-mini`; the message lists the providers.",
    ),
    (
        "model.overloaded",
        "The provider is overloaded or broken.",
        "Try later, or name another model to fall back to.",
    ),
    (
        "model.refused",
        "The provider refuses the request as it is, or what was said about the model cannot be used.",
        "Correct what the message names; asked again it is refused again.",
    ),
    (
        "model.script",
        "A transcript cannot be used, or has no rule for what was asked.",
        "Correct the transcript, or add a rule; the message shows the turn that found none.",
    ),
    (
        "model.silent",
        "The provider could not be reached, or sent nothing in time. Whether it did the work is not known.",
        "Check the network and the address; what was asked may have to be paid.",
    ),
    (
        "model.unknown",
        "The provider has no model of this name.",
        "Correct the model's name, or ask the provider for access to it.",
    ),
    (
        "option.invalid",
        "A skill does not know an option, or its value is wrong.",
        "The message names the options the skill has.",
    ),
    (
        "plan.ambiguous",
        "The goal names two kinds of work at once.",
        "Choose with `--skill`, or run twice.",
    ),
    (
        "plan.invalid",
        "There is no plan that can be carried out: the planner stopped at a bound, or the plan that was given has a mistake.",
        "Make the goal smaller, or give the planner a stronger model; correct a plan of your own where the message says.",
    ),
    (
        "plan.needs_options",
        "The skill for this goal needs options.",
        "Give them with `--options`.",
    ),
    (
        "plan.no_skill",
        "The goal names no kind of work that the offline planner knows.",
        "Choose with `--skill`, bring a program with `--worker-command`, or let a model plan with `--crew`.",
    ),
    (
        "plan.no_text",
        "The goal is about text, but the input has none.",
        "Check the input, or choose with `--skill`.",
    ),
    (
        "resume.several_crews",
        "Interrupted runs need different crew files.",
        "Resume them one at a time.",
    ),
    (
        "resume.several_programs",
        "Open runs need different worker programs.",
        "Resume them one at a time.",
    ),
    (
        "run.no_crew",
        "A run does not say which workers it needs.",
        "Resume it with the program that started it.",
    ),
    (
        "run.step_failed",
        "A step of the run failed.",
        "Look at its tasks with `chargehand tasks list --status failed`; `chargehand runs retry` does them again.",
    ),
    (
        "runtime.start",
        "The process could not start its threads.",
        "Check the limits of the machine.",
    ),
    (
        "shape.filter_not_boolean",
        "A filter's value is neither true nor false.",
        "Write a comparison.",
    ),
    (
        "skill.panicked",
        "A skill broke.",
        "Please report it, with the item that broke it.",
    ),
    (
        "skill.unknown",
        "There is no skill of this name.",
        "See `chargehand skills`.",
    ),
    (
        "step.not_done",
        "A step that was in doubt was looked for and had not happened.",
        "Nothing: it is done again.",
    ),
    (
        "task.cancelled",
        "The task was cancelled.",
        "Nothing; `chargehand tasks redrive` wants it again.",
    ),
    (
        "tool.arguments",
        "A tool was called with arguments that its schema does not allow, or with too many bytes of them.",
        "The message has the schema's own complaints; call it again with others.",
    ),
    (
        "tool.broken",
        "A tool broke off: it was ended by a signal, or panicked.",
        "Look for a crash or too little memory. A call that must not be repeated is in doubt: find out whether it happened.",
    ),
    (
        "tool.duplicate",
        "Two tools have the same name.",
        "Give one of them another name.",
    ),
    (
        "tool.failed",
        "A tool says that it did not do what it was asked.",
        "The message has its reason.",
    ),
    (
        "tool.not_granted",
        "An agent called a tool that it was not granted.",
        "Add the tool to the agent's `tools` in the crew file, if it shall have it.",
    ),
    (
        "tool.output",
        "What a tool gave is too large, is not JSON, or is not what its schema promises.",
        "Correct the tool. A call that must not be repeated is in doubt: find out whether it happened.",
    ),
    (
        "tool.schema",
        "A tool's schema of its arguments or its result is no JSON Schema that can be used.",
        "Correct it; schemas are of draft 2020-12 and refer to nothing outside of themselves.",
    ),
    (
        "tool.timed_out",
        "A tool took longer than it may and was stopped, with everything it had started.",
        "Allow more with the tool's `timeout`. A call that must not be repeated is in doubt: find out whether it happened.",
    ),
    (
        "tool.unavailable",
        "A tool cannot be called now: its program, its folder or its secret is missing, there is no sandbox, or its service asks to be left alone. It was not called.",
        "Mend what the message names; it is asked again at the next call.",
    ),
    (
        "tool.unknown",
        "There is no tool of this name.",
        "Check the spelling; the message has the nearest name that was granted.",
    ),
    (
        "worker.no_handler",
        "A worker got a task of a type it has no handler for.",
        "Register a handler for it, or a worker that has one.",
    ),
    (
        "worker.panicked",
        "A handler panicked.",
        "Correct the handler; the task is tried again as often as its policy says.",
    ),
    (
        "usage.invalid",
        "The command line cannot be read: an unknown command or option, or a value of the wrong form.",
        "Correct what the message names; `--help` after any command explains it by example.",
    ),
];

/// What to do about one of these codes.
///
/// ```
/// assert!(agent::errors::remedy("model.key").unwrap().contains("OPENAI_API_KEY"));
/// assert_eq!(agent::errors::remedy("nothing"), None);
/// ```
pub fn remedy(code: &str) -> Option<&'static str> {
    let row = ERRORS.iter().find(|row| row.0 == code)?;
    Some(row.2)
}
