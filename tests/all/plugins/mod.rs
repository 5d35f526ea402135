//! Loading, swapping, faults and connect notifications of plugins.

mod connect;
mod contract;
mod faults;
mod folder;
mod grants;
mod installed;
mod loading;
mod schemas;
mod swap;
