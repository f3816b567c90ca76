//! What the operator says: the settings of the server, and who said which.
//!
//! Four layers, each stronger than the one before: the defaults, a TOML file, the environment, the
//! command line. The layering is our own because the origin of each value is a feature: whoever asks
//! why the server does what it does gets the file and the line (`chargehand config show`). Every
//! setting has one row in one table ([`SETTINGS`]); from it come names, checks, messages and the
//! [`reference`]. A value of a weaker layer is checked too, although a stronger one hides it: a
//! mistake should not wait for the day that the other layer goes away.
//!
//! Deliberately absent: secrets (there are only paths to files), reading the process's environment
//! (it comes as an argument), and changing settings while the server runs.

mod file;
mod reference;
mod setting;

pub use file::FILE_BYTES_MAX;
pub use reference::reference;
pub use setting::{SETTINGS, Setting, Value};

use crate::logs;
use domain::error::{Code, Error};
use domain::name::nearest;
use engine::Place;
use setting::OTHER_VARIABLES;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The file that is read when nobody names one, if it is there.
pub const FILE_DEFAULT: &str = "chargehand.toml";

/// All settings.
///
/// ```
/// use server::config::{Config, Override, Sources};
///
/// let loaded = Config::load(Sources {
///     flags: vec![Override::set("limits.connections", "64")],
///     ..Sources::nothing()
/// })?;
/// assert_eq!(loaded.config.limits.connections, 64);
/// assert_eq!(loaded.chosen("limits.connections").unwrap().origin.to_string(), "flag --set");
/// # Ok::<(), domain::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where the store is.
    pub store: Place,
    /// Encryption.
    pub tls: Tls,
    /// What one peer or one tenant may take.
    pub limits: Limits,
    /// What one tenant may have open at once.
    pub quotas: Quotas,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
    /// Workers within the server's process.
    pub workers: Workers,
    /// Pages in a browser that may use the API.
    pub cors: Cors,
}

/// Encryption: two files, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    // Private, so that after loading there are both or none.
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Tls {
    /// With a certificate (its chain in PEM) and the file of its key (in PEM).
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: Some(certificate.into()),
            key: Some(key.into()),
        }
    }

    /// The files of the certificate and of its key; `None` for plain HTTP.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }
}

/// What one peer or one tenant may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Seconds until a request's head has arrived.
    pub header_seconds: u32,
    /// Bytes in a request's head.
    pub header_bytes: u32,
    /// Bytes in a request's body.
    pub body_bytes: u32,
    /// Seconds until a request's body has arrived.
    pub body_seconds: u32,
    /// Seconds a connection may stay open without a request.
    pub idle_seconds: u32,
    /// Seconds a peer may take nothing of an answer.
    pub write_stall_seconds: u32,
    /// Seconds until encryption is agreed on.
    pub tls_seconds: u32,
    /// Seconds a request may wait for what it asks for.
    pub wait_seconds: u32,
    /// Seconds that requests under way may take to end when the server stops.
    pub drain_seconds: u32,
    /// Event streams at once.
    pub streams: u32,
    /// Events kept for one stream whose reader is slow.
    pub stream_events: u32,
    /// Requests a second from one tenant; `None` for no limit.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests at once from one tenant; `None` for as many as in one second.
    pub requests_burst: Option<NonZeroU32>,
}

/// What one tenant may have open at once; `None` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Tasks that are pending or leased.
    pub tasks_open: Option<NonZeroU32>,
    /// Runs that have not ended.
    pub runs_open: Option<NonZeroU32>,
    /// Workers that are registered and alive.
    pub workers: Option<NonZeroU32>,
}

/// Logs, on standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// How a line is written.
    pub format: logs::Format,
    /// Which lines: what [`logs::filter`] reads.
    pub level: String,
}

/// Traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Where the collector is; `None` for no traces.
    pub otlp_endpoint: Option<String>,
    /// The name of this server in traces.
    pub service_name: String,
}

