//! The rivals' types, made by their own generators as they come.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    full_schema_by_prost()?;
    hot_messages_by_buffa()
}

/// The full schema as prost generates it when it is not told to box anything. (The crate's own
/// generated types are boxed where it matters.)
fn full_schema_by_prost() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto";
    println!("cargo::rerun-if-changed={proto}");
    let set = protox::compile([format!("{proto}/agent/v1/service.proto")], [proto])?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}

/// The full schema takes buffa 84 seconds of CPU to build and decodes no faster than this.
fn hot_messages_by_buffa() -> Result<(), Box<dyn std::error::Error>> {
    let set =
        protox::Compiler::new(["proto"])?.open_file("delta.proto")?.encode_file_descriptor_set();
    let path = format!("{}/delta.fds", std::env::var("OUT_DIR")?);
    std::fs::write(&path, set)?;
    buffa_build::Config::new()
        .descriptor_set(path)
        .files(&["delta.proto"])
        .include_file("buffa.rs")
        .compile()
}
