//! Workers, connections, config, dispatch.
