//! What calls say about a tenant whom nothing limits: the largest number that each field may hold, or no number.

use uuid::Uuid;

use hivehub_internal_sdk::models::{
    ConsumeCreditsRequest, ConsumeTokensRequest, CreateCollectionRequest, UpdateUsageRequest,
};

use crate::report::{Checked, Report};
use crate::{Hub, quota_of, verdict};

/// What stands for "no limit" where 64 bits must hold a number.
const NO_LIMIT: u64 = i64::MAX as u64;

const MANY: u64 = 1 << 50;

pub async fn drive(report: &mut Report, hub: &Hub, user: &Uuid) -> Checked {
    verdicts(report, hub, user).await?;
    vectorizer(report, hub, user).await?;
    nexus(report, hub, user).await?;
    lesstokens(report, hub, user).await
}

async fn verdicts(report: &mut Report, hub: &Hub, user: &Uuid) -> Checked {
    let what = "without a limit everything is allowed, and there are no numbers";
    let client = &hub.client;
    let size = Some(i64::MAX);
    for (call, came) in [
        (9, client.vectorizer().check_quota(&quota_of(user, "insert", size)).await),
        (11, client.nexus().check_quota(&quota_of(user, "create_node", None)).await),
        (18, client.synap().check_quota(&quota_of(user, "create_queue", None)).await),
        (23, client.lesstokens().check_quota(&quota_of(user, "api_request", size)).await),
    ] {
        let found = report.value(call, what, came)?;
        report.equal(call, what, verdict(found), (true, None, None))?;
    }
    Ok(())
}

async fn vectorizer(report: &mut Report, hub: &Hub, user: &Uuid) -> Checked {
    let vectorizer = hub.client.vectorizer();
    let what = "without a limit there may be as many collections as 32 bits can say";
    let found = report.value(5, what, vectorizer.get_user_collections(user).await)?;
    report.equal(5, what, found.collection_limit, u32::MAX)?;
    let request =
        CreateCollectionRequest { collection_name: "documents".into(), project_id: *user, dimension: u32::MAX };
    let what = "a dimension may be as large as 32 bits can say";
    let made = report.value(6, what, vectorizer.create_collection(user, &request).await)?;
    report.equal(6, what, made.created, true)?;
    let what = "without a limit a collection is never full";
    let total = UpdateUsageRequest { vector_count: MANY, storage_bytes: MANY };
    let came = vectorizer.update_usage(&made.collection_id, &total).await;
    let found = report.value(8, what, came)?.quota;
    let came = (found.max_vectors, found.current_vectors, found.can_insert);
    report.equal(8, what, came, (NO_LIMIT, MANY, true))
}

async fn nexus(report: &mut Report, hub: &Hub, user: &Uuid) -> Checked {
    let nexus = hub.client.nexus();
    let what = "without a limit credits do not end";
    let request = ConsumeCreditsRequest { amount: MANY, operation: "query".into(), description: None };
    let found = report.value(12, what, nexus.consume_credits(user, &request).await)?;
    let came = (found.success, found.can_continue, found.credits_remaining);
    report.equal(12, what, came, (true, true, NO_LIMIT - MANY))?;
    let what = "without a limit a database may hold as much as 63 bits can say";
    let found = report.value(10, what, nexus.get_user_database(user).await)?;
    let (quota, credits) = (found.quota, found.credits);
    report.equal(
        10,
        what,
        (quota.max_nodes, quota.max_relationships, quota.storage_limit_mb, credits.total, credits.used),
        (NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT, MANY),
    )
}

async fn lesstokens(report: &mut Report, hub: &Hub, user: &Uuid) -> Checked {
    let lesstokens = hub.client.lesstokens();
    let what = "without a limit tokens do not end";
    let request = ConsumeTokensRequest { amount: MANY, operation: "api_request".into(), description: None };
    let found = report.value(21, what, lesstokens.consume_tokens(user, &request).await)?;
    report.equal(21, what, (found.success, found.tokens_remaining), (true, NO_LIMIT - MANY))?;
    let found = report.value(20, what, lesstokens.validate_tokens(user, MANY).await)?;
    report.equal(20, what, (found.allowed, found.tokens_available), (true, NO_LIMIT - MANY))?;
    let found = report.value(22, what, lesstokens.check_limit(user).await)?.tokens;
    report.equal(22, what, (found.total, found.used, found.limit_reached), (NO_LIMIT, MANY, false))
}
