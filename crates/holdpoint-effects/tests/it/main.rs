//! Tests of the analysers from outside. Must never look into them.

mod corpus;
mod laws;
