//! Entries of the log: epochs of another version, or damaged before they came
//! into it.

use crane_channel::epoch::{Batch, Entry, Event};
use crane_gateway::filter::Filter;

/// An entry through the filter, and again: what came out of the filter is an
/// entry that can be read to its end and counts as it is on a replica that has
/// the filter's state from before.
pub fn run(data: &[u8]) {
    let readable = walk(data);
    let _ = Batch::decode(data).map(|batch| batch.events().count());
    let (mut filter, mut out) = (Filter::new(), Vec::new());
    let Ok(changed) = filter.admit(data, &mut out) else {
        return;
    };
    let admitted: &[u8] = if changed { &out } else { data };
    // The filter does not look at events, which a leader has checked.
    let Some(events) = walk(admitted) else {
        assert_eq!(readable, None, "the filter spoilt an entry");
        return;
    };
    let (mut fresh, mut second) = (Filter::new(), Vec::new());
    let again = fresh.admit(admitted, &mut second);
    // What ends an incarnation is itself an event: it is not told twice. That its
    // connections are reset may be, which does nothing the second time.
    if again == Ok(true) {
        assert!(walk(&second).expect("again") <= events);
    }
    // Offered again, nothing that is numbered counts.
    let mut third = Vec::new();
    if filter
        .admit(admitted, &mut third)
        .is_ok_and(|changed| !changed)
    {
        let entry = Entry::decode(admitted).expect("read before");
        for batch in entry.batches().flatten() {
            assert!(batch.head.gateway == 0 || batch.head.events == 0);
        }
    }
}

/// Reads all of an entry; the number of its events that are no resets, `None` when
/// it is none.
fn walk(bytes: &[u8]) -> Option<usize> {
    let entry = Entry::decode(bytes).ok()?;
    let mut count = 0;
    for batch in entry.batches() {
        for event in batch.ok()?.events() {
            let event: Event<'_> = event.ok()?;
            let mut again = Vec::new();
            event.encode(|b| again.extend_from_slice(b));
            assert_eq!(again.len(), event.encoded_len());
            count += usize::from(!matches!(event, Event::Reset { .. }));
        }
    }
    Some(count)
}
