//! The whole product: the real binary, real servers, real clients.

mod admin;
mod client;
mod hostile_http;
mod hostile_stdio;
mod hostile_upstream;
mod operator;
mod raw;
mod real_servers;
mod stop;
mod world;
