//! Loading, swapping, faults and connect notifications of plugins.

mod connect;
mod faults;
mod installed;
mod loading;
mod swap;
