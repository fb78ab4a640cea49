//! Shards, entries, expiry, eviction, lock plans, transactions, waiters, watches.
