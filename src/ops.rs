//! What the operator sees: metrics, health, status.
