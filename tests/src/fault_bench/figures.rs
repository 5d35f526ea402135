//! The invariants of what a host says of rooms, subscribers and campaigns.

use serde_json::Value;

use super::campaigns::id;
use super::model::{Model, ROOMS, TIMELINES};
use super::page::Shared;
use super::service::call;
use super::violation::Violation;

const ROOM: &str = "at rest, a host counts the connections of a room that are there";
const SUBSCRIBERS: &str = "at rest, a timeline counts the agents who are on it";
const CAMPAIGNS: &str =
    "at rest, a campaign has counted each acknowledged message, and once unless it was repeated in a cluster";
const ANSWERS: &str = "at rest, a host answers its operators";

/// Checks the figures of a host.
pub(super) async fn figures(shared: &Shared, api: &str, model: &Model) -> Option<Violation> {
    match find_violation(shared, api, model).await {
        Ok(violation) => violation,
        Err(why) => Some(Violation::new(ANSWERS, format!("{api}: {why}"))),
    }
}

async fn find_violation(shared: &Shared, api: &str, model: &Model) -> Result<Option<Violation>, String> {
    for room in 0..ROOMS {
        let there = model.pages_in_room(room);
        let counted = match call(api, "GET", &format!("/v1/rooms/room:r{room}"), String::new()).await {
            Ok(found) => found["connectionCount"].as_u64().unwrap_or_default() as usize,
            Err(why) if why.starts_with("404") => 0,
            Err(why) => return Err(why),
        };
        if counted != there {
            let what = format!("{api} counts {counted} connections in room {room}, where {there} are");
            return Ok(Some(Violation::new(ROOM, what)));
        }
    }
    let timelines = stats(api, "timeline").await?;
    for timeline in 0..TIMELINES {
        let there = model.subscribers(timeline);
        let entity = entry(&timelines["entities"], "entityId", &format!("e{timeline}"));
        let counted = entity.map_or(0, |entity| entity["subscribers"].as_u64().unwrap_or_default() as usize);
        if counted != there {
            let what = format!("{api} counts {counted} subscribers of timeline {timeline}, where {there} are");
            return Ok(Some(Violation::new(SUBSCRIBERS, what)));
        }
    }
    let campaigns = stats(api, "campaign-progress").await?;
    let expected = shared.record().campaigns.clone();
    for (number, campaign) in expected.iter().enumerate() {
        let counted = entry(&campaigns["campaigns"], "campaignId", &id(number));
        let processed = counted.and_then(|counted| counted["processed"].as_u64());
        // A host alone knows each call by its key.
        let repeated = if shared.apis.len() == 1 { 0 } else { campaign.repeated };
        let may_be = campaign.processed..=campaign.processed + repeated;
        if campaign.is_counting || !processed.is_some_and(|processed| may_be.contains(&processed)) {
            let what = format!("campaign {number} is {counted:?}, and should have {campaign:?}");
            return Ok(Some(Violation::new(CAMPAIGNS, what)));
        }
    }
    Ok(None)
}

async fn stats(api: &str, plugin: &str) -> Result<Value, String> {
    let answer = call(api, "GET", &format!("/v1/plugins/{plugin}"), String::new()).await?;
    Ok(answer["stats"].clone())
}

fn entry<'a>(list: &'a Value, field: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[field] == value)
}
