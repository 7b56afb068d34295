//! Tests of the analysers from outside. Must never look into them.

mod calls;
mod corpus;
mod laws;
mod limits;
mod texts;
