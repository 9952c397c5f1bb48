//! What all replicas must have in common: programs, files, settings.
//!
//! The engine does not know what the lines mean. It compares them and names
//! those that differ. Lines that begin with `cwd ` are about files that the
//! program may never read: they are told, and do no harm.

use std::collections::BTreeMap;

/// Names that are told; the number of the others follows.
const SHOWN: usize = 10;
/// The first word of lines about private directories.
const PRIVATE: &str = "private";

/// The names of the lines (`name`, a tab, `value`) that two texts do not have
/// in common.
pub fn differences(ours: &[u8], theirs: &[u8]) -> Vec<String> {
    let (ours, theirs) = (
        String::from_utf8_lossy(ours),
        String::from_utf8_lossy(theirs),
    );
    let (mut ours, mut theirs) = (lines(&ours), lines(&theirs));
    if ours.contains_key(PRIVATE) || theirs.contains_key(PRIVATE) {
        for side in [&mut ours, &mut theirs] {
            side.retain(|name, _| name.split(' ').next() != Some(PRIVATE));
        }
    }
    let mut names: Vec<String> = Vec::new();
    for (name, value) in &ours {
        match theirs.get(name) {
            None => names.push(format!("{name} (only here)")),
            Some(other) if other != value => names.push((*name).to_owned()),
            Some(_) => {}
        }
    }
    let only_there = theirs.keys().filter(|name| !ours.contains_key(*name));
    names.extend(only_there.map(|name| format!("{name} (only there)")));
    // A stable sort: what is refused for comes first.
    names.sort_by_key(|name| is_harmless(name));
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        names.truncate(SHOWN);
        names.push(format!("and {more} more"));
    }
    names
}

/// Whether a difference in this line is no reason to part.
pub fn is_harmless(name: &str) -> bool {
    name.starts_with("cwd ")
}

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .map(|line| line.split_once('\t').unwrap_or((line, "")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_named() {
        let ours = b"file /a\t1\nfile /b\t2\nsetting x\ty\n";
        let theirs = b"file /a\t1\nfile /b\t3\nfile /c\t4\n";
        assert_eq!(
            differences(ours, theirs),
            ["file /b", "setting x (only here)", "file /c (only there)"]
        );
        assert_eq!(
            differences(b"cwd a\t1\nfile /b\t1\n", b"cwd a\t2\nfile /b\t2\n"),
            ["file /b", "cwd a"]
        );
        assert!(differences(ours, ours).is_empty());
        assert_eq!(differences(b"", b"a\t1\n"), ["a (only there)"]);
    }

    #[test]
    fn what_is_still_to_be_copied_is_not_compared() {
        let complete = b"file /a\t1\nprivate /b\t2\nprivate /b/c\t3\n";
        let without = b"file /a\t1\nprivate\tto be copied\n";
        assert!(differences(complete, without).is_empty());
        assert!(differences(without, complete).is_empty());
        assert_eq!(
            differences(b"file /a\t2\nprivate\t\n", complete),
            ["file /a"]
        );
        assert_eq!(
            differences(complete, b"file /a\t1\nprivate /b\t2\n"),
            ["private /b/c (only here)"]
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let many: String = (0..40).map(|n| format!("file /{n:02}\t1\n")).collect();
        let names = differences(many.as_bytes(), b"");
        assert_eq!(names.len(), SHOWN + 1);
        assert_eq!(names[SHOWN], "and 30 more");
    }
}
