//! Loading, swapping, faults and connect notifications of plugins.

mod cases;
mod connect;
mod contract;
mod determinism;
mod faults;
mod folder;
mod grants;
mod installed;
mod loading;
mod many_swaps;
mod metrics;
mod mutants;
mod rollouts;
mod schemas;
mod scopes;
mod swap;
mod why;

/// What the guest can be told that is a fault by the event alone.
const FAULTS: [&str; 28] = [
    "spin",
    "sleep",
    "eat",
    "recurse",
    "panic",
    "flood",
    "too-many",
    "too-much",
    "elsewhere",
    "everybody",
    "undeclared",
    "lost-attachment",
    "join-elsewhere",
    "disconnect",
    "save",
    "fat-state",
    "abort",
    "exit",
    "divide",
    "outside",
    "fetch-unasked",
    "broken-reply",
    "late-acknowledgement",
    "acknowledgement-of-a-room",
    "long-timer",
    "long-name",
    "invented-connection",
    "room-of-a-user",
];
