//! flagd's protocols, generated from the server's definitions.
//!
//! Public, for it is generated so; it is not part of the API. Not here: the calls (`stream.rs`, `remote.rs`).

pub mod sync_v1 {
    tonic::include_proto!("flagd.sync.v1");
}

pub mod evaluation_v2 {
    tonic::include_proto!("flagd.evaluation.v2");
}
