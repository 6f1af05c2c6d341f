//! The server from outside: real clients, raw requests, many streams.

mod clients;
mod grpc;
mod house;
mod leave;
mod ofrep;
mod push;
mod raw;
