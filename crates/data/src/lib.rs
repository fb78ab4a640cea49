//! Value types and their compact encodings.
