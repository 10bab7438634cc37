//! SDKs that others wrote, unmodified: rtc-node's own suite, the server SDK, and
//! a gRPC client that knows nothing but reflection.

use headwater_e2e::dev::Dev;

#[test]
fn rtc_nodes_own_suite_passes_in_v1() {
    let dev = Dev::start(&[]).unwrap();
    println!("{}", dev.run("rtc_node_suite.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn rtc_nodes_own_suite_passes_in_v0() {
    let dev = Dev::start(&["--set", "gateway.livekit.v1=false"]).unwrap();
    println!("{}", dev.run("rtc_node_suite.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn the_server_sdk_manages_rooms_and_people() {
    let dev = Dev::start(&[]).unwrap();
    println!("{}", dev.run("server_sdk.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn the_api_is_found_by_reflection() {
    let dev = Dev::start(&[]).unwrap();
    let address = format!("http://127.0.0.1:{}", dev.api_port);
    println!("{}", dev.run("reflection.mjs", &[&address]).unwrap());
}
