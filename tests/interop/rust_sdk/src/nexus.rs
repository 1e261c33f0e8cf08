//! Calls 10 to 13.

use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::{ConsumeCreditsRequest, DatabaseInfo, NexusUpdateUsageRequest};
use uuid::Uuid;

use crate::report::{Checked, Report};
use crate::{Hub, no_user, quota_of, verdict, wrong_key};

const DATABASE: usize = 10;
const QUOTA: usize = 11;
const CREDITS: usize = 12;
const USAGE: usize = 13;

const MIB: u64 = 1024 * 1024;

pub async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    nothing_yet(report, hub).await?;
    credits(report, hub).await?;
    usage(report, hub).await?;
    quota(report, hub).await?;
    refuse_unknown(report, hub).await?;
    refuse_strangers(report, hub).await
}

async fn database(report: &Report, hub: &Hub, what: &str, user: &Uuid) -> Checked<DatabaseInfo> {
    let came = hub.client.nexus().get_user_database(user).await;
    report.value(DATABASE, what, came)
}

async fn nothing_yet(report: &mut Report, hub: &Hub) -> Checked {
    for (user, plan, most_of_all, credit) in
        [(hub.free, "free", (10_000, 50_000, 100), 1_000), (hub.pro, "pro", (100_000, 500_000, 10 * 1024), 10_000)]
    {
        let what = format!("a new tenant on {plan} has an empty database of its own");
        let found = database(report, hub, &what, &user).await?;
        let came = (found.database_name.clone(), most(&found), held(&found));
        let name = format!("user_{}_nexus", user.hyphenated());
        report.equal(DATABASE, &what, came, (name, most_of_all, (0, 0, 0)))?;
        let what = format!("a new tenant on {plan} has all of its {credit} credits");
        report.equal(DATABASE, &what, purse(&found), (credit, credit, 0))?;
    }
    Ok(())
}

async fn credits(report: &mut Report, hub: &Hub) -> Checked {
    let nexus = hub.client.nexus();
    for (what, amount, left) in
        [("credits are spent", 10, 990), ("nothing spends nothing", 0, 990), ("and spent again", 890, 100)]
    {
        let came = nexus.consume_credits(&hub.free, &spend(amount)).await;
        let found = report.value(CREDITS, what, came)?;
        let came = (found.success, found.can_continue, found.credits_remaining);
        report.equal(CREDITS, what, came, (true, true, left))?;
    }
    let what = "more than there is, is over the quota";
    let came = nexus.consume_credits(&hub.free, &spend(101)).await;
    report.refused(CREDITS, what, came, too_few())?;
    let came = nexus.consume_credits(&hub.free, &spend(u64::MAX)).await;
    report.refused(CREDITS, "as many as a number can say are, too", came, too_few())?;
    let what = "all or nothing: what was refused was not spent";
    let found = database(report, hub, what, &hub.free).await?;
    report.equal(DATABASE, what, purse(&found), (100, 1_000, 900))?;
    let what = "the last credit ends it";
    let came = nexus.consume_credits(&hub.free, &spend(100)).await;
    let found = report.value(CREDITS, what, came)?;
    let came = (found.success, found.can_continue, found.credits_remaining);
    report.equal(CREDITS, what, came, (true, false, 0))?;
    let came = nexus.consume_credits(&hub.free, &spend(1)).await;
    report.refused(CREDITS, "and one more is over the quota", came, too_few())?;
    let what = "another tenant's credits are its own";
    let found = database(report, hub, what, &hub.pro).await?;
    report.equal(DATABASE, what, purse(&found), (10_000, 10_000, 0))
}

async fn usage(report: &mut Report, hub: &Hub) -> Checked {
    let nexus = hub.client.nexus();
    for (what, times) in [("a report is added", 1), ("a report is added, not a total", 2)] {
        let request = created(2_500, 7, 3 * MIB, 25);
        let came = nexus.update_usage(&hub.pro, &request).await;
        report.value(USAGE, what, came)?;
        let found = database(report, hub, what, &hub.pro).await?;
        report.equal(
            USAGE,
            what,
            (held(&found), purse(&found)),
            ((2_500 * times, 7 * times, 3 * times), (10_000 - 25 * times, 10_000, 25 * times)),
        )?;
    }
    let what = "a report of nothing is taken, and changes nothing";
    let came = nexus.update_usage(&hub.pro, &created(0, 0, 0, 0)).await;
    report.value(USAGE, what, came)?;
    let found = database(report, hub, what, &hub.pro).await?;
    report.equal(USAGE, what, held(&found), (5_000, 14, 6))?;
    let what = "another tenant's database is its own";
    let found = database(report, hub, what, &hub.free).await?;
    let (nodes, relationships, _) = held(&found);
    report.equal(DATABASE, what, (nodes, relationships), (0, 0))
}

