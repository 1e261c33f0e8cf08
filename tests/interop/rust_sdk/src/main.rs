//! Drives all 23 calls of HiveHub's official SDK against a hub, and asserts values and error variants.
//!
//! Told by environment: `HIVEHUB_URL`, `HIVEHUB_SERVICE_KEY`, and the ids of two tenants that nothing was done with yet,
//! `HIVEHUB_TENANT_A` on plan `free` and `HIVEHUB_TENANT_B` on plan `pro`. Amounts are those that the two plans have by
//! default. `HIVEHUB_TENANT_C`, if there is one, is a tenant whom nothing limits: collections, vectors, nodes,
//! relationships, queues, storage, credits and tokens; without it the checks of `unlimited.rs` are left out.
//!
//! Prints a line a check and stops at the first that fails, with exit code 1.

use std::process::ExitCode;

use hivehub_internal_sdk::HiveHubCloudClient;
use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::{QuotaCheckRequest, QuotaCheckResponse};
use uuid::Uuid;

mod keys;
mod lesstokens;
mod nexus;
mod report;
mod synap;
mod unlimited;
mod vectorizer;

use report::{Checked, Report};

/// The hub, and who there is in it.
pub struct Hub {
    /// A client with the service key.
    pub client: HiveHubCloudClient,
    /// A client with another key.
    pub stranger: HiveHubCloudClient,
    /// A tenant on plan `free`.
    pub free: Uuid,
    /// A tenant on plan `pro`.
    pub pro: Uuid,
    /// A tenant whom nothing limits.
    pub boundless: Option<Uuid>,
    /// The id of no tenant, key or collection.
    pub nobody: Uuid,
}

impl Hub {
    fn from_env() -> Result<Self, String> {
        let url = told("HIVEHUB_URL")?;
        let client = |key: String| HiveHubCloudClient::new(key, url.clone()).map_err(|error| error.to_string());
        Ok(Self {
            client: client(told("HIVEHUB_SERVICE_KEY")?)?,
            stranger: client(format!("svc_all_{}", Uuid::new_v4().simple()))?,
            free: told_id("HIVEHUB_TENANT_A")?,
            pro: told_id("HIVEHUB_TENANT_B")?,
            boundless: told("HIVEHUB_TENANT_C").ok().map(|_| told_id("HIVEHUB_TENANT_C")).transpose()?,
            nobody: Uuid::new_v4(),
        })
    }
}

fn told(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set"))
}

fn told_id(name: &str) -> Result<Uuid, String> {
    told(name)?.parse().map_err(|_| format!("{name} must be a UUID"))
}

/// What each call answers about somebody who does not exist.
pub fn no_user() -> Error {
    Error::NotFound("User not found".into())
}

/// What each call answers to another service key.
pub fn wrong_key() -> Error {
    Error::Authentication("Invalid API key".into())
}

/// The question of the four `check_quota` calls; a project is a user.
pub fn quota_of(user: &Uuid, operation: &str, size: Option<i64>) -> QuotaCheckRequest {
    QuotaCheckRequest { project_id: user.to_string(), operation: operation.into(), estimated_size: size }
}

/// A verdict as (allowed, remaining, limit).
pub fn verdict(found: QuotaCheckResponse) -> (bool, Option<i64>, Option<i64>) {
    (found.allowed, found.remaining, found.limit)
}

async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    keys::drive(report, hub).await?;
    // Before vectorizer, whose reports may count in the storage that a database shows.
    nexus::drive(report, hub).await?;
    vectorizer::drive(report, hub).await?;
    synap::drive(report, hub).await?;
    lesstokens::drive(report, hub).await?;
    match &hub.boundless {
        Some(user) => unlimited::drive(report, hub, user).await,
        None => Ok(()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let hub = match Hub::from_env() {
        Ok(hub) => hub,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    if let Err(failure) = drive(&mut report, &hub).await {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    let (line, complete) = report.summary();
    println!("{line}");
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
