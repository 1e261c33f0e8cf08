//! Calls 1 to 4.

use std::collections::HashSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::AccessKeyPermission::{Admin, Delete, Read, Write};
use hivehub_internal_sdk::models::{
    AccessKeyInfo, AccessKeyPermission, GenerateAccessKeyRequest, GenerateAccessKeyResponse, ServiceType,
};
use uuid::Uuid;

use crate::report::{Checked, Report};
use crate::{Hub, wrong_key};

const GENERATE: usize = 1;
const LIST: usize = 2;
const GET: usize = 3;
const REVOKE: usize = 4;

/// What a key is, without its secret.
type Shown = (Uuid, String, String, Vec<AccessKeyPermission>, DateTime<Utc>);

pub async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    let made = generate(report, hub).await?;
    refuse_bad_requests(report, hub).await?;
    list(report, hub, &made).await?;
    get(report, hub, &made[0]).await?;
    revoke(report, hub, &made[0]).await?;
    refuse_strangers(report, hub, &made[1]).await
}

async fn generate(report: &mut Report, hub: &Hub) -> Checked<Vec<GenerateAccessKeyResponse>> {
    let keys = hub.client.access_keys();
    let until = Utc::now() + TimeDelta::days(30) + TimeDelta::nanoseconds(7);
    let all = vec![Read, Write, Delete, Admin];
    let what = "generate gives back what was asked for, the end to the microsecond";
    let request = request("of everything", all.clone(), Some(until));
    let first = report.value(GENERATE, what, keys.generate(&request).await)?;
    let came =
        (first.success, first.service.to_string(), first.name.clone(), first.permissions.clone(), first.expires_at);
    let asked = (true, "vectorizer".into(), "of everything".into(), all, Some(until.trunc_subsecs(6)));
    report.equal(GENERATE, what, came, asked)?;

    let vectorizer = keys.generate_vectorizer_key("for vectorizer", vec![Read]).await;
    let nexus = keys.generate_nexus_key("for nexus", vec![Read, Write]).await;
    let synap = keys.generate_synap_key("for synap", vec![Delete]).await;
    let lesstokens = keys.generate_lesstokens_key("for lesstokens", vec![Admin]).await;
    let mut made = vec![first];
    let four = [
        ("vectorizer", vectorizer, vec![Read]),
        ("nexus", nexus, vec![Read, Write]),
        ("synap", synap, vec![Delete]),
        ("lesstokens", lesstokens, vec![Admin]),
    ];
    for (service, came, permissions) in four {
        let what = format!("generate_{service}_key is for its service and without end");
        let key = report.value(GENERATE, &what, came)?;
        let came = (key.service.to_string(), key.permissions.clone(), key.expires_at);
        report.equal(GENERATE, &what, came, (service.into(), permissions, None))?;
        made.push(key);
    }

    let what = "keys are secrets of a test environment, all different";
    let marked = made.iter().filter(|key| key.access_key.starts_with("hh_test_")).count();
    let different: HashSet<_> = made.iter().map(|key| &key.access_key).collect();
    let ids: HashSet<_> = made.iter().map(|key| key.access_key_id).collect();
    report.equal(GENERATE, what, (marked, different.len(), ids.len()), (5, 5, 5))?;

    let what = "created_at is now";
    let now = made.iter().all(|key| (Utc::now() - key.created_at).abs() < TimeDelta::minutes(1));
    report.equal(GENERATE, what, now, true)?;
    Ok(made)
}

async fn refuse_bad_requests(report: &mut Report, hub: &Hub) -> Checked {
    let keys = hub.client.access_keys();
    let came = keys.generate(&request("of nothing", vec![], None)).await;
    report.refused_as(GENERATE, "no permissions are a bad request", came.map(shown), Error::BadRequest)?;
    let came = keys.generate(&request("", vec![Read], None)).await;
    report.refused_as(GENERATE, "no name is a bad request", came.map(shown), Error::BadRequest)
}