async fn quota(report: &mut Report, hub: &Hub) -> Checked {
    let nexus = hub.client.nexus();
    let what = "a node is allowed below the limit";
    let came = nexus.check_quota(&quota_of(&hub.pro, "create_node", Some(512))).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (true, Some(95_000), Some(100_000)))?;
    let what = "a node is refused at the limit";
    let came = nexus.update_usage(&hub.pro, &created(95_000, 0, 0, 0)).await;
    report.value(USAGE, what, came)?;
    let came = nexus.check_quota(&quota_of(&hub.pro, "create_node", None)).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (false, Some(0), Some(100_000)))
}

async fn refuse_unknown(report: &mut Report, hub: &Hub) -> Checked {
    let nexus = hub.client.nexus();
    let what = "an unknown user is not found";
    let came = nexus.get_user_database(&hub.nobody).await;
    report.refused(DATABASE, what, came, no_user())?;
    let came = nexus.consume_credits(&hub.nobody, &spend(1)).await;
    report.refused(CREDITS, what, came, no_user())?;
    let came = nexus.update_usage(&hub.nobody, &created(1, 1, 1, 1)).await;
    report.refused(USAGE, what, came, no_user())?;
    let what = "an unknown project is not found";
    let came = nexus.check_quota(&quota_of(&hub.nobody, "create_node", None)).await;
    report.refused_as(QUOTA, what, came, Error::NotFound)
}

async fn refuse_strangers(report: &mut Report, hub: &Hub) -> Checked {
    let nexus = hub.stranger.nexus();
    let what = "another service key is refused";
    let came = nexus.get_user_database(&hub.pro).await;
    report.refused(DATABASE, what, came, wrong_key())?;
    let came = nexus.check_quota(&quota_of(&hub.pro, "create_node", None)).await;
    report.refused(QUOTA, what, came, wrong_key())?;
    let came = nexus.consume_credits(&hub.pro, &spend(1)).await;
    report.refused(CREDITS, what, came, wrong_key())?;
    let came = nexus.update_usage(&hub.pro, &created(1, 1, 1, 1)).await;
    report.refused(USAGE, what, came, wrong_key())?;
    let what = "what was refused to a stranger was not done";
    let found = database(report, hub, what, &hub.pro).await?;
    report.equal(DATABASE, what, purse(&found), (9_950, 10_000, 50))
}

fn spend(amount: u64) -> ConsumeCreditsRequest {
    ConsumeCreditsRequest {
        amount,
        operation: "query".into(),
        description: (amount > 100).then(|| "a long one".into()),
    }
}

fn created(nodes: u64, relationships: u64, bytes: u64, credits: u64) -> NexusUpdateUsageRequest {
    NexusUpdateUsageRequest {
        nodes_created: nodes,
        relationships_created: relationships,
        storage_bytes: bytes,
        credits_used: credits,
    }
}

/// Limits as (nodes, relationships, megabytes).
fn most(found: &DatabaseInfo) -> (u64, u64, u64) {
    let quota = &found.quota;
    (quota.max_nodes, quota.max_relationships, quota.storage_limit_mb)
}

/// What there is as (nodes, relationships, megabytes).
fn held(found: &DatabaseInfo) -> (u64, u64, u64) {
    let quota = &found.quota;
    (quota.current_nodes, quota.current_relationships, quota.storage_used_mb)
}

/// Credits as (available, total, used).
fn purse(found: &DatabaseInfo) -> (u64, u64, u64) {
    let credits = &found.credits;
    (credits.available, credits.total, credits.used)
}

fn too_few() -> Error {
    Error::QuotaExceeded("Insufficient credits".into())
}
