//! Live timelines of entities such as clients, cases and invoices: services send activities, subscribers get them.
//!
//! # Layout
//! - this file: the handling of events, and the recipients of emits
//! - `subscribers`: the state of one timeline
//! - `wire`: messages, events, answers and settings

mod subscribers;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use roundhouse_sdk::{
    Answer, Answers, Context, EventLimits, Failure, Feature, LeaveReason, Manifest, Member, Passthrough, Query, Scope,
    Sender,
};

pub use subscribers::Subscribers;
pub use wire::{BulkUpdate, DeletedItem, Item, Message, Settings};
use wire::{Count, Delivered, EMITS, EntityAnswer, EntityStats, Stats, Subscribed, Unsubscribed};

/// The feature.
#[derive(Debug)]
pub struct Timeline;

roundhouse_sdk::export!(Timeline);

type Cx<'a> = Context<'a, Timeline>;

/// A timeline without subscribers has no state: its scope may go soon.
const IDLE: Duration = Duration::from_secs(60);

/// The query for the number of users who have a timeline open.
const SUBSCRIBERS: &str = "subscribers";

/// The greatest number of timelines in the stats: with ids of the greatest length, the answer stays below its limit of a
/// megabyte.
const MAX_LISTED: usize = 1000;

impl Feature for Timeline {
    type Settings = Settings;
    type State = Subscribers;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(
                Scope::volatile("timeline:{entityType}:{entityId}")
                    .idle(IDLE)
                    .takes::<Message>()
                    .queries([SUBSCRIBERS]),
            )
            .limits(EventLimits::default().bytes(16 * 1024).values(256).keys(256).depth(8))
            .gathers("stats")
            .emits(EMITS)
    }

    fn message(subscribers: &mut Subscribers, cx: &mut Cx, sender: &Sender, message: Message) -> Result<(), Failure> {
        check_type(cx)?;
        match message {
            Message::Subscribe(claimed) => subscribe(subscribers, cx, claimed.verify(sender)?),
            Message::Unsubscribe(claimed) => unsubscribe(subscribers, cx, claimed.verify(sender)?),
            Message::Item(item) => pass_through(cx, &item),
            Message::ItemDeleted(deleted) => pass_through(cx, &deleted),
            Message::Refresh(refresh) => pass_through(cx, &refresh),
            Message::BulkUpdate(update) => pass_through(cx, &update),
        }
    }

    fn joined(subscribers: &mut Subscribers, _: &mut Cx, member: &Member) -> Result<(), Failure> {
        subscribers.remember(member);
        Ok(())
    }

    fn left(subscribers: &mut Subscribers, _: &mut Cx, member: &Member, _: LeaveReason) -> Result<(), Failure> {
        subscribers.forget(member);
        Ok(())
    }

    fn query(subscribers: &Subscribers, cx: &Cx, query: &Query) -> Result<Answer, Failure> {
        match query.name.as_str() {
            SUBSCRIBERS => {
                check_type(cx)?;
                Ok(Answer::of(&Count { count: cx.room_users() }))
            }
            _ => Ok(Answer::of(&EntityAnswer {
                entity: EntityStats {
                    entity_type: cx.param("entityType").to_owned(),
                    entity_id: cx.param("entityId").to_owned(),
                    subscribers: cx.room_users(),
                },
                n_connections: cx.room_connections() as usize,
                connections: subscribers.connections().map(str::to_owned).collect(),
            })),
        }
    }

    fn gathered(_: &Cx, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        let mut answered: Vec<EntityAnswer> = answers.decode()?;
        answered.retain(|answer| answer.n_connections > 0);
        // A connection with several open timelines counts once, as far as the timelines know their connections.
        let remembered: BTreeSet<&String> = answered.iter().flat_map(|answer| &answer.connections).collect();
        let others = answered.iter().map(|answer| answer.n_connections.saturating_sub(answer.connections.len()));
        let total_sockets = remembered.len() + others.sum::<usize>();
        let total_entities = answered.len();
        let mut entities: Vec<EntityStats> = answered.into_iter().map(|answer| answer.entity).collect();
        entities.sort_by(EntityStats::busiest_first);
        entities.truncate(MAX_LISTED);
        let omitted = total_entities - entities.len() + answers.omitted as usize;
        Ok(Answer::of(&Stats { total_sockets, total_entities, entities, omitted }))
    }
}

fn subscribe(subscribers: &mut Subscribers, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    // The host's counts do not include this event's join yet.
    let n_new = u32::from(cx.user_connections() == 0);
    subscribers.remember(member);
    cx.join(member);
    let event = Subscribed {
        entity_type: cx.param("entityType"),
        entity_id: cx.param("entityId"),
        subscribers: cx.room_users() + n_new,
    };
    cx.emit(member, &event);
    cx.reply(&event);
    Ok(())
}

fn unsubscribe(subscribers: &mut Subscribers, cx: &mut Cx, member: &Member) -> Result<(), Failure> {
    subscribers.forget(member);
    cx.leave(member);
    let event = Unsubscribed { entity_type: cx.param("entityType"), entity_id: cx.param("entityId") };
    cx.emit(member, &event);
    cx.reply(&event);
    Ok(())
}

/// Sends the event on to all connections that have the timeline open.
fn pass_through<T>(cx: &mut Cx, sent: &Passthrough<T>) -> Result<(), Failure> {
    if cx.room_connections() == 0 {
        cx.reply(&Delivered { delivered: 0 });
        return Ok(());
    }
    cx.pass_through(cx.room(), sent);
    cx.reply_connections_reached("delivered");
    Ok(())
}

/// Refuses an entity type that the settings do not list.
fn check_type(cx: &Cx) -> Result<(), Failure> {
    let types = &cx.settings().entity_types;
    if types.iter().any(|known| known == cx.param("entityType")) {
        return Ok(());
    }
    Err(Failure::bad_request(format!("entityType has to be one of {}", types.join(", "))))
}
