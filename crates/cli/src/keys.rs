//! `chargehand keys`: who may come in. And `chargehand tenants`: whose doors there are.

use crate::error::CliError;
use crate::output::{Output, instant, print, print_json, say, table};
use crate::target::{Site, Target};
use domain::credential::Scope;
use domain::error::{Code, Error};
use domain::name::Name;
use engine::{Engine, Place, Settings};
use protocol::api::NewCredential;
use protocol::key::Tenant;
use protocol::v1::CredentialView;
use serde_json::json;
use server::tenants;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Make a key. It is printed once and kept nowhere: keep it now.
    #[command(after_help = "Examples:
  chargehand keys create --label ops --scope admin
  chargehand keys create --label ci --scope submitter --scope worker --expires 90d --tenant acme

From the first key on, a server lets nobody in without one.")]
    Create {
        /// What people call it; the audit trail names it.
        #[arg(long, value_name = "TEXT")]
        label: String,
        /// What it is good for: admin, operator, submitter, worker, reader; can be repeated.
        #[arg(long, required = true, value_name = "SCOPE")]
        scope: Vec<String>,
        /// Ends by itself after so long: 12h, 90d.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Whose.
        #[arg(long, default_value = "default", value_name = "NAME")]
        tenant: String,
    },
    /// List keys, without their secrets.
    #[command(after_help = "Example:\n  chargehand keys list --tenant acme")]
    List {
        /// Whose.
        #[arg(long, default_value = "default", value_name = "NAME")]
        tenant: String,
    },
    /// Revoke a key: from now on it lets nobody in.
    #[command(after_help = "Example:\n  chargehand keys revoke 7k2m9x0q1")]
    Revoke {
        /// Its id, as `keys list` shows it.
        id: String,
        /// Whose.
        #[arg(long, default_value = "default", value_name = "NAME")]
        tenant: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TenantArgs {
    /// Make a tenant: a store, workers, keys and a log of its own.
    #[command(after_help = "Example:\n  chargehand tenants create acme")]
    Create {
        /// 1 to 63 lower-case letters, digits and hyphens.
        name: String,
    },
    /// List the tenants.
    #[command(after_help = "Example:\n  chargehand tenants list")]
    List,
}

/// A tenant's own store; with a server, the key says whose it is.
fn open(target: &Target, tenant: &str) -> Result<Site, CliError> {
    let tenant: Tenant = tenant.parse()?;
    match target {
        Target::Server { .. } if !tenant.is_default() => Err(CliError::caller(
            "usage.invalid",
            "with a server, the key says which tenant is meant",
            "Set CHARGEHAND_KEY to a key of that tenant, and leave `--tenant` out.",
        )),
        Target::Server { .. } => target.open(),
        Target::Store(store) => {
            let root: Place = store.parse()?;
            let known = tenant.is_default() || tenants::known(&root)?.contains(&tenant);
            if !known {
                let text = format!("there is no tenant “{tenant}”");
                let error = Error::new(Code::TenantUnknown, text);
                return Err(error
                    .hint(format!(
                        "Make it first: `chargehand tenants create {tenant}`."
                    ))
                    .into());
            }
            let settings = Settings {
                tenant: tenant.clone(),
                ..Settings::default()
            };
            let place = tenants::place(&root, &tenant);
            Ok(Site::own(Engine::open_with(&place, settings)?))
        }
    }
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::Create {
            label,
            scope,
            expires,
            tenant,
        } => {
            let scopes = scope.iter().map(|scope| scope.parse());
            let new = NewCredential {
                label: Name::new(label)?,
                scopes: scopes.collect::<Result<Vec<Scope>, Error>>()?,
                ttl_ms: expires.as_deref().map(milliseconds).transpose()?,
            };
            let site = open(target, &tenant)?;
            let minted = site.credential_create(new).await?;
            site.close().await?;
            match output {
                Output::Json => print_json(&minted),
                Output::Text => {
                    print(&minted.key);
                    say(&format!(
                        "Key {} is shown this once. Programs send it as `Authorization: Bearer …`; the command line reads it from CHARGEHAND_KEY.",
                        minted.credential.id
                    ));
                }
            }
        }
        Args::List { tenant } => {
            let site = open(target, &tenant)?;
            let keys = site.credential_list().await?;
            site.close().await?;
            match output {
                Output::Json => print_json(&json!({"items": keys})),
                Output::Text if keys.is_empty() => print("No keys."),
                Output::Text => {
                    let heading = ["key", "label", "scopes", "made", "state"];
                    print(&table(&heading, keys.iter().map(row).collect()));
                }
            }
        }
        Args::Revoke { id, tenant } => {
            let site = open(target, &tenant)?;
            let revoked = site.credential_revoke(Name::new(id.clone())?).await;
            site.close().await?;
            revoked?;
            match output {
                Output::Json => print_json(&json!({"revoked": id})),
                Output::Text => print(&format!("Key {id} lets nobody in any more.")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &CredentialView) -> Vec<String> {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", instant(at)),
        (None, Some(at)) => format!("good until {}", instant(at)),
        (None, None) => "good".to_owned(),
    };
    vec![
        key.id.to_string(),
        key.label.to_string(),
        scopes.join(", "),
        instant(key.created_at),
        state,
    ]
}

/// `90d`, `12h`, `30m`, `45s`.
fn milliseconds(text: &str) -> Result<u64, CliError> {
    let units = [
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let read = units.into_iter().find_map(|(unit, ms)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(ms).filter(|ms| *ms > 0)
    });
    read.ok_or_else(|| {
        CliError::caller(
            "value.out_of_range",
            format!("“{text}” is not a length of time"),
            "Use a whole number and a unit: 45s, 30m, 12h, 90d.",
        )
    })
}

pub(crate) async fn tenants(
    args: TenantArgs,
    target: &Target,
    output: Output,
) -> Result<ExitCode, CliError> {
    let names: Vec<String> = match (args, target) {
        (TenantArgs::Create { name }, Target::Store(store)) => {
            let (root, tenant): (Place, Tenant) = (store.parse()?, name.parse()?);
            let engine = Engine::open(&tenants::place(&root, &tenant))?;
            Site::own(engine).close().await?;
            vec![name]
        }
        (TenantArgs::List, Target::Store(store)) => {
            let known = tenants::known(&store.parse()?)?;
            let all = std::iter::once(Tenant::default()).chain(known);
            all.map(|tenant| tenant.to_string()).collect()
        }
        (TenantArgs::Create { name }, Target::Server { .. }) => {
            let tenant: Tenant = name.parse()?;
            target.client()?.tenant_create(&tenant).await?;
            vec![name]
        }
        (TenantArgs::List, Target::Server { .. }) => {
            let all = target.client()?.tenant_list().await?;
            all.iter().map(Tenant::to_string).collect()
        }
    };
    match output {
        Output::Json => print_json(&json!({"items": names})),
        Output::Text => print(&names.join("\n")),
    }
    Ok(ExitCode::SUCCESS)
}
