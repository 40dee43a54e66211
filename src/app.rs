//! The composition root: the only place that builds adapters and plugs them into ports.
