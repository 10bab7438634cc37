//! The WHIP and WHEP doors with clients that are not ours: Chromium with the npm
//! package whip-whep, aiortc, and FFmpeg's WHIP muxer.

use std::path::Path;

use headwater_e2e::dev::Dev;

#[test]
fn a_browser_comes_in_and_goes_out_without_an_sdk() {
    let dev = Dev::start(&[]).unwrap();
    println!("{}", dev.run("doors.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn aiortc_and_ffmpeg_come_in_and_aiortc_goes_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/e2e-python/bin/python3");
    assert!(python.is_file(), "the Python packages are not installed; cargo xtask test does it");
    let dev = Dev::start(&[]).unwrap();
    let python = python.to_str().unwrap();
    println!("{}", dev.run("doors_others.mjs", &[python]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}
