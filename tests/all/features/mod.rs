//! The bundled features, by the rows of their contract.

mod campaign_progress;
mod chat_confirmation;
mod crm_events;
mod ticket_collision;
mod ticket_events;
mod timeline;