/// Workers within the server's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workers {
    /// How many, each with all the built-in skills.
    pub local: u32,
}

/// Pages in a browser that may use the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Where they come from, or `*` for everywhere; empty for nowhere.
    pub origins: Vec<String>,
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The file.
    File {
        /// Its path as it was given.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character on the line, from 1.
        column: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A flag on the command line: `--listen`, or `--set`.
    Flag(&'static str),
}

impl Origin {
    /// The layer's name: `default`, `file`, `environment` or `flag`.
    pub const fn layer(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File { .. } => "file",
            Self::Environment(_) => "environment",
            Self::Flag(_) => "flag",
        }
    }

    /// Where in the layer, as an error names it.
    fn place(&self) -> String {
        match self {
            Self::Default => "default".into(),
            Self::File { path, line, column } => format!("{}:{line}:{column}", path.display()),
            Self::Environment(name) => name.clone(),
            Self::Flag(flag) => (*flag).into(),
        }
    }
}

impl fmt::Display for Origin {
    /// `default`, `file chargehand.toml:12`, `environment CHARGEHAND_LISTEN`, `flag --listen`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layer())?;
        match self {
            Self::Default => Ok(()),
            Self::File { path, line, .. } => write!(f, " {}:{line}", path.display()),
            Self::Environment(name) => write!(f, " {name}"),
            Self::Flag(flag) => write!(f, " {flag}"),
        }
    }
}

/// What the command line says about one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    flag: &'static str,
    key: String,
    value: String,
}

impl Override {
    /// By the flag that a setting has of its own ([`Setting::flag`]).
    pub fn flag(flag: &'static str, value: impl Into<String>) -> Self {
        let row = SETTINGS.iter().find(|setting| setting.flag == Some(flag));
        Self {
            flag,
            // A flag without a row is found by `load`, as a key that does not exist.
            key: row.map_or(flag, |setting| setting.key).to_owned(),
            value: value.into(),
        }
    }

    /// By `--set KEY=VALUE`.
    pub fn set(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            flag: "--set",
            key: key.into(),
            value: value.into(),
        }
    }
}

/// Where settings come from.
#[derive(Debug)]
pub struct Sources<E> {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// Where [`FILE_DEFAULT`] is looked for; an empty path is the working directory.
    pub folder: PathBuf,
    /// Names and values, such as [`std::env::vars_os`]. Only those that begin with `CHARGEHAND_` count.
    pub env: E,
    /// What the command line says.
    pub flags: Vec<Override>,
}

impl Sources<std::iter::Empty<(OsString, OsString)>> {
    /// No file named, no environment, no flags.
    pub fn nothing() -> Self {
        Self {
            file: None,
            folder: PathBuf::new(),
            env: std::iter::empty(),
            flags: Vec::new(),
        }
    }
}

/// A setting's value and who said it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Which setting.
    pub setting: &'static Setting,
    /// Its value.
    pub value: Value,
    /// Who said it.
    pub origin: Origin,
}

