//! Calls 14 to 18. A query spells a type `Queue`, JSON spells it `queue`; the SDK does both.

use hivehub_internal_sdk::HiveHubCloudError as Error;
use hivehub_internal_sdk::models::{
    CreateResourceRequest, ResourceConfig, ResourceType, SynapUpdateUsageRequest, UserResourcesResponse,
};
use uuid::Uuid;

use crate::report::{Checked, Report};
use crate::{Hub, no_user, quota_of, verdict, wrong_key};

const RESOURCES: usize = 14;
const VALIDATE: usize = 15;
const CREATE: usize = 16;
const USAGE: usize = 17;
const QUOTA: usize = 18;

/// Names by type: queues, streams, key value stores.
type Names = (Vec<String>, Vec<String>, Vec<String>);

pub async fn drive(report: &mut Report, hub: &Hub) -> Checked {
    create(report, hub).await?;
    validate(report, hub).await?;
    usage(report, hub).await?;
    limit(report, hub).await?;
    refuse_unknown(report, hub).await?;
    refuse_strangers(report, hub).await
}

async fn resources(report: &Report, hub: &Hub, what: &str, user: &Uuid) -> Checked<UserResourcesResponse> {
    let came = hub.client.synap().get_user_resources(user).await;
    report.value(RESOURCES, what, came)
}

async fn create(report: &mut Report, hub: &Hub) -> Checked {
    let synap = hub.client.synap();
    let what = "a new tenant has none";
    let found = resources(report, hub, what, &hub.free).await?;
    let came = (found.user_id, names(found));
    report.equal(RESOURCES, what, came, (hub.free, (vec![], vec![], vec![])))?;

    for (kind, name, config) in [
        (ResourceType::Queue, "jobs", None),
        (ResourceType::Queue, "later jobs", config(Some(1_000), None)),
        (ResourceType::Stream, "events", config(None, Some(3_600))),
        (ResourceType::KeyValue, "cache", config(Some(u64::MAX), Some(60))),
    ] {
        let what = format!("{kind:?} {name:?} is made under the tenant's prefix");
        let request = request(kind, name, config);
        let came = synap.create_resource(&hub.free, &request).await;
        let made = report.value(CREATE, &what, came)?;
        let full = format!("user_{}:{name}", hub.free.hyphenated());
        let came = (made.created, made.full_resource_name);
        report.equal(CREATE, &what, came, (true, full))?;
    }
    let what = "a second time it is the same, and not made";
    let came = synap.create_resource(&hub.free, &request(ResourceType::Queue, "jobs", None)).await;
    let again = report.value(CREATE, what, came)?;
    let full = format!("user_{}:jobs", hub.free.hyphenated());
    report.equal(CREATE, what, (again.created, again.full_resource_name), (false, full))?;
    let what = "each is listed with its type, by its short name";
    let found = resources(report, hub, what, &hub.free).await?;
    let expected = (owned(&["jobs", "later jobs"]), owned(&["events"]), owned(&["cache"]));
    report.equal(RESOURCES, what, names(found), expected)?;
    let what = "another tenant sees nothing of it";
    let found = resources(report, hub, what, &hub.pro).await?;
    report.equal(RESOURCES, what, names(found), (vec![], vec![], vec![]))?;
    for name in ["", "a/b", "a?b", "a\tb", ".."] {
        let what = format!("the name {name:?} is a bad request");
        let request = request(ResourceType::Queue, name, None);
        let came = synap.create_resource(&hub.free, &request).await;
        report.refused_as(CREATE, &what, came, Error::BadRequest)?;
    }
    let what = "a name with another tenant's prefix is a bad request";
    let stolen = format!("user_{}:jobs", hub.pro);
    let request = request(ResourceType::Queue, &stolen, None);
    let came = synap.create_resource(&hub.free, &request).await;
    report.refused_as(CREATE, what, came, Error::BadRequest)
}

