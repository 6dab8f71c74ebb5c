//! The fan-out within one process keeps its promises.

use std::sync::Arc;
use store_conformance::fanout::Pair;
use store_memory::MemoryFanout;

fn open() -> Pair {
    let one = Arc::new(MemoryFanout::default());
    Pair::new(one.clone(), one)
}

store_conformance::fanout!(open());
