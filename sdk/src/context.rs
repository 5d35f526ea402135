//! The methods of a context: read access to the host's facts, and the effects that a feature asks for.

use std::time::Duration;

use serde::Serialize;

use crate::effect::{Audience, Audiences, Effect, Emit, Fetch, Outgoing, Reached, Save, millis};
use crate::known::Known;
use crate::random::Random;
use crate::{Attachment, Context, Failure, Feature, Member, Passthrough, Payload};

/// Facts.
impl<'a, F: Feature> Context<'a, F> {
    pub(crate) fn new(known: &'a Known<'a, F::Settings>) -> Self {
        Self { random: Random::new(known.call.seed), effects: Vec::new(), fault: None, known }
    }

    /// The current time, in epoch milliseconds.
    ///
    /// The time is monotonic while a host runs: when the system's clock is changed, it approaches that clock by running
    /// up to one twelfth slower or faster. So a timer may be due a little before `now` reaches its due time:
    /// [`elapsed_or_set_timer`](Self::elapsed_or_set_timer) allows for it. Time during which the machine was suspended
    /// counts. After a restart the host begins with the system's clock, so a durable state may hold a later time:
    /// subtract with `saturating_sub`.
    pub fn now(&self) -> u64 {
        self.known.call.now
    }

    /// The next pseudo-random number of the event's seed: a replay of the event gets the same numbers.
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

    /// The template of the scope, for a feature with several. Empty while gathering.
    pub fn template(&self) -> &'a str {
        self.known.template().map_or("", |template| &template.text)
    }

    /// The value of a placeholder of the scope's template.
    ///
    /// # Panics
    /// If the template has no such placeholder, which is a mistake in the feature.
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

    /// Whether the event's connection (its sender, or the one that joined, left, or is away) is in the scope's room:
    /// before this event's effects, but after the join or departure that the event reports. Membership follows the
    /// order of events: a message that was sent before a disconnect is still handled as one from the room. A feature
    /// therefore needs no list of members.
    ///
    /// `false` if the event has no connection, as with services, timers and documents.
    pub fn in_room(&self) -> bool {
        self.known.call.connection_in_room
    }

    /// The number of connections in the scope's room that belong to the user of the event's connection, that connection
    /// included if it is in: before this event's effects, but after the join or departure that the event reports. 0
    /// means that the sender is a new user for [`room_users`](Self::room_users), and not a second tab.
    ///
    /// 0 for events without a connection.
    pub fn user_connections(&self) -> u32 {
        self.known.call.user_connections
    }

    /// The operator's settings.
    pub fn settings(&self) -> &'a F::Settings {
        &self.known.warm.settings
    }

    /// The name of the message or query that is being handled, for variants that serve several names. Empty for other
    /// events.
    pub fn event(&self) -> &'a str {
        &self.known.about.event
    }

    /// Whether the sender asked for an acknowledgement.
    pub fn wants_reply(&self) -> bool {
        self.known.about.wants_reply
    }

    /// The payload of the message as received, for a feature that passes it on. A variant without fields leaves the
    /// payload unread. Empty for other events.
    pub fn payload(&self) -> &'a Payload {
        &self.known.about.payload
    }

    /// The bytes of an attachment to which an argument of the message refers.
    pub fn attachment(&self, attachment: Attachment) -> Option<&'a [u8]> {
        self.payload().attachments.get(attachment.number()).map(Vec::as_slice)
    }
}

