//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

const PROTOS: [&str; 4] = ["evaluation_v1.proto", "evaluation_v2.proto", "sync_v1.proto", "health_v1.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(descriptors)?;
    Ok(())
}
