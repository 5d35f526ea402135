//! What a feature knows besides its event and state, and the effects that it gathers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::effect::{Audience, Audiences, Effect, Emit, Fetch, Outgoing, Reached, Save};
use crate::event::{Call, Event};
use crate::random::Random;
use crate::template::Template;
use crate::warm::Warm;
use crate::{Attachment, Failure, Feature, Member, Passthrough, Payload};

/// All that a feature may know besides its event and state, and where it says what is to be done. What it
/// says happens after it has returned, in the order in which it was said, and only if it succeeds.
///
/// What it knows outlives what it does: a borrowed [`param`](Self::param) or [`settings`](Self::settings)
/// does not stand in the way of [`emit`](Self::emit).
pub struct Context<'a, F: Feature> {
    known: &'a Known<'a, F>,
    random: Random,
    effects: Vec<Effect>,
    /// The first value that did not become JSON: the whole event then fails.
    fault: Option<Failure>,
}

/// What a feature may know of one event.
pub(crate) struct Known<'a, F: Feature> {
    call: Call,
    warm: &'a Warm<F>,
    /// Which of the feature's templates the scope was made from; none while gathering.
    template: Option<usize>,
    about: About,
}

/// What is known of the event itself besides its data.
#[derive(Debug, Default)]
pub(crate) struct About {
    event: String,
    payload: Payload,
    wants_reply: bool,
    due: Option<u64>,
}

impl About {
    /// Takes the payload out of the event, and the rest from it.
    pub(crate) fn take(event: &mut Event) -> Self {
        match event {
            Event::Message(message) => Self {
                event: message.event.clone(),
                payload: std::mem::take(&mut message.payload),
                wants_reply: message.wants_reply,
                due: None,
            },
            Event::Timer(timer) => Self { due: Some(timer.due), ..Self::default() },
            Event::Query(query) | Event::Gathered(query, _) => {
                Self { event: query.name.clone(), wants_reply: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

impl<'a, F: Feature> Known<'a, F> {
    pub(crate) fn new(call: Call, warm: &'a Warm<F>, about: About) -> Self {
        let template = warm
            .templates
            .iter()
            .enumerate()
            .filter(|(_, template)| template.made(&call.scope, call.params.len()))
            .max_by_key(|(_, template)| template.prefix.len())
            .map(|(position, _)| position);
        Self { call, warm, template, about }
    }

    fn template(&self) -> Option<&Template> {
        self.template.map(|position| &self.warm.templates[position])
    }
}

impl<F: Feature> fmt::Debug for Context<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("call", &self.known.call)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}

/// What a feature may know.
impl<'a, F: Feature> Context<'a, F> {
    pub(crate) fn new(known: &'a Known<'a, F>) -> Self {
        Self { random: Random::new(known.call.seed), effects: Vec::new(), fault: None, known }
    }

    /// The present, in epoch milliseconds.
    ///
    /// While a host runs it never goes back and never jumps, whatever is done to the system's clock: between two events it
    /// moves by the time that has passed, to within a twelfth, by which it goes slower or faster until it is where the
    /// system's clock is. So a timer may be due a little before `now` says so: set it again for what is left. Time for which
    /// the machine was suspended has passed. A host that is started anew begins with the system's clock, so that a durable
    /// state may remember a later time: reckon with `saturating_sub`.
    pub fn now(&self) -> u64 {
        self.known.call.now
    }

    /// When this event should have happened: a timer's due time, else [`now`](Self::now).
    pub fn due(&self) -> u64 {
        self.known.about.due.unwrap_or(self.known.call.now)
    }

    /// A number that looks random and follows from the event's seed: another at each call.
    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// Number of this event in its scope, from 1.
    pub fn sequence(&self) -> u64 {
        self.known.call.sequence
    }

    /// The scope's key, which is its room's name. Empty while gathering.
    pub fn scope(&self) -> &'a str {
        &self.known.call.scope
    }

    /// The template that the scope was made from, for a feature with several. Empty while gathering.
    pub fn template(&self) -> &'a str {
        self.known.template().map_or("", |template| &template.text)
    }

    /// What a placeholder of the scope's template stands for.
    ///
    /// # Panics
    /// Where the template has no such placeholder: a mistake in the feature.
    pub fn param(&self, name: &str) -> &'a str {
        self.known
            .template()
            .and_then(|template| template.position(name))
            .and_then(|position| self.known.call.params.get(position))
            .unwrap_or_else(|| panic!("the template of scope {:?} has no {{{name}}}", self.known.call.scope))
    }

    /// The scope's own room.
    pub fn room(&self) -> Audience {
        Audience::room(self.scope())
    }

    /// Connections in the scope's room, before this event's effects.
    pub fn room_connections(&self) -> u32 {
        self.known.call.room_connections
    }

    /// Different users in the scope's room, before this event's effects.
    pub fn room_users(&self) -> u32 {
        self.known.call.room_users
    }

    /// Whether the connection that this event came from or is about is in the scope's room: before this event's effects,
    /// but after a joining or leaving that is being told of. It follows the order of events, so that what a connection
    /// sent before it went still comes from somebody in the room. A feature need keep no list of members for this.
    ///
    /// `false` where the event has no connection, as with services, timers and documents.
    pub fn in_room(&self) -> bool {
        self.known.call.connection_in_room
    }

    /// How many connections in the scope's room are those of the person whom this event came from or is about, its own
    /// among them if it is in: before this event's effects, but after a joining or leaving that is being told of. With
    /// [`room_users`](Self::room_users) it tells a newcomer from a second tab.
    ///
    /// 0 where it is no client's message and nobody's joining or leaving.
    pub fn user_connections(&self) -> u32 {
        self.known.call.user_connections
    }

    /// The operator's settings.
    pub fn settings(&self) -> &'a F::Settings {
        &self.known.warm.settings
    }

