//! Kernels for GPUs, compiled as C++ and run on the host: their places and sums, where no GPU is. Needs a C++20 compiler: `c++`, or what
//! `CXX` names.

use std::process::Command;

use gdrd_tests::root;

#[test]
fn kernels_give_what_their_definitions_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("on_the_host");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let source = root().join("tests/cuda/on_the_host.cpp");
    let compiled =
        Command::new(&compiler).args(["-std=c++20", "-O1", "-pthread", "-o"]).arg(&program).arg(source).output();
    let compiled =
        compiled.unwrap_or_else(|error| panic!("expected a C++20 compiler, found none as `{compiler}`: {error}"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&program).output().expect("the program that was just made");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
