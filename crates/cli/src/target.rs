//! Where a command works: on a store of its own, or with a server. Both are the one contract, so a
//! command knows no difference.

use crate::crew::must_exist;
use crate::error::CliError;
use chargehand::Client;
use domain::error::{Code, Error};
use engine::{Engine, Place};
use protocol::Api;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use store::backend::sqlite::Sqlite;

/// What every command line may say about where it works.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Where the store is: a folder, or `memory:` for one that is not kept.
    #[arg(
        long,
        global = true,
        env = "CHARGEHAND_STORE",
        default_value = ".chargehand",
        value_name = "FOLDER"
    )]
    pub(crate) store: String,
    /// Work with this server instead of a store, such as http://127.0.0.1:7420.
    #[arg(long, global = true, env = "CHARGEHAND_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Trust this certificate too, in PEM: of a server that no public authority vouches for.
    #[arg(long, global = true, env = "CHARGEHAND_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Where a command works.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A store on this machine.
    Store(String),
    /// A server, with the key that is shown to it.
    Server {
        url: String,
        key: Option<server::secret::Secret>,
        ca: Option<PathBuf>,
    },
}

impl From<&TargetArgs> for Target {
    fn from(args: &TargetArgs) -> Self {
        match &args.server {
            // An empty variable is one that was unset.
            Some(url) if !url.trim().is_empty() => Self::Server {
                url: url.trim().to_owned(),
                // Only from the environment: other people's process lists show arguments.
                key: std::env::var("CHARGEHAND_KEY")
                    .ok()
                    .filter(|key| !key.is_empty())
                    .map(server::secret::Secret::new),
                ca: args.ca.clone(),
            },
            _ => Self::Store(args.store.clone()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(store) => write!(f, "in {store}"),
            Self::Server { url, .. } => write!(f, "at {url}"),
        }
    }
}

impl Target {
    /// What a command line that means the same place has to say.
    pub(crate) fn flags(&self) -> String {
        match self {
            Self::Store(store) if store == ".chargehand" => String::new(),
            Self::Store(store) => format!(" --store {store}"),
            Self::Server { url, .. } => format!(" --server {url}"),
        }
    }

    /// Opens the store, which is made if there is none; or speaks with the server.
    pub(crate) fn open(&self) -> Result<Site, CliError> {
        match self {
            Self::Store(store) => Ok(Site::own(Engine::open(&store.parse()?)?)),
            Self::Server { .. } => self.connect(),
        }
    }

    /// Opens a store that is there; looking at nothing must not make one.
    pub(crate) fn open_existing(&self) -> Result<Site, CliError> {
        if let Self::Store(store) = self
            && let Place::Folder(folder) = store.parse()?
        {
            must_exist(&folder)?;
        }
        self.open()
    }

    /// Opens a store that is there to look only, also while another process works with it.
    pub(crate) fn open_to_read(&self) -> Result<Site, CliError> {
        match self {
            Self::Store(store) => match store.parse()? {
                Place::Memory => self.open(),
                Place::Folder(folder) => {
                    must_exist(&folder)?;
                    Ok(Site::own(Engine::open_to_read(&folder)?))
                }
            },
            Self::Server { .. } => self.connect(),
        }
    }

    fn connect(&self) -> Result<Site, CliError> {
        Ok(Site {
            api: Arc::new(self.client()?),
            own: None,
        })
    }

    /// The client of the server.
    ///
    /// # Errors
    /// The address or certificate cannot be used, or no server was named.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let Self::Server { url, key, ca } = self else {
            let error = Error::new(Code::OutOfRange, "this needs a server");
            return Err(error.hint("Name one with `--server`.").into());
        };
        let mut builder = Client::builder(url.as_str());
        if let Some(key) = key {
            builder = builder.key(key.expose());
        }
        if let Some(ca) = ca {
            builder = builder.root_certificate(ca);
        }
        Ok(builder.build()?)
    }

    /// Whether some process works on what is there: a server always does.
    pub(crate) fn is_worked_on(&self) -> bool {
        match self {
            Self::Store(store) => {
                matches!(store.parse(), Ok(Place::Folder(folder)) if Sqlite::is_owned(&folder))
            }
            Self::Server { .. } => true,
        }
    }

    /// Whether others may work there at the same time, so that names must differ from theirs.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    /// The store, for a command that looks at its files.
    ///
    /// # Errors
    /// A server was named.
    pub(crate) fn store(&self, command: &str) -> Result<&str, CliError> {
        match self {
            Self::Store(store) => Ok(store),
            Self::Server { .. } => Err(CliError::caller(
                "usage.invalid",
                format!("`{command}` works on a store's files, not with a server"),
                "Run it where the store is, with `--store` and without `--server`.",
            )),
        }
    }
}

/// Where a command works, open. It is the contract; and when the store is its own, it closes it.
#[derive(Clone)]
pub(crate) struct Site {
    api: Arc<dyn Api>,
    own: Option<Arc<Engine>>,
}

impl Site {
    pub(crate) fn own(engine: Engine) -> Self {
        let engine = Arc::new(engine);
        Self {
            api: engine.clone(),
            own: Some(engine),
        }
    }

    /// The contract, shared.
    pub(crate) fn api(&self) -> Arc<dyn Api> {
        Arc::clone(&self.api)
    }

    /// Writes what is behind and closes the store, if it is its own.
    pub(crate) async fn close(&self) -> Result<(), CliError> {
        let Some(engine) = self.own.clone() else {
            return Ok(());
        };
        let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
        stopped.unwrap_or(Ok(())).map_err(CliError::from)
    }
}

impl Deref for Site {
    type Target = dyn Api;
    fn deref(&self) -> &(dyn Api + 'static) {
        &*self.api
    }
}
