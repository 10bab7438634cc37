//! Compiles the `.proto` files with protox, so that no protoc is needed, and
//! keeps the descriptor set for gRPC reflection.

use std::path::Path;

const FILES: [&str; 6] = [
    "headwater/v1/room.proto",
    "headwater/v1/room_service.proto",
    "headwater/v1/cluster_service.proto",
    "headwater/control/v1/placement_service.proto",
    "headwater/node/v1/session.proto",
    "headwater/node/v1/node_service.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=headwater");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = std::env::var("OUT_DIR")?;
    let path = Path::new(&out).join("descriptors.bin");
    std::fs::write(&path, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
