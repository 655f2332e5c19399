//! Layers that students and teachers share.
