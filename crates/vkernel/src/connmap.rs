//! From connection numbers to descriptions: open addressing with linear
//! probing; a deletion moves later entries back, so no tombstones pile up.

use crate::table::{Record, Table, record};

record! {
    /// One slot; `desc` 0 means free.
    pub(crate) struct Slot {
        conn: u64,
        desc: u32,
        pad: u32,
    }
}

pub(crate) struct ConnMap {
    slots: Table<Slot>,
}

impl ConnMap {
    /// `slots` must be a power of two in number, and twice the most entries.
    pub(crate) fn new(slots: Table<Slot>) -> Self {
        ConnMap { slots }
    }

    fn mask(&self) -> u32 {
        self.slots.len() - 1
    }

    fn home(&self, conn: u64) -> u32 {
        // Fibonacci hashing: numbers count up per gateway, so that consecutive
        // connections spread evenly.
        let mixed = (conn ^ (conn >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as u32 & self.mask()
    }

    fn find(&self, conn: u64) -> Option<u32> {
        let mut at = self.home(conn);
        loop {
            let slot = &self.slots[at];
            if slot.desc == 0 {
                return None;
            }
            if slot.conn == conn {
                return Some(at);
            }
            at = (at + 1) & self.mask();
        }
    }

    pub(crate) fn get(&self, conn: u64) -> Option<u32> {
        self.find(conn).map(|at| self.slots[at].desc)
    }

    /// `conn` must not be in the map.
    pub(crate) fn insert(&mut self, conn: u64, desc: u32) {
        let mut at = self.home(conn);
        while self.slots[at].desc != 0 {
            at = (at + 1) & self.mask();
        }
        self.slots[at] = Slot { conn, desc, pad: 0 };
    }

    pub(crate) fn remove(&mut self, conn: u64) {
        let Some(mut hole) = self.find(conn) else {
            return;
        };
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.desc == 0 {
                break;
            }
            // An entry may move back only if the hole is not before its home.
            let displaced = at.wrapping_sub(self.home(slot.conn)) & mask;
            let distance = at.wrapping_sub(hole) & mask;
            if displaced >= distance {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = Slot::zeroed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use std::collections::BTreeMap;
    use std::vec;

    #[test]
    fn map_agrees_with_an_ordered_map_under_random_use() {
        let mut memory = vec![0u64; 128];
        let base = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: 64 slots of 16 bytes that outlive the map.
        let mut map = ConnMap::new(unsafe { Table::new(base, 64) });
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for step in 1..200_000u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let conn = (random >> 33) % 40;
            if model.remove(&conn).is_some() {
                map.remove(conn);
            } else if model.len() < 32 {
                model.insert(conn, step);
                map.insert(conn, step);
            }
            let probe = (random >> 20) % 40;
            assert_eq!(map.get(probe), model.get(&probe).copied());
        }
        for conn in model.keys() {
            map.remove(*conn);
        }
        assert!(memory.iter().all(|word| *word == 0));
    }
}
