//! Rust from the server's definitions of the protocols, with protox: whoever builds this needs no `protoc`.

const FOLDER: &str = "../flag_server/proto";
const FILES: [&str; 2] = ["evaluation_v2.proto", "sync_v1.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let definitions = protox::compile(FILES, [FOLDER])?;
    tonic_prost_build::configure().build_server(false).compile_fds(definitions)?;
    Ok(())
}
