//! How the engine behaves, over transports that the tests script, on the paused clock.

mod accepting;
mod conversations;
mod crews;
mod datagrams;
mod scripted;
mod together;