/// All settings, and where they come from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// One for each setting, in the order of [`SETTINGS`].
    pub provenance: Vec<Chosen>,
    /// What looks like a mistake, a sentence each.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The value of one setting, and who said it.
    pub fn chosen(&self, key: &str) -> Option<&Chosen> {
        self.provenance
            .iter()
            .find(|chosen| chosen.setting.key == key)
    }

    /// Says one thing; later ones are stronger.
    fn say(
        &mut self,
        setting: &'static Setting,
        value: Value,
        origin: Origin,
    ) -> Result<(), Error> {
        if let Err(found) = setting.set(&mut self.config, &value) {
            return Err(refused(setting, &found, &origin));
        }
        let chosen = Chosen {
            setting,
            value,
            origin,
        };
        match self
            .provenance
            .iter_mut()
            .find(|known| known.setting.key == setting.key)
        {
            Some(known) => *known = chosen,
            None => self.provenance.push(chosen),
        }
        Ok(())
    }

    fn say_file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        for said in file::read(path, text)? {
            let origin = Origin::File {
                path: path.to_owned(),
                line: said.place.line,
                column: said.place.column,
            };
            let value = said
                .value
                .map_err(|found| refused(said.setting, &found, &origin))?;
            self.say(said.setting, value, origin)?;
        }
        Ok(())
    }

    fn say_environment(&mut self, mut env: BTreeMap<String, OsString>) -> Result<(), Error> {
        for setting in SETTINGS {
            let name = setting.environment();
            let Some(value) = env.remove(&name) else {
                continue;
            };
            let origin = Origin::Environment(name);
            let Ok(text) = value.into_string() else {
                return Err(refused(setting, "is not UTF-8", &origin));
            };
            self.say(setting, setting.read(&text), origin)?;
        }
        for name in env.keys() {
            self.warnings.extend(misspelled(name));
        }
        Ok(())
    }

    fn say_flags(&mut self, flags: Vec<Override>) -> Result<(), Error> {
        for Override { flag, key, value } in flags {
            let origin = Origin::Flag(flag);
            let Some(setting) = Setting::find(&key) else {
                let what = format!("{flag}: there is no setting `{}`", logs::shown(&key));
                return Err(Error::new(Code::ConfigInvalid, what).hint(meant(&key)));
            };
            if let Some(Origin::Flag(before)) = self.chosen(setting.key).map(|known| &known.origin)
            {
                let what = format!("{flag}: `{}` is said already, by {before}", setting.key);
                return Err(Error::new(Code::ConfigInvalid, what).hint("Say it once."));
            }
            self.say(setting, setting.read(&value), origin)?;
        }
        Ok(())
    }

    /// What must hold between settings.
    fn check(self) -> Result<Self, Error> {
        let pair = [
            ("tls.certificate", "tls.key"),
            ("tls.key", "tls.certificate"),
        ];
        let tls = &self.config.tls;
        let missing = match (&tls.certificate, &tls.key) {
            (Some(_), None) => pair[0],
            (None, Some(_)) => pair[1],
            _ => return Ok(self),
        };
        let place = self
            .chosen(missing.0)
            .map_or(String::new(), |chosen| chosen.origin.place());
        let what = format!(
            "{place}: `{}` is set, but `{}` is not",
            missing.0, missing.1
        );
        Err(Error::new(Code::ConfigInvalid, what).hint("Set both for TLS, or none for plain HTTP."))
    }
}

impl Config {
    /// Puts the layers on top of each other. Reads the file and nothing else of the world.
    ///
    /// # Errors
    ///
    /// `config.missing`: a file that was named is not there. `config.invalid`: a key that does not
    /// exist, a value that its setting does not take, settings that do not go together, or a file that
    /// is no TOML or cannot be read; the message begins with the place.
    pub fn load<E>(sources: Sources<E>) -> Result<Loaded, Error>
    where
        E: IntoIterator<Item = (OsString, OsString)>,
    {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with("CHARGEHAND_").then_some((name, value))
        };
        let env: BTreeMap<String, OsString> = sources.env.into_iter().filter_map(ours).collect();
        let mut loaded = Loaded {
            config: Self::unset(),
            provenance: Vec::with_capacity(SETTINGS.len()),
            warnings: Vec::new(),
        };
        for setting in SETTINGS {
            loaded.say(setting, setting.default(), Origin::Default)?;
        }
        let named = |path: PathBuf, by| read_file(&path, Some(by)).map(|text| Some((path, text)));
        // A variable that is set to nothing is how some supervisors say that it is not set.
        let variable = env.get("CHARGEHAND_CONFIG").filter(|path| !path.is_empty());
        let file = match (sources.file, variable) {
            (Some(path), _) => named(path, "--config")?,
            (None, Some(path)) => named(path.into(), "CHARGEHAND_CONFIG")?,
            (None, None) => {
                let path = sources.folder.join(FILE_DEFAULT);
                match read_file(&path, None) {
                    Err(error) if error.code == Code::ConfigMissing => None,
                    read => Some((path, read?)),
                }
            }
        };
        if let Some((path, text)) = file {
            loaded.say_file(&path, &text)?;
        }
        loaded.say_environment(env)?;
        loaded.say_flags(sources.flags)?;
        loaded.check()
    }

    /// Before any layer, the defaults included, has said anything.
    fn unset() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            store: Place::Memory,
            tls: Tls::default(),
            limits: Limits::default(),
            quotas: Quotas::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            workers: Workers::default(),
            cors: Cors::default(),
        }
    }
}

