//! Calls 5 to 9.

use chrono::{TimeDelta, Utc};
use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::{CreateCollectionRequest, Quota, UpdateUsageRequest};
use uuid::Uuid;

use crate::report::{Checked, Report};
use crate::{Hub, no_user, quota_of, verdict, wrong_key};

const COLLECTIONS: usize = 5;
const CREATE: usize = 6;
const VALIDATE: usize = 7;
const USAGE: usize = 8;
const QUOTA: usize = 9;

const MIB: u64 = 1024 * 1024;

pub async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    nothing_yet(report, hub).await?;
    let id = create(report, hub).await?;
    usage(report, hub, &id).await?;
    foreign_equals_missing(report, hub, &id).await?;
    quota(report, hub).await?;
    limit(report, hub).await?;
    refuse_strangers(report, hub, &id).await
}

async fn nothing_yet(report: &mut Report, hub: &Hub) -> Checked {
    for (user, plan, limit) in [(hub.free, "free", 3), (hub.pro, "pro", 50)] {
        let what = format!("a new tenant on {plan} has none of {limit}");
        let came = hub.client.vectorizer().get_user_collections(&user).await;
        let found = report.value(COLLECTIONS, &what, came)?;
        report.equal(
            COLLECTIONS,
            &what,
            (found.user_id, found.collections.len(), found.total_collections, found.plan, found.collection_limit),
            (user, 0, 0, plan.into(), limit),
        )?;
    }
    let came = hub.client.vectorizer().get_user_collections(&hub.nobody).await;
    report.refused(COLLECTIONS, "an unknown user is not found", came, no_user())
}

async fn create(report: &mut Report, hub: &Hub) -> Checked<Uuid> {
    let vectorizer = hub.client.vectorizer();
    let what = "create registers a collection";
    let request = collection(hub.free, "documents", 384);
    let came = vectorizer.create_collection(&hub.free, &request).await;
    let made = report.value(CREATE, what, came)?;
    let came = (made.created, made.collection_name);
    report.equal(CREATE, what, came, (true, "documents".into()))?;

    let what = "the collection is listed as it was made, now, with no vectors";
    let came = vectorizer.get_user_collections(&hub.free).await;
    let found = report.value(COLLECTIONS, what, came)?;
    let listed: Vec<_> = found
        .collections
        .into_iter()
        .map(|one| {
            (
                one.collection_id,
                one.collection_name,
                one.project_id,
                one.dimension,
                one.vector_count,
                (Utc::now() - one.created_at).abs() < TimeDelta::minutes(1),
            )
        })
        .collect();
    let id = made.collection_id;
    let expected = vec![(id, "documents".into(), hub.free, 384, 0, true)];
    report.equal(COLLECTIONS, what, listed, expected)?;
    report.equal(COLLECTIONS, "and counted", (found.total_collections, found.collection_limit), (1, 3))?;

    let what = "a second time it is the same, and not made";
    let came = vectorizer.create_collection(&hub.free, &collection(hub.free, "documents", 384)).await;
    let again = report.value(CREATE, what, came)?;
    report.equal(CREATE, what, (again.created, again.collection_id), (false, id))?;
    let what = "a dimension of 0 is a bad request";
    let request = collection(hub.free, "flat", 0);
    let came = vectorizer.create_collection(&hub.free, &request).await;
    let positive = Error::BadRequest("Invalid dimension: must be positive".into());
    report.refused(CREATE, what, came, positive)?;
    for name in ["", "a/b", "a\nb", ".."] {
        let what = format!("the name {name:?} is a bad request");
        let request = collection(hub.free, name, 3);
        let came = vectorizer.create_collection(&hub.free, &request).await;
        report.refused_as(CREATE, &what, came, Error::BadRequest)?;
    }
    let request = collection(hub.nobody, "documents", 3);
    let came = vectorizer.create_collection(&hub.nobody, &request).await;
    report.refused(CREATE, "an unknown user is not found", came, no_user())?;
    let request = collection(hub.pro, "of another project", 3);
    let came = vectorizer.create_collection(&hub.free, &request).await;
    report.refused_as(CREATE, "another tenant's project is not found", came, Error::NotFound)?;
    Ok(id)
}

