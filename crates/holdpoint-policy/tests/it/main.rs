//! Integration tests of policies: what operators write, what actions get.

mod answers;
mod calls;
mod faults;
mod guards;
mod slicing;
mod starter;
mod suggest;
