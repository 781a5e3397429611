//! The kit sees what is wrong and names it: each fault is put into something sound, on the paused clock.

mod handlers;
mod layers;
mod transports;
