//! What the core promises, checked through its public face.

mod matrix;
mod world;
