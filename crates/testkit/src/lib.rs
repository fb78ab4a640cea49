//! Talk-file runner and test clients.
