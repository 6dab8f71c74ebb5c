//! The lease and fencing protocol, checked in every interleaving.
//!
//! Two nodes, one shard, one partition of it. The store lets a holder go at any moment, since an
//! owner may be paused for any time; a commit that was sent may arrive at any later moment, also
//! after its sender was succeeded. What must hold: every write that is applied was decided upon
//! all writes before it.

use stateright::{Checker, Model, Property};

const NODES: usize = 2;
const EPOCHS_MAX: u8 = 3;
const WRITES_MAX: usize = 3;

/// What a node knows. It is not told when its lease runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Idle,
    Acquired { epoch: u8 },
    Fenced { epoch: u8 },
    Read { epoch: u8, writes: u8 },
    Sent { epoch: u8 },
}

/// A commit, sent and not yet applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Late {
    epoch: u8,
    /// How many writes its sender had seen.
    seen: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    nodes: [Node; NODES],
    holder: Option<u8>,
    epoch: u8,
    fence: u8,
    writes: Vec<Late>,
    in_flight: Vec<Late>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    /// The holder's record expires.
    Expire,
    Acquire(usize),
    Fence(usize),
    Read(usize),
    Send(usize),
    /// A commit reaches the store.
    Arrive(usize),
    /// A node notices that its time is up.
    Stop(usize),
}

struct Protocol {
    /// Whether owners fence before they read, and commits carry the fence.
    fences: bool,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            nodes: [Node::Idle; NODES],
            holder: None,
            epoch: 0,
            fence: 0,
            writes: Vec::new(),
            in_flight: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.holder.is_some() {
            actions.push(Action::Expire);
        }
        for (at, node) in state.nodes.iter().enumerate() {
            match node {
                Node::Idle if state.holder.is_none() => actions.push(Action::Acquire(at)),
                Node::Idle => {}
                Node::Acquired { .. } => actions.push(Action::Fence(at)),
                Node::Fenced { .. } => actions.push(Action::Read(at)),
                Node::Read { .. } => actions.push(Action::Send(at)),
                Node::Sent { .. } => {}
            }
            if *node != Node::Idle {
                actions.push(Action::Stop(at));
            }
        }
        actions.extend((0..state.in_flight.len()).map(Action::Arrive));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Expire => state.holder = None,
            Action::Acquire(at) => {
                state.epoch += 1;
                state.holder = Some(at as u8);
                state.nodes[at] = Node::Acquired { epoch: state.epoch };
            }
            Action::Fence(at) => {
                let Node::Acquired { epoch } = state.nodes[at] else { return None };
                state.nodes[at] = if self.fences && epoch < state.fence {
                    Node::Idle
                } else {
                    state.fence = state.fence.max(epoch);
                    Node::Fenced { epoch }
                };
            }
            Action::Read(at) => {
                let Node::Fenced { epoch } = state.nodes[at] else { return None };
                state.nodes[at] = Node::Read { epoch, writes: state.writes.len() as u8 };
            }
            Action::Send(at) => {
                let Node::Read { epoch, writes } = state.nodes[at] else { return None };
                state.in_flight.push(Late { epoch, seen: writes });
                state.in_flight.sort_unstable();
                state.nodes[at] = Node::Sent { epoch };
            }
            Action::Arrive(at) => {
                let late = state.in_flight.remove(at);
                let refused = self.fences && late.epoch < state.fence;
                if !refused {
                    state.fence = state.fence.max(late.epoch);
                    state.writes.push(late);
                }
                for node in &mut state.nodes {
                    if *node == (Node::Sent { epoch: late.epoch }) {
                        *node = if refused {
                            Node::Idle
                        } else {
                            Node::Read { epoch: late.epoch, writes: state.writes.len() as u8 }
                        };
                    }
                }
            }
            Action::Stop(at) => state.nodes[at] = Node::Idle,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no write is lost", |_, state: &State| {
                let decided = state.writes.iter().map(|write| usize::from(write.seen));
                decided.eq(0..state.writes.len())
            }),
            Property::sometimes("two owners have written", |_, state: &State| {
                state.writes.iter().any(|write| write.epoch != state.writes[0].epoch)
            }),
            Property::sometimes("a commit is late", |_, state: &State| {
                state.in_flight.iter().any(|late| late.epoch < state.fence)
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.epoch <= EPOCHS_MAX && state.writes.len() <= WRITES_MAX
    }
}

#[test]
fn with_fences_no_write_is_lost() {
    let checked = Protocol { fences: true }.checker().spawn_bfs().join();
    println!("{} states, all without a lost write", checked.unique_state_count());
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1_000, "the model is too small to say anything");
}

#[test]
fn without_fences_the_model_finds_a_lost_write() {
    let checked = Protocol { fences: false }.checker().spawn_bfs().join();
    let path = checked.discovery("no write is lost").expect("a lost write");
    println!("{path}");
    // A paused owner's commit that arrives after its successor has read.
    assert!(path.into_actions().iter().any(|action| matches!(action, Action::Arrive(_))));
}
