//! Randomness: one stream, seeded by the log, drawn in the order of the schedule.

use crate::turn::{Op, begin};
use crate::world::world;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The generator's state. A draw takes its own stream of ChaCha20 (RFC 8439)
/// under the current key, so forked processes never see the same bytes.
#[repr(C)]
pub(crate) struct Stream {
    key: [u8; 32],
    draws: u64,
    bytes: u64,
}

impl Stream {
    /// Mixes fresh entropy from the log into the key.
    pub(crate) fn reseed(&mut self, seed: &[u8; 32]) {
        let mut next = [0; 32];
        self.draw(&mut next);
        for (k, (a, b)) in self.key.iter_mut().zip(next.iter().zip(seed)) {
            *k = a ^ b;
        }
    }

    /// Bytes drawn so far.
    pub(crate) fn drawn(&self) -> u64 {
        self.bytes
    }

    fn draw(&mut self, out: &mut [u8]) {
        let mut rng = ChaCha20Rng::from_seed(self.key);
        rng.set_stream(self.draws);
        self.draws += 1;
        self.bytes += out.len() as u64;
        rng.fill_bytes(out);
    }
}

/// Fills `out` from the agreed stream. One operation.
pub(crate) fn fill(out: &mut [u8]) {
    begin(Op::Random);
    world().random.draw(out);
}

/// A number below `bound`, or any 32-bit number when it is 0 (arc4random(3)).
pub(crate) fn number(bound: u32) -> u32 {
    // Rejection keeps the distribution even; the limit is a multiple of bound.
    let limit = if bound == 0 {
        0
    } else {
        u32::MAX - u32::MAX % bound
    };
    loop {
        let mut bytes = [0; 4];
        fill(&mut bytes);
        let value = u32::from_le_bytes(bytes);
        if bound == 0 {
            return value;
        }
        if value < limit {
            return value % bound;
        }
    }
}

/// Replaces the 16 bytes that the kernel made for this program image (getauxval(3),
/// `AT_RANDOM`), and if the caller is the `first` code of the image, also what the
/// C library has made of them.
pub(crate) fn replace_kernels(first: bool) {
    // SAFETY: getauxval has no preconditions.
    let place = unsafe { libc::getauxval(libc::AT_RANDOM) } as *mut [u8; 16];
    if !place.is_null() {
        // SAFETY: the kernel put 16 bytes there, on the writable stack, and nobody
        // else runs while the library is loaded.
        fill(unsafe { &mut *place });
    }
    if first {
        replace_guards();
    }
}

/// Replaces the stack guard and the mask of kept pointers. Both are left behind on
/// stacks, and programs do write such leavings out (padding between records).
///
/// Only from the constructor of this library, which runs before all others
/// (`-z initfirst`): the frames below it are the dynamic linker's, which have no
/// guards, and no pointer has been masked yet. Threads inherit both.
fn replace_guards() {
    let mut words = [0u64; 2];
    for word in &mut words {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        *word = u64::from_le_bytes(bytes);
    }
    // The lowest byte of the guard ends strings.
    let (guard, mask) = (words[0] & !0xff, words[1]);
    // SAFETY: the thread control block's `stack_guard` and `pointer_guard`, whose
    // places are part of the ABI of x86-64 (compilers use the first); see above
    // for why nobody depends on the old values.
    unsafe {
        core::arch::asm!(
            "mov fs:[0x28], {guard}",
            "mov fs:[0x30], {mask}",
            guard = in(reg) guard,
            mask = in(reg) mask,
            options(nostack, preserves_flags),
        );
    }
}