impl Default for Config {
    /// What the table says when nobody else says anything.
    fn default() -> Self {
        let mut config = Self::unset();
        for setting in SETTINGS {
            let set = setting.set(&mut config, &setting.default());
            debug_assert!(set.is_ok(), "the default of {setting:?} is one it takes");
        }
        config
    }
}

fn refused(setting: &Setting, found: &str, origin: &Origin) -> Error {
    let what = format!("{}: `{}` {found}", origin.place(), setting.key);
    Error::new(Code::ConfigInvalid, what).hint(format!("Use {}.", setting.takes()))
}

/// The text of a file, which somebody has named or not.
fn read_file(path: &Path, named_by: Option<&str>) -> Result<String, Error> {
    let name = path.display();
    let fault = |fault: std::io::Error| {
        if fault.kind() == ErrorKind::NotFound {
            let by = named_by.map_or(String::new(), |by| format!(", which {by} names"));
            return Error::new(
                Code::ConfigMissing,
                format!("there is no file `{name}`{by}"),
            );
        }
        let what = format!("{name}: cannot be read: {fault}");
        Error::new(Code::ConfigInvalid, what).hint("Name a file that this user may read.")
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fault)?;
    let most = FILE_BYTES_MAX as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() > FILE_BYTES_MAX {
        let what = format!("{name}: more than {FILE_BYTES_MAX} bytes, the most for settings");
        return Err(Error::new(Code::ConfigInvalid, what).hint("Is it another file?"));
    }
    String::from_utf8(bytes).map_err(|fault| {
        let before = &fault.as_bytes()[..fault.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::new(Code::ConfigInvalid, format!("{name}:{line}: not UTF-8"))
            .hint("Save the file as UTF-8.")
    })
}

/// What somebody meant who wrote a key that does not exist.
fn meant(key: &str) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let keys = || SETTINGS.iter().map(|setting| setting.key);
    let sections = || setting::SECTIONS.iter().map(|(name, _)| *name);
    let moved = || keys().find(|known| last(known) == last(key));
    match nearest(key, keys().chain(sections())).or_else(moved) {
        Some(known) => format!("Did you mean `{known}`?"),
        None => "`chargehand config default` has every setting.".into(),
    }
}

/// A warning about a variable that is none of ours, but looks like one.
fn misspelled(name: &str) -> Option<String> {
    let settings = SETTINGS.iter().map(Setting::environment);
    let others = OTHER_VARIABLES.iter().map(|(other, _)| (*other).to_owned());
    let known: Vec<String> = settings.chain(others).collect();
    if known.iter().any(|known| known == name) {
        return None;
    }
    let word = name.strip_prefix("CHARGEHAND_")?;
    let words = known
        .iter()
        .filter_map(|known| known.strip_prefix("CHARGEHAND_"));
    let behind = |setting: &Setting| {
        setting
            .key
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_uppercase()
    };
    let moved = || SETTINGS.iter().find(|setting| behind(setting) == word);
    let meant = nearest(word, words).map(|word| format!("CHARGEHAND_{word}"));
    let meant = meant.or_else(|| moved().map(Setting::environment))?;
    Some(format!("{name} is not a setting; did you mean {meant}?"))
}

#[cfg(test)]
mod tests;
