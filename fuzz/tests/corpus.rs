//! The kept corpus, and a little time for inputs that nobody has seen before.

use std::time::Duration;

use clinch_fuzz::{TARGETS, corpus, run};

/// For each target, on top of its corpus.
const TIME: Duration = Duration::from_millis(300);

#[test]
fn no_decoder_breaks_on_its_corpus_or_on_what_is_near_it() {
    // Another seed each day of the process's life: the corpus keeps what was found.
    let seed = u64::from(std::process::id());
    for (name, target) in TARGETS {
        let kept = corpus(name).unwrap();
        assert!(!kept.is_empty(), "{name} has no corpus");
        let report = run(*target, &kept, seed, TIME);
        let broken: Vec<_> = report
            .broken
            .iter()
            .map(|(input, said)| (said, String::from_utf8_lossy(input)))
            .collect();
        assert!(broken.is_empty(), "{name}, seed {seed}: {broken:?}");
        assert!(report.tried > 500, "{name}: {} inputs", report.tried);
    }
}

#[test]
fn a_decoder_that_breaks_is_found_out() {
    fn broken(bytes: &[u8]) -> String {
        assert!(!bytes.windows(2).any(|w| w == [0xff, 0x00]), "found it");
        format!("{:?}", bytes.first())
    }
    let report = run(broken, &[vec![0xff]], 1, Duration::from_secs(20));
    assert_eq!(report.broken.len(), 1);
    assert_eq!(report.broken[0].1, "found it");
}
