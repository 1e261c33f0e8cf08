//! Calls 19 to 23.

use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::{ConsumeTokensRequest, TokenInfo};
use uuid::Uuid;

use crate::report::{Checked, Report};
use crate::{Hub, no_user, quota_of, verdict, wrong_key};

const TOKENS: usize = 19;
const VALIDATE: usize = 20;
const CONSUME: usize = 21;
const LIMIT: usize = 22;
const QUOTA: usize = 23;

/// Tokens as (available, used, total, limit reached).
type Purse = (u64, u64, u64, bool);

pub async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    nothing_yet(report, hub).await?;
    consume(report, hub).await?;
    all_used(report, hub).await?;
    refuse_unknown(report, hub).await?;
    refuse_strangers(report, hub).await
}

/// Both calls that show a tenant's tokens show these.
async fn shows(report: &mut Report, hub: &Hub, what: &str, user: &Uuid, purse: Purse) -> Checked {
    let lesstokens = hub.client.lesstokens();
    let came = lesstokens.get_user_tokens(user).await;
    let found = report.value(TOKENS, what, came)?;
    let came = (found.user_id, tokens(&found.tokens));
    report.equal(TOKENS, what, came, (*user, purse))?;
    let came = lesstokens.check_limit(user).await;
    let found = report.value(LIMIT, what, came)?;
    report.equal(LIMIT, what, tokens(&found.tokens), purse)
}

async fn nothing_yet(report: &mut Report, hub: &Hub) -> Checked {
    let what = "a new tenant on free has all of its 200";
    shows(report, hub, what, &hub.free, (200, 0, 200, false)).await?;
    let what = "a new tenant on pro has all of its 2,000";
    shows(report, hub, what, &hub.pro, (2_000, 0, 2_000, false)).await
}

async fn consume(report: &mut Report, hub: &Hub) -> Checked {
    let lesstokens = hub.client.lesstokens();
    let what = "tokens are spent";
    let came = lesstokens.consume_tokens(&hub.free, &spend(50)).await;
    let found = report.value(CONSUME, what, came)?;
    let came = (found.success, found.tokens_remaining);
    report.equal(CONSUME, what, came, (true, 150))?;
    shows(report, hub, what, &hub.free, (150, 50, 200, false)).await?;

    for (what, required, allowed) in [
        ("as many as there are may be used", 150, true),
        ("one more may not", 151, false),
        ("and never as many as a number can say", u64::MAX, false),
    ] {
        let came = lesstokens.validate_tokens(&hub.free, required).await;
        let found = report.value(VALIDATE, what, came)?;
        let came = (found.allowed, found.tokens_available, found.tokens_required);
        report.equal(VALIDATE, what, came, (allowed, 150, required))?;
    }
    let what = "more than there are, is over the quota";
    let came = lesstokens.consume_tokens(&hub.free, &spend(151)).await;
    report.refused_as(CONSUME, what, came, Error::QuotaExceeded)?;
    let what = "all or nothing: what was refused was not spent";
    shows(report, hub, what, &hub.free, (150, 50, 200, false)).await?;
    let what = "a request is allowed below the limit";
    let came = lesstokens.check_quota(&quota_of(&hub.free, "api_request", Some(1))).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (true, Some(150), Some(200)))
}

async fn all_used(report: &mut Report, hub: &Hub) -> Checked {
    let lesstokens = hub.client.lesstokens();
    let what = "the last token reaches the limit";
    let came = lesstokens.consume_tokens(&hub.free, &spend(150)).await;
    let found = report.value(CONSUME, what, came)?;
    let came = (found.success, found.tokens_remaining);
    report.equal(CONSUME, what, came, (true, 0))?;
    shows(report, hub, what, &hub.free, (0, 200, 200, true)).await?;
    let what = "and one more is over the quota";
    let came = lesstokens.consume_tokens(&hub.free, &spend(1)).await;
    report.refused_as(CONSUME, what, came, Error::QuotaExceeded)?;
    let what = "a request is refused at the limit";
    let came = lesstokens.check_quota(&quota_of(&hub.free, "classification", None)).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (false, Some(0), Some(200)))?;
    let what = "another tenant's tokens are its own";
    shows(report, hub, what, &hub.pro, (2_000, 0, 2_000, false)).await
}

async fn refuse_unknown(report: &mut Report, hub: &Hub) -> Checked {
    let lesstokens = hub.client.lesstokens();
    let what = "an unknown user is not found";
    let came = lesstokens.get_user_tokens(&hub.nobody).await;
    report.refused(TOKENS, what, came, no_user())?;
    let came = lesstokens.validate_tokens(&hub.nobody, 1).await;
    report.refused(VALIDATE, what, came, no_user())?;
    let came = lesstokens.consume_tokens(&hub.nobody, &spend(1)).await;
    report.refused(CONSUME, what, came, no_user())?;
    let came = lesstokens.check_limit(&hub.nobody).await;
    report.refused(LIMIT, what, came, no_user())?;
    let what = "an unknown project is not found";
    let came = lesstokens.check_quota(&quota_of(&hub.nobody, "api_request", None)).await;
    report.refused_as(QUOTA, what, came, Error::NotFound)
}

async fn refuse_strangers(report: &mut Report, hub: &Hub) -> Checked {
    let lesstokens = hub.stranger.lesstokens();
    let what = "another service key is refused";
    let came = lesstokens.get_user_tokens(&hub.pro).await;
    report.refused(TOKENS, what, came, wrong_key())?;
    let came = lesstokens.validate_tokens(&hub.pro, 1).await;
    report.refused(VALIDATE, what, came, wrong_key())?;
    let came = lesstokens.consume_tokens(&hub.pro, &spend(1)).await;
    report.refused(CONSUME, what, came, wrong_key())?;
    let came = lesstokens.check_limit(&hub.pro).await;
    report.refused(LIMIT, what, came, wrong_key())?;
    let came = lesstokens.check_quota(&quota_of(&hub.pro, "api_request", None)).await;
    report.refused(QUOTA, what, came, wrong_key())?;
    let what = "what was refused to a stranger was not done";
    shows(report, hub, what, &hub.pro, (2_000, 0, 2_000, false)).await
}

fn spend(amount: u64) -> ConsumeTokensRequest {
    ConsumeTokensRequest { amount, operation: "classification".into(), description: None }
}

fn tokens(found: &TokenInfo) -> Purse {
    (found.available, found.used, found.total, found.limit_reached)
}
