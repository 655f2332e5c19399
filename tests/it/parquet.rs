//! Parquet files of image datasets, without the feature `parquet`; what they are read as, gdrd-core's own tests say.

use gdrd_tests::{Bench, Said};

use crate::gdrd;

#[test]
fn the_kind_is_explained() {
    let said = Said::by(gdrd(&Bench::empty()).args(["kinds", "parquet"])).with_code(0);
    assert!(said.stdout.contains("`cargo build --release --features parquet`"), "{said:#?}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_the_feature_says_how_to_get_it() {
    let bench = Bench::empty();
    let file = gdrd_tests::root().join("tests/golden/readers/faces.parquet");
    let said = Said::by(gdrd(&bench).args(["data", "inspect"]).arg(file));
    assert_ne!(said.code, Some(0), "{said:#?}");
    let expected = "this gdrd is built without Parquet files; `cargo build --release --features parquet` builds one";
    assert!(said.stderr.contains(expected), "{said:#?}");
}
