//! A ring whose other side writes what it likes.

use crate::Choices;
use crane_channel::layout::RingControl;
use crane_channel::output::Output;
use crane_channel::ring::{Consumer, Producer};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;

const LEN: usize = 4096;

/// Memory of a ring between two pages that must not be touched.
fn memory() -> *mut u8 {
    static BASE: OnceLock<usize> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                3 * LEN,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        };
        let ring = base.expect("memory").cast::<u8>().wrapping_add(LEN);
        // SAFETY: the page in the middle of the mapping made above, which is
        // never unmapped.
        unsafe {
            let all = MprotectFlags::READ | MprotectFlags::WRITE;
            rustix::mm::mprotect(ring.cast(), LEN, all).expect("memory");
        }
        ring as usize
    });
    *base as *mut u8
}

/// Reads records out of a ring that was written over, and puts records into one
/// whose positions were.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let base = memory();
    let control = RingControl::default();
    let position = |choices: &mut Choices<'_>| {
        let near = u64::from(choices.word());
        match choices.byte() % 4 {
            0 => near,
            1 => near * 8,
            2 => u64::MAX - near,
            _ => u64::from_le_bytes([choices.byte(); 8]),
        }
    };
    // The consumer's own position is one that it wrote itself.
    let begin = position(&mut choices) & !7;
    control.tail.store(begin, SeqCst);
    // SAFETY: the only ends, of memory that stays.
    let (mut consumer, mut producer) = unsafe {
        (
            Consumer::new(&control, base, LEN),
            Producer::new(&control, base, LEN),
        )
    };
    control.head.store(begin, SeqCst);
    while !choices.is_empty() {
        match choices.byte() % 5 {
            0 => control.head.store(position(&mut choices), SeqCst),
            1 => {
                let at = usize::from(choices.word()) % LEN;
                let bytes = choices.bytes(16.min(LEN - at));
                // SAFETY: within the page; nobody holds a reference into it now.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(at), bytes.len()) };
            }
            2 => {
                let mut records = 0;
                while let Ok(Some((kind, bytes))) = consumer.pop() {
                    let _ = Output::decode(kind, bytes);
                    records += bytes
                        .iter()
                        .fold(1, |sum: u64, &b| sum + u64::from(b) / 256);
                    assert!(records <= (LEN / 8) as u64, "more records than room");
                }
                consumer.release();
            }
            3 => control.tail.store(position(&mut choices), SeqCst),
            _ => {
                // The producer's position is its own again.
                control.head.store(begin, SeqCst);
                let bytes = choices.bytes(usize::from(choices.0.first().copied().unwrap_or(0)));
                let _ = producer.push(7, &[bytes]);
            }
        }
    }
}