async fn usage(report: &mut Report, hub: &Hub, id: &Uuid) -> Checked {
    let vectorizer = hub.client.vectorizer();
    let what = "a new collection is valid, empty and open";
    let found = report.value(VALIDATE, what, vectorizer.validate_collection(id, &hub.free).await)?;
    report.equal(
        VALIDATE,
        what,
        (found.valid, found.user_id, found.collection_id, vectors(&found.quota), found.plan),
        (true, hub.free, *id, (10_000, 0, true), "free".into()),
    )?;

    let steps = [
        ("a report is taken", 5_000, (10_000, 5_000, true)),
        ("a report is a total", 5_000, (10_000, 5_000, true)),
        ("a full collection takes no more", 10_000, (10_000, 10_000, false)),
        ("a total may fall", 5_000, (10_000, 5_000, true)),
    ];
    for (what, vector_count, quota) in steps {
        let request = UpdateUsageRequest { vector_count, storage_bytes: MIB };
        let found = report.value(USAGE, what, vectorizer.update_usage(id, &request).await)?;
        let came = (found.success, found.updated, vectors(&found.quota));
        report.equal(USAGE, what, came, (true, true, quota))?;
        let came = vectorizer.validate_collection(id, &hub.free).await;
        let found = report.value(VALIDATE, what, came)?;
        report.equal(VALIDATE, what, vectors(&found.quota), quota)?;
    }

    let request = UpdateUsageRequest { vector_count: u64::MAX, storage_bytes: MIB };
    let came = vectorizer.update_usage(id, &request).await;
    report.refused_as(USAGE, "more than can be counted is a bad request", came, Error::BadRequest)?;
    let what = "what was reported is listed";
    let came = vectorizer.get_user_collections(&hub.free).await;
    let found = report.value(COLLECTIONS, what, came)?;
    let counts: Vec<_> = found.collections.iter().map(|one| one.vector_count).collect();
    report.equal(COLLECTIONS, what, counts, vec![5_000])?;
    let came = vectorizer.update_usage(&hub.nobody, &nothing()).await;
    report.refused(USAGE, "an unknown collection is not found", came, no_collection())
}

async fn foreign_equals_missing(report: &mut Report, hub: &Hub, id: &Uuid) -> Checked {
    let vectorizer = hub.client.vectorizer();
    let request = collection(hub.pro, "documents", 768);
    let what = "another tenant may use the same name";
    let came = vectorizer.create_collection(&hub.pro, &request).await;
    let other = report.value(CREATE, what, came)?;
    report.equal(CREATE, what, (other.created, other.collection_id == *id), (true, false))?;
    let what = "each tenant sees its own";
    let came = vectorizer.validate_collection(&other.collection_id, &hub.pro).await;
    let found = report.value(VALIDATE, what, came)?;
    let came = (found.user_id, vectors(&found.quota), found.plan);
    report.equal(VALIDATE, what, came, (hub.pro, (100_000, 0, true), "pro".into()))?;

    let missing = vectorizer.validate_collection(&hub.nobody, &hub.free).await;
    report.refused(VALIDATE, "an unknown collection is not found", missing, no_collection())?;
    for (mine, user) in [(id, hub.pro), (&other.collection_id, hub.free)] {
        let came = vectorizer.validate_collection(mine, &user).await;
        report.refused(VALIDATE, "foreign equals missing", came, no_collection())?;
    }
    Ok(())
}

