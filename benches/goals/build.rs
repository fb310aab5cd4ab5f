//! The full schema as prost generates it when it is not told to box anything: the rival of a client
//! that uses prost as it comes. (The crate's own generated types are boxed where it matters.)

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto";
    println!("cargo::rerun-if-changed={proto}");
    let set = protox::compile([format!("{proto}/agent/v1/service.proto")], [proto])?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}
