//! How the library is linked.

fn main() {
    // Its constructor runs before those of all other libraries, see `random`.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,initfirst");
    println!("cargo::rerun-if-changed=build.rs");
}
