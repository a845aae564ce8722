//! What the compiler says about mistakes that users make.

#[test]
fn mistakes_are_explained_where_they_are_made() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}

#[cfg(feature = "typescript")]
#[test]
fn a_type_that_typescript_cannot_be_told_is_named() {
    trybuild::TestCases::new().compile_fail("tests/mistakes_typescript/*.rs");
}
