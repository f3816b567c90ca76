//! What can be set: the one table. Names of variables, checks, the reference and every message come
//! from its rows.

use super::Config;
use crate::logs::{self, Format, shown};
use axum::http::Uri;
use domain::limits::{CAPACITY_MAX, NAME_BYTES_MAX};
use engine::Place;
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// A value as it was said, by whichever layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text; an empty one leaves unset what may be unset.
    Text(String),
    /// A number.
    Whole(u64),
    /// Several texts.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            Self::List(list) => f.write_str(&list.join(", ")),
        }
    }
}

impl Value {
    /// As it stands in a file.
    pub(super) fn to_toml(&self) -> String {
        let text = |text: &String| toml::Value::String(text.clone()).to_string();
        match self {
            Self::Text(said) => text(said),
            Self::Whole(number) => number.to_string(),
            Self::List(list) => {
                format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// What a setting takes, and where in [`Config`] it goes.
#[derive(Clone, Copy)]
enum Field {
    Address(fn(&mut Config) -> &mut SocketAddr),
    Store(fn(&mut Config) -> &mut Place),
    Name(fn(&mut Config) -> &mut String),
    Filter(fn(&mut Config) -> &mut String),
    Format(fn(&mut Config) -> &mut Format),
    /// The path of a file; empty for none.
    File(fn(&mut Config) -> &mut Option<PathBuf>),
    /// An address on the web; empty for none.
    Url(fn(&mut Config) -> &mut Option<String>),
    Origins(fn(&mut Config) -> &mut Vec<String>),
    /// From the first to the last number.
    Whole(fn(&mut Config) -> &mut u32, u32, u32),
    /// Up to a number; 0 for no bound.
    Bound(fn(&mut Config) -> &mut Option<NonZeroU32>, u32),
}

/// One setting: a row of [`SETTINGS`].
pub struct Setting {
    /// Its key, with its section: `limits.connections`.
    pub key: &'static str,
    /// The flag of `chargehand serve`, if it has one of its own: `--listen`.
    pub flag: Option<&'static str>,
    /// What its number counts; empty for what is not a number.
    pub unit: &'static str,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    default: &'static str,
    field: Field,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.key)
    }
}

impl Setting {
    /// The row of a key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The variable of the environment: `CHARGEHAND_LIMITS_CONNECTIONS`.
    pub fn environment(&self) -> String {
        format!("CHARGEHAND_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// What it is when nobody says anything.
    pub fn default(&self) -> Value {
        self.read(self.default)
    }

    /// What it takes, in words that follow “Use”.
    pub fn takes(&self) -> String {
        let unit = match self.unit {
            "" => String::new(),
            unit => format!(" ({unit})"),
        };
        match self.field {
            Field::Address(_) => "an IP address and a port, such as 127.0.0.1:7420".into(),
            Field::Store(_) => "a folder's path, or memory: for a store that is not kept".into(),
            Field::Name(_) => format!("1 to {NAME_BYTES_MAX} bytes of printable text"),
            Field::Filter(_) => {
                "`off`, `error`, `warn`, `info`, `debug` or `trace`, alone or by module: `info,server=debug`".into()
            }
            Field::Format(_) => "`text` or `json`".into(),
            Field::File(_) => "the path of a file, or an empty text for none".into(),
            Field::Url(_) => {
                "an address such as http://127.0.0.1:4318, without a user's name, or an empty text for none".into()
            }
            Field::Origins(_) => {
                "origins such as https://example.org (in the environment and on the command line with \
                 commas between them), or `*` for every origin"
                    .into()
            }
            Field::Whole(_, least, most) => format!("a whole number from {least} to {most}{unit}"),
            Field::Bound(_, most) => {
                format!("a whole number from 1 to {most}{unit}, or 0 for none")
            }
        }
    }

    /// A value said in plain text: in the environment, on the command line, in the table.
    pub(super) fn read(&self, text: &str) -> Value {
        match self.field {
            Field::Whole(..) | Field::Bound(..) => match text.parse() {
                // `parse` would take a sign too.
                Ok(number) if !text.starts_with('+') => Value::Whole(number),
                _ => Value::Text(text.to_owned()),
            },
            Field::Origins(_) => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                Value::List(parts.map(str::to_owned).collect())
            }
            _ => Value::Text(text.to_owned()),
        }
    }

    /// Puts a value in its place.
    ///
    /// # Errors
    ///
    /// What is wrong with the value, to follow the setting's name: “is …”.
    pub(super) fn set(&self, config: &mut Config, value: &Value) -> Result<(), String> {
        let refused = || Err(self.found(value));
        match (self.field, value) {
            (Field::Address(at), Value::Text(text)) => match text.parse() {
                Ok(address) => *at(config) = address,
                Err(_) => return refused(),
            },
            (Field::Store(at), Value::Text(text)) => match text.parse() {
                Ok(place) if is_printable(text) => *at(config) = place,
                _ => return refused(),
            },
            (Field::Name(at), Value::Text(text)) => {
                if !is_printable(text) || !(1..=NAME_BYTES_MAX).contains(&text.len()) {
                    return refused();
                }
                text.clone_into(at(config));
            }
            (Field::Filter(at), Value::Text(text)) => {
                if logs::filter(text).is_err() {
                    return refused();
                }
                text.clone_into(at(config));
            }
            (Field::Format(at), Value::Text(text)) => match text.as_str() {
                "text" => *at(config) = Format::Text,
                "json" => *at(config) = Format::Json,
                _ => return refused(),
            },
            (Field::File(at), Value::Text(text)) => {
                if !is_printable(text) {
                    return refused();
                }
                *at(config) = (!text.is_empty()).then(|| text.into());
            }
            (Field::Url(at), Value::Text(text)) => {
                if !text.is_empty() && !is_web_address(text) {
                    return refused();
                }
                *at(config) = (!text.is_empty()).then(|| text.clone());
            }
            (Field::Origins(at), Value::List(list)) => {
                if let Some(wrong) = list.iter().find(|text| *text != "*" && !is_origin(text)) {
                    return Err(format!("has “{}”, which is not an origin", shown(wrong)));
                }
                list.clone_into(at(config));
            }
            (Field::Whole(at, least, most), Value::Whole(number)) => match u32::try_from(*number) {
                Ok(number) if (least..=most).contains(&number) => *at(config) = number,
                _ => return refused(),
            },
            (Field::Bound(at, most), Value::Whole(number)) => match u32::try_from(*number) {
                Ok(number) if number <= most => *at(config) = NonZeroU32::new(number),
                _ => return refused(),
            },
            _ => return refused(),
        }
        Ok(())
    }

    /// What a value is, told without showing what may have been meant to stay secret.
    fn found(&self, value: &Value) -> String {
        match (self.field, value) {
            // Somebody may have put a key here instead of its file, or a password into an address.
            (Field::File(_), Value::Text(_)) => "is not a file's path".into(),
            (Field::Url(_), Value::Text(_)) => "is not such an address".into(),
            (_, Value::Text(text)) if text.is_empty() => "is empty".into(),
            (_, Value::Text(text)) => format!("is the text “{}”", shown(text)),
            (_, Value::Whole(number)) => format!("is {number}"),
            (_, Value::List(_)) => "is a list".into(),
        }
    }
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// `http://` or `https://`, a host, and no user's name or password.
fn is_web_address(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        scheme
            && host
            && !uri
                .authority()
                .is_some_and(|who| who.as_str().contains('@'))
    })
}

/// A web address that ends with its host or port, as browsers write it.
fn is_origin(text: &str) -> bool {
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let after = text.split_once("://").map_or("", |(_, after)| after);
    lower && is_web_address(text) && !after.contains(['/', '?', '#'])
}

/// What the sections are for.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    (
        "tls",
        "Encryption. Both files or none; without them the server speaks plain HTTP.",
    ),
    (
        "limits",
        "What one peer or one tenant may take. A peer beyond a limit is refused or cut off, the others go on.",
    ),
    (
        "quotas",
        "What one tenant may have open at once; 0 means no limit. Beyond it, new work is refused until some has ended.",
    ),
    ("log", "Logs go to standard error, a line each."),
    ("telemetry", "Traces for a collector that speaks OTLP."),
    ("workers", "Workers within the server's own process."),
    ("cors", "Pages in a browser that may use the API."),
];