async fn quota(report: &mut Report, hub: &Hub) -> Checked {
    let vectorizer = hub.client.vectorizer();
    let (left, limit) = (99 * MIB as i64, 100 * MIB as i64);
    for (what, operation, size, expected) in [
        ("another collection fits", "create_collection", None, (true, Some(2), Some(3))),
        ("an insert fits", "insert", Some(1_024), (true, Some(left), Some(limit))),
        ("an insert of all that is left fits", "insert", Some(left), (true, Some(left), Some(limit))),
        ("one of a byte more does not", "insert", Some(left + 1), (false, Some(left), Some(limit))),
    ] {
        let came = vectorizer.check_quota(&quota_of(&hub.free, operation, size)).await;
        let found = report.value(QUOTA, what, came)?;
        report.equal(QUOTA, what, verdict(found), expected)?;
    }
    let came = vectorizer.check_quota(&quota_of(&hub.free, "insert", Some(-1))).await;
    report.refused_as(QUOTA, "a negative size is a bad request", came, Error::BadRequest)?;
    let came = vectorizer.check_quota(&quota_of(&hub.nobody, "insert", None)).await;
    report.refused_as(QUOTA, "an unknown project is not found", came, Error::NotFound)
}

async fn limit(report: &mut Report, hub: &Hub) -> Checked {
    let vectorizer = hub.client.vectorizer();
    for name in ["images", "the third, with a space"] {
        let what = format!("{name:?} fits");
        let request = collection(hub.free, name, 3);
        let came = vectorizer.create_collection(&hub.free, &request).await;
        let made = report.value(CREATE, &what, came)?;
        report.equal(CREATE, &what, (made.created, made.collection_name), (true, name.into()))?;
    }
    let what = "the fourth of three is over the quota";
    let request = collection(hub.free, "one too many", 3);
    let came = vectorizer.create_collection(&hub.free, &request).await;
    let reached = Error::QuotaExceeded("Collection limit reached".into());
    report.refused(CREATE, what, came, reached)?;
    let what = "what was refused is not there";
    let came = vectorizer.get_user_collections(&hub.free).await;
    let found = report.value(COLLECTIONS, what, came)?;
    let mut names: Vec<_> = found.collections.into_iter().map(|one| one.collection_name).collect();
    names.sort();
    let expected: Vec<String> = ["documents", "images", "the third, with a space"].map(String::from).into();
    report.equal(COLLECTIONS, what, (found.total_collections, names), (3, expected))?;
    let what = "the limit is the tenant's own";
    let came = vectorizer.get_user_collections(&hub.pro).await;
    let found = report.value(COLLECTIONS, what, came)?;
    report.equal(COLLECTIONS, what, (found.total_collections, found.collection_limit), (1, 50))
}

async fn refuse_strangers(report: &mut Report, hub: &Hub, id: &Uuid) -> Checked {
    let what = "another service key is refused";
    let vectorizer = hub.stranger.vectorizer();
    let came = vectorizer.get_user_collections(&hub.free).await;
    report.refused(COLLECTIONS, what, came, wrong_key())?;
    let request = collection(hub.pro, "of a stranger", 3);
    let came = vectorizer.create_collection(&hub.pro, &request).await;
    report.refused(CREATE, what, came, wrong_key())?;
    let came = vectorizer.validate_collection(id, &hub.free).await;
    report.refused(VALIDATE, what, came, wrong_key())?;
    let came = vectorizer.update_usage(id, &nothing()).await;
    report.refused(USAGE, what, came, wrong_key())?;
    let came = vectorizer.check_quota(&quota_of(&hub.free, "insert", None)).await;
    report.refused(QUOTA, what, came, wrong_key())?;
    let what = "what was refused to a stranger was not done";
    let came = hub.client.vectorizer().validate_collection(id, &hub.free).await;
    let found = report.value(VALIDATE, what, came)?;
    report.equal(VALIDATE, what, vectors(&found.quota), (10_000, 5_000, true))
}

fn collection(project_id: Uuid, name: &str, dimension: u32) -> CreateCollectionRequest {
    CreateCollectionRequest { collection_name: name.into(), project_id, dimension }
}

fn nothing() -> UpdateUsageRequest {
    UpdateUsageRequest { vector_count: 0, storage_bytes: 0 }
}

/// A quota as (max, current, can insert).
fn vectors(quota: &Quota) -> (u64, u64, bool) {
    (quota.max_vectors, quota.current_vectors, quota.can_insert)
}

fn no_collection() -> Error {
    Error::NotFound("Collection not found".into())
}
