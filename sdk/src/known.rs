//! The facts that come with one event, from which a feature's context is made.

use crate::Payload;
use crate::event::{Call, Event};
use crate::template::Template;
use crate::warm::Warm;

/// The facts that a feature gets with one event.
pub(crate) struct Known<'a, S> {
    pub(crate) call: Call,
    pub(crate) warm: &'a Warm<S>,
    /// The position of the scope's template; `None` while gathering.
    template: Option<usize>,
    pub(crate) about: About,
}

/// The facts of the event itself.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) event: String,
    pub(crate) payload: Payload,
    pub(crate) wants_reply: bool,
}

impl About {
    /// Moves the payload out of the event and copies the other facts.
    pub(crate) fn take(event: &mut Event) -> Self {
        match event {
            Event::Message(message) => Self {
                event: message.event.clone(),
                payload: std::mem::take(&mut message.payload),
                wants_reply: message.wants_reply,
            },
            Event::Query(query) | Event::Gathered(query, _) => {
                Self { event: query.name.clone(), wants_reply: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

impl<'a, S> Known<'a, S> {
    pub(crate) fn new(call: Call, warm: &'a Warm<S>, about: About) -> Self {
        let template = warm
            .templates
            .iter()
            .enumerate()
            .filter(|(_, template)| template.made(&call.scope, call.params.len()))
            .max_by_key(|(_, template)| template.prefix.len())
            .map(|(position, _)| position);
        Self { call, warm, template, about }
    }

    /// The template of the event's scope; `None` while gathering.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.map(|position| &self.warm.templates[position])
    }
}
