//! The SDK beside a real flag server.

mod house;
#[cfg(feature = "open-feature")]
mod provider;
mod refusals;
mod remote;
mod report;
mod stream;
mod values;
