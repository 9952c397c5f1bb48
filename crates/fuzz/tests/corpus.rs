//! Every input of the corpus, with which a target once failed or which reaches
//! code that others do not.

use std::path::Path;

fn repeat(target: &str) {
    let known = crane_fuzz::TARGETS.iter().find(|t| t.0 == target);
    let run = known.expect("a target").1;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut inputs = 0;
    for file in std::fs::read_dir(folder).expect("a folder of the corpus") {
        let path = file.expect("a file").path();
        // Told by the test's output when one fails.
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a file"));
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
}

macro_rules! repeated {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            repeat(stringify!($target));
        })*

        #[test]
        fn every_target_is_repeated() {
            let names: Vec<_> = crane_fuzz::TARGETS.iter().map(|t| t.0).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

repeated!(frames consensus entries log checkpoint ring segment);