/// Effects.
impl<F: Feature> Context<'_, F> {
    /// Emits an event. The result takes options: [`except`](Emit::except), [`volatile`](Emit::volatile),
    /// [`acknowledged`](Emit::acknowledged).
    pub fn emit<E: Outgoing>(&mut self, to: impl Into<Audiences>, event: &E) -> &mut Emit {
        let payload = if E::SPREAD { Payload::spread(event) } else { Payload::of(event) };
        let payload = self.or_fault(payload);
        self.emit_payload(to, E::NAME, payload)
    }

    /// Emits an event whose name or payload is known only at run time.
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

    /// Emits the event that is being handled under its own name, with the payload as received.
    pub fn pass_through<T>(&mut self, to: impl Into<Audiences>, sent: &Passthrough<T>) -> &mut Emit {
        self.emit_payload(to, self.event(), sent.payload())
    }

    /// Acknowledges the message with this value. Without a reply, a sender that asked for an acknowledgement gets `null`.
    pub fn reply<T: Serialize + ?Sized>(&mut self, data: &T) {
        let payload = self.or_fault(Payload::of(data));
        self.reply_payload(payload);
    }

    /// Acknowledges the message with several arguments or attachments.
    pub fn reply_payload(&mut self, payload: Payload) {
        self.effects.push(Effect::Reply(payload));
    }

    /// Acknowledges the message with an object of this one field: the number of different connections that the emits of
    /// this event reach.
    pub fn reply_connections_reached(&mut self, field: impl Into<String>) {
        self.effects.push(Effect::ReplyReached(field.into(), Reached::Connections));
    }

    /// Acknowledges the message with an object of this one field: the number of different users that the emits of this
    /// event reach.
    pub fn reply_users_reached(&mut self, field: impl Into<String>) {
        self.effects.push(Effect::ReplyReached(field.into(), Reached::Users));
    }

    /// Joins a connection to the scope's room.
    pub fn join(&mut self, member: &Member) {
        self.effects.push(Effect::Join(member.connection.clone(), None));
    }

    /// Joins a connection to another room.
    pub fn join_room(&mut self, connection: impl Into<String>, room: impl Into<String>) {
        self.effects.push(Effect::Join(connection.into(), Some(room.into())));
    }

    /// Removes a connection from the scope's room, and ends [`watch`](Self::watch).
    pub fn leave(&mut self, member: &Member) {
        self.leave_connection(&member.connection);
    }

    /// Removes a connection, by its id, from the scope's room, and ends [`watch`](Self::watch).
    pub fn leave_connection(&mut self, connection: impl Into<String>) {
        self.effects.push(Effect::Leave(connection.into(), None));
    }

    /// Removes a connection from another room.
    pub fn leave_room(&mut self, connection: impl Into<String>, room: impl Into<String>) {
        self.effects.push(Effect::Leave(connection.into(), Some(room.into())));
    }

    /// Asks for [`Feature::left`] when a connection outside of the scope's room ends. [`leave`](Self::leave) ends the
    /// watch.
    pub fn watch(&mut self, member: &Member) {
        self.effects.push(Effect::Watch(member.connection.clone()));
    }

    /// Sets a timer, or replaces the scope's timer of this name. [`Feature::timer`] gets the data, by
    /// [`Timer::decode`](crate::Timer::decode).
    pub fn set_timer<T: Serialize + ?Sized>(&mut self, name: impl Into<String>, after: Duration, data: &T) {
        let payload = self.json("a timer", data);
        self.effects.push(Effect::SetTimer(name.into(), millis(after), payload));
    }

    /// Whether a period that began at `since`, in epoch milliseconds, is over. If not, sets the timer for the rest of
    /// the period: a timer may fire a little before [`now`](Self::now) reaches its due time, and the settings may have
    /// made the period longer since the timer was set.
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

    /// Cancels a timer. Does nothing if there is no such timer.
    pub fn cancel_timer(&mut self, name: impl Into<String>) {
        self.effects.push(Effect::CancelTimer(name.into()));
    }

    /// Stores a document, after the documents that the scope saved before. [`Feature::saved`] gets the outcome, with the tag
    /// and the document. The result takes a [`key`](Save::key).
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

    /// Asks for the newest documents of this scope in a collection, 100 by default. [`Feature::fetched`] gets them with
    /// the tag. If this event has no reply, the reply of `fetched` acknowledges it. At most one fetch for each event.
    /// The result takes options: [`before`](Fetch::before), [`limit`](Fetch::limit).
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

    /// All effects, or the failure to encode one.
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