async fn validate(report: &mut Report, hub: &Hub) -> Checked {
    let full = format!("user_{}:jobs", hub.free);
    for (kind, name) in [
        (ResourceType::Queue, "jobs"),
        (ResourceType::Queue, "later jobs"),
        (ResourceType::Queue, full.as_str()),
        (ResourceType::Stream, "events"),
        (ResourceType::KeyValue, "cache"),
    ] {
        let what = format!("{kind:?} is the tenant's, by the {} name", length(name));
        let came = belongs(report, hub, &what, name, &hub.free, &kind).await?;
        let expected = (true, name.into(), format!("{kind:?}"));
        report.equal(VALIDATE, &what, came, expected)?;
    }

    let what = "a resource that is missing belongs to nobody";
    let (missing, _, kind) = belongs(report, hub, what, "no such", &hub.free, &ResourceType::Queue).await?;
    report.equal(VALIDATE, what, (missing, kind), (false, "Queue".into()))?;
    let what = "foreign equals missing";
    for name in ["jobs", &full] {
        let came = belongs(report, hub, what, name, &hub.pro, &ResourceType::Queue).await?;
        report.equal(VALIDATE, what, came, (false, name.into(), "Queue".into()))?;
    }
    let what = "a queue is no stream";
    let (found, _, kind) = belongs(report, hub, what, "jobs", &hub.free, &ResourceType::Stream).await?;
    report.equal(VALIDATE, what, (found, kind), (false, "Stream".into()))
}

async fn usage(report: &mut Report, hub: &Hub) -> Checked {
    let synap = hub.client.synap();
    for (what, messages, bytes) in [
        ("a report is taken", Some(40), Some(4_096)),
        ("a report of messages alone is taken", Some(0), None),
        ("a report of storage alone is taken", None, Some(0)),
    ] {
        let request = used("jobs", messages, bytes);
        let came = synap.update_usage(&hub.free, &request).await;
        report.taken(USAGE, what, came)?;
    }
    let what = "a report by the full name is taken";
    let request = used(&format!("user_{}:jobs", hub.free), Some(1), Some(1));
    let came = synap.update_usage(&hub.free, &request).await;
    report.taken(USAGE, what, came)?;

    let missing = synap.update_usage(&hub.free, &used("no such", Some(1), None)).await;
    let what = "a report about what is missing is not found";
    let text = match &missing {
        Err(Error::NotFound(text)) => text.clone(),
        _ => String::new(),
    };
    report.refused_as(USAGE, what, missing, Error::NotFound)?;
    let what = "foreign equals missing, to the word";
    for name in ["jobs".into(), format!("user_{}:jobs", hub.free)] {
        let came = synap.update_usage(&hub.pro, &used(&name, Some(1), None)).await;
        report.refused(USAGE, what, came, Error::NotFound(text.clone()))?;
    }
    Ok(())
}

async fn limit(report: &mut Report, hub: &Hub) -> Checked {
    let synap = hub.client.synap();
    let what = "a queue is allowed below the limit";
    let came = synap.check_quota(&quota_of(&hub.free, "create_queue", None)).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (true, Some(8), Some(10)))?;
    for number in 3..=10 {
        let what = format!("queue {number} of 10 fits");
        let request = request(ResourceType::Queue, &format!("queue-{number}"), None);
        let came = synap.create_resource(&hub.free, &request).await;
        let made = report.value(CREATE, &what, came)?;
        report.equal(CREATE, &what, made.created, true)?;
    }
    let what = "the eleventh of ten is over the quota";
    let request_11 = request(ResourceType::Queue, "one too many", None);
    let came = synap.create_resource(&hub.free, &request_11).await;
    report.refused_as(CREATE, what, came, Error::QuotaExceeded)?;
    let what = "what was refused is not there";
    let found = resources(report, hub, what, &hub.free).await?;
    let (queues, _, _) = names(found);
    let there = queues.iter().any(|name| name == "one too many");
    report.equal(RESOURCES, what, (queues.len(), there), (10, false))?;
    let what = "a queue is refused at the limit";
    let came = synap.check_quota(&quota_of(&hub.free, "create_queue", None)).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (false, Some(0), Some(10)))?;
    let what = "streams are counted by themselves";
    let request = request(ResourceType::Stream, "more events", None);
    let came = synap.create_resource(&hub.free, &request).await;
    let made = report.value(CREATE, what, came)?;
    report.equal(CREATE, what, made.created, true)?;
    let what = "the limit is the tenant's own";
    let came = synap.check_quota(&quota_of(&hub.pro, "create_queue", None)).await;
    let found = report.value(QUOTA, what, came)?;
    report.equal(QUOTA, what, verdict(found), (true, Some(100), Some(100)))
}

