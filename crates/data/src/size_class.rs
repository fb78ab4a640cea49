//! Allocator size classes: what a request of `n` bytes really takes.
//!
//! The server runs on jemalloc, whose classes are multiples of 16 up to 128 bytes and four steps
//! per doubling above. Collections that grow ask for a whole class, so that the slack the allocator
//! would waste serves the next insert; the same table is what `memory_bytes` counts with. With
//! another allocator the figures are close, never wrong for safety: capacities are real sizes.

/// The size of the allocation that a request of `bytes` gets; 0 for none.
pub fn class_size(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => (bytes + 15) & !15,
        _ => {
            let step = 1usize << ((bytes - 1).ilog2() - 2);
            (bytes + step - 1) & !(step - 1)
        }
    }
}

/// Numbers the classes of 16 bytes and more, so that a capacity fits one byte of a header.
/// `size` must be a class of at least 16 bytes.
pub(crate) fn class_index(size: usize) -> u8 {
    if size <= 128 {
        (size / 16) as u8
    } else {
        let group = (size - 1).ilog2() as usize - 7;
        let step = (size - (128 << group)) / (32 << group);
        (8 + group * 4 + step) as u8
    }
}

/// The inverse of [`class_index`].
pub(crate) fn class_of_index(index: u8) -> usize {
    let index = index as usize;
    if index <= 8 {
        index * 16
    } else {
        let (group, step) = ((index - 9) / 4, (index - 9) % 4);
        (128 << group) + (step + 1) * (32 << group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_jemalloc() {
        let expected = [
            (1, 8),
            (8, 8),
            (9, 16),
            (16, 16),
            (17, 32),
            (100, 112),
            (128, 128),
            (129, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1000, 1024),
            (1025, 1280),
            (4097, 5120),
            (8192, 8192),
            (8193, 10240),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, 5 << 18),
        ];
        for (bytes, class) in expected {
            assert_eq!(class_size(bytes), class, "{bytes}");
        }
    }

    #[test]
    fn an_index_names_its_class() {
        let mut size = 16;
        let mut previous = 0;
        while size < 1 << 32 {
            let index = class_index(size);
            assert_eq!(index, previous + 1);
            assert_eq!(class_of_index(index), size);
            previous = index;
            size = class_size(size + 1);
        }
    }
}