    /// The name of the message or query that is being handled, for variants that serve several. Empty at
    /// other events.
    pub fn event(&self) -> &'a str {
        &self.known.about.event
    }

    /// Whether the sender asked for an acknowledgement.
    pub fn wants_reply(&self) -> bool {
        self.known.about.wants_reply
    }

    /// All that came with the message, as it came, for a feature that passes it on. A variant without fields leaves it
    /// unread. Empty at other events.
    pub fn payload(&self) -> &'a Payload {
        &self.known.about.payload
    }

    /// The bytes that an argument of the message refers to.
    pub fn attachment(&self, attachment: Attachment) -> Option<&'a [u8]> {
        self.payload().attachments.get(attachment.number()).map(Vec::as_slice)
    }
}

/// What a feature may want done.
impl<F: Feature> Context<'_, F> {
    /// Sends an event. What comes back can say more: [`except`](Emit::except),
    /// [`volatile`](Emit::volatile), [`acknowledged`](Emit::acknowledged).
    pub fn emit<E: Outgoing>(&mut self, to: impl Into<Audiences>, event: &E) -> &mut Emit {
        let payload = if E::SPREAD { Payload::spread(event) } else { Payload::of(event) };
        let payload = self.or_fault(payload);
        self.emit_payload(to, E::NAME, payload)
    }

    /// Sends an event whose name or payload is not known beforehand.
    pub fn emit_payload(&mut self, to: impl Into<Audiences>, event: impl Into<String>, payload: Payload) -> &mut Emit {
        self.effects.push(Effect::Emit(Emit {
            to: to.into(),
            except: Audiences::default(),
            event: event.into(),
            payload,
            volatile: false,
            acknowledge: None,
        }));
        match self.effects.last_mut() {
            Some(Effect::Emit(emit)) => emit,
            _ => unreachable!("an emit was pushed just now"),
        }
    }

    /// Sends the event that is handled on under its own name, with the payload that it came with.
    pub fn pass_through<T>(&mut self, to: impl Into<Audiences>, sent: &Passthrough<T>) -> &mut Emit {
        self.emit_payload(to, self.event(), sent.payload())
    }

    /// Acknowledges the message with this. Without a reply, a sender that asked gets `null`.
    pub fn reply<T: Serialize + ?Sized>(&mut self, data: &T) {
        let payload = self.or_fault(Payload::of(data));
        self.reply_payload(payload);
    }

    /// Acknowledges the message with several arguments or attachments.
    pub fn reply_payload(&mut self, payload: Payload) {
        self.effects.push(Effect::Reply(payload));
    }

    /// Acknowledges the message with an object of this one field: how many different connections got what this event
    /// emits.
    pub fn reply_connections_reached(&mut self, field: impl Into<String>) {
        self.effects.push(Effect::ReplyReached(field.into(), Reached::Connections));
    }

    /// The same, counting different people.
    pub fn reply_users_reached(&mut self, field: impl Into<String>) {
        self.effects.push(Effect::ReplyReached(field.into(), Reached::Users));
    }

    /// Takes a connection into the scope's room.
    pub fn join(&mut self, member: &Member) {
        self.effects.push(Effect::Join(member.connection.clone(), None));
    }

    /// Takes a connection into another room.
    pub fn join_room(&mut self, connection: impl Into<String>, room: impl Into<String>) {
        self.effects.push(Effect::Join(connection.into(), Some(room.into())));
    }

    /// Takes a connection out of the scope's room, and has it [watched](Self::watch) no longer.
    pub fn leave(&mut self, member: &Member) {
        self.leave_connection(&member.connection);
    }

    /// The same with a connection of which the feature knows the id.
    pub fn leave_connection(&mut self, connection: impl Into<String>) {
        self.effects.push(Effect::Leave(connection.into(), None));
    }

    /// Takes a connection out of another room.
    pub fn leave_room(&mut self, connection: impl Into<String>, room: impl Into<String>) {
        self.effects.push(Effect::Leave(connection.into(), Some(room.into())));
    }

    /// Asks to be told when a connection goes, though it is not in the scope's room, until it [leaves](Self::leave).
    pub fn watch(&mut self, member: &Member) {
        self.effects.push(Effect::Watch(member.connection.clone()));
    }

    /// Sets a timer, or sets it anew: its name is unique in the scope. [`Feature::timer`] gets the data, by
    /// [`Timer::decode`](crate::Timer::decode).
    pub fn set_timer<T: Serialize + ?Sized>(&mut self, name: impl Into<String>, after: Duration, data: &T) {
        let payload = self.json("a timer", data);
        self.effects.push(Effect::SetTimer(name.into(), millis(after), payload));
    }

    /// Whether a period that began at `since`, in epoch milliseconds, is over. Where it is not, sets the timer for the rest of
    /// it: a timer may be due a little before [`now`](Self::now) says so, and a period may have been made longer by the
    /// settings since the timer was set.
    pub fn elapsed_or_set_timer<T: Serialize + ?Sized>(
        &mut self,
        name: impl Into<String>,
        since: u64,
        period: Duration,
        data: &T,
    ) -> bool {
        let rest = period.saturating_sub(Duration::from_millis(self.now().saturating_sub(since)));
        if !rest.is_zero() {
            self.set_timer(name, rest, data);
        }
        rest.is_zero()
    }

    /// Cancels a timer; harmless where there is none.
    pub fn cancel_timer(&mut self, name: impl Into<String>) {
        self.effects.push(Effect::CancelTimer(name.into()));
    }

    /// Stores a document, after those that the scope saved before. [`Feature::saved`] is told the outcome with the tag
    /// and the document. What comes back can give it a [`key`](Save::key).
    pub fn save<T: Serialize + ?Sized>(
        &mut self,
        tag: impl Into<String>,
        collection: impl Into<String>,
        document: &T,
    ) -> &mut Save {
        let document = self.json("a document", document);
        let save = Save { tag: tag.into(), collection: collection.into(), key: None, document };
        self.effects.push(Effect::Save(save));
        match self.effects.last_mut() {
            Some(Effect::Save(save)) => save,
            _ => unreachable!("a save was pushed just now"),
        }
    }

    /// Asks for the newest documents of this scope in a collection, 100 of them unless said otherwise.
    /// [`Feature::fetched`] gets them with the tag, and where this event has no reply, what is replied there goes to
    /// this event's sender. One for each event. What comes back can say more: [`before`](Fetch::before),
    /// [`limit`](Fetch::limit).
    pub fn fetch(&mut self, tag: impl Into<String>, collection: impl Into<String>) -> &mut Fetch {
        let fetch = Fetch { tag: tag.into(), collection: collection.into(), before: None, limit: 100 };
        self.effects.push(Effect::Fetch(fetch));
        match self.effects.last_mut() {
            Some(Effect::Fetch(fetch)) => fetch,
            _ => unreachable!("a fetch was pushed just now"),
        }
    }

    /// Closes a connection, with a reason.
    pub fn disconnect(&mut self, member: &Member, reason: impl Into<String>) {
        self.effects.push(Effect::Disconnect(member.connection.clone(), reason.into()));
    }

    /// All effects, unless a value did not become JSON.
    pub(crate) fn into_effects(self) -> Result<Vec<Effect>, Failure> {
        match self.fault {
            Some(failure) => Err(failure),
            None => Ok(self.effects),
        }
    }

    fn json<T: Serialize + ?Sized>(&mut self, what: &str, value: &T) -> String {
        let encoded = serde_json::to_string(value).map_err(|error| Failure::encoding(what, &error));
        self.or_fault(encoded)
    }

    fn or_fault<T: Default>(&mut self, encoded: Result<T, Failure>) -> T {
        encoded.unwrap_or_else(|failure| {
            self.fault.get_or_insert(failure);
            T::default()
        })
    }
}

