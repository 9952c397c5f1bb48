//! `CRANE_FUZZ_TARGET=NAME crane-fuzz [libFuzzer's arguments]`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("CRANE_FUZZ_TARGET").unwrap_or_default();
    let found = crane_fuzz::TARGETS.iter().find(|t| t.0 == wanted);
    let names: Vec<_> = crane_fuzz::TARGETS.iter().map(|t| t.0).collect();
    found
        .unwrap_or_else(|| panic!("CRANE_FUZZ_TARGET is one of {names:?}"))
        .1
});

fuzz_target!(|data: &[u8]| TARGET(data));
