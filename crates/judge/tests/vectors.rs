//! The reference vectors: another implementation's numbers, to 1e-9.

use judge::check_vectors;

const VECTORS: &str = include_str!("vectors.json");

#[test]
fn all_reference_vectors_agree() {
    match check_vectors(VECTORS) {
        Ok(count) => assert!(count >= 80, "{count} cases"),
        Err(difference) => panic!("{difference}"),
    }
}

#[test]
fn a_changed_number_is_found() {
    let changed = VECTORS.replacen("\"Healthy\"", "\"Expired\"", 1);
    assert_ne!(changed, VECTORS);
    let difference = check_vectors(&changed).expect_err("it differs");
    assert_eq!(difference.kind, "judge");
    assert!(check_vectors("{}").is_err());
}
