//! G1 to G10 of the protocol, each through a real socket, on both databases, with the real agent.

mod crash;
mod durable;
mod independence;
mod isolation;
mod order;
mod shape;
mod stop;