impl Emit {
    /// Leaves these out, though they are among those addressed.
    pub fn except(&mut self, except: impl Into<Audiences>) -> &mut Self {
        self.except.0.extend(except.into().0);
        self
    }

    /// Lets the host leave it out for a connection that is slow to read.
    pub fn volatile(&mut self) -> &mut Self {
        self.volatile = true;
        self
    }

    /// Asks each receiving connection for an answer: [`Feature::acknowledged`] is told it with the tag.
    /// Those addressed have to be connections.
    pub fn acknowledged(&mut self, tag: impl Into<String>, timeout: Duration) -> &mut Self {
        self.acknowledge = Some((tag.into(), millis(timeout)));
        self
    }

    /// Adds what the event's [`Attachment`]s stand for: each of these is referred to once.
    pub fn attachments(&mut self, attachments: Vec<Vec<u8>>) -> &mut Self {
        self.payload.attachments = attachments;
        self
    }
}

impl Save {
    /// Gives it a key: where a document of the same key is stored already in the scope's collection, nothing is stored,
    /// and that one's id is the outcome.
    pub fn key(&mut self, key: impl Into<String>) -> &mut Self {
        self.key = Some(key.into());
        self
    }
}

impl Fetch {
    /// Only what was stored before the document of this id.
    pub fn before(&mut self, id: impl Into<String>) -> &mut Self {
        self.before = Some(id.into());
        self
    }

    /// How many at most: 1 to 1000.
    pub fn limit(&mut self, limit: u32) -> &mut Self {
        self.limit = limit;
        self
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
