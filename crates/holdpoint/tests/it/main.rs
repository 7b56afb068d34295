//! The whole product: the real binary, real servers, real clients.

mod admin;
mod client;
mod demo;
mod hostile_http;
mod hostile_stdio;
mod hostile_tokens;
mod hostile_upstream;
mod issuer;
mod kill;
mod limits;
mod oauth;
mod operate;
mod operator;
mod privacy;
mod quarantine;
mod questions;
mod raw;
mod real_servers;
mod reload;
mod stop;
mod store_faults;
mod threads;
mod tls;
mod transparency;
mod two_wraps;
mod world;
