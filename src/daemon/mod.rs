//! Floor 5: boot and shutdown in order.

pub mod listeners;
pub mod notify;
pub mod service;
pub mod signals;
