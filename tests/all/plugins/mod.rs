//! Loading, swapping, faults and connect notifications of plugins.

mod cases;
mod connect;
mod contract;
mod faults;
mod folder;
mod grants;
mod installed;
mod loading;
mod schemas;
mod swap;

/// What the guest can be told that is a fault by the event alone.
const FAULTS: [&str; 16] = [
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
];
