//! Files of a box. To come.

/// The files of a box.
#[derive(Clone, Debug)]
pub struct Workspace {}
