//! The command table and one file per command family.