async fn refuse_unknown(report: &mut Report, hub: &Hub) -> Checked {
    let synap = hub.client.synap();
    let what = "an unknown user is not found";
    let came = synap.get_user_resources(&hub.nobody).await;
    report.refused(RESOURCES, what, came, no_user())?;
    let came = synap.validate_resource("jobs", &hub.nobody, ResourceType::Queue).await;
    report.refused(VALIDATE, what, came, no_user())?;
    let request = request(ResourceType::Queue, "jobs", None);
    let came = synap.create_resource(&hub.nobody, &request).await;
    report.refused(CREATE, what, came, no_user())?;
    let came = synap.update_usage(&hub.nobody, &used("jobs", Some(1), None)).await;
    report.refused(USAGE, what, came, no_user())?;
    let what = "an unknown project is not found";
    let came = synap.check_quota(&quota_of(&hub.nobody, "create_queue", None)).await;
    report.refused_as(QUOTA, what, came, Error::NotFound)
}

async fn refuse_strangers(report: &mut Report, hub: &Hub) -> Checked {
    let synap = hub.stranger.synap();
    let what = "another service key is refused";
    let came = synap.get_user_resources(&hub.free).await;
    report.refused(RESOURCES, what, came, wrong_key())?;
    let came = synap.validate_resource("jobs", &hub.free, ResourceType::Queue).await;
    report.refused(VALIDATE, what, came, wrong_key())?;
    let request = request(ResourceType::Stream, "of a stranger", None);
    let came = synap.create_resource(&hub.free, &request).await;
    report.refused(CREATE, what, came, wrong_key())?;
    let came = synap.update_usage(&hub.free, &used("jobs", Some(1), None)).await;
    report.refused(USAGE, what, came, wrong_key())?;
    let came = synap.check_quota(&quota_of(&hub.free, "create_queue", None)).await;
    report.refused(QUOTA, what, came, wrong_key())?;
    let what = "what was refused to a stranger was not done";
    let found = resources(report, hub, what, &hub.free).await?;
    let (_, streams, _) = names(found);
    report.equal(RESOURCES, what, streams, owned(&["events", "more events"]))
}

/// Asks whether a name is the user's: (whether, name, type).
async fn belongs(
    report: &Report,
    hub: &Hub,
    what: &str,
    name: &str,
    user: &Uuid,
    kind: &ResourceType,
) -> Checked<(bool, String, String)> {
    let synap = hub.client.synap();
    let came = synap.validate_resource(name, user, kind.clone()).await;
    let found = report.value(VALIDATE, what, came)?;
    let kind = format!("{:?}", found.resource_type);
    Ok((found.belongs_to_user, found.resource_name, kind))
}

fn request(resource_type: ResourceType, name: &str, config: Option<ResourceConfig>) -> CreateResourceRequest {
    CreateResourceRequest { resource_type, resource_name: name.into(), config }
}

fn config(max_size: Option<u64>, ttl: Option<u64>) -> Option<ResourceConfig> {
    Some(ResourceConfig { max_size, ttl })
}

fn used(name: &str, messages: Option<u64>, bytes: Option<u64>) -> SynapUpdateUsageRequest {
    SynapUpdateUsageRequest {
        resource_type: ResourceType::Queue,
        resource_name: name.into(),
        message_count: messages,
        storage_bytes: bytes,
    }
}

fn names(found: UserResourcesResponse) -> Names {
    let resources = found.resources;
    (resources.queues, resources.streams, resources.key_value_stores)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn length(name: &str) -> &str {
    if name.starts_with("user_") { "full" } else { "short" }
}
