//! Fixed tables of plain records in the region, and intrusive lists in them.

use core::marker::PhantomData;
use core::ops::{Index, IndexMut};
use core::ptr::NonNull;

/// A type that may live in the region.
///
/// # Safety
///
/// Every bit pattern must be a valid value (so that zeroed and foreign pages
/// are valid) and there must be no padding (so that equal operations leave
/// equal bytes).
pub(crate) unsafe trait Record: Copy {
    /// The value of untouched memory.
    fn zeroed() -> Self {
        // SAFETY: every bit pattern is valid for a Record, also all zeros.
        unsafe { core::mem::zeroed() }
    }
}

// SAFETY: integers accept every bit pattern and have no padding.
unsafe impl Record for u8 {}
// SAFETY: as above.
unsafe impl Record for u16 {}
// SAFETY: as above.
unsafe impl Record for u32 {}
// SAFETY: as above.
unsafe impl Record for i32 {}
// SAFETY: as above.
unsafe impl Record for u64 {}
// SAFETY: an array has the validity of its elements and adds no padding.
unsafe impl<T: Record, const N: usize> Record for [T; N] {}

/// Declares a `repr(C)` struct as a [`Record`], refusing padding at compile
/// time.
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)* }

        const _: () = {
            const fn is_record<T: $crate::table::Record>() {}
            $(is_record::<$type>();)*
            assert!(
                size_of::<$name>() == 0 $(+ size_of::<$type>())*,
                "a record must not contain padding"
            );
        };
        // SAFETY: all fields are records and the assertion above excludes padding.
        unsafe impl $crate::table::Record for $name {}
    };
}
pub(crate) use record;

/// View of one table in the region.
///
/// The view is a pointer of this process; the table's content never is.
pub(crate) struct Table<T> {
    base: NonNull<T>,
    len: u32,
    own: PhantomData<T>,
}

impl<T: Record> Table<T> {
    /// # Safety
    ///
    /// `base` must be aligned and point to `len` records that stay mapped and
    /// that nothing else accesses while methods of this view run.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: u32) -> Self {
        debug_assert!(base.as_ptr().addr().is_multiple_of(align_of::<T>()));
        Table {
            base: base.cast(),
            len,
            own: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }
}

impl<T: Record> Index<u32> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        assert!(index < self.len, "record index is outside its table");
        // SAFETY: in bounds by the check; `new` promised mapped, unshared
        // records, and every bit pattern is valid for a Record.
        unsafe { self.base.add(index as usize).as_ref() }
    }
}

impl<T: Record> IndexMut<u32> for Table<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        assert!(index < self.len, "record index is outside its table");
        // SAFETY: as in `index`; `&mut self` makes this the only reference.
        unsafe { self.base.add(index as usize).as_mut() }
    }
}

record! {
    /// Ends of an intrusive list; index 0 means none.
    pub(crate) struct List {
        pub(crate) head: u32,
        pub(crate) tail: u32,
        pub(crate) len: u32,
    }
}

record! {
    /// A record's place in a [`List`].
    pub(crate) struct Link {
        pub(crate) next: u32,
        pub(crate) prev: u32,
    }
}

/// A record that can be a member of the list kind `K`.
pub(crate) trait Linked<const K: usize>: Record {
    fn link(&mut self) -> &mut Link;
    fn next(&self) -> u32;
}

impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.head == 0
    }

    pub(crate) fn push_back<const K: usize, T: Linked<K>>(
        &mut self,
        table: &mut Table<T>,
        id: u32,
    ) {
        *table[id].link() = Link {
            next: 0,
            prev: self.tail,
        };
        if self.tail == 0 {
            self.head = id;
        } else {
            table[self.tail].link().next = id;
        }
        self.tail = id;
        self.len += 1;
    }

    pub(crate) fn push_front<const K: usize, T: Linked<K>>(
        &mut self,
        table: &mut Table<T>,
        id: u32,
    ) {
        *table[id].link() = Link {
            next: self.head,
            prev: 0,
        };
        if self.head == 0 {
            self.tail = id;
        } else {
            table[self.head].link().prev = id;
        }
        self.head = id;
        self.len += 1;
    }

    /// Takes `id`, which must be a member, out of the list.
    pub(crate) fn remove<const K: usize, T: Linked<K>>(&mut self, table: &mut Table<T>, id: u32) {
        let link = *table[id].link();
        if link.prev == 0 {
            self.head = link.next;
        } else {
            table[link.prev].link().next = link.next;
        }
        if link.next == 0 {
            self.tail = link.prev;
        } else {
            table[link.next].link().prev = link.prev;
        }
        *table[id].link() = Link { next: 0, prev: 0 };
        self.len -= 1;
    }

    pub(crate) fn pop_front<const K: usize, T: Linked<K>>(
        &mut self,
        table: &mut Table<T>,
    ) -> Option<u32> {
        let id = self.head;
        if id == 0 {
            return None;
        }
        self.remove(table, id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    record! {
        struct Node {
            link: Link,
        }
    }

    impl Linked<0> for Node {
        fn link(&mut self) -> &mut Link {
            &mut self.link
        }
        fn next(&self) -> u32 {
            self.link.next
        }
    }

    #[test]
    fn list_is_fifo_and_removal_anywhere_keeps_the_rest_in_order() {
        let mut memory = vec![0u64; 16];
        let base = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: the vector holds 16 records of 8 bytes and outlives the table.
        let mut table: Table<Node> = unsafe { Table::new(base, 16) };
        let mut list = List::zeroed();
        for id in 1..=5 {
            list.push_back(&mut table, id);
        }
        list.push_front(&mut table, 6);
        list.remove(&mut table, 1);
        list.remove(&mut table, 6);
        list.remove(&mut table, 3);
        list.remove(&mut table, 5);
        assert_eq!(table[list.head].next(), 4);
        assert_eq!(list.pop_front(&mut table), Some(2));
        assert_eq!(list.pop_front(&mut table), Some(4));
        assert_eq!(list.pop_front(&mut table), None);
        assert!(list.is_empty() && list.len == 0 && table.len() == 16);
    }
}