async fn list(report: &mut Report, hub: &Hub, made: &[GenerateAccessKeyResponse]) -> Checked {
    let keys = hub.client.access_keys();
    let what = "list shows every key as it was made";
    let found = report.value(LIST, what, keys.list(None).await)?.keys;
    let ids: HashSet<_> = made.iter().map(|key| key.access_key_id).collect();
    let ours: Vec<_> = found.iter().filter(|key| ids.contains(&key.id)).collect();
    report.equal(
        LIST,
        what,
        ours.iter().map(|key| entry(key)).collect::<Vec<_>>(),
        made.iter().cloned().map(shown).collect(),
    )?;
    let what = "keys are active and were never used";
    let fresh = ours.iter().all(|key| key.active && key.last_used_at.is_none());
    report.equal(LIST, what, fresh, true)?;
    let ends: Vec<_> = ours.iter().map(|key| key.expires_at).collect();
    let asked: Vec<_> = made.iter().map(|key| key.expires_at).collect();
    report.equal(LIST, "keys end when they were made to", ends, asked)?;

    for (service, count) in
        [(ServiceType::Vectorizer, 2), (ServiceType::Nexus, 1), (ServiceType::Synap, 1), (ServiceType::LessTokens, 1)]
    {
        let what = format!("list of {service} shows its keys alone");
        let found = report.value(LIST, &what, keys.list(Some(service.clone())).await)?.keys;
        let others = found.iter().filter(|key| key.service.to_string() != service.to_string());
        let ours = found.iter().filter(|key| ids.contains(&key.id));
        report.equal(LIST, &what, (others.count(), ours.count()), (0, count))?;
    }
    Ok(())
}

async fn get(report: &mut Report, hub: &Hub, made: &GenerateAccessKeyResponse) -> Checked {
    let keys = hub.client.access_keys();
    let what = "get shows the key as it was made";
    let found = report.value(GET, what, keys.get(&made.access_key_id).await)?;
    let came = (entry(&found), found.active, found.last_used_at, found.expires_at);
    report.equal(GET, what, came, (shown(made.clone()), true, None, made.expires_at))?;
    let came = keys.get(&hub.nobody).await;
    report.refused(GET, "an unknown key is not found", came, no_key())
}

async fn revoke(report: &mut Report, hub: &Hub, made: &GenerateAccessKeyResponse) -> Checked {
    let keys = hub.client.access_keys();
    let what = "revoke succeeds";
    let reply = report.value(REVOKE, what, keys.revoke(&made.access_key_id).await)?;
    let came = (reply.success, reply.message.is_empty());
    report.equal(REVOKE, what, came, (true, false))?;
    let again = keys.revoke(&made.access_key_id).await;
    let revoked = Error::BadRequest("Access key already revoked".into());
    report.refused(REVOKE, "a second time is a bad request that says so", again, revoked)?;
    let came = keys.revoke(&hub.nobody).await;
    report.refused(REVOKE, "an unknown key is not found", came, no_key())?;
    let what = "a revoked key is shown, and not active";
    let found = report.value(GET, what, keys.get(&made.access_key_id).await)?;
    report.equal(GET, what, (entry(&found), found.active), (shown(made.clone()), false))
}

async fn refuse_strangers(report: &mut Report, hub: &Hub, alive: &GenerateAccessKeyResponse) -> Checked {
    let keys = hub.stranger.access_keys();
    let what = "another service key is refused";
    let came = keys.list(None).await;
    report.refused(LIST, what, came, wrong_key())?;
    let came = keys.generate(&request("of a stranger", vec![Read], None)).await;
    report.refused(GENERATE, what, came.map(shown), wrong_key())?;
    let what = "another service key is refused before the id is looked at";
    let came = keys.get(&hub.nobody).await;
    report.refused(GET, what, came, wrong_key())?;
    let came = keys.revoke(&alive.access_key_id).await;
    report.refused(REVOKE, "another service key is refused", came, wrong_key())?;
    let what = "what was refused to a stranger was not done";
    let keys = hub.client.access_keys();
    let found = report.value(GET, what, keys.get(&alive.access_key_id).await)?;
    let listed = report.value(LIST, what, keys.list(None).await)?.keys;
    let strange = listed.iter().any(|key| key.name == "of a stranger");
    report.equal(LIST, what, (found.active, strange), (true, false))
}

fn request(
    name: &str,
    permissions: Vec<AccessKeyPermission>,
    expires_at: Option<DateTime<Utc>>,
) -> GenerateAccessKeyRequest {
    GenerateAccessKeyRequest { service: ServiceType::Vectorizer, name: name.into(), permissions, expires_at }
}

/// A generated key without its secret, so that no failure prints one.
fn shown(made: GenerateAccessKeyResponse) -> Shown {
    let service = made.service.to_string();
    (made.access_key_id, service, made.name, made.permissions, made.created_at)
}

fn entry(found: &AccessKeyInfo) -> Shown {
    let service = found.service.to_string();
    let permissions = found.permissions.clone();
    (found.id, service, found.name.clone(), permissions, found.created_at)
}

fn no_key() -> Error {
    Error::NotFound("Access key not found".into())
}