/// Every setting, in the order of the reference: first those without a section.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        flag: Some("--listen"),
        unit: "",
        help: "Where the server listens. Port 0 lets the system choose one.",
        default: "127.0.0.1:7420",
        field: Field::Address(|config| &mut config.listen),
    },
    Setting {
        key: "store",
        flag: Some("--store"),
        unit: "",
        help: "Where the store is. Commands other than `serve` take it from the flag or the environment only.",
        default: ".chargehand",
        field: Field::Store(|config| &mut config.store),
    },
    Setting {
        key: "tls.certificate",
        flag: Some("--tls-certificate"),
        unit: "",
        help: "The server's certificate and those between it and a known authority, in PEM.",
        default: "",
        field: Field::File(|config| &mut config.tls.certificate),
    },
    Setting {
        key: "tls.key",
        flag: Some("--tls-key"),
        unit: "",
        help: "The file with the certificate's private key, in PEM. The key itself has no place here.",
        default: "",
        field: Field::File(|config| &mut config.tls.key),
    },
    Setting {
        key: "limits.connections",
        flag: None,
        unit: "connections",
        help: "Connections at once; further ones wait until one ends.",
        default: "1024",
        field: Field::Whole(|config| &mut config.limits.connections, 1, 65_536),
    },
    Setting {
        key: "limits.header_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds until a request's head has arrived.",
        default: "10",
        field: Field::Whole(|config| &mut config.limits.header_seconds, 1, 3_600),
    },
    Setting {
        key: "limits.header_bytes",
        flag: None,
        unit: "bytes",
        help: "Bytes in a request's head.",
        default: "16384",
        field: Field::Whole(|config| &mut config.limits.header_bytes, 8_192, 1_048_576),
    },
    Setting {
        key: "limits.body_bytes",
        flag: None,
        unit: "bytes",
        help: "Bytes in a request's body.",
        default: "8388608",
        field: Field::Whole(|config| &mut config.limits.body_bytes, 1_024, 1_073_741_824),
    },
    Setting {
        key: "limits.body_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds until a request's body has arrived.",
        default: "30",
        field: Field::Whole(|config| &mut config.limits.body_seconds, 1, 3_600),
    },
    Setting {
        key: "limits.idle_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds a connection may stay open without a request.",
        default: "75",
        field: Field::Whole(|config| &mut config.limits.idle_seconds, 1, 86_400),
    },
    Setting {
        key: "limits.write_stall_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds a peer may take nothing of an answer before it is cut off.",
        default: "20",
        field: Field::Whole(|config| &mut config.limits.write_stall_seconds, 1, 3_600),
    },
    Setting {
        key: "limits.tls_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds until encryption is agreed on.",
        default: "10",
        field: Field::Whole(|config| &mut config.limits.tls_seconds, 1, 3_600),
    },
    Setting {
        key: "limits.wait_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds a request may wait for what it asks for, such as a task; one that asks for longer waits so long.",
        default: "60",
        field: Field::Whole(|config| &mut config.limits.wait_seconds, 1, 3_600),
    },
    Setting {
        key: "limits.drain_seconds",
        flag: None,
        unit: "seconds",
        help: "Seconds that requests under way have to end when the server is told to stop.",
        default: "20",
        field: Field::Whole(|config| &mut config.limits.drain_seconds, 0, 3_600),
    },
    Setting {
        key: "limits.streams",
        flag: None,
        unit: "streams",
        help: "Event streams at once.",
        default: "2048",
        field: Field::Whole(|config| &mut config.limits.streams, 1, 65_536),
    },
    Setting {
        key: "limits.stream_events",
        flag: None,
        unit: "events",
        help: "Events kept for one stream whose reader is slow; beyond them it is cut off, and can resume.",
        default: "1024",
        field: Field::Whole(|config| &mut config.limits.stream_events, 1, 1_048_576),
    },
    Setting {
        key: "limits.requests_per_second",
        flag: None,
        unit: "requests per second",
        help: "Requests a second from one tenant, on average; 0 means no limit.",
        default: "0",
        field: Field::Bound(|config| &mut config.limits.requests_per_second, 1_000_000),
    },
    Setting {
        key: "limits.requests_burst",
        flag: None,
        unit: "requests",
        help: "Requests from one tenant at once, after a rest. Counts only where requests_per_second is a limit; 0 means as many as in one second.",
        default: "0",
        field: Field::Bound(|config| &mut config.limits.requests_burst, 1_000_000),
    },
    Setting {
        key: "quotas.tasks_open",
        flag: None,
        unit: "tasks",
        help: "Tasks that are pending or leased.",
        default: "0",
        field: Field::Bound(|config| &mut config.quotas.tasks_open, u32::MAX),
    },
    Setting {
        key: "quotas.runs_open",
        flag: None,
        unit: "runs",
        help: "Runs that have not ended.",
        default: "0",
        field: Field::Bound(|config| &mut config.quotas.runs_open, u32::MAX),
    },
    Setting {
        key: "quotas.workers",
        flag: None,
        unit: "workers",
        help: "Workers that are registered and alive.",
        default: "0",
        field: Field::Bound(|config| &mut config.quotas.workers, u32::MAX),
    },
    Setting {
        key: "log.format",
        flag: Some("--log-format"),
        unit: "",
        help: "Lines for people, or one JSON document a line.",
        default: "text",
        field: Field::Format(|config| &mut config.log.format),
    },
    Setting {
        key: "log.level",
        flag: Some("--log-level"),
        unit: "",
        help: "Which lines.",
        default: "info",
        field: Field::Filter(|config| &mut config.log.level),
    },
    Setting {
        key: "telemetry.otlp_endpoint",
        flag: None,
        unit: "",
        help: "Where the collector is; an empty text for no traces.",
        default: "",
        field: Field::Url(|config| &mut config.telemetry.otlp_endpoint),
    },
    Setting {
        key: "telemetry.service_name",
        flag: None,
        unit: "",
        help: "The name of this server in traces.",
        default: "chargehand",
        field: Field::Name(|config| &mut config.telemetry.service_name),
    },
    Setting {
        key: "workers.local",
        flag: Some("--local-workers"),
        unit: "workers",
        help: "How many workers, each with all the built-in skills.",
        default: "0",
        field: Field::Whole(|config| &mut config.workers.local, 0, CAPACITY_MAX),
    },
    Setting {
        key: "cors.origins",
        flag: None,
        unit: "",
        help: "Where such pages come from; an empty list for nowhere.",
        default: "",
        field: Field::Origins(|config| &mut config.cors.origins),
    },
];

/// Variables of the environment that are not settings of the server, and what they are.
pub(super) const OTHER_VARIABLES: &[(&str, &str)] = &[
    (
        "CHARGEHAND_CONFIG",
        "the file with the settings, as --config",
    ),
    (
        "CHARGEHAND_SERVER",
        "for commands: the address of the server to ask instead of opening a store",
    ),
    (
        "CHARGEHAND_KEY",
        "for commands: the key they show to that server",
    ),
    ("CHARGEHAND_TASK_ID", "for a worker's program: its task"),
    (
        "CHARGEHAND_ATTEMPT",
        "for a worker's program: which attempt of its task it is",
    ),
    (
        "CHARGEHAND_WORKER",
        "for a worker's program: the worker that started it",
    ),
    (
        "CHARGEHAND_IDEMPOTENCY_KEY",
        "for a worker's program: the same for every attempt of its task",
    ),
];
