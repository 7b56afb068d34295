//! The whole product: the real binary, real servers, real clients.

mod client;
mod operator;
mod real_servers;
mod stop;
mod world;
